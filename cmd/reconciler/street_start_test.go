package main

import (
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/jackc/pgx/v5"
)

// What a person has to mend ends the daemon at its start, with status 1 and a sentence that says what is wrong and what to do.
func TestStartRefused(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	gone := ls.AddUser("gone@example.com")
	personal := ls.PersonalToken(gone)
	ls.RevokeToken(gone)
	bare := unprepared(t, sandbox.Schema{Bare: true})
	setUpRoles(t, bare)

	for name, c := range map[string]struct {
		env  []string
		want []string
	}{
		"unknown token":       {[]string{"LABEL_STUDIO_API_KEY=nonsense"}, []string{"Label Studio refuses LABEL_STUDIO_API_KEY", "Make a new token"}},
		"expired token":       {[]string{"LABEL_STUDIO_API_KEY=" + personal}, []string{"Label Studio refuses LABEL_STUDIO_API_KEY", "Make a new token"}},
		"no such database":    {[]string{"ARISTOTLE_DATABASE_URL=" + otherDatabase(t, s.cfg.AristotleDatabaseURL), "ARISTOTLE_REPLICATION_URL=" + otherDatabase(t, s.cfg.AristotleReplicationURL)}, []string{"does not exist", "Correct the database's name in ARISTOTLE_DATABASE_URL"}},
		"another's database":  {[]string{"ARISTOTLE_DATABASE_URL=" + string(bare.AristotleDatabaseURL), "ARISTOTLE_REPLICATION_URL=" + string(bare.AristotleReplicationURL)}, []string{"reconciler setup"}},
		"wrong password":      {[]string{"ARISTOTLE_DATABASE_URL=" + wrongPassword(t, s.cfg.AristotleDatabaseURL)}, []string{"password authentication failed", "Correct the password in ARISTOTLE_DATABASE_URL"}},
		"replication's":       {[]string{"ARISTOTLE_REPLICATION_URL=" + wrongPassword(t, s.cfg.AristotleReplicationURL)}, []string{"password authentication failed", "Correct the password in ARISTOTLE_REPLICATION_URL"}},
		"two databases":       {[]string{"ARISTOTLE_REPLICATION_URL=" + otherDatabase(t, s.cfg.AristotleReplicationURL)}, []string{"must name the same"}},
		"no such publication": {[]string{"RECONCILER_PUBLICATION=nobodys"}, []string{`publication "nobodys"`, "reconciler setup"}},
		"no such schema":      {[]string{"RECONCILER_SCHEMA=nobodys"}, []string{`schema "nobodys"`, "reconciler setup"}},
		"port taken":          {[]string{"RECONCILER_LISTEN=" + taken.Addr().String()}, []string{"address already in use", "Set RECONCILER_LISTEN"}},
		"metrics port taken":  {[]string{"RECONCILER_METRICS_LISTEN=" + taken.Addr().String()}, []string{"address already in use", "Set RECONCILER_METRICS_LISTEN"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := s.in(t)
			s.wantRefused(s.spawn(c.env...), c.want...)
		})
	}
}

// wantRefused waits until a daemon has ended with status 1 and has said what is wanted, and no secret.
func (s *street) wantRefused(p *process, want ...string) {
	s.Helper()
	select {
	case <-p.gone:
	case <-time.After(patience):
		s.Fatal("the daemon goes on")
	}
	said := p.out.String()
	if status := p.cmd.ProcessState.ExitCode(); status != 1 {
		s.Errorf("exit status %d, want 1", status)
	}
	for _, w := range want {
		if !strings.Contains(said, w) {
			s.Errorf("it does not say %q:\n%s", w, said)
		}
	}
	if strings.Contains(said, url.QueryEscape(testPassword)) || strings.Contains(said, testPassword) || strings.Contains(said, s.side.token) {
		s.Errorf("it tells a secret:\n%s", said)
	}
}

