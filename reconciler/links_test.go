package reconciler_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// star has a person star a task by an annotation.
func (r *rig) star(task int64) int64 {
	r.Helper()
	gold, err := labelstudio.ChoicesRegion("verdict", "model_response", "gold_star")
	if err != nil {
		r.Fatal(err)
	}
	note, err := r.studio.Annotate(r.studio.AddUser(fmt.Sprint("annotator", task, "@example.com")), task, labelstudio.AnnotationEdit{Result: []labelstudio.Region{gold}})
	if err != nil {
		r.Fatal(err)
	}
	return note
}

func (r *rig) dirty(keys ...string) {
	r.Helper()
	if _, err := r.ledger.Enqueue(r.Context(), keys, ledger.FromDiff); err != nil {
		r.Fatal(err)
	}
}

// TestFirstContact: every choice with every row and every task, where they differ and
// where they do not.
func TestFirstContact(t *testing.T) {
	t.Parallel()
	results := []string{"PENDING", "DEFEAT", "VICTORY"}
	want := map[string]map[string][3]string{ // by choice and what the task says: PENDING, DEFEAT, VICTORY
		"union": {
			"nothing":    {"PENDING false@0 <nil>", "DEFEAT false@0 <nil>", "VICTORY true@0 true"},
			"meta":       {"VICTORY true@1 true", "DEFEAT false@0 held true", "VICTORY true@0 true"},
			"annotation": {"VICTORY true@1 true", "DEFEAT false@0 held <nil>", "VICTORY true@0 true"},
		},
		"aristotle": {
			"nothing":    {"PENDING false@0 <nil>", "DEFEAT false@0 <nil>", "VICTORY true@0 true"},
			"meta":       {"PENDING false@0 false", "DEFEAT false@0 false", "VICTORY true@0 true"},
			"annotation": {"PENDING false@0 <nil>", "DEFEAT false@0 <nil>", "VICTORY true@0 true"},
		},
		"labelstudio": {
			"nothing":    {"PENDING false@0 <nil>", "DEFEAT false@0 <nil>", "PENDING false@1 <nil>"},
			"meta":       {"VICTORY true@1 true", "VICTORY true@1 true", "VICTORY true@0 true"},
			"annotation": {"VICTORY true@1 true", "VICTORY true@1 true", "VICTORY true@0 true"},
		},
		"hold": {
			"nothing":    {"PENDING false@0 <nil>", "DEFEAT false@0 <nil>", "VICTORY true@0 held <nil>"},
			"meta":       {"PENDING false@0 held true", "DEFEAT false@0 held true", "VICTORY true@0 true"},
			"annotation": {"PENDING false@0 held <nil>", "DEFEAT false@0 held <nil>", "VICTORY true@0 true"},
		},
	}
	for initial, says := range want {
		t.Run(initial, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 9, studio.Delays{})
			i := 0
			for _, what := range []string{"nothing", "meta", "annotation"} {
				for _, result := range results {
					r.exec(`UPDATE "Conquest" SET result = $2 WHERE id = $1`, fmt.Sprint("c", i), result)
					switch what {
					case "meta":
						r.studio.SetMeta(r.tasks[i], map[string]any{"gold_star": true})
					case "annotation":
						r.star(r.tasks[i])
					}
					i++
				}
			}
			r.linked(initial)
			r.met()
			r.turnAll(r.turner(r.client))
			i = 0
			for _, what := range []string{"nothing", "meta", "annotation"} {
				for j, result := range results {
					r.want(fmt.Sprintf("%s, and the task says %s", result, what), r.showsOf(fmt.Sprint("c", i)), says[what][j])
					i++
				}
			}
		})
	}
}

