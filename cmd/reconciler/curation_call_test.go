package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler/web/webtest"
)

// curate makes one request of the curation app, and returns its status, its JSON and its body.
func (s *street) curate(p *process, method, path, body string, header ...string) (int, object, string) {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, "http://"+p.curation+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		if req.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if strings.HasPrefix(path, "/api/") { // openapi.yaml describes it
		client.Transport = webtest.Client(s.T).Transport
	}
	resp, err := client.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	o := object{}
	if strings.Contains(resp.Header.Get("Content-Type"), "json") {
		s.decode(text, &o)
	}
	return resp.StatusCode, o, string(text)
}

func starCall(task int64) string { return fmt.Sprintf("/api/tasks/%d/gold-star", task) }

// TestGoldStarCall holds the call for programs against the contract: what it answers, and what happened.
func TestGoldStarCall(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	s.conquest("known", "NEUTRAL")
	task := s.task("known", s.projects[0], nil)
	foreign := ls.AddTask(ls.AddProject("foreign"), map[string]any{"conquest_id": "known", "prompt": "p", "response": "r"}, map[string]any{})
	tokens := filepath.Join(t.TempDir(), "tokens.yaml")
	hash := func(token string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(token))) }
	write(t, tokens, `[{name: ana, email: ana@example.com, sha256: `+hash("ana-token")+`, scopes: [curate]},
		{name: eidos, sha256: `+hash("icl-token")+`, scopes: [icl]},
		{name: ben, email: ben@example.com, sha256: `+hash("ben-token")+`, scopes: [curate], domain: logic}]`)
	p := s.start("RECONCILER_TOKENS_FILE=" + tokens)
	s.wantContact(task)
	ana := []string{"Authorization", "Bearer ana-token"}
	star := func(task int64, gold bool) object {
		t.Helper()
		status, got, text := s.curate(p, "POST", starCall(task), fmt.Sprintf(`{"is_gold_star": %v}`, gold), ana...)
		if status != 200 {
			t.Fatalf("%d: %s", status, text)
		}
		if at, err := time.Parse(time.RFC3339, fmt.Sprint(got["updated_at"])); err != nil || time.Since(at) > patience {
			t.Errorf("updated_at is %v", got["updated_at"])
		}
		return got
	}
	s.has("the answer", star(task, true), object{"task_id": task, "gold_star": true, "aristotle_synced": true, "label_studio_synced": true})
	s.has("the row", s.row("known"), object{"result": "VICTORY", "evaluatedBy": "ana@example.com", "useAsExample": true})
	s.has("the rating", s.rating("known"), object{"is_gold_star": true, "label_studio_task_id": task})
	s.has("meta", s.meta(task), object{"gold_star": true})
	s.has("the answer to the same again", star(task, true), object{"aristotle_synced": true, "label_studio_synced": true})
	s.has("the answer to the way back", star(task, false), object{"gold_star": false, "aristotle_synced": true, "label_studio_synced": true})
	s.has("the row", s.row("known"), object{"result": "NEUTRAL", "evaluatedBy": "ana@example.com", "useAsExample": false})

	// A task that nobody has seen yet, and one that names no conquest.
	s.conquest("fresh", "PENDING")
	s.has("the answer for a new task", star(s.task("fresh", s.projects[1], nil), true), object{"aristotle_synced": true, "label_studio_synced": true})
	s.wantResult("fresh", "VICTORY")
	alone := ls.AddTask(s.projects[0], map[string]any{"prompt": "p", "response": "r"}, map[string]any{"n": 12345678901, "reconciler": map[string]any{"task": 1, "attempt": "old"}})
	s.has("the answer for a task of no conquest", star(alone, true), object{"aristotle_synced": false, "label_studio_synced": true})
	s.has("its meta", s.meta(alone), object{"gold_star": true, "n": "12345678901", "reconciler": map[string]any{"task": json.Number("1"), "attempt": "old"}})

	for name, refused := range map[string]struct {
		path, body string
		header     []string
		status     int
	}{
		"no token":          {starCall(task), `{"is_gold_star": true}`, nil, 401},
		"an unknown token":  {starCall(task), `{"is_gold_star": true}`, []string{"Authorization", "Bearer x"}, 401},
		"another scope":     {starCall(task), `{"is_gold_star": true}`, []string{"Authorization", "Bearer icl-token"}, 403},
		"another domain":    {starCall(task), `{"is_gold_star": true}`, []string{"Authorization", "Bearer ben-token"}, 404},
		"a foreign project": {starCall(foreign), `{"is_gold_star": true}`, ana, 404},
		"no such task":      {starCall(999999), `{"is_gold_star": true}`, ana, 404},
		"no number":         {"/api/tasks/x/gold-star", `{"is_gold_star": true}`, ana, 404},
		"not JSON":          {starCall(task), `x`, ana, 400},
		"no value":          {starCall(task), `{}`, ana, 400},
		"no boolean":        {starCall(task), `{"is_gold_star": "yes"}`, ana, 400},
		"another method":    {starCall(task), ``, ana, 405},
	} {
		method := http.MethodPost
		if refused.status == 405 {
			method = http.MethodGet
		}
		status, got, text := s.curate(p, method, refused.path, refused.body, refused.header...)
		if status != refused.status || got["detail"] == nil || got["status"] != nil && fmt.Sprint(got["status"]) != fmt.Sprint(status) {
			t.Errorf("%s: %d %s, want %d and a problem that says what to do", name, status, text, refused.status)
		}
	}
	s.wantResult("known", "NEUTRAL")
	// Who is confined is told of another's task what is told of none.
	ben := []string{"Authorization", "Bearer ben-token"}
	_, _, others := s.curate(p, http.MethodPost, starCall(task), `{"is_gold_star": true}`, ben...)
	if _, _, none := s.curate(p, http.MethodPost, starCall(999999), `{"is_gold_star": true}`, ben...); others != none {
		t.Errorf("another's task: %s\nno task: %s", others, none)
	}

	// Label Studio away: a known task's star is safe in the row; one that is not known is refused.
	ls.Faults(func(*http.Request) studio.Fault { return studio.Fault{Kind: studio.FaultCut} })
	s.has("the answer while Label Studio is away", star(task, true), object{"aristotle_synced": true, "label_studio_synced": false})
	s.wantResult("known", "VICTORY")
	if status, _, text := s.curate(p, "POST", starCall(999999), `{"is_gold_star": true}`, ana...); status != 503 {
		t.Errorf("a task that is not known, while Label Studio is away: %d %s", status, text)
	}
	ls.Faults(nil)
	s.wantStar(task, true)

	// Aristotle's rows away: the star is set on the task itself, and the row follows later.
	s.exec(`ALTER TABLE "Conquest" RENAME TO away`)
	got := star(task, false)
	s.has("the answer while the rows are away", got, object{"aristotle_synced": false, "label_studio_synced": true})
	s.has("meta", s.meta(task), object{"gold_star": false})
	s.exec(`ALTER TABLE away RENAME TO "Conquest"`)
	s.wantResult("known", "NEUTRAL")
}

