package ledger

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// TestCountMissed: a delivery that came after a change has told of it, however long the count then waits for a connection; one that came before tells nothing.
func TestCountMissed(t *testing.T) {
	t.Parallel()
	l := open(t)
	enqueue(t, l, FromWebhook, "told before")
	l.exec(t, `UPDATE queue SET told_at = told_at - interval '1 hour'`)
	l.exec(t, `INSERT INTO webhook (project, id, since) VALUES (1, 7, now() - interval '1 hour'), (2, 0, now() - interval '1 hour'), (3, 8, now() + interval '1 hour')`)
	began := time.Now()
	enqueue(t, l, FromWebhook, "told")
	enqueue(t, l, FromWAL, "told before", "never told")

	conf := l.pool.Config()
	conf.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) {
		<-time.After(time.Since(began)) // longer than the delivery was under way
		return true, nil
	}
	slow, err := pgxpool.NewWithConfig(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(slow.Close)
	var changes []Announced
	for _, key := range []string{"told", "told before", "never told", "not in the queue"} {
		for project := range int64(4) { // two have no webhook, and one not yet then
			changes = append(changes, Announced{Project: project, Key: key, After: began, Found: began})
		}
	}
	n, err := (&Ledger{pool: slow}).CountMissed(t.Context(), changes)
	if err != nil || n != 3 {
		t.Errorf("%d were missed, %v", n, err)
	}
	hooks, err := l.Webhooks(t.Context())
	if err != nil || !hooks[1].Silent() || hooks[2].Silent() || hooks[3].Silent() {
		t.Errorf("it is noted as %+v, %v", hooks, err)
	}
}
