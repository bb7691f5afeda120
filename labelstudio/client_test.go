package labelstudio_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/labelstudio/sandbox"
)

const legacy = "0123456789abcdef0123456789abcdef01234567"

func standIn(t *testing.T, o sandbox.StandInOptions) *sandbox.StandIn {
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

func client(t *testing.T, o labelstudio.Options) *labelstudio.Client {
	t.Helper()
	c, err := labelstudio.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// TestManyUsers: who annotated is known in an organization of any size: they come in one answer, with much that is of no use here.
func TestManyUsers(t *testing.T) {
	t.Parallel()
	const many = 20_000
	users := make([]map[string]any, many)
	for i := range users {
		users[i] = map[string]any{"id": i + 1, "email": fmt.Sprint(i, "@example.com"), "custom_hotkeys": strings.Repeat("x", 400)}
	}
	body, err := json.Marshal(users)
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, labelstudio.Options{URL: answering(t, http.StatusOK, nil, string(body)), Token: legacy})
	if got, err := c.Users(t.Context()); err != nil || len(got) != many || got[many-1].ID != many {
		t.Errorf("%d users, %v", len(got), err)
	}
}

// answering serves one answer to everything.
func answering(t *testing.T, status int, header http.Header, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range header {
			w.Header()[k] = v
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, o := range []labelstudio.Options{
		{URL: "", Token: legacy}, {URL: "127.0.0.1:4115", Token: legacy}, {URL: "ftp://h", Token: legacy}, {URL: "http://", Token: legacy},
		{URL: "http://user:hunter2@h", Token: legacy}, {URL: "http://h/?q=hunter2", Token: legacy}, {URL: "http://hunter2\x7f", Token: legacy},
		{URL: "http://h", Token: ""}, {URL: "http://h", Token: "a\nb"}, {URL: "http://h", Token: "hunter2 hunter2"},
		{URL: "http://h", Token: "e30.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIn0.hunter2"}, // an access token
	} {
		_, err := labelstudio.New(o)
		if err == nil {
			t.Errorf("%q with %q was taken", o.URL, o.Token)
		} else if strings.Contains(err.Error(), "hunter2") && !strings.HasSuffix(o.URL, "?q=hunter2") {
			t.Errorf("a secret in %q", err)
		}
	}
}

// TestOutcomes is the table of what a caller may conclude from each end of a PATCH.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	ours := `{"id": "c7d51504-1eb1-45b6-a33b-dfd0a58bd443", "detail": "said"}`
	for _, c := range []struct {
		status                        int
		body                          string
		notDone, away, auth, notFound bool
	}{
		{status: 200, body: "{}"}, {status: 200, body: "<html>"}, {status: 204}, {status: 200, body: `{"id": 8}`},
		{status: 301, away: true}, {status: 307, away: true}, {status: 304, away: true},
		{status: 400, body: ours, notDone: true}, {status: 401, body: ours, notDone: true, away: true, auth: true},
		{status: 403, body: ours, notDone: true, away: true, auth: true}, {status: 404, body: ours, notDone: true, notFound: true},
		{status: 404, body: "<html>", notDone: true, away: true}, {status: 408, body: ours, away: true}, {status: 409, body: ours, notDone: true},
		{status: 413, notDone: true}, {status: 429, notDone: true, away: true},
		{status: 500, body: ours, away: true}, {status: 502, away: true}, {status: 503, away: true}, {status: 504, away: true},
	} {
		url := answering(t, c.status, http.Header{"Location": {"http://elsewhere.example/path"}}, c.body)
		_, err := client(t, labelstudio.Options{URL: url, Token: legacy}).PatchMeta(t.Context(), 7, json.RawMessage(`{}`))
		var e *labelstudio.Error
		if !errors.As(err, &e) || e.Status < 200 || e.NotSent {
			t.Errorf("%d %s: %#v", c.status, c.body, err)
			continue
		}
		got := [4]bool{labelstudio.NotDone(err), labelstudio.Away(err), labelstudio.IsAuth(err), labelstudio.IsNotFound(err)}
		if got != [4]bool{c.notDone, c.away, c.auth, c.notFound} {
			t.Errorf("%v: not done, away, auth, not found = %v", err, got)
		}
	}
	if labelstudio.NotDone(nil) || labelstudio.Away(nil) || labelstudio.Away(errors.New("x")) || labelstudio.NotDone(errors.New("x")) {
		t.Error("no error of ours says nothing")
	}
}

// TestNotSent: what certainly did not leave is told apart from what may have.
func TestNotSent(t *testing.T) {
	t.Parallel()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	closed := httptest.NewServer(nil)
	closed.Close()
	plain := answering(t, 200, nil, "{}")
	s := standIn(t, sandbox.StandInOptions{})
	for _, c := range []struct {
		name string
		ctx  context.Context
		url  string
		meta string
		away bool
	}{
		{"refused connection", t.Context(), closed.URL, "{}", true},
		{"no such host", t.Context(), "http://nosuch.invalid", "{}", true},
		{"TLS to a server that speaks none", t.Context(), strings.Replace(plain, "http://", "https://", 1), "{}", true},
		{"given up before", gone, s.URL(), "{}", false},
		{"no JSON", t.Context(), s.URL(), "{", false},
	} {
		_, err := client(t, labelstudio.Options{URL: c.url, Token: legacy}).PatchMeta(c.ctx, 7, json.RawMessage(c.meta))
		var e *labelstudio.Error
		if !errors.As(err, &e) || !e.NotSent || !labelstudio.NotDone(err) || e.Status != 0 {
			t.Errorf("%s: %v", c.name, err)
		}
		if labelstudio.Away(err) != c.away {
			t.Errorf("%s: away = %v", c.name, !c.away)
		}
	}
	if n := s.Requests()[labelstudio.OpTaskPatch]; n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// TestOnePatchOneRequest: whatever happens to a PATCH, it arrives once, and what nobody knows is not called undone.
func TestOnePatchOneRequest(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]sandbox.Fault{
		"cut before": {Kind: sandbox.FaultCut}, "cut after": {Kind: sandbox.FaultLost}, "done, but 502": {Kind: sandbox.FaultLost, Status: 502},
		"503": {Kind: sandbox.FaultStatus, Status: 503}, "hangs": {Kind: sandbox.FaultHang}, "late": {Kind: sandbox.FaultLate, Delay: 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onePatch(t, fault)
		})
	}
}

