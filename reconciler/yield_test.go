package reconciler

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// TestDeadlockIsOurs: a transaction of the application that locks a rating before its
// conquest, as we do not, and so waits for a turn that waits for it, is not the one that
// the server ends.
func TestDeadlockIsOurs(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, sandbox.Schema{})
	app, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(app.Close)
	for _, sql := range []string{`CREATE SCHEMA reconciler`,
		`INSERT INTO "Conquest" (id, result, philosopher, domain) VALUES ('k', 'VICTORY', 'p', 'd')`,
		`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, philosopher, domain) VALUES ('r', 'k', 'conquest_analysis', 'p', 'd')`} {
		if _, err := app.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	l, err := ledger.Open(t.Context(), url, "reconciler")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	if err := l.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Enqueue(t.Context(), []string{"k"}, ledger.FromWAL); err != nil {
		t.Fatal(err)
	}
	claims, err := l.Claim(t.Context(), 1, 0)
	if err != nil || len(claims) != 1 {
		t.Fatal(claims, err)
	}
	rows := database{Ledger: l, initial: "union"}
	ratings, err := rows.Ratings(t.Context(), []string{"k"})
	if err != nil {
		t.Fatal(err)
	}
	for slow := true; slow; { // until both begin to wait at nearly the same time, however busy the machine is
		tx, err := app.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(context.WithoutCancel(t.Context())) // or the pool never closes
		if _, err := tx.Exec(t.Context(), `UPDATE ml_analysis_rating SET feedback = 'good' WHERE id = 'r'`); err != nil {
			t.Fatal(err)
		}
		theirs := make(chan error, 1)
		ours := rows.Decide(t.Context(), claims, func(states map[string]*state) (change, error) {
			asked := time.Now()
			go func() {
				_, err := tx.Exec(t.Context(), `UPDATE "Conquest" SET "resultNotes" = 'good' WHERE id = 'k'`)
				theirs <- err
			}()
			for waits := false; !waits; {
				if err := app.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits); err != nil {
					return change{}, err
				}
			}
			slow = time.Since(asked) > 200*time.Millisecond
			return change{ratings: aristotle.Rate(*states["k"].row, true, nil, ratings["k"])}, nil
		})
		if err := <-theirs; !slow && (err != nil || !ledger.IsLocked(ours)) {
			t.Errorf("the application's transaction: %v; ours: %v", err, ours)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
