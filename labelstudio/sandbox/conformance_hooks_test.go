package sandbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
)

func star(t *testing.T, choices ...string) []labelstudio.Region {
	t.Helper()
	r, err := labelstudio.ChoicesRegion("verdict", "model_response", choices...)
	if err != nil {
		t.Fatal(err)
	}
	return []labelstudio.Region{r}
}

func (at target) annotations(t *testing.T) {
	c, ctx := at.client(t), t.Context()
	p := at.project(t, c)
	id := at.tasks(t, c, p, labelstudio.NewTask{Data: texts("a"), Meta: map[string]any{"k": 1}})[0]
	me, err := c.Whoami(ctx)
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.CreateAnnotation(ctx, id, labelstudio.AnnotationEdit{Result: star(t, "gold_star")})
	if err != nil {
		t.Fatal(err)
	}
	if first.Task != id || first.CompletedBy.ID != me.ID || first.GroundTruth || first.WasCancelled || !slices.Equal(first.Result[0].Choices(), []string{"gold_star"}) {
		t.Errorf("created %+v", first)
	}
	yes := true
	second, err := c.CreateAnnotation(ctx, id, labelstudio.AnnotationEdit{GroundTruth: &yes, WasCancelled: &yes})
	if err != nil || !second.GroundTruth || !second.WasCancelled || len(second.Result) != 0 {
		t.Errorf("created %+v, %v", second, err)
	}
	// Ground truth moves, and the one that loses it does not show it by its time.
	if _, err := c.UpdateAnnotation(ctx, first.ID, labelstudio.AnnotationEdit{Result: star(t), GroundTruth: &yes}); err != nil {
		t.Error(err)
	}
	task, err := c.Task(ctx, id)
	if err != nil || len(task.Annotations) != 2 {
		t.Fatalf("%+v, %v", task, err)
	}
	slices.SortFunc(task.Annotations, func(a, b labelstudio.Annotation) int { return int(a.ID - b.ID) })
	a, b := task.Annotations[0], task.Annotations[1]
	if !a.GroundTruth || len(a.Result) != 1 || a.Result[0].Choices() != nil || a.CompletedBy != labelstudio.UserRef(me) || !a.UpdatedAt.After(first.UpdatedAt) {
		t.Errorf("updated %+v", a)
	}
	if b.GroundTruth || !b.WasCancelled || !b.UpdatedAt.Equal(second.UpdatedAt) {
		t.Errorf("its sibling %+v, created at %s", b, second.UpdatedAt)
	}
	if !task.UpdatedAt.After(first.UpdatedAt) || !equalJSON(task.Meta, `{"k":1}`) {
		t.Errorf("the task %s %s", task.UpdatedAt, task.Meta)
	}
	at.refused(t, "PATCH", fmt.Sprintf("/api/annotations/%d/", first.ID), `{"result": "text"}`, 500, "can't be parse from str to JSON")
	at.refused(t, "PATCH", fmt.Sprintf("/api/annotations/%d/", first.ID), `{"result": 7}`, 400, "")
	at.refused(t, "PATCH", fmt.Sprintf("/api/annotations/%d/", first.ID), `{"result": null}`, 400, "")
	at.refused(t, "PATCH", fmt.Sprintf("/api/annotations/%d/", first.ID), `{"result": {}}`, 400, "")
	at.refused(t, "PATCH", "/api/annotations/99999999/", `{"result": []}`, 404, "No Annotation matches the given query.")
	if _, err := c.CreateAnnotation(ctx, 99999999, labelstudio.AnnotationEdit{}); !labelstudio.NotDone(err) {
		t.Errorf("annotating no task: %v", err)
	}
	if err := c.DeleteAnnotation(ctx, second.ID); err != nil {
		t.Error(err)
	}
	if err := c.DeleteAnnotation(ctx, second.ID); !labelstudio.IsNotFound(err) {
		t.Errorf("deleting it again: %v", err)
	}
	if task, err = c.Task(ctx, id); err != nil || len(task.Annotations) != 1 {
		t.Errorf("%+v, %v", task, err)
	}
	// Nobody looks into a region but for its names: a program's may have a number for its id.
	odd := `{"result": [{"id": 7, "origin": null, "type": "choices", "from_name": "verdict", "to_name": "model_response", "value": {"choices": ["gold_star"]}}]}`
	if status, body := at.ask(t, "POST", fmt.Sprintf("/api/tasks/%d/annotations/", id), "Token "+at.Token, odd); status != 201 {
		t.Errorf("%d %s", status, body)
	}
	listed, err := c.TasksByID(ctx, p, []int64{id})
	if err != nil || !slices.ContainsFunc(listed[0].Annotations, func(a labelstudio.Annotation) bool { return a.Chose("gold_star") }) {
		t.Errorf("%+v, %v", listed, err)
	}
}

