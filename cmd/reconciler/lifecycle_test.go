package main

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
)

// write puts a text in a file's place at once: a daemon that reads the file just then sees no half of it, and no empty one.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// withoutEnv takes settings out of an environment.
func withoutEnv(env []string, names ...string) (rest []string) {
	for _, pair := range env {
		name, _, _ := strings.Cut(pair, "=")
		if !strings.Contains(strings.Join(names, " ")+" ", name+" ") {
			rest = append(rest, pair)
		}
	}
	return rest
}

// Every secret is replaced under a running daemon, which goes on by itself; SIGHUP changes the log's level; a slip in the file changes nothing.
func TestSecretsAreReread(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	user := ls.AddUser("daemon@example.com")
	s := newStreet(t, sandbox.Schema{}, side)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	write(t, file("key"), ls.UserToken(user))
	write(t, file("hook"), "first-hook-secret\n")
	write(t, file("db"), string(s.cfg.AristotleDatabaseURL))
	write(t, file("stream"), string(s.cfg.AristotleReplicationURL))
	write(t, file("r.yaml"), "log_level: error\n")
	s.env = append(withoutEnv(s.env, "LABEL_STUDIO_API_KEY", "RECONCILER_WEBHOOK_SECRET", "ARISTOTLE_DATABASE_URL", "ARISTOTLE_REPLICATION_URL", "RECONCILER_LOG_LEVEL"),
		"LABEL_STUDIO_API_KEY_FILE="+file("key"), "RECONCILER_WEBHOOK_SECRET_FILE="+file("hook"), "ARISTOTLE_DATABASE_URL_FILE="+file("db"),
		"ARISTOTLE_REPLICATION_URL_FILE="+file("stream"), "RECONCILER_CONFIG="+file("r.yaml"))
	tasks := []int64{s.pair("key", "DEFEAT"), s.pair("password", "DEFEAT")}
	write(t, file("r.yaml"), "log_level: info\n")
	p := s.start()
	s.wantContact(tasks...)

	another := ls.AddUser("daemon-too@example.com")
	ls.RevokeToken(user)
	write(t, file("key"), ls.UserToken(another))
	s.setResult("VICTORY", "key")
	s.wantStar(tasks[0], true)
	s.wantLog(p, "setting=LABEL_STUDIO_API_KEY")

	// A password changes on both sides, and every connection is lost.
	admin := connect(t, s.cfg.AristotleAdminURL)
	const next = "another-passw0rd"
	replace := func(name string, dsn DSN, password string) {
		u, err := url.Parse(string(dsn))
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(u.User.Username(), password)
		execAll(t, admin, `ALTER ROLE `+ident(roleOf(t, dsn))+` PASSWORD '`+password+`'`)
		write(t, file(name), u.String())
	}
	replace("db", s.cfg.AristotleDatabaseURL, next)
	replace("stream", s.cfg.AristotleReplicationURL, next)
	s.wantLog(p, "setting=ARISTOTLE_DATABASE_URL")
	s.wantLog(p, "setting=ARISTOTLE_REPLICATION_URL")
	for _, dsn := range []DSN{s.cfg.AristotleDatabaseURL, s.cfg.AristotleReplicationURL} {
		execAll(t, admin, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = `+literal(roleOf(t, dsn)))
	}
	s.setResult("VICTORY", "password")
	s.wantStar(tasks[1], true)

	write(t, file("hook"), "second-hook-secret\n")
	s.wantLog(p, "setting=RECONCILER_WEBHOOK_SECRET")
	for secret, want := range map[string]int{"second-hook-secret": 200, "first-hook-secret": 200, "third": 401} {
		if status, _ := s.deliver(p, delivery{secret: secret, body: strings.NewReader(`{"action": "PROJECT_UPDATED"}`)}); status != want {
			t.Errorf("a delivery with %q: %d, want %d", secret, status, want)
		}
	}

	s.wantLog(p, "msg=carried turn=")
	if strings.Contains(p.out.String(), "level=DEBUG") {
		t.Error("level info tells what is of level debug")
	}
	write(t, file("r.yaml"), "log_level: debug\naudit_retention: 30d\n")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.wantLog(p, "log_level=DEBUG need_restart=RECONCILER_AUDIT_RETENTION")
	role := roleOf(t, s.cfg.AristotleDatabaseURL)
	execAll(t, admin, `ALTER ROLE `+ident(role)+` NOLOGIN`, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = `+literal(role))
	s.eventually(func() string {
		if p.get(t, "/metrics"); !strings.Contains(p.out.String(), "level=DEBUG msg=measure") {
			return "a scrape without a database is not told at level debug"
		}
		return ""
	})
	execAll(t, admin, `ALTER ROLE `+ident(role)+` LOGIN`)
	write(t, file("key"), "two words")
	s.wantLog(p, "going on with those before")
	if said := p.out.String(); strings.Contains(said, next) || strings.Contains(said, "hook-secret") {
		t.Errorf("it tells a secret:\n%s", said)
	}
	if status := p.stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}

	// A dry run follows them as well.
	write(t, file("key"), ls.UserToken(another))
	dry := s.spawn("RECONCILER_DRY_RUN=true")
	s.wantLog(dry, "both sides were compared")
	ls.RevokeToken(another)
	write(t, file("key"), side.token)
	replace("db", s.cfg.AristotleDatabaseURL, "a-third-passw0rd")
	execAll(t, admin, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = `+literal(role))
	s.wantLog(dry, "setting=LABEL_STUDIO_API_KEY")
	s.wantLog(dry, "setting=ARISTOTLE_DATABASE_URL")
	s.setMeta(tasks[0], object{"gold_star": false})
	s.wantLog(dry, `msg="would act" key=key`)
	if err := dry.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.wantLog(dry, "settings were read again")
	if status := dry.stop(); status != 0 {
		t.Errorf("a dry run ends with status %d", status)
	}
}

// SIGTERM in the middle of a PATCH ends the daemon within seconds, after what is under way; a second signal ends it at once. Nothing is
// lost either way.
func TestSignals(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	s.env = append(s.env, shortDeadline)
	task := s.pair("row", "PENDING")
	p := s.start()
	s.wantContact(task)
	patching := make(chan struct{}, 10)
	ls.Faults(func(r *http.Request) studio.Fault {
		if r.Method != http.MethodPatch {
			return studio.Fault{}
		}
		patching <- struct{}{}
		return studio.Fault{Kind: studio.FaultHang}
	})
	s.setResult("VICTORY", "row")
	<-patching
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.eventually(func() string { // it has heard, and closes its doors
		conn, err := net.Dial("tcp", p.listen)
		if err != nil {
			return ""
		}
		conn.Close()
		return "it still listens"
	})
	if p.ended() {
		t.Error("the daemon did not wait for its PATCH")
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil { // no SIGINT, which what a script runs in the background ignores
		t.Fatal(err)
	}
	select {
	case <-p.gone:
	case <-time.After(patience):
		t.Fatal("a second signal does not end it")
	}
	if w, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !w.Signaled() || w.Signal() != syscall.SIGTERM {
		t.Errorf("it was not the second signal that ended it: %v", p.cmd.ProcessState)
	}
	ls.Faults(nil)
	p = s.start()
	s.wantStar(task, true)
	s.wantEqual()
	begin := time.Now()
	if status := p.stop(); status != 0 || time.Since(begin) > 30*time.Second { // "within seconds", on a busy machine too
		t.Errorf("status %d after %v", status, time.Since(begin))
	}
}

// A stop answers the calls that wait and cuts a download, and is a clean one.
func TestStopWhileAsked(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{Texts: true}, side)
	s.pair("row", "DEFEAT")
	s.exec(`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, is_gold_star, philosopher, domain)
		SELECT i, i, 'conquest_analysis', true, 'p', 'd' FROM generate_series(1, 100) i`)
	s.exec(`INSERT INTO conquest_prompt SELECT i, i, jsonb_build_object('prompt', repeat('p', 1 << 20)) FROM generate_series(1, 100) i`)
	s.exec(`INSERT INTO conquest_response SELECT i, i, '{"response": "r"}' FROM generate_series(1, 100) i`)
	p := s.start("RECONCILER_ICL_MEMORY=0")
	resp, err := http.Get("http://" + p.curation + "/export.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() // of whose 100 MiB nobody reads more than what is on the way

	ls.Faults(func(*http.Request) studio.Fault { return studio.Fault{Kind: studio.FaultStatus, Status: 503} })
	s.setResult("VICTORY", "row")
	statuses := make(chan int)
	go func() {
		defer close(statuses) // where the call fails, too
		body := callFor("row")
		body["result_notes"] = "of the call"
		status, _ := s.call(p, "", body)
		statuses <- status
	}()
	s.zero(`SELECT 1 - count(*), 'no call yet' FROM reconciler.queue WHERE notes = 'of the call'`)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := <-statuses; status != http.StatusAccepted {
		t.Errorf("the call was answered with %d", status)
	}
	<-p.gone
	if status := p.cmd.ProcessState.ExitCode(); status != 0 || strings.Count(p.out.String(), "msg=\"requests are cut") != 1 {
		t.Errorf("exit status %d:\n%s", status, &p.out)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("half a download is taken for the whole")
	}
}

// TestAuditRetention: the daemon forgets what its audit has kept for longer than it is told to.
func TestAuditRetention(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	p := s.start()
	s.wantReady(p)
	p.stop()
	s.exec(`INSERT INTO reconciler.audit (at, key, source, reason) SELECT now() - interval '1 day' * days, 'day ' || days, 'wal', 'r' FROM unnest('{29, 31}'::int[]) days`)
	s.start("RECONCILER_AUDIT_RETENTION=30d")
	s.zero(`SELECT count(*), min('still there: ' || key) FROM reconciler.audit WHERE key = 'day 31'`)
	s.zero(`SELECT 1 - count(*), 'gone' FROM reconciler.audit WHERE key = 'day 29'`)
}

// Two versions of the program run during an upgrade: the one that leads goes on while every table gets what a newer version adds, as migrations
// do, and one of this version that starts then takes them as they are. That migrations only add is for who writes them.
func TestNewerTablesAreTaken(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	task := s.pair("row", "VICTORY")
	old := s.start()
	s.wantStar(task, true)
	s.exec(`INSERT INTO reconciler.goose_db_version (version_id, is_applied) VALUES (99999, true)`)
	s.reshape(`DO $$ DECLARE t record; BEGIN
		FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'reconciler' LOOP
			EXECUTE format('ALTER TABLE reconciler.%I ADD COLUMN of_the_future int DEFAULT 1', t.tablename);
		END LOOP;
	END $$`)
	s.setResult("NEUTRAL", "row")
	s.wantStar(task, false) // by the old one
	s.annotate(task, true)
	s.wantResult("row", "VICTORY")
	s.wantEqual()
	new := s.start()
	old.kill()
	s.wantLog(new, "msg=leading")
	s.setResult("DEFEAT", "row")
	s.wantStar(task, false)
	s.wantEqual()
}
