package reconciler

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// who is a Label Studio that can only be asked who we are.
type who struct {
	taskSide
	ask func() error
}

func (w who) Whoami(context.Context) (labelstudio.User, error) { return labelstudio.User{}, w.ask() }

// A Label Studio that is away for more than an hour is told when that begins, when it is put otherwise, after an hour, and when it is over:
// not once for each question.
func TestAwayIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		turner := NewTurner(Options{Metrics: metrics.New(prometheus.NewRegistry()), Log: slog.New(slog.NewTextHandler(&log, nil))})
		begin := time.Now()
		turner.tasks = who{ask: func() error {
			if time.Since(begin) < 90*time.Minute {
				return errors.New("refused")
			}
			return nil
		}}
		turner.probe(t.Context(), errAway)
		if told, over := strings.Count(log.String(), "level=WARN"), strings.Count(log.String(), "works again"); told != 3 || over != 1 {
			t.Errorf("it was told %d times and its end %d times, want 3 and 1:\n%s", told, over, &log)
		}
	})
}

// leased is a queue with one key, which is dirty again while the end of its last turn is open.
type leased struct {
	rowSide
	claimable bool
	claimed   func()
}

func (l *leased) Listen(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

func (l *leased) Settle(_ context.Context, _ []ledger.Patched, ends []ledger.End) error {
	l.claimable = l.claimable || len(ends) > 0
	return nil
}

func (l *leased) SettleAndClaim(ctx context.Context, patched []ledger.Patched, ends []ledger.End, _, _ int) ([]ledger.Claim, error) {
	if err := l.Settle(ctx, patched, ends); err != nil {
		return nil, err
	}
	if l.claimable {
		l.claimed()
	}
	return nil, nil
}

// The end of a turn waits for a claim that is young no longer, and where a person waits for it for none.
func TestEndsKeptBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turner := NewTurner(Options{Metrics: metrics.New(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler)})
		for _, c := range []struct {
			old         time.Duration
			waited, end bool
		}{{0, false, false}, {settleWith - 1, false, false}, {settleWith, false, true}, {0, true, true}} {
			ended := false
			turner.rows = &leased{claimed: func() { ended = true }}
			turner.open = settling{ends: []ledger.End{{Key: "k"}}, since: time.Now().Add(-c.old), waited: c.waited}
			if _, err := turner.claim(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			if ended != c.end || turner.open.empty() != c.end {
				t.Errorf("after %v, waited for %v: it was ended %v", c.old, c.waited, ended)
			}
		}
	})
}

// A claim that does not take the open ends along cannot take their keys, though they may be dirty again: they are claimed right
// after, not at the next poll.
func TestDirtyAgainWhileOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turner := NewTurner(Options{Metrics: metrics.New(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		turner.rows = &leased{claimed: cancel}
		begin := time.Now()
		turner.open = settling{ends: []ledger.End{{Key: "k"}}, since: begin}
		turner.next = begin.Add(pollEvery) // it has polled
		turner.Wake()                      // what made it dirty again
		if err := turner.Work(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took >= beatEvery {
			t.Errorf("the key was claimed after %v", took)
		}
	})
}
