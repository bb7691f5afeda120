package cdc

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// patience is how long a test waits for an event before it says that it will not come: a busy machine must not fail it.
const patience = 3 * time.Minute

var slotNumber atomic.Int64

// rig is a database with a table, a publication of its key, and what it takes to listen to it.
type rig struct {
	t    testing.TB
	url  string
	db   *pgx.Conn
	slot string
}

// newRig works in a database of the shared server.
func newRig(t testing.TB) *rig {
	t.Helper()
	return rigAt(t, pgtest.Database(t, sandbox.Schema{Bare: true})).furnish()
}

// ownRig works on a server of its own: for tests that stop it, and for those that stop the listener soon after it made its slot, where slots of other
// tests would raise the false alarm that publicationYounger speaks of.
func ownRig(t testing.TB, o sandbox.Options) (*rig, *sandbox.Server) {
	t.Helper()
	server := pgtest.Server(t, o)
	return rigAt(t, server.URL()).furnish(), server
}

func (r *rig) furnish() *rig {
	r.t.Helper()
	r.exec(`CREATE TABLE "Thing" (id text PRIMARY KEY, note text)`)
	r.exec(`CREATE PUBLICATION "Things" FOR TABLE "Thing" (id)`)
	return r
}

// rigAt works in any database and makes nothing in it.
func rigAt(t testing.TB, url string) *rig {
	t.Helper()
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	return &rig{t: t, url: url, db: db, slot: fmt.Sprintf("cdc_%d", slotNumber.Add(1))}
}

func (r *rig) exec(sql string, args ...any) {
	r.t.Helper()
	if _, err := r.db.Exec(r.t.Context(), sql, args...); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
}

func (r *rig) query(sql string, args ...any) string {
	r.t.Helper()
	var s *string
	if err := r.db.QueryRow(r.t.Context(), sql, args...).Scan(&s); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
	if s == nil {
		return ""
	}
	return *s
}

// confirmed is the slot's position as the server has it.
func (r *rig) confirmed() LSN {
	r.t.Helper()
	return r.confirmedAt(r.slot)
}

// confirmedAt is 0 where there is no such slot.
func (r *rig) confirmedAt(slot string) LSN {
	r.t.Helper()
	return parseLSN(r.t, r.query(`SELECT coalesce((SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1), '0/0')::text`, slot))
}

func (r *rig) walEnd() LSN {
	r.t.Helper()
	return parseLSN(r.t, r.query(`SELECT pg_current_wal_lsn()::text`))
}

func parseLSN(t testing.TB, s string) LSN {
	t.Helper()
	var l LSN
	if err := l.Scan(s); err != nil {
		t.Fatal(err)
	}
	return l
}

// as gives the URL for another role.
func (r *rig) as(user, password string) string {
	u, err := url.Parse(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

// in gives the URL of another database.
func (r *rig) in(database string) string {
	u, err := url.Parse(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	u.Path = "/" + database
	return u.String()
}

// ear is a listener under test, with what it heard.
type ear struct {
	t    testing.TB
	l    *Listener
	stop func() error // cancels Run and returns what it returned

	made atomic.Int64 // calls of OnSlotCreated

	mu      sync.Mutex
	heard   []string // "I:Thing:a"
	changed chan struct{}
	done    chan struct{}
	result  error
}

// listen runs a listener until the test ends. change may alter its configuration, and wrap Handle.
func (r *rig) listen(change func(*Config)) *ear {
	r.t.Helper()
	e := &ear{t: r.t, changed: make(chan struct{}), done: make(chan struct{})}
	cfg := Config{
		URL: r.url, Slot: r.slot, Publication: "Things", Handle: e.handle,
		OnSlotCreated: func(context.Context) error { e.made.Add(1); return nil },
		Log:           slog.New(slog.NewTextHandler(testWriter{r.t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	l, err := New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	e.l = l
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	go func() {
		defer close(e.done)
		e.result = l.Run(ctx)
	}()
	e.stop = func() error {
		cancel()
		<-e.done
		return e.result
	}
	r.t.Cleanup(func() { _ = e.stop() })
	return e
}

func (e *ear) handle(_ context.Context, b Batch) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range b.Changes {
		e.heard = append(e.heard, fmt.Sprintf("%c:%s:%s", c.Kind, c.Table, c.Key))
	}
	for _, table := range b.Truncated {
		e.heard = append(e.heard, "T:"+table)
	}
	close(e.changed)
	e.changed = make(chan struct{})
	return nil
}

// all is what was heard so far, and a channel that is closed when there is more.
func (e *ear) all() (string, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.heard, " "), e.changed
}

// hears waits until what was heard ends with words.
func (e *ear) hears(words string) {
	e.t.Helper()
	limit := time.After(patience)
	for {
		got, more := e.all()
		if strings.HasSuffix(got, words) {
			return
		}
		select {
		case <-more:
		case <-limit:
			e.t.Fatalf("heard %q, not %q; %+v", got, words, e.l.Stats())
		}
	}
}

// streams waits until the listener is connected.
func (e *ear) streams() {
	e.t.Helper()
	eventually(e.t, "streaming", func() bool { return e.l.Stats().Connected })
}

// eventually looks again and again: for what only the server's catalog tells, which calls nobody.
func eventually(t testing.TB, what string, true func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	limit := time.After(patience)
	for !true() {
		select {
		case <-ticker.C:
		case <-limit:
			t.Fatalf("not in time: %s", what)
		}
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}
