package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/labelstudio"
)

// stranger is a person without an account in Label Studio.
const stranger = "stranger@elsewhere.example"

// curationFlows is what people do on the curation page, once with the mouse and once with the keyboard alone, alone and at once: on
// a street with its daemon, in Chromium, as the annotator. A flow has conquests of its own.
func curationFlows(s *street, b *browser) {
	p := s.start("RECONCILER_LOCAL_USER="+s.side.annotator, "RECONCILER_TRUSTED_PROXIES=127.0.0.0/8", "ARISTOTLE_URL=http://aristotle.example/app/{id}")
	s.hook(p)
	base := "http://" + p.curation
	all := map[string]func(s *street, page func(*testing.T) *tab, key string){
		"list": listFlow, "read": readFlow, "star_click": starClickFlow, "shortcuts": shortcutsFlow, "no_scripts": noScriptsFlow,
		"edit": editFlow, "conflict": conflictFlow, "drafts": draftsFlow, "stranger": strangerFlow, "settle": settleFlow, "export": exportFlow, "charts": chartsFlow,
	}
	for _, hand := range []string{"mouse", "keys"} {
		s.Run(hand, func(t *testing.T) { // one after the other: the real Label Studio is slow
			flows := maps.Clone(all)
			if hand == "mouse" {
				maps.Copy(flows, musts)
			}
			for name, flow := range flows {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					flow(s.in(t), func(t *testing.T) *tab {
						p := b.tab(t, base)
						p.keys = hand == "keys"
						return p
					}, name+"_"+hand)
				})
			}
		})
	}
}

const pressed = `document.querySelector("tr .star, .star.big").getAttribute("aria-pressed") === %q`

// synced waits until a page says, unasked, that both sides agree.
func (p *tab) synced(gold bool) {
	p.Helper()
	p.until(fmt.Sprintf(pressed, fmt.Sprint(gold)) + ` && document.querySelector("tr .sync, .star-panel .sync").textContent === "In sync"`)
}

// The list is searched, filtered, sorted and paged; where a person has got is an address that another can open.
func listFlow(s *street, page func(*testing.T) *tab, key string) {
	const all = 55 // more than a page has
	s.exec(`INSERT INTO "Conquest" (id, title, result, philosopher, domain)
		SELECT $1 || n, format('%s number %s', $1, lpad(n::text, 2, '0')), CASE WHEN n > 50 THEN `+s.as(`'DEFEAT'`)+` ELSE `+s.as(`'NEUTRAL'`)+` END, $1 || '@example.com', 'lists'
		FROM generate_series(1, $2::int) n`, key, all)
	rows := func(p *tab, n int, first string) {
		p.Helper()
		p.until(fmt.Sprintf(`document.querySelectorAll(".list tbody tr").length === %d && document.querySelector(".title").textContent.endsWith(%q)`, n, first))
	}
	ana, ben := page(s.T), page(s.T)
	ana.open("/")
	ana.fill("#q", key+" number")
	ana.click(".search button")
	found := func(p *tab, n int) {
		p.Helper()
		p.until(fmt.Sprintf(`document.querySelector(".lead").textContent.startsWith("%d conquests found.")`, n))
	}
	found(ana, 55)
	ana.click(".c-title a")
	rows(ana, 50, "01")
	ana.click("a[rel=next]")
	rows(ana, 5, "51")
	ana.click("a[rel=prev]")
	rows(ana, 50, "01")
	ana.click(".filters summary")
	ana.fill("input[name=philosopher]", key+"@example.com")
	ana.click(".fields .actions button")
	ana.until(fmt.Sprintf(`new URLSearchParams(location.search).get("philosopher") === %q`, key+"@example.com")) // the page before has as many rows
	rows(ana, 50, "01")
	ana.click(`.tabs a[href*="DEFEAT"]`)
	rows(ana, 5, "51")
	found(ana, 5)
	ben.open(ana.js(`location.pathname + location.search`))
	rows(ben, 5, "51")
	found(ben, 5)
}

