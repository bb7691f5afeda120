package sandbox_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/labelstudio/sandbox"
)

func standIn(t testing.TB, o sandbox.StandInOptions) *sandbox.StandIn {
	t.Helper()
	s, err := sandbox.StartStandIn(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func clientOf(t testing.TB, s *sandbox.StandIn, token string) *labelstudio.Client {
	t.Helper()
	c, err := labelstudio.New(labelstudio.Options{URL: s.URL(), Token: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// TestStandInByHand: what tests do behind the API's back looks as if people had done it.
func TestStandInByHand(t *testing.T) {
	t.Parallel()
	s := standIn(t, sandbox.StandInOptions{})
	p := s.AddProject("Conquests")
	ann := s.AddUser("ann@example.com")
	to := receive(t, nil)
	c := clientOf(t, s, s.Token())
	if _, err := c.CreateWebhook(t.Context(), labelstudio.Webhook{Project: p, URL: to.URL, SendPayload: true, IsActive: true, SendForAllActions: true}); err != nil {
		t.Fatal(err)
	}
	task := s.AddTask(p, map[string]any{"conquest_id": "a"}, map[string]any{"k": 1})
	before, _ := s.Task(task)
	if !s.SetMeta(task, map[string]any{"gold_star": true}) || s.SetMeta(99, nil) {
		t.Error("SetMeta says whether there is such a task")
	}
	note, err := s.Annotate(ann, task, labelstudio.AnnotationEdit{Result: star(t, "gold_star")})
	if err != nil {
		t.Fatal(err)
	}
	read, err := c.Task(t.Context(), task)
	if err != nil || len(read.Annotations) != 1 || read.Annotations[0].CompletedBy != (labelstudio.UserRef{ID: ann, Email: "ann@example.com"}) ||
		string(read.Meta) != `{"gold_star":true}` || !read.UpdatedAt.After(before.UpdatedAt) {
		t.Errorf("%+v, %v", read, err)
	}
	if err := s.UpdateAnnotation(ann, note, labelstudio.AnnotationEdit{}); err != nil {
		t.Error(err)
	}
	if err := s.DeleteAnnotation(note); err != nil {
		t.Error(err)
	}
	if !s.DeleteTask(task) || s.DeleteTask(task) {
		t.Error("DeleteTask says whether there was such a task")
	}
	var actions []string
	for _, d := range to.take() {
		var e event
		if err := json.Unmarshal(d.body, &e); err != nil {
			t.Error(err)
		}
		actions = append(actions, e.Action)
	}
	want := []string{labelstudio.TasksCreated, labelstudio.AnnotationCreated, labelstudio.AnnotationUpdated, labelstudio.AnnotationsDeleted, labelstudio.TasksDeleted}
	if fmt.Sprint(actions) != fmt.Sprint(want) {
		t.Errorf("announced %v, want %v", actions, want)
	}
	if me, err := clientOf(t, s, s.UserToken(ann)).Whoami(t.Context()); err != nil || me.ID != ann {
		t.Errorf("with ann's token: %v, %v", me, err)
	}
}

// TestStandInDelays: with delays it has one core, and a request that waits for it is served after the one before.
func TestStandInDelays(t *testing.T) {
	t.Parallel()
	const each, n = 20 * time.Millisecond, 10
	s := standIn(t, sandbox.StandInOptions{Delays: sandbox.Delays{Task: each}})
	task := s.AddTask(s.AddProject("x"), nil, nil)
	c := clientOf(t, s, s.Token())
	begin := time.Now()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if _, err := c.Task(t.Context(), task); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if took := time.Since(begin); took < n*each {
		t.Errorf("%d requests of %s took %s", n, each, took)
	}
}

// TestStandInConcurrently is for the race detector.
func TestStandInConcurrently(t *testing.T) {
	t.Parallel()
	s := standIn(t, sandbox.StandInOptions{})
	p := s.AddProject("x")
	task := s.AddTask(p, map[string]any{"conquest_id": "a"}, nil)
	to := receive(t, nil)
	c := clientOf(t, s, s.PersonalToken(1))
	hook, err := c.CreateWebhook(t.Context(), labelstudio.Webhook{Project: p, URL: to.URL, SendPayload: true, IsActive: true, SendForAllActions: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	var all sync.WaitGroup
	for _, do := range []func() error{
		func() (err error) { _, err = c.PatchMeta(ctx, task, json.RawMessage(`{"x":1}`)); return },
		func() (err error) { _, err = c.Task(ctx, task); return },
		func() (err error) { _, _, err = c.TasksAfter(ctx, p, 0, 100); return },
		func() (err error) { _, err = c.FindTasks(ctx, p, "conquest_id", []string{"a"}); return },
		func() (err error) { _, err = s.Annotate(1, task, labelstudio.AnnotationEdit{}); return },
		func() (err error) { _, err = c.UpdateWebhook(ctx, hook); return },
		func() (err error) { _, err = c.Webhooks(ctx, p); return },
		func() error { s.SetMeta(task, 1); s.Requests(); s.Faults(nil); s.ExpireAccessTokens(); return nil },
		func() error { s.OnPatch(func(int64, json.RawMessage) {}); s.AddTask(p, nil, nil); return nil },
		func() error { s.Faults(func(*http.Request) sandbox.Fault { return sandbox.Fault{} }); return nil },
	} {
		all.Go(func() {
			for range 10 {
				if err := do(); err != nil && !labelstudio.IsAuth(err) { // access tokens end all the time
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkPatch is what a write costs beside Label Studio's own time: client, loopback and stand-in.
func BenchmarkPatch(b *testing.B) {
	s := standIn(b, sandbox.StandInOptions{})
	p := s.AddProject("x")
	for range 2000 {
		s.AddTask(p, map[string]any{"conquest_id": "a"}, nil)
	}
	task := s.AddTask(p, map[string]any{"conquest_id": "b"}, nil)
	c := clientOf(b, s, s.Token())
	meta := json.RawMessage(`{"gold_star": true, "reconciler": {"task": 42, "attempt": "c7d51504-1eb1-45b6-a33b-dfd0a58bd443"}}`)
	b.Run("patch", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.PatchMeta(b.Context(), task, meta); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read one by listing", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.TasksByID(b.Context(), p, []int64{task}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("find", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.FindTasks(b.Context(), p, "conquest_id", []string{"b"}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
