package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/labelstudio"
)

// uninstall runs it with an answer, "" for --yes.
func (s *street) uninstall(cfg *Config, answer string) (string, error) {
	s.Helper()
	var out bytes.Buffer
	err := (&UninstallCmd{Yes: answer == ""}).uninstall(s.Context(), cfg, strings.NewReader(answer), &out)
	return out.String(), err
}

// It shows what it will do, asks, refuses while a daemon runs, and leaves nothing of ours and all of others'.
func TestUninstall(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	cfg := *s.cfg
	cfg.Slot, cfg.LabelStudioURL, cfg.LabelStudioAPIKey = Name(databaseOf(t, s.cfg.AristotleDatabaseURL)), BaseURL(side.url), Secret(side.token)
	task := s.pair("row", "VICTORY")
	p := s.start()
	s.wantStar(task, true)
	cfg.PublicURL = BaseURL("http://" + p.listen)
	s.hook(p)
	foreign, err := s.studio.CreateWebhook(t.Context(), labelstudio.Webhook{Project: s.projects[0], URL: "http://127.0.0.1:9/others", IsActive: true})
	if err != nil {
		t.Fatal(err)
	}
	hooks := func() (n int) {
		for _, project := range s.projects {
			all, err := s.studio.Webhooks(t.Context(), project)
			if err != nil {
				t.Fatal(err)
			}
			n += len(all)
		}
		return n
	}
	left := func() (n int) {
		if err := s.db.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1)
			+ (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_namespace WHERE nspname = 'reconciler')`, string(cfg.Slot)).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}

	if said, err := s.uninstall(&cfg, ""); err == nil || !strings.Contains(err.Error(), "is being read by process") || hooks() != 3 || left() != 3 {
		t.Errorf("with a daemon: %v, %d webhooks and %d things left\n%s", err, hooks(), left(), said)
	}
	if status := p.stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	s.wantNobody()
	for _, answer := range []string{"no\n", "y\n", "\x00"} {
		said, err := s.uninstall(&cfg, answer)
		if err == nil || !strings.Contains(err.Error(), "not confirmed") || hooks() != 3 || left() != 3 {
			t.Errorf("answer %q: %v", answer, err)
		}
		for _, want := range []string{"webhook ", "replication slot " + string(cfg.Slot), "publication reconciler", "schema reconciler", "DROP ROLE"} {
			if !strings.Contains(said, want) {
				t.Errorf("it does not say %q:\n%s", want, said)
			}
		}
	}
	if said, err := s.uninstall(&cfg, "yes\n"); err != nil || hooks() != 1 || left() != 0 {
		t.Errorf("%v, %d webhooks and %d things left\n%s", err, hooks(), left(), said)
	}
	if all, err := s.studio.Webhooks(t.Context(), s.projects[0]); err != nil || len(all) != 1 || all[0].ID != foreign.ID {
		t.Errorf("the webhook of others: %v %v", all, err)
	}
	s.wantStar(task, true)
	if said, err := s.uninstall(&cfg, ""); err != nil || !strings.Contains(said, "nothing to remove") {
		t.Errorf("again: %v\n%s", err, said)
	}
	// What setup would not take for ours stays.
	s.exec(`CREATE SCHEMA reconciler CREATE TABLE somebodys (id int)`)
	s.exec(`CREATE PUBLICATION reconciler FOR ALL TABLES`)
	if said, err := s.uninstall(&cfg, ""); err != nil || !strings.Contains(said, "ours are not among them") || !strings.Contains(said, "it is FOR ALL TABLES") || left() != 2 {
		t.Errorf("a foreign schema and publication: %v\n%s", err, said)
	}
}
