package labelstudio_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/labelstudio/sandbox"
)

// TestManyIDs: what does not fit into one request line is asked in parts, and found all the same.
func TestManyIDs(t *testing.T) {
	t.Parallel()
	s := standIn(t, sandbox.StandInOptions{})
	p := s.AddProject("x")
	var ids []int64
	var values []string
	for i := range 2500 {
		value := fmt.Sprintf("conquest_%020d", i)
		ids, values = append(ids, s.AddTask(p, map[string]any{"conquest_id": value}, nil)), append(values, value)
	}
	c := client(t, labelstudio.Options{URL: s.URL(), Token: s.Token()})
	for _, most := range []int{0, 8 << 10} { // a server, and one behind a proxy with small buffers
		before := s.Requests()
		s.Faults(func(r *http.Request) sandbox.Fault {
			if most > 0 && len(r.RequestURI) > most {
				return sandbox.Fault{Kind: sandbox.FaultStatus, Status: http.StatusRequestURITooLong}
			}
			return sandbox.Fault{}
		})
		tasks, err := c.TasksByID(t.Context(), p, ids)
		if err != nil || len(tasks) != len(ids) {
			t.Errorf("%d of %d tasks, %v", len(tasks), len(ids), err)
		}
		found, err := c.FindTasks(t.Context(), p, "conquest_id", values)
		if err != nil || len(found) != len(ids) {
			t.Errorf("found %d of %d tasks, %v", len(found), len(ids), err)
		}
		after := s.Requests()
		if n := after[labelstudio.OpTasksFind] - before[labelstudio.OpTasksFind]; most == 0 && n > 6 {
			t.Errorf("%d requests for 2,500 values", n)
		}
	}
	// One that does not fit even alone is an error, not a loop.
	if _, err := c.FindTasks(t.Context(), p, "conquest_id", []string{strings.Repeat("x", 70_000)}); !labelstudio.NotDone(err) || labelstudio.Away(err) {
		t.Errorf("a value of 70 kB: %v", err)
	}
}

// TestMoreThanAPage: any number of tasks may have one value.
func TestMoreThanAPage(t *testing.T) {
	t.Parallel()
	s := standIn(t, sandbox.StandInOptions{})
	p := s.AddProject("x")
	for range 1500 {
		s.AddTask(p, map[string]any{"conquest_id": "same"}, nil)
	}
	c := client(t, labelstudio.Options{URL: s.URL(), Token: s.Token()})
	found, err := c.FindTasks(t.Context(), p, "conquest_id", []string{"same", "other"})
	if err != nil || len(found) != 1500 {
		t.Errorf("%d tasks, %v", len(found), err)
	}
	if n := s.Requests()[labelstudio.OpTasksFind]; n != 2 {
		t.Errorf("%d requests", n)
	}
}

// TestShortPage: a listing that lost rows can be told from one that has no more.
func TestShortPage(t *testing.T) {
	t.Parallel()
	s := standIn(t, sandbox.StandInOptions{})
	p := s.AddProject("x")
	for range 10 {
		s.AddTask(p, map[string]any{"conquest_id": "same"}, nil)
	}
	c := client(t, labelstudio.Options{URL: s.URL(), Token: s.Token()})
	s.Faults(func(*http.Request) sandbox.Fault { return sandbox.Fault{Kind: sandbox.FaultShort} })
	tasks, total, err := c.TasksAfter(t.Context(), p, 0, 100)
	if err != nil || len(tasks) != 5 || total != 10 {
		t.Errorf("TasksAfter: %d of %d, %v", len(tasks), total, err)
	}
	tasks, total, err = c.TasksChanged(t.Context(), p, time.Unix(0, 0), 0, 100)
	if err != nil || len(tasks) != 5 || total != 10 {
		t.Errorf("TasksChanged: %d of %d, %v", len(tasks), total, err)
	}
}

