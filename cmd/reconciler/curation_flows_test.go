package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/labelstudio"
)

// curationFlows is what people do on the curation page, with mouse and keys, alone and at once: on a street with its daemon, in
// Chromium, as the annotator. A flow has conquests of its own.
func curationFlows(s *street, b *browser) {
	p := s.start("RECONCILER_LOCAL_USER=" + s.side.annotator)
	s.hook(p)
	base := "http://" + p.curation
	for name, flow := range map[string]func(s *street, page func(*testing.T) *tab, key string){
		"star_click": starClickFlow, "star_keys": starKeysFlow, "no_scripts": noScriptsFlow,
		"edit": editFlow, "conflict": conflictFlow, "settle": settleFlow, "export": exportFlow,
	} {
		s.Run(name, func(t *testing.T) {
			t.Parallel()
			flow(s.in(t), func(t *testing.T) *tab { return b.tab(t, base) }, name)
		})
	}
}

const pressed = `document.querySelector("tr .star, .star.big").getAttribute("aria-pressed") === %q`

// synced waits until a page says, unasked, that both sides agree.
func (p *tab) synced(gold bool) {
	p.Helper()
	p.until(fmt.Sprintf(pressed, fmt.Sprint(gold)) + ` && document.querySelector("tr .sync, .star-panel .sync").textContent === "In sync"`)
}

// A click on the list stars the conquest, and another person who looks at its page sees it without doing anything; their undo is
// seen on the list.
func starClickFlow(s *street, page func(*testing.T) *tab, key string) {
	task := s.pair(key, "DEFEAT")
	before := s.row(key)
	s.wantContact(task)
	ana, ben := page(s.T), page(s.T)
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
}

// Everything goes by keys: find it, open it, star it, take that back.
func starKeysFlow(s *street, page func(*testing.T) *tab, key string) {
	task := s.pair(key, "PENDING")
	s.wantContact(task)
	p := page(s.T)
	p.open("/")
	p.press("/")
	p.until(`document.activeElement.id === "q"`)
	p.js(`document.activeElement.value = ""`) // a key that a person presses types no slash into it
	p.press(key + "\r")
	p.until(`document.querySelectorAll(".list tbody tr").length === 1`)
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
	p.press("u")
	p.synced(true)
	s.has("the task's meta", s.meta(task), object{"gold_star": true})
	p.press("e")
	p.until(`document.body.dataset.page === "edit"`)
}

// Without scripts: search, star, undo, compare, save.
func noScriptsFlow(s *street, page func(*testing.T) *tab, key string) {
	task := s.pair(key, "PENDING")
	s.wantContact(task)
	p := page(s.T)
	p.scripts(false)
	p.open("/")
	p.do(chromedp.SendKeys(chromedp.CSS("#q"), key), chromedp.Click(chromedp.CSS(".search button")))
	p.until(`document.querySelectorAll(".list tbody tr").length === 1`)
	p.click(".list .star")
	p.says("Marked as gold star.")
	p.until(fmt.Sprintf(pressed, "true"))
	s.wantStar(task, true)
	p.click(".undo")
	p.says("The star was taken away.")
	s.wantStar(task, false)
	p.open(taskPath(task))
	p.do(chromedp.SetValue(chromedp.CSS("#text"), "r, but better"))
	p.click(`button[value="compare"]`)
	p.until(`document.querySelector("#changes ins").textContent === ", but better"`)
	p.click(`button[value="save"]`)
	p.says("Saved as your annotation in Label Studio.")
	s.wantCorrection(task, s.side.annotator, "r, but better")
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
	p := page(s.T)
	p.open("/conquests/" + key)
	p.click(`.actions a.button`)
	p.fill("#text", "r, as it should be\nשלום")
	p.until(`document.querySelector("#changes ins")?.textContent.startsWith(", as it should be")`)
	p.says("Draft kept in this browser")
	p.do(chromedp.Reload())
	p.says("A draft of yours was found")
	p.until(`document.querySelector("#text").value === "r, as it should be\nשלום"`)
	p.press("s", chromedp.KeyModifiers(chromedp.ModifierCtrl))
	p.says("Saved as your annotation in Label Studio.")
	s.wantCorrection(task, s.side.annotator, "r, as it should be\nשלום")
	s.same("the task's meta", meta, s.meta(task))
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
}

