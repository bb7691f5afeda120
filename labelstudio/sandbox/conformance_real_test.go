package sandbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	"github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/labelstudio/sandbox/lstest"
)

func TestRealConforms(t *testing.T) {
	t.Parallel()
	real := lstest.Real(t, pgtest.Shared(t).URL())
	at := target{URL: real.URL(), Token: real.Token()}
	status, body := at.ask(t, "POST", "/api/token/", "Token "+at.Token, "")
	var made struct{ Token string }
	if err := json.Unmarshal(body, &made); err != nil || status != 201 {
		t.Fatalf("make a personal access token: %d %s", status, body)
	}
	at.Personal = made.Token
	conform(t, at)
	t.Run("shapes", func(t *testing.T) { sameShapes(t, at) })
}

// sameShapes lets the stand-in and the real one answer and announce the same, and compares which keys have which types. What only the
// stand-in has is an error: somebody would come to rely on it. What only the real one has is logged.
func sameShapes(t *testing.T, at target) {
	s := standIn(t, sandbox.StandInOptions{})
	ours, theirs := target{URL: s.URL(), Token: s.Token()}.shapes(t), at.shapes(t)
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		var lacks []string
		for key, types := range theirs[name] {
			if _, there := ours[name][key]; !there {
				lacks = append(lacks, key)
			} else if have := ours[name][key]; have != types && have != "null" && types != "null" {
				t.Errorf("%s: %s is %s, in the real one %s", name, key, have, types)
			}
		}
		for key := range ours[name] {
			if _, there := theirs[name][key]; !there {
				t.Errorf("%s: %s is not in the real one", name, key)
			}
		}
		slices.Sort(lacks)
		t.Logf("%s: the stand-in lacks %s", name, strings.Join(lacks, " "))
	}
}

// shapes makes one answer of each kind, and one delivery of each, and returns the type of every key in it.
func (at target) shapes(t *testing.T) map[string]map[string]string {
	t.Helper()
	c, got := at.client(t), map[string]map[string]string{}
	note := func(name string, body []byte) {
		var v any
		if err := json.Unmarshal(body, &v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got[name] = map[string]string{}
		shapeOf(v, "", got[name])
	}
	get := func(name, method, path, body string) {
		_, answer := at.ask(t, method, path, "Token "+at.Token, body)
		note(name, answer)
	}
	p, to := at.project(t, c), receive(t, nil)
	get("webhook", "POST", "/api/webhooks/", fmt.Sprintf(`{"project": %d, "url": %q}`, p, to.URL))
	get("webhooks", "GET", fmt.Sprintf("/api/webhooks/?project=%d", p), "")
	get("import", "POST", fmt.Sprintf("/api/projects/%d/import?return_task_ids=true", p), `[{"data": {"prompt": "p", "response": "r"}, "meta": {"k": 1}}]`)
	tasks, _, err := c.TasksAfter(t.Context(), p, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	task := fmt.Sprintf("/api/tasks/%d/", tasks[0].ID)
	get("annotation create", "POST", task+"annotations/", `{"result": [], "lead_time": 1.5}`)
	one, err := c.Task(t.Context(), tasks[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	annotation := fmt.Sprintf("/api/annotations/%d/", one.Annotations[0].ID)
	get("annotation update", "PATCH", annotation, `{}`)
	get("task", "GET", task+"?resolve_uri=false", "")
	get("task patch", "PATCH", task, `{"meta": {"k": 2}}`)
	get("row", "GET", fmt.Sprintf("/api/tasks/?project=%d&fields=all&resolve_uri=false", p), "")
	get("light row", "GET", fmt.Sprintf("/api/tasks/?project=%d&fields=task_only&resolve_uri=false", p), "")
	get("projects", "GET", "/api/projects/?page_size=1", "")
	get("whoami", "GET", "/api/current-user/whoami", "")
	get("users", "GET", "/api/users/", "")
	get("version", "GET", "/api/version/", "")
	get("not found", "GET", "/api/tasks/99999999/", "")
	if err := errors.Join(c.DeleteAnnotation(t.Context(), one.Annotations[0].ID), c.DeleteTask(t.Context(), one.ID)); err != nil {
		t.Fatal(err)
	}
	for _, d := range to.take() {
		var e event
		if err := json.Unmarshal(d.body, &e); err != nil {
			t.Fatal(err)
		}
		note(e.Action, d.body)
	}
	return got
}

// shapeOf notes the type under every path of keys; the items of a list share one.
func shapeOf(v any, path string, into map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			shapeOf(value, path+"."+key, into)
		}
	case []any:
		into[path] = "list"
		for _, value := range v {
			shapeOf(value, path+"[]", into)
		}
	case nil:
		into[path] = "null"
	default:
		into[path] = fmt.Sprintf("%T", v)
	}
}
