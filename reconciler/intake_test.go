package reconciler_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
)

// TestCommitThatIsNotSeenYet: a commit is in the stream before other sessions see
// it. A standby that never answers stretches that moment: the transaction is in the
// WAL, and its row still reads as it was. A listener that compares that row with
// the hub and goes on has lost the change.
func TestCommitThatIsNotSeenYet(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t, sandbox.Options{Settings: map[string]string{
		"synchronous_standby_names": "a_standby_that_never_comes", "synchronous_commit": "local"}})
	url, err := server.CreateDatabase(t.Context(), sandbox.Schema{})
	if err != nil {
		t.Fatal(err)
	}
	r := newRigAt(t, url, 2, studio.Delays{})
	r.settled()
	stop := r.run()
	defer stop()
	patched := make(chan int64, 2)
	r.studio.OnPatch(func(task int64, _ json.RawMessage) { patched <- task })

	app, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close(t.Context())
	if _, err := app.Exec(t.Context(), `SET synchronous_commit = on`); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	committed := make(chan error, 1)
	go func() {
		_, err := app.Exec(t.Context(), `UPDATE "Conquest" SET result = 'VICTORY' WHERE id = 'c0'`)
		committed <- err
	}()
	r.eventually(func() bool { return r.ask(`SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')`) })
	// The stream has it, and its row was compared while nobody could see the change.
	r.eventually(func() bool {
		return r.ask(`SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '-- Rows of "Conquest" that changed%' AND query_start > $1)`, begun)
	})
	r.exec(`SELECT pg_cancel_backend($1)`, app.PgConn().PID()) // ends the wait, not the commit
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	select {
	case task := <-patched:
		if task != r.tasks[0] {
			t.Errorf("task %d was starred, want %d", task, r.tasks[0])
		}
	case <-time.After(patience):
		t.Fatal("the change was lost: its task was never starred")
	}
}

// TestProjectsNarrowed: a task that was linked while its project was ours is left
// alone once it is not.
func TestProjectsNarrowed(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, studio.Delays{})
	r.settled()
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
	if err := r.intake.Stream(t.Context(), anyRow); err != nil {
		t.Fatal(err)
	}
	claims, err := r.ledger.Claim(t.Context(), 10, 10)
	if err != nil || len(claims) != 1 {
		t.Fatal(claims, err)
	}
	turner := r.turner(r.client)
	turner.Projects = []int64{r.project + 1}
	before := r.studio.Requests()
	if err := turner.Turn(t.Context(), claims); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, r.studio.Requests()); diff != "" {
		t.Errorf("a task of a project that is not ours was touched: %s", diff)
	}
	if !r.ask(`SELECT d FROM reconciler.hub`) || r.ask(`SELECT EXISTS (SELECT FROM reconciler.queue WHERE want_gen > done_gen)`) {
		t.Error("the hub did not follow the row, or the key is still dirty")
	}
}