func onePatch(t *testing.T, fault sandbox.Fault) {
	s := standIn(t, sandbox.StandInOptions{})
	task := s.AddTask(s.AddProject("x"), map[string]any{}, nil)
	done := make(chan struct{}, 1)
	s.OnPatch(func(int64, json.RawMessage) { done <- struct{}{} })
	c := client(t, labelstudio.Options{URL: s.URL(), Token: s.Token(), WriteTimeout: time.Second})
	// Connections that could be used again, so that net/http had an occasion to repeat.
	for range 3 {
		if _, err := c.Task(t.Context(), task); err != nil {
			t.Fatal(err)
		}
	}
	s.Faults(func(r *http.Request) sandbox.Fault {
		if r.Method == http.MethodPatch {
			return fault
		}
		return sandbox.Fault{}
	})
	_, err := c.PatchMeta(t.Context(), task, json.RawMessage(`{"done": true}`))
	if err == nil || labelstudio.NotDone(err) || !labelstudio.Away(err) {
		t.Error(err)
	}
	effect := fault.Kind == sandbox.FaultLost || fault.Kind == sandbox.FaultLate
	if effect {
		<-done
	}
	if after, _ := s.Task(task); bytes.Contains(after.Meta, []byte("done")) != effect {
		t.Errorf("meta %s", after.Meta)
	}
	if n := s.Requests()[labelstudio.OpTaskPatch]; n != 1 {
		t.Errorf("%d requests", n)
	}
}

