package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	"github.com/aristotle/reconciler/cdc"
)

// majors are the PostgreSQL versions of the contract: all of them in CI, the default one elsewhere.
func majors() []string {
	if os.Getenv("CI") == "true" {
		return sandbox.Versions()
	}
	return pgtest.Versions()
}

// limited is a server with which doctor has nothing to find.
func limited(version string) sandbox.Options {
	return sandbox.Options{Version: version, Settings: map[string]string{"max_slot_wal_keep_size": "64MB"}}
}

// A fresh PostgreSQL of each major: setup, doctor, both directions, doctor again with the daemon at work.
func TestMajors(t *testing.T) {
	t.Parallel()
	for _, version := range majors() {
		t.Run("postgres="+version, func(t *testing.T) {
			t.Parallel()
			_, cfg := ownServer(t, limited(version))
			_, side := standIn(t)
			pave(t, cfg, side).wantBothWays()
		})
	}
}

// wantBothWays wants doctor to find nothing, before the daemon runs and while it does, and a star and a VICTORY to arrive.
func (s *street) wantBothWays() {
	s.Helper()
	if e := s.doctor(nil); e.status != 0 {
		s.Errorf("doctor after setup: status %d:\n%s", e.status, e.text)
	}
	tasks := map[string]int64{"row": s.pair("row", "DEFEAT"), "note": s.pair("note", "NEUTRAL")}
	p := s.start()
	s.wantContact(tasks["row"], tasks["note"])
	s.setResult("VICTORY", "row")
	s.annotate(tasks["note"], true)
	s.wantEach(tasks, map[string]bool{"row": true, "note": true})
	s.wantEqual()
	s.wantReady(p)
	if e := s.doctor(nil); e.status != 0 {
		s.Errorf("doctor beside the daemon: status %d:\n%s", e.status, e.text)
	}
	if status := p.stop(); status != 0 {
		s.Errorf("exit status %d", status)
	}
}

// Behind TLS with verify-full: everything works, for all three URLs; with another authority or another name nobody logs in, and doctor
// says why.
func TestPostgresBehindTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority, cert, key := certificates(t, dir)
	other, _, _ := certificates(t, t.TempDir())
	o := limited("")
	o.Settings["ssl"], o.Settings["ssl_cert_file"], o.Settings["ssl_key_file"] = "on", cert, key
	_, cfg := ownServer(t, o)
	verify := func(dsn DSN, host, rootcert string) DSN {
		u, err := url.Parse(string(dsn))
		if err != nil {
			t.Fatal(err)
		}
		u.Host = net.JoinHostPort(host, u.Port())
		u.RawQuery = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {rootcert}}.Encode()
		return DSN(u.String())
	}
	for _, dsn := range []*DSN{&cfg.AristotleAdminURL, &cfg.AristotleDatabaseURL, &cfg.AristotleReplicationURL} {
		*dsn = verify(*dsn, "localhost", authority)
	}
	_, side := standIn(t)
	s := pave(t, cfg, side)
	if e := s.doctor(nil); strings.Count(e.text, "TLS 1.3") != 2 {
		t.Errorf("not both connections are encrypted:\n%s", e.text)
	}
	for name, c := range map[string]struct{ host, authority, want string }{
		"another authority": {"localhost", other, "unknown authority"},
		"another name":      {"127.0.0.1", authority, "127.0.0.1"},
	} {
		e := s.doctor(func(c2 *Config) { c2.AristotleDatabaseURL = verify(c2.AristotleDatabaseURL, c.host, c.authority) })
		if e.status != 1 || !strings.Contains(e.text, c.want) || !strings.Contains(e.text, "sslrootcert") {
			t.Errorf("%s: status %d:\n%s", name, e.status, e.text)
		}
	}
	s.wantBothWays()
}

// certificates makes an authority, and a certificate for the name localhost alone whose key the server's user can read.
func certificates(t *testing.T, dir string) (authority, cert, key string) {
	t.Helper()
	ca, caKey := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}, newKey(t)
	leaf, leafKey := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter}, newKey(t)
	put := func(name, kind string, bytes []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		write(t, path, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes})))
		if os.Geteuid() == 0 { // the server runs as nobody then
			if err := os.Chown(path, 65534, 65534); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	passable(t, dir)
	caBytes, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	authority = put("ca.pem", "CERTIFICATE", caBytes, err)
	leafBytes, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	cert = put("cert.pem", "CERTIFICATE", leafBytes, err)
	keyBytes, err := x509.MarshalPKCS8PrivateKey(leafKey)
	return authority, cert, put("key.pem", "PRIVATE KEY", keyBytes, err)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// passable lets another user into a test's folder.
func passable(t *testing.T, dir string) {
	t.Helper()
	for d := dir; d != os.TempDir() && len(d) > 1; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// PgBouncer in front: in transaction mode doctor says that neither URL may lead there, and that of the stream in no mode.
func TestDoctorFindsPgBouncer(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("pgbouncer")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/pgbouncer")
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no pgbouncer")
		}
		t.Skip("install the Debian package pgbouncer to run this test")
	}
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	for mode, want := range map[string]string{"transaction": "a pooler in transaction mode", "session": "A pooler answers in place of PostgreSQL"} {
		port := s.pgBouncer(path, mode)
		through := func(dsn DSN) DSN {
			u, err := url.Parse(string(dsn))
			if err != nil {
				t.Fatal(err)
			}
			u.Host = net.JoinHostPort("127.0.0.1", port)
			return DSN(u.String())
		}
		e := s.doctor(func(c *Config) { c.AristotleDatabaseURL = through(c.AristotleDatabaseURL) })
		if e.status != 1 || !strings.Contains(e.text, want) || len(e.findings()) != 1 {
			t.Errorf("%s mode: status %d:\n%s", mode, e.status, e.text)
		}
		e = s.doctor(func(c *Config) { c.AristotleReplicationURL = through(c.AristotleReplicationURL) })
		if e.status != 1 || !strings.Contains(e.text, "not to a pooler") || len(e.findings()) != 1 {
			t.Errorf("the stream in %s mode: status %d:\n%s", mode, e.status, e.text)
		}
	}
}

