package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler"
)

// diff runs `reconciler diff --json` and returns the report, its keys by class.
func (s *street) diff(status int, args ...string) reconciler.Report {
	s.Helper()
	out, errs, got := s.command(append([]string{"diff", "--json"}, args...)...)
	if got != status {
		s.Errorf("exit status %d, want %d: %s%s", got, status, out, errs)
	}
	var r reconciler.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil && status != 2 {
		s.Fatalf("%v in %s%s", err, out, errs)
	}
	return r
}

func classes(r reconciler.Report) map[string]string {
	got := map[string]string{}
	for _, k := range r.Keys {
		got[k.Key] = k.Class
	}
	return got
}

// TestDiff: the command looks before there is anything of ours, finds what differs, has it repaired, and finds nothing then.
func TestDiff(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	s.pair("equal", "PENDING")
	s.pair("bare", "VICTORY")
	late := s.pair("late", "PENDING")
	s.conquest("starred", "PENDING")
	starred := s.task("starred", s.projects[0], map[string]any{"gold_star": true})
	s.conquest("both", "DEFEAT")
	s.task("both", s.projects[1], map[string]any{"gold_star": true})
	s.conquest("lone", "NEUTRAL")
	s.task("nobody", s.projects[0], nil)

	r := s.diff(1)
	if diff := cmp.Diff(map[string]string{"bare": "star_missing", "starred": "victory_missing", "both": "held"}, classes(r)); diff != "" {
		t.Errorf("before there is anything of ours (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]reconciler.Noted{{Key: "lone", What: "conquest_without_task"}, {Key: "nobody", What: "task_without_conquest"}}, r.Noted); diff != "" {
		t.Errorf("noted (-want +got):\n%s", diff)
	}
	s.zero(`SELECT count(*), 'something was written: ' || min(relname) FROM pg_class WHERE relnamespace = 'reconciler'::regnamespace`)

	unwritten := s.unwritten(ls)
	socket, heard := manager(t)
	dry := s.spawn("RECONCILER_DRY_RUN=true", "NOTIFY_SOCKET="+socket)
	if got := heard(); got != "READY=1" {
		t.Errorf("the service manager heard %q of a dry run", got)
	}
	s.wantLog(dry, "both sides were compared")
	s.wantLog(dry, `msg="would act" key=starred class=victory_missing`)
	s.setMeta(late, object{"gold_star": true})
	s.wantLog(dry, `msg="would act" key=late class=victory_missing`) // by a look at what changed
	_, after, _ := strings.Cut(dry.out.String(), " metrics=")
	dry.metrics, _, _ = strings.Cut(after, "\n")
	s.eventually(func() string {
		_, ready := dry.get(t, "/readyz")
		_, told := dry.get(t, "/metrics")
		if !strings.Contains(ready, `{"leader":false,"ready":true,"reasons":[],`) || !strings.Contains(told, "reconciler_database_up 1") || !strings.Contains(told, "reconciler_label_studio_up 1") {
			return ready
		}
		return ""
	})
	ls.Faults(func(*http.Request) studio.Fault { return studio.Fault{Kind: studio.FaultCut} })
	s.eventually(func() string {
		if _, text := dry.get(t, "/readyz"); strings.Contains(text, `"ready":true`) {
			return text
		}
		return ""
	})
	passes := func() float64 { return dry.metric(t, `reconciler_diff_duration_seconds_count{pass="incremental"}`) }
	until := passes() + 4
	s.eventually(func() string {
		if dry.get(t, "/readyz"); passes() < until {
			return "four passes have not been round"
		}
		return ""
	})
	ls.Faults(nil)
	s.wantLog(dry, `msg="works again: pass"`)
	if n := strings.Count(dry.out.String(), "msg=pass "); n > 3 {
		t.Errorf("that a pass fails is told %d times:\n%s", n, &dry.out)
	}
	if status := dry.stop(); status != 0 {
		t.Errorf("a dry run ends with status %d", status)
	}
	unwritten()
	s.zero(`SELECT count(*), 'something was written: ' || min(relname) FROM pg_class WHERE relnamespace = 'reconciler'::regnamespace`)
	s.zero(`SELECT count(*), 'a slot was made' FROM pg_replication_slots WHERE database = current_database()`)

	p := s.start()
	s.wantResult("starred", "VICTORY")
	s.wantHeld(1)
	if diff := cmp.Diff(map[string]string{"both": "held"}, classes(s.diff(1))); diff != "" {
		t.Errorf("after the first pass (-want +got):\n%s", diff)
	}
	s.setResult("NEUTRAL", "both")
	if _, errs, status := s.command("held", "settle", "both", "not-victory"); status != 0 {
		t.Fatal(errs)
	}
	s.exec(`DELETE FROM "Conquest" WHERE id = 'lone'`)
	s.wantEqual()
	s.diff(0)
	p.kill()

	s.setMeta(starred, object{"gold_star": false})
	r = s.diff(1)
	if len(r.Keys) != 1 || r.Keys[0].Key != "starred" || r.Keys[0].Class != "star_missing" || r.Keys[0].Decision != "the row becomes PENDING" ||
		*r.Keys[0].Row.Result != "VICTORY" || r.Keys[0].Tasks[0].Star || r.Plan == "" || r.Brake != "" {
		t.Errorf("%+v", r)
	}
	if again := s.diff(1, "--key", "starred"); again.Plan != r.Plan {
		t.Errorf("plan %s for the same, want %s", again.Plan, r.Plan)
	}
	s.diff(0, "--key", "bare")
	unwritten = s.unwritten(ls)
	dry = s.spawn("RECONCILER_DRY_RUN=true")
	s.wantLog(dry, `msg="would act" key=starred class=star_missing`)
	dry.stop()
	unwritten()
	s.zero(`SELECT count(*), 'a look made it dirty: ' || min(key) FROM reconciler.queue WHERE want_gen > done_gen`)
	out, errs, status := s.command("diff", "--apply")
	if status != 1 || !strings.Contains(errs, "1 key was made dirty") || !strings.Contains(out, "1 star_missing") {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
	s.start("RECONCILER_DIFF_SCHEDULE=@every 1h")
	s.wantResult("starred", "PENDING")
	s.wantEqual()
	s.diff(0)

	ls.RevokeToken(1)
	s.diff(2)
	s.env = append(s.env, "ARISTOTLE_DATABASE_URL="+wrongPassword(t, s.cfg.AristotleDatabaseURL))
	s.diff(2)
}

// unwritten returns what checks that since then the daemon has sent Label Studio no request but to read, and that all tables,
// Aristotle's and ours, are as they were.
func (s *street) unwritten(ls *studio.StandIn) (check func()) {
	s.Helper()
	tables := func() (hash string) {
		s.Helper()
		const sql = `SELECT md5(schema_to_xml('public', true, false, '')::text || schema_to_xml('reconciler', true, false, '')::text)`
		if err := s.db.QueryRow(s.Context(), sql).Scan(&hash); err != nil {
			s.Fatal(err)
		}
		return hash
	}
	before := tables()
	ls.Faults(func(q *http.Request) studio.Fault {
		if q.Method != http.MethodGet && strings.HasSuffix(q.Header.Get("Authorization"), s.side.token) {
			s.Errorf("the daemon sent %s %s", q.Method, q.URL.Path)
		}
		return studio.Fault{}
	})
	return func() {
		s.Helper()
		ls.Faults(nil)
		if tables() != before {
			s.Error("something was written to the database")
		}
	}
}

// TestDefaultSchedule: a star that is set through Label Studio's API, which announces it to nobody, is a VICTORY after the next
// incremental pass, which comes within half a minute where nothing is set; without Label Studio's database.
func TestDefaultSchedule(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	s.env = slices.DeleteFunc(s.env, func(v string) bool { return strings.HasPrefix(v, "RECONCILER_DIFF_SCHEDULE=") })
	task := s.pair("starred", "PENDING")
	p := s.start()
	s.wantContact(task)
	s.wantLog(p, "msg=streaming") // the new slot has asked for a full pass, which would find it
	s.wantPassed()
	const passes = `reconciler_diff_duration_seconds_count{pass="incremental"}`
	before := p.metric(t, passes)
	s.setMeta(task, object{"gold_star": true})
	s.wantResult("starred", "VICTORY")
	s.eventually(func() string { // a pass is counted when it ends, which may be after what it found was settled
		if p.metric(t, passes) == before {
			return "no pass has ended"
		}
		return ""
	})
	if n := p.metric(t, passes) - before; n > 3 { // one may have been under way, and the new slot asks for one too
		t.Errorf("it took %v passes", n)
	}
	l, err := try(t, []string{"run"}, s.env, "")
	if err != nil {
		t.Fatal(err)
	}
	if now := time.Now(); l.config.DiffSchedule.Next(now).Sub(now) > 30*time.Second || l.config.LabelStudioDatabaseURL != "" {
		t.Errorf("settings %v, %q", l.config.DiffSchedule, l.config.LabelStudioDatabaseURL)
	}
}

// TestPassKilled kills the daemon with SIGKILL while its full pass reads, while it compares, and before it marks. The next one goes on
// with that pass and does not begin another: no task that was read is read again.
func TestPassKilled(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"page", "found", "planned"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			_, side := standIn(t)
			s := newStreet(t, sandbox.Schema{}, side)
			s.env = append(s.env, "RECONCILER_DIFF_PAGE=3", "RECONCILER_DIFF_SCHEDULE=@every 1h")
			tasks, want := map[string]int64{}, map[string]bool{}
			for i := range 10 {
				key := fmt.Sprint("c", i)
				tasks[key], want[key] = s.pair(key, "VICTORY"), true
			}
			s.dies(s.spawn(diePassAt + "=" + at))
			var read int
			if err := s.db.QueryRow(t.Context(), `SELECT max(tasks) FROM reconciler.pass`).Scan(&read); err != nil || read == 0 && at == "page" {
				t.Fatalf("%d tasks were read when it died, %v", read, err)
			}
			p := s.start()
			s.wantEach(tasks, want)
			s.wantEqual()
			// The slot asks for a pass as well: for the first, where it was there before it, and for one more where it was made anew.
			const first = ` FROM reconciler.pass WHERE kind = 'full' AND projects IS NULL AND (id = 1 OR why <> 'the replication slot is a new one')`
			s.zero(`SELECT abs(1 - count(*)), 'there is more than one pass over everything: ' || count(*)` + first)
			s.zero(`SELECT abs(10 - max(tasks)), 'the pass read tasks again: ' || max(tasks)` + first)
			if at == "page" && !strings.Contains(p.out.String(), `from="reading `+fmt.Sprint(s.projects[0])+`/`) {
				t.Errorf("it did not go on from where it was:\n%s", &p.out)
			}
		})
	}
}

