package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
)

// musts hold whatever conquests are like, and whoever comes. They are shown with the mouse alone.
var musts = map[string]func(s *street, page func(*testing.T) *tab, key string){
	"injection": injectionFlow, "megabyte": megabyteFlow, "right_to_left": rightToLeftFlow, "session": sessionFlow, "call": callFlow,
}

// evil is a text that would do something where it is not escaped.
const evil = `"><script>document.title="owned"</script><img src=x onerror=document.title="owned">{{.}}'`

// harmless opens a page that shows evil in each of some places, and looks whether it has done anything.
func (p *tab) harmless(path string, places ...string) {
	p.Helper()
	p.open(path)
	for _, place := range places {
		p.until(fmt.Sprintf(`document.readyState === "complete" && [...document.querySelectorAll(%q)].some(e => (e.textContent + (e.value || "")).includes("onerror"))`, place))
	}
	p.unharmed(path)
}

// unharmed looks whether evil has done anything on the page that is shown.
func (p *tab) unharmed(what string) {
	p.Helper()
	p.until(`document.readyState === "complete"`)
	if title := p.js(`document.title`); strings.Contains(title, "owned") && !strings.Contains(title, "<script>") {
		p.Errorf("%s ran a script", what)
	}
	if n := p.js(`document.querySelectorAll("script:not([src]), img, style, [style], [onerror]").length`); n != "0" {
		p.Errorf("%s holds %s elements that are none of ours", what, n)
	}
}

// Whatever a field holds is text, wherever it is shown: what Aristotle, Label Studio, a proxy and an address say.
func injectionFlow(s *street, page func(*testing.T) *tab, key string) {
	search := "/?q=" + key
	philosopher := key + evil
	key += "/" + evil
	s.exec(`INSERT INTO "Conquest" (id, title, description, "conquestType", result, "resultNotes", "evaluatedBy", philosopher, domain, status)
		SELECT t, t, t, t, 'DEFEAT', t, t, $2, t, t FROM (SELECT $1::text AS t) x`, key, philosopher)
	s.exec(`INSERT INTO conquest_prompt VALUES ($1, $1, jsonb_build_object('prompt', $2::text))`, key, key)
	s.exec(`INSERT INTO conquest_response VALUES ($1, $1, jsonb_build_object('response', $2::text))`, key, key)
	task := s.task(key, s.projects[0], object{"gold_star": true, "source": evil})
	s.wantSQL(`SELECT jsonb_build_object('held', held->'shown') FROM reconciler.edge WHERE task_id = $1`, object{"held": true}, task)
	conquest := "/conquests/" + url.PathEscape(key)
	p := page(s.T).as(evil)
	p.harmless(search, ".title", ".c-type", ".c-philosopher", ".c-domain", ".c-title .status", ".who")
	p.harmless("/?q="+url.QueryEscape(evil)+"&type="+url.QueryEscape(key)+"&philosopher="+url.QueryEscape(philosopher)+"&domain="+url.QueryEscape(key)+"&sort="+url.QueryEscape(evil),
		"#q", "select[name=type]", "input[name=philosopher]", "input[name=domain]", ".title")
	p.harmless("/held", ".case h3", ".case .pre", ".case section", ".who")
	p.harmless("/"+url.PathEscape(evil), ".who")
	p.harmless(taskPath(task), ".crumb", ".original", ".sides details", "#text")
	p.fill("#text", evil+" and more")
	p.save("Saved in Label Studio with your name")
	p.harmless(conquest, ".note b", ".note .changes") // whoever wrote it says so in the annotation
	p.click(".star.big")
	p.synced(true)
	p.unharmed("a click")
	p.harmless(conquest, "h1", ".facts", ".star-says b", "#h-prompt + .text", ".text.response", ".note b", ".note .changes",
		`[data-live="aristotle"] dd`, `[data-live="aristotle"] .pre`, `[data-live="aristotle"] .id`, ".history", ".who")
	p.harmless("/export?philosopher="+url.QueryEscape(philosopher)+"&format=alpaca", "input[name=philosopher]", ".snippet")
	p.harmless("/status", ".who")
	p.harmless("/help", ".who")
	for _, inline := range []string{`document.body.innerHTML += "<b>"`, `document.createElement("script").text = "document.title = 'owned'"`} { // nor could a mistake of ours
		if got := p.js(`(() => { try { ` + inline + `; return "taken" } catch (e) { return e.name } })()`); got != "TypeError" {
			s.Errorf("%s: %s", inline, got)
		}
	}
	resp, err := http.Get(p.base)
	if err != nil {
		s.Fatal(err)
	}
	resp.Body.Close()
	if policy := resp.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'; script-src 'self'; style-src 'self';") || strings.Contains(policy, "unsafe") {
		s.Errorf("the policy is %s", policy)
	}
	other := page(s.T)
	other.open(taskPath(task))
	other.fill("#text", "of somebody else")
	p.open(taskPath(task))
	p.fill("#text", evil+" and still more")
	p.save("Saved in Label Studio with your name")
	other.click(`button[value="save"]`)
	other.says("Not saved: somebody was faster")
	other.until(`document.querySelector(".conflict b").textContent.includes("onerror") && document.querySelector(".conflict .text").textContent.includes("onerror")`)
	other.unharmed("a conflict")
}

