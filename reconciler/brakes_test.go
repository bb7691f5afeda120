package reconciler_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// TestBrakes lets go wrong, on either side, what no person would do in an hour: the pass
// stops before its first write, says so, and goes on when a person releases its plan.
func TestBrakes(t *testing.T) {
	t.Parallel()
	const n, many = 40, 30
	for name, c := range map[string]struct {
		wrong  func(r *rig)
		braked string // part of the reason; "": the pass goes on
		marked int    // keys that it makes dirty then
		stale  int    // links that are noted as stale and left alone
	}{
		"tasks deleted": {func(r *rig) {
			for _, task := range r.tasks[1 : many+1] {
				r.studio.DeleteTask(task)
			}
		}, "find another or no task of 30", 0, 0},
		"project emptied": {func(r *rig) {
			for _, task := range r.tasks {
				r.studio.DeleteTask(task)
			}
		}, "", 0, n},
		"another Label Studio": {func(r *rig) { r.elsewhere(n) }, "link 40 keys to tasks of what may be another", 0, 0},
		"another Label Studio with some of the numbers": {func(r *rig) {
			other := r.elsewhere(n)
			for _, task := range r.tasks[:n-many] {
				other.DeleteTask(task)
			}
		}, "link 30 keys to tasks of what may be another Label Studio: neither the first nor the last of the tasks that were known is there; and find another or no task of 10", 0, 0},
		"rows restored": {func(r *rig) {
			r.exec(`UPDATE "Conquest" SET result = 'PENDING' WHERE id IN (SELECT 'c' || i FROM generate_series(1, $1::int) i)`, many)
		}, "take the star from 30", 0, 0},
		"stars lost to an import": {func(r *rig) {
			for _, task := range r.tasks[:many] {
				r.studio.SetMeta(task, map[string]any{"source": "import"})
			}
		}, "set the star of 30", 0, 0},
		"stars taken away by a script": {func(r *rig) {
			for _, task := range r.tasks[:many] {
				r.studio.SetMeta(task, map[string]any{"gold_star": false})
			}
		}, "take the star from 30", 0, 0},
		"few": {func(r *rig) { r.exec(`UPDATE "Conquest" SET result = 'PENDING' WHERE id IN ('c1', 'c2')`) }, "", 2, 0},
		"as many each way": {func(r *rig) {
			r.exec(`UPDATE "Conquest" SET result = 'PENDING' WHERE id IN (SELECT 'c' || i FROM generate_series(1, 20) i)`)
			for _, task := range r.tasks[21:] {
				r.studio.SetMeta(task, map[string]any{"source": "import"})
			}
		}, "", 39, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, n, studio.Delays{})
			r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
			r.contacted() // stars of a first contact are not braked
			c.wrong(r)
			written := r.written()
			r.full(r.passes(nil))
			r.want("written by the pass", r.written(), written)
			r.want("dirty", r.text(`SELECT count(*) FROM reconciler.queue WHERE want_gen > done_gen`), fmt.Sprint(c.marked))
			r.want("noted and left alone", r.text(`SELECT count(DISTINCT key) FROM reconciler.finding WHERE class = 'link_stale' AND change = ''`), fmt.Sprint(c.stale))
			why := r.text(`SELECT string_agg(brake, ', ') FROM reconciler.pass WHERE state = 'braked'`)
			if c.braked == "" {
				r.want("braked", why, "")
				return
			}
			if !strings.Contains(why, c.braked) {
				t.Fatalf("braked %q, want %q in it", why, c.braked)
			}
			r.releases(many)
			turner := r.turner(r.client)
			r.turnDue(turner)
			r.exec(`UPDATE reconciler.edge SET missing_since = missing_since - interval '1 hour'`) // a 404 is believed after a while
			r.turnAll(turner)
			r.full(r.passes(nil))
			r.want("a second word", r.text(`SELECT string_agg(brake, ', ') FROM reconciler.pass WHERE state = 'braked'`), "")
		})
	}
}

// releases lets a person release the newest plan that was braked, and no other.
func (r *rig) releases(most int) {
	r.Helper()
	if _, err := r.ledger.Release(r.Context(), "another", "somebody"); !errors.Is(err, ledger.ErrNoPlan) {
		r.Errorf("another plan was released: %v", err)
	}
	n, err := r.ledger.Release(r.Context(), r.text(`SELECT plan FROM reconciler.pass WHERE state = 'braked' ORDER BY id DESC LIMIT 1`), "somebody")
	if err != nil || n < most {
		r.Fatalf("released %d keys, %v", n, err)
	}
	r.pass(r.passes(nil))
	r.want("dirty", r.text(`SELECT count(*) FROM reconciler.queue WHERE want_gen > done_gen`), fmt.Sprint(n))
}

