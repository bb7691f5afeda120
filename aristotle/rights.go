package aristotle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// RequiredTables must be there; OptionalTables are in some installations only.
func RequiredTables() []string { return []string{"Conquest", "ml_analysis_rating"} }

// OptionalTables are the tables with prompts and responses.
func OptionalTables() []string { return []string{"conquest_prompt", "conquest_response"} }

// Right is one thing that the daemon's role must be allowed to do.
type Right struct {
	Table  string // "" for the schema public itself
	Verb   string // USAGE, SELECT, INSERT, UPDATE
	Column string // "" for all of them
}

// The columns of a rating that are written.
const (
	ratingMade    = "id, conquest_analysis_id, analysis_type, rating, is_gold_star, use_as_sample_response, philosopher, domain, label_studio_task_id, label_studio_annotation_id, created_at, updated_at"
	ratingChanged = "rating, is_gold_star, use_as_sample_response, label_studio_task_id, label_studio_annotation_id, updated_at"
)

// Rights are what the contract gives the daemon's role on a table, and no more. On no table ("") it is the way into the schema.
func Rights(table string) []Right {
	switch table {
	case "":
		return []Right{{Verb: "USAGE"}}
	case "Conquest":
		all := []Right{{Table: table, Verb: "SELECT"}}
		for _, column := range []string{"result", "useAsExample", "evaluatedBy", "evaluatedAt", "updatedAt"} {
			all = append(all, Right{table, "UPDATE", column})
		}
		return all
	case "ml_analysis_rating":
		return []Right{{Table: table, Verb: "SELECT"}, {Table: table, Verb: "INSERT"}, {Table: table, Verb: "UPDATE"}}
	}
	return []Right{{Table: table, Verb: "SELECT"}}
}

func (r Right) table() string { return "public." + pgx.Identifier{r.Table}.Sanitize() }

// String names the right, as in `UPDATE ("result") on public."Conquest"`.
func (r Right) String() string {
	switch {
	case r.Table == "":
		return r.Verb + " on schema public"
	case r.Column != "":
		return r.Verb + " (" + pgx.Identifier{r.Column}.Sanitize() + ") on " + r.table()
	}
	return r.Verb + " on " + r.table()
}

// Grant is the statement that gives the right to a role.
func (r Right) Grant(role string) string {
	what := strings.Replace(r.String(), " on ", " ON ", 1)
	return "GRANT " + strings.Replace(what, "schema", "SCHEMA", 1) + " TO " + pgx.Identifier{role}.Sanitize()
}

// statement needs this right, no other, and changes no row.
func (r Right) statement() string {
	switch {
	case r.Verb == "USAGE":
		return `SELECT to_regclass('public."Conquest"')`
	case r.Verb == "SELECT":
		return "SELECT * FROM " + r.table() + " LIMIT 0"
	case r.Verb == "INSERT":
		nulls := strings.Repeat("NULL, ", strings.Count(ratingMade, ","))
		return "INSERT INTO " + r.table() + " (" + ratingMade + ") SELECT " + nulls + "NULL WHERE false"
	case r.Column != "":
		return "UPDATE " + r.table() + " SET " + pgx.Identifier{r.Column}.Sanitize() + " = DEFAULT WHERE false"
	}
	return "UPDATE " + r.table() + " SET " + strings.ReplaceAll(ratingChanged, ",", " = DEFAULT,") + " = DEFAULT WHERE false"
}

// Refusal is a right that the server did not honour, with what it said: 42501 (insufficient_privilege) where the role lacks it,
// else a reason for which nobody could do this: a table or a column that is not there, or a publication that forbids it.
type Refusal struct {
	Right
	Err *pgconn.PgError
}

// tryLockTimeout is how long a migration of the application may keep us waiting. Behind us its users would wait; and where it waits for
// us too, it is not the one that the server ends: see deadlock_timeout, a second.
const tryLockTimeout = "500ms"

// Try does what each right allows, on no row, in a transaction that is rolled back, and returns what was refused. Tables that
// are optional and not there are left out. An error means that it could not try.
//
// It does not ask has_table_privilege: only the doing shows what a publication or a trigger of the table forbids.
func Try(ctx context.Context, conn *pgx.Conn) ([]Refusal, error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("try the rights: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // whatever its error: nothing was changed
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+tryLockTimeout+"'"); err != nil {
		return nil, fmt.Errorf("try the rights: %w", err)
	}
	refused, err := try(ctx, tx, "")
	if err != nil || len(refused) > 0 {
		return refused, err // without the way in all else is refused too
	}
	tables := RequiredTables()
	for _, table := range OptionalTables() {
		var there bool
		if err := tx.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, "public."+table).Scan(&there); err != nil {
			return nil, fmt.Errorf("look for table %s: %w", table, err)
		}
		if there {
			tables = append(tables, table)
		}
	}
	for _, table := range tables {
		more, err := try(ctx, tx, table)
		if err != nil {
			return nil, err
		}
		refused = append(refused, more...)
	}
	return refused, nil
}

func try(ctx context.Context, tx pgx.Tx, table string) (refused []Refusal, err error) {
	for _, r := range Rights(table) {
		err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { // a savepoint: a refusal ends no more than that
			_, err := tx.Exec(ctx, r.statement())
			return err
		})
		var pg *pgconn.PgError
		switch {
		case err == nil:
		case !errors.As(err, &pg) || pg.Code == "55P03": // lock_not_available
			return nil, fmt.Errorf("try %v: %w", r, err)
		default:
			refused = append(refused, Refusal{r, pg})
			if pg.Code == "42P01" {
				return refused, nil // no table: one refusal says it
			}
		}
	}
	return refused, nil
}

// readColumns are those of a conquest that are read and not written: where one of them is gone, the server says so.
func readColumns() (all []Right) {
	for _, column := range []string{"id", "createdAt", "resultNotes", "philosopher", "domain"} {
		all = append(all, Right{"Conquest", "SELECT", column})
	}
	return all
}

// Lacking returns the rights that the role has not, in one cheap statement: it believes the catalog where [Try] does. A required table
// that is not there lacks them all; a column that is not there is an error.
func Lacking(ctx context.Context, db interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}) ([]Right, error) {
	all := Rights("")
	for _, table := range RequiredTables() {
		all = append(all, Rights(table)...)
	}
	var tables, verbs, columns []string
	for _, r := range slices.Concat(all, readColumns()) {
		tables, verbs, columns = append(tables, r.Table), append(verbs, r.Verb), append(columns, r.Column)
	}
	rows, err := db.Query(ctx, `
		SELECT i FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS r(tab, verb, col, i)
		WHERE NOT coalesce(CASE WHEN tab = '' THEN has_schema_privilege('public', verb)
		                        WHEN col = '' THEN has_table_privilege(to_regclass('public.' || quote_ident(tab)), verb)
		                        ELSE has_column_privilege(to_regclass('public.' || quote_ident(tab)), col, verb) END, false)
		ORDER BY i`, tables, verbs, columns)
	if err != nil {
		return nil, fmt.Errorf("look at the rights: %w", err)
	}
	places, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("look at the rights: %w", err)
	}
	var lacking []Right
	for _, i := range places {
		if i <= int64(len(all)) { // the others are lacking with their table
			lacking = append(lacking, all[i-1])
		}
	}
	return lacking, nil
}
