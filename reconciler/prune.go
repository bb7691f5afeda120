package reconciler

import (
	"context"
	"log/slog"
	"time"

	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/logs"
)

// The times of pruning.
const (
	pruneEvery = time.Hour
	// pruneGap lies between two batches: what a day has written is gone in a minute or
	// two, and Aristotle's database is not kept busy with it.
	pruneGap = 100 * time.Millisecond
)

// Prune deletes records of the audit once they are older than keep, in small batches,
// until ctx ends; 0 keeps all. It is for the leader. What fails is tried again later.
func Prune(ctx context.Context, l *ledger.Ledger, keep time.Duration, log *slog.Logger) error {
	const what = "prune the audit"
	var failures logs.Failures
	for keep > 0 && ctx.Err() == nil {
		more, err := l.Prune(ctx, keep)
		if err == nil {
			failures.Over(ctx, log, what, "")
		} else if ctx.Err() == nil {
			failures.Log(ctx, log, slog.LevelWarn, what, "", err)
		}
		if more {
			sleep(ctx, pruneGap)
		} else {
			sleep(ctx, pruneEvery)
		}
	}
	return nil
}
