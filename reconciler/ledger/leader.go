package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

// leaderRetry is how often a replica asks for the lock. It asks instead of waiting
// in the server, since a waiting statement would hold back Aristotle's vacuum.
const leaderRetry = 5 * time.Second

// leadLock picks the lock of the lead out of pg_locks; $1 is our schema.
const leadLock = `locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
	AND classid = hashtext('reconciler')::bit(32)::bigint AND objid = hashtext($1)::bit(32)::bigint AND objsubid = 2`

// LeaderProcess returns the server's process whose session holds the lead of a schema's replicas, 0 where none does. Any role may ask.
func LeaderProcess(ctx context.Context, conn *pgx.Conn, schema string) (pid int32, err error) {
	if err := conn.QueryRow(ctx, `SELECT COALESCE((SELECT pid FROM pg_locks WHERE `+leadLock+`), 0)`, schema).Scan(&pid); err != nil {
		return 0, fmt.Errorf("look who leads: %w", err)
	}
	return pid, nil
}

// Lead waits until no other replica leads, runs lead, and returns what it returns.
// The context of lead ends when the session that holds the lock does: another
// replica may lead by then. The lock only saves work; claims and deadlines are
// what keeps two leaders from harm.
func (l *Ledger) Lead(ctx context.Context, log *slog.Logger, lead func(context.Context) error) error {
	pooled, err := l.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("ask for the lead: %w", err)
	}
	// The lock is the session's: it ends with it, and must never reach the pool.
	conn := pooled.Hijack()
	defer conn.Close(context.WithoutCancel(ctx))
	if err := l.waitForLead(ctx, log, conn); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		// Nothing is ever sent here: it returns when the session or ctx ends.
		_, err := conn.WaitForNotification(ctx)
		cancel(fmt.Errorf("the session that held the lead ended: %w", err))
	}()
	err = lead(ctx)
	lost := context.Cause(ctx)
	cancel(nil)
	<-watched
	if err == nil {
		return lost // nil, or why the lead ended
	}
	return err
}

func (l *Ledger) waitForLead(ctx context.Context, log *slog.Logger, conn *pgx.Conn) error {
	told := false
	retry := time.NewTicker(leaderRetry)
	defer retry.Stop()
	for {
		var mine bool
		if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock(hashtext('reconciler'), hashtext($1))`, l.schema).Scan(&mine); err != nil {
			return fmt.Errorf("ask for the lead: %w", err)
		}
		if mine {
			return nil
		}
		if !told {
			log.InfoContext(ctx, "another replica leads: standing by")
			told = true
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
