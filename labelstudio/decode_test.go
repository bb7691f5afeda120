package labelstudio

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func recorded(t testing.TB, name string) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// compacted undoes the indentation of a recorded body, so that raw JSON can be compared.
func compacted(t testing.TB, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, body); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestRecordedTask(t *testing.T) {
	t.Parallel()
	var got Task
	if err := json.Unmarshal(compacted(t, recorded(t, "task_get.json")), &got); err != nil {
		t.Fatal(err)
	}
	want := Task{
		ID: 141019, Project: 12,
		Data:      json.RawMessage(`{"prompt":"How strong is this candidate?","response":"The candidate is strong.","conquest_id":"conquest_abc123","conquest_type":"candidate_evaluation"}`),
		Meta:      json.RawMessage(`{"source":"aristotle","gold_star":true,"result_notes":"Excellent analysis","gold_star_updated_at":"2026-11-23T09:30:00Z","synced_from_aristotle":true}`),
		CreatedAt: at(t, "2026-11-23T09:29:07.788134Z"), UpdatedAt: at(t, "2026-11-23T09:29:11.702691Z"),
		Annotations: []Annotation{{
			ID: 14109, Task: 141019, CompletedBy: UserRef{1, "sync@example.com"}, UpdatedBy: UserRef{ID: 1},
			CreatedAt: at(t, "2026-11-23T09:29:09.039926Z"), UpdatedAt: at(t, "2026-11-23T09:29:10.476219Z"),
			Result: []Region{
				{ID: "c1", Type: "choices", FromName: "verdict", ToName: "model_response", Origin: "manual", Value: json.RawMessage(`{"choices":[]}`)},
				{ID: "t1", Type: "textarea", FromName: "response", ToName: "model_response", Origin: "manual", Value: json.RawMessage(`{"text":["The candidate is strong, because ..."]}`)},
			},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("task (-want +got):\n%s", diff)
	}
	if text := got.Annotations[0].Result[1].Text(); !cmp.Equal(text, []string{"The candidate is strong, because ..."}) {
		t.Errorf("Text() = %q", text)
	}
}

// TestRecordedBodies decodes every other recorded body and looks at what distinguishes it.
func TestRecordedBodies(t *testing.T) {
	t.Parallel()
	config, err := os.ReadFile("sandbox/label_config.xml")
	if err != nil {
		t.Fatal(err)
	}
	task := func(body []byte) (any, error) {
		var v Task
		err := json.Unmarshal(body, &v)
		return []any{v.ID, v.Project, v.Annotated(), len(v.Annotations)}, err
	}
	note := func(body []byte) (any, error) {
		var v Annotation
		err := json.Unmarshal(body, &v)
		return []any{v.ID, v.Task, v.CompletedBy.ID, len(v.Result)}, err
	}
	hookNote := func(body []byte) (any, error) {
		var v struct {
			Annotation Annotation
			Task       Task
		}
		err := json.Unmarshal(body, &v)
		return []any{v.Annotation.Task == v.Task.ID, v.Task.Annotated(), v.Task.Meta != nil, len(v.Annotation.Result)}, err
	}
	hookNotes := func(body []byte) (any, error) {
		var v struct {
			Annotation []Annotation
			Task       []Task
		}
		err := json.Unmarshal(body, &v)
		return []any{v.Annotation[0].Task == v.Task[0].ID, v.Annotation[0].Result[0].Choices()[0], v.Annotation[0].UpdatedBy}, err
	}
	hookTasks := func(body []byte) (any, error) {
		var v struct{ Tasks []Task }
		err := json.Unmarshal(body, &v)
		return []any{len(v.Tasks), v.Tasks[0].Annotated()}, err
	}
	list := func(body []byte) (any, error) {
		v, err := decodeListing(body)
		return []any{len(v.Tasks), v.Total}, err
	}
	projects := func(body []byte) (any, error) {
		v, more, err := decodeProjects(body)
		return []any{v, more}, err
	}
	project := func(body []byte) (any, error) {
		var v Project
		err := json.Unmarshal(body, &v)
		return v, err
	}
	user := func(body []byte) (any, error) {
		var v User
		err := json.Unmarshal(body, &v)
		return v, err
	}
	users := func(body []byte) (any, error) {
		var v []User
		err := json.Unmarshal(body, &v)
		return v, err
	}
	hook := func(body []byte) (any, error) {
		var v Webhook
		err := json.Unmarshal(body, &v)
		return []any{v.ID, v.Project, v.IsActive, v.SendForAllActions, len(v.Actions)}, err
	}
	hooks := func(body []byte) (any, error) {
		var v []Webhook
		err := json.Unmarshal(body, &v)
		return []any{len(v), v[0].URL}, err
	}
	access := func(body []byte) (any, error) { return decodeAccess(body) }
	failure := func(body []byte) (any, error) { return decodeDetail(body), nil }
	sync := User{1, "sync@example.com"}
	for _, c := range []struct {
		file   string
		decode func([]byte) (any, error)
		want   any
	}{
		{"task_get_imported_annotation.json", task, []any{int64(141020), int64(12), true, 1}},
		{"task_patch.json", task, []any{int64(141019), int64(12), true, 1}},
		{"task_list.json", list, []any{3, 3}},
		{"task_list_empty.json", list, []any{0, 0}},
		{"task_list_full_row.json", list, []any{1, 3}},
		{"unknown_operator_200.json", list, []any{1, 1}},
		{"annotation_create.json", note, []any{int64(14109), int64(141019), int64(1), 2}},
		{"annotation_get.json", note, []any{int64(14109), int64(141019), int64(1), 2}},
		{"annotation_patch.json", note, []any{int64(14109), int64(141019), int64(1), 2}},
		{"annotation_created.json", hookNote, []any{true, false, true, 2}},
		{"annotation_updated.json", hookNote, []any{true, false, true, 2}},
		{"ui_annotation_created.json", hookNote, []any{true, false, true, 2}},
		{"ui_annotation_updated_star_removed.json", hookNote, []any{true, false, true, 1}},
		{"annotations_created.json", hookNotes, []any{true, "gold_star", UserRef{}}},
		{"tasks_created.json", hookTasks, []any{3, false}},
		{"project_list.json", projects, []any{[]Project{{ID: 12, Title: "Conquests", TaskNumber: 3}, {ID: 11, Title: "Conquests", TaskNumber: 0}}, true}},
		{"project_list_full.json", projects, []any{[]Project{{ID: 12, Title: "Conquests", TaskNumber: 3, LabelConfig: strings.TrimSpace(string(config))}}, true}},
		{"project_create.json", project, Project{ID: 12, Title: "Conquests", LabelConfig: strings.TrimSpace(string(config))}},
		{"whoami.json", user, sync},
		{"user_get.json", user, sync},
		{"users_list.json", users, []User{sync}},
		{"webhook_create.json", hook, []any{int64(10), int64(12), true, false, 6}},
		{"webhook_patch_without_actions.json", hook, []any{int64(10), int64(12), true, false, 0}},
		{"webhooks_list.json", hooks, []any{1, "http://127.0.0.1:54190/fixture"}},
		{"token_refresh.json", access, "redacted"},
		{"token_refresh_401.json", failure, "Token is invalid"},
		{"unauthorized_401.json", failure, "Authentication credentials were not provided."},
		{"bad_token_401.json", failure, "Invalid token."},
		{"not_found_404.json", failure, "No Task matches the given query."},
		{"task_list_past_end.json", failure, "Invalid page."},
		{"bad_filter_500.json", failure, "time data '2026-01-01T00:00:00Z' does not match format '%Y-%m-%dT%H:%M:%S.%fZ'"},
		{"webhook_create_ssrf_403.json", failure, "URL resolves to a reserved network address (block: 127.0.0.0/8)"},
	} {
		got, err := c.decode(recorded(t, c.file))
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.file, diff)
		}
	}
	for _, file := range []string{"bad_filter_400.json", "import_missing_key_400.json"} {
		detail := decodeDetail(recorded(t, file))
		if !strings.HasPrefix(detail, "Validation error: {") || len(detail) > maxDetail+len(" …") {
			t.Errorf("%s: %q (%d bytes)", file, detail, len(detail))
		}
	}
}