// TestLaterTasks: a task that comes to a conquest that is known, for the first time or
// from an old export, gets union, whatever the choice was at the beginning.
func TestLaterTasks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		results []string // what the conquest was, one after the other
		meta    any      // of the new task
		want    string
	}{
		"a VICTORY":                           {[]string{"VICTORY"}, map[string]any{}, "VICTORY true@1 true true"},
		"a VICTORY, and a star":               {[]string{"VICTORY"}, map[string]any{"gold_star": true}, "VICTORY true@1 true true"},
		"nothing decided, and a star":         {nil, map[string]any{"gold_star": true}, "VICTORY true@1 true true"},
		"a DEFEAT, and a star":                {[]string{"DEFEAT"}, map[string]any{"gold_star": true}, "DEFEAT false@0 held <nil> true"},
		"an un-VICTORY, and its star is back": {[]string{"VICTORY", "PENDING"}, map[string]any{"gold_star": true}, "PENDING false@2 held false true"},
		"an un-VICTORY, and none is back":     {[]string{"VICTORY", "PENDING"}, map[string]any{}, "PENDING false@2 false <nil>"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, studio.Delays{})
			turner := r.turner(r.client)
			r.linked("labelstudio")
			r.met()
			r.turnAll(turner)
			for _, result := range c.results {
				r.exec(`UPDATE "Conquest" SET result = $1`, result)
				r.dirty("c0")
				r.turnAll(turner)
			}
			late := r.studio.AddTask(r.project, map[string]any{"conquest_id": "c0"}, c.meta)
			r.link("labelstudio", ledger.Link{Task: late, Project: r.project, Key: "c0"})
			r.turnAll(turner)
			r.want("with the new task", r.shows(), c.want)
		})
	}
}

// TestTheTaskIsRightWaits: where a bare VICTORY is to become PENDING, no key is turned on
// some of its tasks: a webhook tells of one of a project that no pass has been through.
func TestTheTaskIsRightWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, studio.Delays{})
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
	turner := r.turner(r.client)
	r.linked("labelstudio") // by a webhook: the task without a star
	r.turnFor(turner)
	r.want("one of its tasks is known", r.showsOf("c0"), "VICTORY true@0 new <nil>")
	starred := r.studio.AddTask(r.project, map[string]any{"conquest_id": "c0"}, map[string]any{"gold_star": true})
	r.link("labelstudio", ledger.Link{Task: starred, Project: r.project, Key: "c0"})
	r.turnFor(turner)
	r.want("all of its tasks are known, and nobody knows that", r.showsOf("c0"), "VICTORY true@0 new new <nil> true")
	r.met()
	r.turnAll(turner)
	r.want("the pass is through", r.showsOf("c0"), "VICTORY true@0 true true")
	r.want("a bare VICTORY", r.showsOf("c1"), "PENDING false@1 <nil>")
}