// listedAnnotations: one listing tells meta and annotations of many tasks, if it names the keys of what is nested.
func (at target) listedAnnotations(t *testing.T) {
	c, ctx := at.client(t), t.Context()
	p := at.project(t, c)
	ids := at.tasks(t, c, p, labelstudio.NewTask{Data: texts("a")}, labelstudio.NewTask{Data: texts("b")})
	yes := true
	for _, edit := range []labelstudio.AnnotationEdit{{Result: star(t, "gold_star")}, {Result: star(t, "gold_star"), WasCancelled: &yes}} {
		if _, err := c.CreateAnnotation(ctx, ids[0], edit); err != nil {
			t.Fatal(err)
		}
	}
	byID, err := c.TasksByID(ctx, p, ids)
	if err != nil {
		t.Fatal(err)
	}
	after, total, err := c.TasksAfter(ctx, p, 0, 100)
	if err != nil || total != 2 {
		t.Fatalf("%d, %v", total, err)
	}
	for name, rows := range map[string][]labelstudio.Task{"TasksByID": byID, "TasksAfter": after} {
		if len(rows) != 2 || !rows[0].Annotated() || !rows[1].Annotated() || len(rows[0].Annotations) != 2 || len(rows[1].Annotations) != 0 {
			t.Fatalf("%s: %+v", name, rows)
		}
		one, err := c.Task(ctx, ids[0])
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range one.Annotations {
			at := slices.IndexFunc(rows[0].Annotations, func(a labelstudio.Annotation) bool { return a.ID == want.ID })
			if at < 0 {
				t.Fatalf("%s: annotation %d of %d is not there", name, i, want.ID)
			}
			got := rows[0].Annotations[at]
			if got.WasCancelled != want.WasCancelled || got.GroundTruth != want.GroundTruth || got.CompletedBy.ID != want.CompletedBy.ID ||
				!got.UpdatedAt.Equal(want.UpdatedAt) || !slices.Equal(got.Result[0].Choices(), want.Result[0].Choices()) {
				t.Errorf("%s: %+v, and alone %+v", name, got, want)
			}
		}
	}
	list := fmt.Sprintf("/api/tasks/?project=%d&page_size=1&", p)
	token := "Token " + at.Token
	if _, body := at.ask(t, "GET", list+"fields=task_only&include=id,annotations", token, ""); bytes.Contains(body, []byte(`"annotations":`)) {
		t.Errorf("task_only has annotations: %s", body)
	}
	if _, body := at.ask(t, "GET", list+"fields=all&include=id,meta,annotations", token, ""); !bytes.Contains(body, []byte(`"annotations":[{"id":`)) || bytes.Contains(body, []byte("result")) {
		t.Errorf("annotations without their keys named: %s", body)
	}
}

var wanted = []string{
	labelstudio.AnnotationCreated, labelstudio.AnnotationsCreated, labelstudio.AnnotationUpdated,
	labelstudio.AnnotationsDeleted, labelstudio.TasksCreated, labelstudio.TasksDeleted,
}

