package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler"
)

// examined is what `doctor --json` says.
type examined struct {
	Version int
	Checks  []struct {
		reconciler.Checkup
		Error string
	}
	status int
	text   string
}

// doctor runs `doctor --json` with the street's settings.
func (s *street) doctor(change func(*Config)) examined {
	s.Helper()
	cfg := *s.cfg
	cfg.Slot, cfg.LabelStudioURL, cfg.LabelStudioAPIKey = Name(databaseOf(s.T, s.cfg.AristotleDatabaseURL)), BaseURL(s.side.url), Secret(s.side.token)
	cfg.LabelStudioProjects = s.projects
	if change != nil {
		change(&cfg)
	}
	var out bytes.Buffer
	err := (&DoctorCmd{JSON: true}).doctor(s.Context(), &cfg, slog.New(slog.DiscardHandler), &out)
	e := examined{text: out.String()}
	s.decode(out.Bytes(), &e)
	if err != nil {
		e.status = exitStatus(err)
	}
	return e
}

// findings are what it found, notes apart, and what is of the server that the tests share: its limit on WAL, and the transactions that they keep open.
func (e examined) findings() (all []string) {
	for _, c := range e.Checks {
		if c.Error != "" {
			all = append(all, c.Check+": "+c.Error)
		}
		for _, f := range c.Findings {
			if f.Severity != reconciler.Note && !strings.HasPrefix(f.What, "max_slot_wal_keep_size") && !strings.HasPrefix(f.What, "a new replication slot has to wait") {
				all = append(all, fmt.Sprintf("%s: %s | %s", f.Severity, f.What, f.Mend))
			}
		}
	}
	return all
}

func databaseOf(t *testing.T, dsn DSN) string {
	t.Helper()
	parts, err := dsn.parts()
	if err != nil {
		t.Fatal(err)
	}
	return parts.Database
}

// A prepared system is well, and each right that is taken away is named, that one and no other, with the statement that gives it back.
func TestDoctorNamesTheMissingRight(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{Texts: true}, side)
	ordinary, stream := ident(roleOf(t, s.cfg.AristotleDatabaseURL)), ident(roleOf(t, s.cfg.AristotleReplicationURL))
	database := ident(databaseOf(t, s.cfg.AristotleDatabaseURL))
	s.exec(`REVOKE CONNECT ON DATABASE ` + database + ` FROM PUBLIC`)
	s.exec(`REVOKE USAGE ON SCHEMA public FROM PUBLIC`)
	setUp(t, s.cfg, false)
	if e := s.doctor(nil); len(e.findings()) > 0 {
		t.Fatalf("a prepared system: %s", e.text)
	}

	type loss struct{ take, give, names string }
	losses := []loss{
		{`REVOKE CONNECT ON DATABASE ` + database + ` FROM ` + ordinary, `GRANT CONNECT ON DATABASE ` + database + ` TO ` + ordinary, "permission denied for database"},
		{`ALTER ROLE ` + ordinary + ` NOLOGIN`, `ALTER ROLE ` + ordinary + ` LOGIN`, "not permitted to log in"},
		{`REVOKE CONNECT ON DATABASE ` + database + ` FROM ` + stream, `GRANT CONNECT ON DATABASE ` + database + ` TO ` + stream, "ARISTOTLE_REPLICATION_URL: permission denied for database"},
		{`ALTER ROLE ` + stream + ` NOLOGIN`, `ALTER ROLE ` + stream + ` LOGIN`, "ARISTOTLE_REPLICATION_URL: role"},
		{`ALTER ROLE ` + stream + ` NOREPLICATION`, `ALTER ROLE ` + stream + ` REPLICATION`, "lacks REPLICATION"},
		{`ALTER SCHEMA reconciler OWNER TO CURRENT_USER`, `ALTER SCHEMA reconciler OWNER TO ` + ordinary, `schema "reconciler": it belongs to role`},
		{`DROP SCHEMA reconciler CASCADE`, `CREATE SCHEMA reconciler AUTHORIZATION ` + ordinary, `schema "reconciler": our schema is not there`},
	}
	for _, table := range slices.Concat([]string{""}, aristotle.RequiredTables(), aristotle.OptionalTables()) {
		for _, r := range aristotle.Rights(table) {
			give := r.Grant(roleOf(t, s.cfg.AristotleDatabaseURL))
			take := strings.Replace(strings.Replace(give, "GRANT ", "REVOKE ", 1), " TO ", " FROM ", 1)
			losses = append(losses, loss{take, give, fmt.Sprintf("lacks %v", r)})
		}
	}
	for _, l := range losses {
		s.exec(l.take)
		found, status := s.doctor(nil), 0
		if got := found.findings(); len(got) != 1 || !strings.Contains(got[0], l.names) {
			t.Errorf("after %s: want one finding with %q, got %q", l.take, l.names, got)
		} else if !strings.HasPrefix(l.take, "REVOKE CONNECT") && found.status != 1 {
			t.Errorf("after %s: status %d, want 1", l.take, status)
		} else if strings.HasPrefix(l.give, "GRANT") && !strings.Contains(got[0], l.give) {
			t.Errorf("after %s: want the statement %s, got %q", l.take, l.give, got)
		}
		s.exec(l.give)
	}
	if e := s.doctor(nil); len(e.findings()) > 0 {
		t.Errorf("at the end: %s", e.text)
	}
}

