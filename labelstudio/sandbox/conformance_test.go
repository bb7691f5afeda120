package sandbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/labelstudio/sandbox"
)

// target is a Label Studio to look at: the stand-in or a real one.
type target struct {
	URL      string
	Token    string // legacy
	Personal string // a personal access token of the same user
}

// TestStandInConforms and TestRealConforms run one suite: what it says about Label Studio must hold of both, and a subtest that
// fails for one of them says where they differ.
func TestStandInConforms(t *testing.T) {
	t.Parallel()
	s := standIn(t, sandbox.StandInOptions{})
	conform(t, target{URL: s.URL(), Token: s.Token(), Personal: s.PersonalToken(1)})
}

func conform(t *testing.T, at target) {
	t.Run("tokens", at.tokens)
	t.Run("projects", at.projects)
	t.Run("import", at.imports)
	t.Run("patch", at.patches)
	t.Run("listing", at.listings)
	t.Run("filters", at.filters)
	t.Run("find", at.finds)
	t.Run("annotations", at.annotations)
	t.Run("listed annotations", at.listedAnnotations)
	t.Run("webhook settings", at.webhookSettings)
	t.Run("deliveries", at.deliveries)
	t.Run("slow receiver", at.slowReceiver)
	t.Run("redirected delivery", at.redirectedDelivery)
	t.Run("headers", at.headers)
}

