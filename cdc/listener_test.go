package cdc

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
)

// TestVersions shows on every major that each kind of change arrives as its keys, whatever the table's replica identity and columns.
func TestVersions(t *testing.T) {
	t.Parallel()
	for _, version := range pgtest.Versions() {
		t.Run("postgres="+version, func(t *testing.T) {
			t.Parallel()
			r := rigAt(t, pgtest.Server(t, sandbox.Options{Version: version}).URL())
			r.exec(`CREATE TYPE mood AS ENUM ('good', 'bad')`)
			r.exec(`CREATE TABLE "Thing" (note text, id varchar PRIMARY KEY, mood mood DEFAULT 'good')`)
			r.exec(`CREATE SCHEMA other`)
			r.exec(`CREATE TABLE other.whole (id int PRIMARY KEY, note text, mood mood)`)
			r.exec(`ALTER TABLE other.whole REPLICA IDENTITY FULL`)
			r.exec(`ALTER TABLE other.whole ALTER note SET STORAGE EXTERNAL`)
			r.exec(`CREATE PUBLICATION "Things" FOR TABLE "Thing" (id), other.whole`)
			e := r.listen(nil)
			e.streams()
			for _, step := range []struct{ sql, hears string }{
				{`INSERT INTO "Thing" VALUES ('x', 'a'), (NULL, '')`, "I:Thing:a I:Thing:"},
				{`UPDATE "Thing" SET mood = 'bad' WHERE id = 'a'`, "U:Thing:a"},
				{`UPDATE "Thing" SET id = 'b' WHERE id = 'a'`, "D:Thing:a U:Thing:b"},
				{`DELETE FROM "Thing" WHERE id = 'b'`, "D:Thing:b"},
				{`INSERT INTO other.whole VALUES (1, repeat('x', 100000), 'good')`, "I:other.whole:1"},
				{`UPDATE other.whole SET mood = 'bad'`, "U:other.whole:1"}, // note is stored out of line and not sent
				{`UPDATE other.whole SET id = 2`, "D:other.whole:1 U:other.whole:2"},
				{`DELETE FROM other.whole`, "D:other.whole:2"},
				{`TRUNCATE "Thing", other.whole`, "T:Thing T:other.whole"},
				{`ALTER TABLE "Thing" ADD more text; ALTER TABLE "Thing" DROP note; INSERT INTO "Thing" VALUES ('c')`, "I:Thing:c"},
			} {
				r.exec(step.sql)
				e.hears(step.hears)
			}
			if err := e.stop(); err != nil {
				t.Fatal(err)
			}
			if e.made.Load() != 1 || e.l.Stats().Reconnects != 0 {
				t.Errorf("told of %d new slots; %+v", e.made.Load(), e.l.Stats())
			}
		})
	}
}

// TestOrder: rows come in the order of the commits, and rolled back savepoints not at all.
func TestOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	e := r.listen(nil)
	e.streams()
	late := rigAt(t, r.url)
	late.exec(`BEGIN; INSERT INTO "Thing" VALUES ('late'); SAVEPOINT s; INSERT INTO "Thing" VALUES ('never'); ROLLBACK TO s`)
	r.exec(`INSERT INTO "Thing" VALUES ('early')`)
	late.exec(`COMMIT`)
	e.hears("I:Thing:early I:Thing:late")
}

// TestRestartLosesNothing stops after each row and writes the next one while nobody listens. Its WAL begins exactly where the last
// transaction ended, which is where the slot stands: whoever skips up to there loses it.
func TestRestartLosesNothing(t *testing.T) {
	t.Parallel()
	r, _ := ownRig(t, sandbox.Options{})
	e := r.listen(nil)
	e.streams()
	quick := false
	for _, key := range []string{"a", "b", "c", "d"} {
		began := time.Now()
		if err := e.stop(); err != nil {
			t.Fatal(err)
		}
		quick = quick || time.Since(began) < closeTimeout
		r.exec(`INSERT INTO "Thing" VALUES ($1)`, key)
		end := r.walEnd()
		e = r.listen(nil)
		e.hears("I:Thing:" + key)
		eventually(t, "row "+key+" confirmed", func() bool { return r.confirmed() >= end })
	}
	if !quick { // one may, on a busy machine
		t.Error("each stop ran into its limit")
	}
}