// TestTheTaskIsRightWaitsForEveryProject: where a bare VICTORY is to become PENDING, it waits
// for a project that cannot be read. Once turns have begun, a braked pass and a restart do not
// make them wait again.
func TestTheTaskIsRightWaitsForEveryProject(t *testing.T) {
	t.Parallel()
	const n = 40
	r := newRig(t, n, studio.Delays{})
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id = 'c0'`)
	other := r.studio.AddProject("unreadable")
	r.studio.AddTask(other, map[string]any{"conquest_id": "c0"}, map[string]any{"gold_star": true})
	r.studio.Faults(func(q *http.Request) studio.Fault {
		if q.URL.Query().Get("project") == fmt.Sprint(other) {
			return studio.Fault{Kind: studio.FaultShort}
		}
		return studio.Fault{}
	})
	passes := func() *reconciler.Passes {
		return r.passes(func(p *reconciler.Passes) {
			p.Initial, p.Projects, p.Retry = "labelstudio", []int64{r.project, other}, time.Millisecond
		})
	}
	ready := func(p *reconciler.Passes) bool {
		select {
		case <-p.Ready():
			return true
		default:
			return false
		}
	}
	turner := r.turner(r.client)
	turner.Projects = []int64{r.project, other}

	first := passes()
	r.during(first.Run, func() bool {
		return r.ask(`SELECT EXISTS (SELECT FROM reconciler.pass WHERE projects IS NULL AND state = 'done') AND EXISTS (SELECT FROM reconciler.queue WHERE key = 'c0')`)
	})
	if ready(first) {
		t.Error("turns begin though a project was not read")
	}
	claims, err := r.ledger.Claim(t.Context(), n, n)
	if err != nil {
		t.Fatal(err)
	}
	if err := turner.Turn(t.Context(), claims); err != nil { // as if turns had begun under another choice
		t.Fatal(err)
	}
	r.want("its other task is not known", r.showsOf("c0"), "VICTORY true@0 new <nil>")
	r.studio.Faults(nil)
	r.during(first.Run, func() bool { return ready(first) })
	r.turnAll(turner)
	r.want("both are known", r.showsOf("c0"), "VICTORY true@0 true true")

	for _, task := range r.tasks[:n-1] {
		r.studio.SetMeta(task, map[string]any{"gold_star": true})
	}
	r.full(passes())
	r.want("the newest full pass", r.text(`SELECT state FROM reconciler.pass WHERE kind = 'full' ORDER BY id DESC LIMIT 1`), "braked")
	again := passes()
	r.during(again.Run, func() bool { return ready(again) })
}

// TestTheTaskIsRightWaitsWhereItIs: a task that waits for the first pass over its project is moved to one that a pass has been through,
// and the other project goes: it waits no more.
func TestTheTaskIsRightWaitsWhereItIs(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, studio.Delays{})
	r.linked("labelstudio")
	r.met()
	turner := r.turner(r.client)
	turner.Projects = nil
	r.turnAll(turner)
	other := r.studio.AddProject("other")
	task := r.studio.AddTask(other, map[string]any{"conquest_id": "c0"}, map[string]any{"gold_star": true})
	r.link("labelstudio", ledger.Link{Task: task, Project: other, Key: "c0"})
	r.turnFor(turner)
	r.want("waits", r.text(`SELECT concat_ws(' ', project, s) FROM reconciler.edge WHERE task_id = $1`, task), fmt.Sprint(other))
	r.studio.MoveTask(task, r.project)
	r.studio.RemoveProject(other)
	r.turnAll(turner)
	r.want("where it is now", r.showsOf("c0"), "VICTORY true@1 true true")
}

// turnFor turns what is due now, and checks that what is not settled waits: it must
// not be asked for again and again.
func (r *rig) turnFor(t *reconciler.Turner) {
	r.Helper()
	for range 2 {
		claims, err := r.ledger.Claim(r.Context(), 10, 10)
		if err != nil {
			r.Fatal(err)
		}
		if len(claims) > 0 {
			if err := t.Turn(r.Context(), claims); err != nil {
				r.Fatal(err)
			}
		}
	}
	if r.moved {
		return // what a slow one left is due at once
	}
	if claims, err := r.ledger.Claim(r.Context(), 10, 10); err != nil || len(claims) > 0 {
		r.Errorf("%d keys are due again at once; %v", len(claims), err)
	}
}

// TestOneUnreadTask: what cannot be read leaves open what the other tasks say, and is
// asked for with a growing distance.
func TestOneUnreadTask(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, studio.Delays{})
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
	second := r.studio.AddTask(r.project, map[string]any{"conquest_id": "c0"}, map[string]any{"gold_star": true})
	r.linked("labelstudio")
	r.link("labelstudio", ledger.Link{Task: second, Project: r.project, Key: "c0"})
	r.met()
	broken := fmt.Sprint("/api/tasks/", second, "/")
	r.studio.Faults(func(q *http.Request) studio.Fault {
		switch {
		case q.URL.Path == broken:
			return studio.Fault{Kind: studio.FaultStatus, Status: http.StatusBadRequest}
		case strings.HasPrefix(q.URL.Path, "/api/tasks") && q.URL.Query().Get("project") != "":
			return studio.Fault{Kind: studio.FaultShort}
		}
		return studio.Fault{}
	})
	turner := r.turner(r.client)
	r.turnFor(turner)
	r.want("one is not read", r.shows(), "VICTORY true@0 new new <nil> true")
	r.studio.Faults(nil)
	r.turnAll(turner)
	r.want("it is read", r.shows(), "VICTORY true@0 true true")
}

// TestTaskGone: a 404 is believed where the project could be read, and after a while.
// The edge keeps all it knows, the row stays, and a task that is back goes on.
func TestTaskGone(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, studio.Delays{})
	turner := r.turner(r.client)
	r.linked("union")
	r.met()
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
	r.turnAll(turner)
	gone := true
	r.studio.Faults(func(q *http.Request) studio.Fault {
		if !gone {
			return studio.Fault{}
		}
		if q.URL.Path == fmt.Sprintf("/api/tasks/%d/", r.tasks[0]) {
			return studio.Fault{Kind: studio.FaultStatus, Status: http.StatusNotFound}
		}
		return studio.Fault{Kind: studio.FaultShort}
	})
	r.dirty("c0")
	r.turnFor(turner)
	r.want("not there", r.shows(), "VICTORY true@0 missing true")
	if !r.ask(`SELECT want_gen > done_gen AND run_after BETWEEN now() AND now() + interval '2 min' AND attempts = 0 FROM reconciler.queue`) {
		t.Error("the 404 was believed at once")
	}
	r.exec(`UPDATE reconciler.edge SET missing_since = missing_since - interval '1 hour'`)
	r.exec(`UPDATE "Conquest" SET result = 'NEUTRAL'`)
	r.turnAll(turner)
	r.want("still not there", r.shows(), "NEUTRAL false@1 missing true")
	gone = false
	r.dirty("c0")
	r.turnAll(turner)
	r.want("there again", r.shows(), "NEUTRAL false@1 false")
	if r.ask(`SELECT EXISTS (SELECT FROM reconciler.audit WHERE said IS NOT NULL)`) {
		t.Error("it was taken for a person's word")
	}
}

// TestOneTaskGone: a word on the row is carried to the tasks that are there, and the rating names one of these.
func TestOneTaskGone(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]func(*rig){
		"a row": func(r *rig) {
			r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
			r.dirty("c0")
		},
		"a click": func(r *rig) {
			if _, err := r.ledger.Click(r.Context(), ledger.Click{Key: "c0", Gold: true, From: ledger.FromCuration}); err != nil {
				r.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, studio.Delays{})
			second := r.studio.AddTask(r.project, map[string]any{"conquest_id": "c0"}, map[string]any{})
			r.linked("union")
			r.link("union", ledger.Link{Task: second, Project: r.project, Key: "c0"})
			r.met()
			turner := r.turner(r.client)
			r.turnAll(turner)
			r.studio.DeleteTask(r.tasks[0])
			r.dirty("c0")
			r.turnFor(turner) // notes it
			r.exec(`UPDATE reconciler.edge SET missing_since = missing_since - interval '1 hour'`)
			r.turnAll(turner)
			say(r)
			r.turnAll(turner)
			r.want("after it", r.shows(), "VICTORY true@1 missing 404 true")
			r.want("the rating's task", r.text(`SELECT string_agg(label_studio_task_id::text, ', ') FROM ml_analysis_rating WHERE is_gold_star`), fmt.Sprint(second))
		})
	}
}

// TestProjectGone: Label Studio says 404 of everything in a project that was deleted.
// That is believed where the list of projects can be read and lacks it.
func TestProjectGone(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, studio.Delays{})
	turner := r.turner(r.client)
	r.linked("union")
	r.met()
	r.turnAll(turner)
	r.studio.RemoveProject(r.project)
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
	r.dirty("c0")
	r.turnFor(turner)
	if !r.ask(`SELECT want_gen > done_gen AND attempts = 1 FROM reconciler.queue`) || r.ask(`SELECT missing_since IS NOT NULL FROM reconciler.edge`) {
		t.Error("no project at all is left: that says nothing of the task")
	}
	r.studio.AddProject("another")
	r.exec(`UPDATE reconciler.queue SET run_after = now()`)
	r.turnFor(turner) // notes it
	r.exec(`UPDATE reconciler.edge SET missing_since = missing_since - interval '1 hour'`)
	r.turnAll(turner)
	r.want("the row is all there is", r.shows(), "VICTORY true@1 missing 404")
}

// TestTaskMoved: a task that was moved to another project stays the same task: the pass that finds it there has the turn move its edge, and where an
// event comes first that does. Outside of our projects it is as good as gone.
func TestTaskMoved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ down, gone, event, outside bool }{
		"to a later one": {}, "to an earlier one": {down: true}, "and its project is gone": {gone: true},
		"and its project is gone, and an event came": {gone: true, event: true},
		"outside": {outside: true}, "outside, and its project is gone": {gone: true, outside: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2, studio.Delays{})
			from, to := r.project, r.studio.AddProject("another")
			if c.down {
				from, to = to, from
				r.studio.MoveTask(r.tasks[0], from)
			}
			mine := ledger.Projects{from}
			if !c.outside {
				mine = nil
			}
			all := func(p *reconciler.Passes) { p.Projects = mine }
			turner := r.turner(r.client)
			turner.Projects = mine
			r.full(r.passes(all))
			r.turnAll(turner)
			r.studio.MoveTask(r.tasks[0], to)
			if c.gone {
				r.studio.MoveTask(r.tasks[1], to)
				r.studio.RemoveProject(from)
			}
			event := c.event || c.outside
			if event {
				r.exec(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id = 'c0'`)
			}
			d := reconciler.Differ{Ledger: r.ledger, Studio: r.client, Projects: mine, Initial: "union", Log: slog.New(slog.DiscardHandler)}
			if report, err := d.Keys(t.Context(), "c0"); err != nil || c.event && (len(report.Keys) != 1 || report.Keys[0].Tasks[0].Project != to) {
				t.Errorf("different %+v; %v", report, err)
			}
			if event {
				r.dirty("c0")
			} else {
				r.full(r.passes(all))
			}
			r.turnFor(turner)
			r.exec(`UPDATE reconciler.edge SET missing_since = missing_since - interval '1 hour'`) // a 404 is believed after a while
			r.turnAll(turner)
			edge := fmt.Sprint(to, " f")
			if c.outside {
				edge = fmt.Sprint(from, " gone f")
			} else if c.event {
				edge = fmt.Sprint(to, " t")
			}
			r.want("edge", r.text(`SELECT concat_ws(' ', project, CASE WHEN missing_since IS NOT NULL THEN 'gone' END, s) FROM reconciler.edge WHERE task_id = $1`, r.tasks[0]), edge)
			r.want("star", fmt.Sprint(r.gold(r.tasks[0])), map[bool]string{true: "true", false: "<nil>"}[c.event])
			r.want("audited", r.text(`SELECT string_agg(reason, ', ') FROM reconciler.audit WHERE reason = 'another task now'`), "")
		})
	}
}