// TestReleasedGoesOn: a plan that a person has released and that the queue has no room for yet is taken back by no later
// pass, which does not ask for it again, and is braked for what is more.
func TestReleasedGoesOn(t *testing.T) {
	t.Parallel()
	const n, many, more = 60, 30, 25
	r := newRig(t, n, studio.Delays{})
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
	r.contacted()
	restored := func(from, upto int) {
		t.Helper()
		r.exec(`UPDATE "Conquest" SET result = 'PENDING' WHERE id IN (SELECT 'c' || i FROM generate_series($1::int, $2::int - 1) i)`, from, upto)
		if err := r.ledger.WantFull(t.Context(), "a test", nil); err != nil {
			t.Fatal(err)
		}
	}
	restored(0, many)
	r.pass(r.passes(nil))
	r.exec(`INSERT INTO reconciler.queue (key, want_gen, priority, source, run_after) SELECT 'other' || i, 1, 2, 'diff', now() + interval '1 hour' FROM generate_series(1, 5000) i`)
	if _, err := r.ledger.Release(t.Context(), r.text(`SELECT plan FROM reconciler.pass WHERE state = 'braked'`), "somebody"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p := r.passes(nil)
	var running sync.WaitGroup
	running.Go(func() { _ = p.Run(ctx) })
	defer running.Wait()
	defer cancel()
	clears := func(want string) {
		t.Helper()
		r.eventually(func() bool {
			p.Poke()
			return r.ask(`SELECT bool_and(ended_at IS NOT NULL) FROM reconciler.pass`)
		})
		r.want("plans", r.text(`SELECT string_agg(concat_ws(' ', state, clears), ', ' ORDER BY id) FROM reconciler.pass WHERE id > 1`), want)
	}
	restored(0, many)
	clears("marking 30, marking 0")
	restored(many, many+more)
	clears("marking 30, replaced 0, braked 25")
	r.exec(`DELETE FROM reconciler.queue WHERE key LIKE 'other%'`)
	r.eventually(func() bool {
		return r.ask(`SELECT count(*) = $1 FROM reconciler.queue WHERE want_gen > done_gen`, many)
	})
	clears("done 30, replaced 0, braked 25")
}

// TestRestored: Label Studio is put back to before our stars. Its tasks are older then than
// what we know of them: a look and a full pass see it all the same.
func TestRestored(t *testing.T) {
	t.Parallel()
	const n = 30
	r := newRig(t, n, studio.Delays{})
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
	restore := r.studio.Backup()
	r.contacted()
	r.exec(`UPDATE reconciler.queue SET tried_at = tried_at - interval '1 hour'`) // nobody restores within a minute
	restore()
	d := reconciler.Differ{Ledger: r.ledger, Studio: r.client, Projects: []int64{r.project}, Initial: "union", Brakes: reconciler.Brakes{Count: 20, Share: 0.1}, Log: slog.New(slog.DiscardHandler)}
	report, err := d.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.want("different", fmt.Sprint(report.Counts["star_missing"]), fmt.Sprint(n))
	written := r.written()
	r.full(r.passes(nil))
	r.want("written by the pass", r.written(), written)
	r.want("braked", r.text(`SELECT string_agg(sets::text, ', ') FROM reconciler.pass WHERE state = 'braked' AND kind = 'full'`), fmt.Sprint(n))
	r.releases(n)
	r.turnAll(r.turner(r.client))
	r.atRest()
}

// TestTurnDuringAPass: what a page showed and a turn has changed since is no drift.
func TestTurnDuringAPass(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, studio.Delays{})
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
	r.contacted()
	r.studio.SetMeta(r.tasks[0], map[string]any{"source": "import"}) // without its star, which the turn puts back
	turned := false
	r.full(r.passes(func(p *reconciler.Passes) {
		p.Step = func(name string) {
			switch {
			case name == "page" && !turned:
				turned = true
				r.dirty("c0")
				r.turnAll(r.turner(r.client))
			case name == "found":
				r.want("found", r.text(`SELECT string_agg(concat_ws(' ', key, class), ', ') FROM reconciler.finding`), "")
			}
		}
	}))
	if !turned {
		t.Error("no page was read")
	}
	r.atRest()
}

// TestBrakedChanges: an incremental pass that is braked lets first contacts go on, in the same pass and later. It notes and tells its plan
// once, however often it sees it, and a person releases exactly that.
func TestBrakedChanges(t *testing.T) {
	t.Parallel()
	const n, many = 40, 30
	r := newRig(t, n, studio.Delays{})
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
	r.contacted()
	r.exec(`DELETE FROM reconciler.queue`)
	for _, task := range r.tasks[:many] {
		r.studio.SetMeta(task, map[string]any{"gold_star": false})
	}
	var told atomic.Int64
	log := slog.New(slog.NewTextHandler(lines(func(line string) {
		if strings.Contains(line, "BRAKED") {
			told.Add(1)
		}
	}), nil))
	ctx, cancel := context.WithCancel(t.Context())
	p := r.passes(func(p *reconciler.Passes) { p.Log = log })
	var running sync.WaitGroup
	running.Go(func() { _ = p.Run(ctx) })
	defer running.Wait()
	defer cancel()
	for _, key := range []string{"first", "second", "third"} {
		r.exec(`INSERT INTO "Conquest" (id, result, philosopher, domain) VALUES ($1, 'VICTORY', 'p', 'd')`, key)
		r.studio.AddTask(r.project, map[string]any{"conquest_id": key, "prompt": "p", "response": "r"}, nil)
		r.eventually(func() bool {
			p.Poke()
			return r.ask(`SELECT EXISTS (SELECT FROM reconciler.queue WHERE key = $1 AND want_gen > done_gen)`, key)
		})
	}
	r.want("dirty", r.text(`SELECT string_agg(key, ', ' ORDER BY key) FROM reconciler.queue WHERE want_gen > done_gen`), "first, second, third")
	r.want("braked", r.text(`SELECT string_agg(clears::text, ', ') FROM reconciler.pass WHERE state = 'braked'`), fmt.Sprint(many))
	r.want("told", fmt.Sprint(told.Load()), "1")
	r.turnAll(r.turner(r.client))
	r.want("met", r.text(`SELECT string_agg(key, ', ' ORDER BY key) FROM reconciler.edge WHERE s AND key IN ('first', 'second', 'third')`), "first, second, third")
	if _, err := r.ledger.Release(t.Context(), r.text(`SELECT plan FROM reconciler.pass WHERE state = 'braked'`), "somebody"); err != nil {
		t.Fatal(err)
	}
	r.eventually(func() bool {
		p.Poke()
		return r.text(`SELECT count(*) FROM reconciler.queue WHERE want_gen > done_gen`) == fmt.Sprint(many)
	})
	r.turnAll(r.turner(r.client))
	r.atRest()
}

