package reconciler_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/labelstudio/sandbox/lstest"
	"github.com/aristotle/reconciler/reconciler"
)

// TestReal runs what a real Label Studio must answer for, on one for all.
func TestReal(t *testing.T) {
	t.Parallel()
	real := lstest.Real(t, pgtest.Shared(t).URL())
	t.Run("both paths agree", func(t *testing.T) { bothPathsAgree(t, real) })
	t.Run("drift", func(t *testing.T) {
		r := newRig(t, driftKeys, studio.Delays{})
		r.moveTo(real.URL(), real.Token())
		r.drift()
	})
	for name, spoil := range spoils {
		t.Run("a page goes wrong: "+name, func(t *testing.T) {
			r := newRig(t, spoiledKeys, studio.Delays{})
			r.moveTo(real.URL(), real.Token())
			r.listingGoesWrong(real.URL(), real.Token(), spoil)
		})
	}
}

// bothPathsAgree: a look through Label Studio's own database gives the same answer as
// one through its API, and so does a pass.
func bothPathsAgree(t *testing.T, real *studio.Real) {
	r := newRig(t, 14, studio.Delays{})
	r.moveTo(real.URL(), real.Token())
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id IN ('c1', 'c2', 'c3')`)
	db, err := labelstudio.OpenDatabase(t.Context(), real.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	if role, writes, err := db.Role(t.Context()); err != nil || !writes { // it is Label Studio's own
		t.Errorf("the role %q may write: %v, %v", role, writes, err)
	}
	meta := func(i int, meta string) {
		t.Helper()
		if _, err := r.client.PatchMeta(t.Context(), r.tasks[i], json.RawMessage(meta)); err != nil {
			t.Fatal(err)
		}
	}
	annotate := func(i int, edit labelstudio.AnnotationEdit) int64 {
		t.Helper()
		a, err := r.client.CreateAnnotation(t.Context(), r.tasks[i], edit)
		if err != nil {
			t.Fatal(err)
		}
		return a.ID
	}
	yes := true
	mess := func() {
		meta(2, `{"gold_star": false}`)
		meta(4, `{"gold_star": true, "deep": {"n": 1.50}}`)
		meta(5, `{"is_gold_star": true}`)
		meta(6, `[1, 2]`)
		meta(7, `null`)
		meta(8, `{"gold_star": "true"}`)
		annotate(9, gold(t))
		skipped := gold(t)
		skipped.WasCancelled = &yes
		annotate(10, skipped)
		annotate(11, labelstudio.AnnotationEdit{GroundTruth: &yes})
		annotate(12, labelstudio.AnnotationEdit{})
		text, err := labelstudio.TextRegion("response", "model_response", "gold_star")
		if err != nil {
			t.Fatal(err)
		}
		annotate(13, labelstudio.AnnotationEdit{Result: []labelstudio.Region{text}})
		// A program's: the editor writes no numbers for ids.
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("%s/api/tasks/%d/annotations/", real.URL(), r.tasks[0]),
			strings.NewReader(`{"result": [{"id": 7, "type": "choices", "from_name": "verdict", "to_name": "model_response", "value": {"choices": ["gold_star"]}}]}`))
		if err != nil {
			t.Fatal(err)
		}
		q.Header = http.Header{"Authorization": {"Token " + real.Token()}, "Content-Type": {"application/json"}}
		answer, err := http.DefaultClient.Do(q)
		if err != nil || answer.Body.Close() != nil || answer.StatusCode != http.StatusCreated {
			t.Fatalf("%+v, %v", answer, err)
		}
	}
	// What names a conquest in all the ways that importers have, and in none.
	data := []labelstudio.NewTask{}
	for _, d := range []string{`{"id": "c0", "prompt": "p", "response": "r"}`, `{"conquest_id": "", "id": "c1", "prompt": "p", "response": "r"}`, `{"conquest_id": 7, "id": "c1", "prompt": "p", "response": "r"}`,
		`{"conquest_id": null, "id": 8, "prompt": "p", "response": "r"}`, `{"conquest_id": {"a": 1}, "prompt": "p", "response": "r"}`, `{"conquest_id": 1.5, "id": "c2", "prompt": "p", "response": "r"}`,
		`{"prompt": "p", "response": "r"}`} {
		data = append(data, labelstudio.NewTask{Data: json.RawMessage(d)})
	}
	if _, err := r.client.ImportTasks(t.Context(), r.project, data); err != nil {
		t.Fatal(err)
	}
	for _, truth := range []bool{false, true} {
		r.sameTasks(db)
		r.sameReports(db, truth)
		if !truth {
			r.contacted()
			r.sameReports(db, truth)
			mess()
		}
	}
	// And a pass by the database finds what a look by the API has found.
	look := r.look(nil, false)
	r.full(r.passes(func(p *reconciler.Passes) { p.Database = db }))
	var keys []string
	for _, k := range look.Keys {
		keys = append(keys, k.Key+" "+k.Class)
	}
	r.want("found by the database", r.text(`SELECT string_agg(DISTINCT concat_ws(' ', key, class), ',') FROM reconciler.finding WHERE class <> ''`), joined(keys))
	r.turnAll(r.turner(r.client))
	r.full(r.passes(func(p *reconciler.Passes) { p.Database = db }))
	r.want("found again", r.text(`SELECT string_agg(concat_ws(' ', key, class, reason), ',') FROM reconciler.finding WHERE class NOT IN ('', 'held')`), "")
}

func joined(words []string) (s string) {
	for i, w := range words {
		if i > 0 {
			s += ","
		}
		s += w
	}
	return s
}

func (r *rig) look(db *labelstudio.Database, truth bool) *reconciler.Report {
	r.Helper()
	d := &reconciler.Differ{Ledger: r.ledger, Studio: r.client, Database: db, Projects: []int64{r.project}, Initial: "union", GroundTruth: truth,
		Brakes: reconciler.Brakes{Count: 20, Share: 0.1}, Page: 5, Log: slog.New(slog.DiscardHandler)}
	report, err := d.All(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	return report
}

func (r *rig) sameReports(db *labelstudio.Database, truth bool) {
	r.Helper()
	if diff := cmp.Diff(r.look(nil, truth), r.look(db, truth), cmpopts.IgnoreUnexported(reconciler.Difference{})); diff != "" {
		r.Errorf("the API (-) and the database (+) differ:\n%s", diff)
	}
}

// sameTasks compares what both paths read, but for the data, of which the database's has the ids alone.
func (r *rig) sameTasks(db *labelstudio.Database) {
	r.Helper()
	byAPI, _, err := r.client.TasksAfter(r.Context(), r.project, 0, 1000)
	if err != nil {
		r.Fatal(err)
	}
	byDatabase, _, err := db.TasksAfter(r.Context(), r.project, 0, 1000)
	if err != nil {
		r.Fatal(err)
	}
	if diff := cmp.Diff(byAPI, byDatabase, cmpopts.IgnoreFields(labelstudio.Task{}, "Data"), cmpopts.IgnoreFields(labelstudio.Annotation{}, "Task"),
		cmpopts.IgnoreFields(labelstudio.UserRef{}, "Email"), cmpopts.EquateEmpty(), cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
		cmp.FilterValues(func(a, b json.RawMessage) bool { return len(a)+len(b) > 0 },
			cmp.Comparer(func(a, b json.RawMessage) bool { return fmt.Sprint(decoded(a)) == fmt.Sprint(decoded(b)) }))); diff != "" {
		r.Errorf("tasks by the API (-) and by the database (+):\n%s", diff)
	}
}

func decoded(raw json.RawMessage) (v any) {
	_ = json.Unmarshal(raw, &v) // nothing is nil
	return v
}

// TestOtherTables: a database whose tables are not those that are known is refused, in a sentence that says which.
func TestOtherTables(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, sandbox.Schema{Bare: true})
	db, err := labelstudio.OpenDatabase(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Check(t.Context()); !errors.Is(err, labelstudio.ErrSchema) {
		t.Errorf("an empty database: %v", err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `CREATE TABLE task (id int, project_id int, data text, meta jsonb, created_at timestamptz, updated_at timestamptz);
		CREATE TABLE task_completion (id int, task_id int, result jsonb, was_cancelled bool, ground_truth bool, completed_by_id int, updated_by_id int, created_at timestamptz, updated_at timestamptz)`); err != nil {
		t.Fatal(err)
	}
	err = db.Check(t.Context())
	want := "look at Label Studio's database: these are not the tables of Label Studio 1.23: no column task.data jsonb that may be read"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