// A program's star is a person's click.
func callFlow(s *street, page func(*testing.T) *tab, key string) {
	task := s.pair(key, "NEUTRAL")
	s.wantContact(task)
	daemon := &process{curation: strings.TrimPrefix(page(s.T).base, "http://")}
	for _, gold := range []bool{true, false} {
		status, got, text := s.curate(daemon, "POST", starCall(task), fmt.Sprintf(`{"is_gold_star": %v}`, gold), "X-Forwarded-User", "cleo@example.com")
		if status != http.StatusOK {
			s.Fatalf("%d: %s", status, text)
		}
		s.has("the answer", got, object{"task_id": task, "gold_star": gold, "aristotle_synced": true})
		s.wantResult(key, map[bool]string{true: "VICTORY", false: "NEUTRAL"}[gold])
		s.wantStar(task, gold)
		s.has("the row", s.row(key), object{"evaluatedBy": "cleo@example.com"})
	}
}

// A response of a megabyte is read, corrected, compared and saved as it was written.
func megabyteFlow(s *street, page func(*testing.T) *tab, key string) {
	big := strings.Repeat("a word or two\n", 1<<20/14)
	s.conquest(key, "PENDING")
	ids, err := s.studio.ImportTasks(s.Context(), s.projects[0], []labelstudio.NewTask{{Data: map[string]any{"conquest_id": key, "prompt": "p", "response": big}}})
	if err != nil {
		s.Fatal(err)
	}
	s.wantContact(ids[0])
	p := page(s.T)
	p.open("/conquests/" + key)
	p.until(`document.querySelector(".response").textContent.length > 1000000`)
	p.click(`.actions a.button`)
	p.until(`document.readyState === "complete" && document.querySelector("#text")?.value.length > 1000000`)
	p.js(`document.querySelector("#text").value += "the end"`)
	p.js(`document.querySelector("#text").dispatchEvent(new Event("input", {bubbles: true}))`)
	p.says("Draft kept in this browser")
	p.click("[data-compare]")
	p.until(`document.querySelector("#changes ins")?.textContent === "the end"`)
	p.save("Saved as your annotation in Label Studio.")
	s.wantCorrection(ids[0], s.side.annotator, big+"the end")
	p.until(`document.querySelector(".note ins")?.textContent === "the end"`)
}

// What is written from right to left is shown so, and written so.
func rightToLeftFlow(s *street, page func(*testing.T) *tab, key string) {
	const hebrew, arabic = "תשובה של המודל", "تقييم المرشح"
	s.conquest(key, "PENDING")
	s.exec(`UPDATE "Conquest" SET title = $2::text, "resultNotes" = $2::text, description = $3 WHERE id = $1`, key, arabic, hebrew)
	s.exec(`INSERT INTO conquest_prompt VALUES ($1, $1, jsonb_build_object('prompt', $2::text))`, key, arabic)
	s.exec(`INSERT INTO conquest_response VALUES ($1, $1, jsonb_build_object('response', $2::text))`, key, hebrew)
	task := s.task(key, s.projects[0], nil)
	s.wantContact(task)
	p := page(s.T)
	flows := func(direction string, places ...string) {
		s.Helper()
		for _, place := range places {
			p.until(fmt.Sprintf(`document.readyState === "complete" && document.querySelector(%q)`, place))
			if got := p.js(fmt.Sprintf(`getComputedStyle(document.querySelector(%q)).direction`, place)); got != direction {
				s.Errorf("%s is shown %s, want %s", place, got, direction)
			}
		}
	}
	p.open("/?q=" + key)
	flows("rtl", ".title")
	flows("ltr", ".c-philosopher")
	p.open("/conquests/" + key)
	flows("rtl", "h1", "#h-prompt + .text", ".text.response", `[data-live="aristotle"] .pre`)
	flows("ltr", "body", ".facts")
	p.open(taskPath(task))
	flows("rtl", "#text", ".original")
	p.fill("#text", hebrew+" מתוקנת")
	p.save("Saved as your annotation in Label Studio.")
	flows("rtl", ".note .changes")
	s.wantCorrection(task, s.side.annotator, hebrew+" מתוקנת")
}