// TestMarkingFails: what was found is made dirty once that can be, and waits for no schedule.
func TestMarkingFails(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, studio.Delays{})
	r.contacted()
	r.studio.SetMeta(r.tasks[1], map[string]any{"gold_star": true})
	tx, err := r.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context()))
	if _, err := tx.Exec(t.Context(), `LOCK reconciler.queue IN EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	failed := make(chan struct{})
	tell := sync.OnceFunc(func() { close(failed) })
	p := r.passes(func(p *reconciler.Passes) {
		p.Log = slog.New(slog.NewTextHandler(lines(func(line string) {
			if strings.Contains(line, "make findings dirty") {
				tell()
			}
		}), nil))
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = p.Run(ctx) })
	defer running.Wait()
	defer cancel()
	<-failed
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.eventually(func() bool {
		return r.ask(`SELECT EXISTS (SELECT FROM reconciler.queue WHERE key = 'c1' AND want_gen > done_gen)`)
	})
}

// lines is a writer of a log.
type lines func(string)

func (w lines) Write(b []byte) (int, error) {
	w(string(b))
	return len(b), nil
}

// elsewhere puts another Label Studio behind the URL: its project and its tasks have the same
// numbers and the same conquests, and are others.
func (r *rig) elsewhere(n int) *studio.StandIn {
	r.Helper()
	other, err := studio.StartStandIn(studio.StandInOptions{})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = other.Close() })
	project := other.AddProject("another")
	for i := range n {
		other.AddTask(project, map[string]any{"conquest_id": fmt.Sprint("c", i)}, nil)
	}
	if r.client, err = labelstudio.New(labelstudio.Options{URL: other.URL(), Token: other.Token()}); err != nil {
		r.Fatal(err)
	}
	return other
}

// turnDue turns what is due now.
func (r *rig) turnDue(t *reconciler.Turner) {
	r.Helper()
	for claims := []ledger.Claim{{}}; len(claims) > 0; {
		var err error
		if claims, err = r.ledger.Claim(r.Context(), 10, 10); err != nil {
			r.Fatal(err)
		}
		if err := t.Turn(r.Context(), claims); err != nil {
			r.Fatal(err)
		}
	}
}

// TestStrays: another Label Studio whose tasks have other numbers than ours, in the project whose number we know or in one that we
// never knew. However few they are, a pass links none of them and makes nothing dirty before a person has said so, asks once,
// and leaves nothing behind once the right one is back.
func TestStrays(t *testing.T) {
	t.Parallel()
	const n = 40
	for name, c := range map[string]struct{ unknown, released bool }{
		"mended": {false, false}, "released": {false, true}, "unknown, mended": {true, false}, "unknown, released": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, n, studio.Delays{})
			r.exec(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id IN ('c0', 'c1', 'c2')`)
			r.contacted()
			written, right := r.written(), r.client
			other, project, links := r.elsewhere(n), r.project, 7+n-6
			for _, task := range r.tasks {
				other.DeleteTask(task)
			}
			if c.unknown {
				project, links = other.AddProject("of a number that we never knew"), 7
				other.RemoveProject(r.project)
			}
			for i := range 6 {
				other.AddTask(project, map[string]any{"conquest_id": fmt.Sprint("c", i), "prompt": "p", "response": "r"}, map[string]any{"gold_star": i > 2})
			}
			other.AddTask(project, map[string]any{"conquest_id": "of nobody"}, nil)
			d := reconciler.Differ{Ledger: r.ledger, Studio: r.client, Initial: "union", Brakes: reconciler.Brakes{Count: 20, Share: 0.1}, Log: slog.New(slog.DiscardHandler)}
			report, err := d.All(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			all := func(p *reconciler.Passes) { p.Projects = nil }
			p := r.passes(all)
			changes := func() {
				t.Helper()
				err := p.Changes(t.Context()) // of a project that we never knew it asks for a pass
				if strange := err != nil && strings.Contains(err.Error(), "is it another Label Studio"); strange == c.unknown {
					t.Errorf("what changed lately: %v", err)
				}
			}
			changes()
			r.full(p)
			changes()
			r.want("open", r.text(`SELECT string_agg(state, ', ') FROM reconciler.pass WHERE state NOT IN ('done', 'replaced')`), "braked")
			r.want("written", r.written(), written)
			r.want("dirty", r.text(`SELECT count(*) FROM reconciler.queue WHERE want_gen > done_gen`), "0")
			r.want("plan and why", r.text(`SELECT string_agg(concat_ws(' ', links, plan, brake), ', ') FROM reconciler.pass WHERE state = 'braked'`), fmt.Sprint(links, " ", report.Plan, " ", report.Brake))
			if !strings.Contains(report.Brake, "another Label Studio") {
				t.Errorf("braked %q", report.Brake)
			}
			if !c.released {
				r.client = right
				r.full(r.passes(all))
				r.want("written", r.written(), written)
				r.want("left behind", r.text(`SELECT count(*) FROM reconciler.sight`)+r.text(`SELECT string_agg(key, ', ') FROM reconciler.finding`), "0")
				r.want("the newest pass", r.text(`SELECT concat_ws(' ', state, links) FROM reconciler.pass ORDER BY id DESC LIMIT 1`), "done 0")
				r.want("projects", r.text(`SELECT string_agg(id::text, ', ') FROM reconciler.project`), fmt.Sprint(r.project))
				return
			}
			r.releases(links)
			if err := r.passes(all).Changes(t.Context()); err != nil {
				t.Errorf("it is not known by what a person has released: %v", err)
			}
			turner := r.turner(r.client)
			turner.Projects = nil
			r.turnDue(turner)
			r.exec(`UPDATE reconciler.edge SET missing_since = missing_since - interval '1 hour'`) // a 404 is believed after a while
			r.turnAll(turner)
			r.want("rows", r.text(`SELECT string_agg(id, ' ' ORDER BY id) FROM "Conquest" WHERE result = 'VICTORY'`), "c0 c1 c2 c3 c4 c5")
			r.want("left behind", r.text(`SELECT count(*) FROM reconciler.sight`), "0")
			r.full(r.passes(all))
			r.want("a second word", r.text(`SELECT string_agg(brake, ', ') FROM reconciler.pass WHERE state = 'braked'`), "")
		})
	}
}

