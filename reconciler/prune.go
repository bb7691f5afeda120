package reconciler

import (
	"context"
	"log/slog"
	"time"

	"github.com/aristotle/reconciler/reconciler/ledger"
)

// The times of pruning.
const (
	pruneEvery = time.Hour
	// pruneGap lies between two batches: what a day has written is gone in a minute or
	// two, and Aristotle's database is not kept busy with it.
	pruneGap = 100 * time.Millisecond
)

// Prune deletes records of the audit once they are older than keep, in small batches,
// until ctx ends; 0 keeps all. It is for the leader. What fails is tried again later, and
// said once until it changes.
func Prune(ctx context.Context, l *ledger.Ledger, keep time.Duration, log *slog.Logger) error {
	last := ""
	for keep > 0 && ctx.Err() == nil {
		more, err := l.Prune(ctx, keep)
		switch {
		case err == nil:
			last = ""
		case ctx.Err() == nil && err.Error() != last:
			log.WarnContext(ctx, "prune the audit", logError, err)
			last = err.Error()
		}
		if more {
			sleep(ctx, pruneGap)
		} else {
			sleep(ctx, pruneEvery)
		}
	}
	return nil
}
