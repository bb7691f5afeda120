package reconciler_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// turnAll turns keys until nothing is due, nor will be: what waits for a time has it come.
func (r *rig) turnAll(t *reconciler.Turner) {
	r.Helper()
	rounds := 20
	if r.moved { // a real one may be slow: a PATCH of it that was given up has its whole deadline
		rounds = 2000
	}
	for range rounds {
		r.exec(`UPDATE reconciler.queue SET look_at = now() WHERE look_at IS NOT NULL`)
		r.exec(`UPDATE reconciler.queue SET run_after = now() WHERE want_gen > done_gen`)
		if !r.moved {
			r.exec(`UPDATE reconciler.edge SET intent_deadline = now() WHERE intent_deadline IS NOT NULL`)
		}
		claims, err := r.ledger.Claim(r.Context(), 10, 10)
		if err != nil {
			r.Fatal(err)
		}
		if len(claims) == 0 {
			return
		}
		if err := t.Turn(r.Context(), claims); err != nil {
			r.Fatal(err)
		}
	}
	r.Fatal("it does not come to rest: ", r.text(`SELECT string_agg(concat_ws(' ', key, want_gen, done_gen, last_error, look_at), ', ') FROM reconciler.queue WHERE want_gen > done_gen OR look_at IS NOT NULL`))
}

// linked links tasks of the conquests c0, c1, … under a choice for their first contact, and makes their keys dirty.
func (r *rig) linked(initial string) {
	r.Helper()
	var links []ledger.Link
	for i, task := range r.tasks {
		links = append(links, ledger.Link{Task: task, Project: r.project, Key: fmt.Sprint("c", i)})
	}
	r.link(initial, links...)
}

func (r *rig) link(initial string, links ...ledger.Link) {
	r.Helper()
	if _, err := r.ledger.Linked(r.Context(), links, initial, ledger.FromDiff); err != nil {
		r.Fatal(err)
	}
}

// met is the end of the first pass over the project.
func (r *rig) met() {
	r.Helper()
	r.exec(`INSERT INTO reconciler.project (id, full_at, watermark) VALUES ($1, now(), now())`, r.project)
	var keys []string
	if err := r.db.QueryRow(r.Context(), `SELECT array_agg(key) FROM reconciler.edge`).Scan(&keys); err != nil {
		r.Fatal(err)
	}
	r.dirty(keys...)
}

// shows is what row, hub and tasks of c0 say, and what else there is to tell of its edges.
func (r *rig) shows() string { return r.showsOf("c0") }

func (r *rig) showsOf(key string) string {
	r.Helper()
	var s string
	var tasks []int64
	if err := r.db.QueryRow(r.Context(), `SELECT concat_ws(' ', COALESCE(c.result, 'gone'), h.d::text || '@' || h.n, e.states), COALESCE(e.tasks, '{}')
		FROM (SELECT $1::text AS id) k LEFT JOIN "Conquest" c USING (id) LEFT JOIN reconciler.hub h ON h.key = k.id, LATERAL (
			SELECT string_agg(CASE WHEN held IS NOT NULL THEN 'held' WHEN s IS NULL THEN 'new' WHEN missing_since IS NOT NULL THEN 'missing' END, ' ' ORDER BY task_id) AS states,
				array_agg(task_id ORDER BY task_id) AS tasks FROM reconciler.edge WHERE key = k.id) e`, key).Scan(&s, &tasks); err != nil {
		r.Fatal(err)
	}
	for _, task := range tasks {
		s += fmt.Sprint(" ", r.gold(task))
	}
	return s
}

// gold is what a task's meta says of the star.
func (r *rig) gold(task int64) any {
	r.Helper()
	t, there := r.studio.Task(task) // whatever it answers to everybody else
	if r.moved {
		read, err := r.client.Task(r.Context(), task)
		if there = !labelstudio.IsNotFound(err); there && err != nil {
			r.Fatal(err)
		} else if there {
			t = *read
		}
	}
	if !there {
		return "404"
	}
	var m map[string]any
	if err := json.Unmarshal(t.Meta, &m); err != nil {
		r.Fatal(err)
	}
	return m["gold_star"]
}

func (r *rig) want(what, got, want string) {
	r.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		r.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// TestClickBeforeFirstTurn: a star on the page that the row takes back before any turn
// has come leaves no gold rating, also where the hub was that of an earlier row.
func TestClickBeforeFirstTurn(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, studio.Delays{})
	r.exec(`INSERT INTO reconciler.hub (key, d, n, created_at) VALUES ('c1', false, 1, '2001-01-01')`)
	r.linked("union")
	for _, key := range []string{"c0", "c1"} {
		if _, err := r.ledger.Click(t.Context(), ledger.Click{Key: key, Gold: true, From: ledger.FromCuration}); err != nil {
			t.Fatal(err)
		}
	}
	r.exec(`UPDATE "Conquest" SET result = 'DEFEAT'`)
	r.turnAll(r.turner(r.client))
	r.want("gold ratings", r.text(`SELECT string_agg(conquest_analysis_id, ' ' ORDER BY id) FROM ml_analysis_rating WHERE is_gold_star`), "")
	r.want("c0", r.showsOf("c0"), "DEFEAT false@2 <nil>")
	r.want("c1", r.showsOf("c1"), "DEFEAT false@3 <nil>")
}