// TestStraysWithOurNumbers: another Label Studio whose few tasks have the numbers of ours, in the project whose number we know or in
// another. A pass does not take them for ours before a person has said so.
func TestStraysWithOurNumbers(t *testing.T) {
	t.Parallel()
	for name, unknown := range map[string]bool{"in a project of a number that we know": false, "in another": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 3
			r := newRig(t, n, studio.Delays{})
			r.contacted()
			written := r.written()
			other, project := r.elsewhere(0), r.project
			if unknown {
				project = other.AddProject("of a number that we never knew")
				other.RemoveProject(r.project)
			}
			for i := range n {
				other.AddTask(project, map[string]any{"conquest_id": fmt.Sprint("c", i), "prompt": "p", "response": "r"}, map[string]any{"gold_star": true})
			}
			all := func(p *reconciler.Passes) { p.Projects = nil }
			r.full(r.passes(all))
			r.want("open", r.text(`SELECT string_agg(concat_ws(' ', state, links), ', ') FROM reconciler.pass WHERE state NOT IN ('done', 'replaced')`), fmt.Sprint("braked ", n))
			r.want("dirty", r.text(`SELECT count(*) FROM reconciler.queue WHERE want_gen > done_gen`), "0")
			r.want("written", r.written(), written)
			if unknown {
				return
			}
			r.releases(n)
			turner := r.turner(r.client)
			turner.Projects = nil
			r.turnAll(turner)
			r.want("rows", r.text(`SELECT count(*) FROM "Conquest" WHERE result = 'VICTORY'`), fmt.Sprint(n))
			r.full(r.passes(all))
			r.want("a second word", r.text(`SELECT string_agg(brake, ', ') FROM reconciler.pass WHERE state = 'braked'`), "")
		})
	}
}

