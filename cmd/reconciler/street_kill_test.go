package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
)

// shortDeadline is the shortest whole number of seconds that leaves the daemon time to send a PATCH at all.
const shortDeadline = "LABEL_STUDIO_DEADLINE=17s"

// TestKilled kills the daemon with SIGKILL between any two steps of its first turn over what people did on one side, lets people on both sides
// go on while it is dead, and starts it again. Nobody tells it what happened meanwhile: there is no webhook.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"S1", "S2", "S3", "S4", "S5"} {
		for _, from := range []string{"rows", "tasks"} {
			t.Run(step+"/"+from, func(t *testing.T) {
				t.Parallel()
				ls, side := standIn(t)
				testKilled(newStreet(t, sandbox.Schema{}, side), ls, step, from == "rows")
			})
		}
	}
}

func testKilled(s *street, ls *studio.StandIn, step string, fromRows bool) {
	s.env = append(s.env, shortDeadline)
	sent := countPatches(ls)
	tasks := map[string]int64{}
	for _, key := range []string{"a_toggled", "row", "row_back", "later_row", "note", "note_back", "meta", "meta_back", "later_note"} {
		tasks[key] = s.pair(key, "NEUTRAL")
	}
	p := s.start()
	s.wantContact(slices.Collect(maps.Values(tasks))...)
	if status := p.stop(); status != 0 {
		s.Errorf("exit status %d after SIGTERM, want 0", status)
	}

	var note, back int64
	if fromRows {
		s.setResult("VICTORY", "a_toggled", "row", "row_back")
	} else {
		note, back = s.annotate(tasks["note"], true), s.annotate(tasks["note_back"], true)
		s.setMeta(tasks["meta"], object{"gold_star": true})
		s.setMeta(tasks["meta_back"], object{"gold_star": true})
	}
	s.dies(s.spawn(dieAt + "=" + step))

	// A person goes by what the task shows, whoever put it there.
	want := map[string]bool{"later_row": true, "later_note": true, "row": fromRows, "note": !fromRows, "meta": !fromRows}
	if fromRows {
		want["a_toggled"] = !s.meta(tasks["a_toggled"]).gold()
		s.setMeta(tasks["a_toggled"], object{"gold_star": want["a_toggled"]})
		s.setResult("DEFEAT", "row_back")
	} else {
		s.reannotate(back, false)
		s.setMeta(tasks["meta_back"], object{"gold_star": false})
	}
	s.setResult("VICTORY", "later_row")
	s.annotate(tasks["later_note"], true)

	s.start()
	s.wantEach(tasks, want)
	s.wantRest()
	if fromRows {
		s.setResult("NEUTRAL", "row")
		want["row"] = false
	} else {
		s.reannotate(note, false)
		want["note"] = false
	}
	s.setResult("VICTORY", "row_back")
	s.setMeta(tasks["meta_back"], object{"gold_star": true})
	want["row_back"], want["meta_back"] = true, true
	s.wantEach(tasks, want)
	s.wantEqual()
	// Three edits of a task's star at most, and one crash.
	for key, task := range tasks {
		if n := sent(task); n > 4 {
			s.Errorf("%s: %d PATCHes", key, n)
		}
	}
}

// dies waits until a daemon has killed itself.
func (s *street) dies(p *process) {
	s.Helper()
	select {
	case <-p.gone:
	case <-time.After(patience):
		s.Fatal("the daemon did not come to the step")
	}
	if w, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !w.Signaled() || w.Signal() != syscall.SIGKILL {
		s.Fatalf("the daemon ended by itself: %v\n%s", p.cmd.ProcessState, &p.out)
	}
}

// wantEach waits until each conquest is VICTORY or not, and its task agrees.
func (s *street) wantEach(tasks map[string]int64, gold map[string]bool) {
	s.Helper()
	for key, task := range tasks {
		s.zero(`SELECT count(*), min(concat(id, ' is ', result, ', want VICTORY: ', $2::bool)) FROM "Conquest" WHERE id = $1 AND (result::text = 'VICTORY') <> $2`,
			key, gold[key])
		s.wantStar(task, gold[key])
	}
}

// countPatches returns how many PATCHes of the daemon took effect on a task. They are told from other people's by their attempts, which are never
// used twice.
func countPatches(ls *studio.StandIn) func(task int64) int {
	var mu sync.Mutex
	attempts := map[int64]map[string]bool{}
	ls.OnPatch(func(task int64, meta json.RawMessage) {
		var m struct {
			Reconciler struct{ Attempt string } `json:"reconciler"`
		}
		if json.Unmarshal(meta, &m) != nil || m.Reconciler.Attempt == "" {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if attempts[task] == nil {
			attempts[task] = map[string]bool{}
		}
		attempts[task][m.Reconciler.Attempt] = true
	})
	return func(task int64) int {
		mu.Lock()
		defer mu.Unlock()
		return len(attempts[task])
	}
}

// TestPatchOfUnknownEnd lets the first PATCH go wrong in every way that there is. The task gets its star, by one more PATCH at most, and only
// after the first one can take effect no more.
func TestPatchOfUnknownEnd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault   studio.Fault
		patches int // that take effect
	}{
		"done, connection lost": {studio.Fault{Kind: studio.FaultLost}, 1},
		"done, answered 500":    {studio.Fault{Kind: studio.FaultLost, Status: http.StatusInternalServerError}, 1},
		"not done, 502":         {studio.Fault{Kind: studio.FaultStatus, Status: http.StatusBadGateway}, 1},
		"not done, 400":         {studio.Fault{Kind: studio.FaultStatus, Status: http.StatusBadRequest}, 1},
		"not done, cut":         {studio.Fault{Kind: studio.FaultCut}, 1},
		"not done, no answer":   {studio.Fault{Kind: studio.FaultHang}, 1},
		"done late":             {studio.Fault{Kind: studio.FaultLate, Delay: 11 * time.Second}, 1}, // the client waits 10 s
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ls, side := standIn(t)
			s := newStreet(t, sandbox.Schema{}, side)
			s.env = append(s.env, shortDeadline)
			tasks := map[string]int64{"row": s.pair("row", "PENDING"), "note": s.pair("note", "DEFEAT")}
			sent := countPatches(ls)
			var first sync.Once
			s.hook(s.start())
			s.wantContact(tasks["row"], tasks["note"])
			ls.Faults(func(r *http.Request) (f studio.Fault) {
				if r.Method == http.MethodPatch && strings.HasPrefix(r.URL.Path, "/api/tasks/") {
					first.Do(func() { f = c.fault })
				}
				return f
			})
			s.setResult("VICTORY", "row")
			s.annotate(tasks["note"], true)
			s.wantEach(tasks, map[string]bool{"row": true, "note": true})
			s.wantEqual()
			for key, task := range tasks {
				if n := sent(task); n != c.patches {
					s.Errorf("%s: %d PATCHes took effect, want %d", key, n, c.patches)
				}
			}
		})
	}
}
