package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
)

// While Label Studio answers the daemon nothing, people go on, on both sides.
func TestStudioAway(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	sent := countPatches(ls)
	tasks, want := map[string]int64{}, map[string]bool{"row": true, "note": true, "meta": true}
	for _, key := range []string{"row", "row_back", "note", "note_back", "meta"} {
		tasks[key] = s.pair(key, "NEUTRAL")
	}
	for i := range 30 {
		key := fmt.Sprint("one_of_many_", i)
		tasks[key], want[key] = s.pair(key, "PENDING"), true
	}
	p := s.start()
	s.hook(p)
	s.wantContact(slices.Collect(maps.Values(tasks))...)

	var asked atomic.Int64
	away := time.Now()
	ls.Faults(func(r *http.Request) studio.Fault {
		if r.Header.Get("Authorization") != "Token "+side.token {
			return studio.Fault{} // the annotator's
		}
		asked.Add(1)
		return studio.Fault{Kind: studio.FaultCut}
	})
	s.setResult("VICTORY", "row", "row_back")
	s.annotate(tasks["note"], true)
	back := s.annotate(tasks["note_back"], true)
	s.setMeta(tasks["meta"], object{"gold_star": true})
	s.wantLog(p, "Label Studio is away")
	s.wantUnready(p, "Label Studio is away")
	s.exec(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id LIKE 'one_of_many_%'`)
	s.wantConfirmed()
	s.setResult("NEUTRAL", "row_back")
	s.reannotate(back, false)
	s.wantConfirmed()
	s.exec(`UPDATE "Conquest" SET title = 'Other words'`)
	s.wantConfirmed()
	if n := asked.Load(); n > 60+3*int64(time.Since(away).Seconds()) { // a probe, and a pass a second
		s.Errorf("Label Studio was asked %d times while it was away", n)
	}

	ls.Faults(nil)
	s.wantLog(p, `msg="works again: ask Label Studio: all keys wait"`)
	s.wantEach(tasks, want)
	s.wantEqual()
	s.wantReady(p)
	for key, task := range tasks {
		if n := sent(task); n > 2 {
			s.Errorf("%s: %d PATCHes", key, n)
		}
	}
}

// testRealOutage kills the real Label Studio while changes are under way on both sides.
func testRealOutage(s *street, real *studio.Real, b *browser) {
	tasks, want := map[string]int64{}, map[string]bool{"before": true, "note": true, "row": true, "meta": true}
	for _, key := range []string{"before", "note", "row", "row_back", "meta"} {
		tasks[key] = s.pair(key, "NEUTRAL")
	}
	s.env = append(s.env, shortDeadline, "RECONCILER_LOCAL_USER="+s.side.annotator)
	p := s.start()
	s.hook(p)
	s.wantContact(slices.Collect(maps.Values(tasks))...)
	person := s.writesBefore(b.tab(s.T, "http://"+p.curation))
	s.setResult("VICTORY", "before")
	s.annotate(tasks["note"], true)
	if err := real.Kill(); err != nil {
		s.Fatal(err)
	}
	s.setResult("VICTORY", "row", "row_back")
	person.goesOn(b.tab(s.T, "http://"+p.curation))
	// What somebody did in the last moment, and was announced to nobody.
	execAll(s.T, connect(s.T, DSN(real.DatabaseURL())),
		fmt.Sprintf(`UPDATE task SET meta = meta || '{"gold_star": true}', updated_at = now() WHERE id = %d`, tasks["meta"]))
	s.wantUnready(p, "Label Studio is away")
	s.wantConfirmed()
	s.setResult("NEUTRAL", "row_back")
	s.wantConfirmed()
	if err := real.Restart(s.Context()); err != nil {
		s.Fatal(err)
	}
	s.wantEach(tasks, want)
	person.findsAll()
	s.wantEqual()
	s.wantReady(p)
}