// A conquest's page has what was asked, answered and judged, by whom and when, and leads to both sides.
func readFlow(s *street, page func(*testing.T) *tab, key string) {
	s.conquest(key, "PENDING")
	s.exec(`INSERT INTO conquest_prompt VALUES ($1, $1, jsonb_build_object('prompt', 'What is virtue?'))`, key)
	s.exec(`INSERT INTO conquest_response VALUES ($1, $1, jsonb_build_object('response', 'It is knowledge.'))`, key)
	task, second := s.task(key, s.projects[0], nil), s.task(key, s.projects[1], nil)
	s.wantContact(task, second)
	p := page(s.T)
	p.open("/conquests/" + key)
	for _, text := range []string{"What is virtue?", "It is knowledge.", "well argued", "plato@example.com", "The star is the conquest's: all its 2 tasks follow."} {
		p.says(text)
	}
	s.annotate(task, true)
	p.synced(true) // unasked
	p.until(fmt.Sprintf(`document.querySelector(".note header").textContent.includes("gold star") && document.querySelector(".note b").textContent === %q`, s.side.annotator))
	p.until(fmt.Sprintf(`document.querySelector(".history").textContent.includes("A person starred task %d, by an annotation of %s: the conquest, PENDING until then, became VICTORY.")`,
		task, s.side.annotator))
	p.until(fmt.Sprintf(`document.querySelector(".history").textContent.includes("The star was written to task %d.")`, second))
	p.until(fmt.Sprintf(`document.querySelector(".tasks a").href === "%s/projects/%d/data?task=%d"`, s.side.url, s.projects[0], task))
	p.until(fmt.Sprintf(`document.querySelector('[data-live="aristotle"] a').href === "http://aristotle.example/app/%s"`, key))
	if s.side.password != "" { // the real one has pages
		p.js(`window.before = true`)
		p.click(".tasks a")
		p.until(`!window.before`)
		p.logIn(s.side, s.projects[0], task)
	}
}

// logIn logs in at the real Label Studio to see a task. It keeps its session in a cookie that each of its answers sets, those from before the login
// too: one that comes late, of a style or an icon of the login page, ends the session. Then it shows its login, or its front page, and a person tries again.
func (p *tab) logIn(side studioSide, project, task int64) {
	p.Helper()
	there := fmt.Sprintf(`location.pathname.startsWith("/projects/%d/data") && new URLSearchParams(location.search).get("task") === "%d" && !document.querySelector("input[name=email]")`,
		project, task)
	for begin := time.Now(); time.Since(begin) < patience; {
		p.until(`document.readyState === "complete"`)
		if p.js(there) == "true" {
			return
		}
		if p.js(`document.querySelector("input[name=email]") === null`) == "true" {
			p.Logf("neither a login nor the task: %s", p.where())
			p.do(chromedp.Navigate(fmt.Sprintf("%s/projects/%d/data?task=%d", side.url, project, task)))
			continue
		}
		p.js(`window.before = true`)
		p.fill("input[name=email]", side.email)
		p.fill("input[name=password]", side.password)
		p.js(`document.querySelector("input[name=password]").focus()`)
		p.press("\r")
		p.until(`!window.before && document.readyState === "complete"`)
	}
	p.Fatalf("nobody can log in\nthe page is %s", p.where())
}

// The charts of the status page move while somebody looks, without the page being loaded again.
func chartsFlow(s *street, page func(*testing.T) *tab, key string) {
	task := s.pair(key, "PENDING")
	s.wantContact(task)
	p := page(s.T)
	p.open("/status")
	p.until(`document.readyState === "complete" && document.querySelectorAll(".chart svg").length === 4`)
	const carried = `Number(/: (\d+) in all/.exec(document.querySelectorAll(".chart svg")[%d].ariaLabel)?.[1] ?? 0)`
	p.js(`window.loadedOnce = true`)
	before := [2]string{p.js(fmt.Sprintf(carried, 0)), p.js(fmt.Sprintf(carried, 1))}
	s.setResult("VICTORY", key)
	s.wantStar(task, true)
	s.setMeta(task, object{"gold_star": false})
	s.wantResult(key, "PENDING")
	for direction, n := range before {
		p.until(fmt.Sprintf(carried+` > %s && document.querySelectorAll(".chart svg")[%d].querySelector("rect")`, direction, n, direction))
	}
	p.until(`document.querySelectorAll(".chart polyline").length >= 2`) // of the queue and of the oldest
	p.until(`window.loadedOnce`)
	for _, says := range []string{"answers", "as " + s.side.email, "of WAL kept for us", "Oldest not carried over", "for a person"} {
		p.until(fmt.Sprintf(`document.querySelector(".tiles").innerText.includes(%q)`, says))
	}
	p.until(fmt.Sprintf(`[...document.querySelectorAll("#h-passes + table th[scope=row]")].some(e => e.textContent === "%d")`, s.projects[0]))
}

