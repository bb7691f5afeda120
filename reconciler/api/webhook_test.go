package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/web"
)

// What was recorded of Label Studio's deliveries is read for the tasks that each is about.
func TestParseRecorded(t *testing.T) {
	t.Parallel()
	type about struct {
		Action string
		Tasks  []ledger.Link
		IDs    []int64 // where the tasks are told by their numbers alone, or the annotations are
	}
	shown := ledger.Link{Task: 141024, Project: 15, Key: "conquest_abc123"}
	abc := ledger.Link{Task: 141019, Project: 12, Key: "conquest_abc123"}
	want := map[string]about{
		"annotation_created.json":                 {Action: "ANNOTATION_CREATED", Tasks: []ledger.Link{abc}},
		"annotation_updated.json":                 {Action: "ANNOTATION_UPDATED", Tasks: []ledger.Link{abc}},
		"ui_annotation_created.json":              {Action: "ANNOTATION_CREATED", Tasks: []ledger.Link{shown}},
		"ui_annotation_updated_star_removed.json": {Action: "ANNOTATION_UPDATED", Tasks: []ledger.Link{shown}},
		"annotations_created.json":                {Action: "ANNOTATIONS_CREATED", Tasks: []ledger.Link{{Task: 141021, Project: 12, Key: "conquest_def456"}}},
		"annotation_created_no_payload.json":      {Action: "ANNOTATION_CREATED"},
		"annotations_deleted.json":                {Action: "ANNOTATIONS_DELETED", IDs: []int64{14109}},
		"tasks_created.json": {Action: "TASKS_CREATED", Tasks: []ledger.Link{abc,
			{Task: 141020, Project: 12, Key: "conquest_old1"}, {Task: 141021, Project: 12, Key: "conquest_def456"}}},
		"tasks_deleted.json":   {Action: "TASKS_DELETED", IDs: []int64{141021}},
		"project_updated.json": {Action: "PROJECT_UPDATED"},
	}
	for name, body := range recorded(t) {
		e, err := parseEvent(body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := about{Action: e.Action}
		for _, n := range append(e.Task, e.Tasks...) {
			if len(n.Data) == 0 {
				got.IDs = append(got.IDs, n.ID)
				continue
			}
			got.Tasks = append(got.Tasks, ledger.Link{Task: n.ID, Project: n.Project, Key: ledger.KeyOf(n.Data)})
		}
		got.IDs = append(got.IDs, ids(e.Annotations)...)
		if diff := cmp.Diff(want[name], got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestParseMany: a body of many small things does not fill the memory.
func TestParseMany(t *testing.T) {
	for thing, status := range map[string]int{`{}`: 400, `null`: 400, `{"id":1}`: 413, `{"id":1,"data":{}}`: 413} {
		body := []byte(`{"action": "TASKS_DELETED", "tasks": [` + strings.Repeat(thing+",", 16<<20/len(thing)) + thing + `]}`)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := parseEvent(body)
		runtime.ReadMemStats(&after)
		var p *web.Problem
		if took := after.TotalAlloc - before.TotalAlloc; !errors.As(err, &p) || p.Status != status || took > 256<<20 {
			t.Errorf("%s, %d MiB of it: %v, and takes %d MiB", thing, len(body)>>20, err, took>>20)
		}
	}
	whole := `{"action": "TASKS_DELETED", "tasks": [` + strings.Repeat(`{"id":1},`, maxNamed-1) + `{"id":2}]}`
	if e, err := parseEvent([]byte(whole)); err != nil || len(e.Tasks) != maxNamed || e.Tasks[maxNamed-1].ID != 2 {
		t.Errorf("as many as may be: %d, %v", len(e.Tasks), err)
	}
}

// recorded is every delivery of testdata by its file's name.
func recorded(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded deliveries: %v", err)
	}
	all := map[string][]byte{}
	for _, file := range files {
		if all[filepath.Base(file)], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// Whatever arrives, it is an event whose tasks have numbers, or a refusal with a 400 that quotes nothing of it.
func FuzzParseEvent(f *testing.F) {
	for _, body := range recorded(f) {
		f.Add(body)
	}
	for _, body := range []string{``, `null`, `[]`, `{}`, `"x"`, `{"action": 1}`, `{"action": null, "task": null}`, `{"task": [null]}`, `{"task": {"id": 0}}`,
		`{"tasks": {"id": 1, "data": "x"}}`, `{"task": {"id": 1e3}}`, `{"task": {"id": 9223372036854775808}}`, `{"TASKS": [{"ID": 5}]}`, "{\"action\": \"\xff\"}"} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := parseEvent(body)
		if err != nil {
			var r *web.Problem
			if !errors.As(err, &r) || r.Status != http.StatusBadRequest || len(body) > 12 && strings.Contains(err.Error(), string(body)) {
				t.Errorf("%q is refused by %v", body, err)
			}
			return
		}
		for _, n := range append(append(e.Task, e.Tasks...), e.Annotations...) {
			if n.ID <= 0 {
				t.Errorf("%q is about %d", body, n.ID)
			}
			ledger.KeyOf(n.Data) // takes anything
		}
	})
}

// Each outage of the database is told once when it begins and once when it is over, also the second with the same words; what
// does not concern us says nothing of it.
func TestWebhookTellsOutages(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	var away error
	a := &API{Metrics: metrics.New(prometheus.NewRegistry()), Guard: &auth.Guard{}, Log: slog.New(slog.NewTextHandler(&log, nil))}
	a.links.commit = func(context.Context, []ledger.Link) error { return away }
	deliver := func(status int, body string) {
		t.Helper()
		w := httptest.NewRecorder()
		a.webhook(w, httptest.NewRequest(http.MethodPost, "http://127.0.0.1:4080/v1/webhooks/label-studio", strings.NewReader(body)))
		if w.Code != status {
			t.Fatalf("%s is answered with %d", body, w.Code)
		}
	}
	const star, other = `{"action": "ANNOTATION_CREATED", "task": {"id": 1, "data": {"conquest_id": "k"}}}`, `{"action": "PROJECT_UPDATED"}`
	for outages := range 2 {
		away = errors.New("away")
		for range 3 {
			deliver(http.StatusServiceUnavailable, star)
			deliver(http.StatusOK, other)
		}
		away = nil
		for range 3 {
			deliver(http.StatusOK, star)
		}
		if begun, ended := strings.Count(log.String(), "level=WARN"), strings.Count(log.String(), "works again"); begun != outages+1 || ended != outages+1 {
			t.Errorf("of %d outages %d are told, of their ends %d:\n%s", outages+1, begun, ended, &log)
		}
	}
}