// setUpRoles gives a database that has no tables of Aristotle's the roles that a daemon logs in as.
func setUpRoles(t *testing.T, cfg *Config) {
	t.Helper()
	admin := connect(t, cfg.AristotleAdminURL)
	for _, dsn := range []DSN{cfg.AristotleDatabaseURL, cfg.AristotleReplicationURL} {
		execAll(t, admin, `CREATE ROLE `+ident(roleOf(t, dsn))+` LOGIN REPLICATION PASSWORD `+literal(testPassword))
	}
}

func otherDatabase(t *testing.T, dsn DSN) string {
	t.Helper()
	u, err := url.Parse(string(dsn))
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/nobodys"
	return u.String()
}

func wrongPassword(t *testing.T, dsn DSN) string {
	t.Helper()
	u, err := url.Parse(string(dsn))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(u.User.Username(), "wrong")
	return u.String()
}

func TestStartWithoutLogicalWAL(t *testing.T) {
	t.Parallel()
	server, cfg := ownServer(t, sandbox.Options{})
	_, side := standIn(t)
	s := pave(t, cfg, side)
	s.exec(`ALTER SYSTEM SET wal_level = replica`)
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantRefused(s.spawn(), "wal_level is replica", "set wal_level=logical")
}

// Once it runs, the daemon does not end when something is taken from it that a person can put back: it is not ready, and says why.
func TestTakenFromARunningDaemon(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	user := ls.AddUser("daemon@example.com")
	s := newStreet(t, sandbox.Schema{}, side)
	s.env = append(s.env, "LABEL_STUDIO_API_KEY="+ls.UserToken(user))
	task := s.pair("row", "PENDING")
	p := s.start()
	s.wantContact(task)
	ls.RevokeToken(user)
	s.setResult("VICTORY", "row")
	s.wantUnready(p, "Label Studio is away")
	s.wantLog(p, "Invalid token")
	if p.ended() {
		t.Error("the daemon ended")
	}
}

// A Label Studio that is not there yet is waited for.
func TestStartWithoutStudio(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	task := s.pair("row", "VICTORY")
	ls.Faults(func(r *http.Request) studio.Fault {
		if r.Header.Get("Authorization") == "Token "+side.token {
			return studio.Fault{Kind: studio.FaultCut}
		}
		return studio.Fault{}
	})
	p := s.start()
	s.wantLog(p, "Label Studio does not answer: waiting for it")
	s.wantUnready(p, "Label Studio")
	ls.Faults(nil)
	s.wantStar(task, true)
	s.wantEqual()
	s.wantReady(p)
}

// The same where nothing is to be done: nobody asked, and yet it is away.
func TestIdleWithoutStudio(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	ls.Faults(func(*http.Request) studio.Fault { return studio.Fault{Kind: studio.FaultCut} })
	p := s.start()
	s.wantLog(p, "Label Studio does not answer: waiting for it")
	s.wantUnready(p, "Label Studio")
	ls.Faults(nil)
	s.wantReady(p)
}

// A migration of the application can take away what setup had made. The daemon says so, stays, and goes on after the next setup.
func TestSetupUndone(t *testing.T) {
	t.Parallel()
	for name, undo := range map[string]struct{ sql, reason string }{
		"publication": {`DROP PUBLICATION reconciler`, "stream"},
		"membership":  {`ALTER PUBLICATION reconciler DROP TABLE "Conquest"`, "stream"},
		"grants":      {`REVOKE ALL ON "Conquest" FROM %s`, "setup"},
		"schema":      {`DROP SCHEMA reconciler CASCADE`, "setup"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, side := standIn(t)
			s := newStreet(t, sandbox.Schema{}, side)
			task := s.pair("row", "PENDING")
			p := s.start()
			s.wantContact(task)
			s.reshape(strings.ReplaceAll(undo.sql, "%s", pgx.Identifier{roleOf(t, s.cfg.AristotleDatabaseURL)}.Sanitize()))
			s.setResult("VICTORY", "row")
			s.wantUnready(p, undo.reason)
			s.wantLog(p, "run `reconciler setup`")
			setUp(t, s.cfg, false)
			s.wantStar(task, true)
			s.wantEqual()
			s.wantReady(p)
		})
	}
}