// What is wrong with the publication, the slot and Label Studio, each by itself.
func TestDoctorFinds(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{Texts: true}, side)
	slot := databaseOf(t, s.cfg.AristotleDatabaseURL)
	theirs := unprepared(t, sandbox.Schema{Bare: true}) // Label Studio's own, without its tables
	setUpRoles(t, theirs)
	reader := roleOf(t, theirs.AristotleDatabaseURL)
	execAll(t, connect(t, s.cfg.AristotleAdminURL), `GRANT CONNECT ON DATABASE `+ident(databaseOf(t, theirs.AristotleDatabaseURL))+` TO `+ident(reader))
	reads := func(dsn DSN) func(*Config) { return func(c *Config) { c.LabelStudioDatabaseURL = dsn } }
	dropSlot := `SELECT pg_drop_replication_slot('` + slot + `')`
	for name, c := range map[string]struct {
		do, undo string
		change   func(*Config)
		want     string
		status   int
	}{
		"table without a key": {do: `ALTER TABLE "Conquest" DROP CONSTRAINT "Conquest_pkey" CASCADE`, undo: `ALTER TABLE "Conquest" ADD PRIMARY KEY (id)`, want: `ADD PRIMARY KEY`},
		"full with a list":    {do: `ALTER TABLE "Conquest" REPLICA IDENTITY FULL`, undo: `ALTER TABLE "Conquest" REPLICA IDENTITY DEFAULT`, want: `REPLICA IDENTITY FULL`},
		"more than the key": {do: `ALTER PUBLICATION reconciler SET TABLE "Conquest" (id, result), ml_analysis_rating (id), conquest_prompt (id), conquest_response (id)`,
			undo: `ALTER PUBLICATION reconciler SET TABLE "Conquest" (id), ml_analysis_rating (id), conquest_prompt (id), conquest_response (id)`, want: "columns of \"Conquest\" beside its key: result"},
		"table left out": {do: `ALTER PUBLICATION reconciler SET TABLE ml_analysis_rating (id), conquest_prompt (id), conquest_response (id)`,
			undo: `ALTER PUBLICATION reconciler SET TABLE "Conquest" (id), ml_analysis_rating (id), conquest_prompt (id), conquest_response (id)`, want: `it lacks table Conquest`},
		"ratings left out": {do: `ALTER PUBLICATION reconciler DROP TABLE ml_analysis_rating`,
			undo: `ALTER PUBLICATION reconciler ADD TABLE ml_analysis_rating (id)`, want: `the publication lacks table ml_analysis_rating`},
		"prompts left out": {do: `ALTER PUBLICATION reconciler DROP TABLE conquest_prompt`,
			undo: `ALTER PUBLICATION reconciler ADD TABLE conquest_prompt (id)`, want: `the publication lacks table conquest_prompt`},
		"kinds left out":  {do: `ALTER PUBLICATION reconciler SET (publish = 'insert')`, undo: `ALTER PUBLICATION reconciler SET (publish = 'insert, update, delete, truncate')`, want: "does not publish all of"},
		"no publication":  {change: func(c *Config) { c.Publication = "nobodys" }, want: `publication "nobodys"`},
		"another's slot":  {do: `SELECT pg_create_physical_replication_slot('` + slot + `')`, undo: dropSlot, want: "it is a physical slot"},
		"rows are hidden": {do: `ALTER TABLE "Conquest" ENABLE ROW LEVEL SECURITY`, undo: `ALTER TABLE "Conquest" DISABLE ROW LEVEL SECURITY`, want: "row-level security"},
		"one URL":         {change: func(c *Config) { c.AristotleReplicationURL = c.AristotleDatabaseURL }, want: "ARISTOTLE_REPLICATION_URL (not set, so it is ARISTOTLE_DATABASE_URL): role"},
		"bad token":       {change: func(c *Config) { c.LabelStudioAPIKey = "nonsense" }, want: "Label Studio refuses LABEL_STUDIO_API_KEY"},
		"no project":      {change: func(c *Config) { c.LabelStudioProjects = append(ProjectIDs{4711}, c.LabelStudioProjects...) }, want: "project 4711 of LABEL_STUDIO_PROJECTS does not exist"},
		"wrong host":      {change: func(c *Config) { c.LabelStudioURL = "http://127.0.0.1:1" }, want: "is Label Studio running at", status: 2},
		"no database":     {change: func(c *Config) { c.AristotleDatabaseURL = nobodyListens(t, c.AristotleDatabaseURL) }, want: "does not answer: connection refused", status: 2},

		"another's tables":      {change: reads(theirs.AristotleDatabaseURL), want: "not the tables of Label Studio 1.23: no column task.id int"},
		"a refused login":       {change: reads(DSN(wrongPassword(t, theirs.AristotleDatabaseURL))), want: "LABEL_STUDIO_DATABASE_URL: password authentication failed"},
		"no database of theirs": {change: reads(nobodyListens(t, theirs.AristotleDatabaseURL)), want: "LABEL_STUDIO_DATABASE_URL: look at Label Studio's database", status: 2},
	} {
		if c.do != "" {
			s.exec(c.do)
		}
		e := s.doctor(c.change)
		if got := strings.Join(e.findings(), "\n"); !strings.Contains(e.text, strings.ReplaceAll(c.want, `"`, `\"`)) || got == "" {
			t.Errorf("%s: want %q in\n%s", name, c.want, e.text)
		}
		if want := max(c.status, 1); e.status != want {
			t.Errorf("%s: status %d, want %d:\n%s", name, e.status, want, e.text)
		}
		if c.undo != "" {
			s.exec(c.undo)
		}
	}
	starless, err := s.studio.CreateProject(t.Context(), labelstudio.NewProject{Title: "No star", LabelConfig: "<View/>"})
	if err != nil {
		t.Fatal(err)
	}
	e := s.doctor(func(c *Config) { c.LabelStudioProjects = ProjectIDs{starless.ID} })
	if !strings.Contains(e.text, "offers no choice gold_star") {
		t.Error(e.text)
	}
	s.copyTasks(theirs.AristotleAdminURL, reader)
	if e := s.doctor(reads(theirs.AristotleAdminURL)); e.status != 1 || !strings.Contains(e.text, "may write to Label Studio's tables") {
		t.Errorf("a role that may write: status %d:\n%s", e.status, e.text)
	}
	if e := s.doctor(reads(theirs.AristotleDatabaseURL)); len(e.findings()) > 0 || !strings.Contains(e.text, `as role \"`+reader) {
		t.Errorf("at the end: %s", e.text)
	}
}

