package ledger

import (
	"context"
	"fmt"
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
			(SELECT count(*) FROM edge WHERE held IS NOT NULL),
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

// Slot returns how much WAL in bytes the server keeps for a replication slot, and how
// much of it lies after what was confirmed. Zeros where there is no such slot.
func (l *Ledger) Slot(ctx context.Context, name string) (retained, lag float64, err error) {
	err = l.pool.QueryRow(ctx, `SELECT
			COALESCE(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0)::float8,
			COALESCE(max(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)), 0)::float8
		FROM pg_replication_slots WHERE slot_name = $1`, name).Scan(&retained, &lag)
	if err != nil {
		return 0, 0, fmt.Errorf("look at slot %q: %w", name, err)
	}
	return retained, lag, nil
}