// TestHandleErrorReplays: what Handle refuses stays unconfirmed and comes again, and what came before it does not get lost with it.
func TestHandleErrorReplays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var refuse atomic.Int32
	var seen atomic.Value // position of the slot at the last refusal
	e := r.listen(func(cfg *Config) {
		handle := cfg.Handle
		cfg.Handle = func(ctx context.Context, b Batch) error {
			if refuse.Load() > 0 {
				seen.Store(rigAt(t, r.url).confirmedAt(r.slot))
				refuse.Add(-1)
				return errors.New("not today")
			}
			return handle(ctx, b)
		}
	})
	e.streams()
	refuse.Store(3)
	before := r.walEnd()
	r.exec(`INSERT INTO "Thing" VALUES ('a')`)
	e.hears("I:Thing:a")
	if at := seen.Load().(LSN); at > before {
		t.Errorf("confirmed %s, and the row was written at %s", at, before)
	}
	s := e.l.Stats()
	if s.Reconnects != 3 {
		t.Errorf("%d reconnects, want 3", s.Reconnects)
	}
}

// TestNothingIsConfirmedBeforeHandleEnds, and a Handle that is slower than wal_sender_timeout keeps its connection, also when nothing more can be read.
func TestNothingIsConfirmedBeforeHandleEnds(t *testing.T) {
	t.Parallel()
	for name, rows := range map[string]int{"little is pending": 1, "pending is full and the server blocked": 200_000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			called, release := make(chan struct{}), make(chan struct{})
			var once sync.Once
			var count atomic.Int64
			e := r.listen(func(cfg *Config) {
				cfg.URL += "&wal_sender_timeout=2s"
				cfg.BatchKeys = 1000
				cfg.Handle = func(_ context.Context, b Batch) error {
					once.Do(func() { close(called); <-release })
					count.Add(int64(len(b.Changes)))
					return nil
				}
			})
			t.Cleanup(sync.OnceFunc(func() {
				select {
				case <-release:
				default:
					close(release)
				}
			}))
			e.streams()
			r.exec(`INSERT INTO "Thing" VALUES ('first')`)
			end := r.walEnd()
			<-called
			r.exec(`INSERT INTO "Thing" SELECT i::text FROM generate_series(1, $1) i`, rows)
			r.exec(`CREATE TABLE elsewhere AS SELECT 1`) // keepalives go on
			began := r.query(`SELECT clock_timestamp()::text`)
			eventually(t, "three times the timeout, on the same connection", func() bool {
				return r.query(`SELECT bool_or(reply_time > $1::timestamptz + interval '6 s')::text FROM pg_stat_replication
					WHERE pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = $2)`, began, r.slot) == "true"
			})
			if at := r.confirmed(); at >= end {
				t.Errorf("confirmed %s while Handle has the row that ends at %s", at, end)
			}
			close(release)
			all := r.walEnd()
			eventually(t, "everything confirmed", func() bool { return r.confirmed() >= all })
			if got := count.Load(); got != int64(rows)+1 || e.l.Stats().Reconnects != 0 {
				t.Errorf("%d rows; %+v", got, e.l.Stats())
			}
		})
	}
}

// TestLargeTransaction comes in parts of bounded size, of which none is confirmed: who is stopped in its middle gets all of it again.
func TestLargeTransaction(t *testing.T) {
	t.Parallel()
	const rows, limit = 50_000, 500
	r, _ := ownRig(t, sandbox.Options{})
	stopAt := func(stop int) (count int) {
		t.Helper()
		enough := make(chan struct{})
		e := r.listen(func(cfg *Config) {
			cfg.BatchKeys = limit
			cfg.Handle = func(ctx context.Context, b Batch) error {
				if len(b.Changes) > limit || len(b.XIDs) != 1 || b.First.IsZero() || b.Last.Before(b.First) {
					t.Errorf("%d changes of transactions %v, %s to %s", len(b.Changes), b.XIDs, b.First, b.Last)
				}
				if count += len(b.Changes); count >= stop {
					close(enough)
					if stop < rows {
						<-ctx.Done()
						return ctx.Err()
					}
				}
				return nil
			}
		})
		e.streams()
		if stop < rows {
			r.exec(`INSERT INTO "Thing" SELECT i::text FROM generate_series(1, $1) i`, rows)
		}
		<-enough
		end := r.walEnd()
		if stop == rows {
			eventually(t, "confirmed", func() bool { return r.confirmed() >= end })
		}
		if err := e.stop(); err != nil {
			t.Fatal(err)
		}
		return count
	}
	if got := stopAt(rows / 2); got >= rows {
		t.Fatalf("%d rows, stopped too late", got)
	}
	if got := stopAt(rows); got != rows {
		t.Errorf("%d rows the second time, want %d", got, rows)
	}
}

