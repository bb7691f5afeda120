package ledger

import (
	"context"
	"fmt"
)

// StuckAfter is how many failures in a row make a key one that a person should look at.
const StuckAfter = 8

// Stats is the queue as a whole.
type Stats struct {
	Ready, Waiting, Running, Stuck, Held int
	// Oldest is the age in seconds of the oldest trigger that is not settled yet, by
	// the side that it goes to; 0 for none.
	OldestToStudio, OldestToAristotle float64
}

// statsSQL counts the queue: $1 is StuckAfter.
const statsSQL = `SELECT
			count(*) FILTER (WHERE NOT running AND NOT stuck AND run_after <= now()),
			count(*) FILTER (WHERE NOT running AND NOT stuck AND run_after > now()),
			count(*) FILTER (WHERE running),
			count(*) FILTER (WHERE NOT running AND stuck),
			(SELECT count(DISTINCT key) FROM edge WHERE held IS NOT NULL),
			COALESCE(extract(epoch FROM now() - min(since) FILTER (WHERE source IN ('wal', 'api', 'curation'))), 0)::float8,
			COALESCE(extract(epoch FROM now() - min(since) FILTER (WHERE source IN ('webhook', 'diff'))), 0)::float8
		FROM (SELECT run_after, since, source, COALESCE(leased_until > now(), false) AS running, attempts >= $1 AS stuck
			FROM queue WHERE want_gen > done_gen) q`

func (s *Stats) fields() []any {
	return []any{&s.Ready, &s.Waiting, &s.Running, &s.Stuck, &s.Held, &s.OldestToStudio, &s.OldestToAristotle}
}

// Stats counts the queue. It reads dirty keys only.
func (l *Ledger) Stats(ctx context.Context) (s Stats, err error) {
	if err := l.pool.QueryRow(ctx, statsSQL, StuckAfter).Scan(s.fields()...); err != nil {
		return Stats{}, fmt.Errorf("count the queue: %w", err)
	}
	return s, nil
}

// Slot is what the server says of a replication slot, all in bytes of WAL. The zero
// value is that of one that is not there.
type Slot struct {
	Status   string  // wal_status: "reserved", …, "lost"; "" where there is no such slot
	Active   bool    // somebody reads it
	Retained float64 // kept for it
	Lag      float64 // after what was confirmed
	Safe     float64 // can still be written before it is lost; +Inf without such a limit
}

// slotSQL is one row, also where there is no slot %s.
const slotSQL = `SELECT COALESCE(wal_status, CASE WHEN slot_name IS NULL THEN '' ELSE 'unknown' END), COALESCE(active, false),
			COALESCE(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::float8,
			COALESCE(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::float8,
			CASE WHEN slot_name IS NULL OR wal_status = 'lost' THEN 0 ELSE COALESCE(safe_wal_size, 'Infinity'::float8) END
		FROM (VALUES (%s::name)) AS wanted (name) LEFT JOIN pg_replication_slots ON slot_name = wanted.name`

func (s *Slot) fields() []any { return []any{&s.Status, &s.Active, &s.Retained, &s.Lag, &s.Safe} }

// Slot returns what the server says of a replication slot.
func (l *Ledger) Slot(ctx context.Context, name string) (s Slot, err error) {
	if err := l.pool.QueryRow(ctx, fmt.Sprintf(slotSQL, "$1"), name).Scan(s.fields()...); err != nil {
		return Slot{}, fmt.Errorf("look at slot %q: %w", name, err)
	}
	return s, nil
}

// StatsAndSlot are both in one statement, for who asks again and again.
func (l *Ledger) StatsAndSlot(ctx context.Context, name string) (stats Stats, slot Slot, err error) {
	err = l.pool.QueryRow(ctx, `SELECT * FROM (`+statsSQL+`) AS stats, (`+fmt.Sprintf(slotSQL, "$2")+`) AS slot`, StuckAfter, name).
		Scan(append(stats.fields(), slot.fields()...)...)
	if err != nil {
		return Stats{}, Slot{}, fmt.Errorf("count the queue and look at slot %q: %w", name, err)
	}
	return stats, slot, nil
}
