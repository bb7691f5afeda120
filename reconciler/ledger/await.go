package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aristotle/reconciler/reconciler/logs"
)

const (
	// awaitPoll backs up the notifications of turns that ended: they need a session
	// that a pooler may not give.
	awaitPoll = time.Second
	// maxWaiting bounds how many wait at a time. More are told at once that it is not done.
	maxWaiting = 1000
	// relayRetry is how long to wait before a lost session of the relay is made anew.
	relayRetry = time.Second
)

// Await waits until a key's triggers up to a generation have been turned, and tells
// whether they were before ctx ended, or whether ctx or the number of those who wait
// did not allow it: then they will be, later. A key that is held or whose row is
// gone is done too: what became of it is [Ledger.Standing]. Its error is one of
// the database.
//
// Whoever waits holds no connection. All share the one of [Ledger.Relay]; where
// that does not run, they ask every second.
func (l *Ledger) Await(ctx context.Context, key string, gen int64) (bool, error) {
	wake, leave := l.waiting.join(key) // before the first look: what is done after that wakes us
	if wake == nil {
		return false, nil
	}
	defer leave()
	poll := time.NewTicker(awaitPoll)
	defer poll.Stop()
	for {
		var done bool
		err := l.pool.QueryRow(ctx, `SELECT COALESCE((SELECT done_gen FROM queue WHERE key = $1) >= $2, false)`, key, gen).Scan(&done)
		switch {
		case ctx.Err() != nil:
			return false, nil
		case err != nil:
			return false, fmt.Errorf("wait for the turn of %q: %w", key, err)
		case done:
			return true, nil
		}
		select {
		case _, more := <-wake:
			if !more {
				return false, nil
			}
		case <-poll.C:
		case <-ctx.Done():
			return false, nil
		}
	}
}

// channel is where something is told to all replicas: "done" is the end of a turn that
// a person waits for, with the key (see finish.sql), "poke" that a pass should start.
// A schema's name that is too long is cut; then two may share it, which only wakes in vain.
func channel(schema, of string) string { return schema[:min(len(schema), 50)] + "." + of }

// Poke asks the leader, whichever replica that is, for an incremental pass.
func (l *Ledger) Poke(ctx context.Context) error {
	if _, err := l.pool.Exec(ctx, `SELECT pg_notify($1, '')`, channel(l.schema, "poke")); err != nil {
		return fmt.Errorf("ask for a pass: %w", err)
	}
	return nil
}

// Relay wakes those who wait in [Ledger.Await] and calls poke when a replica was asked
// for a pass, until ctx ends; then nobody waits any more, since this process turns no key
// again. A session that is lost is made anew.
func (l *Ledger) Relay(ctx context.Context, log *slog.Logger, poke func()) error {
	const what = "not told of turns that end: whoever waits asks every second"
	var failures logs.Failures
	poked := channel(l.schema, "poke")
	defer l.waiting.end()
	for {
		err := l.listen(ctx, []string{channel(l.schema, "done"), poked}, func() {
			failures.Over(ctx, log, what, "")
			l.waiting.wakeAll() // what ended before nobody was told
		}, func(n *pgconn.Notification) {
			if n.Channel == poked {
				poke()
				return
			}
			l.waiting.wake(n.Payload)
		})
		if ctx.Err() != nil {
			return nil
		}
		failures.Log(ctx, log, slog.LevelWarn, what, "", err)
		select {
		case <-time.After(relayRetry):
		case <-ctx.Done():
			return nil
		}
	}
}

// waiting is who waits in this process, by key. The zero value is nobody.
type waiting struct {
	mu    sync.Mutex
	by    map[string]map[chan struct{}]bool
	all   int
	ended bool // nobody may wait
}

// join returns a channel that gets a value when the key's turn may have ended, and
// what to call in the end; nothing where too many wait already, or nobody may. It is closed
// where nobody may any more.
func (w *waiting) join(key string) (wake <-chan struct{}, leave func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || w.all >= maxWaiting {
		return nil, nil
	}
	c := make(chan struct{}, 1)
	if w.by == nil {
		w.by = map[string]map[chan struct{}]bool{}
	}
	if w.by[key] == nil {
		w.by[key] = map[chan struct{}]bool{}
	}
	w.by[key][c] = true
	w.all++
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.all--
		if delete(w.by[key], c); len(w.by[key]) == 0 {
			delete(w.by, key)
		}
	}
}

func (w *waiting) wake(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell(key)
}

func (w *waiting) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.by {
		w.tell(key)
	}
}

func (w *waiting) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, of := range w.by {
		for c := range of {
			close(c)
		}
	}
	w.by, w.ended = nil, true
}

func (w *waiting) tell(key string) {
	for c := range w.by[key] {
		select {
		case c <- struct{}{}:
		default: // it has not looked since the last time
		}
	}
}