// A click on the list stars the conquest, and another person who looks at its page sees it without doing anything; their undo is
// seen on the list.
func starClickFlow(s *street, page func(*testing.T) *tab, key string) {
	task := s.pair(key, "DEFEAT")
	before := s.row(key)
	s.wantContact(task)
	ana, ben := page(s.T), page(s.T).as(stranger)
	ana.open("/?q=" + key)
	ben.open("/conquests/" + key)
	ana.synced(false)
	ben.synced(false)
	ana.click(".list .star")
	ana.synced(true)
	ana.says("Marked as gold star.")
	ben.synced(true)
	ben.says("★ starred")
	ben.until(`document.querySelectorAll(".history li").length > 0`)
	s.has("the row", s.row(key), object{"result": "VICTORY", "useAsExample": true, "evaluatedBy": s.side.annotator})
	s.has("its rating", s.rating(key), object{"is_gold_star": true, "use_as_sample_response": true, "rating": "5", "label_studio_task_id": task})
	s.has("the task's meta", s.meta(task), object{"gold_star": true, "synced_from_aristotle": true})
	ana.click(".undo")
	ana.synced(false)
	ben.synced(false)
	s.has("the row", s.row(key), object{"result": "DEFEAT", "useAsExample": false, "evaluatedBy": s.side.annotator})
	s.same("the row", before, s.row(key), starColumns...)
	s.has("the task's meta", s.meta(task), object{"gold_star": false})
	ben.click(".star.big")
	ana.synced(true)
	s.has("the row", s.row(key), object{"result": "VICTORY", "evaluatedBy": stranger})
}

// The shortcuts: find it, open it, star it, take that back.
func shortcutsFlow(s *street, page func(*testing.T) *tab, key string) {
	task := s.pair(key, "PENDING")
	s.wantContact(task)
	p := page(s.T)
	p.open("/")
	p.press("/")
	p.until(`document.activeElement.id === "q"`)
	p.js(`document.activeElement.value = ""`) // a key that a person presses types no slash into it
	p.press(key + "\r")
	p.until(`location.search.includes("q=") && document.querySelectorAll(".list tbody tr").length === 1`)
	p.press("j")
	p.until(`document.activeElement.classList.contains("title")`)
	p.press("s")
	p.synced(true)
	p.until(`document.activeElement.classList.contains("title")`) // the row was replaced, and the focus stays
	p.press("\r")
	p.until(`document.body.dataset.page === "conquest"`)
	p.synced(true)
	p.press("s")
	p.synced(false)
	p.says("The star was taken away.") // this is what can be undone, and may come after the star has changed
	p.press("u")
	p.synced(true)
	s.has("the task's meta", s.meta(task), object{"gold_star": true})
	p.press("e")
	p.until(`document.body.dataset.page === "edit"`)
}