// TestMadeAnew: Label Studio was made anew. Its tasks have the numbers of ours, in a project of another number, and ours is gone or is an empty
// one now. Nothing is done before a person has released the plan, also where an event came; after that all is linked there, known at once
// and equal.
func TestMadeAnew(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ours, theirs        int64
		empty, event, mixed bool
	}{
		"ours is gone":                    {1, 2, false, false, false},
		"ours is gone, and an event came": {1, 2, false, true, false},
		"ours is empty":                   {1, 2, true, false, false},
		"ours is empty, after it":         {2, 1, true, false, false},
		"in another order":                {1, 2, false, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 4
			r := newRig(t, 0, studio.Delays{})
			for r.project < c.ours {
				r.project = r.studio.AddProject("ours")
			}
			for i := range n {
				r.exec(`INSERT INTO "Conquest" (id, result, philosopher, domain) VALUES ($1, 'PENDING', 'p', 'd')`, fmt.Sprint("c", i))
				r.tasks = append(r.tasks, r.studio.AddTask(r.project, map[string]any{"conquest_id": fmt.Sprint("c", i), "prompt": "p", "response": "r"}, nil))
			}
			r.exec(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id = 'c0'`)
			r.contacted()
			written, other := r.written(), r.elsewhere(0)
			other.AddProject("another")
			order := []int{0, 1, 2}
			if c.mixed {
				order = []int{1, 2, 0}
			}
			for i, of := range order {
				if task := other.AddTask(c.theirs, map[string]any{"conquest_id": fmt.Sprint("c", of), "prompt": "p", "response": "r"}, map[string]any{"gold_star": of == 1}); task != r.tasks[i] {
					t.Fatalf("it has the number %d, not %d", task, r.tasks[i])
				}
			}
			other.AddTask(c.theirs, map[string]any{"prompt": "of no conquest"}, nil)
			if !c.empty {
				other.RemoveProject(c.ours)
			}
			turner := r.turner(r.client)
			turner.Projects = nil
			if c.event {
				if _, err := r.ledger.Enqueue(t.Context(), []string{"c0"}, ledger.FromWAL); err != nil {
					t.Fatal(err)
				}
				r.turnFor(turner)
			}
			p := r.passes(func(p *reconciler.Passes) { p.Projects = nil })
			r.full(p)
			r.want("open", r.text(`SELECT string_agg(concat_ws(' ', state, links), ', ') FROM reconciler.pass WHERE state NOT IN ('done', 'replaced')`), fmt.Sprint("braked ", n))
			r.want("written", r.written(), written)
			r.want("taken for read", r.text(`SELECT count(*) FROM reconciler.project WHERE id = $1 AND full_at IS NOT NULL`, c.theirs), "0")
			d := reconciler.Differ{Ledger: r.ledger, Studio: r.client, Initial: "union", Brakes: reconciler.Brakes{Count: 20, Share: 0.1}, Log: slog.New(slog.DiscardHandler)}
			before, err := d.All(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r.want("plan", r.text(`SELECT plan FROM reconciler.pass WHERE state = 'braked'`), before.Plan)
			if _, err := r.ledger.Release(t.Context(), r.text(`SELECT plan FROM reconciler.pass WHERE state = 'braked'`), "somebody"); err != nil {
				t.Fatal(err)
			}
			r.full(p)
			r.want("a second word", r.text(`SELECT string_agg(brake, ', ') FROM reconciler.pass WHERE state = 'braked'`), "")
			r.turnFor(turner)
			r.exec(`UPDATE reconciler.edge SET missing_since = missing_since - interval '1 hour'`)
			r.turnAll(turner)
			r.atRest()
			r.want("linked", r.text(`SELECT string_agg(concat_ws(' ', key, task_id, project, s), ', ' ORDER BY key) FROM reconciler.edge`),
				fmt.Sprintf("c0 %[2]d %[1]d t, c1 %[3]d %[1]d t, c2 %[4]d %[1]d f", c.theirs, 1+slices.Index(order, 0), 1+slices.Index(order, 1), 1+slices.Index(order, 2)))
			r.want("texts of others", r.text(`SELECT string_agg(t.key, ', ') FROM reconciler.task_text t JOIN reconciler.edge e USING (task_id) WHERE t.key <> e.key`), "")
			r.want("rows", r.text(`SELECT string_agg(id, ' ' ORDER BY id) FROM "Conquest" WHERE result = 'VICTORY'`), "c0 c1")
			if task, _ := other.Task(r.tasks[slices.Index(order, 0)]); !strings.Contains(string(task.Meta), `"gold_star":true`) {
				t.Errorf("the task of c0 shows %s", task.Meta)
			}
			if report, err := d.All(t.Context()); err != nil || len(report.Keys) > 0 {
				t.Errorf("different %v; %v", report, err)
			}
		})
	}
}

// TestNewProject: a project that comes to the Label Studio that we know, be it that another project of it is gone, waits for nobody.
func TestNewProject(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, studio.Delays{})
	gone := r.studio.AddProject("to be removed")
	r.studio.AddTask(gone, map[string]any{"conquest_id": "c2"}, nil)
	all := func(p *reconciler.Passes) { p.Projects = nil }
	turner := r.turner(r.client)
	turner.Projects = nil
	r.full(r.passes(all))
	r.turnAll(turner)
	r.studio.RemoveProject(gone)
	project := r.studio.AddProject("new")
	r.studio.AddTask(project, map[string]any{"conquest_id": "c1"}, map[string]any{"gold_star": true})
	p := r.passes(all)
	if err := p.Changes(t.Context()); err != nil {
		t.Logf("the project that is gone: %v", err)
	}
	r.pass(p)
	r.want("braked", r.text(`SELECT string_agg(brake, ', ') FROM reconciler.pass`), "")
	r.turnAll(turner)
	r.want("the new task", r.showsOf("c1"), "VICTORY true@1 true true")
	r.want("read", r.text(`SELECT count(*) FROM reconciler.project WHERE id = $1 AND watermark IS NOT NULL`, project), "1")
}

// TestSearchElsewhere: while another Label Studio is behind the URL, the turn of a VICTORY without a task links none there, and says why. It
// goes on once the right one is back.
func TestSearchElsewhere(t *testing.T) {
	t.Parallel()
	for name, unknown := range map[string]bool{"in a project of a number that we know": false, "in another": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 3, studio.Delays{})
			r.contacted()
			right := r.client
			other, project, known := r.elsewhere(3), r.project, ""
			if unknown {
				known = "nothing is known of it, and of other projects "
				project = other.AddProject("of a number that we never knew")
			}
			task := other.AddTask(project, map[string]any{"conquest_id": "lone", "prompt": "p", "response": "r"}, nil)
			r.exec(`INSERT INTO "Conquest" (id, result, philosopher, domain) VALUES ('lone', 'VICTORY', 'p', 'd')`)
			r.dirty("lone")
			turner := r.turner(r.client)
			turner.Projects = nil
			r.turnFor(turner)
			r.want("edges", r.text(`SELECT count(*) FROM reconciler.edge`), "3")
			r.want("told", r.text(`SELECT last_error FROM reconciler.queue WHERE want_gen > done_gen`), fmt.Sprintf("look up its task: project %d: %sneither the first nor the last of the tasks that were known is there: is it another Label Studio, or one that was restored?", project, known))
			if shown, _ := other.Task(task); strings.Contains(string(shown.Meta), "gold_star") {
				t.Errorf("its task shows %s", shown.Meta)
			}
			r.want("rated", r.text(`SELECT count(*) FROM ml_analysis_rating WHERE is_gold_star AND conquest_analysis_id = 'lone'`), "1")

			r.client = right
			mine := r.studio.AddTask(r.project, map[string]any{"conquest_id": "lone", "prompt": "p", "response": "r"}, nil)
			asked := r.studio.Requests()[labelstudio.OpTask]
			r.turnAll(r.turner(r.client))
			r.want("its task", fmt.Sprint(r.gold(mine)), "true")
			r.want("requests more", fmt.Sprint(r.studio.Requests()[labelstudio.OpTask]-asked), "1")
			r.atRest()
		})
	}
}

// TestSearchBesideAStrangeProject: a project was emptied and filled anew. Of the VICTORYs without a task only the one waits that has its task there, which
// is told once and is no failure; nothing is remembered of the one that has none anywhere.
func TestSearchBesideAStrangeProject(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, studio.Delays{})
	emptied := r.studio.AddProject("emptied")
	old := r.studio.AddTask(emptied, map[string]any{"conquest_id": "c0"}, nil)
	all := func(p *reconciler.Passes) { p.Projects = nil }
	turner := r.turner(r.client)
	turner.Projects = nil
	var told atomic.Int64
	turner.Log = slog.New(slog.NewTextHandler(lines(func(line string) {
		if strings.Contains(line, "another Label Studio") {
			told.Add(1)
		}
	}), nil))
	r.full(r.passes(all))
	r.turnAll(turner)
	r.studio.DeleteTask(old)
	there := r.studio.AddTask(emptied, map[string]any{"conquest_id": "there", "prompt": "p", "response": "r"}, nil)
	both := r.studio.AddTask(emptied, map[string]any{"conquest_id": "both", "prompt": "p", "response": "r"}, nil)
	known := []int64{r.studio.AddTask(r.project, map[string]any{"conquest_id": "both"}, nil), r.studio.AddTask(r.project, map[string]any{"conquest_id": "here"}, nil)}
	for _, key := range []string{"there", "both", "here", "nowhere"} {
		r.exec(`INSERT INTO "Conquest" (id, result, philosopher, domain) VALUES ($1, 'VICTORY', 'p', 'd')`, key)
	}
	r.dirty("there", "both", "here", "nowhere")
	for range 2 {
		r.turnFor(turner)
		r.want("waiting", r.text(`SELECT string_agg(concat_ws(' ', key, attempts, last_error), ', ') FROM reconciler.queue WHERE want_gen > done_gen`),
			fmt.Sprintf("there 0 look up its task: project %d: neither the first nor the last of the tasks that were known is there: is it another Label Studio, or one that was restored?", emptied))
		r.exec(`UPDATE reconciler.queue SET run_after = now() WHERE want_gen > done_gen`)
	}
	r.want("stars", fmt.Sprint(r.gold(known[0]), r.gold(known[1]), r.gold(there), r.gold(both)), "true true <nil> <nil>")
	r.want("searched", r.text(`SELECT string_agg(key, ', ') FROM reconciler.hub WHERE searched_at IS NOT NULL`), "")
	r.want("told", fmt.Sprint(told.Load()), "1")

	r.full(r.passes(all))
	if _, err := r.ledger.Release(t.Context(), r.text(`SELECT plan FROM reconciler.pass WHERE state = 'braked'`), "somebody"); err != nil {
		t.Fatal(err)
	}
	r.pass(r.passes(all))
	r.turnDue(turner)
	r.exec(`UPDATE reconciler.edge SET missing_since = missing_since - interval '1 hour'`)
	r.turnAll(turner)
	r.want("stars", fmt.Sprint(r.gold(there), r.gold(both)), "true true")
	r.atRest()
}

// TestChangesElsewhere: an incremental pass links nothing of another Label Studio, also in a project in which we know nothing yet.
func TestChangesElsewhere(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, studio.Delays{})
	all := func(p *reconciler.Passes) { p.Projects = nil }
	empty := r.studio.AddProject("empty")
	r.full(r.passes(all))
	r.turnAll(r.turner(r.client))
	other := r.elsewhere(0)
	if also := other.AddProject("not empty"); also != empty {
		t.Fatalf("it has the number %d, not %d", also, empty)
	}
	other.AddTask(empty, map[string]any{"conquest_id": "c1"}, map[string]any{"gold_star": true})
	if err := r.passes(all).Changes(t.Context()); err == nil || !strings.Contains(err.Error(), "another Label Studio") {
		t.Errorf("it tells %v", err)
	}
	r.want("edges", r.text(`SELECT count(*) FROM reconciler.edge`), "3")
}

// TestNoNewsElsewhere: what a full pass read of another Label Studio is no reason to leave out what changed in ours before it.
func TestNoNewsElsewhere(t *testing.T) {
	t.Parallel()
	const n, long = 40, `SELECT COALESCE(string_agg((watermark < now() - interval '30 min')::text, ', '), 'none') FROM reconciler.project`
	for name, wrong := range map[string]func(r *rig){
		"the same numbers": func(r *rig) { r.elsewhere(n) },
		"other numbers": func(r *rig) {
			other := r.elsewhere(n)
			for _, task := range r.tasks {
				other.DeleteTask(task)
			}
			other.AddTask(r.project, map[string]any{"conquest_id": "c0"}, nil)
		},
		"nothing": func(r *rig) {
			other := r.elsewhere(n)
			for _, task := range r.tasks {
				other.DeleteTask(task)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, n, studio.Delays{})
			r.contacted()
			r.exec(`UPDATE reconciler.project SET watermark = now() - interval '1 hour'`)
			right := r.client
			wrong(r)
			r.full(r.passes(nil))
			r.want("asked for from long ago", r.text(long), "true")
			r.client = right
			r.full(r.passes(nil))
			r.want("asked for from long ago, with the right one back", r.text(long), "false")
		})
	}
}

// TestEventsOfAnotherLabelStudio: while another Label Studio is behind the URL, turns of keys that
// events made dirty give up no link and write nothing, and say why. They go on once the right one is
// back, or a person has released the plan of a pass. A task that was renamed where we know it is believed.
func TestEventsOfAnotherLabelStudio(t *testing.T) {
	t.Parallel()
	const n = 40
	for name, c := range map[string]struct {
		events int
		from   ledger.Source
	}{"some": {2, ledger.FromWAL}, "of all": {n, ledger.FromWAL}, "a pass had found some in ours": {2, ledger.FromDiff}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			events := c.events
			r := newRig(t, n, studio.Delays{})
			r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
			r.contacted()
			written, right := r.written(), r.client
			r.elsewhere(n)
			doubted := func() {
				t.Helper()
				var keys []string
				for i := range events {
					keys = append(keys, fmt.Sprint("c", (i*(n-1))%n)) // c0 and c39 first: by these the project is known
				}
				if _, err := r.ledger.Enqueue(t.Context(), keys, c.from); err != nil {
					t.Fatal(err)
				}
				r.turnDue(r.turner(r.client))
				r.want("written", r.written(), written)
				r.want("told", r.text(`SELECT count(*) FROM reconciler.queue WHERE want_gen > done_gen AND attempts > 0 AND last_error LIKE '%another Label Studio%'`), fmt.Sprint(events))
			}
			doubted()
			r.client, written = right, r.written()
			r.turnAll(r.turner(r.client))
			r.atRest()
			r.want("written of the right one", r.written(), written)
			r.elsewhere(n)
			doubted()
			r.full(r.passes(nil))
			if _, err := r.ledger.Release(t.Context(), r.text(`SELECT plan FROM reconciler.pass WHERE state = 'braked'`), "somebody"); err != nil {
				t.Fatal(err)
			}
			r.pass(r.passes(nil))
			r.turnAll(r.turner(r.client))
			r.atRest()
		})
	}
	t.Run("tasks that were never looked at", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, n, studio.Delays{})
		r.contacted()
		right := r.client
		other := r.elsewhere(n)
		var late []ledger.Link
		for i := range n {
			conquest := map[string]any{"conquest_id": fmt.Sprint("c", i), "prompt": "p", "response": "r"}
			late = append(late, ledger.Link{Task: r.studio.AddTask(r.project, conquest, nil), Project: r.project, Key: fmt.Sprint("c", i)})
			if same := other.AddTask(r.project, conquest, map[string]any{"gold_star": true}); same != late[i].Task {
				t.Fatalf("it has the number %d, not %d", same, late[i].Task)
			}
		}
		r.link("union", late...)
		written := r.written()
		r.turnDue(r.turner(r.client))
		r.want("written", r.written(), written)
		r.client = right
		r.turnAll(r.turner(r.client)) // though no key is at rest
		r.atRest()
		r.want("looked at", r.text(`SELECT count(*) FROM reconciler.edge WHERE s IS NOT NULL`), fmt.Sprint(2*n))
		r.want("rows", r.text(`SELECT count(*) FROM "Conquest" WHERE result = 'VICTORY'`), "0")
	})
	t.Run("renamed", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, n, studio.Delays{})
		r.contacted()
		r.setData(r.tasks[0], map[string]any{"conquest_id": "c1"})
		if _, err := r.ledger.Enqueue(t.Context(), []string{"c0"}, ledger.FromWebhook); err != nil {
			t.Fatal(err)
		}
		r.turnAll(r.turner(r.client))
		r.want("linked to", r.text(`SELECT key FROM reconciler.edge WHERE task_id = $1`, r.tasks[0]), "c1")
	})
}

// TestListingsGoWrong: a page that fails, or that is short, ends the pass over its project,
// and nothing is inferred from what it lacks. The next try goes on.
func TestListingsGoWrong(t *testing.T) {
	t.Parallel()
	for name, spoil := range spoils {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, spoiledKeys, studio.Delays{})
			r.listingGoesWrong(r.studio.URL(), r.studio.Token(), spoil)
		})
	}
}

const spoiledKeys = 25

// spoils are what stands between us and Label Studio makes of a listing.
var spoils = map[string]transport{
	"500": status(http.StatusInternalServerError),
	"401": status(http.StatusUnauthorized),
	"403": status(http.StatusForbidden),
	"short": edit(func(body []byte) []byte {
		var page map[string]json.RawMessage
		var tasks []json.RawMessage
		if json.Unmarshal(body, &page) == nil && json.Unmarshal(page["tasks"], &tasks) == nil && len(tasks) > 1 {
			page["tasks"], _ = json.Marshal(tasks[1:])
			body, _ = json.Marshal(page)
		}
		return body
	}),
	"cut": edit(func(body []byte) []byte { return body[:len(body)/2] }),
	"again": func(q *http.Request) (*http.Response, error) { // the first page once more
		q = q.Clone(q.Context())
		asked := q.URL.Query()
		asked.Set("query", afterTask.ReplaceAllString(asked.Get("query"), `"value":0}`))
		q.URL.RawQuery = asked.Encode()
		return http.DefaultTransport.RoundTrip(q)
	},
}

var afterTask = regexp.MustCompile(`"value":\d+}`)

func status(code int) transport {
	return func(q *http.Request) (*http.Response, error) {
		return &http.Response{Status: http.StatusText(code), StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody, Request: q}, nil
	}
}

func edit(change func([]byte) []byte) transport {
	return func(q *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(q)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		body = change(body)
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		resp.Header.Del("Content-Length")
		return resp, err
	}
}

// listingGoesWrong spoils the second page of a full pass, and its second try.
func (r *rig) listingGoesWrong(url, token string, spoil transport) {
	r.Helper()
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
	r.contacted()
	if _, err := r.client.PatchMeta(r.Context(), r.tasks[24], json.RawMessage(`{"gold_star": false}`)); err != nil {
		r.Fatal(err)
	}
	var listings atomic.Int64
	second := fmt.Sprintf(`"value":%d}`, r.tasks[9])
	var err error
	r.client, err = labelstudio.New(labelstudio.Options{URL: url, Token: token, Transport: transport(func(q *http.Request) (*http.Response, error) {
		if q.URL.Path == "/api/tasks/" && strings.Contains(q.URL.Query().Get("query"), second) && listings.Add(1) <= 2 {
			return spoil(q)
		}
		return http.DefaultTransport.RoundTrip(q)
	})})
	if err != nil {
		r.Fatal(err)
	}
	r.full(r.passes(func(p *reconciler.Passes) { p.Retry = time.Millisecond }))
	if n := listings.Load(); n < 2 {
		r.Errorf("the page was asked for %d times", n)
	}
	r.want("link_stale", r.text(`SELECT string_agg(key, ', ') FROM reconciler.finding WHERE class = 'link_stale'`), "")
	r.want("dirty", r.text(`SELECT string_agg(key, ', ') FROM reconciler.queue WHERE want_gen > done_gen`), "c24")
	r.turnAll(r.turner(r.client))
	r.atRest()
}

// sendThrough has the client send its requests through send.
func (r *rig) sendThrough(send transport) {
	r.Helper()
	var err error
	if r.client, err = labelstudio.New(labelstudio.Options{URL: r.studio.URL(), Token: r.studio.Token(), Transport: send}); err != nil {
		r.Fatal(err)
	}
}

type transport func(*http.Request) (*http.Response, error)

func (send transport) RoundTrip(q *http.Request) (*http.Response, error) { return send(q) }

// TestChangesDuringAPass: tasks and rows come, go and change between its pages. What a pass
// saw and is not so any more does no harm, and what it did not see is found.
func TestChangesDuringAPass(t *testing.T) {
	t.Parallel()
	r := newRig(t, 30, studio.Delays{})
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id < 'c2'`)
	r.contacted()
	pages := 0
	r.full(r.passes(func(p *reconciler.Passes) {
		p.Step = func(name string) {
			if name != "page" {
				return
			}
			switch pages++; pages {
			case 1: // ten tasks were read
				r.studio.SetMeta(r.tasks[2], map[string]any{"gold_star": true})
				r.studio.SetMeta(r.tasks[25], map[string]any{"gold_star": true})
				r.studio.DeleteTask(r.tasks[3])
				r.studio.DeleteTask(r.tasks[26])
				r.exec(`INSERT INTO "Conquest" (id, result, philosopher, domain) VALUES ('new', 'VICTORY', 'p', 'd')`)
				r.studio.AddTask(r.project, map[string]any{"conquest_id": "new", "prompt": "p", "response": "r"}, nil)
				r.exec(`DELETE FROM "Conquest" WHERE id = 'c4'`)
			case 2: // and it is taken back
				r.studio.SetMeta(r.tasks[25], map[string]any{"gold_star": false})
			}
		}
	}))
	for range 2 {
		r.turnFor(r.turner(r.client))
		r.exec(`UPDATE reconciler.edge SET missing_since = missing_since - interval '1 hour'`)
		r.turnAll(r.turner(r.client))
		r.full(r.passes(nil))
	}
	r.turnFor(r.turner(r.client))
	r.exec(`UPDATE reconciler.edge SET missing_since = missing_since - interval '1 hour'`)
	r.turnAll(r.turner(r.client))
	r.atRest()
	r.want("rows", r.text(`SELECT string_agg(id || ' ' || result, ', ' ORDER BY id) FROM "Conquest" WHERE id IN ('c2', 'c25', 'new')`), "c2 VICTORY, c25 PENDING, new VICTORY")
	r.want("missing", r.text(`SELECT string_agg(key, ', ' ORDER BY key) FROM reconciler.edge WHERE missing_since IS NOT NULL`), "c26, c3")
}

