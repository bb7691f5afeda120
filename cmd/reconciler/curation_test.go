package main

import (
	"flag"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/labelstudio"
)

// The screenshots of the README: go test ./cmd/reconciler -run TestCurationPages -screenshots ../../deploy/screenshots
var screenshots = flag.String("screenshots", "", "write the pages' screenshots to this folder")

// TestCurationPages shows every page to a person who looks, and to axe-core in light and dark: a list as it is in the demo.
func TestCurationPages(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{Texts: true}, side)
	conquests := sandbox.SampleConquests()
	if err := sandbox.Load(t.Context(), string(s.cfg.AristotleAdminURL), conquests); err != nil {
		t.Fatal(err)
	}
	var tasks []labelstudio.NewTask
	for i, c := range conquests {
		meta := map[string]any{}
		if c.Result == "DEFEAT" && i < 12 { // starred there, and decided otherwise here: held
			meta["gold_star"] = true
		}
		tasks = append(tasks, labelstudio.NewTask{Data: map[string]any{"conquest_id": c.ID, "prompt": c.Prompt, "response": c.Response}, Meta: meta})
	}
	ids, err := s.studio.ImportTasks(t.Context(), s.projects[0], tasks)
	if err != nil {
		t.Fatal(err)
	}
	region, err := labelstudio.TextRegion("response", "model_response", "Finding. She handles duplicate refunds well.\n\nRecommendation. Hire at senior level.")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.studio.CreateAnnotation(t.Context(), ids[0], labelstudio.AnnotationEdit{Result: append(verdictRegions(t, true), region)}); err != nil {
		t.Fatal(err)
	}
	p := s.start("RECONCILER_LOCAL_USER=maya.okafor@northwind.example")
	s.hook(p)
	s.zero(`SELECT count(*), 'not met yet: task ' || min(t) FROM unnest($1::bigint[]) AS t LEFT JOIN reconciler.edge e ON e.task_id = t WHERE e.s IS NULL AND e.held IS NULL`, ids)
	s.wantRest()
	page := b.tab(t, "http://"+p.curation)
	page.dark(false)
	first := conquests[0].ID
	for _, look := range []struct{ name, path, ready string }{
		{"list", "/", `document.querySelectorAll(".list tbody tr").length === 40`},
		{"list-filtered", "/?result=VICTORY&domain=software_engineering&sort=title", `document.querySelector("details[open]")`},
		{"list-empty", "/?q=nothing+like+this", `document.querySelector(".empty")`},
		{"conquest", "/conquests/" + first, `document.querySelector(".changes")`},
		{"edit", taskPath(ids[1]), `document.querySelector("textarea")`},
		{"held", "/held", `document.querySelector(".case")`},
		{"export", "/export", `document.querySelector("h1")`},
		{"status", "/status", `document.querySelector(".tile")`},
		{"help", "/help", `document.querySelector("kbd")`},
		{"not-found", "/nothing", `document.querySelector(".card") && document.querySelector(".main-nav")`},
	} {
		page.open(look.path)
		page.until(look.ready)
		page.accessible(look.name)
		if *screenshots != "" {
			page.do(chromedp.EmulateViewport(1280, 800))
			page.shot(filepath.Join(*screenshots, look.name+".png"))
			page.dark(true)
			page.shot(filepath.Join(*screenshots, look.name+"-dark.png"))
			page.do(chromedp.EmulateViewport(390, 800))
			page.shot(filepath.Join(*screenshots, look.name+"-phone.png"))
			page.do(chromedp.EmulateViewport(1280, 800))
			page.dark(false)
		}
	}
}

func taskPath(task int64) string { return fmt.Sprintf("/tasks/%d/edit", task) }

// TestCuration does on the page what people do, with the stand-in; TestRealStreet does the same with the real Label Studio.
func TestCuration(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	_, side := standIn(t)
	curationFlows(newStreet(t, sandbox.Schema{Texts: true}, side), b)
}
