package ledger

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// patience is how long a test waits before it gives up: a busy machine must not fail it.
const patience = 3 * time.Minute

// open returns a ledger in a fresh database.
func open(t *testing.T) *Ledger {
	t.Helper()
	return openWith(t, sandbox.Schema{})
}

func openWith(t *testing.T, schema sandbox.Schema) *Ledger {
	t.Helper()
	url := pgtest.Database(t, schema)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `CREATE SCHEMA reconciler`); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), url, "reconciler")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	for range 2 { // a second time is harmless
		if err := l.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func (l *Ledger) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := l.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// claimed takes what is due and returns the keys.
func claimed(t *testing.T, l *Ledger) ([]Claim, []string) {
	t.Helper()
	claims, err := l.Claim(t.Context(), 10, 10)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, c := range claims {
		keys = append(keys, c.Key)
	}
	return claims, keys
}

func enqueue(t *testing.T, l *Ledger, from Source, keys ...string) {
	t.Helper()
	if _, err := l.Enqueue(t.Context(), keys, from); err != nil {
		t.Fatal(err)
	}
}

func finish(t *testing.T, l *Ledger, c Claim, change func(*End)) {
	t.Helper()
	e := End{Key: c.Key, Claim: c.Claim, Gen: c.Gen}
	if change != nil {
		change(&e)
	}
	if err := l.Settle(t.Context(), nil, []End{e}); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, what string, got []string, keys ...string) {
	t.Helper()
	if diff := cmp.Diff(keys, got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

// TestQueue goes through what the protocol says of a key in the queue.
func TestQueue(t *testing.T) {
	t.Parallel()
	l := open(t)
	enqueue(t, l, FromDiff, "c")
	enqueue(t, l, FromWebhook, "b")
	enqueue(t, l, FromAPI, "a", "a")
	claims, keys := claimed(t, l)
	want(t, "a waiting person first, a pass last", keys, "a", "b", "c")
	_, keys = claimed(t, l)
	want(t, "a claimed key is left alone", keys)

	enqueue(t, l, FromWAL, "a") // while its turn is under way
	finish(t, l, claims[0], nil)
	again, keys := claimed(t, l)
	want(t, "a trigger that came meanwhile leaves the key dirty", keys, "a")
	finish(t, l, again[0], nil)

	l.exec(t, `UPDATE queue SET leased_until = now() - interval '1 s' WHERE key = 'b'`)
	second, keys := claimed(t, l)
	want(t, "an ended lease lets another worker have it", keys, "b")
	finish(t, l, claims[1], nil) // the slower one
	l.exec(t, `UPDATE queue SET leased_until = NULL WHERE key = 'b'`)
	third, keys := claimed(t, l)
	want(t, "the end of a claim that is not the last means nothing", keys, "b")
	finish(t, l, second[0], nil)
	finish(t, l, third[0], nil)

	hour, text := 3600.0, "boom"
	finish(t, l, claims[2], func(e *End) { e.Wait, e.Failed, e.Error = &hour, true, &text })
	_, keys = claimed(t, l)
	want(t, "a failure waits", keys)
	enqueue(t, l, FromWAL, "c")
	l.exec(t, `UPDATE queue SET run_after = run_after - interval '1 s' WHERE key = 'c'`) // the gap after the last attempt
	pulled, keys := claimed(t, l)
	want(t, "a trigger pulls it forward", keys, "c")
	if pulled[0].Attempts != 1 {
		t.Errorf("%d attempts are remembered, want 1", pulled[0].Attempts)
	}
	finish(t, l, pulled[0], nil)
}

// TestLook: the look after a PATCH has a due time of its own, which no success but
// that of a turn that began after it takes away.
func TestLook(t *testing.T) {
	t.Parallel()
	l := open(t)
	soon, due := 5.0, `UPDATE queue SET look_at = now() WHERE key = 'k'`
	enqueue(t, l, FromWAL, "k")
	claims, _ := claimed(t, l)
	finish(t, l, claims[0], func(e *End) { e.Look = &soon })
	_, keys := claimed(t, l)
	want(t, "not yet", keys)
	enqueue(t, l, FromWAL, "k")
	claims, _ = claimed(t, l)
	finish(t, l, claims[0], nil)
	l.exec(t, due)
	claims, keys = claimed(t, l)
	want(t, "another success has not taken it away", keys, "k")
	if claims[0].Dirty {
		t.Error("a look is no dirty key")
	}
	finish(t, l, claims[0], nil)
	l.exec(t, `UPDATE queue SET tried_at = NULL`)
	_, keys = claimed(t, l)
	want(t, "its own success has", keys)
}

// TestPrune: what is older than the retention goes, oldest first and a batch at a time.
func TestPrune(t *testing.T) {
	t.Parallel()
	l := open(t)
	l.exec(t, `INSERT INTO audit (at, key, source, reason) SELECT now() - interval '1 day' * (i / 10.0), 'k', 'wal', 'r' FROM generate_series(1500, 1, -1) i`)
	for _, more := range []bool{true, false, false} {
		if got, err := l.Prune(t.Context(), 20*24*time.Hour); err != nil || got != more {
			t.Errorf("more %v, want %v; %v", got, more, err)
		}
	}
	var left, old int
	if err := l.pool.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE at < now() - interval '20 days') FROM audit`).Scan(&left, &old); err != nil || left != 199 || old != 0 {
		t.Errorf("%d records are left, %d of them too old; %v", left, old, err)
	}
}

// TestEnqueueChanged: what a change of a row comes to depends on the row as it is.
func TestEnqueueChanged(t *testing.T) {
	t.Parallel()
	l := open(t)
	changed := func(key string, dirty int, before any) {
		t.Helper()
		n, err := l.EnqueueChanged(t.Context(), []string{key, key}, nil, FromWAL)
		if err != nil {
			t.Fatal(err)
		}
		if n != dirty {
			t.Errorf("%s: %d keys are dirty, want %d", key, n, dirty)
		}
		var noted *string
		if err := l.pool.QueryRow(t.Context(), `SELECT before FROM hub WHERE key = $1`, key).Scan(&noted); err != nil && before != nil {
			t.Errorf("%s: %v", key, err)
		} else if before != nil && (noted == nil || *noted != before) {
			t.Errorf("%s: the result before VICTORY is noted as %v, want %v", key, noted, before)
		}
	}
	result := func(r string) { l.exec(t, `UPDATE public."Conquest" SET result = $1 WHERE id = 'k'`, r) }
	l.exec(t, `INSERT INTO public."Conquest" (id, result, philosopher, domain) VALUES ('k', 'PENDING', 'p', 'd')`)
	changed("k", 1, "PENDING")
	l.exec(t, `UPDATE hub SET d = false`)
	result("DEFEAT")
	changed("k", 0, "DEFEAT")
	result("VICTORY")
	changed("k", 1, "DEFEAT")
	l.exec(t, `UPDATE hub SET d = true`)
	changed("k", 0, "DEFEAT")
	l.exec(t, `UPDATE public."Conquest" SET "createdAt" = now() + interval '1 day'`)
	changed("k", 1, nil) // another row under the same id
	l.exec(t, `DELETE FROM public."Conquest"`)
	changed("k", 1, nil)
	changed("never seen", 0, nil)
}

// TestStaleBefore: what a click notes of the row while the stream waits for it is newer than what the stream has read, and stays.
func TestStaleBefore(t *testing.T) {
	t.Parallel()
	l := open(t)
	l.exec(t, `INSERT INTO public."Conquest" (id, result, philosopher, domain) VALUES ('k', 'PENDING', 'p', 'd')`)
	l.exec(t, `INSERT INTO hub (key, created_at, before, d) SELECT id, "createdAt", 'NEUTRAL', false FROM public."Conquest"`)
	tx, err := l.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context())) // or the pool never closes
	exec := func(sql string) {
		t.Helper()
		if _, err := tx.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`SELECT FROM hub FOR UPDATE`)
	done := make(chan error, 1)
	go func() {
		_, err := l.EnqueueChanged(t.Context(), []string{"k"}, nil, FromWAL)
		done <- err
	}()
	for waits := false; !waits; {
		err := l.pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
	}
	exec(`UPDATE public."Conquest" SET result = 'VICTORY'`) // it was DEFEAT before
	exec(`UPDATE hub SET before = 'DEFEAT', d = true`)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var before string
	if err := l.pool.QueryRow(t.Context(), `SELECT before FROM hub`).Scan(&before); err != nil || before != "DEFEAT" {
		t.Errorf("before VICTORY: %s, %v", before, err)
	}
}

// TestWatermark: what a full pass has read need not be asked for again, and nothing that it may not have read is left out.
func TestWatermark(t *testing.T) {
	t.Parallel()
	l := open(t)
	l.exec(t, `INSERT INTO project (id, full_at, watermark) VALUES (1, now(), now() - interval '1 hour'), (2, now(), now() + interval '1 hour'), (4, now(), now() - interval '1 hour')`)
	if err := l.WantFull(t.Context(), "a test", nil); err != nil {
		t.Fatal(err)
	}
	open, err := l.OpenPasses(t.Context())
	if err != nil || len(open) != 1 {
		t.Fatalf("%+v, %v", open, err)
	}
	before, err := l.Projects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pass, err := l.BeginPass(t.Context(), open[0].ID, "it")
	if err == nil {
		err = l.EndReading(t.Context(), pass.ID, "it", nil)
	}
	if err == nil {
		err = l.EndComparing(t.Context(), pass.ID, "it", Planned{}, []int64{1, 2, 3}, time.Minute, map[string]bool{})
	}
	if err != nil {
		t.Fatal(err)
	}
	after, err := l.Projects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	began := pass.BeganAt.Add(-time.Minute) // the clocks differ
	for id, want := range map[int64]time.Time{1: began, 2: *before[2].Watermark, 3: began, 4: *before[4].Watermark} {
		if got := after[id].Watermark; got == nil || !got.Equal(want) {
			t.Errorf("project %d: %v, want %v", id, got, want)
		}
		full := pass.BeganAt
		if id == 4 { // was not read
			full = before[id].FullAt
		}
		if got := after[id].FullAt; got == nil || !got.Equal(*full) {
			t.Errorf("project %d: the last full pass began %v, want %v", id, got, full)
		}
	}
}

// leader leads until it may no longer.
func leader(leading chan<- struct{}) func(context.Context) error {
	return func(ctx context.Context) error {
		leading <- struct{}{}
		<-ctx.Done()
		return nil
	}
}

// TestLead: one leads, the next takes over when its session ends.
func TestLead(t *testing.T) {
	t.Parallel()
	l := open(t)
	led := make(chan error)
	leading := make(chan struct{}, 1)
	lead := func() { led <- l.Lead(t.Context(), slog.New(slog.DiscardHandler), leader(leading)) }
	go lead()
	<-leading
	go lead()
	endLead(t, l)
	if err := <-led; err == nil {
		t.Error("a leader whose session was ended is not told why")
	}
	select {
	case <-leading:
	case <-time.After(patience):
		t.Fatal("nobody took over")
	}
	endLead(t, l)
	<-led
}

// TestLeadIsKept: no rule for sessions that are idle takes the lead away.
func TestLeadIsKept(t *testing.T) {
	t.Parallel()
	l := open(t)
	l.exec(t, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET idle_session_timeout = 200', current_database()); END $$`)
	l.pool.Reset() // what is connected knows it not
	leading := make(chan struct{}, 1)
	led := make(chan error)
	go func() { led <- l.Lead(t.Context(), slog.New(slog.DiscardHandler), leader(leading)) }()
	<-leading
	for range 2 { // those who began to be idle later
		conn, err := pgx.Connect(t.Context(), l.pool.Config().ConnString())
		if err != nil {
			t.Fatal(err)
		}
		var pg *pgconn.PgError
		if _, err = conn.WaitForNotification(t.Context()); !errors.As(err, &pg) || pg.Code != "57P05" {
			t.Fatalf("another idle session ends with %v", err)
		}
	}
	endLead(t, l)
	if err := <-led; err == nil {
		t.Error("it led until something else")
	}
}

// TestSilentPeer: the server asks a peer that says nothing whether it is there: its machine may have lost power while it led.
func TestSilentPeer(t *testing.T) {
	t.Parallel()
	l := open(t)
	got := map[string]string{}
	for name := range untilWeEnd {
		var value string
		if err := l.pool.QueryRow(t.Context(), `SELECT setting FROM pg_settings WHERE name = $1 AND inet_client_addr() IS NOT NULL`, name).Scan(&value); err != nil {
			t.Fatal(err)
		}
		got[name] = value // for a socket, what it really has
	}
	want := map[string]string{"tcp_keepalives_idle": "15", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "4", "tcp_user_timeout": "35000", "idle_session_timeout": "0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// endLead ends the session that leads, which everybody must find alike.
func endLead(t *testing.T, l *Ledger) {
	t.Helper()
	conn, err := l.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	pid, err := LeaderProcess(t.Context(), conn.Conn(), l.schema)
	if err != nil || pid == 0 {
		t.Fatalf("process %d leads: %v", pid, err)
	}
	if who, err := l.Leader(t.Context()); err != nil || who == nil {
		t.Errorf("%v leads: %v", who, err)
	}
	if pid, err := LeaderProcess(t.Context(), conn.Conn(), "another"); err != nil || pid != 0 {
		t.Errorf("process %d leads those of another schema: %v", pid, err)
	}
	l.exec(t, `SELECT pg_terminate_backend($1)`, pid)
}

// TestEdgesBetween: a page gets the edges of its project's range, and those of its tasks that were another project's; whole where
// they remember more than the key, the task and the star.
func TestEdgesBetween(t *testing.T) {
	t.Parallel()
	l := open(t)
	l.exec(t, `INSERT INTO edge (task_id, key, project, begun, s, base) VALUES (10, 'before', 1, 'union', true, '{}'), (11, 'a', 1, 'union', true, '{}'),
		(12, 'moved', 2, 'union', false, '{7}'), (14, 'b', 1, 'union', true, '{8}'), (15, 'another''s', 2, 'union', true, '{}'), (16, 'moved too', 2, 'union', true, '{}'),
		(17, 'after', 1, 'union', true, '{}')`)
	edges, err := l.EdgesBetween(t.Context(), 1, 10, 16, []int64{11, 12, 13, 14, 16})
	if err != nil {
		t.Fatal(err)
	}
	type known struct {
		Task    int64
		Key     string
		Project int64
		Base    []int64
	}
	var got []known
	for _, e := range edges {
		got = append(got, known{e.Task, e.Key, e.Project, e.Base})
	}
	want := []known{{11, "a", 1, nil}, {12, "moved", 2, []int64{7}}, {14, "b", 1, []int64{8}}, {16, "moved too", 2, []int64{}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("edges (-want +got):\n%s", diff)
	}
}

// TestTimelessRow: a time that Go has none for, or JSON no text, keeps no pass and nobody who looks from its keys.
func TestTimelessRow(t *testing.T) {
	t.Parallel()
	l := open(t)
	l.exec(t, `INSERT INTO public."Conquest" (id, result, philosopher, domain, "evaluatedAt", "updatedAt") VALUES ('k', 'VICTORY', 'p', 'd', 'infinity', '-infinity'),
		('far', 'VICTORY', 'p', 'd', '10000-01-01', '0044-03-15 BC')`)
	seen, keys := 0, []string{"far", "k"}
	err := l.ComparePairs(t.Context(), 1, keys, func(p Pair) error {
		if seen++; p.Row == nil || p.Row.EvaluatedAt != nil || p.Row.UpdatedAt != nil {
			t.Errorf("row: %+v", p.Row)
		}
		return nil
	})
	if err != nil || seen != len(keys) {
		t.Errorf("%d pairs, %v", seen, err)
	}
	views, err := l.Views(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range views {
		if v.Row == nil || v.Row.EvaluatedAt != nil || v.Row.UpdatedAt != nil {
			t.Errorf("%+v", v.Row)
		}
	}
}

// TestIsolation: a default of the database's own does not change what statements see.
func TestIsolation(t *testing.T) {
	t.Parallel()
	l := open(t)
	l.exec(t, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database()); END $$`)
	l.pool.Reset()
	var level string
	if err := l.pool.QueryRow(t.Context(), `SHOW transaction_isolation`).Scan(&level); err != nil || level != "read committed" {
		t.Errorf("%s, %v", level, err)
	}
}
