package reconciler

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/aristotle/reconciler/cdc"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// TableConquest is the table whose changes are keys, as the stream names it.
const TableConquest = "Conquest"

// Intake turns what happens in Aristotle's database into dirty keys. When its
// methods return nil the keys are committed: only then may the stream go on.
type Intake struct {
	Ledger  *ledger.Ledger
	Metrics *metrics.Metrics
}

// Stream takes a batch of the change stream. What was changed is not looked at: the
// rows are compared with their hubs as they are now. A TRUNCATE tells no keys, so
// all are compared; it never means that their tasks are to be touched.
func (in *Intake) Stream(ctx context.Context, b cdc.Batch) error {
	for _, table := range b.Truncated {
		if table == TableConquest {
			return in.all(ctx, b.XIDs)
		}
	}
	keys := make([]string, 0, len(b.Changes))
	for _, c := range b.Changes {
		if c.Table == TableConquest {
			keys = append(keys, c.Key)
		}
	}
	// Half of many keys each: comparing them takes the database longer than decoding.
	half := len(keys)
	if half > manyKeys {
		half /= 2
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, part := range [][]string{keys[:half], keys[half:]} {
		g.Go(func() error {
			n, err := in.Ledger.EnqueueChanged(ctx, part, b.XIDs, ledger.FromWAL)
			in.count(metrics.WAL, n)
			return err
		})
	}
	return g.Wait()
}

// manyKeys is where a batch is worth two connections.
const manyKeys = 1000

// All compares every row with its hub, since news of some were lost: the slot is a
// new one, or the table was emptied. A change that comes while it runs is in the
// stream.
func (in *Intake) All(ctx context.Context) error { return in.all(ctx, nil) }

// allPage is how many keys are compared in one statement.
const allPage = 5000

func (in *Intake) all(ctx context.Context, by []uint32) error {
	return in.Ledger.EveryKey(ctx, allPage, func(keys []string) error {
		n, err := in.Ledger.EnqueueChanged(ctx, keys, by, ledger.FromDiff)
		in.count(metrics.Diff, n)
		return err
	})
}

func (in *Intake) count(from metrics.Source, n int) {
	in.Metrics.Triggers.With(from).Add(float64(n))
}
