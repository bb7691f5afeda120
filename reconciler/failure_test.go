package reconciler_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// A turn that ends in failure is counted, towards the side that it would have changed: where it cannot read, and where it cannot write the row.
func TestFailuresAreCounted(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, studio.Delays{})
	r.contacted()
	turn := func(from ledger.Source) {
		t.Helper()
		r.exec(`UPDATE reconciler.queue SET run_after = now(), tried_at = NULL`)
		if _, err := r.ledger.Enqueue(t.Context(), []string{"c0"}, from); err != nil {
			t.Fatal(err)
		}
		claims, err := r.ledger.Claim(t.Context(), 1, 1)
		if err != nil || len(claims) != 1 {
			t.Fatal(claims, err)
		}
		if err := r.turner(r.client).Turn(t.Context(), claims); err != nil {
			t.Fatal(err)
		}
	}
	want := func(toStudio, toAristotle float64) {
		t.Helper()
		for to, n := range map[metrics.Direction]float64{metrics.ToLabelStudio: toStudio, metrics.ToAristotle: toAristotle} {
			if got := testutil.ToFloat64(r.metrics.Sync.With(to, metrics.Failure)); got != n {
				t.Errorf("%s: %v failures, want %v", to, got, n)
			}
		}
	}
	// The tasks cannot be read, though Label Studio is there.
	r.studio.Faults(func(q *http.Request) studio.Fault {
		if q.URL.Path == "/api/tasks" || q.URL.Path == "/api/tasks/" {
			return studio.Fault{Kind: studio.FaultStatus, Status: http.StatusInternalServerError}
		}
		return studio.Fault{}
	})
	turn(ledger.FromWAL)
	want(1, 0)
	r.studio.Faults(nil)
	turn(ledger.FromWAL) // ends well
	// A trigger of the application refuses the row.
	r.exec(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'`)
	r.exec(`CREATE TRIGGER refuse BEFORE UPDATE ON "Conquest" FOR EACH ROW EXECUTE FUNCTION refuse()`)
	r.star(r.tasks[0])
	turn(ledger.FromWebhook)
	want(1, 1)
}

// What the application refuses of one row is that key's failure also where the server words it as it
// does a right or a column that is gone: a row-level policy, a mistake in a trigger.
func TestRowIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, studio.Delays{})
	r.contacted()
	r.exec(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.id = ''c0'' THEN RAISE EXCEPTION ''no'' USING ERRCODE = ''42501''; END IF; RETURN NEW; END'`)
	r.exec(`CREATE TRIGGER refuse BEFORE UPDATE ON "Conquest" FOR EACH ROW EXECUTE FUNCTION refuse()`)
	for i, task := range r.tasks {
		r.star(task)
		r.dirty(fmt.Sprint("c", i))
	}
	r.during(r.turner(r.client).Work, func() bool {
		return r.ask(`SELECT (SELECT result = 'VICTORY' FROM "Conquest" WHERE id = 'c1') AND (SELECT attempts > 0 FROM reconciler.queue WHERE key = 'c0')`)
	})
}

// Where nobody says who annotated, no annotated task of a turn counts as read, and whether Label Studio is there is asked once.
func TestPeopleUnknown(t *testing.T) {
	t.Parallel()
	const keys = 3
	r := newRig(t, keys, studio.Delays{})
	r.contacted()
	for _, task := range r.tasks {
		r.star(task)
	}
	r.studio.Faults(func(q *http.Request) studio.Fault {
		if strings.HasPrefix(q.URL.Path, "/api/users") {
			return studio.Fault{Kind: studio.FaultStatus, Status: http.StatusForbidden}
		}
		return studio.Fault{}
	})
	r.dirty("c0", "c1", "c2")
	claims, err := r.ledger.Claim(t.Context(), keys, 0)
	if err != nil || len(claims) != keys {
		t.Fatal(claims, err)
	}
	before := r.studio.Requests()[labelstudio.OpWhoami]
	if err := r.turner(r.client).Turn(t.Context(), claims); err != nil {
		t.Fatal(err)
	}
	if n := r.studio.Requests()[labelstudio.OpWhoami] - before; n != 1 {
		t.Errorf("asked %d times whether Label Studio is there", n)
	}
	if !r.ask(`SELECT count(*) = $1 FROM reconciler.queue WHERE want_gen > done_gen AND last_error LIKE '%who annotated%'`, keys) {
		t.Error("a task counts as read whose annotators are not known")
	}
}