// Without scripts: search, star, undo, compare, save, settle.
func noScriptsFlow(s *street, page func(*testing.T) *tab, key string) {
	task := s.pair(key, "PENDING")
	s.wantContact(task)
	p := page(s.T)
	p.scripts(false)
	p.open("/")
	p.fill("#q", key)
	p.click(".search button")
	p.until(`document.querySelectorAll(".list tbody tr").length === 1 && document.querySelector(".lead").textContent.startsWith("1 conquest found.")`)
	p.click(".list .star")
	p.says("Marked as gold star.")
	p.until(fmt.Sprintf(pressed, "true"))
	s.wantStar(task, true)
	p.click(".undo")
	p.says("The star was taken away.")
	s.wantStar(task, false)
	p.open(taskPath(task))
	p.fill("#text", "r, but better")
	p.sends("compare", `document.querySelector("#changes ins")?.textContent === ", but better"`)
	p.save("Saved as your annotation in Label Studio.")
	s.wantCorrection(task, s.side.annotator, "r, but better")
	held := key + "_held"
	s.conquest(held, "NEUTRAL")
	second := s.task(held, s.projects[0], object{"gold_star": true})
	s.wantSQL(`SELECT jsonb_build_object('held', held->'shown') FROM reconciler.edge WHERE task_id = $1`, object{"held": true}, second)
	p.open("/held")
	p.click(fmt.Sprintf(`.case[data-key=%q] button[value="true"]`, held))
	p.says("Settled: it is a VICTORY")
	s.wantResult(held, "VICTORY")
	for _, path := range []string{"/export", "/status", "/help"} {
		p.open(path)
		p.until(`document.readyState === "complete" && document.querySelector("main h1") && !document.querySelector(".card .muted")`)
	}
}

// save presses Save until the page says that it is saved.
func (p *tab) save(says string) {
	p.Helper()
	p.sends("save", fmt.Sprintf(`document.body.innerText.includes(%q)`, says))
}

// sends presses a button of the editor until an expression is true of the page that comes: under load Label Studio is slower than a page waits, which says
// so then.
func (p *tab) sends(button, done string) {
	p.Helper()
	for begin := time.Now(); time.Since(begin) < patience; {
		p.js(`document.body.dataset.before = "yes"`)
		p.click(fmt.Sprintf(`button[value=%q]`, button))
		p.until(`document.readyState === "complete" && !document.body.dataset.before && (` + done + ` || document.querySelector(".notice.problem"))`)
		if p.js(`Boolean(`+done+`)`) == "true" {
			return
		}
	}
	p.Fatalf("it does not come to %s in %s\nthe page is %s", done, patience, p.where())
}

// wantCorrection checks that a person's correction is on a task, and that meta and the annotations of others are as they were.
func (s *street) wantCorrection(task int64, who, text string) {
	s.Helper()
	t, err := s.studio.Task(s.Context(), task)
	if err != nil {
		s.Fatal(err)
	}
	if !slices.ContainsFunc(t.Annotations, func(a labelstudio.Annotation) bool {
		return a.CompletedBy.Email == who && len(a.Result) == 1 && a.Result[0].FromName == "response" && slices.Equal(a.Result[0].Text(), []string{text})
	}) {
		s.Errorf("task %d has no correction %q of %s: %+v", task, text, who, t.Annotations)
	}
}

