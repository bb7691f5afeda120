package reconciler

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/aristotle/reconciler/cdc"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/icl"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// TableConquest is the table whose changes are keys, as the stream names it.
const TableConquest = "Conquest"

// Intake turns what happens in Aristotle's database into dirty keys. When its
// methods return nil the keys are committed: only then may the stream go on.
type Intake struct {
	Ledger   *ledger.Ledger
	Metrics  *metrics.Metrics
	Wake     func()      // tells the worker that keys are dirty, whose process this is, too
	Examples *icl.Source // tells every replica which examples have changed; nil: nobody
}

// Stream takes a batch of the change stream. What was changed is not looked at: the
// rows are compared with their hubs as they are now. A TRUNCATE tells no keys, so
// all are compared; it never means that their tasks are to be touched.
func (in *Intake) Stream(ctx context.Context, b cdc.Batch) error {
	if in.Examples == nil {
		return in.rows(ctx, b)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return in.Examples.Tell(ctx, news(b), b.XIDs) })
	g.Go(func() error { return in.rows(ctx, b) })
	return g.Wait()
}

// news is what a batch says of examples.
func news(b cdc.Batch) icl.News {
	n := icl.News{All: len(b.Truncated) > 0}
	for _, c := range b.Changes {
		switch c.Table {
		case TableConquest:
			n.Conquests = append(n.Conquests, c.Key)
		case "ml_analysis_rating":
			n.Ratings = append(n.Ratings, c.Key)
		case "conquest_prompt":
			n.Prompts = append(n.Prompts, c.Key)
		case "conquest_response":
			n.Responses = append(n.Responses, c.Key)
		}
	}
	return n
}

func (in *Intake) rows(ctx context.Context, b cdc.Batch) error {
	if slices.Contains(b.Truncated, TableConquest) {
		return in.all(ctx, b.XIDs)
	}
	keys := make([]string, 0, len(b.Changes))
	for _, c := range b.Changes {
		if c.Table == TableConquest {
			keys = append(keys, c.Key)
		}
	}
	if len(keys) <= manyKeys {
		return in.enqueue(ctx, keys, b.XIDs, ledger.FromWAL)
	}
	// Half of many keys each: comparing them takes the database longer than decoding.
	g, ctx := errgroup.WithContext(ctx)
	for half := range slices.Chunk(keys, (len(keys)+1)/2) {
		g.Go(func() error { return in.enqueue(ctx, half, b.XIDs, ledger.FromWAL) })
	}
	return g.Wait()
}

// manyKeys is where a batch is worth two connections.
const manyKeys = 1000

// examplesLost tells that any example may have changed.
func (in *Intake) examplesLost(ctx context.Context) error {
	if in.Examples == nil {
		return nil
	}
	return in.Examples.Tell(ctx, icl.News{All: true}, nil)
}

// allPage is how many keys are compared in one statement.
const allPage = 5000

func (in *Intake) all(ctx context.Context, by []uint32) error {
	return in.Ledger.EveryKey(ctx, allPage, func(keys []string) error {
		return in.enqueue(ctx, keys, by, ledger.FromDiff)
	})
}

func (in *Intake) enqueue(ctx context.Context, keys []string, by []uint32, from ledger.Source) error {
	n, err := in.Ledger.EnqueueChanged(ctx, keys, by, from)
	in.count(metrics.Source(from), n)
	if n > 0 {
		in.Wake()
	}
	return err
}

func (in *Intake) count(from metrics.Source, n int) {
	in.Metrics.Triggers.With(from).Add(float64(n))
}