// TestStaleConnection: a server that closes the connections which reads wait on costs a read nothing, and a write never meets them.
func TestStaleConnection(t *testing.T) {
	t.Parallel()
	var conns, patches atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			patches.Add(1)
			if r.Header.Get("Idempotency-Key") != "" {
				t.Errorf("headers %v", r.Header)
			}
		}
		fmt.Fprint(w, `{"id": 7, "annotations": []}`)
	}))
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	c := client(t, labelstudio.Options{URL: s.URL, Token: legacy})
	for range 3 {
		if _, err := c.Task(t.Context(), 7); err != nil {
			t.Fatal(err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("three reads took %d connections", n)
	}
	s.CloseClientConnections()
	if _, err := c.PatchMeta(t.Context(), 7, json.RawMessage(`{}`)); err != nil {
		t.Error(err)
	}
	if _, err := c.Task(t.Context(), 7); err != nil {
		t.Error(err)
	}
	if patches.Load() != 1 {
		t.Errorf("%d PATCHes", patches.Load())
	}
}

// TestRunserver: against Django's development server no connection is used twice, from the second request on, where
// one that is used again would cost 40 ms.
func TestRunserver(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	used := map[string]int{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		used[r.RemoteAddr]++
		w.Header().Set("Server", "WSGIServer/0.2 CPython/3.11.2")
		fmt.Fprint(w, `{"id": 7}`)
	}))
	defer s.Close()
	c := client(t, labelstudio.Options{URL: s.URL, Token: legacy})
	for range 4 {
		if _, err := c.Whoami(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := 4
	if runtime.GOOS == "linux" {
		want = 1
	}
	if len(used) != want {
		t.Errorf("connections %v, want %d", used, want)
	}
}

// TestRequest is what goes over the wire.
func TestRequest(t *testing.T) {
	t.Parallel()
	var got []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = append(got, fmt.Sprintf("%s %s %s %s %q", r.Method, r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Cookie"), body))
		w.Header().Set("Set-Cookie", "sessionid=x; Path=/")
		fmt.Fprint(w, `{"id": 7}`)
	}))
	defer s.Close()
	c := client(t, labelstudio.Options{URL: s.URL + "/annotate/", Token: " " + legacy + "\n"})
	if _, err := c.PatchMeta(t.Context(), 7, json.RawMessage(`{ "b":1.50, "a":"<é>", "a":2 }`)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Task(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`PATCH /annotate/api/tasks/7/ Token ` + legacy + `  "{\"meta\":{ \"b\":1.50, \"a\":\"<é>\", \"a\":2 }}"`, // byte for byte
		`GET /annotate/api/tasks/7/ Token ` + legacy + `  ""`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestWritesTakeTurns: one write at a time, and waiting for the turn counts as time of the request, so that it cannot be sent after its caller's deadline.
func TestWritesTakeTurns(t *testing.T) {
	t.Parallel()
	s := standIn(t, sandbox.StandInOptions{})
	task := s.AddTask(s.AddProject("x"), map[string]any{}, nil)
	c := client(t, labelstudio.Options{URL: s.URL(), Token: s.Token(), WriteTimeout: 3 * time.Second})
	arrived := make(chan struct{})
	s.Faults(func(*http.Request) sandbox.Fault {
		arrived <- struct{}{}
		return sandbox.Fault{Kind: sandbox.FaultHang}
	})
	slow := make(chan error)
	go func() {
		_, err := c.PatchMeta(context.WithoutCancel(t.Context()), task, json.RawMessage(`1`))
		slow <- err
	}()
	<-arrived
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // so much later than the first one the next comes: it outwaits it on a busy machine, too
	defer cancel()
	if _, err := c.PatchMeta(ctx, task, json.RawMessage(`2`)); !labelstudio.NotDone(err) || labelstudio.Away(err) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the one that waited: %v", err)
	}
	late := labelstudio.SentBy(context.WithoutCancel(t.Context()), time.Now().Add(50*time.Millisecond))
	if _, err := c.PatchMeta(late, task, json.RawMessage(`3`)); !errors.Is(err, labelstudio.ErrLate) || !labelstudio.NotDone(err) || labelstudio.Away(err) {
		t.Errorf("the one whose turn came too late: %v", err)
	}
	if err := <-slow; labelstudio.NotDone(err) || !labelstudio.Away(err) || !strings.Contains(err.Error(), "no answer within 3s") {
		t.Errorf("the one that was sent: %v", err)
	}
	if n := s.Requests()[labelstudio.OpTaskPatch]; n != 1 {
		t.Errorf("%d requests", n)
	}
}

// slowToConnect is a transport that begins to connect when something is over.
type slowToConnect struct{ after <-chan struct{} }

func (s slowToConnect) RoundTrip(r *http.Request) (*http.Response, error) {
	<-s.after
	return http.DefaultTransport.RoundTrip(r)
}

// TestSentByWaitsForNoConnection: what had to wait for its connection for too long is not sent on it.
func TestSentByWaitsForNoConnection(t *testing.T) {
	t.Parallel()
	s := standIn(t, sandbox.StandInOptions{})
	task := s.AddTask(s.AddProject("x"), map[string]any{}, nil)
	limit := time.Now().Add(100 * time.Millisecond)
	over, cancel := context.WithDeadline(t.Context(), limit)
	defer cancel()
	c := client(t, labelstudio.Options{URL: s.URL(), Token: s.Token(), Transport: slowToConnect{over.Done()}})
	for _, by := range []time.Time{limit, limit.Add(time.Hour)} {
		_, err := c.PatchMeta(labelstudio.SentBy(t.Context(), by), task, json.RawMessage(`1`))
		if late := by.Equal(limit); late != errors.Is(err, labelstudio.ErrLate) || late != labelstudio.NotDone(err) || labelstudio.Away(err) {
			t.Errorf("by %s: %v", by, err)
		}
	}
	if n := s.Requests()[labelstudio.OpTaskPatch]; n != 1 {
		t.Errorf("%d requests, want the second alone", n)
	}
}

// TestGivingUpIsNotAway: a caller that ends its own context learns nothing about Label Studio.
func TestGivingUpIsNotAway(t *testing.T) {
	t.Parallel()
	s := standIn(t, sandbox.StandInOptions{})
	c := client(t, labelstudio.Options{URL: s.URL(), Token: s.Token()})
	ctx, cancel := context.WithCancel(t.Context())
	s.Faults(func(*http.Request) sandbox.Fault {
		cancel()
		return sandbox.Fault{Kind: sandbox.FaultHang}
	})
	if _, err := c.PatchMeta(ctx, 7, json.RawMessage(`1`)); labelstudio.Away(err) || labelstudio.NotDone(err) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	hasty, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	s.Faults(func(*http.Request) sandbox.Fault { return sandbox.Fault{Kind: sandbox.FaultHang} })
	if _, err := c.Whoami(hasty); labelstudio.Away(err) || !errors.Is(err, context.DeadlineExceeded) || !strings.HasSuffix(err.Error(), "ask who we are: no answer within 1s") {
		t.Errorf("%v", err)
	}
}

func TestLimitsOnBodies(t *testing.T) {
	t.Parallel()
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/whoami") {
			w.WriteHeader(http.StatusBadGateway)
		}
		for chunk := bytes.Repeat([]byte(" "), 1<<20); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	defer endless.Close()
	c := client(t, labelstudio.Options{URL: endless.URL, Token: legacy})
	if _, err := c.Version(t.Context()); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("an endless answer: %v", err)
	}
	if _, err := c.Whoami(t.Context()); !labelstudio.Away(err) {
		t.Errorf("an endless error: %v", err)
	}
}