// A correction is written with its difference shown, its draft survives a reload, and it is saved as the person's own annotation
// next to somebody else's; then it is the text that examples are made of.
func editFlow(s *street, page func(*testing.T) *tab, key string) {
	task := s.pair(key, "PENDING")
	s.wantContact(task)
	star := s.annotate(task, true)
	s.wantStar(task, true)
	meta := s.meta(task)
	p, ben := page(s.T), page(s.T).as(stranger)
	ben.open("/conquests/" + key)
	p.open("/conquests/" + key)
	p.click(`.actions a.button`)
	p.fill("#text", "r, as it should be\nשלום")
	p.until(`document.querySelector("#changes ins")?.textContent.startsWith(", as it should be")`)
	p.says("Draft kept in this browser")
	p.do(chromedp.Reload())
	p.says("A draft of yours was found")
	p.until(`document.querySelector("#text").value === "r, as it should be\nשלום"`)
	p.saved(func() { p.press("s", chromedp.KeyModifiers(chromedp.ModifierCtrl)) })
	p.says("Saved as your annotation in Label Studio.")
	s.wantCorrection(task, s.side.annotator, "r, as it should be\nשלום")
	s.same("the task's meta", meta, s.meta(task))
	ben.until(`document.querySelector(".note ins")?.textContent.startsWith(", as it should be")`)
	if got, err := s.studio.Task(s.Context(), task); err != nil || !slices.ContainsFunc(got.Annotations, func(a labelstudio.Annotation) bool { return a.ID == star }) {
		s.Errorf("the other annotation is gone (%v): %+v", err, got.Annotations)
	}
	s.eventually(func() string { // the key was made dirty
		if kept := s.one(`SELECT jsonb_build_object('text', corrected) FROM reconciler.task_text WHERE task_id = $1`, task); kept["text"] != "r, as it should be\nשלום" {
			return fmt.Sprintf("the text of examples is %v", kept)
		}
		return ""
	})
	p.open(taskPath(task))
	p.until(`document.readyState === "complete" && document.querySelector("[data-draft-note]").hidden`) // what was saved is no draft any more

	// Saved again it is one more annotation: what was saved before is as it was, and so is meta.
	p.until(`document.querySelector("#text").value === "r, as it should be\nשלום"`)
	p.fill("#text", "r, better still")
	p.save("Saved as your annotation in Label Studio.")
	s.wantCorrection(task, s.side.annotator, "r, as it should be\nשלום")
	s.wantCorrection(task, s.side.annotator, "r, better still")
	s.same("the task's meta", meta, s.meta(task))
	ben.until(`document.querySelector(".note ins")?.textContent.startsWith(", better still")`)
}

// A draft is of the person who wrote it, and of the tab: neither the next one who uses this browser nor a second tab takes it away.
func draftsFlow(s *street, page func(*testing.T) *tab, key string) {
	task := s.pair(key, "PENDING")
	s.wantContact(task)
	const foundNone = `document.readyState === "complete" && document.querySelector("[data-draft-note]").hidden`
	first := page(s.T)
	second := first.another()
	for _, p := range []*tab{first, second} {
		p.open(taskPath(task))
		p.until(foundNone)
	}
	first.fill("#text", "a draft of the first tab")
	first.says("Draft kept in this browser")
	const firsts = `Object.values(localStorage).some(v => v.includes("a draft of the first tab"))` // a busy browser takes its time to tell another tab
	second.until(firsts)
	second.fill("#text", "x")
	second.says("Draft kept in this browser")
	second.fill("#text", "r")
	second.until(`document.querySelector("[data-draft-state]").textContent === ""`)
	second.as(stranger)
	second.open(taskPath(task))
	second.says(stranger)
	second.until(foundNone)
	first.until(firsts)
	first.do(chromedp.Reload())
	first.says("A draft of yours was found")
	first.until(`document.querySelector("#text").value === "a draft of the first tab"`)
	first.click("[data-draft-discard]")
	first.until(foundNone) // a busy browser reloads before it has heard the click
	first.do(chromedp.Reload())
	first.until(foundNone)
}

// Who has no account in Label Studio is told so before and after; the annotation is the daemon's, and says who wrote it.
func strangerFlow(s *street, page func(*testing.T) *tab, key string) {
	task := s.pair(key, "PENDING")
	s.wantContact(task)
	p := page(s.T).as(stranger)
	s.eventually(func() string { // Label Studio may be slower than a page waits
		p.open(taskPath(task))
		p.until(`document.readyState === "complete"`)
		if p.js(fmt.Sprintf(`document.body.innerText.includes(%q)`, "You have no account in Label Studio, so there it will be an annotation of "+s.side.email+", with your name in it.")) == "true" {
			return ""
		}
		return "the editor does not say whose annotation it will be: " + p.where()
	})
	p.accessible("the editor of a stranger")
	p.fill("#text", "written by a stranger")
	p.save("Saved in Label Studio with your name, as an annotation of " + s.side.email)
	s.wantCorrection(task, s.side.email, "written by a stranger")
	p.until(fmt.Sprintf(`document.querySelector(".note b").textContent === %q && document.querySelector(".note header").textContent.includes("of " + %q)`, stranger, s.side.email))
}

