package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// stuckAfter is how many failures in a row make a key one that a person should look at.
const stuckAfter = 8

// Stats is the queue as a whole.
type Stats struct {
	Ready, Waiting, Running, Stuck, Held int
	// Oldest is the age in seconds of the oldest trigger that is not settled yet, by
	// the side that it goes to; 0 for none.
	OldestToStudio, OldestToAristotle float64
}

// Stats counts the queue. It reads dirty keys only.
func (l *Ledger) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	err := l.pool.QueryRow(ctx, `SELECT
			count(*) FILTER (WHERE NOT running AND NOT stuck AND run_after <= now()),
			count(*) FILTER (WHERE NOT running AND NOT stuck AND run_after > now()),
			count(*) FILTER (WHERE running),
			count(*) FILTER (WHERE NOT running AND stuck),
			(SELECT count(DISTINCT key) FROM edge WHERE held IS NOT NULL),
			COALESCE(extract(epoch FROM now() - min(since) FILTER (WHERE source IN ('wal', 'api', 'curation'))), 0)::float8,
			COALESCE(extract(epoch FROM now() - min(since) FILTER (WHERE source IN ('webhook', 'diff'))), 0)::float8
		FROM (SELECT run_after, since, source, COALESCE(leased_until > now(), false) AS running, attempts >= $1 AS stuck
			FROM queue WHERE want_gen > done_gen) q`, stuckAfter).
		Scan(&s.Ready, &s.Waiting, &s.Running, &s.Stuck, &s.Held, &s.OldestToStudio, &s.OldestToAristotle)
	if err != nil {
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

// Slot returns what the server says of a replication slot.
func (l *Ledger) Slot(ctx context.Context, name string) (Slot, error) {
	var s Slot
	err := l.pool.QueryRow(ctx, `SELECT COALESCE(wal_status, 'unknown'), active,
			COALESCE(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::float8,
			COALESCE(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::float8,
			CASE WHEN wal_status = 'lost' THEN 0 ELSE COALESCE(safe_wal_size, 'Infinity'::float8) END
		FROM pg_replication_slots WHERE slot_name = $1`, name).Scan(&s.Status, &s.Active, &s.Retained, &s.Lag, &s.Safe)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return Slot{}, fmt.Errorf("look at slot %q: %w", name, err)
	}
	return s, nil
}