// TestListingsAreNotBelieved: rows that were not asked for are noticed, in each listing.
func TestListingsAreNotBelieved(t *testing.T) {
	t.Parallel()
	row := func(id, project int, conquest, updated string) string {
		return fmt.Sprintf(`{"id": %d, "project": %d, "data": {"conquest_id": %s}, "updated_at": %q, "annotations": []}`, id, project, conquest, updated)
	}
	const at = "2026-11-24T12:00:00.5Z"
	since := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, rows   string
		after, again bool // whether TasksAfter(10) and TasksChanged are errors
		byID, found  int  // of TasksByID(11, 12) and FindTasks("x")
	}{
		{"as asked", row(11, 1, `"x"`, at) + "," + row(12, 1, `"y"`, at), false, false, 2, 1},
		{"an id that is too low", row(10, 1, `"x"`, at), true, true, 0, 1},
		{"not in order", row(12, 1, `"x"`, at) + "," + row(11, 1, `"x"`, at), true, true, 2, -1},
		{"twice", row(11, 1, `"x"`, at) + "," + row(11, 1, `"x"`, at), true, true, 2, -1},
		{"another project's", row(11, 2, `"x"`, at), true, true, 0, -1},
		{"too old", row(11, 1, `"X"`, "2026-11-24T11:59:59.999999Z"), false, true, 1, 0},
		{"other types", row(11, 1, `["x"]`, at) + "," + row(12, 1, `null`, at), false, false, 2, 0},
		{"no rows", "", false, false, 0, 0},
	} {
		body := fmt.Sprintf(`{"tasks": [%s], "total": %d}`, c.rows, strings.Count(c.rows, "project"))
		var asked int
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked++; strings.Contains(r.URL.Query().Get("query"), `"greater","type":"Number","value":12`) {
				body = `{"tasks": [], "total": 0}`
			}
			fmt.Fprint(w, body)
		}))
		cl := client(t, labelstudio.Options{URL: server.URL, Token: legacy})
		_, _, err := cl.TasksAfter(t.Context(), 1, 10, 100)
		if (err != nil) != c.after {
			t.Errorf("%s: TasksAfter: %v", c.name, err)
		}
		_, _, err = cl.TasksChanged(t.Context(), 1, since, 10, 100)
		if (err != nil) != c.again {
			t.Errorf("%s: TasksChanged: %v", c.name, err)
		}
		byID, err := cl.TasksByID(t.Context(), 1, []int64{11, 12})
		if err != nil || len(byID) != c.byID {
			t.Errorf("%s: TasksByID: %d, %v", c.name, len(byID), err)
		}
		if c.name == "an id that is too low" {
			server.Close()
			continue // FindTasks begins at the first id
		}
		found, err := cl.FindTasks(t.Context(), 1, "conquest_id", []string{"x"})
		if (err != nil) != (c.found < 0) || err == nil && len(found) != c.found {
			t.Errorf("%s: FindTasks: %d, %v", c.name, len(found), err)
		}
		server.Close()
	}
}

// TestListingRace: the 500 of a task that is deleted while it is listed is asked again, once, and is no outage.
func TestListingRace(t *testing.T) {
	t.Parallel()
	for _, times := range []int{1, 2} {
		var asked int
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked++; asked <= times {
				w.WriteHeader(http.StatusInternalServerError)
				fmt.Fprint(w, `{"id": "c7d51504-1eb1-45b6-a33b-dfd0a58bd443", "status_code": 500, "detail": "141021", "exc_info": null}`)
				return
			}
			fmt.Fprint(w, `{"tasks": [], "total": 0}`)
		}))
		defer server.Close()
		_, err := client(t, labelstudio.Options{URL: server.URL, Token: legacy}).TasksByID(t.Context(), 1, []int64{7})
		if (err != nil) != (times == 2) || asked != 2 || labelstudio.Away(err) || labelstudio.NotDone(err) {
			t.Errorf("%d times: asked %d times, %v", times, asked, err)
		}
	}
}

func TestProjectPages(t *testing.T) {
	t.Parallel()
	s := standIn(t, sandbox.StandInOptions{})
	var want []int64
	for i := range 250 {
		want = append(want, s.AddProject(fmt.Sprintf("project %d", i)))
	}
	c := client(t, labelstudio.Options{URL: s.URL(), Token: s.Token()})
	ids := func() (ids []int64) {
		all, err := c.Projects(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			ids = append(ids, p.ID)
		}
		slices.Sort(ids)
		return ids
	}
	if got := ids(); !slices.Equal(got, want) {
		t.Errorf("%d projects of %d", len(got), len(want))
	}
	// While they are listed, one is added (the others move on to the next page) …
	s.Faults(func(r *http.Request) sandbox.Fault {
		if r.URL.Query().Get("page") == "2" {
			s.AddProject("late")
		}
		return sandbox.Fault{}
	})
	if got := ids(); !slices.Equal(got, want) {
		t.Errorf("%d projects of %d, each once", len(got), len(want))
	}
	// … or so many go that there is no next page.
	s.Faults(func(r *http.Request) sandbox.Fault {
		if r.URL.Query().Get("page") == "2" {
			for _, id := range want[:200] {
				s.RemoveProject(id)
			}
		}
		return sandbox.Fault{}
	})
	if got := ids(); len(got) != 100 {
		t.Errorf("%d projects", len(got))
	}
}

// TestProjectPagesEnd: a server that gives one page for ever is not asked for ever.
func TestProjectPagesEnd(t *testing.T) {
	t.Parallel()
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked > 10 {
			w.WriteHeader(http.StatusTeapot)
		}
		fmt.Fprint(w, `{"next": "more", "results": [{"id": 1}]}`)
	}))
	defer server.Close()
	all, err := client(t, labelstudio.Options{URL: server.URL, Token: legacy}).Projects(t.Context())
	if err != nil || len(all) != 1 {
		t.Errorf("asked %d times: %v, %v", asked, all, err)
	}
}

// TestUpdateWebhookKeepsActions: also where the caller forgot them, they are sent, for absent means none.
func TestUpdateWebhookKeepsActions(t *testing.T) {
	t.Parallel()
	var sent map[string]json.RawMessage
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, `{"id": 3}`)
	}))
	defer server.Close()
	c := client(t, labelstudio.Options{URL: server.URL, Token: legacy})
	if _, err := c.UpdateWebhook(t.Context(), labelstudio.Webhook{ID: 3, Project: 1, URL: "http://127.0.0.1/x", SendForAllActions: true}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"url", "actions", "headers", "is_active", "send_payload", "send_for_all_actions"} {
		if value, there := sent[key]; !there || string(value) == "null" {
			t.Errorf("%s is %s", key, value)
		}
	}
}