// Two people correct one response: the second is told, loses nothing, and overwrites nothing.
func conflictFlow(s *street, page func(*testing.T) *tab, key string) {
	task := s.pair(key, "PENDING")
	s.wantContact(task)
	ana, ben := page(s.T), page(s.T).as(stranger)
	ana.open(taskPath(task))
	ben.open(taskPath(task))
	ana.fill("#text", "the text of Ana")
	ben.fill("#text", "the text of Ben")
	ana.save("Saved as your annotation")
	ben.save("Not saved: somebody was faster")
	ben.until(`document.querySelector("#text").value === "the text of Ben"`)
	ben.until(`document.querySelector("#changes del").textContent === "Ana" && document.querySelector("#changes ins").textContent === "Ben"`)
	ben.accessible("a conflict")
	const theirs = `document.querySelector("#changes h2")?.textContent === "From their text to yours" && document.querySelector("#changes ins")?.textContent === %q`
	ben.fill("#text", "the text of Ana and Ben") // it stays the difference from hers as he writes
	ben.until(fmt.Sprintf(theirs, " and Ben"))
	if !ben.keys { // without scripts, too, with her text beside it
		ben.scripts(false)
		ben.fill("#text", "the text of Ana or Ben")
		ben.sends("compare", fmt.Sprintf(theirs, " or Ben")+` && document.querySelector(".conflict .text").textContent === "the text of Ana"`)
		ben.scripts(true)
		ben.fill("#text", "the text of Ana and Ben")
	}
	ben.save("Saved in Label Studio with your name")
	s.wantCorrection(task, s.side.annotator, "the text of Ana")
	s.wantCorrection(task, s.side.email, "the text of Ana and Ben")
}

// What is held is settled with one click, seen by another person. What that changed can be undone; a word that the row had said already
// cannot, since its other would be a VICTORY that the conquest never was.
func settleFlow(s *street, page func(*testing.T) *tab, key string) {
	s.conquest(key, "DEFEAT")
	s.exec(`UPDATE "Conquest" SET "evaluatedAt" = '2020-02-28 12:00' WHERE id = $1`, key)
	task := s.task(key, s.projects[0], object{"gold_star": true})
	starred := key + "_starred"
	s.conquest(starred, "DEFEAT")
	second := s.task(starred, s.projects[0], object{"gold_star": true})
	for _, task := range []int64{task, second} {
		s.wantSQL(`SELECT jsonb_build_object('held', held->'shown') FROM reconciler.edge WHERE task_id = $1`, object{"held": true}, task)
	}
	ana, ben := page(s.T), page(s.T).as(stranger)
	ana.open("/held")
	ben.open("/held")
	card := fmt.Sprintf(`.case[data-key=%q]`, key)
	ben.until(fmt.Sprintf(`document.querySelector(%q)`, card))
	for _, says := range []string{"Defeat", "earlier@example.com, 28 Feb 2020", "well argued", "gold star", fmt.Sprint("task ", task), "held since"} { // what, who and when
		ana.until(fmt.Sprintf(`document.querySelector(%q).innerText.includes(%q)`, card, says))
	}
	const here = `document.activeElement.closest(".case")?.dataset.key`
	ben.until(fmt.Sprintf(`document.querySelector('.case[data-key=%q] button[value="false"]')?.focus() || `+here+` === %q`, starred, starred))
	ana.click(card + ` button[value="false"]`)
	ana.says("Settled: it is no VICTORY")
	gone := fmt.Sprintf(`!document.querySelector(%q)`, card)
	ana.until(gone)
	ben.until(gone)
	if at := ben.js(here); at != starred { // an Enter that was about to be pressed settles no other
		s.Errorf("the focus is at %s, want %s", at, starred)
	}
	s.wantStar(task, false)
	s.has("the row", s.row(key), object{"result": "DEFEAT"})
	if n := ana.js(`document.querySelectorAll(".undo").length`); n != "0" {
		s.Error("there is an Undo of what changed nothing")
	}

	key, task = starred, second
	ana.open("/held")
	ana.click(fmt.Sprintf(`.case[data-key=%q] button[value="true"]`, key))
	ana.says("Settled: it is a VICTORY")
	s.has("the row", s.row(key), object{"result": "VICTORY", "evaluatedBy": s.side.annotator})
	ana.click(".undo")
	s.wantStar(task, false)
	s.has("the row", s.row(key), object{"result": "DEFEAT", "evaluatedBy": s.side.annotator})
}