// pgBouncer starts one in front of the street's server and returns its port.
func (s *street) pgBouncer(path, mode string) (port string) {
	s.Helper()
	dir := s.TempDir()
	passable(s.T, dir)
	_, port, _ = net.SplitHostPort(freeAddress(s.T))
	parts, err := s.cfg.AristotleAdminURL.parts()
	if err != nil {
		s.Fatal(err)
	}
	var users strings.Builder
	for _, dsn := range []DSN{s.cfg.AristotleDatabaseURL, s.cfg.AristotleReplicationURL} {
		fmt.Fprintf(&users, "%q %q\n", roleOf(s.T, dsn), testPassword)
	}
	for name, text := range map[string]string{"users.txt": users.String(), "pgbouncer.ini": fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = plain
auth_file = %s/users.txt
pool_mode = %s
`, parts.Port, port, dir, mode)} {
		write(s.T, filepath.Join(dir, name), text)
		if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil {
			s.Fatal(err)
		}
	}
	cmd := exec.Command(path, filepath.Join(dir, "pgbouncer.ini"))
	if os.Geteuid() == 0 { // which it refuses
		cmd.Args = append(cmd.Args, "-u", "nobody")
	}
	var said output
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if s.Failed() {
			s.Logf("pgbouncer said:\n%s", &said)
		}
	})
	s.eventually(func() string {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return err.Error() + "\n" + said.String()
		}
		conn.Close()
		return ""
	})
	return port
}

// A slot that somebody else reads, one that is lost, one that is dropped under the daemon: doctor tells the first two, and the daemon
// goes on from each by itself.
func TestSlotTroubles(t *testing.T) {
	t.Parallel()
	_, cfg := ownServer(t, limited(""))
	_, side := standIn(t)
	s := pave(t, cfg, side)
	task := s.pair("row", "VICTORY")
	p := s.start()
	s.wantStar(task, true)
	slot := databaseOf(t, cfg.AristotleDatabaseURL)
	drop := `SELECT pg_terminate_backend(active_pid), pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1`
	s.eventually(func() string { // its reader needs a moment to go
		if _, err := s.db.Exec(t.Context(), drop, slot); err != nil {
			return err.Error()
		}
		return ""
	})
	s.setResult("DEFEAT", "row")
	s.wantStar(task, false)
	s.wantReady(p)
	if status := p.stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}

	stranger, err := cdc.New(cdc.Config{URL: string(cfg.AristotleAdminURL), Slot: slot, Publication: "reconciler", Application: "somebody",
		Handle: func(context.Context, cdc.Batch) error { return nil }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { gone <- stranger.Run(ctx) }()
	s.eventually(func() string {
		if !stranger.Stats().Connected {
			return "the stranger does not read"
		}
		return ""
	})
	if e := s.doctor(nil); e.status != 1 || !strings.Contains(e.text, "is read by somebody else: process") || !strings.Contains(e.text, "pg_terminate_backend(") {
		t.Errorf("a stranger reads: status %d:\n%s", e.status, e.text)
	}
	stop()
	if err := <-gone; err != nil {
		t.Error(err)
	}

	s.setResult("VICTORY", "row")
	s.eventually(func() string {
		s.exec(`SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000000)) FROM generate_series(1, 17)`)
		s.exec(`SELECT pg_switch_wal()`)
		s.exec(`CHECKPOINT`)
		return s.one(`SELECT to_jsonb(s) FROM pg_replication_slots s WHERE wal_status <> 'lost' AND slot_name = $1`, slot).text()
	})
	if e := s.doctor(nil); e.status != 1 || !strings.Contains(e.text, "is lost") {
		t.Errorf("a lost slot: status %d:\n%s", e.status, e.text)
	}
	p = s.start()
	s.wantStar(task, true)
	s.wantReady(p)
}

// text is the object, "" for none.
func (o object) text() string {
	if o == nil {
		return ""
	}
	return fmt.Sprint(map[string]any(o))
}