// A panic while the ratings are read, beside the turn, is counted and told with the stack
// of where it was, also where the keys of the turn do not meet it again one by one.
func TestRatingsPanic(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, studio.Delays{})
	r.contacted()
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
	r.dirty("c0")
	r.dirty("c1")
	turner, log := r.turner(r.client), &bytes.Buffer{}
	turner.Log = slog.New(slog.NewTextHandler(log, nil))
	turner.PanicOnce()
	r.during(turner.Work, func() bool {
		return r.ask(`SELECT count(*) = 2 FROM ml_analysis_rating WHERE is_gold_star`)
	})
	if n := testutil.ToFloat64(r.metrics.Panics); n != 1 {
		t.Errorf("%v panics were counted, want 1", n)
	}
	if !strings.Contains(log.String(), "(*panicking).Ratings") {
		t.Errorf("the log has no stack:\n%s", log)
	}
}

// An S3 of several keys whose answer is lost may have committed. What it wrote of the
// ratings is seen when it is tried again: a row that lost its star in between keeps
// no gold rating. The simulation found it.
func TestDecidedUnheard(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, studio.Delays{})
	r.contacted()
	turner := r.turner(r.client)
	turn := func() {
		t.Helper()
		r.exec(`UPDATE reconciler.queue SET run_after = now(), tried_at = NULL`)
		r.dirty("c0", "c1")
		claims, err := r.ledger.Claim(t.Context(), 2, 0)
		if err != nil || len(claims) != 2 {
			t.Fatal(claims, err)
		}
		if err := turner.Turn(t.Context(), claims); err != nil {
			t.Fatal(err)
		}
	}
	const gold = `SELECT count(*) = 1 FROM ml_analysis_rating WHERE conquest_analysis_id = 'c0' AND is_gold_star`
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id = 'c0'`)
	r.studio.Faults(func(q *http.Request) studio.Fault {
		if q.Method == http.MethodPatch {
			return studio.Fault{Kind: studio.FaultStatus, Status: http.StatusBadRequest}
		}
		return studio.Fault{}
	})
	turn() // the hub has the star, its task does not
	r.studio.Faults(nil)
	r.exec(`DELETE FROM ml_analysis_rating`)
	turner.LoseAnswer(func() {
		if !r.ask(gold) {
			t.Fatal("the first S3 wrote no gold rating")
		}
		r.exec(`UPDATE "Conquest" SET result = 'DEFEAT' WHERE id = 'c0'`)
	})
	turn()
	r.turnAll(turner)
	if r.ask(gold) {
		t.Error("the row is DEFEAT and its rating is gold")
	}
}

// An S3 that was committed unheard has ended the turns of the keys that are equal. One that
// is tried again may not go on with them: what it began then would be nobody's. The
// simulation found it.
func TestEndedUnheard(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, studio.Delays{})
	r.contacted()
	keys := []string{"c0", "c1"}
	if _, err := r.ledger.Enqueue(t.Context(), keys, ledger.FromDiff); err != nil {
		t.Fatal(err)
	}
	claims, err := r.ledger.Claim(t.Context(), 2, 0)
	if err != nil || len(claims) != 2 {
		t.Fatal(claims, err)
	}
	r.studio.Faults(func(q *http.Request) studio.Fault {
		if q.Method == http.MethodPatch {
			return studio.Fault{Kind: studio.FaultStatus, Status: http.StatusInternalServerError}
		}
		return studio.Fault{}
	})
	turner := r.turner(r.client)
	turner.LoseAnswer(func() { r.exec(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id = 'c0'`) })
	if err := turner.Turn(t.Context(), claims); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ledger.EnqueueChanged(t.Context(), keys, nil, ledger.FromWAL); err != nil {
		t.Fatal(err)
	}
	if !r.ask(`SELECT want_gen > done_gen FROM reconciler.queue WHERE key = 'c0'`) {
		t.Error("a person's VICTORY was begun and is forgotten")
	}
}