// TestCurationLogin: who it is by a token and then by a session, which ends with the token; what was written when it had ended is
// taken up again; a page from elsewhere, a stranger's header and a made-up cookie get nothing.
func TestCurationLogin(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	task := s.pair("session", "PENDING")
	tokens := filepath.Join(t.TempDir(), "tokens.yaml")
	entry := func(token string) string {
		return fmt.Sprintf(`[{name: ana, email: %s, sha256: %x, scopes: [curate]}]`, side.annotator, sha256.Sum256([]byte(token)))
	}
	write(t, tokens, entry("first"))
	p := s.start("RECONCILER_TOKENS_FILE="+tokens, "RECONCILER_TRUSTED_PROXIES=192.0.2.0/24")
	s.wantContact(task)
	page := b.tab(t, "http://"+p.curation)
	page.open("/?q=session")
	page.says("Who is it?")
	page.accessible("login")
	page.fill("#token", "wrong")
	page.click(".card button")
	page.says("This token is not known.")
	page.fill("#token", "first")
	page.click(".card button")
	page.until(`location.search === "?q=session"`)
	page.says(side.annotator)
	page.open(taskPath(task))
	const written = "written before the session ended\nשלום & " + evil
	page.fill("#text", written)
	write(t, tokens, entry("second")) // the session's token is no more
	s.wantLog(p, "tokens were read")
	page.click(`button[value="save"]`)
	page.says("You are not signed in any more.")
	page.fill("#token", "second")
	page.click(".card button")
	page.says("It was not saved yet.")
	page.accessible("resume")
	page.unharmed("a text that waits for the login")
	page.saved(func() { page.click(".card button") })
	page.says("Saved as your annotation in Label Studio.")
	s.wantCorrection(task, side.annotator, written)
	page.click(".me button")
	page.says("Who is it?")

	for name, refused := range map[string][]string{
		"nobody":                        nil,
		"a header of a stranger":        {"X-Forwarded-User", "boss@example.com"},
		"a session that nobody signed":  {"Cookie", "reconciler_curation=eyJuIjoiYW5hIn0.AAAA"},
		"a form from a page elsewhere":  {"Origin", "http://evil.example", "Authorization", ""},
		"a form from a frame elsewhere": {"Sec-Fetch-Site", "cross-site"},
	} {
		status, _, text := s.curate(p, "POST", "/conquests/session/star", "gold=true", append(refused, "Content-Type", "application/x-www-form-urlencoded")...)
		if status != 401 && status != 403 || strings.Contains(text, "boss@example.com") {
			t.Errorf("%s: %d", name, status)
		}
	}
	s.wantResult("session", "PENDING")
	if status, _, _ := s.curate(p, "GET", "/login?next="+url.QueryEscape("//evil.example"), ""); status != 200 {
		t.Errorf("the login page: %d", status)
	}
}

// TestTrustedProxy: a proxy's word says who it is.
func TestTrustedProxy(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	task := s.pair("proxied", "PENDING")
	p := s.start("RECONCILER_TRUSTED_PROXIES=127.0.0.0/8")
	s.wantContact(task)
	if status, _, text := s.curate(p, "POST", starCall(task), `{"is_gold_star": true}`, "X-Forwarded-User", "cleo@example.com"); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	s.has("the row", s.row("proxied"), object{"result": "VICTORY", "evaluatedBy": "cleo@example.com"})
	if status, _, _ := s.curate(p, "GET", "/", "", "X-Forwarded-User", "cleo@example.com", "Host", "evil.example"); status != 403 {
		t.Errorf("by a name that leads to loopback: %d", status)
	}
}