// A session ends by itself. What was sent is taken up again after the login, what was only written is found again, and a click says
// that it did nothing; the login leads back to the same page.
func sessionFlow(s *street, page func(*testing.T) *tab, key string) {
	task := s.pair(key, "PENDING")
	s.wantContact(task)
	dir := s.TempDir()
	tokens, clock := filepath.Join(dir, "tokens.yaml"), filepath.Join(dir, "clock")
	write(s.T, tokens, fmt.Sprintf(`[{name: ana, email: %s, sha256: %x, scopes: [curate]}]`, s.side.annotator, sha256.Sum256([]byte("secret"))))
	write(s.T, clock, "0h")
	daemon := s.start("RECONCILER_TOKENS_FILE="+tokens, clockFile+"="+clock)
	p := page(s.T)
	p.base = "http://" + daemon.curation
	signIn := func(says string) {
		s.Helper()
		p.says(says)
		p.fill("#token", "secret")
		p.click(".card button")
	}
	at := func(path string) string {
		return fmt.Sprintf(`document.readyState === "complete" && location.pathname === %q`, path)
	}

	p.open(taskPath(task))
	signIn("Who is it?")
	p.until(at(taskPath(task)))
	p.fill("#text", "sent after the session\nשלום & <b>more</b>")
	write(s.T, clock, "11h")
	p.click("[data-compare]")
	p.until(`document.querySelector("#changes ins")`) // it lasts a working day
	write(s.T, clock, "13h")
	p.click(`button[value="save"]`)
	signIn("You are not signed in any more.")
	p.says("It was not saved yet.")
	p.saved(func() { p.click(".card button") })
	s.wantCorrection(task, s.side.annotator, "sent after the session\nשלום & <b>more</b>")

	p.open(taskPath(task))
	p.fill("#text", "only written")
	p.says("Draft kept in this browser")
	write(s.T, clock, "26h")
	p.do(chromedp.Reload())
	signIn("Who is it?")
	p.until(at(taskPath(task)))
	p.says("A draft of yours was found")
	p.until(`document.querySelector("#text").value === "only written"`)

	p.open("/conquests/" + key)
	p.until(at("/conquests/" + key))
	write(s.T, clock, "39h")
	p.click(".star.big")
	p.says("You are not signed in any more. Load this page again to sign in; nothing was changed.")
	s.wantResult(key, "PENDING")
	p.do(chromedp.Reload())
	signIn("Who is it?")
	p.until(at("/conquests/" + key))
	p.click(".star.big")
	p.synced(true)
	s.has("the row", s.row(key), object{"result": "VICTORY", "evaluatedBy": s.side.annotator})
}