// TestTaskNamesAnother: data.conquest_id of a task is changed. The conquest that loses it
// stays as it is; for the other it is a first contact.
func TestTaskNamesAnother(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, studio.Delays{})
	turner := r.turner(r.client)
	r.linked("union")
	r.met()
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id = 'c0'`)
	r.turnAll(turner)
	r.setData(r.tasks[0], map[string]any{"conquest_id": "c1", "id": "c0"})
	r.dirty("c0")
	r.turnAll(turner)
	r.want("the one that lost it", r.showsOf("c0"), "VICTORY true@0")
	r.want("the one that has it", r.showsOf("c1"), "VICTORY true@1 true true")
	r.setData(r.tasks[0], map[string]any{"text": "no conquest at all"})
	r.dirty("c1")
	r.turnAll(turner)
	r.want("nobody has it", r.showsOf("c1"), "VICTORY true@1 true")
}

// setData is an importer's script that replaces the data of a task.
func (r *rig) setData(task int64, data map[string]any) {
	r.Helper()
	raw, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		r.Fatal(err)
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPatch, fmt.Sprintf("%s/api/tasks/%d/", r.studio.URL(), task), strings.NewReader(string(raw)))
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Authorization", "Token "+r.studio.Token())
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		r.Fatal(resp.Status)
	}
}

// TestConquestGone: what was known of it is forgotten, and its star stays. The one that
// comes back under its id meets its task anew, and an annotation that was overruled
// does not star again.
func TestConquestGone(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, studio.Delays{})
	turner := r.turner(r.client)
	r.linked("union")
	r.met()
	r.turnAll(turner)
	r.star(r.tasks[0])
	r.dirty("c0")
	r.turnAll(turner)
	r.want("starred", r.shows(), "VICTORY true@1 true")
	r.exec(`DELETE FROM "Conquest"`)
	r.dirty("c0")
	r.turnAll(turner)
	r.want("gone", r.shows(), "gone new true")
	again := func(result string) {
		r.exec(`DELETE FROM "Conquest"`)
		r.exec(`INSERT INTO "Conquest" (id, result, philosopher, domain, "createdAt") VALUES ('c0', $1, 'p', 'd', $2)`, result, time.Now().UTC())
		r.dirty("c0")
		r.turnAll(turner)
	}
	again("PENDING")
	r.want("back, undecided", r.shows(), "VICTORY true@1 true")
	r.exec(`UPDATE "Conquest" SET result = 'NEUTRAL'`)
	r.dirty("c0")
	r.turnAll(turner)
	r.want("overruled", r.shows(), "NEUTRAL false@2 false")
	again("PENDING")
	r.want("back, and the annotation is an old one", r.shows(), "PENDING false@0 false")
}