// TestIdleAdvance: WAL that concerns no published table is let go, also where the server never asks anything.
func TestIdleAdvance(t *testing.T) {
	t.Parallel()
	for _, timeout := range []string{"60s", "0"} {
		t.Run("wal_sender_timeout="+timeout, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			e := r.listen(func(cfg *Config) { cfg.URL += "&wal_sender_timeout=" + timeout })
			e.streams()
			r.exec(`CREATE TABLE elsewhere AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)`)
			r.exec(`UPDATE elsewhere SET repeat = repeat('y', 1000)`)
			end := r.walEnd()
			eventually(t, "foreign WAL confirmed", func() bool { return r.confirmed() >= end })
			if heard, _ := e.all(); heard != "" {
				t.Errorf("heard %q", heard)
			}
		})
	}
}

// TestSecondListenerWaits for as long as the first one reads, and then goes on where it ended.
func TestSecondListenerWaits(t *testing.T) {
	t.Parallel()
	r, _ := ownRig(t, sandbox.Options{})
	first := r.listen(nil)
	first.streams()
	second := r.listen(nil)
	eventually(t, "slot busy", func() bool { return second.l.Stats().Class == ClassSlotBusy })
	r.exec(`INSERT INTO "Thing" VALUES ('a')`)
	first.hears("I:Thing:a")
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	r.exec(`INSERT INTO "Thing" VALUES ('b')`)
	second.hears("I:Thing:b")
	if second.made.Load() != 0 {
		t.Error("a slot in use is no reason to make one")
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := Config{URL: "postgres://u:secret@127.0.0.1/d", Slot: "s", Publication: "p", Handle: func(context.Context, Batch) error { return nil }}
	for name, change := range map[string]func(*Config){
		"no URL":                func(c *Config) { c.URL = "" },
		"a URL of another kind": func(c *Config) { c.URL = "mysql://u:secret@h/d" },
		"a bad URL":             func(c *Config) { c.URL = "postgres://u:secret@h:port/d" },
		"a bad setting in it":   func(c *Config) { c.URL = "postgres://u:secret@h/d?sslmode=perhaps" },
		"no slot":               func(c *Config) { c.Slot = "" },
		"a slot in capitals":    func(c *Config) { c.Slot = "Slot" },
		"a slot with a quote":   func(c *Config) { c.Slot = `s"; DROP` },
		"a long slot":           func(c *Config) { c.Slot = strings.Repeat("s", 64) },
		"no publication":        func(c *Config) { c.Publication = "" },
		"no Handle":             func(c *Config) { c.Handle = nil },
		"a negative limit":      func(c *Config) { c.BatchKeys = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := good
			change(&cfg)
			_, err := New(cfg)
			if err == nil {
				t.Fatal("accepted")
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the password is in %q", err)
			}
		})
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}

// TestFailingHandleIsToldOnce: connections come and go while Handle fails, and the log has one line at its begin and one at its end.
func TestFailingHandleIsToldOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var out lockedText
	var failing atomic.Bool
	failing.Store(true)
	e := r.listen(func(cfg *Config) {
		handle := cfg.Handle
		cfg.Log = slog.New(slog.NewTextHandler(&out, nil))
		cfg.Handle = func(ctx context.Context, b Batch) error {
			if failing.Load() {
				return errors.New("no room")
			}
			return handle(ctx, b)
		}
	})
	e.streams()
	r.exec(`INSERT INTO "Thing" VALUES ('a')`)
	eventually(t, "three tries", func() bool { return e.l.Stats().Reconnects >= 3 })
	if e.l.Stats().LastError == nil {
		t.Error("the failure is not told")
	}
	failing.Store(false)
	e.hears("I:Thing:a")
	eventually(t, "it is over, and told", func() bool { return e.l.Stats().LastError == nil && strings.Count(out.String(), "msg=streaming") == 2 })
	if said := out.String(); strings.Count(said, "stream interrupted") != 1 {
		t.Errorf("it said:\n%s", said)
	}
}

// TestOutageIsToldAgain: an outage is told once, again after an hour, and with its times when it is over.
func TestOutageIsToldAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		plain := func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
		l, err := New(Config{URL: "postgres://u@127.0.0.1/d", Slot: "s", Publication: "p", Handle: func(context.Context, Batch) error { return nil },
			Log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: plain}))})
		if err != nil {
			t.Fatal(err)
		}
		for range 130 { // as Run does, for an hour and five minutes
			l.enter(t.Context(), &status{text: "connecting"})
			l.times++
			l.enter(t.Context(), &status{text: "waiting to try again", err: errors.New("nobody there")})
			time.Sleep(30 * time.Second) // of the bubble
		}
		l.enter(t.Context(), &status{connected: true, text: "streaming"})
		want := `level=WARN msg="stream interrupted" slot=s class=transient error="nobody there" times=1
level=WARN msg="stream interrupted" slot=s class=transient error="nobody there" times=120
level=INFO msg=streaming slot=s position=0/0 times=130
`
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// lockedText is what several goroutines write.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