// TestDetailCanBeStored: what an answer says can be kept in PostgreSQL, which takes no NUL and no broken UTF-8.
func TestDetailCanBeStored(t *testing.T) {
	t.Parallel()
	if got, want := decodeDetail([]byte("{\"detail\": \"a\\u0000b\xff\"}")), "a?b\uFFFD"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestErrorBodyIsNoObject: error bodies have an id, which is a UUID text.
func TestErrorBodyIsNoObject(t *testing.T) {
	t.Parallel()
	if err := json.Unmarshal(recorded(t, "not_found_404.json"), new(Task)); err == nil {
		t.Error("an error body was taken for a task")
	}
	if _, err := decodeListing(recorded(t, "task_list_past_end.json")); err == nil {
		t.Error("an error body was taken for a listing")
	}
}

func TestAbsentIsNotEmpty(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		json      string
		annotated bool
		meta      string
		wrong     bool
	}{
		{json: `{"id": 1}`},
		{json: `{"id": 1, "annotations": null, "meta": null}`, meta: "null"},
		{json: `{"id": 1, "annotations": [], "meta": { "a":1.50}}`, annotated: true, meta: `{ "a":1.50}`},
		{json: `{"id": 1, "annotations": [{"id": 2, "result": null}]}`, annotated: true},
		{json: `{"id": 1, "annotations": [{"id": 2}]}`, wrong: true},               // trimmed by include: nobody knows what it said
		{json: `{"id": 1, "annotations": [{"result": []}]}`, wrong: true},          // no id: no change could be seen
		{json: `{"id": 1, "annotations": [{"id": 2, "result": {}}]}`, wrong: true}, // not a list
		{json: `{"id": 1, "created_at": "yesterday"}`, wrong: true},                // never skipped
		{json: `{"meta": {}}`, wrong: true},                                        // whose?
		{json: `{"id": "c7d51504-1eb1-45b6-a33b-dfd0a58bd443"}`, wrong: true},      // an error's
		{json: `{"id": 1, "annotations": [{"id": 2, "result": [7]}]}`, annotated: true},
		{json: `{"id": 1, "annotations": [{"id": "x", "result": []}]}`, wrong: true}, // not an annotation
	} {
		var got Task
		err := json.Unmarshal([]byte(c.json), &got)
		if (err != nil) != c.wrong {
			t.Errorf("%s: error %v", c.json, err)
			continue
		}
		if err == nil && (got.Annotated() != c.annotated || string(got.Meta) != c.meta) {
			t.Errorf("%s: annotated %v, meta %q", c.json, got.Annotated(), got.Meta)
		}
	}
}