// TestObserve: every exchange is observed once.
func TestObserve(t *testing.T) {
	t.Parallel()
	s := standIn(t, sandbox.StandInOptions{})
	var seen []string
	c := client(t, labelstudio.Options{URL: s.URL(), Token: s.PersonalToken(1), Observe: func(r labelstudio.Request) {
		if r.Duration <= 0 {
			t.Errorf("%+v", r)
		}
		seen = append(seen, fmt.Sprintf("%s %s", r.Operation, r.Code))
	}})
	task := s.AddTask(s.AddProject("x"), map[string]any{}, nil)
	if _, err := c.PatchMeta(t.Context(), task, json.RawMessage(`1`)); err != nil {
		t.Error(err)
	}
	s.Faults(func(*http.Request) sandbox.Fault { return sandbox.Fault{Kind: sandbox.FaultCut} })
	if _, err := c.Task(t.Context(), task); err == nil {
		t.Error("a cut connection gave a task")
	}
	if want := []string{"token_refresh 200", "task_patch 200", "task none"}; !slices.Equal(seen, want) {
		t.Errorf("observed %q, want %q", seen, want)
	}
}

// TestHints: what a person can mend says how.
func TestHints(t *testing.T) {
	t.Parallel()
	detail := func(text string) string {
		return `{"id": "c7d51504-1eb1-45b6-a33b-dfd0a58bd443", "detail": "` + text + `"}`
	}
	for _, c := range []struct {
		status     int
		body, hint string
	}{
		{401, detail("Invalid token."), "make a new one"},
		{401, detail("Authentication token no longer valid: legacy token authentication has been disabled for this organization"), "use a personal access token"},
		{403, detail("URL resolves to a reserved network address (block: 127.0.0.0/8)"), "SSRF_PROTECTION_ENABLED=false"},
		{403, detail("You do not have permission to perform this action."), "give it the rights"},
		{302, "", "set the URL to where it leads, https://labels.example.com"},
		{404, "<html>", "check the URL and its path prefix"},
	} {
		url := answering(t, c.status, http.Header{"Location": {"https://labels.example.com/user/login/?next=x"}}, c.body)
		_, err := client(t, labelstudio.Options{URL: url, Token: legacy}).CreateWebhook(t.Context(), labelstudio.Webhook{Project: 1, URL: "http://127.0.0.1/x"})
		if err == nil || !strings.Contains(err.Error(), c.hint) {
			t.Errorf("%d %s: %v", c.status, c.body, err)
		}
	}
	_, err := client(t, labelstudio.Options{URL: "http://127.0.0.1:1/prefix", Token: legacy}).Whoami(t.Context())
	if err == nil || !strings.Contains(err.Error(), "is Label Studio running at http://127.0.0.1:1/prefix?") {
		t.Error(err)
	}
}