func (at target) client(t *testing.T) *labelstudio.Client {
	t.Helper()
	c, err := labelstudio.New(labelstudio.Options{URL: at.URL, Token: at.Token})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ask makes a request of its own, for what the client would never send.
func (at target) ask(t *testing.T, method, path, token, body string) (status int, answer []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, at.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// refused checks a status and a part of the detail, and that the body has the form of an error.
func (at target) refused(t *testing.T, method, path, body string, status int, part string) {
	t.Helper()
	got, answer := at.ask(t, method, path, "Token "+at.Token, body)
	if got != status || !bytes.Contains(answer, []byte(part)) {
		t.Errorf("%s %.120s %.120s: %d %.300s; want %d with %q", method, path, body, got, answer, status, part)
	}
}

// project makes one with the label configuration that ships.
func (at target) project(t *testing.T, c *labelstudio.Client) int64 {
	t.Helper()
	p, err := c.CreateProject(t.Context(), labelstudio.NewProject{Title: "Conformance", LabelConfig: sandbox.LabelConfig})
	if err != nil {
		t.Fatal(err)
	}
	return p.ID
}

func texts(id any) map[string]any {
	return map[string]any{"conquest_id": id, "prompt": "p", "response": "r"}
}

func (at target) tasks(t *testing.T, c *labelstudio.Client, project int64, tasks ...labelstudio.NewTask) []int64 {
	t.Helper()
	ids, err := c.ImportTasks(t.Context(), project, tasks)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func (at target) tokens(t *testing.T) {
	c := at.client(t)
	if v, err := c.Version(t.Context()); err != nil || !strings.HasPrefix(v, "1.") {
		t.Errorf("Version: %q, %v", v, err)
	}
	me, err := c.Whoami(t.Context())
	if err != nil || me.ID == 0 || !strings.Contains(me.Email, "@") {
		t.Errorf("Whoami: %v, %v", me, err)
	}
	if users, err := c.Users(t.Context()); err != nil || !slices.Contains(users, me) {
		t.Errorf("Users: %v, %v; want %v among them", users, err, me)
	}
	for _, c := range []struct{ header, detail string }{
		{"", "Authentication credentials were not provided."},
		{"Token 0123456789abcdef0123456789abcdef01234567", "Invalid token."},
		{"Bearer a.b.c", "Authentication credentials were not provided."},
		{"Bearer " + at.Personal, "Authentication credentials were not provided."}, // it only buys access tokens
	} {
		if status, answer := at.ask(t, "GET", "/api/current-user/whoami", c.header, ""); status != 401 || !bytes.Contains(answer, []byte(c.detail)) {
			t.Errorf("with %q: %d %s", c.header, status, answer)
		}
	}
	if status, answer := at.ask(t, "POST", "/api/token/refresh/", "", `{"refresh": "a.b.c"}`); status != 401 || !bytes.Contains(answer, []byte("Token is invalid")) {
		t.Errorf("refresh of a bad token: %d %s", status, answer)
	}
	personal := at
	personal.Token = at.Personal
	if same, err := personal.client(t).Whoami(t.Context()); err != nil || same != me {
		t.Errorf("with the personal access token: %v, %v", same, err)
	}
}

func (at target) projects(t *testing.T) {
	c := at.client(t)
	id := at.project(t, c)
	at.tasks(t, c, id, labelstudio.NewTask{Data: texts("a")}, labelstudio.NewTask{Data: texts("b")})
	all, err := c.Projects(t.Context())
	if err != nil || !slices.Contains(all, labelstudio.Project{ID: id, Title: "Conformance", TaskNumber: 2}) {
		t.Errorf("Projects: %v, %v; want %d among them", all, err, id)
	}
	status, page := at.ask(t, "GET", "/api/projects/?page_size=1&include=id,title", "Token "+at.Token, "")
	if status != 200 || !bytes.Contains(page, []byte(`"count":`)) || bytes.Contains(page, []byte("task_number")) {
		t.Errorf("a page of projects: %d %s", status, page)
	}
	at.refused(t, "GET", "/api/projects/?page=999999", "", 404, "Invalid page.")
	at.refused(t, "POST", "/api/projects/", `{"title": "ab"}`, 400, "title")
	at.refused(t, "POST", "/api/projects/", `{"title": "`+strings.Repeat("a", 51)+`"}`, 400, "title")
	if err := c.DeleteProject(t.Context(), id); err != nil {
		t.Error(err)
	}
	at.refused(t, "DELETE", "/api/projects/"+strconv.FormatInt(id, 10)+"/", "", 404, "")
	_, _, err = c.TasksAfter(t.Context(), id, 0, 10)
	if !labelstudio.IsNotFound(err) || labelstudio.Away(err) {
		t.Errorf("listing a deleted project: %v", err)
	}
}

func (at target) imports(t *testing.T) {
	c := at.client(t)
	p := at.project(t, c)
	star, err := labelstudio.ChoicesRegion("verdict", "model_response", "gold_star")
	if err != nil {
		t.Fatal(err)
	}
	no := false
	ids := at.tasks(t, c, p,
		labelstudio.NewTask{Data: texts("a"), Meta: map[string]any{"source": "x"}},
		labelstudio.NewTask{Data: texts(7), Annotations: []labelstudio.AnnotationEdit{{Result: []labelstudio.Region{star}}}},
		labelstudio.NewTask{Data: texts("c"), Annotations: []labelstudio.AnnotationEdit{{Result: []labelstudio.Region{star}, GroundTruth: &no}}},
	)
	if !slices.IsSorted(ids) {
		t.Errorf("ids %v are not in the order of the request", ids)
	}
	for i, want := range []struct {
		meta, conquest string
		notes          int
		truth          bool
	}{{`{"source":"x"}`, `"a"`, 0, false}, {`{}`, `7`, 1, true}, {`{}`, `"c"`, 1, false}} {
		task, err := c.Task(t.Context(), ids[i])
		if err != nil {
			t.Fatal(err)
		}
		if !task.Annotated() || len(task.Annotations) != want.notes || !equalJSON(task.Meta, want.meta) || !bytes.Contains(task.Data, []byte(`"conquest_id":`+want.conquest)) {
			t.Errorf("task %d: %s %s with %d annotations", i, task.Data, task.Meta, len(task.Annotations))
			continue
		}
		if want.notes > 0 && (task.Annotations[0].GroundTruth != want.truth || task.Annotations[0].UpdatedBy.ID != 0 || task.Annotations[0].CompletedBy.Email == "") {
			t.Errorf("task %d: %+v", i, task.Annotations[0])
		}
	}
	path := fmt.Sprintf("/api/projects/%d/import?return_task_ids=true", p)
	// One bad item refuses all of them.
	at.refused(t, "POST", path, `[{"data": {"prompt": "p", "response": "r"}}, {"data": {"response": "r"}}]`, 400, `\"prompt\" key is expected in task data`)
	at.refused(t, "POST", path, `[{"data": {"prompt": "p", "response": "r"}, "meta": null}]`, 400, "")
	if _, total, err := c.TasksAfter(t.Context(), p, 0, 1); err != nil || total != 3 {
		t.Errorf("a refused import left %d tasks, %v", total, err)
	}
	// What a result has in it nobody looks at, and it keeps nobody from reading on.
	odd := `[{"data": {"prompt": "p", "response": "r"}, "annotations": [{"result": [7, {"type": "choices", "value": {"choices": ["gold_star"]}}]}]}]`
	if status, body := at.ask(t, "POST", path, "Token "+at.Token, odd); status != 201 {
		t.Errorf("%d %s", status, body)
	}
	after, _, err := c.TasksAfter(t.Context(), p, ids[2], 1)
	if err != nil || len(after) != 1 || len(after[0].Annotations) != 1 || !after[0].Annotations[0].Chose("gold_star") {
		t.Errorf("%+v, %v", after, err)
	}
}

func (at target) patches(t *testing.T) {
	c := at.client(t)
	p := at.project(t, c)
	id := at.tasks(t, c, p, labelstudio.NewTask{Data: texts("a"), Meta: map[string]any{"old": 1}})[0]
	before, err := c.Task(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	const sent = `{"gold_star": true, "bb": 1, "a": {"z": 1, "y": "\u00e9<&>%25"}, "a": {"zz": 12345678901234567890, "y": null}}`
	answered, err := c.PatchMeta(t.Context(), id, json.RawMessage(sent))
	if err != nil {
		t.Fatal(err)
	}
	read, err := c.Task(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	// It replaces, and keys come back in another order, doubles gone.
	if want := `{"a":{"y":null,"zz":12345678901234567890},"bb":1,"gold_star":true}`; string(read.Meta) != want {
		t.Errorf("meta came back as %s, want %s", read.Meta, want)
	}
	if !equalJSON(answered.Meta, string(read.Meta)) || !answered.Annotated() || !answered.UpdatedAt.After(before.UpdatedAt) || !answered.CreatedAt.Equal(before.CreatedAt) || !read.UpdatedAt.Equal(answered.UpdatedAt) {
		t.Errorf("answer %+v, read %+v", answered, read)
	}
	if !equalJSON(read.Data, string(before.Data)) {
		t.Errorf("data became %s", read.Data)
	}
	for _, meta := range []string{`null`, `[1,"x"]`, `"text"`, `7`, `false`, `{}`} {
		if _, err := c.PatchMeta(t.Context(), id, json.RawMessage(meta)); err != nil {
			t.Errorf("meta %s: %v", meta, err)
		}
		if read, err = c.Task(t.Context(), id); err != nil || string(read.Meta) != meta {
			t.Errorf("meta %s came back as %s, %v", meta, read.Meta, err)
		}
	}
	path := fmt.Sprintf("/api/tasks/%d/", id)
	at.refused(t, "PATCH", path, `{"meta": {`, 400, "JSON parse error")
	at.refused(t, "PATCH", path, `{"meta": {"nul": "a\u0000b"}}`, 500, "")
	at.refused(t, "PATCH", path, `[]`, 500, "'list' object has no attribute 'get'")
	at.refused(t, "PATCH", "/api/tasks/99999999/", `{"meta": {}}`, 404, "No Task matches the given query.")
	// An empty one, without the final slash, moves the time and nothing else.
	if status, answer := at.ask(t, "PATCH", strings.TrimSuffix(path, "/"), "Token "+at.Token, `{}`); status != 200 {
		t.Errorf("an empty PATCH: %d %s", status, answer)
	}
	if after, err := c.Task(t.Context(), id); err != nil || !after.UpdatedAt.After(read.UpdatedAt) || string(after.Meta) != `{}` {
		t.Errorf("an empty PATCH: %+v, %v", after, err)
	}
	if err := c.DeleteTask(t.Context(), id); err != nil {
		t.Error(err)
	}
	if _, err = c.Task(t.Context(), id); !labelstudio.IsNotFound(err) {
		t.Errorf("a deleted task: %v", err)
	}
	if _, err = c.PatchMeta(t.Context(), id, json.RawMessage(`{}`)); !labelstudio.IsNotFound(err) || !labelstudio.NotDone(err) || labelstudio.Away(err) {
		t.Errorf("PATCH of a deleted task: %v", err)
	}
}

func (at target) listings(t *testing.T) {
	c := at.client(t)
	p, other := at.project(t, c), at.project(t, c)
	ids := at.tasks(t, c, p, slices.Repeat([]labelstudio.NewTask{{Data: texts("a")}}, 5)...)
	foreign := at.tasks(t, c, other, labelstudio.NewTask{Data: texts("a")})[0]

	var seen []int64
	for last := int64(0); ; last = seen[len(seen)-1] {
		page, total, err := c.TasksAfter(t.Context(), p, last, 2)
		if err != nil || total != len(ids)-len(seen) {
			t.Fatalf("after %d: %d rows of %d, %v", last, len(page), total, err)
		}
		for _, task := range page {
			seen = append(seen, task.ID)
			if task.Project != p || !task.Annotated() || task.CreatedAt.IsZero() || task.UpdatedAt.IsZero() || task.Meta == nil || task.Data == nil {
				t.Errorf("a row %+v", task)
			}
		}
		if len(page) == 0 || len(seen) > len(ids) {
			break
		}
	}
	if !slices.Equal(seen, ids) {
		t.Errorf("keyset paging saw %v of %v", seen, ids)
	}
	// Exactly those asked for, whoever else's they are.
	some, err := c.TasksByID(t.Context(), p, []int64{ids[3], foreign, ids[1], 99999999, ids[3]})
	if err != nil || len(some) != 2 || some[0].ID != ids[1] || some[1].ID != ids[3] || !some[0].Annotated() {
		t.Errorf("TasksByID: %+v, %v", some, err)
	}
	mark, err := c.PatchMeta(t.Context(), ids[2], json.RawMessage(`{"x": 1}`))
	if err != nil {
		t.Fatal(err)
	}
	changed, total, err := c.TasksChanged(t.Context(), p, mark.UpdatedAt, 0, 10)
	if err != nil || total != 1 || len(changed) != 1 || changed[0].ID != ids[2] || !changed[0].Annotated() {
		t.Errorf("TasksChanged: %+v of %d, %v", changed, total, err)
	}

	list := fmt.Sprintf("/api/tasks/?project=%d", p)
	for _, c := range []struct {
		query  string
		status int
		part   string
	}{
		{"&page=1&page_size=5", 200, `"total":5`},
		{"&page=2&page_size=5", 404, "Invalid page."},
		{"&page=0", 404, "Invalid page."},
		{"&page_size=0", 200, `"total":5`}, {"&page_size=-1", 200, `"total":5`}, {"&page_size=all", 200, `"total":5`},
		{"&include=nosuch", 200, `"tasks":[{},{},{},{},{}]`},
		{"&include=id&ordering=-id", 200, fmt.Sprintf(`"tasks":[{"id":%d}`, ids[0])},
		{`&include=id&query={"ordering":["-tasks:id"]}`, 200, fmt.Sprintf(`"tasks":[{"id":%d}`, ids[4])},
		{`&query={"ordering":["tasks:nosuch"]}`, 500, ""},
	} {
		at.refused(t, "GET", list+escaped(c.query), "", c.status, c.part)
	}
	at.refused(t, "GET", "/api/tasks/", "", 404, `{"detail":"Neither project nor view id specified"}`)
	at.refused(t, "GET", "/api/tasks/?project=99999999", "", 404, "No Project matches the given query.")
	at.refused(t, "GET", "/api/tasks/99999999/", "", 404, "No Task matches the given query.")
}

// escaped encodes what a query string may not hold, once.
func escaped(query string) string {
	return strings.NewReplacer("%", "%25", `"`, "%22", "{", "%7B", "}", "%7D", " ", "%20", "[", "%5B", "]", "%5D", "+", "%2B").Replace(query)
}

// headers: what tells Django's development server, and the session cookie that a client must not keep.
func (at target) headers(t *testing.T) {
	req, err := http.NewRequestWithContext(t.Context(), "GET", at.URL+"/api/current-user/whoami", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Token "+at.Token)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if !strings.HasPrefix(resp.Header.Get("Server"), "WSGIServer/") || !strings.Contains(resp.Header.Get("Set-Cookie"), "sessionid=") || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", resp.Header)
	}
}

func equalJSON(got json.RawMessage, want string) bool {
	var a, b any
	return json.Unmarshal(got, &a) == nil && json.Unmarshal([]byte(want), &b) == nil && fmt.Sprint(a) == fmt.Sprint(b)
}
