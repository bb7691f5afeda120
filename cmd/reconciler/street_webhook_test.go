package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler/web/webtest"
)

// delivery is one request to the webhook.
type delivery struct {
	method, path, host, origin, secret string // "" is what Label Studio sends
	body                               io.Reader
}

// deliver sends it, and returns how it was answered. Every answer is held against openapi.yaml.
func (s *street) deliver(p *process, d delivery) (status int, body string) {
	s.Helper()
	status, body, err := s.send(p, d)
	if err != nil {
		s.Fatal(err)
	}
	return status, body
}

func (s *street) send(p *process, d delivery) (status int, body string, err error) {
	s.Helper()
	if d.method == "" {
		d.method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(s.Context(), d.method, p.webhook()+d.path, d.body)
	if err != nil {
		s.Fatal(err)
	}
	req.Host = d.host
	if d.origin != "" {
		req.Header.Set("Origin", d.origin)
	}
	if d.secret == "" {
		d.secret = secret
	}
	req.Header.Set("Authorization", "Bearer "+d.secret)
	req.Header.Set("Content-Type", "application/json")
	resp, err := webtest.Client(s.T).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// delivered sends a body until it is answered for good: a machine that is too busy to commit in time is told as a database that is away.
func (s *street) delivered(p *process, body string) (status int, answer string) {
	s.Helper()
	s.eventually(func() string {
		if status, answer = s.deliver(p, delivery{body: strings.NewReader(body)}); strings.Contains(answer, "The database is away") {
			return answer
		}
		return ""
	})
	return status, answer
}

// marker stands in bodies that must not be logged.
const marker = "nobody-may-log-this"

// repeated is a JSON text of a size, made as it is read.
func repeated(size int64) io.Reader {
	head, tail := `{"action": "`+marker+`", "pad": "`, `"}`
	return io.MultiReader(strings.NewReader(head), io.LimitReader(endless{}, size-int64(len(head)+len(tail))), strings.NewReader(tail))
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// Whatever arrives at the webhook has a clear answer and, where it is refused, one line in the log that shows nothing of the body.
func TestWebhook(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	s.env = append(s.env, "RECONCILER_DIFF_SCHEDULE=@every 1h")
	task := s.pair("row", "NEUTRAL")
	p := s.start("GOMEMLIMIT=448MiB") // as the manifests say
	s.wantContact(task)
	text := func(body string) io.Reader { return strings.NewReader(body) }
	lines := 0
	for _, c := range []struct {
		name   string
		send   delivery
		status int
		lines  int
	}{
		{"no JSON", delivery{body: text(`{"action": ` + marker)}, 400, 1},
		{"empty", delivery{}, 400, 1},
		{"no object", delivery{body: text(`["` + marker + `"]`)}, 400, 1},
		{"null", delivery{body: text(`null`)}, 400, 1},
		{"a task without id", delivery{body: text(`{"action": "TASKS_CREATED", "tasks": [{"data": {"conquest_id": "` + marker + `"}}]}`)}, 400, 1},
		{"a task that is none", delivery{body: text(`{"action": "ANNOTATION_CREATED", "task": "` + marker + `"}`)}, 400, 1},
		{"wrong secret", delivery{secret: "guess", body: text(`{"action": "` + marker + `"}`)}, 401, 1},
		{"too large", delivery{body: repeated(64<<20 + 1)}, 413, 1},
		{"large", delivery{body: repeated(16 << 20)}, 200, 0},
		{"unknown action", delivery{body: text(`{"action": "` + marker + `", "task": {"id": 1}}`)}, 200, 0},
		{"no action", delivery{body: text(`{}`)}, 200, 0},
		{"wrong method", delivery{method: http.MethodGet}, 405, 0},
		{"wrong path", delivery{path: "/x", body: text(`{}`)}, 404, 0},
		{"foreign host, wrong secret", delivery{host: "example.com", secret: "guess", body: text(`{}`)}, 403, 1},
		{"foreign page, wrong secret", delivery{origin: "http://example.com", secret: "guess", body: text(`{}`)}, 403, 1},
		{"foreign host, the secret", delivery{host: "sync.example.com", body: text(`{"action": "x"}`)}, 200, 0}, // by the name that it has behind a proxy
	} {
		if status, body := s.deliver(p, c.send); status != c.status || strings.Contains(body, marker) {
			t.Errorf("%s: %d %s, want %d", c.name, status, body, c.status)
		}
		lines += c.lines
	}
	s.wantTold(p, lines, "must be a JSON object", "has no id", "Send the webhook secret", "64 MiB", "only this machine is answered", "another origin")
	if got := p.metric(t, `reconciler_webhooks_total{action="other",outcome="refused"}`); got != float64(lines) {
		t.Errorf("%v refused deliveries are counted, want %d", got, lines)
	}
	// Many of the largest at once.
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			head, tail := `{"action": "TASKS_CREATED", "tasks": [{"id": 1, "data": {"pad": "`, `"}}]}`
			body := io.MultiReader(text(head), io.LimitReader(endless{}, 60<<20), text(tail))
			// Who is refused while it still sends, or is slower than a request may be, hears only that the connection ends.
			if status, answer, err := s.send(p, delivery{body: body}); err == nil && status != 200 && status != 503 {
				t.Errorf("one of the largest: %d %s", status, answer)
			}
		})
	}
	sent := make(chan struct{})
	go func() { defer close(sent); all.Wait() }()
	for more := true; more; {
		select {
		case <-sent:
			more = false
		case <-time.After(20 * time.Millisecond):
		}
		// What was given back to the system counts no more, but for its addresses.
		if held := p.metric(t, "go_memstats_sys_bytes") - p.metric(t, "go_memstats_heap_released_bytes"); held > 512<<20 {
			t.Fatalf("large bodies take %v MiB, more than a container has", held/(1<<20))
		}
	}

	// As they were recorded: of another project.
	files, err := filepath.Glob("../../reconciler/api/testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded deliveries: %v", err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if status, answer := s.delivered(p, string(body)); status != 200 {
			t.Errorf("%s: %d %s", filepath.Base(file), status, answer)
		}
	}
	s.wantRest()
	s.wantTold(p, lines, "must be a JSON object", "has no id", "Send the webhook secret", "64 MiB", "only this machine is answered", "another origin")
	if p.ended() || strings.Contains(p.out.String(), marker) {
		t.Errorf("the daemon ended, or logged a body:\n%s", &p.out)
	}
	if _, shown := p.get(t, "/metrics"); strings.Contains(shown, marker) {
		t.Error("a body is in the metrics")
	}
}

