package sandbox_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
)

func TestMain(m *testing.M) {
	sandbox.Supervise()
	if os.Getenv(asParent) != "" {
		parent() // never returns
	}
	pgtest.Main(m)
}

// Every supported major starts as asked, can decode logically, and holds every shape of Aristotle's schema with the samples in it.
func TestMajors(t *testing.T) {
	t.Parallel()
	for _, version := range pgtest.Versions() {
		t.Run("PostgreSQL "+version, func(t *testing.T) {
			t.Parallel()
			server := pgtest.Server(t, sandbox.Options{Version: version})
			for _, schema := range []sandbox.Schema{{}, {Enums: true}, {Texts: true}, {Name: "aristotle_dev", Enums: true, Texts: true}} {
				url, err := server.CreateDatabase(t.Context(), schema)
				if err != nil {
					t.Fatal(err)
				}
				if err := sandbox.Load(t.Context(), url, sandbox.SampleConquests()); err != nil {
					t.Fatalf("%+v: %v", schema, err)
				}
				checkLoaded(t, url, schema, version)
			}
		})
	}
}

func checkLoaded(t *testing.T, url string, schema sandbox.Schema, version string) {
	t.Helper()
	conn := connect(t, url)
	var running, name, encoding, kind string
	var victories, texts int
	err := conn.QueryRow(t.Context(), `SELECT current_setting('server_version'), current_database(), current_setting('server_encoding'),
			(SELECT atttypid::regtype::text FROM pg_attribute WHERE attrelid = '"Conquest"'::regclass AND attname = 'result'),
			count(*) FILTER (WHERE result = 'VICTORY' AND "useAsExample" AND "evaluatedBy" = philosopher)
		FROM "Conquest"`).Scan(&running, &name, &encoding, &kind, &victories)
	if err != nil {
		t.Fatal(err)
	}
	if schema.Texts {
		err = conn.QueryRow(t.Context(), `SELECT count(*) FROM "Conquest" c
			JOIN conquest_prompt p ON p.conquest_analysis_id = c.id AND p.data->>'prompt' LIKE c.title || '%'
			JOIN conquest_response r ON r.conquest_analysis_id = c.id AND length(r.data->>'response') > 80`).Scan(&texts)
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Exec(t.Context(), "SELECT pg_create_logical_replication_slot('slot_of_' || current_database(), 'pgoutput')"); err != nil {
		t.Fatal(err)
	}
	major, _, _ := strings.Cut(version, ".")
	wantTexts := 0
	if schema.Texts {
		wantTexts = len(sandbox.SampleConquests())
	}
	if !strings.HasPrefix(running, major) || encoding != "UTF8" || victories < 4 || texts != wantTexts ||
		(schema.Name != "" && schema.Name != name) || (kind == "character varying") == schema.Enums {
		t.Errorf("%+v on %q: server %s, database %s (%s), result is %s, %d victories, %d texts", schema, version, running, name, encoding, kind, victories, texts)
	}
}

func TestSampleConquests(t *testing.T) {
	t.Parallel()
	all := sandbox.SampleConquests()
	results, domains, ids := map[string]int{}, map[string]int{}, map[string]bool{}
	for _, c := range all {
		results[c.Result]++
		domains[c.Domain]++
		ids[c.ID] = true
		if c.Prompt == "" || c.Response == "" || !strings.Contains(c.Philosopher, "@") || (c.Result == "PENDING") != c.EvaluatedAt.IsZero() {
			t.Errorf("%+v", c)
		}
	}
	if len(ids) != len(all) || len(all) < 35 || len(domains) != 3 ||
		results["PENDING"] < len(all)/2 || results["VICTORY"] < 3 || results["DEFEAT"] < 3 || results["NEUTRAL"] < 3 || len(results) != 4 {
		t.Errorf("%d conquests, %d ids, results %v, domains %v", len(all), len(ids), results, domains)
	}
}

// The data survives a crash, a halt and an orderly restart, under the same URL.
func TestRestart(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t, sandbox.Options{Settings: map[string]string{"work_mem": "5MB"}})
	url, err := server.CreateDatabase(t.Context(), sandbox.Schema{})
	if err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		name string
		down func() error
	}{{"crash", server.Crash}, {"halt", server.Halt}, {"restart", func() error { return nil }}}
	for i, step := range steps {
		exec(t, url, `INSERT INTO "Conquest" (id, philosopher, domain) VALUES ($1, 'p@example.com', 'd')`, step.name)
		if err := step.down(); err != nil {
			t.Fatal(step.name, err)
		}
		if _, err := pgx.Connect(t.Context(), url); step.name != "restart" && err == nil {
			t.Fatal("still up after", step.name)
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(step.name, err)
		}
		var rows int
		var setting string
		conn := connect(t, url)
		if err := conn.QueryRow(t.Context(), `SELECT count(*), current_setting('work_mem') FROM "Conquest"`).Scan(&rows, &setting); err != nil {
			t.Fatal(err)
		}
		if rows != i+1 || setting != "5MB" {
			t.Errorf("after %s: %d rows, want %d; work_mem %s", step.name, rows, i+1, setting)
		}
	}
}

// A database goes although somebody streams from its slot, and a slot of another database stays.
func TestDropDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	kept := pgtest.Database(t, sandbox.Schema{})
	exec(t, kept, "SELECT pg_create_logical_replication_slot('kept', 'pgoutput')")
	url, err := server.CreateDatabase(t.Context(), sandbox.Schema{})
	if err != nil {
		t.Fatal(err)
	}
	exec(t, url, "SELECT pg_create_logical_replication_slot('dropped', 'pgoutput')")
	exec(t, url, "CREATE PUBLICATION p FOR ALL TABLES")
	stream := replicate(t, url, "START_REPLICATION SLOT dropped LOGICAL 0/0 (proto_version '1', publication_names 'p')")
	if err := server.DropDatabase(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	for { // what was sent before, then the end
		if _, err := stream.ReceiveMessage(t.Context()); err != nil {
			break
		}
	}
	if err := server.DropDatabase(t.Context(), url); err != nil {
		t.Error("dropping again:", err)
	}
	var slots int
	if err := connect(t, server.URL()).QueryRow(t.Context(), "SELECT count(*) FROM pg_replication_slots WHERE slot_name IN ('kept', 'dropped')").Scan(&slots); err != nil || slots != 1 {
		t.Errorf("%d slots are left, want the kept one (%v)", slots, err)
	}
}

func replicate(t *testing.T, url, command string) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), url+"&replication=database")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	conn.Frontend().SendQuery(&pgproto3.Query{String: command})
	if err := conn.Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ReceiveMessage(t.Context()); err != nil { // CopyBothResponse: the slot is active
		t.Fatal(err)
	}
	return conn
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func exec(t *testing.T, url, sql string, args ...any) {
	t.Helper()
	if _, err := connect(t, url).Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}
