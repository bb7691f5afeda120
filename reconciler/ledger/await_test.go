package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// relay runs the relay until the test ends, and returns once it listens.
func (l *Ledger) relay(t *testing.T, poke func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.Relay(ctx, slog.New(slog.DiscardHandler), poke) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for listens := false; !listens; {
		err := l.pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query = $1 AND state = 'idle')`,
			`LISTEN "reconciler.poke"`).Scan(&listens)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestAwait: whoever waits is woken by the turn that they wait for, and by no other, however many they are.
func TestAwait(t *testing.T) {
	t.Parallel()
	l := open(t)
	poked := make(chan struct{}, 1)
	l.relay(t, func() { poked <- struct{}{} })
	enqueue(t, l, FromWAL, "k")
	first, _ := claimed(t, l)
	enqueue(t, l, FromAPI, "k") // generation 2, while the turn of generation 1 is under way

	soon, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if done, err := l.Await(soon, "k", 1); err != nil || done {
		t.Errorf("before its turn ended: %v, %v", done, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var g errgroup.Group
	const many = 200
	for i := range many {
		g.Go(func() error {
			if done, err := l.Await(ctx, "k", 2); err != nil || !done {
				return fmt.Errorf("waiter %d: %v, %v", i, done, err)
			}
			return nil
		})
	}
	for l.waiting.number() < many {
		runtime.Gosched()
	}
	finish(t, l, first[0], nil)
	second, _ := claimed(t, l)
	if n := l.waiting.number(); n != many {
		t.Errorf("the turn before theirs let %d go", many-n)
	}
	finish(t, l, second[0], nil)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if done, err := l.Await(ctx, "k", 2); err != nil || !done {
		t.Errorf("what is done already: %v, %v", done, err)
	}
	if err := l.Poke(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-poked
}

func (w *waiting) number() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all
}

// TestAwaitEnds: a process that stops keeps nobody waiting, neither who waits already nor who comes late.
func TestAwaitEnds(t *testing.T) {
	t.Parallel()
	l := open(t)
	enqueue(t, l, FromAPI, "k")
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return l.Relay(ctx, slog.New(slog.DiscardHandler), func() {}) })
	await := func() error {
		if done, err := l.Await(t.Context(), "k", 1); err != nil || done {
			return fmt.Errorf("no turn has ended: %v, %v", done, err)
		}
		return nil
	}
	g.Go(await)
	g.Go(await)
	for l.waiting.number() < 2 {
		runtime.Gosched()
	}
	stop()
	if err := errors.Join(g.Wait(), await()); err != nil {
		t.Error(err)
	}
}

// TestEnqueueCall: the row decides, and the notes of a call stay until a turn has ended that began with them.
func TestEnqueueCall(t *testing.T) {
	t.Parallel()
	l := open(t)
	l.exec(t, `INSERT INTO public."Conquest" (id, result, philosopher, domain) VALUES ('k', 'VICTORY', 'p', 'd'), ('other', NULL, 'p', 'd')`)
	for _, c := range []struct {
		call Call
		want error
	}{
		{Call{Key: "nobody's", Philosopher: "p", Domain: "d"}, ErrNoConquest},
		{Call{Key: "k", Philosopher: "P", Domain: "d"}, ErrNoConquest},
		{Call{Key: "k", Philosopher: "p", Domain: ""}, ErrNoConquest},
		{Call{Key: "other", Philosopher: "p", Domain: "d"}, ErrNotVictory},
	} {
		if _, err := l.EnqueueCall(t.Context(), c.call); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v, want %v", c.call, err, c.want)
		}
	}
	_, keys := claimed(t, l)
	want(t, "what was refused made something dirty", keys)

	call := func(notes *string, gen int64) {
		t.Helper()
		if got, err := l.EnqueueCall(t.Context(), Call{Key: "k", Philosopher: "p", Domain: "d", Notes: notes}); err != nil || got != gen {
			t.Errorf("generation %d, %v, want %d", got, err, gen)
		}
	}
	noted := func(when, want string) {
		t.Helper()
		var notes *string
		if err := l.pool.QueryRow(t.Context(), `SELECT notes FROM queue WHERE key = 'k'`).Scan(&notes); err != nil {
			t.Fatal(err)
		}
		if notes == nil != (want == "") || notes != nil && *notes != want {
			t.Errorf("%s the notes are %v, want %q", when, notes, want)
		}
	}
	call(ptr("one"), 1)
	call(nil, 2)
	noted("after a call without", "one")
	first, _ := claimed(t, l)
	call(ptr("two"), 3)
	finish(t, l, first[0], nil)
	noted("after a turn that began before the call", "two")
	second, _ := claimed(t, l)
	hour := 3600.0
	finish(t, l, second[0], func(e *End) { e.Wait = &hour })
	noted("after a turn that did not end well", "two")
	l.exec(t, `UPDATE queue SET run_after = now()`)
	third, _ := claimed(t, l)
	finish(t, l, third[0], nil)
	noted("after the turn", "")
}

// TestReleaseStartsAPass: a plan that a person releases waits for no schedule.
func TestReleaseStartsAPass(t *testing.T) {
	t.Parallel()
	l := open(t)
	poked := make(chan struct{}, 1)
	l.relay(t, func() { poked <- struct{}{} })
	l.exec(t, `INSERT INTO pass (kind, state, why, plan, sets) VALUES ('full', 'braked', 'a test', 'hash', 30)`)
	if n, err := l.Release(t.Context(), "hash", "somebody"); err != nil || n != 30 {
		t.Fatalf("released %d, %v", n, err)
	}
	select {
	case <-poked:
	case <-time.After(patience):
		t.Fatal("nobody was told")
	}
}

// TestLongSchema: a delivery that the doctor caused is told where the schema's name is as long as it may be.
func TestLongSchema(t *testing.T) {
	t.Parallel()
	l := open(t)
	l.schema = strings.Repeat("s", 63)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var told string
	err := l.listen(ctx, []string{ProbeChannel(l.schema)}, func() {
		if err := l.TellProbe(ctx, "it"); err != nil {
			t.Error(err)
			cancel()
		}
	}, func(n *pgconn.Notification) {
		told = n.Payload
		cancel()
	})
	if err != nil || told != "it" {
		t.Errorf("told %q, %v", told, err)
	}
}

// TestOthersLocks: deliveries and a call wait for a key that somebody else has locked, longer than one statement does.
func TestOthersLocks(t *testing.T) {
	t.Parallel()
	l := open(t)
	l.exec(t, `INSERT INTO public."Conquest" (id, result, philosopher, domain) VALUES ('k', 'VICTORY', 'p', 'd')`)
	l.exec(t, `INSERT INTO edge (task_id, key, project, begun) VALUES (2, 'k', 1, 'union')`)
	enqueue(t, l, FromWAL, "k")
	tx, err := l.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context())) // or the pool never closes
	if _, err := tx.Exec(t.Context(), `SELECT FROM queue FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 3)
	go func() {
		n, err := l.EnqueueTasks(t.Context(), []int64{2}, FromWebhook)
		if err == nil && n != 1 {
			err = fmt.Errorf("%d keys are dirty", n)
		}
		done <- err
	}()
	go func() {
		n, err := l.Linked(t.Context(), []Link{{Task: 1, Project: 1, Key: "k"}}, "union", FromWebhook)
		if err == nil && n != 1 {
			err = fmt.Errorf("%d keys are dirty", n)
		}
		done <- err
	}()
	go func() {
		_, err := l.EnqueueCall(t.Context(), Call{Key: "k", Philosopher: "p", Domain: "d"})
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(2 * lockTimeout):
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if claims, _ := claimed(t, l); len(claims) != 1 || claims[0].Gen != 4 || len(claims[0].Edges) != 2 {
		t.Errorf("%+v", claims)
	}
}