// wantTold checks that the daemon has warned of deliveries: each reason once before another comes, and never of one twice.
func (s *street) wantTold(p *process, refused int, reasons ...string) {
	s.Helper()
	said := p.out.String()
	if n := strings.Count(said, "msg=webhook "); n > refused {
		s.Errorf("%d lines about %d refusals:\n%s", n, refused, said)
	}
	for _, reason := range reasons {
		s.wantLog(p, reason)
	}
}

// impatience is how long a delivery may take on a machine that is as busy as that of the tests. Label Studio stops listening after 1.0 s; what a quiet
// machine needs is for the benchmarks.
const impatience = 5 * time.Second

// Neither a hundred callers who never come to an end nor a Label Studio that hangs keeps a delivery from its answer.
func TestWebhookBesideSlowOnes(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	s.env = append(s.env, "RECONCILER_DIFF_SCHEDULE=@every 1h")
	task := s.pair("row", "NEUTRAL")
	p := s.start()
	s.wantContact(task)
	ls.Faults(func(*http.Request) studio.Fault { return studio.Fault{Kind: studio.FaultHang} })
	s.setResult("VICTORY", "row") // a turn is under way, and waits
	s.zero(`SELECT count(*), 'not claimed yet' FROM reconciler.queue WHERE key = 'row' AND want_gen > done_gen AND leased_until IS NULL`)
	for i := range 100 {
		conn, err := net.Dial("tcp", p.listen)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() }) // the daemon may have closed it
		begun := "POST /v1/webhooks/label-studio HTTP/1.1\r\nHost: localhost\r\n"
		if i%2 == 0 { // half of them come as far as the body, of which each promises as much as there may be
			begun += fmt.Sprintf("Authorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{", secret, 64<<20)
		}
		if _, err := io.WriteString(conn, begun); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		body := fmt.Sprintf(`{"action": "ANNOTATION_CREATED", "annotation": {"id": %d}, "task": {"id": %d, "project": %d, "data": {"conquest_id": "row"}}}`, i+1, task, s.projects[0])
		s.eventually(func() string {
			start := time.Now()
			status, answer := s.deliver(p, delivery{body: strings.NewReader(body)})
			if strings.Contains(answer, "The database is away") {
				return answer // it was too busy to commit in time
			}
			if took := time.Since(start); status != 200 || took > impatience {
				t.Fatalf("delivery %d: %d %s after %s", i, status, answer, took)
			}
			return ""
		})
	}
	ls.Faults(nil)
	s.wantStar(task, true)
}

