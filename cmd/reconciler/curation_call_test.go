package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
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
	writeFile(t, tokens, `[{name: ana, email: ana@example.com, sha256: `+hash("ana-token")+`, scopes: [curate]},
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

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
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
	writeFile(t, tokens, entry("first"))
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
	page.fill("#text", "written before the session ended\nשלום & <b>more</b>")
	writeFile(t, tokens, entry("second")) // the session's token is no more
	s.wantLog(p, "tokens were read")
	page.click(`button[value="save"]`)
	page.says("You are not signed in any more.")
	page.fill("#token", "second")
	page.click(".card button")
	page.says("It was not saved yet.")
	page.accessible("resume")
	page.click(".card button")
	page.says("Saved as your annotation in Label Studio.")
	s.wantCorrection(task, side.annotator, "written before the session ended\nשלום & <b>more</b>")
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

// evil is a text that would do something where it is not escaped.
const evil = `"><script>document.title="owned"</script><img src=x onerror=document.title="owned">{{.}}'`

// TestCurationTexts: whatever a conquest's fields hold is text, right to left or a megabyte of it.
func TestCurationTexts(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{Texts: true}, side)
	s.exec(`INSERT INTO "Conquest" (id, title, description, "conquestType", result, "resultNotes", "evaluatedBy", philosopher, domain, status)
		SELECT t, t, t, t, 'DEFEAT', t, t, t, t, t FROM (SELECT $1::text AS t) x`, "evil/"+evil)
	s.exec(`INSERT INTO conquest_prompt VALUES ('1', $1::text, jsonb_build_object('prompt', $2::text))`, "evil/"+evil, evil)
	task := s.task("evil/"+evil, s.projects[0], object{"gold_star": true, "source": evil})
	big := strings.Repeat("a word or two\n", 1<<20/14)
	s.conquest("big", "PENDING")
	bigTask := ls.AddTask(s.projects[0], map[string]any{"conquest_id": "big", "prompt": "تقييم المرشح", "response": big}, map[string]any{})
	p := s.start()
	s.hook(p)
	s.wantContact(bigTask)
	s.wantSQL(`SELECT jsonb_build_object('held', held->'shown') FROM reconciler.edge WHERE task_id = $1`, object{"held": true}, task)
	region, err := labelstudio.TextRegion("response", "model_response", evil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.studio.CreateAnnotation(t.Context(), task, labelstudio.AnnotationEdit{Result: []labelstudio.Region{region}}); err != nil {
		t.Fatal(err)
	}
	page := b.tab(t, "http://"+p.curation)
	for _, path := range []string{"/?q=" + url.QueryEscape(evil), "/?philosopher=" + url.QueryEscape(evil) + "&sort=" + url.QueryEscape(evil),
		"/conquests/" + url.PathEscape("evil/"+evil), "/held", "/export?philosopher=" + url.QueryEscape(evil), taskPath(task), "/" + url.PathEscape(evil)} {
		page.open(path)
		page.until(`document.readyState === "complete"`)
		if title := page.js(`document.title`); strings.Contains(title, "owned") && !strings.Contains(title, "<script>") {
			t.Errorf("%s ran a script", path)
		}
		if n := page.js(`document.querySelectorAll("script:not([src]), img, style, [style], [onerror]").length`); n != "0" {
			t.Errorf("%s holds %s elements that are none of ours", path, n)
		}
	}
	page.open("/conquests/" + url.PathEscape("evil/"+evil))
	page.click(".star.big")
	page.synced(true)
	page.open("/conquests/big")
	page.until(`document.querySelector(".response").textContent.length > 1000000`)
	if dir := page.js(`getComputedStyle([...document.querySelectorAll(".text")].find(e => e.textContent.includes("تقييم"))).direction`); dir != "rtl" {
		t.Errorf("a right-to-left prompt is shown %s", dir)
	}
	page.open(taskPath(bigTask))
	page.until(`document.readyState === "complete" && document.querySelector("#text").value.length > 1000000`)
	page.js(`document.querySelector("#text").value += "the end"`)
	page.click(`button[value="save"]`)
	page.says("Saved in Label Studio with your name")
	if got, err := s.studio.Task(t.Context(), bigTask); err != nil || len(got.Annotations) != 1 || got.Annotations[0].Result[0].Text()[0] != big+"the end" {
		t.Errorf("the megabyte was not saved as it was written: %v", err)
	}
}

// TestCurationOutage: Label Studio away loses nothing that a person does, and each page says so.
func TestCurationOutage(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	task := s.pair("outage", "PENDING")
	p := s.start("RECONCILER_LOCAL_USER=" + side.annotator)
	s.wantContact(task)
	page := b.tab(t, "http://"+p.curation)
	page.open(taskPath(task))
	page.fill("#text", "written during the outage")
	ls.Faults(func(*http.Request) studio.Fault { return studio.Fault{Kind: studio.FaultCut} })
	page.click(`button[value="save"]`)
	page.says("Label Studio does not answer. Nothing is lost")
	page.accessible("an editor that could not save")
	page.open("/conquests/outage")
	page.says("Label Studio does not answer, so what people wrote there is not shown.")
	page.click(".star.big")
	page.until(fmt.Sprintf(pressed, "true"))
	s.wantResult("outage", "VICTORY")
	ls.Faults(nil)
	page.until(`!document.querySelector("[data-again]")`) // unasked
	ls.Faults(func(*http.Request) studio.Fault { return studio.Fault{Kind: studio.FaultCut} })
	page.open("/status")
	page.says("is away")
	page.open(taskPath(task))
	page.says("A draft of yours was found")
	ls.Faults(nil)
	page.until(`document.querySelector("#text").value === "written during the outage"`)
	s.eventually(func() string { // it is not asked for some seconds
		if page.js(`document.body?.dataset.page`) == "conquest" {
			return ""
		}
		page.js(`document.readyState === "complete" && document.querySelector('button[value="save"]')?.click()`)
		return "the editor did not save"
	})
	s.wantCorrection(task, side.annotator, "written during the outage")
	s.wantStar(task, true)
}