// wantSQL waits until a query that makes an object returns it.
func (s *street) wantSQL(sql string, want object, args ...any) {
	s.Helper()
	s.eventually(func() string {
		got, err := json.Marshal(s.one(sql, args...))
		if err != nil {
			s.Fatal(err)
		}
		text, err := json.Marshal(want)
		if err != nil {
			s.Fatal(err)
		}
		if string(got) == string(text) {
			return ""
		}
		return fmt.Sprintf("%s: %s, not %s", strings.Join(strings.Fields(sql), " "), got, text)
	})
}

// What the export page offers is what `reconciler export` writes, byte for byte; and what a filter leaves.
func exportFlow(s *street, page func(*testing.T) *tab, key string) {
	task := s.pair(key, "PENDING")
	s.exec(`UPDATE "Conquest" SET philosopher = $1 WHERE id = $1`, key)
	s.setResult("VICTORY", key)
	s.wantStar(task, true)
	s.wantRest(key)
	ana := page(s.T)
	ana.open("/export")
	ana.fill("input[name=philosopher]", key)
	ana.fill("select[name=format]", "openai")
	ana.click(".fields button")
	ana.until(`location.search.includes("format=openai")`)
	ana.says("1 gold star")
	ana.until(`document.querySelector(".snippet").textContent.includes('"messages"')`)
	resp, err := http.Get(ana.js(`document.querySelector("a[download]").href`))
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	want, errs, status := s.command("export", "--format", "openai", "--philosopher", key)
	if status != 0 || !strings.Contains(want, `"messages"`) {
		s.Fatalf("status %d: %s%s", status, want, errs)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		s.Errorf("-command +page:\n%s", diff)
	}
	if name := resp.Header.Get("Content-Disposition"); !strings.Contains(name, "gold-stars-openai.jsonl") {
		s.Errorf("it is named %s", name)
	}
}

// TestCurationBrake does brakeFlow with the stand-in.
func TestCurationBrake(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	_, side := standIn(t)
	brakeFlow(newStreet(t, sandbox.Schema{}, side), b)
}

// A script has taken many stars away. The pass that finds them stops, the page shows its plan, and an administrator releases it.
func brakeFlow(s *street, b *browser) {
	s.env = append(s.env, "RECONCILER_BRAKE_COUNT=2", "RECONCILER_BRAKE_SHARE=0.1")
	tasks := map[string]int64{}
	for i := range 6 {
		key := fmt.Sprint("key_", i, "/", evil)
		tasks[key] = s.pair(key, "VICTORY")
	}
	s.exec(`UPDATE "Conquest" SET title = id`)
	first := s.start()
	for _, task := range tasks {
		s.wantStar(task, true)
	}
	s.wantLooked()
	first.stop()
	for _, task := range tasks {
		s.setMeta(task, object{"gold_star": false})
	}
	p := s.start()
	s.wantLog(p, "BRAKED")
	ana := b.tab(s.T, "http://"+p.curation)
	ana.keys = true
	ana.open("/status")
	ana.says("a pass that the brake stopped")
	ana.accessible("the status while a pass is braked")
	ana.open("/held")
	ana.says("would change 6 conquests")
	ana.says("6 conquests: ") // drift, by class
	ana.accessible("a plan that the brake stopped")
	ana.harmless("/held", ".case tbody", ".drift ul")
	for key := range tasks {
		s.wantResult(key, "VICTORY")
	}
	ana.click(`form[action="/release"] button`)
	ana.says("Released: 6 conquests are carried over now.")
	s.wantEach(tasks, nil)
	for key := range tasks {
		s.wantResult(key, "PENDING")
	}
	s.wantEqual()
}
