package main

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle/sandbox"
)

// TestStudioDatabase: Label Studio's own database is a shorter way, and no more. Away at the start, away later, or with a new password, passes
// read through the API, say so, and go back by themselves. What only a person can mend ends the start.
func TestStudioDatabase(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	side.passes = "@every 1000h" // so that full passes alone find anything
	s := newStreet(t, sandbox.Schema{}, side)
	theirs := unprepared(t, sandbox.Schema{Bare: true})
	setUpRoles(t, theirs)
	reader := roleOf(t, theirs.AristotleDatabaseURL)
	admin := connect(t, s.cfg.AristotleAdminURL)
	execAll(t, admin, `GRANT CONNECT ON DATABASE `+ident(databaseOf(t, theirs.AristotleDatabaseURL))+` TO `+ident(reader))
	s.wantRefused(s.spawn("LABEL_STUDIO_DATABASE_URL="+string(theirs.AristotleDatabaseURL)), "not the tables of Label Studio", "Check LABEL_STUDIO_DATABASE_URL")
	s.wantRefused(s.spawn("LABEL_STUDIO_DATABASE_URL="+wrongPassword(t, theirs.AristotleDatabaseURL)), "password authentication failed", "Check LABEL_STUDIO_DATABASE_URL")

	tasks := []int64{s.pair("one", "PENDING"), s.pair("two", "PENDING")}
	s.copyTasks(theirs.AristotleAdminURL, reader)
	opened := func(yes bool) {
		execAll(t, admin, fmt.Sprintf(`ALTER DATABASE %s ALLOW_CONNECTIONS %v`, ident(databaseOf(t, theirs.AristotleAdminURL)), yes))
	}
	opened(false)
	file := filepath.Join(t.TempDir(), "url")
	write(t, file, string(theirs.AristotleDatabaseURL))
	p := s.start("LABEL_STUDIO_DATABASE_URL_FILE="+file, "RECONCILER_FULL_DIFF_SCHEDULE=@every 1s", "RECONCILER_LOG_LEVEL=info")
	s.wantContact(tasks...)
	s.setMeta(tasks[0], object{"gold_star": true})
	s.wantResult("one", "VICTORY")
	const away = "Label Studio's database cannot be read: reading through its API"
	if n := strings.Count(p.out.String(), `level=WARN msg="`+away); n != 1 {
		t.Errorf("it was told %d times that it is away:\n%s", n, p.out.String())
	}

	opened(true)
	s.wantLog(p, "works again: "+away)
	look := connect(t, theirs.AristotleAdminURL)
	s.wantReadThere(look)

	const next = "another-passw0rd"
	execAll(t, admin, `ALTER ROLE `+ident(reader)+` PASSWORD '`+next+`'`, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = `+literal(reader))
	u, err := url.Parse(string(theirs.AristotleDatabaseURL))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(reader, next)
	write(t, file, u.String())
	s.wantLog(p, "setting=LABEL_STUDIO_DATABASE_URL")
	s.wantReadThere(look)
	s.setMeta(tasks[1], object{"gold_star": true})
	execAll(t, look, `UPDATE task SET meta = '{"gold_star": true}', updated_at = now()`)
	s.wantResult("two", "VICTORY")
	s.wantEqual()
}

// copyTasks makes a database that has the tables of Label Studio's own, and its tasks.
func (s *street) copyTasks(to DSN, reader string) {
	s.Helper()
	conn := connect(s.T, to)
	execAll(s.T, conn,
		`CREATE TABLE task (id int PRIMARY KEY, project_id int, data jsonb, meta jsonb, created_at timestamptz, updated_at timestamptz)`,
		`CREATE TABLE task_completion (id int PRIMARY KEY, task_id int, result jsonb, was_cancelled bool, ground_truth bool, completed_by_id int, updated_by_id int, created_at timestamptz, updated_at timestamptz)`,
		`GRANT SELECT ON task, task_completion TO `+ident(reader))
	tasks, _, err := s.studio.TasksAfter(s.Context(), s.projects[0], 0, 100)
	if err != nil {
		s.Fatal(err)
	}
	for _, t := range tasks {
		if _, err := conn.Exec(s.Context(), `INSERT INTO task VALUES ($1, $2, $3, $4, $5, $6)`, t.ID, t.Project, t.Data, t.Meta, t.CreatedAt, t.UpdatedAt); err != nil {
			s.Fatal(err)
		}
	}
	if err := conn.Close(s.Context()); err != nil {
		s.Fatal(err)
	}
}

// wantReadThere waits until annotations are read in Label Studio's database once more.
func (s *street) wantReadThere(conn *pgx.Conn) {
	s.Helper()
	read := func() (n int) {
		if err := conn.QueryRow(s.Context(), `SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'task_completion'`).Scan(&n); err != nil {
			s.Fatal(err)
		}
		return n
	}
	before := read()
	s.eventually(func() string {
		if read() == before {
			return "no pass reads Label Studio's database"
		}
		return ""
	})
}