// TestClickIsNotUndone: what a person clicks before a key's first turn is undone by no first contact, and the task's star is not lost.
func TestClickIsNotUndone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		initial, result string
		star, gold      bool
		want            string
	}{
		"union, taken away":            {"union", "VICTORY", true, false, "PENDING false@1 held true"},
		"union, said to be none":       {"union", "PENDING", true, false, "PENDING false@1 held true"},
		"union, given":                 {"union", "DEFEAT", false, true, "VICTORY true@1 true"},
		"labelstudio, taken away":      {"labelstudio", "VICTORY", true, false, "PENDING false@1 held true"},
		"labelstudio, given":           {"labelstudio", "PENDING", false, true, "VICTORY true@1 true"},
		"labelstudio, said to be one":  {"labelstudio", "VICTORY", false, true, "VICTORY true@1 true"},
		"labelstudio, said to be none": {"labelstudio", "PENDING", true, false, "PENDING false@1 held true"},
		"aristotle, taken away":        {"aristotle", "VICTORY", true, false, "PENDING false@1 false"},
		"hold, given":                  {"hold", "PENDING", false, true, "VICTORY true@1 held false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, studio.Delays{})
			r.exec(`UPDATE "Conquest" SET result = $1`, c.result)
			r.setMeta(map[string]any{"gold_star": c.star})
			r.linked(c.initial)
			if _, err := r.ledger.Click(t.Context(), ledger.Click{Key: "c0", Gold: c.gold, From: ledger.FromCuration}); err != nil {
				t.Fatal(err)
			}
			r.met()
			r.turnAll(r.turner(r.client))
			r.want("after the first turn", r.shows(), c.want)
		})
	}
}

// TestClickOnAnotherRow: what a person clicks on a row that has come in place of another,
// whose hub no turn has forgotten yet, is undone by no first contact either.
func TestClickOnAnotherRow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		result string // of the row that has come
		gold   bool
		want   string
	}{
		"taken away":      {"VICTORY", false, "PENDING false@1 false"},
		"said to be none": {"PENDING", false, "PENDING false@1 false"},
		"given":           {"DEFEAT", true, "VICTORY true@1 true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, studio.Delays{})
			r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
			r.linked("union")
			turner := r.turner(r.client)
			r.turnAll(turner)
			r.want("before", r.shows(), "VICTORY true@0 true")
			r.exec(`UPDATE "Conquest" SET result = $1, "createdAt" = "createdAt" + interval '1 day'`, c.result)
			if _, err := r.ledger.Click(t.Context(), ledger.Click{Key: "c0", Gold: c.gold, From: ledger.FromCuration}); err != nil {
				t.Fatal(err)
			}
			r.turnAll(turner)
			r.want("after the click", r.shows(), c.want)
		})
	}
}

// TestClickDuringTurn: a click while a turn is under way, which has read the ratings and
// an un-star by then: the rating of the click does not stay.
func TestClickDuringTurn(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, studio.Delays{})
	r.exec(`UPDATE "Conquest" SET result = 'DEFEAT'`)
	r.setMeta(map[string]any{"gold_star": true})
	r.linked("union")
	turner := r.turner(r.client)
	r.turnAll(turner)
	r.want("before", r.shows(), "DEFEAT false@0 held true")
	r.setMeta(map[string]any{"gold_star": false})
	r.dirty("c0")
	clicked := false
	turner.Step = func(step string) {
		if step == "S2" && !clicked {
			clicked = true
			if _, err := r.ledger.Click(t.Context(), ledger.Click{Key: "c0", Gold: true, From: ledger.FromCuration}); err != nil {
				t.Error(err)
			}
		}
	}
	r.turnAll(turner)
	r.want("after", r.shows(), "DEFEAT false@2 false")
	r.want("gold ratings", r.text(`SELECT count(*) FROM ml_analysis_rating WHERE is_gold_star`), "0")
}

// TestHeldIsSettled: a star meets a DEFEAT, and neither may win. A click ends it,
// either way; what a person changed after that look counts for what it is.
func TestHeldIsSettled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		meta  map[string]any
		gold  bool
		after map[string]any // what a person makes of meta between the look and the click
		want  string
	}{
		"victory":                      {map[string]any{"gold_star": true}, true, nil, "VICTORY true@1 true"},
		"not victory":                  {map[string]any{"gold_star": true}, false, nil, "DEFEAT false@1 false"},
		"older key":                    {map[string]any{"is_gold_star": true}, false, nil, "DEFEAT false@1 false"},
		"two keys that differ":         {map[string]any{"gold_star": true, "is_gold_star": false}, true, nil, "VICTORY true@1 true"},
		"un-starred, then victory":     {map[string]any{"gold_star": true}, true, map[string]any{"gold_star": false}, "DEFEAT false@2 false"},
		"un-starred, then not victory": {map[string]any{"gold_star": true}, false, map[string]any{"gold_star": false}, "DEFEAT false@1 false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, studio.Delays{})
			r.exec(`UPDATE "Conquest" SET result = 'DEFEAT'`)
			r.setMeta(c.meta)
			r.linked("union")
			turner := r.turner(r.client)
			r.turnAll(turner)
			if got := r.shows(); !strings.HasPrefix(got, "DEFEAT false@0 held") {
				t.Fatalf("the first contact came to %s, want it held", got)
			}
			if c.after != nil {
				r.setMeta(c.after)
			}
			if _, err := r.ledger.Click(t.Context(), ledger.Click{Key: "c0", Gold: c.gold, From: ledger.FromAPI}); err != nil {
				t.Fatal(err)
			}
			r.turnAll(turner)
			r.want("after the click", r.shows(), c.want)
		})
	}
}

// setMeta is a person's script that replaces the meta of c0's task.
func (r *rig) setMeta(m map[string]any) {
	r.Helper()
	raw, err := json.Marshal(m)
	if err != nil {
		r.Fatal(err)
	}
	if _, err := r.client.PatchMeta(r.Context(), r.tasks[0], raw); err != nil {
		r.Fatal(err)
	}
}