// A row that the application keeps locked keeps no other key from its turn, and is waited for once: what was read for the others would be
// too old for their PATCHes. It is not taken for one that is gone.
func TestRowIsLocked(t *testing.T) {
	t.Parallel()
	const keys = 20
	r := newRig(t, keys, studio.Delays{})
	r.contacted()
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
	r.exec(`DELETE FROM "Conquest" WHERE id = 'c3'`)
	tx, err := r.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context())) // or the pool never closes
	if _, err := tx.Exec(t.Context(), `UPDATE "Conquest" SET result = 'DEFEAT' WHERE id = 'c7'`); err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		r.dirty(fmt.Sprint("c", i))
	}
	claims, err := r.ledger.Claim(t.Context(), keys, 0)
	if err != nil || len(claims) != keys {
		t.Fatal(claims, err)
	}
	turner, decisions := r.turner(r.client), 0
	turner.CountDecisions(&decisions)
	if err := turner.Turn(t.Context(), claims); err != nil {
		t.Fatal(err)
	}
	r.want("tries", fmt.Sprint(decisions), "1")
	r.want("failed", r.text(`SELECT string_agg(key || ': ' || last_error, ', ') FROM reconciler.queue WHERE attempts > 0 AND last_error NOT LIKE '%too old%'`),
		"c7: another transaction keeps its row locked") // a slow machine may come too late for the others' PATCHes
	r.want("settled", r.text(`SELECT count(*) FILTER (WHERE d) || ', without: ' || string_agg(key, ', ') FILTER (WHERE NOT d) FROM reconciler.hub`), "18, without: c7")
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.turnAll(turner)
	r.want("starred", r.text(`SELECT count(*) FROM reconciler.edge WHERE s AND intent_value IS NULL`), "19")
}

// When a full pass last ended is known to a process that has run none.
func TestLastFullPassIsRemembered(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, studio.Delays{})
	r.contacted()
	ended := testutil.ToFloat64(r.metrics.DiffLastSuccess.With(metrics.Full))
	r.metrics = metrics.New(prometheus.NewRegistry())
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = r.passes(nil).Run(ctx) })
	defer running.Wait()
	defer stop()
	r.eventually(func() bool {
		got := testutil.ToFloat64(r.metrics.DiffLastSuccess.With(metrics.Full))
		return ended > 0 && got > ended-60 && got < ended+60
	})
}

// A PATCH that waits for another write of this process is not sent once what was read for it is too old: it would put back what people
// have changed meanwhile.
func TestPatchWaitsTooLong(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, studio.Delays{})
	r.contacted()
	arrived, release := make(chan struct{}), make(chan struct{})
	var patched atomic.Int64
	var read sync.Once
	r.studio.Faults(func(q *http.Request) studio.Fault {
		if q.Method == http.MethodGet {
			read.Do(func() { time.AfterFunc(4*time.Second, func() { close(release) }) }) // more than the three that a read may be old
		} else if q.Method == http.MethodPatch && strings.HasSuffix(q.URL.Path, fmt.Sprintf("/%d/", r.tasks[1])) {
			close(arrived)
			<-release
		} else if q.Method == http.MethodPatch {
			patched.Add(1)
		}
		return studio.Fault{}
	})
	var saving sync.WaitGroup
	saving.Go(func() {
		if _, err := r.client.PatchMeta(context.WithoutCancel(t.Context()), r.tasks[1], json.RawMessage(`{}`)); err != nil {
			t.Error(err)
		}
	})
	<-arrived
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id = 'c0'`)
	r.dirty("c0")
	claims, err := r.ledger.Claim(t.Context(), 1, 0)
	if err != nil || len(claims) != 1 {
		t.Fatal(claims, err)
	}
	if err := r.turner(r.client).Turn(t.Context(), claims); err != nil {
		t.Fatal(err)
	}
	saving.Wait()
	if n := patched.Load(); n != 0 || !r.ask(`SELECT want_gen > done_gen AND NOT EXISTS (SELECT FROM reconciler.edge WHERE intent_value IS NOT NULL) FROM reconciler.queue WHERE key = 'c0'`) {
		t.Errorf("%d PATCHes on what was read too long ago, and the key is settled or has an intent", n)
	}
}
