package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
)

// ownServer prepares a database on a server that this test may break.
func ownServer(t *testing.T, o sandbox.Options) (*sandbox.Server, *Config) {
	t.Helper()
	server := pgtest.Server(t, o)
	admin, err := server.CreateDatabase(t.Context(), sandbox.Schema{})
	if err != nil {
		t.Fatal(err)
	}
	return server, &Config{Schema: "reconciler", Publication: "reconciler", AristotleAdminURL: DSN(admin),
		AristotleDatabaseURL: as(t, admin, "ordinary"), AristotleReplicationURL: as(t, admin, "stream")}
}

// Aristotle's PostgreSQL goes away in the middle of changes, in an orderly way or not, and people go on in Label Studio.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*sandbox.Server) error{"halted": (*sandbox.Server).Halt, "crashed": (*sandbox.Server).Crash} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, cfg := ownServer(t, sandbox.Options{})
			ls, side := standIn(t)
			s := pave(t, cfg, side)
			s.env = append(s.env, shortDeadline) // a PATCH that was settled nowhere is waited for
			sent := countPatches(ls)
			tasks := map[string]int64{}
			want := map[string]bool{"row_before": true, "note_before": true, "note_meanwhile": true, "meta_meanwhile": true, "row_after": true, "note_after": true}
			for key := range want {
				tasks[key] = s.pair(key, "DEFEAT")
			}
			p := s.start()
			s.hook(p)
			s.wantContact(slices.Collect(maps.Values(tasks))...)

			s.setResult("VICTORY", "row_before")
			s.annotate(tasks["note_before"], true)
			if err := away(server); err != nil {
				t.Fatal(err)
			}
			s.annotate(tasks["note_meanwhile"], true) // the webhook is answered 503, and not sent again
			s.setMeta(tasks["meta_meanwhile"], object{"gold_star": true})
			start := time.Now()
			status, answer := s.deliver(p, delivery{body: strings.NewReader(fmt.Sprintf(
				`{"action": "TASKS_CREATED", "tasks": [{"id": %d, "project": %d, "data": {"conquest_id": "note_meanwhile"}}]}`, tasks["note_meanwhile"], s.projects[0]))})
			if took := time.Since(start); status != 503 || took > impatience {
				t.Errorf("a delivery without a database: %d %s after %s", status, answer, took)
			}
			if n := p.metric(t, `reconciler_webhooks_total{action="TASKS_CREATED",outcome="failed"}`); n != 1 {
				t.Errorf("%v failed deliveries are counted, want 1", n)
			}
			s.wantUnready(p, "database")
			for range 6 {
				s.call(p, "", callFor("row_before"))
				s.curate(p, "GET", "/", "")
			}
			for _, line := range []string{`msg="sync call"`, "msg=curation"} {
				if n := strings.Count(p.out.String(), line); n < 1 || n > 3 { // more than once where a connection was still there
					t.Errorf("%s is told %d times:\n%s", line, n, &p.out)
				}
			}
			if err := server.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.db.Reset()
			s.setResult("VICTORY", "row_after")
			s.annotate(tasks["note_after"], true)

			s.wantEach(tasks, want)
			s.wantEqual()
			s.wantReady(p)
			s.wantConfirmed()
			s.call(p, "", callFor("row_before"))
			s.curate(p, "GET", "/", "")
			s.wantLog(p, `msg="works again: sync call"`)
			s.wantLog(p, `msg="works again: curation"`)
			for key, task := range tasks {
				if n := sent(task); n > 2 {
					t.Errorf("%s: %d PATCHes", key, n)
				}
			}
		})
	}
}

// The stream tells of a commit as soon as it is in the WAL; other sessions see it later, and much later where it waits for a standby. What is read
// too early must not pass for what is.
func TestCommitThatIsNotVisibleYet(t *testing.T) {
	t.Parallel()
	server, cfg := ownServer(t, sandbox.Options{})
	_, side := standIn(t)
	s := pave(t, cfg, side)
	tasks := map[string]int64{"row": s.pair("row", "DEFEAT")}
	// Our own commits wait for nobody.
	s.exec(`ALTER ROLE ordinary SET synchronous_commit = local`)
	s.exec(`ALTER ROLE stream SET synchronous_commit = local`)
	s.env = append(s.env, "RECONCILER_DIFF_SCHEDULE=@every 1h")
	p := s.start()
	s.wantContact(tasks["row"])

	super, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer super.Close(cleanContext(t))
	standby := func(names string) {
		execAll(t, super, `SET synchronous_commit = local`, `ALTER SYSTEM SET synchronous_standby_names = '`+names+`'`, `SELECT pg_reload_conf()`)
	}
	standby("nobody")
	// Commits wait from when the checkpointer has heard of it, which no session tells: until then these do not.
	var heard atomic.Bool
	var probes sync.WaitGroup
	probes.Go(func() {
		for !heard.Load() && t.Context().Err() == nil {
			_, _ = s.db.Exec(t.Context(), `SELECT pg_logical_emit_message(true, 'probe', '')`) // where it fails nothing comes to wait
		}
	})
	s.zero(`SELECT count(*), 'no standby is waited for' FROM (SELECT) one WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')`)
	heard.Store(true)
	var before time.Time
	if err := s.db.QueryRow(t.Context(), `SELECT clock_timestamp()`).Scan(&before); err != nil {
		t.Fatal(err)
	}
	committed := make(chan error, 1)
	go func() {
		_, err := s.db.Exec(t.Context(), `UPDATE "Conquest" SET result = 'VICTORY' WHERE id = 'row'`)
		committed <- err
	}()
	s.zero(`SELECT count(*), 'the commit does not wait yet' FROM (SELECT) one WHERE NOT EXISTS (
		SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'UPDATE%')`)
	s.zero(`SELECT count(*), 'the daemon has not looked at the row' FROM (SELECT) one WHERE NOT EXISTS (
		SELECT FROM pg_stat_activity WHERE usename = 'ordinary' AND query LIKE '-- Rows of "Conquest" that changed%' AND query_start > $1)`, before)
	standby("")
	probes.Wait()
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	s.wantEach(tasks, map[string]bool{"row": true})
	s.wantEqual()
	if strings.Contains(p.out.String(), "level=ERROR") {
		t.Errorf("the daemon said:\n%s", &p.out)
	}
}