// Two people correct one response: the second is told, loses nothing, and overwrites nothing.
func conflictFlow(s *street, page func(*testing.T) *tab, key string) {
	task := s.pair(key, "PENDING")
	s.wantContact(task)
	ana, ben := page(s.T), page(s.T)
	ana.open(taskPath(task))
	ben.open(taskPath(task))
	ana.fill("#text", "the text of Ana")
	ben.fill("#text", "the text of Ben")
	ana.click(`button[value="save"]`)
	ana.says("Saved as your annotation")
	ben.click(`button[value="save"]`)
	ben.says("Not saved: somebody was faster")
	ben.until(`document.querySelector("#text").value === "the text of Ben"`)
	ben.until(`document.querySelector("#changes del").textContent === "Ana" && document.querySelector("#changes ins").textContent === "Ben"`)
	ben.accessible("a conflict")
	ben.fill("#text", "the text of Ana and Ben")
	ben.click(`button[value="save"]`)
	ben.says("Saved as your annotation")
	s.wantCorrection(task, s.side.annotator, "the text of Ana")
	s.wantCorrection(task, s.side.annotator, "the text of Ana and Ben")
}

// What is held is settled with one click, seen by another person, and can be undone.
func settleFlow(s *street, page func(*testing.T) *tab, key string) {
	s.conquest(key, "DEFEAT")
	task := s.task(key, s.projects[0], object{"gold_star": true})
	s.wantSQL(`SELECT jsonb_build_object('held', held->'shown') FROM reconciler.edge WHERE task_id = $1`, object{"held": true}, task)
	ana, ben := page(s.T), page(s.T)
	ana.open("/held")
	ben.open("/held")
	card := fmt.Sprintf(`.case[data-key=%q]`, key)
	ben.until(fmt.Sprintf(`document.querySelector(%q)`, card))
	ana.click(card + ` button[value="false"]`)
	ana.says("Settled: it is no VICTORY")
	gone := fmt.Sprintf(`!document.querySelector(%q)`, card)
	ana.until(gone)
	ben.until(gone)
	s.wantStar(task, false)
	s.has("the row", s.row(key), object{"result": "DEFEAT"})
	ana.click(".undo")
	s.wantStar(task, true)
	s.has("the row", s.row(key), object{"result": "VICTORY", "evaluatedBy": s.side.annotator})
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
	task := s.pair(key, "VICTORY")
	s.exec(`UPDATE "Conquest" SET "conquestType" = $1 WHERE id = $1`, key)
	s.wantStar(task, true)
	s.wantRest(key)
	ana := page(s.T)
	ana.open("/export?format=openai&type=" + key)
	ana.says("1 gold star")
	resp, err := http.Get(ana.js(`document.querySelector("a[download]").href`))
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	want, errs, status := s.command("export", "--format", "openai", "--conquest-type", key)
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

// TestCurationBrake: a script has taken many stars away. The pass that finds them stops, the page shows its plan, and an administrator releases it.
func TestCurationBrake(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	s.env = append(s.env, "RECONCILER_BRAKE_COUNT=2", "RECONCILER_BRAKE_SHARE=0.1")
	tasks := map[string]int64{}
	for i := range 6 {
		tasks[fmt.Sprint("key_", i)] = s.pair(fmt.Sprint("key_", i), "VICTORY")
	}
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
	ana := b.tab(t, "http://"+p.curation)
	ana.open("/held")
	ana.says("would change 6 conquests")
	ana.accessible("a plan that the brake stopped")
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
