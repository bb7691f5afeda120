package reconciler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// The times of the worker.
const (
	// pollEvery backs up the notifications: an idle worker asks this often. It asks at
	// every beat, by which it also shows that it is alive, where nobody notifies, and
	// until all that waits must have been due once: a key's time may have been set by
	// another process, or pulled by a trigger.
	pollEvery = time.Minute
	beatEvery = 10 * time.Second
	// dueSlack makes sure that a key is due by the database's clock when we ask for it.
	dueSlack = 5 * time.Millisecond
	// looksPerTurn bounds how many looks after a PATCH share the listing of a turn.
	// A row more costs Label Studio a millisecond or two, a listing more a hundred.
	looksPerTurn = 100

	firstBackoff = 500 * time.Millisecond
	maxBackoff   = 5 * time.Minute
	// maxProbe bounds how long an outage of Label Studio is noticed too late to be over.
	maxProbe = 15 * time.Second
)

// backoff is how long to wait after so many failures: doubling, capped, and jittered
// so that what failed together does not come back together.
func (t *Turner) backoff(failures int) time.Duration {
	d := maxBackoff
	if failures < 10 {
		d = min(maxBackoff, firstBackoff<<failures)
	}
	return d/2 + t.jitter(d/2)
}

// What fails, as the log tells it.
const (
	msgWork    = "work"
	msgAway    = "ask Label Studio: all keys wait"
	msgListen  = "listen for triggers: polling until it works again"
	msgKey     = "key cannot be turned: it is tried again"
	msgPanic   = "a mistake in the program: report it"
	msgStrange = "conquests without a task get none of a project that may be another Label Studio's"
	msgPatch   = "PATCH may have taken effect or not: its task is read again"
)

// Work turns keys until ctx ends, then ends the turn that it is at and returns nil.
// What fails is tried again, and shown. It returns an error only where trying again
// is of no use: our schema is gone.
func (t *Turner) Work(ctx context.Context) error {
	select {
	case <-t.Ready:
	case <-ctx.Done():
	}
	ctx, stop := context.WithCancel(ctx)
	var listening sync.WaitGroup
	listening.Go(func() { t.listen(ctx) })
	defer listening.Wait()
	defer stop()
	failures := 0
	t.woken = time.Now()
	defer t.progress.Store(0)
	for ctx.Err() == nil {
		t.progress.Store(time.Now().UnixNano())
		idle, err := t.workOnce(ctx)
		switch {
		case ctx.Err() != nil:
		case err == nil:
			failures = 0
			t.trouble.Store(nil)
			t.failures.Over(ctx, t.Log, msgWork, "")
			if idle {
				t.wait(ctx)
			}
		case ledger.IsSchemaGone(err):
			return err
		case errors.Is(err, errAway):
			t.probe(ctx, err)
		default:
			t.trouble.Store(&err)
			t.failures.Log(ctx, t.Log, slog.LevelError, msgWork, "", err)
			sleep(ctx, min(maxProbe, t.backoff(failures)))
			failures++
		}
	}
	if err := t.settle(ctx); err != nil {
		t.Log.WarnContext(ctx, "how the last PATCHes ended could not be stored: their tasks are read again", logError, err)
	}
	return nil
}

// workOnce claims keys and turns them, and tells whether it took all that were due:
// then there is nothing to do until a trigger commits or the next key is due. A turn
// that panics fails its keys one by one, so that one that cannot be turned does not
// keep the others from it.
func (t *Turner) workOnce(ctx context.Context) (idle bool, err error) {
	defer func() {
		if err != nil || idle && len(t.wake) == 0 { // else the next claim comes at once
			err = errors.Join(err, t.settle(ctx))
		}
	}()
	limit := t.pace.keys()
	claims, err := t.claim(ctx, limit)
	if err != nil || len(claims) == 0 {
		return true, err
	}
	idle = len(claims) < min(limit, looksPerTurn)
	err = t.safely(ctx, claims)
	var p *panicError
	if !errors.As(err, &p) || len(claims) == 1 {
		return idle, err
	}
	for i := range claims {
		err := t.safely(ctx, claims[i:i+1])
		if err != nil && !errors.As(err, &p) {
			return false, err
		}
	}
	return false, nil
}

// panicError is a panic of a turn: a mistake of ours that must not end the daemon.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic in a turn: %v", p.value) }

// panicOf makes what was recovered an error, with the stack of where it came from; nil is none.
func panicOf(recovered any) *panicError {
	p, passedOn := recovered.(*panicError)
	if recovered != nil && !passedOn {
		p = &panicError{recovered, debug.Stack()}
	}
	return p
}

