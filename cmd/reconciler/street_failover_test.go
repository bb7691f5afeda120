package main

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
)

// TestFailover: Aristotle's PostgreSQL fails over to its standby, whose address the URLs name as well. What was committed right before, and the
// daemon had not read, is not lost, whether the slot was kept or is gone; nobody has to do anything.
func TestFailover(t *testing.T) {
	t.Parallel()
	t.Run("slot gone", func(t *testing.T) {
		t.Parallel()
		f := newFailover(t, "", nil, nil)
		f.street.start().kill() // makes slot and passes of a first start
		if e := f.doctor(nil); len(e.findings()) > 0 || !strings.Contains(e.text, "has no copy of slot") {
			t.Error(e.text)
		}
		f.over(1)
	})
	t.Run("slot kept", func(t *testing.T) {
		t.Parallel()
		f := newFailover(t, "17", map[string]string{"synchronized_standby_slots": "standby"},
			map[string]string{"primary_slot_name": "standby", "hot_standby_feedback": "on"})
		f.exec(`SELECT pg_create_logical_replication_slot($1, 'pgoutput', failover => true)`, databaseOf(t, f.cfg.AristotleDatabaseURL))
		if e := f.doctor(nil); e.status != 1 || !strings.Contains(e.text, "has no lasting copy of failover slot") {
			t.Error(e.text)
		}
		execAll(t, connect(t, DSN(f.standby.URL())), `ALTER SYSTEM SET sync_replication_slots = on`, `SELECT pg_reload_conf()`)
		f.over(0)
	})
}

// failover is a street whose PostgreSQL has a standby.
type failover struct {
	*street
	primary, standby *sandbox.Server
}

func newFailover(t *testing.T, version string, primary, standby map[string]string) *failover {
	t.Helper()
	f := &failover{}
	var cfg *Config
	f.primary, cfg = ownServer(t, sandbox.Options{Version: version, Settings: primary})
	if slot := standby["primary_slot_name"]; slot != "" {
		execAll(t, connect(t, DSN(f.primary.URL())), `SELECT pg_create_physical_replication_slot('`+slot+`')`)
	}
	if err := f.primary.Halt(); err != nil {
		t.Fatal(err)
	}
	f.standby = pgtest.Server(t, sandbox.Options{Version: version, Settings: standby, StandbyOf: f.primary})
	if err := f.primary.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, dsn := range []*DSN{&cfg.AristotleAdminURL, &cfg.AristotleDatabaseURL, &cfg.AristotleReplicationURL} {
		u, err := url.Parse(string(*dsn))
		if err != nil {
			t.Fatal(err)
		}
		u.Host += fmt.Sprintf(",127.0.0.1:%d", f.standby.Port())
		u.RawQuery += "&target_session_attrs=read-write"
		*dsn = DSN(u.String())
	}
	_, side := standIn(t)
	f.street = pave(t, cfg, side)
	f.env = append(f.env, "RECONCILER_DIFF_SCHEDULE=@every 1h")
	return f
}

// over fails over while the daemon holds its breath, and wants as many new slots, each with its full pass.
func (f *failover) over(slots float64) {
	tasks := map[string]int64{}
	for _, key := range []string{"before", "back", "between", "after"} {
		tasks[key] = f.pair(key, "DEFEAT")
	}
	f.setResult("VICTORY", "back")
	p := f.street.start()
	for _, task := range tasks {
		f.wantContact(task)
	}
	f.wantEqual()
	if slots == 0 { // the copy lasts once it was seen to move
		f.zero(`SELECT count(*), 'it is no failover slot any more' FROM pg_replication_slots WHERE database = current_database() AND NOT failover`)
		f.eventually(func() string {
			if e := f.doctor(nil); len(e.findings()) > 0 || !strings.Contains(e.text, "1 standbys") {
				return e.text
			}
			return ""
		})
	}
	made := p.metric(f.T, "reconciler_cdc_slots_made_total")
	said := strings.Count(p.out.String(), "making a new slot")
	var had int
	if err := f.db.QueryRow(f.Context(), `SELECT count(*) FROM reconciler.pass WHERE kind = 'full'`).Scan(&had); err != nil {
		f.Fatal(err)
	}

	f.signal(p, syscall.SIGSTOP)
	f.setResult("VICTORY", "before")
	f.setResult("NEUTRAL", "back")
	standby := connect(f.T, DSN(f.standby.URL()))
	var at string
	if err := f.db.QueryRow(f.Context(), `SELECT pg_current_wal_lsn()::text`).Scan(&at); err != nil {
		f.Fatal(err)
	}
	f.eventually(func() string {
		var replayed bool
		if err := standby.QueryRow(f.Context(), `SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn`, at).Scan(&replayed); err != nil || !replayed {
			return fmt.Sprintf("the standby has not got to %s: %v", at, err)
		}
		return ""
	})
	if err := f.primary.Crash(); err != nil {
		f.Fatal(err)
	}
	execAll(f.T, standby, `SELECT pg_promote()`)
	f.db.Reset()
	f.setResult("VICTORY", "between")
	f.signal(p, syscall.SIGCONT)

	f.wantReady(p)
	f.wantEach(tasks, map[string]bool{"before": true, "back": false, "between": true, "after": false})
	f.setResult("VICTORY", "after")
	f.wantEach(tasks, map[string]bool{"before": true, "back": false, "between": true, "after": true})
	f.wantEqual()
	if n := p.metric(f.T, "reconciler_cdc_slots_made_total") - made; n != slots {
		f.Errorf("%v slots made, want %v", n, slots)
	}
	if n := strings.Count(p.out.String(), "making a new slot") - said; float64(n) != slots {
		f.Errorf("%d lines of it, want %v", n, slots)
	}
	dead := fmt.Sprintf("127.0.0.1:%d cannot be reached: ", f.primary.Port())
	if e := f.doctor(nil); e.status != 1 || len(e.findings()) != 1 || !strings.Contains(e.findings()[0], dead) {
		f.Errorf("doctor does not name the dead host alone:\n%s", e.text)
	}
	f.zero(`SELECT abs(count(*) - $1), 'full passes: ' || count(*) FROM reconciler.pass WHERE kind = 'full'`, had+int(slots))
}

func (f *failover) signal(p *process, sig syscall.Signal) {
	f.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		f.Fatal(err)
	}
}

// TestDeadHostFirst: of two hosts in the URLs the first is a machine that has lost its power, as after a failover: nothing answers, and nothing refuses
// either. The daemon starts, and doctor names that host.
func TestDeadHostFirst(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	for name, dsn := range map[string]*DSN{"ARISTOTLE_DATABASE_URL": &s.cfg.AristotleDatabaseURL, "ARISTOTLE_REPLICATION_URL": &s.cfg.AristotleReplicationURL} {
		*dsn = DSN(strings.Replace(string(*dsn), "@", "@"+silent.Addr().String()+",", 1))
		s.env = append(s.env, name+"="+string(*dsn))
	}
	if e := s.doctor(nil); e.status != 1 || len(e.findings()) != 1 || !strings.Contains(e.findings()[0], silent.Addr().String()+" cannot be reached: ") {
		t.Error(e.text)
	}
	tasks := map[string]int64{"row": s.pair("row", "DEFEAT"), "note": s.pair("note", "NEUTRAL")}
	p := s.start()
	s.wantContact(tasks["row"], tasks["note"])
	s.setResult("VICTORY", "row")
	s.annotate(tasks["note"], true)
	s.wantEach(tasks, map[string]bool{"row": true, "note": true})
	s.wantReady(p)
}