// TestOddRegion: Label Studio does not check what a region's keys hold, so none may hide what the others say, or other tasks.
func TestOddRegion(t *testing.T) {
	t.Parallel()
	const odd = `{"id": 7, "type": ["choices"], "from_name": ["response"], "to_name": {}, "origin": 1.5, "value": 7, "meta": "m"}`
	const gold = `{"id": 8, "type": "choices", "from_name": "verdict", "value": {"choices": ["gold_star"]}}`
	for result, want := range map[string]bool{odd: false, gold: true, odd + "," + gold: true, gold + "," + odd: true, `null, 7, "x", [],` + gold: true} {
		got, err := decodeListing([]byte(`{"tasks": [{"id": 1, "annotations": [{"id": 2, "result": [` + result + `]}]}], "total": 1}`))
		if err != nil {
			t.Errorf("[%s]: %v", result, err)
		} else if said := got.Tasks[0].Annotations[0]; said.Chose("gold_star") != want || said.Entered("response") != "" {
			t.Errorf("[%s]: %+v", result, said)
		}
	}
}

func TestUserRef(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]UserRef{
		`7`: {ID: 7}, `null`: {}, `[]`: {}, `[{"user_id": 7}]`: {ID: 7}, `[{"user_id": 7}, {"user_id": 8}]`: {ID: 7}, `[7]`: {ID: 7},
		`{"id": 7, "email": "a@b.c"}`: {7, "a@b.c"}, `{"id": 7, "email": null}`: {ID: 7}, ` { } `: {},
	} {
		got := UserRef{1, "old"}
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{`"seven"`, `7.5`, `true`, `{"id": "7"}`, `[[]`} {
		if err := json.Unmarshal([]byte(text), new(UserRef)); err == nil {
			t.Errorf("%s was taken for a user", text)
		}
	}
}

func TestRegionTexts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		region        string
		choices, text []string
	}{
		{`{"type":"choices","value":{"choices":["gold_star","b"]}}`, []string{"gold_star", "b"}, nil},
		{`{"type":"choices","value":{"choices":"gold_star"}}`, []string{"gold_star"}, nil},
		{`{"type":"choices","value":{"choices":[["tree","leaf"],"b",null]}}`, []string{"b"}, nil},
		{`{"type":"choices","value":{"choices":null}}`, nil, nil},
		{`{"type":"choices","value":{"text":["gold_star"]}}`, nil, nil},
		{`{"type":"choices","value":null}`, nil, nil},
		{`{"type":"labels","value":{"choices":["gold_star"]}}`, nil, nil},
		{`{"type":"textarea","value":{"text":["a","b"]}}`, nil, []string{"a", "b"}},
		{`{"type":"textarea","value":{"text":"a"}}`, nil, []string{"a"}},
		{`{}`, nil, nil},
	} {
		var r Region
		if err := json.Unmarshal([]byte(c.region), &r); err != nil {
			t.Errorf("%s: %v", c.region, err)
		}
		if !cmp.Equal(r.Choices(), c.choices) || !cmp.Equal(r.Text(), c.text) {
			t.Errorf("%s: choices %q, text %q", c.region, r.Choices(), r.Text())
		}
	}
}

