package ledger

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
)

// TestCompareTakesItsTime: what is made of a pair may take longer than a transaction of ours
// may stand idle in all other cases.
func TestCompareTakesItsTime(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, sandbox.Schema{})
	l, err := Open(t.Context(), url, "reconciler", func(conf *pgxpool.Config) {
		conf.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = "1"
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	l.exec(t, `INSERT INTO public."Conquest" (id, philosopher, domain) VALUES ('k', 'p', 'd')`)
	pairs := 0
	err = l.Compare(t.Context(), 0, "", func(Pair) error {
		pairs++
		for idle := false; !idle; { // both transactions have been for longer than that, or were ended
			err := l.pool.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE state LIKE 'idle in transaction%' AND now() - state_change < interval '300 ms') = 0
				FROM pg_stat_activity WHERE datname = current_database()`).Scan(&idle)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || pairs != 1 {
		t.Errorf("%d pairs, %v", pairs, err)
	}
}
