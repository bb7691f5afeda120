package main

import (
	"strings"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle/sandbox"
)

// takenOver is how long the other may take to lead: seconds, on a busy machine too.
const takenOver = 30 * time.Second

// Of two daemons one leads. The other takes webhooks, serves pages and their clicks, and takes over when the first is killed.
func TestTwoDaemons(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	s.env = append(s.env, shortDeadline, "RECONCILER_DIFF_SCHEDULE=@every 1h") // webhooks and the stream alone
	tasks := map[string]int64{}
	for _, key := range []string{"first", "second", "row", "click", "row_meanwhile", "note_meanwhile"} {
		tasks[key] = s.pair(key, "DEFEAT")
	}
	sent := countPatches(ls)
	first := s.start()
	s.wantLog(first, "msg=leading")
	second := s.start("RECONCILER_LOCAL_USER=ana@example.com")
	s.wantContact(tasks["first"], tasks["second"], tasks["row"], tasks["click"])
	s.wantReady(second)
	if _, body := second.get(t, "/readyz"); !strings.Contains(body, `"leader":false`) {
		t.Errorf("the second daemon says %s", body)
	}

	const accepted = `reconciler_webhooks_total{action="ANNOTATION_CREATED",outcome="accepted"}`
	s.hook(second) // it alone: what it takes the first one turns
	s.annotate(tasks["first"], true)
	s.setResult("VICTORY", "row")
	if status, _, text := s.curate(second, "GET", "/conquests/click", ""); status != 200 || !strings.Contains(text, "DEFEAT") {
		t.Errorf("the page of the second daemon: %d %s", status, text)
	}
	if status, _, text := s.curate(second, "POST", starCall(tasks["click"]), `{"is_gold_star": true}`); status != 200 {
		t.Errorf("a click on the second daemon: %d %s", status, text)
	}
	s.wantEach(tasks, map[string]bool{"first": true, "row": true, "click": true})
	if n := second.metric(t, accepted); n != 1 {
		t.Errorf("the second daemon took %v webhooks, want 1", n)
	}
	s.hook(first) // both are told of everything from now on
	s.annotate(tasks["second"], true)
	s.wantEach(tasks, map[string]bool{"first": true, "row": true, "click": true, "second": true})
	if n := first.metric(t, accepted); n != 1 {
		t.Errorf("the first daemon took %v webhooks, want 1", n)
	}
	s.wantRest()
	for _, pass := range []string{"full", "incremental"} {
		series := `reconciler_diff_duration_seconds_count{pass="` + pass + `"}`
		if ran, too := first.metric(t, series), second.metric(t, series); ran == 0 || too > 0 {
			t.Errorf("%v passes of the first daemon, %v of the second: %s", ran, too, pass)
		}
	}
	if strings.Contains(second.out.String(), "msg=leading") {
		t.Error("the second daemon leads while the first one does")
	}

	first.kill()
	died := time.Now()
	s.setResult("VICTORY", "row_meanwhile")
	s.annotate(tasks["note_meanwhile"], true)
	s.wantLog(second, "msg=leading")
	took := time.Since(died)
	t.Logf("the second daemon leads %v after the death of the first", took)
	if took > takenOver {
		t.Errorf("that is more than %v", takenOver)
	}
	s.wantEach(tasks, map[string]bool{"first": true, "row": true, "click": true, "second": true, "row_meanwhile": true, "note_meanwhile": true})
	s.wantEqual()
	for key, task := range tasks {
		if n := sent(task); n != 1 {
			t.Errorf("%s: %d PATCHes, want 1", key, n)
		}
	}
	if status := second.stop(); status != 0 {
		t.Errorf("exit status %d after SIGTERM, want 0", status)
	}
}