func (at target) webhookSettings(t *testing.T) {
	c, ctx := at.client(t), t.Context()
	p := at.project(t, c)
	w := labelstudio.Webhook{Project: p, URL: "http://127.0.0.1:9/hook", SendPayload: true, IsActive: true, Actions: wanted, Headers: map[string]string{"Authorization": "Bearer s"}}
	made, err := c.CreateWebhook(ctx, w)
	if err != nil {
		t.Fatal(err)
	}
	twin, err := c.CreateWebhook(ctx, w)
	if err != nil || twin.ID == made.ID {
		t.Errorf("the same URL again: %+v, %v", twin, err)
	}
	all, err := c.Webhooks(ctx, p)
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	everywhere, err := c.Webhooks(ctx, 0) // others share the server
	if err != nil || !slices.ContainsFunc(everywhere, func(w labelstudio.Webhook) bool { return w.ID == made.ID && w.Project == p }) {
		t.Errorf("of all projects: %+v, %v", everywhere, err)
	}
	for _, got := range all {
		slices.Sort(got.Actions)
		if got.URL != w.URL || got.Project != p || !got.IsActive || got.SendForAllActions || !got.SendPayload || got.Headers["Authorization"] != "Bearer s" || !slices.Equal(got.Actions, slices.Sorted(slices.Values(wanted))) {
			t.Errorf("%+v", got)
		}
	}
	if err := c.DeleteWebhook(ctx, twin.ID); err != nil {
		t.Error(err)
	}
	// Without actions it forgets them; our update always has them.
	path := fmt.Sprintf("/api/webhooks/%d/", made.ID)
	if status, answer := at.ask(t, "PATCH", path, "Token "+at.Token, `{"is_active": false}`); status != 200 || !bytes.Contains(answer, []byte(`"actions":[]`)) {
		t.Errorf("PATCH without actions: %d %s", status, answer)
	}
	made.IsActive = true
	if made, err = c.UpdateWebhook(ctx, made); err != nil || !made.IsActive || len(made.Actions) != len(wanted) || made.URL != w.URL {
		t.Errorf("updated %+v, %v", made, err)
	}
	var headers []string
	for i := range 11 {
		headers = append(headers, fmt.Sprintf(`"H%d": "x"`, i))
	}
	for _, c := range []struct {
		body   string
		status int
		part   string
	}{
		{fmt.Sprintf(`{"project": %d, "url": "http://sync:8080/x"}`, p), 400, "Enter a valid URL."},
		{fmt.Sprintf(`{"project": %d, "url": "http://a_b.example.com/x"}`, p), 400, "Enter a valid URL."},
		{fmt.Sprintf(`{"project": %d, "url": "http://127.0.0.1/x", "headers": {"a b": "c"}}`, p), 400, "headers"},
		{fmt.Sprintf(`{"project": %d, "url": "http://127.0.0.1/x", "headers": {%s}}`, p, strings.Join(headers, ",")), 400, "headers"},
		{fmt.Sprintf(`{"project": %d, "url": "http://127.0.0.1/x", "actions": ["NO_SUCH"]}`, p), 400, "is not a valid choice"},
		{`{"url": "http://127.0.0.1/x"}`, 404, "Project not found."},
		{`{"project": 99999999, "url": "http://127.0.0.1/x"}`, 400, "Invalid pk"},
	} {
		at.refused(t, "POST", "/api/webhooks/", c.body, c.status, c.part)
	}
	at.refused(t, "DELETE", "/api/webhooks/99999999/", "", 404, "")
	for _, url := range []string{"http://sync:8080/x", "http://[::1]:80/x", "http://a_b.c/x", "ftp://a.b/x", "/x"} {
		w.URL = url
		if _, err := c.CreateWebhook(ctx, w); !labelstudio.NotDone(err) {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// delivery is one request that a receiver got.
type delivery struct {
	header http.Header
	body   []byte
}

// receiver notes all deliveries and answers with the given handler, 204 where it is nil.
type receiver struct {
	URL string
	mu  sync.Mutex
	got []delivery
}

func receive(t *testing.T, then http.HandlerFunc) *receiver {
	t.Helper()
	r := new(receiver)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Errorf("a delivery was cut: %v", err)
		}
		r.mu.Lock()
		r.got = append(r.got, delivery{req.Header.Clone(), body})
		r.mu.Unlock()
		if then != nil {
			then(w, req)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	r.URL = server.URL
	return r
}

// take returns what arrived since the last call. Deliveries are made inside the request that causes them, so there is nothing to wait for.
func (r *receiver) take() []delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

// deliveries: what each change announces, and what announces nothing.
func (at target) deliveries(t *testing.T) {
	c, ctx := at.client(t), t.Context()
	p := at.project(t, c)
	to := receive(t, nil)
	_, err := c.CreateWebhook(ctx, labelstudio.Webhook{Project: p, URL: to.URL + "/hook", SendPayload: true, IsActive: true, Actions: wanted, Headers: map[string]string{"Authorization": "Bearer s"}})
	if err != nil {
		t.Fatal(err)
	}
	ids := at.tasks(t, c, p, labelstudio.NewTask{Data: texts("a"), Meta: map[string]any{"k": 1}}, labelstudio.NewTask{Data: texts("b"), Annotations: []labelstudio.AnnotationEdit{{Result: star(t, "gold_star")}}})
	got := to.take()
	if len(got) != 1 { // the imported annotation is announced by nothing
		t.Fatalf("an import made %d deliveries", len(got))
	}
	h := got[0].header
	if h.Get("Authorization") != "Bearer s" || h.Get("Content-Type") != "application/json" || !strings.HasPrefix(h.Get("User-Agent"), "python-requests/") || h.Get("Accept") != "*/*" || h.Get("Accept-Encoding") != "gzip, deflate" {
		t.Errorf("headers %v", h)
	}
	var created struct {
		Action  string
		Tasks   []labelstudio.Task
		Project struct {
			ID    int64
			Token string
		}
	}
	if err := json.Unmarshal(got[0].body, &created); err != nil || created.Action != labelstudio.TasksCreated || len(created.Tasks) != 2 || created.Project.ID != p || created.Project.Token == "" {
		t.Errorf("%.300s, %v", got[0].body, err)
	} else if first := created.Tasks[0]; first.ID != ids[0] || first.Annotated() || !equalJSON(first.Meta, `{"k":1}`) || !strings.Contains(string(first.Data), `"a"`) || first.Project != p {
		t.Errorf("%+v", first)
	}
	var note *labelstudio.Annotation
	yes := true
	for _, step := range []struct {
		what   string
		do     func() error
		action string // "" is silence
		check  func(event) bool
	}{
		{"PATCH of meta", func() (err error) { _, err = c.PatchMeta(ctx, ids[0], json.RawMessage(`{"k":2}`)); return }, "", nil},
		{"a submitted annotation", func() (err error) {
			note, err = c.CreateAnnotation(ctx, ids[0], labelstudio.AnnotationEdit{Result: star(t, "gold_star")})
			return
		}, labelstudio.AnnotationCreated, func(e event) bool {
			return e.Annotation.ID == note.ID && e.Annotation.Task == ids[0] && e.Annotation.CompletedBy.ID != 0 && e.Task.ID == ids[0] && equalJSON(e.Task.Meta, `{"k":2}`) && !e.Task.Annotated() && e.Annotation.Result[0].Choices()[0] == "gold_star"
		}},
		{"a changed annotation", func() (err error) {
			_, err = c.UpdateAnnotation(ctx, note.ID, labelstudio.AnnotationEdit{Result: star(t)})
			return
		}, labelstudio.AnnotationUpdated, func(e event) bool { return e.Annotation.ID == note.ID && len(e.Annotation.Result[0].Choices()) == 0 }},
		{"a refused change", func() error {
			at.refused(t, "PATCH", fmt.Sprintf("/api/annotations/%d/", note.ID), `{"result": {}}`, 400, "")
			return nil
		}, "", nil},
		{"an empty change", func() error {
			at.refused(t, "PATCH", fmt.Sprintf("/api/annotations/%d/", note.ID), `{}`, 200, "")
			return nil
		}, labelstudio.AnnotationUpdated, nil},
		{"a skip", func() (err error) {
			_, err = c.CreateAnnotation(ctx, ids[0], labelstudio.AnnotationEdit{WasCancelled: &yes})
			return
		}, labelstudio.AnnotationCreated, func(e event) bool { return e.Annotation.WasCancelled }},
		{"a deleted annotation", func() error { return c.DeleteAnnotation(ctx, note.ID) }, labelstudio.AnnotationsDeleted, func(e event) bool { return len(e.Annotations) == 1 && e.Annotations[0].ID == note.ID && e.Task.ID == 0 }},
		{"a deleted task", func() error { return c.DeleteTask(ctx, ids[0]) }, labelstudio.TasksDeleted, func(e event) bool { return len(e.Tasks) == 1 && e.Tasks[0].ID == ids[0] && e.Tasks[0].Data == nil }},
		{"a saved project", func() error {
			_, err := c.CreateWebhook(ctx, labelstudio.Webhook{Project: p, URL: to.URL + "/hook?probe=1", SendPayload: true, IsActive: true, Actions: []string{labelstudio.ProjectUpdated}})
			if err != nil {
				return err
			}
			return c.TouchProject(ctx, labelstudio.Project{ID: p, Title: "Touched"})
		}, labelstudio.ProjectUpdated, nil},
		{"a deleted project", func() error { return c.DeleteProject(ctx, p) }, "", nil},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.what, err)
			continue
		}
		got := to.take()
		if step.action == "" {
			if len(got) != 0 {
				t.Errorf("%s was announced: %.200s", step.what, got[0].body)
			}
			continue
		}
		if len(got) != 1 {
			t.Errorf("%s made %d deliveries", step.what, len(got))
			continue
		}
		var e event
		if err := json.Unmarshal(got[0].body, &e); err != nil || e.Action != step.action || e.Project.ID != p || step.check != nil && !step.check(e) {
			t.Errorf("%s: %s %.600s, %v", step.what, e.Action, got[0].body, err)
		}
	}
}

// event is a webhook's body.
type event struct {
	Action      string
	Annotation  labelstudio.Annotation
	Annotations []struct{ ID int64 }
	Task        labelstudio.Task
	Tasks       []labelstudio.Task
	Project     struct{ ID int64 }
}

// slowReceiver: one that takes longer than 1.0 s is left, has got all of the body, and costs the annotator that second; one whose payload is
// switched off gets the action alone; one that is inactive, or deaf, gets nothing.
func (at target) slowReceiver(t *testing.T) {
	c, ctx := at.client(t), t.Context()
	p := at.project(t, c)
	id := at.tasks(t, c, p, labelstudio.NewTask{Data: texts("a")})[0]
	hang := make(chan struct{})
	slow := receive(t, func(http.ResponseWriter, *http.Request) { <-hang })
	defer close(hang)
	bare, off, deaf := receive(t, nil), receive(t, nil), receive(t, nil)
	for _, w := range []labelstudio.Webhook{
		{URL: slow.URL, SendPayload: true, IsActive: true, Actions: wanted},
		{URL: bare.URL, IsActive: true, SendForAllActions: true},
		{URL: off.URL, SendPayload: true, Actions: wanted},
		{URL: deaf.URL, SendPayload: true, IsActive: true},
	} {
		w.Project = p
		if _, err := c.CreateWebhook(ctx, w); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	if _, err := c.CreateAnnotation(ctx, id, labelstudio.AnnotationEdit{Result: star(t, "gold_star")}); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took < time.Second || took > 20*time.Second {
		t.Errorf("the annotator waited %s", took)
	}
	if got := slow.take(); len(got) != 1 || !json.Valid(got[0].body) {
		t.Errorf("the slow receiver got %d deliveries", len(got))
	}
	if got := bare.take(); len(got) != 1 || !equalJSON(got[0].body, `{"action":"ANNOTATION_CREATED"}`) {
		t.Errorf("without payload: %q", got)
	}
	if n := len(off.take()) + len(deaf.take()); n != 0 {
		t.Errorf("inactive and deaf ones got %d deliveries", n)
	}
}

// redirectedDelivery: a 302 loses the body and the method, a 307 keeps both.
func (at target) redirectedDelivery(t *testing.T) {
	c, ctx := at.client(t), t.Context()
	for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect} {
		p := at.project(t, c)
		id := at.tasks(t, c, p, labelstudio.NewTask{Data: texts("a")})[0]
		methods := make(chan string, 1)
		end := receive(t, func(_ http.ResponseWriter, r *http.Request) { methods <- r.Method })
		front := receive(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, end.URL, status) })
		if _, err := c.CreateWebhook(ctx, labelstudio.Webhook{Project: p, URL: front.URL, SendPayload: true, IsActive: true, Actions: wanted}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.CreateAnnotation(ctx, id, labelstudio.AnnotationEdit{}); err != nil {
			t.Fatal(err)
		}
		got := end.take()
		if len(got) != 1 {
			t.Fatalf("%d: %d deliveries", status, len(got))
		}
		method, want := <-methods, map[int]string{http.StatusFound: "GET", http.StatusTemporaryRedirect: "POST"}[status]
		if method != want || (len(got[0].body) > 0) != (want == "POST") {
			t.Errorf("%d: a %s with %d bytes", status, method, len(got[0].body))
		}
	}
}