func (t *Turner) safely(ctx context.Context, claims []ledger.Claim) (err error) {
	defer func() {
		p := panicOf(recover())
		if p == nil {
			return
		}
		t.Metrics.Panics.Inc()
		of, who := "", slog.Int(logKeys, len(claims)) // who may not meet it again one by one
		if err = p; len(claims) == 1 {
			of, who = claims[0].Key, slog.String(logKey, claims[0].Key)
			err = errors.Join(p, t.finish(ctx, t.failed(claims[0], p)))
		}
		t.failures.Log(ctx, t.Log, slog.LevelError, msgPanic, of, p, who, slog.String("stack", string(p.stack)))
	}()
	return t.turn(ctx, claims)
}

// Wake tells that keys became dirty: what this process commits needs no round through the server.
func (t *Turner) Wake() {
	select {
	case t.wake <- struct{}{}:
	default: // it is told already
	}
}

// listen passes on that a trigger has committed. Where the connection is lost it is
// made anew; until then the poll finds what there is.
func (t *Turner) listen(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		err := t.rows.Listen(ctx, func() {
			failures = 0
			t.told.Store(true)
			t.failures.Over(ctx, t.Log, msgListen, "")
			t.Wake()
		})
		t.told.Store(false)
		if err != nil && ctx.Err() == nil {
			t.failures.Log(ctx, t.Log, slog.LevelWarn, msgListen, "", err)
			sleep(ctx, min(maxProbe, t.backoff(failures)))
		}
	}
}

// wait waits for a trigger, for the next key that we know to be due, or for the poll.
func (t *Turner) wait(ctx context.Context) {
	select {
	case <-t.wake: // before what is due by itself, which stays so: no chance decides which
		t.woken = time.Now()
		return
	default:
	}
	for {
		timer := time.NewTimer(min(beatEvery, time.Until(t.next)))
		select {
		case <-t.wake:
			timer.Stop()
			t.woken = time.Now()
			return
		case <-timer.C:
			now := time.Now()
			if !now.Before(t.next) {
				t.next = now.Add(pollEvery)
				return
			}
			if !t.told.Load() || now.Sub(t.woken) <= maxBackoff {
				return
			}
			t.progress.Store(now.UnixNano())
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// dueIn notes that a key will be due in so long.
func (t *Turner) dueIn(wait time.Duration) {
	if at := time.Now().Add(wait); at.Before(t.next) {
		t.next = at
	}
}

// ended notes when the keys whose turns ended like this will be due, and tells of those that cannot be turned.
func (t *Turner) ended(ctx context.Context, ends []ledger.End) {
	for _, e := range ends {
		if e.Failed && e.To != "" {
			t.Metrics.Sync.With(metrics.Direction(e.To), metrics.Failure).Inc()
		}
		switch {
		case e.Failed && e.Error != nil:
			t.failures.Log(ctx, t.Log, slog.LevelWarn, msgKey, e.Key, errors.New(*e.Error), slog.String(logKey, e.Key))
		case e.Wait == nil:
			for _, what := range []string{msgKey, msgPatch, msgPanic} {
				t.failures.Over(ctx, t.Log, what, e.Key, slog.String(logKey, e.Key))
			}
		}
		for _, seconds := range []*float64{e.Wait, e.Look} {
			if seconds != nil {
				t.dueIn(time.Duration(*seconds*float64(time.Second)) + dueSlack)
			}
		}
	}
}

// probe waits until Label Studio answers again: one question at a time, whatever
// the number of keys that wait.
func (t *Turner) probe(ctx context.Context, why error) {
	t.failures.Log(ctx, t.Log, slog.LevelWarn, msgAway, "", why)
	t.Metrics.LabelStudioUp.Set(0)
	t.away.Store(true)
	defer t.away.Store(false)
	for failures := 0; ctx.Err() == nil; failures++ {
		t.progress.Store(time.Now().UnixNano())
		_, err := t.tasks.Whoami(ctx)
		if err == nil {
			t.Metrics.LabelStudioUp.Set(1)
			t.failures.Over(ctx, t.Log, msgAway, "")
			return
		}
		if failures > 0 && ctx.Err() == nil { // the first asks the same as the turn did, in other words
			t.failures.Log(ctx, t.Log, slog.LevelWarn, msgAway, "", err)
		}
		sleep(ctx, min(maxProbe, t.backoff(failures)))
	}
}

// Progress is when the worker last began something: a look into the queue, a turn, a
// question whether Label Studio is back. It is zero while it does not work.
func (t *Turner) Progress() time.Time {
	if at := t.progress.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// Trouble is why the worker could not do its last work; nil: it could.
func (t *Turner) Trouble() error {
	if err := t.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Away tells whether all keys wait for Label Studio.
func (t *Turner) Away() bool { return t.away.Load() }

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