// A delivery wakes, and says nothing: doubled, or about what is not so, it changes nothing, and makes Label Studio no work that goes on.
func TestWebhookOnlyWakes(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	s.env = append(s.env, "RECONCILER_DIFF_SCHEDULE=@every 1h")
	task := s.pair("row", "NEUTRAL")
	lone := s.task("nobodys", s.projects[0], nil)
	sent := countPatches(ls)
	p := s.start()
	s.wantContact(task)
	row, meta := s.row("row"), s.meta(task)
	about := func(task int64, data string) string {
		return fmt.Sprintf(`{"action": "ANNOTATION_CREATED", "annotation": {"id": 1, "result": [{"type": "choices", "value": {"choices": ["gold_star"]}}]},
			"task": {"id": %d, "project": %d, "data": %s, "meta": {"gold_star": true}}}`, task, s.projects[0], data)
	}
	before := ls.Requests()
	const times = 20
	for range times {
		for _, d := range []struct {
			body, want string
		}{
			{about(task, `{"conquest_id": "row"}`), "accepted"},
			{about(lone, `{"conquest_id": "nobodys"}`), "accepted"},      // a task whose conquest is not there
			{about(lone+1000, `{"prompt": "p"}`), "ignored"},             // a task that names none
			{about(lone+1001, `{"conquest_id": "a\u0000b"}`), "ignored"}, // nor can one be named so
			{about(lone+1002, `{"conquest_id": "' \" \\ %00 \u2028 😀 \ud800", "prompt": "`+strings.Repeat("x", 1<<20)+`"}`), "accepted"},
		} {
			if status, answer := s.delivered(p, d.body); status != http.StatusOK || !strings.Contains(answer, d.want) {
				t.Fatalf("%d %s, want %s", status, answer, d.want)
			}
		}
	}
	s.wantRest()
	s.same("the row", row, s.row("row"))
	s.same("meta", meta, s.meta(task))
	after := ls.Requests()
	if n := after[labelstudio.OpTasksByID] - before[labelstudio.OpTasksByID]; n > 5*times {
		t.Errorf("%d deliveries made %d listings", 5*times, n)
	}
	if n := sent(task) + sent(lone); n != 0 {
		t.Errorf("%d PATCHes", n)
	}

	// A hook without payload says that something happened, and not what, whatever its action: a pass finds it.
	asked, start, wanted := ls.Requests(), time.Now(), true
	for _, action := range labelstudio.WebhookActions() {
		s.setMeta(task, object{"gold_star": wanted})
		for range 10 {
			if status, body := s.delivered(p, `{"action": "`+action+`"}`); status != 200 || !strings.Contains(body, "accepted") {
				t.Errorf("%s: %d %s", action, status, body)
			}
		}
		s.wantResult("row", map[bool]string{true: "VICTORY", false: "NEUTRAL"}[wanted])
		wanted = !wanted
	}
	n := ls.Requests()[labelstudio.OpTasksChanged] - asked[labelstudio.OpTasksChanged]
	if most := len(s.projects) * (2 + int(time.Since(start).Seconds())); n > most {
		t.Errorf("they made %d listings, want %d at most", n, most)
	}
	s.wantEqual()
}