func nobodyListens(t *testing.T, dsn DSN) DSN {
	t.Helper()
	u, err := url.Parse(string(dsn))
	if err != nil {
		t.Fatal(err)
	}
	u.Host = "127.0.0.1:1"
	return DSN(u.String())
}

// The way of the webhooks is proven by a real delivery, to the daemon or, where none runs, to doctor itself, and nothing is left of it.
func TestDoctorProvesWebhooks(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	p := s.start()
	at := p.listen
	ask := func(change func(*Config)) examined {
		return s.doctor(func(c *Config) {
			c.PublicURL, c.Listen, c.WebhookSecret = BaseURL("http://"+at), Address(at), secret
			if change != nil {
				change(c)
			}
		})
	}
	if e := ask(nil); e.status != 0 && len(e.findings()) > 0 || !strings.Contains(e.text, "by the daemon") {
		t.Error(e.text)
	}
	if e := ask(func(c *Config) { c.WebhookSecret = "another" }); e.status != 1 || !strings.Contains(e.text, "another RECONCILER_WEBHOOK_SECRET") {
		t.Error(e.text)
	}
	if e := ask(func(c *Config) { c.DryRun = true }); !strings.Contains(e.text, "not tried") {
		t.Error(e.text)
	}
	if status := p.stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if e := ask(nil); len(e.findings()) > 0 || !strings.Contains(e.text, "by doctor itself") {
		t.Error(e.text)
	}
	if e := ask(func(c *Config) { c.PublicURL = "http://127.0.0.1:1" }); e.status != 1 || !strings.Contains(e.text, "it did not arrive") {
		t.Error(e.text)
	}
	if e := ask(func(c *Config) { c.PublicURL = "http://onelabel" }); e.status != 1 || !strings.Contains(e.text, "takes no webhook") {
		t.Error(e.text)
	}
	hooks, err := s.studio.Webhooks(t.Context(), s.projects[0])
	if err != nil || len(hooks) > 0 {
		t.Errorf("left behind: %v %v", hooks, err)
	}
}
