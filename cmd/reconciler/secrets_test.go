package main

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle/sandbox"
)

// speaks runs the program with the street's settings and more, and returns all that it wrote.
func (s *street) speaks(env []string, args ...string) string {
	s.Helper()
	self, err := os.Executable()
	if err != nil {
		s.Fatal(err)
	}
	link := filepath.Join(s.TempDir(), "reconciler")
	if err := os.Symlink(self, link); err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, link, args...)
	cmd.Env = append(append(os.Environ(), s.env...), env...)
	out, _ := cmd.CombinedOutput() // how it ends is other tests' business
	return string(out)
}

// Secrets are fed through every way in, right and wrong, and everything that comes out is searched for them: what the commands and the
// daemon write, metrics, readiness, answers to callers, and what is stored of errors.
func TestNoSecretComesOut(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	user := ls.AddUser("daemon@example.com")
	s := newStreet(t, sandbox.Schema{}, side)
	const hook, body, wrong, caller = "hook-s3cret-canary", "body-canary", "wr0ng-canary", "caller-t0ken-canary"
	personal := ls.PersonalToken(user)
	adminParts, err := s.cfg.AristotleAdminURL.parts()
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{hook, body, wrong, caller, personal, side.token, testPassword, url.QueryEscape(testPassword), url.PathEscape(testPassword),
		url.UserPassword("", testPassword).String()[1:], adminParts.Password}
	s.env = append(s.env, "LABEL_STUDIO_API_KEY="+personal, "RECONCILER_WEBHOOK_SECRET="+hook, "RECONCILER_TOKENS_FILE="+tokensFile(t, map[string]string{caller: "scopes: [admin], email: a@example.com"}),
		"ARISTOTLE_ADMIN_URL="+string(s.cfg.AristotleAdminURL))
	var out strings.Builder
	task := s.pair("row", "VICTORY")
	p := s.start()
	s.wantStar(task, true)
	for _, d := range []delivery{
		{secret: hook, body: strings.NewReader(`{"action": "ANNOTATION_CREATED", "task": "` + body + `"}`)},
		{secret: hook, body: strings.NewReader(`{"` + body + `"`)},
		{secret: hook, body: strings.NewReader(`{"action": "` + body + `"}`)},
		{secret: wrong, body: strings.NewReader(`{"action": "ANNOTATION_CREATED"}`)},
		{secret: caller, path: "?token=" + wrong, body: strings.NewReader(`{}`)},
	} {
		_, answer := s.deliver(p, d)
		out.WriteString(answer)
	}
	look := func() {
		for _, path := range []string{"/metrics", "/readyz", "/healthz"} {
			_, text := p.get(t, path)
			out.WriteString(text)
		}
		for _, token := range []string{caller, wrong} {
			for _, path := range []string{"/", "/conquests/row", fmt.Sprintf("/tasks/%d/edit", task), "/held", "/export", "/status", "/help", "/login", "/nowhere"} {
				_, _, page := s.curate(p, "GET", path, "", "Authorization", "Bearer "+token)
				out.WriteString(page)
			}
			for path, form := range map[string]string{"/login": "token=" + token, "/conquests/row/star": "gold=true"} {
				_, _, page := s.curate(p, "POST", path, form, "Authorization", "Bearer "+token, "Content-Type", "application/x-www-form-urlencoded")
				out.WriteString(page)
			}
			_, _, answer := s.curate(p, "POST", starCall(task), `{"is_gold_star": "`+body+`"}`, "Authorization", "Bearer "+token)
			out.WriteString(answer)
			for _, sent := range []any{callFor("row"), object{"conquest_id": body}, `{"` + body} {
				_, answer := s.call(p, token, sent)
				fmt.Fprint(&out, answer)
			}
		}
	}
	look()
	down := "127.0.0.1:1"
	broken := func(dsn DSN) string {
		u, err := url.Parse(string(dsn))
		if err != nil {
			t.Fatal(err)
		}
		u.Host = down
		return u.String()
	}
	wrongPassword := wrongPassword(t, s.cfg.AristotleDatabaseURL)
	wrongPassword = strings.Replace(wrongPassword, ":wrong@", ":"+wrong+"@", 1)
	for _, args := range [][]string{{"doctor"}, {"doctor", "--json"}, {"status"}, {"status", "--json"}, {"status", "row", "--json"}, {"held"}, {"diff"}, {"diff", "--json"},
		{"export"}, {"setup", "--print"}, {"setup"}, {"uninstall"}, {"healthcheck"}, {"run"}} {
		for _, env := range [][]string{
			nil,
			{"ARISTOTLE_DATABASE_URL=" + broken(s.cfg.AristotleDatabaseURL), "ARISTOTLE_REPLICATION_URL=" + broken(s.cfg.AristotleReplicationURL), "ARISTOTLE_ADMIN_URL=" + broken(s.cfg.AristotleAdminURL), "LABEL_STUDIO_URL=http://" + down,
				"LABEL_STUDIO_DATABASE_URL=postgres://u:" + wrong + "@" + down + "/d"},
			{"ARISTOTLE_DATABASE_URL=" + wrongPassword, "ARISTOTLE_ADMIN_URL=" + wrongPassword, "ARISTOTLE_REPLICATION_URL=" + strings.Replace(wrongPassword, "Ordinary", "nobody", 1), "LABEL_STUDIO_API_KEY=" + wrong},
			{"ARISTOTLE_DATABASE_URL=postgres://u:" + wrong + "@h:port/d", "LABEL_STUDIO_URL=http://u:" + wrong + "@h", "LABEL_STUDIO_API_KEY=" + wrong + " x", "RECONCILER_WEBHOOK_SECRET=" + wrong + "\n"},
		} {
			if args[0] == "run" && env == nil {
				continue // it runs already
			}
			said := s.speaks(env, args...)
			if said == "" {
				t.Errorf("%v says nothing", args)
			}
			out.WriteString(said)
		}
	}
	ls.RevokeToken(user) // from here on the daemon's own requests fail
	s.setResult("DEFEAT", "row")
	s.wantUnready(p, "Label Studio")
	look()
	execAll(t, connect(t, s.cfg.AristotleAdminURL), `ALTER ROLE `+ident(roleOf(t, s.cfg.AristotleDatabaseURL))+` PASSWORD 'another'`,
		`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = `+literal(roleOf(t, s.cfg.AristotleDatabaseURL)))
	s.wantUnready(p, "password authentication failed")
	look()
	begin := time.Now()
	if status := p.stop(); status != 0 {
		t.Errorf("exit status %d after %v", status, time.Since(begin))
	}
	out.WriteString(p.out.String())
	for _, table := range []string{"queue", "audit", "webhook"} {
		var rows bytes.Buffer
		var text *string
		if err := s.db.QueryRow(t.Context(), `SELECT string_agg(t::text, ' ') FROM reconciler.`+table+` t`).Scan(&text); err != nil {
			t.Fatal(err)
		}
		if text != nil {
			rows.WriteString(*text)
		}
		out.Write(rows.Bytes())
	}
	all := out.String()
	for _, secret := range secrets {
		if i := strings.Index(all, secret); i >= 0 {
			t.Errorf("%q comes out: …%s…", secret, all[max(0, i-300):min(len(all), i+100)])
		}
	}
}