// TestMissedFullPass: the run of a schedule that nobody was there for is made up once.
func TestMissedFullPass(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, studio.Delays{})
	r.contacted()
	r.exec(`UPDATE reconciler.pass SET began_at = now() - interval '50 hours', ended_at = now() - interval '50 hours'`)
	daily, err := cron.ParseStandard("@every 24h")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.during(r.passes(func(p *reconciler.Passes) { p.Full = daily }).Run, func() bool {
			return r.ask(`SELECT bool_and(state = 'done') AND max(began_at) > now() - interval '1 hour' FROM reconciler.pass WHERE kind = 'full'`)
		})
	}
	r.want("full passes", r.text(`SELECT count(*) FROM reconciler.pass WHERE kind = 'full'`), "2")
}

// TestTooOldToGoOn: a pass that was begun long ago is given up, and one that does the same takes its place, where none is wanted yet.
func TestTooOldToGoOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, studio.Delays{})
	r.contacted()
	const old = `INSERT INTO reconciler.pass (kind, state, why, projects, began_at) VALUES ('full', 'reading', $1, $2, now() - interval '25 hours')`
	states := func(why, want string) {
		t.Helper()
		r.pass(r.passes(nil))
		r.want(why, r.text(`SELECT string_agg(state, ', ' ORDER BY id) FROM reconciler.pass WHERE why = $1`, why), want)
	}
	r.exec(old, "all", nil)
	if err := r.ledger.WantFull(t.Context(), "another slot", nil); err != nil { // the one that reads is enough
		t.Fatal(err)
	}
	states("all", "replaced, done")
	r.exec(old, "one", []int64{r.project})
	states("one", "replaced, done")
	r.exec(old, "wanted", []int64{r.project})
	if err := r.ledger.WantFull(t.Context(), "more", nil); err != nil {
		t.Fatal(err)
	}
	states("wanted", "replaced")
}