// TestCurationStudioTexts is injectionFlow for what no real Label Studio can be made to say: its people's names, and why it refuses.
func TestCurationStudioTexts(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	ls, side := standIn(t)
	target, err := url.Parse(side.url)
	if err != nil {
		t.Fatal(err)
	}
	var refuses atomic.Bool
	through := httputil.NewSingleHostReverseProxy(target)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuses.Load() && r.Method != http.MethodGet {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"detail": %q}`, evil)
			return
		}
		through.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	s := newStreet(t, sandbox.Schema{}, side)
	task := s.pair("refused", "PENDING")
	if _, err := ls.Annotate(ls.AddUser(evil+"@annotators"), task, labelstudio.AnnotationEdit{Result: verdictRegions(t, false)}); err != nil {
		t.Fatal(err)
	}
	p := s.start("LABEL_STUDIO_URL="+front.URL, "LABEL_STUDIO_API_KEY="+ls.UserToken(ls.AddUser(evil+"@daemon")), "RECONCILER_TRUSTED_PROXIES=127.0.0.0/8")
	s.wantContact(task)
	page := b.tab(t, "http://"+p.curation).as(stranger)
	page.harmless("/conquests/refused", ".note b")
	page.harmless("/status", ".tile")
	page.harmless(taskPath(task), ".head .hint") // whose annotation it becomes
	refuses.Store(true)
	page.fill("#text", "it takes none")
	page.click(`button[value="save"]`)
	page.until(`document.querySelector(".notice.problem")?.textContent.includes("onerror")`)
	page.unharmed("a refusal")
	s.setResult("VICTORY", "refused")
	s.zero(`SELECT count(*), 'refused by no PATCH' FROM reconciler.queue WHERE key = 'refused' AND last_error IS NULL`)
	s.exec(`UPDATE reconciler.queue SET attempts = 100 WHERE key = 'refused'`)
	page.harmless("/conquests/refused", ".star-says q")
	page.harmless("/status", ".tile")
}

// away is a person at the pages while Label Studio is away.
type away struct {
	*street
	writes, reads                       *tab
	edited, listed, decided, unaffected int64
}

// writesBefore is somebody who writes a correction, and has not saved it when Label Studio goes.
func (s *street) writesBefore(page *tab) *away {
	s.Helper()
	s.conquest("away_decided", "DEFEAT")
	a := &away{street: s, writes: page, edited: s.pair("away_edited", "PENDING"), listed: s.pair("away_listed", "PENDING"),
		decided: s.task("away_decided", s.projects[0], object{"gold_star": true}), unaffected: s.pair("away_exported", "VICTORY")}
	s.wantContact(a.edited, a.listed, a.unaffected)
	s.wantSQL(`SELECT jsonb_build_object('held', held->'shown') FROM reconciler.edge WHERE task_id = $1`, object{"held": true}, a.decided)
	s.wantStar(a.unaffected, true)
	s.wantLooked("away_exported")
	page.open(taskPath(a.edited))
	page.fill("#text", "written while Label Studio was away")
	return a
}

// goesOn does on each page what is done there, while nothing answers: it says so where it matters, and takes what does not need Label Studio.
func (a *away) goesOn(page *tab) {
	a.Helper()
	a.reads = page
	a.writes.click(`button[value="save"]`)
	a.writes.says("Label Studio does not answer. Nothing is lost")
	a.writes.until(`document.querySelector("#text").value === "written while Label Studio was away"`)
	a.writes.accessible("an editor that could not save")

	page.open("/?q=away_listed")
	page.click(".list .star")
	page.says("Marked as gold star.")
	page.until(fmt.Sprintf(pressed, "true") + ` && ["Syncing", "Stuck"].includes(document.querySelector("tr .sync").textContent)`)
	a.wantResult("away_listed", "VICTORY")

	page.open("/held")
	card := `.case[data-key="away_decided"]`
	page.click(card + ` button[value="false"]`)
	page.says("Settled: it is no VICTORY")
	page.until(fmt.Sprintf(`!document.querySelector(%q)`, card))

	page.open("/export")
	page.until(`document.querySelector(".snippet")?.textContent.includes("messages")`)
	resp, err := http.Get(page.js(`document.querySelector("a[download]").href`))
	if err != nil {
		a.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(text), "messages") {
		a.Errorf("the download while Label Studio is away: %d %v %s", resp.StatusCode, err, text)
	}

	page.open("/status")
	page.until(`document.querySelector(".tile.bad")?.textContent.includes("is away")`)
	page.says("What people do here is kept, and carried over when it does.")

	page.open(taskPath(a.edited)) // in a browser that has no draft
	page.says("You can write all the same")
	a.writes.open(taskPath(a.edited))
	a.writes.says("A draft of yours was found")

	page.open("/conquests/away_edited")
	page.says("Label Studio does not answer, so what people wrote there is not shown.")
	page.click(".star.big")
	page.says("Marked as gold star.")
	page.until(fmt.Sprintf(pressed, "true") + ` && document.querySelector(".star-says").textContent.includes("Saved here")`)
	a.wantResult("away_edited", "VICTORY")
	page.accessible("a conquest whose Label Studio is away")
}

// findsAll is the same person when it answers again: everything is there, and the page has seen so unasked.
func (a *away) findsAll() {
	a.Helper()
	a.reads.until(`!document.querySelector("[data-again]")`)
	a.reads.synced(true)
	a.writes.until(`document.querySelector("#text").value === "written while Label Studio was away"`)
	a.writes.save("Saved as your annotation in Label Studio.")
	a.wantCorrection(a.edited, a.side.annotator, "written while Label Studio was away")
	for task, gold := range map[int64]bool{a.edited: true, a.listed: true, a.decided: false, a.unaffected: true} {
		a.wantStar(task, gold)
	}
}

// TestCurationOutage goes on while the stand-in is away; TestRealStreet does while the real one is.
func TestCurationOutage(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	p := s.start("RECONCILER_LOCAL_USER=" + side.annotator)
	person := s.writesBefore(b.tab(t, "http://"+p.curation))
	ls.Faults(func(*http.Request) studio.Fault { return studio.Fault{Kind: studio.FaultCut} })
	person.goesOn(b.tab(t, "http://"+p.curation))
	ls.Faults(nil)
	person.findsAll()
	s.wantEqual()
}
