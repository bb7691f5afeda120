package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle"
)

// look reads from the catalog what [planSetup] has to know. It changes nothing.
func look(ctx context.Context, conn *pgx.Conn, w wish) (facts, error) {
	f := facts{roles: map[string]role{}}
	for _, step := range []struct {
		what string
		do   func(context.Context, *pgx.Conn, wish, *facts) error
	}{
		{"the server", lookServer}, {"the roles", lookRoles}, {"the tables", lookTables},
		{"the rights", lookRights}, {"the publication", lookPublication},
	} {
		if err := step.do(ctx, conn, w, &f); err != nil {
			return facts{}, fmt.Errorf("look at %s: %w", step.what, err)
		}
	}
	return f, nil
}

func lookServer(ctx context.Context, conn *pgx.Conn, w wish, f *facts) error {
	return conn.QueryRow(ctx, `
		SELECT current_setting('server_version_num')::int, current_setting('wal_level'), current_database(),
		       current_user, rolsuper,
		       NOT rolsuper AND EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication'),
		       coalesce((SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = $1), '')
		FROM pg_roles WHERE rolname = current_user`, w.schema).
		Scan(&f.version, &f.walLevel, &f.database, &f.admin, &f.super, &f.rds, &f.schemaOwner)
}

// lookRoles also finds whether the passwords are right: by their verifiers, which a superuser may read, else by logging in.
// (Where the server lets everybody in without asking, the latter proves nothing, and a changed password goes unnoticed.)
func lookRoles(ctx context.Context, conn *pgx.Conn, w wish, f *facts) error {
	for _, l := range []login{w.ordinary, w.replication} {
		var r role
		exists := false
		rows, err := conn.Query(ctx, `
			SELECT rolcanlogin,
			       rolsuper OR rolreplication OR EXISTS (
			           SELECT FROM pg_roles g WHERE g.rolname = 'rds_replication' AND pg_has_role(r.oid, g.oid, 'MEMBER'))
			FROM pg_roles r WHERE rolname = $1`, l.name)
		if err != nil {
			return err
		}
		if _, err = pgx.ForEachRow(rows, []any{&r.login, &r.replication}, func() error { exists = true; return nil }); err != nil {
			return err
		}
		if exists {
			if r.passwordRight, err = passwordRight(ctx, conn, l, f.super); err != nil {
				return err
			}
			f.roles[l.name] = r
		}
		var connect bool
		if err := conn.QueryRow(ctx, `SELECT has_database_privilege($1, current_database(), 'CONNECT')`, f.orPublic(l.name)).
			Scan(&connect); err != nil {
			return err
		}
		if connect {
			f.connectRoles = append(f.connectRoles, l.name)
		}
	}
	return nil
}

// orPublic is the role, or, while it does not exist, PUBLIC, whose rights are those it will begin with.
func (f *facts) orPublic(name string) string {
	if _, exists := f.roles[name]; exists {
		return name
	}
	return "public"
}

func passwordRight(ctx context.Context, conn *pgx.Conn, l login, super bool) (bool, error) {
	if !super {
		c, err := pgx.Connect(ctx, string(l.dsn))
		if err != nil {
			return false, nil // whatever the reason: setting the password again does no harm
		}
		return true, c.Close(ctx)
	}
	var verifier string
	err := conn.QueryRow(ctx, `SELECT coalesce(rolpassword, '') FROM pg_authid WHERE rolname = $1`, l.name).Scan(&verifier)
	return scramMatches(verifier, l.password), err
}

func lookTables(ctx context.Context, conn *pgx.Conn, _ wish, f *facts) error {
	names := slices.Concat(aristotle.RequiredTables(), aristotle.OptionalTables())
	rows, err := conn.Query(ctx, `
		SELECT c.relname, c.relkind::text, c.relreplident::text,
		       ARRAY(SELECT a.attname::text
		             FROM pg_index i JOIN pg_attribute a
		               ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
		             WHERE i.indrelid = c.oid AND i.indisvalid
		               AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
		             ORDER BY a.attname)
		FROM pg_class c
		WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY ($1::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
		ORDER BY array_position($1::text[], c.relname::text)`, names)
	if err != nil {
		return err
	}
	var t table
	_, err = pgx.ForEachRow(rows, []any{&t.name, &t.kind, &t.identity, &t.key}, func() error {
		f.tables = append(f.tables, t)
		t.key = nil
		return nil
	})
	return err
}

func lookRights(ctx context.Context, conn *pgx.Conn, w wish, f *facts) error {
	membership := "MEMBER" // to make things for a role; since PostgreSQL 16 that is an option of its own
	if f.version >= 160000 {
		membership = "SET"
	}
	if _, exists := f.roles[w.ordinary.name]; exists {
		err := conn.QueryRow(ctx, `SELECT pg_has_role(current_user, $1, $2)`, w.ordinary.name, membership).Scan(&f.ownerMember)
		if err != nil {
			return err
		}
	}
	names := make([]string, len(f.tables))
	for i, t := range f.tables {
		names[i] = t.name
	}
	// The texts are those of [privilege].
	rows, err := conn.Query(ctx, `
		WITH t AS (SELECT oid, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = ANY ($2::text[]))
		SELECT 'USAGE public' WHERE has_schema_privilege($1, 'public', 'USAGE')
		UNION ALL
		SELECT p || ' ' || relname FROM t, unnest('{SELECT,INSERT,UPDATE}'::text[]) p WHERE has_table_privilege($1, t.oid, p)
		UNION ALL
		SELECT 'UPDATE ' || relname || '.' || attname FROM t JOIN pg_attribute a ON attrelid = t.oid
		WHERE attnum > 0 AND NOT attisdropped AND has_column_privilege($1, t.oid, attnum, 'UPDATE')`, f.orPublic(w.ordinary.name), names)
	if err != nil {
		return err
	}
	f.privileges, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return err
}

func lookPublication(ctx context.Context, conn *pgx.Conn, w wish, f *facts) error {
	p := &f.publication
	rows, err := conn.Query(ctx, `
		SELECT puballtables, pubviaroot, pubinsert::int + pubupdate::int + pubdelete::int + pubtruncate::int,
		       EXISTS (SELECT FROM pg_publication_namespace WHERE pnpubid = p.oid),
		       EXISTS (SELECT FROM pg_publication_rel WHERE prpubid = p.oid AND prqual IS NOT NULL)
		FROM pg_publication p WHERE pubname = $1`, w.publication)
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, []any{&p.allTables, &p.viaRoot, &p.operations, &p.schemas, &p.filtered},
		func() error { p.exists = true; return nil })
	if err != nil {
		return err
	}
	rows, err = conn.Query(ctx, `
		SELECT n.nspname, c.relname,
		       ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum = ANY (m.prattrs))
		FROM pg_publication_rel m JOIN pg_publication p ON p.oid = m.prpubid
		JOIN pg_class c ON c.oid = m.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE p.pubname = $1`, w.publication)
	if err != nil {
		return err
	}
	var schema, name string
	var columns []string
	_, err = pgx.ForEachRow(rows, []any{&schema, &name, &columns}, func() error {
		p.members = append(p.members, member(schema, name, columns))
		return nil
	})
	slices.Sort(p.members)
	return err
}