func FuzzTask(f *testing.F) {
	for _, name := range []string{"task_get.json", "task_patch.json", "task_get_imported_annotation.json", "not_found_404.json"} {
		f.Add(recorded(f, name))
	}
	f.Add([]byte(`{"id":1,"annotations":[{"id":2,"result":[{"type":"choices","value":{"choices":"x"}}],"completed_by":[{"user_id":1}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var got Task
		if json.Unmarshal(body, &got) != nil {
			return
		}
		if got.ID == 0 || got.Meta != nil && !json.Valid(got.Meta) || got.Data != nil && !json.Valid(got.Data) {
			t.Fatalf("%+v", got)
		}
		for _, a := range got.Annotations {
			if a.ID == 0 {
				t.Fatal("an annotation without an id")
			}
			for _, r := range a.Result {
				if len(r.Choices()) > 0 && len(r.Text()) > 0 {
					t.Fatalf("two types in one: %+v", r)
				}
			}
		}
		got.text("conquest_id")
	})
}

func FuzzListing(f *testing.F) {
	for _, name := range []string{"task_list.json", "task_list_empty.json", "task_list_full_row.json", "task_list_past_end.json"} {
		f.Add(recorded(f, name))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := decodeListing(body)
		if err != nil {
			return
		}
		for _, task := range got.Tasks {
			if task.ID == 0 {
				t.Fatal("a task without an id")
			}
		}
	})
}

func FuzzProjects(f *testing.F) {
	f.Add(recorded(f, "project_list.json"))
	f.Add(recorded(f, "project_list_full.json"))
	f.Fuzz(func(t *testing.T, body []byte) {
		results, _, err := decodeProjects(body)
		for _, p := range results {
			if err == nil && p.ID == 0 {
				t.Fatal("a project without an id")
			}
		}
	})
}

func FuzzErrorBody(f *testing.F) {
	for _, name := range []string{"bad_filter_400.json", "import_missing_key_400.json", "not_found_404.json", "bad_filter_500.json"} {
		f.Add(recorded(f, name), 404)
	}
	f.Add([]byte("<html>"), 502)
	f.Fuzz(func(t *testing.T, body []byte, status int) {
		e := statusError(OpTask, &http.Response{StatusCode: status, Header: http.Header{"Location": {string(body)}}}, body)
		if len(e.Detail) > maxDetail+len(" …") || e.Error() == "" {
			t.Fatalf("%+v", e)
		}
		if NotDone(e) && Away(e) && status >= 500 {
			t.Fatalf("a %d is never certainly without effect", status)
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add("0123456789abcdef0123456789abcdef01234567")
	f.Add("eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCIsImV4cCI6OTk5OTk5OTk5OX0.c2ln")
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		a, err := newAuth(token)
		if err == nil && !a.personal && strings.ContainsAny(token, "\r\n ") {
			t.Fatalf("%q would break the header", token)
		}
		if c, ok := parseClaims(token); ok && c.lifetime() > 12*accessLifetime {
			t.Fatalf("an access token that lives %s", c.lifetime())
		}
	})
}

// FuzzQuery: what Label Studio has after decoding the percent signs twice is the value that was asked for.
func FuzzQuery(f *testing.F) {
	f.Add("conquest_id", "50%41 off \" \\ é", int64(7))
	f.Fuzz(func(t *testing.T, field, value string, id int64) {
		p := page{op: OpTasksFind, project: 1, size: 1, filters: []filter{{"filter:tasks:data." + field, "in_list", "List", bothTypes([]string{value})}, idAfter(id)}}
		values, err := p.encode()
		if err != nil || !utf8.ValidString(value) {
			return
		}
		once, err := url.ParseQuery(values.Encode())
		if err != nil {
			t.Fatal(err)
		}
		twice, err := url.PathUnescape(once.Get("query"))
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Filters struct {
				Items []struct{ Value json.RawMessage }
			}
		}
		var list []any
		if err := json.Unmarshal([]byte(twice), &got); err != nil {
			t.Fatalf("%s: %v", twice, err)
		}
		if err := json.Unmarshal(got.Filters.Items[0].Value, &list); err != nil || list[0] != value {
			t.Fatalf("%q arrives as %q, %v", value, list, err)
		}
	})
}