// TestSlotGivenUp: a slot that keeps too much of the application's WAL is given up, and everything is compared instead. The same goes for one that
// somebody dropped while nobody listened: what changed meanwhile is not lost.
func TestSlotGivenUp(t *testing.T) {
	t.Parallel()
	server, cfg := ownServer(t, sandbox.Options{})
	_, side := standIn(t)
	s := pave(t, cfg, side)
	s.env = append(s.env, "RECONCILER_DIFF_SCHEDULE=@every 1h")
	tasks := map[string]int64{"row": s.pair("row", "DEFEAT"), "back": s.pair("back", "VICTORY"), "other": s.pair("other", "PENDING")}
	p := s.start()
	s.wantContact(tasks["row"], tasks["back"])
	s.wantEqual()
	p.kill()
	s.setResult("VICTORY", "row")
	s.setResult("NEUTRAL", "back")
	super := connect(t, DSN(server.URL()))
	for range 6 { // 16 MiB each
		execAll(t, super, `CREATE TABLE junk ()`, `DROP TABLE junk`, `SELECT pg_switch_wal()`)
	}
	p = s.start("RECONCILER_SLOT_WAL_LIMIT=64MiB")
	s.wantLog(p, "making a new slot")
	s.wantEach(tasks, map[string]bool{"row": true, "back": false, "other": false})
	s.wantEqual()
	if n := p.metric(t, "reconciler_cdc_slots_made_total"); n != 1 {
		t.Errorf("%v slots made", n)
	}
	if n := strings.Count(p.out.String(), "making a new slot"); n != 1 {
		t.Errorf("%d lines of it:\n%s", n, &p.out)
	}
	p.kill()
	s.setResult("DEFEAT", "row")
	execAll(t, super, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active`)
	s.start()
	s.wantEach(tasks, map[string]bool{"row": false, "back": false, "other": false})
	s.wantEqual()
}

// TestDiffReleases: a plan at which the daemon was braked is released by its hash, and by no other word. What came after it is another plan's.
func TestDiffReleases(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	s.env = append(s.env, "RECONCILER_DIFF_SCHEDULE=@every 1h", "RECONCILER_BRAKE_COUNT=0", "RECONCILER_BRAKE_SHARE=0")
	tasks := map[string]int64{}
	for _, key := range []string{"a", "b", "c", "late", "stays"} {
		tasks[key] = s.pair(key, "VICTORY")
	}
	p := s.start()
	s.wantEach(tasks, map[string]bool{"a": true, "b": true, "c": true, "late": true, "stays": true})
	s.wantEqual()
	p.kill()
	for _, key := range []string{"a", "b", "c"} {
		s.setMeta(tasks[key], object{"gold_star": false})
	}
	p = s.start()
	s.wantLog(p, "BRAKED: it would take the star from 3 keys")
	p.kill()
	braked := s.diff(1)
	if len(braked.Keys) != 3 || braked.Plan == "" || !strings.Contains(braked.Brake, "take the star from 3 keys") {
		t.Errorf("%+v", braked)
	}
	if e := s.doctor(nil); e.status != 1 || !strings.Contains(e.text, "is braked: it would take the star from 3 keys") || !strings.Contains(e.text, "reconciler diff --apply --plan "+braked.Plan) {
		t.Errorf("doctor: status %d:\n%s", e.status, e.text)
	}
	s.setMeta(tasks["late"], object{"gold_star": false})
	now := s.diff(1)
	if now.Plan == braked.Plan {
		t.Errorf("plan %s for another change too", now.Plan)
	}

	for _, c := range []struct {
		args   []string
		status int
		said   []string
	}{
		{[]string{"--plan", braked.Plan}, 2, []string{"--plan goes with --apply"}},
		{[]string{"--apply"}, 1, []string{"nothing was done: it would take the star from 4 keys", "reconciler diff --apply --plan " + now.Plan}},
		{[]string{"--apply", "--plan", "0123456789abcdef"}, 1, []string{"nothing was done: the plan is another one by now", "reconciler diff --apply --plan " + now.Plan}},
		{[]string{"--apply", "--plan", braked.Plan, "--key", "stays"}, 1, []string{"3 keys were made dirty"}},
		{[]string{"--apply", "--plan", braked.Plan, "--key", "stays"}, 0, nil}, // released already, and that key is equal
	} {
		s.zero(`SELECT count(*), 'it was made dirty: ' || min(key) FROM reconciler.queue WHERE want_gen > done_gen`)
		out, errs, status := s.command(append([]string{"diff"}, c.args...)...)
		if status != c.status {
			t.Errorf("%v: exit status %d, want %d: %s%s", c.args, status, c.status, out, errs)
		}
		for _, want := range c.said {
			if !strings.Contains(errs, want) {
				t.Errorf("%v: it does not say %q: %s", c.args, want, errs)
			}
		}
	}
	s.zero(`SELECT abs(count(*) - 1), 'passes released: ' || count(*) FROM reconciler.pass WHERE released_by = 'me@example.com' AND plan = $1`, braked.Plan)

	p = s.start()
	s.wantLog(p, "BRAKED: it would take the star from 1 keys")
	s.wantEach(map[string]int64{"a": tasks["a"], "b": tasks["b"], "c": tasks["c"]}, map[string]bool{})
	s.wantRest()
	if diff := cmp.Diff(map[string]string{"late": "star_missing"}, classes(s.diff(1))); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	out, errs, status := s.command("diff", "--apply", "--plan", s.diff(1).Plan)
	if status != 1 || !strings.Contains(errs, "1 key was made dirty") {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
	s.wantEach(tasks, map[string]bool{"stays": true})
	s.wantEqual()
	s.diff(0)
}