// TestOneProjectRefused: a project that answers 403 keeps no other from its passes, and does not count
// as a Label Studio that is away.
func TestOneProjectRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, studio.Delays{})
	other := r.studio.AddProject("refused")
	both := func(p *reconciler.Passes) { p.Projects = []int64{other, r.project} }
	late := r.studio.AddTask(other, map[string]any{"conquest_id": "c1"}, nil)
	r.full(r.passes(both))
	r.turnAll(r.turner(r.client))
	r.studio.Faults(func(q *http.Request) studio.Fault {
		if q.URL.Query().Get("project") == fmt.Sprint(other) {
			return studio.Fault{Kind: studio.FaultStatus, Status: http.StatusForbidden}
		}
		return studio.Fault{}
	})
	r.studio.SetMeta(r.tasks[0], map[string]any{"gold_star": true})
	p := r.passes(both)
	if err := p.Changes(t.Context()); !labelstudio.IsAuth(err) {
		t.Errorf("the incremental pass tells %v", err)
	}
	r.want("found by the incremental pass", r.text(`SELECT string_agg(key, ', ') FROM reconciler.finding`), "c0")
	r.exec(`DELETE FROM reconciler.pass`)
	if err := r.ledger.WantFull(t.Context(), "a test", nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = p.Run(ctx) })
	r.eventually(func() bool {
		return r.ask(`SELECT EXISTS (SELECT FROM reconciler.pass WHERE projects IS NULL AND state = 'done')`)
	})
	if p.Away() {
		t.Error("Label Studio counts as away")
	}
	cancel()
	running.Wait()
	r.want("dirty", r.text(`SELECT string_agg(key, ', ') FROM reconciler.queue WHERE want_gen > done_gen`), "c0")
	r.want("missing", r.text(`SELECT string_agg(task_id::text, ', ') FROM reconciler.edge WHERE task_id = $1 AND missing_since IS NOT NULL`, late), "")
}

