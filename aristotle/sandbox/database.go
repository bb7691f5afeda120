package sandbox

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed schema.sql
var tablesSQL string

//go:embed schema_enums.sql
var enumsSQL string

//go:embed schema_texts.sql
var textsSQL string

// Schema is one of the shapes that Aristotle's database has in its installations. The zero value has VARCHAR columns and no
// texts.
type Schema struct {
	// Name of the database; default: a new one that nobody else has.
	Name string
	// Enums declares result, status and "conquestType" as enums, as Prisma does, instead of VARCHAR.
	Enums bool
	// Texts adds conquest_prompt and conquest_response.
	Texts bool
	// Bare leaves the database empty: it is for another application.
	Bare bool
}

func (s Schema) statements() string {
	if s.Bare {
		return ""
	}
	sql, types := tablesSQL, strings.NewReplacer("{{RESULT}}", "VARCHAR", "{{STATUS}}", "VARCHAR", "{{TYPE}}", "VARCHAR")
	if s.Enums {
		sql = enumsSQL + sql
		types = strings.NewReplacer("{{RESULT}}", `"ConquestResult"`, "{{STATUS}}", `"ConquestStatus"`, "{{TYPE}}", `"ConquestType"`)
	}
	if s.Texts {
		sql += textsSQL
	}
	return types.Replace(sql)
}

// CreateDatabase makes a database with Aristotle's tables, empty, and returns the superuser's URL of it. [Load] fills it.
func (s *Server) CreateDatabase(ctx context.Context, schema Schema) (url string, err error) {
	name := cmp.Or(schema.Name, "aristotle_"+strings.ToLower(rand.Text()[:12]))
	if err := execute(ctx, s.URL(), "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	url = s.url(name)
	if sql := schema.statements(); sql != "" {
		if err := execute(ctx, url, sql); err != nil {
			return "", errors.Join(fmt.Errorf("create the tables of %s: %w", name, err), s.DropDatabase(context.WithoutCancel(ctx), url))
		}
	}
	return url, nil
}

// DropDatabase removes a database, given by its URL, together with its connections and its replication slots, active ones
// included. A database that is not there is fine.
func (s *Server) DropDatabase(ctx context.Context, url string) error {
	target, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("drop database: %w", err)
	}
	name := target.Database
	conn, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_database WHERE datname = $1", name).Scan(&there); err != nil || !there {
		return err
	}
	quoted := pgx.Identifier{name}.Sanitize()
	steps := []struct {
		sql  string
		args []any
	}{
		// First shut the door: a listener reconnects faster than we can go on.
		{"ALTER DATABASE " + quoted + " ALLOW_CONNECTIONS false", nil},
		{"SELECT pg_terminate_backend(active_pid, $2) FROM pg_replication_slots WHERE database = $1 AND active", []any{name, 5000}},
		{"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1", []any{name}},
		{"DROP DATABASE " + quoted + " WITH (FORCE)", nil},
	}
	for _, step := range steps {
		if _, err := conn.Exec(ctx, step.sql, step.args...); err != nil {
			return fmt.Errorf("drop database %s: %w", name, err)
		}
	}
	return nil
}

// execute runs statements on a connection of their own.
func execute(ctx context.Context, url, sql string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}
