package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// CheckPublication tells what is wrong with a publication as it is now: it is not there, leaves a kind of change or (by a filter) some rows out, lacks one of
// tables, or has a table without the key column. tables are written as Change.Table; none means at least one.
// What it finds is an *Error of ClassOperator with a hint; other errors mean that it could not look. A plain role may call it.
func CheckPublication(ctx context.Context, conn *pgx.Conn, publication, keyColumn string, tables ...string) error {
	wrong := func(format string, args ...any) error {
		return &Error{Op: fmt.Sprintf("check publication %q", publication), Class: ClassOperator, Hint: hintSetup, Err: fmt.Errorf(format, args...)}
	}
	var complete bool
	err := conn.QueryRow(ctx, `SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate FROM pg_publication WHERE pubname = $1`,
		publication).Scan(&complete)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return wrong("it does not exist in this database")
	case err != nil:
		return wrap("look for the publication", err)
	case !complete:
		return wrong("it does not publish all of insert, update, delete and truncate")
	}
	rows, err := conn.Query(ctx, `
		SELECT CASE schemaname WHEN 'public' THEN tablename::text ELSE schemaname || '.' || tablename END,
		       $2 = ANY (attnames), rowfilter IS NOT NULL
		FROM pg_publication_tables WHERE pubname = $1`, publication, keyColumn)
	if err != nil {
		return wrap("list the publication's tables", err)
	}
	var published []string
	var table string
	var keyed, filtered bool
	_, err = pgx.ForEachRow(rows, []any{&table, &keyed, &filtered}, func() error {
		published = append(published, table)
		switch {
		case !keyed:
			return wrong("table %s is published without its column %q", table, keyColumn)
		case filtered:
			return wrong("table %s is published with a row filter", table)
		}
		return nil
	})
	if err != nil {
		return wrap("list the publication's tables", err)
	}
	if len(published) == 0 {
		return wrong("it has no table")
	}
	for _, want := range tables {
		if !slices.Contains(published, want) {
			return wrong("it lacks table %s", want)
		}
	}
	return nil
}

// publicationParts lists the catalog rows that say what a publication publishes, with the transaction that wrote each.
const publicationParts = `
	SELECT p.oid, 0::oid AS part, p.xmin FROM pg_publication p WHERE p.pubname = $1
	UNION ALL
	SELECT p.oid, r.prrelid, r.xmin FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid WHERE p.pubname = $1
	UNION ALL
	SELECT p.oid, n.pnnspid, n.xmin FROM pg_publication p JOIN pg_publication_namespace n ON n.pnpubid = p.oid WHERE p.pubname = $1`

// printSQL is publicationPrint as a query: $1 is the publication.
const printSQL = `SELECT coalesce(string_agg(oid || '/' || part || '@' || xmin, ' ' ORDER BY oid, part, xmin::text), '')
		FROM (` + publicationParts + `) AS parts`

// publicationPrint changes whenever the publication was changed, also if it was changed back.
func publicationPrint(ctx context.Context, conn *pgx.Conn, publication string) (string, error) {
	var print string
	err := conn.QueryRow(ctx, printSQL, publication).Scan(&print)
	if err != nil {
		return "", wrap("look for the publication", err)
	}
	return print, nil
}

// publicationYounger tells whether the publication was made or changed later than the slot stands. The server reads the catalog as it
// was at the place it decodes: there the publication is missing, which it answers with 42704 for ever (18: with silence), or it lacks a table,
// which no version tells. A transaction below the slot's catalog_xmin was over when the slot's place was written, so what it
// made is seen. The reverse can be a false alarm, shortly after a slot was made on a server that has others: it costs one more comparison.
func publicationYounger(ctx context.Context, conn *pgx.Conn, publication, slot string) (bool, error) {
	var younger bool
	err := conn.QueryRow(ctx, `SELECT coalesce(bool_or(age(parts.xmin) <= age(s.catalog_xmin)), false)
		FROM (`+publicationParts+`) AS parts, pg_replication_slots s WHERE s.slot_name = $2`, publication, slot).Scan(&younger)
	if err != nil {
		return false, wrap("compare publication and slot", err)
	}
	return younger, nil
}

// quotePublication writes a name as pgoutput wants it inside its option's literal: without double quotes it would be folded to lower case.
func quotePublication(name string) string {
	return strings.ReplaceAll(`"`+strings.ReplaceAll(name, `"`, `""`)+`"`, "'", "''")
}

var errPublicationChanged = &Error{Op: "watch the publication", Class: ClassSlotGone, Err: errors.New("it was changed")}

// watch returns when the publication is no longer what print says, when the slot keeps too much WAL, or when ctx ends. That it could not look is
// no finding: the stream itself is the judge of the server's health. Both change with WAL alone, and the stream tells how much there is:
// at rest nobody is asked.
func (l *Listener) watch(ctx context.Context, print string) error {
	ticker := time.NewTicker(max(l.cfg.CheckEvery/10, 1))
	defer ticker.Stop()
	last, seen := time.Now(), uint64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		end := l.received.Load() // before the look: what comes while we look is for the next one
		if end == seen || time.Since(last) < l.cfg.CheckEvery {
			continue
		}
		now, retained, err := l.lookAround(ctx)
		last = time.Now()
		switch {
		case err != nil:
			l.cfg.Log.DebugContext(ctx, "publication not looked at", logError, err)
			continue
		case now != print:
			return errPublicationChanged
		case l.cfg.MaxRetained > 0 && retained > l.cfg.MaxRetained:
			return errRetained
		}
		seen = end
	}
}

func (l *Listener) lookAround(ctx context.Context) (print string, retained int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := l.connect(ctx, false)
	if err != nil {
		return "", 0, err
	}
	defer hangUp(ctx, conn)
	// In one statement: it is asked again and again.
	err = conn.QueryRow(ctx, `SELECT (`+printSQL+`), (`+retainedSQL("$2")+`)`, l.cfg.Publication, l.cfg.Slot).Scan(&print, &retained)
	if err != nil {
		return "", 0, wrap("look for the publication", err)
	}
	return print, retained, nil
}
