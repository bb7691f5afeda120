package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

const testPassword = "it's a 'secret'"

// unprepared is the configuration for a fresh database whose roles do not exist yet. Roles belong to the server, which the
// tests share, so each test has names of its own.
func unprepared(t *testing.T, schema sandbox.Schema) *Config {
	t.Helper()
	admin := pgtest.Database(t, schema)
	id := strings.ToLower(rand.Text()[:8])
	cfg := &Config{Schema: "reconciler", Publication: "reconciler", AristotleAdminURL: DSN(admin),
		AristotleDatabaseURL: as(t, admin, "Ordinary-"+id), AristotleReplicationURL: as(t, admin, "stream_"+id)}
	return cfg
}

// as is the URL with another role.
func as(t *testing.T, dsn string, role string) DSN {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, testPassword)
	return DSN(u.String())
}

func roleOf(t *testing.T, dsn DSN) string {
	t.Helper()
	parts, err := dsn.parts()
	if err != nil {
		t.Fatal(err)
	}
	return parts.User
}

func connect(t *testing.T, dsn DSN) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), string(dsn))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func execAll(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// setUp runs setup and returns what it printed.
func setUp(t *testing.T, cfg *Config, printOnly bool) string {
	t.Helper()
	var out bytes.Buffer
	if err := (&SetupCmd{Print: printOnly}).setup(t.Context(), cfg, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

const nothingDone = "Everything is there already: nothing was changed.\n"

func TestSetupGivesExactlyTheRights(t *testing.T) {
	t.Parallel()
	for _, schema := range []sandbox.Schema{{Texts: true}, {Enums: true}} {
		t.Run(fmt.Sprintf("%+v", schema), func(t *testing.T) {
			t.Parallel()
			cfg := unprepared(t, schema)
			admin := connect(t, cfg.AristotleAdminURL)
			execAll(t, admin, `CREATE TABLE "User" (id text PRIMARY KEY)`,
				`INSERT INTO "Conquest" (id, philosopher, domain) VALUES ('a', 'p', 'd')`)
			setUp(t, cfg, false)
			if got := setUp(t, cfg, false); got != nothingDone {
				t.Errorf("the second run: %s", got)
			}
			mayAndMayNot(t, connect(t, cfg.AristotleDatabaseURL), ordinaryMay(schema), ordinaryMayNot())
			mayAndMayNot(t, connect(t, cfg.AristotleReplicationURL),
				[]string{`SELECT pg_create_logical_replication_slot('` + roleOf(t, cfg.AristotleReplicationURL) + `', 'pgoutput')`,
					`SELECT pg_drop_replication_slot('` + roleOf(t, cfg.AristotleReplicationURL) + `')`},
				[]string{`SELECT id FROM "Conquest"`, `CREATE TABLE reconciler.x ()`, `CREATE TABLE public.x ()`})
			// The application goes on as before.
			execAll(t, admin, `UPDATE "Conquest" SET title = 'x'`, `UPDATE ml_analysis_rating SET feedback = 'x'`, `DELETE FROM "Conquest"`)
		})
	}
}

func ordinaryMay(schema sandbox.Schema) []string {
	may := []string{
		`SELECT * FROM "Conquest"`, `SELECT * FROM ml_analysis_rating`,
		`UPDATE "Conquest" SET result = 'VICTORY', "useAsExample" = true, "evaluatedBy" = 'e', "evaluatedAt" = now(), "updatedAt" = now()`,
		`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, philosopher, domain) VALUES ('r', 'a', 'x', 'p', 'd')`,
		`UPDATE ml_analysis_rating SET is_gold_star = true`,
		`CREATE TABLE reconciler.mine (id int)`, `DROP TABLE reconciler.mine`,
	}
	if schema.Texts {
		may = append(may, `SELECT data->>'prompt' FROM conquest_prompt`, `SELECT data->>'response' FROM conquest_response`)
	}
	return may
}

func ordinaryMayNot() []string {
	return []string{
		`UPDATE "Conquest" SET title = 'x'`, `UPDATE "Conquest" SET status = 'FAILED'`, `UPDATE "Conquest" SET "resultNotes" = 'x'`,
		`INSERT INTO "Conquest" (id, philosopher, domain) VALUES ('b', 'p', 'd')`, `DELETE FROM "Conquest"`, `TRUNCATE "Conquest"`,
		`DELETE FROM ml_analysis_rating`, `TRUNCATE ml_analysis_rating`,
		`SELECT * FROM "User"`, `CREATE TABLE public.x ()`, `CREATE SCHEMA other`, `ALTER TABLE "Conquest" ADD x int`,
		`CREATE TRIGGER x AFTER UPDATE ON "Conquest" EXECUTE FUNCTION suppress_redundant_updates_trigger()`,
		`DROP PUBLICATION reconciler`, `SELECT pg_create_logical_replication_slot('ordinary', 'pgoutput')`, `CREATE ROLE x`,
	}
}

func mayAndMayNot(t *testing.T, conn *pgx.Conn, may, mayNot []string) {
	t.Helper()
	execAll(t, conn, may...)
	for _, sql := range mayNot {
		_, err := conn.Exec(t.Context(), sql)
		if pg := new(pgconn.PgError); !errors.As(err, &pg) || pg.Code != "42501" {
			t.Errorf("%s: got %v, want permission denied", sql, err)
		}
	}
}

func TestSetupPrintIsWhatRuns(t *testing.T) {
	t.Parallel()
	cfg := unprepared(t, sandbox.Schema{Texts: true})
	script := setUp(t, cfg, true)
	if strings.Contains(script, testPassword) || strings.Contains(script, "secret") {
		t.Errorf("a password in clear:\n%s", script)
	}
	admin := connect(t, cfg.AristotleAdminURL)
	var exists bool
	if err := admin.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_publication)`).Scan(&exists); err != nil || exists {
		t.Fatalf("--print changed something, or: %v", err)
	}
	// Several statements in one simple query, as psql sends a file.
	if _, err := admin.PgConn().Exec(t.Context(), script).ReadAll(); err != nil {
		t.Fatalf("%v in:\n%s", err, script)
	}
	if got := setUp(t, cfg, false); got != nothingDone {
		t.Errorf("after the printed script: %s", got)
	}
	if got := setUp(t, cfg, true); got != "-- Everything is there already: nothing to do.\n" {
		t.Errorf("printed afterwards: %s", got)
	}
	connect(t, cfg.AristotleDatabaseURL) // the passwords are right
	connect(t, cfg.AristotleReplicationURL)
}

// members reads the publication as PostgreSQL shows it.
func members(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `
		SELECT c.relname || coalesce(' ' || nullif(array(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum = ANY (prattrs))::text, '{}'), '')
		FROM pg_publication_rel JOIN pg_class c ON c.oid = prrelid`)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// What an application's migration takes away, or somebody changed, the next run puts right.
func TestSetupRepairs(t *testing.T) {
	t.Parallel()
	cfg := unprepared(t, sandbox.Schema{})
	admin := connect(t, cfg.AristotleAdminURL)
	setUp(t, cfg, false)
	ordinary := pgx.Identifier{roleOf(t, cfg.AristotleDatabaseURL)}.Sanitize()
	for _, c := range []struct {
		what    string
		sql     []string
		members []string
	}{
		{"tables of texts came", []string{`CREATE TABLE conquest_prompt (id varchar PRIMARY KEY, conquest_analysis_id varchar, data jsonb)`},
			[]string{"Conquest {id}", "conquest_prompt {id}", "ml_analysis_rating {id}"}},
		{"full identity", []string{`DROP TABLE conquest_prompt`, `ALTER TABLE "Conquest" REPLICA IDENTITY FULL`},
			[]string{"Conquest", "ml_analysis_rating {id}"}},
		{"full identity with a list", []string{`ALTER PUBLICATION reconciler SET TABLE "Conquest" (id), ml_analysis_rating (id)`},
			[]string{"Conquest", "ml_analysis_rating {id}"}},
		{"default identity again", []string{`ALTER TABLE "Conquest" REPLICA IDENTITY DEFAULT`},
			[]string{"Conquest {id}", "ml_analysis_rating {id}"}},
		{"an index as identity", []string{`ALTER TABLE "Conquest" ADD UNIQUE (id) INCLUDE (domain)`, `ALTER TABLE "Conquest" REPLICA IDENTITY USING INDEX "Conquest_id_domain_key"`,
			`ALTER PUBLICATION reconciler DROP TABLE "Conquest"`},
			[]string{"Conquest {id}", "ml_analysis_rating {id}"}},
		{"a row filter", []string{`ALTER PUBLICATION reconciler SET TABLE "Conquest" (id) WHERE (id <> 'x'), ml_analysis_rating (id)`},
			[]string{"Conquest {id}", "ml_analysis_rating {id}"}},
		{"fewer kinds of change", []string{`ALTER PUBLICATION reconciler SET (publish = 'insert')`},
			[]string{"Conquest {id}", "ml_analysis_rating {id}"}},
		{"a table is another", []string{`ALTER TABLE "Conquest" RENAME TO old`, `CREATE TABLE "Conquest" (LIKE old INCLUDING ALL)`, `DROP TABLE old`},
			[]string{"Conquest {id}", "ml_analysis_rating {id}"}},
		{"a right is gone", []string{`REVOKE UPDATE ("updatedAt") ON "Conquest" FROM ` + ordinary},
			[]string{"Conquest {id}", "ml_analysis_rating {id}"}},
		{"another password", []string{`ALTER ROLE ` + ordinary + ` PASSWORD 'other' NOLOGIN`},
			[]string{"Conquest {id}", "ml_analysis_rating {id}"}},
	} {
		execAll(t, admin, c.sql...)
		if got := setUp(t, cfg, false); got == nothingDone {
			t.Errorf("%s: not seen", c.what)
		}
		if got := setUp(t, cfg, false); got != nothingDone {
			t.Errorf("%s: not at rest after one run: %s", c.what, got)
		}
		if diff := cmp.Diff(c.members, members(t, admin)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
		execAll(t, admin, `INSERT INTO "Conquest" (id, philosopher, domain) VALUES ('a', 'p', 'd')`, `UPDATE "Conquest" SET title = 'x'`, `DELETE FROM "Conquest"`)
		execAll(t, connect(t, cfg.AristotleDatabaseURL), `UPDATE "Conquest" SET "updatedAt" = now()`)
	}
}

// Where it would break the application, or take what is another's, it says so and changes nothing.
func TestSetupRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ sql, want string }{
		"no primary key":     {`ALTER TABLE "Conquest" DROP CONSTRAINT "Conquest_pkey"`, "ADD PRIMARY KEY (id)"},
		"no identity":        {`ALTER TABLE ml_analysis_rating REPLICA IDENTITY NOTHING`, "has no replica identity"},
		"another key":        {`ALTER TABLE "Conquest" DROP CONSTRAINT "Conquest_pkey", ADD PRIMARY KEY (domain)`, "identified by (domain), not by id"},
		"no table":           {`DROP TABLE "Conquest"`, `no table public."Conquest"`},
		"a view":             {`ALTER TABLE "Conquest" RENAME TO c; CREATE VIEW "Conquest" AS SELECT * FROM c`, "no ordinary table"},
		"another's schema":   {`CREATE SCHEMA reconciler`, `schema "reconciler" belongs to role "postgres"`},
		"another's messages": {`CREATE PUBLICATION reconciler FOR ALL TABLES`, "FOR ALL TABLES"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := unprepared(t, sandbox.Schema{})
			admin := connect(t, cfg.AristotleAdminURL)
			if _, err := admin.PgConn().Exec(t.Context(), c.sql).ReadAll(); err != nil {
				t.Fatal(err)
			}
			err := (&SetupCmd{}).setup(t.Context(), cfg, new(bytes.Buffer))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			var exists bool
			err = admin.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, roleOf(t, cfg.AristotleDatabaseURL)).Scan(&exists)
			if err != nil || exists {
				t.Errorf("a role was made all the same, or: %v", err)
			}
		})
	}
}

// The owner of the application's database, who is no superuser, is enough.
func TestSetupAsTheOwner(t *testing.T) {
	t.Parallel()
	cfg := unprepared(t, sandbox.Schema{})
	super := connect(t, cfg.AristotleAdminURL)
	var version int
	var database string
	if err := super.QueryRow(t.Context(), `SELECT current_setting('server_version_num')::int, current_database()`).Scan(&version, &database); err != nil {
		t.Fatal(err)
	}
	owner := strings.ToLower("owner_" + rand.Text()[:8])
	execAll(t, super, `CREATE ROLE `+owner+` LOGIN CREATEROLE REPLICATION PASSWORD `+literal(testPassword),
		`ALTER DATABASE `+ident(database)+` OWNER TO `+owner, `ALTER TABLE "Conquest" OWNER TO `+owner, `ALTER TABLE ml_analysis_rating OWNER TO `+owner)
	cfg.AristotleAdminURL = as(t, string(cfg.AristotleAdminURL), owner)
	if version < 160000 {
		err := (&SetupCmd{}).setup(t.Context(), cfg, new(bytes.Buffer))
		if h := new(hinted); !errors.As(err, h) || !strings.Contains(h.Hint(), "rds_replication") {
			t.Fatalf("got %v, want the hint for REPLICATION", err)
		}
		execAll(t, super, `CREATE ROLE `+roleOf(t, cfg.AristotleReplicationURL)+` LOGIN REPLICATION PASSWORD `+literal(testPassword))
	}
	setUp(t, cfg, false)
	if got := setUp(t, cfg, false); got != nothingDone {
		t.Errorf("the second run: %s", got)
	}
	mayAndMayNot(t, connect(t, cfg.AristotleDatabaseURL), ordinaryMay(sandbox.Schema{}), []string{`DELETE FROM "Conquest"`})
	mayAndMayNot(t, connect(t, cfg.AristotleAdminURL), nil, []string{`SET ROLE ` + ident(roleOf(t, cfg.AristotleDatabaseURL))})
}

// One role for both, and one user for everything, as on a developer's machine.
func TestSetupWithOneRole(t *testing.T) {
	t.Parallel()
	cfg := unprepared(t, sandbox.Schema{})
	cfg.AristotleReplicationURL = cfg.AristotleDatabaseURL
	setUp(t, cfg, false)
	execAll(t, connect(t, cfg.AristotleDatabaseURL), `SELECT id FROM "Conquest"`, `SELECT pg_create_logical_replication_slot('one_role', 'pgoutput', true)`)

	cfg = unprepared(t, sandbox.Schema{})
	cfg.AristotleDatabaseURL, cfg.AristotleReplicationURL = cfg.AristotleAdminURL, cfg.AristotleAdminURL
	setUp(t, cfg, false)
	if got := setUp(t, cfg, false); got != nothingDone {
		t.Errorf("the second run: %s", got)
	}
}

func TestSetupSaysHowToSetTheWALLevel(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t, sandbox.Options{Settings: map[string]string{"wal_level": "replica"}})
	admin, err := server.CreateDatabase(t.Context(), sandbox.Schema{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := &Config{Schema: "reconciler", Publication: "reconciler", AristotleAdminURL: DSN(admin),
		AristotleDatabaseURL: as(t, admin, "a"), AristotleReplicationURL: as(t, admin, "b")}
	for range 2 { // also when there is nothing else to do
		err = (&SetupCmd{}).setup(t.Context(), cfg, new(bytes.Buffer))
		if h := new(hinted); !errors.As(err, h) || !strings.Contains(err.Error(), `wal_level is "replica"`) || !strings.Contains(h.Hint(), "ALTER SYSTEM") {
			t.Errorf("got %v", err)
		}
	}
	connect(t, cfg.AristotleDatabaseURL) // all else was done
}

// What PostgreSQL makes of a password is what we take for right, and nothing else is.
func TestScramIsPostgreSQLs(t *testing.T) {
	t.Parallel()
	admin := connect(t, DSN(pgtest.Database(t, sandbox.Schema{Bare: true})))
	name := "scram_" + strings.ToLower(rand.Text()[:8])
	execAll(t, admin, `CREATE ROLE `+name+` PASSWORD `+literal(testPassword))
	var verifier string
	if err := admin.QueryRow(t.Context(), `SELECT rolpassword FROM pg_authid WHERE rolname = $1`, name).Scan(&verifier); err != nil {
		t.Fatal(err)
	}
	if !scramMatches(verifier, testPassword) || scramMatches(verifier, testPassword+"x") || scramMatches("md5abc", testPassword) || scramMatches("", "") {
		t.Errorf("wrong about %q", verifier)
	}
	if _, err := scramVerifier("pässword", []byte("salt"), 1); err == nil {
		t.Error("a password that needs normalising must be refused")
	}
}

// The rights are enough for our migrations and for what a turn does.
func TestSetupIsEnoughForTheLedger(t *testing.T) {
	t.Parallel()
	cfg := unprepared(t, sandbox.Schema{Enums: true, Texts: true})
	setUp(t, cfg, false)
	l, err := ledger.Open(t.Context(), string(cfg.AristotleDatabaseURL), string(cfg.Schema))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	for range 2 {
		if err := l.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := setUp(t, cfg, false); got != nothingDone {
		t.Errorf("after the migrations: %s", got)
	}
}
