package reconciler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/cdc"
)

// replicationSetting names the URL of the stream as the person set it.
func (v *visit) replicationSetting() string {
	if v.OneURL {
		return "ARISTOTLE_REPLICATION_URL (not set, so it is ARISTOTLE_DATABASE_URL)"
	}
	return "ARISTOTLE_REPLICATION_URL"
}

// replication connects as the stream does: that is the proof of LOGIN, REPLICATION, pg_hba.conf, a free WAL sender and no pooler.
func (v *visit) replication(ctx context.Context) (fact string, findings []Finding, err error) {
	if v.stream, err = plainConnection(ctx, v.Replication); err != nil {
		findings, err = refusedLogin(v.replicationSetting(), v.Replication, err)
		return "", findings, err
	}
	defer func() {
		if err == nil && len(findings) == 0 {
			v.reach("replication")
		}
	}()
	listener, err := cdc.New(cdc.Config{URL: v.Replication, Slot: v.Slot, Publication: v.Publication, Log: v.Log,
		Tables: []string{TableConquest}, Handle: func(context.Context, cdc.Batch) error { return nil }})
	if err != nil {
		return "", nil, err
	}
	for _, problem := range listener.Check(ctx) {
		more, err := findingOf(problem, "Changes of Aristotle's rows would not be noticed.")
		var pg *pgconn.PgError
		if errors.As(problem, &pg) && pg.Code == "53300" {
			more, err = []Finding{{Fatal, v.replicationSetting() + ": " + pg.Message, "The stream needs a WAL sender.",
				"ALTER SYSTEM SET max_wal_senders = 20 (the default is 10), restart PostgreSQL."}}, nil
		}
		if err != nil {
			return "", findings, fmt.Errorf("%s: %w", v.replicationSetting(), err)
		}
		for i := range more {
			if pg != nil {
				more[i] = v.refusedStream(more[i], pg)
			}
		}
		findings = append(findings, more...)
	}
	more, err := v.oneServer(ctx)
	findings = append(findings, append(more, tlsFindings("ARISTOTLE_REPLICATION_URL", v.stream)...)...)
	return fmt.Sprintf("as role %q, %s", role(v.stream), encryption(v.stream)), findings, err
}

// refusedStream names the missing right, and the setting by which the role came here.
func (v *visit) refusedStream(f Finding, pg *pgconn.PgError) Finding {
	f.What = v.replicationSetting() + ": " + f.What
	if pg.Code == "42501" {
		name := pgx.Identifier{role(v.stream)}.Sanitize()
		f.What = fmt.Sprintf("%s: role %q lacks REPLICATION", v.replicationSetting(), role(v.stream))
		f.Mend = "ALTER ROLE " + name + " REPLICATION, on RDS GRANT rds_replication TO " + name + " (`reconciler setup` does it)."
	}
	return f
}

// oneServer finds two URLs that lead to two databases.
func (v *visit) oneServer(ctx context.Context) ([]Finding, error) {
	if v.db == nil {
		return nil, nil
	}
	const identity = `SELECT pg_postmaster_start_time()::text || ' ' || oid FROM pg_database WHERE datname = current_database()`
	var one, other string
	if err := errors.Join(v.db.QueryRow(ctx, identity).Scan(&one), v.stream.QueryRow(ctx, identity).Scan(&other)); err != nil {
		return nil, fmt.Errorf("compare the two servers: %w", err)
	}
	if one == other {
		return nil, nil
	}
	return []Finding{{Fatal, "ARISTOTLE_DATABASE_URL and ARISTOTLE_REPLICATION_URL lead to two servers or databases",
		"What is changed in the one would be looked for in the other.", "Let both name the same host, port and database."}}, nil
}

// harmSQL lists what our publication does to the tables in it: those of whose identity it leaves out a part, so that the application's own
// UPDATEs fail while its INSERTs work; and those columns beyond the identity that its migrations could not change any more.
const harmSQL = `
	SELECT c.oid::regclass::text AS name, c.relreplident::text AS identity,
	       m.prattrs IS NOT NULL AS listed, m.prqual IS NOT NULL AS filtered,
	       CASE c.relreplident WHEN 'f' THEN m.prattrs IS NULL WHEN 'n' THEN false
	            ELSE k.cols IS NOT NULL AND (m.prattrs IS NULL OR k.cols <@ m.prattrs::int2[]) END AS whole,
	       ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum = ANY (m.prattrs) AND NOT attnum = ANY (COALESCE(k.cols, '{}'))) AS more
	FROM pg_publication_rel m JOIN pg_publication p ON p.oid = m.prpubid JOIN pg_class c ON c.oid = m.prrelid
	LEFT JOIN LATERAL (SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1] AS cols FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid
		AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END) k ON true
	WHERE p.pubname = $1
	ORDER BY 1`

func (v *visit) publication(ctx context.Context) (fact string, findings []Finding, err error) {
	rows, err := v.db.Query(ctx, harmSQL, v.Publication)
	if err != nil {
		return "", nil, fmt.Errorf("look at the publication: %w", err)
	}
	var name, identity string
	var listed, filtered, whole bool
	var more, names []string
	_, err = pgx.ForEachRow(rows, []any{&name, &identity, &listed, &filtered, &whole, &more}, func() error {
		names = append(names, name)
		if !whole {
			findings = append(findings, breaksUpdates(name, identity))
		}
		if len(more) > 0 {
			findings = append(findings, Finding{Warning, fmt.Sprintf("the publication publishes columns of %s beside its key: %s", name, strings.Join(more, ", ")),
				"The application's migrations cannot drop or alter a published column (2BP01, 0A000), and the daemon reads only the key.", "reconciler setup"})
		}
		return nil
	})
	if err != nil {
		return "", nil, fmt.Errorf("look at the publication: %w", err)
	}
	for _, t := range append([]string{"ml_analysis_rating"}, aristotle.OptionalTables()...) { // of "Conquest" the stream's own check tells
		var there bool
		// Without the right to the schema its tables are not seen in the publication either, and another finding says so.
		const sql = `SELECT has_schema_privilege('public', 'USAGE') AND EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public' AND tablename = $1)`
		if err := v.db.QueryRow(ctx, sql, t).Scan(&there); err != nil {
			return "", findings, fmt.Errorf("look for table %s: %w", t, err)
		}
		if there && !slices.Contains(names, t) {
			findings = append(findings, Finding{Warning, "the publication lacks table " + t, "The examples would not follow it: they are served as they were until they are all read again.", "reconciler setup"})
		}
	}
	return strings.Join(names, ", "), findings, nil
}

func breaksUpdates(table, identity string) Finding {
	f := Finding{Fatal, "the publication makes every UPDATE and DELETE of " + table + " fail, the application's own among them", "", "reconciler setup"}
	switch identity {
	case "f":
		f.Why = "The table has REPLICA IDENTITY FULL, and the publication lists some of its columns."
	case "n":
		f.Why = "The table has REPLICA IDENTITY NOTHING."
		f.Mend = "ALTER TABLE " + table + " REPLICA IDENTITY DEFAULT; then reconciler setup"
	default:
		f.Why = "The table has no key, or the publication leaves a column of it out."
		f.Mend = "Where there is no primary key: ALTER TABLE " + table + " ADD PRIMARY KEY (id); then reconciler setup"
	}
	return f
}