// TestRefusedAlone: what one project refuses is read and compared for no other again. Its own pass asks at longer and longer
// distances, compares nothing meanwhile, is the only one however often it is wanted, and goes on once it may.
func TestRefusedAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, studio.Delays{})
	other := r.studio.AddProject("refused")
	var listings, compares atomic.Int64
	refuse := func(q *http.Request) studio.Fault {
		if q.URL.Query().Get("project") == fmt.Sprint(other) {
			listings.Add(1)
			return studio.Fault{Kind: studio.FaultStatus, Status: http.StatusForbidden}
		}
		return studio.Fault{}
	}
	r.studio.Faults(refuse)
	const distance, asked = 10 * time.Millisecond, 6
	p := r.passes(func(p *reconciler.Passes) {
		p.Projects, p.Retry = []int64{other, r.project}, distance
		p.Step = func(name string) {
			if name == "found" {
				compares.Add(1)
			}
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	start := time.Now() // before it asks
	var running sync.WaitGroup
	running.Go(func() { _ = p.Run(ctx) })
	defer running.Wait()
	defer cancel()
	r.eventually(func() bool { return listings.Load() >= asked })
	if took, least := time.Since(start), distance*(1<<(asked-2)-1); took < least { // the first is the pass over everything
		t.Errorf("asked %d times in %v, which should take %v", asked, took, least)
	}
	n := r.studio.Requests()[labelstudio.OpTasksChanged] // of another incremental pass, to which it is new
	r.eventually(func() bool { p.Poke(); return r.studio.Requests()[labelstudio.OpTasksChanged] > n })
	r.want("full compares", fmt.Sprint(compares.Load()), "1")
	r.want("passes", r.text(`SELECT string_agg(concat_ws(' ', state, projects), ', ' ORDER BY id) FROM reconciler.pass WHERE kind = 'full'`), fmt.Sprintf("done, reading {%d}", other))
	r.studio.Faults(nil)
	r.eventually(func() bool { return r.ask(`SELECT bool_and(state = 'done') FROM reconciler.pass`) })
	r.want("full compares", fmt.Sprint(compares.Load()), "2")
}
