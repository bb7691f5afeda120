// Package cdc tells which rows of a PostgreSQL database were changed: WAL in, the keys of committed transactions out.
//
// What it hands over is a hint, "row K of table T was touched", never a value: values would drag unchanged TOAST, schema changes and
// replays of old states along, and whoever gets a key can read the row as it is now. A change comes at least once. After a crash on either side,
// and on PostgreSQL before 17 also after a clean restart of the server, some come again; none is left out.
//
// The one promise that everything else serves: the slot is told that a transaction is done only after Handle has returned nil for all of
// it. There is no other record of progress, so there are no two that could disagree. A row that cannot be decoded ends the connection,
// unconfirmed; it is never skipped.
//
//	server -> stream (decode) -> pending (bounded) -> deliver (Handle) -> durable -.
//	   ^                                                                          |
//	   '------------- status: every third of wal_sender_timeout, or sooner -------'
//
// One goroutine owns the connection: it alone reads and writes, so a status never meets a read's deadline. Another calls Handle,
// however long that takes. When pending is full the first stops reading but goes on with its status, so a slow Handle holds up the
// stream and not the connection. When Handle fails the connection is closed and everything unconfirmed is read again: a listener that
// cannot hand over has no business to hold a walsender, for which a server that wants to stop would wait.
//
// What cannot be read any more (slot lost, dropped, not on this server after a failover, publication missing or changed later than the slot
// stands) leads to a new slot, and OnSlotCreated says that everything before is unknown: the caller then compares both sides whole.
//
// Not closed: a slot that somebody drops and makes again, or advances, while no listener runs looks like our own. A new slot is no failover slot
// (PostgreSQL 17), unless it replaces one: after a failover it is made anew. Making one needs a second free slot for a moment.
package cdc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// Config says what to listen to and whom to tell. URL, Slot, Publication and Handle are required.
type Config struct {
	// URL is an ordinary PostgreSQL URL of a role with LOGIN and REPLICATION, directly to the server (no pooler).
	// What replication needs on top (replication=database, timeouts switched off, TCP keepalive) is added here.
	URL string

	// Password, where it is set, replaces the URL's at each connection that is made: it may change.
	Password func() string

	Slot        string // made where it is not there; lower-case letters, digits and underscores, at most 63
	Publication string // made by somebody else before, see CheckPublication

	// Tables that the publication must have, written as Change.Table writes them; empty: at least one.
	Tables []string

	KeyColumn   string // of every published table; default "id"
	Application string // application_name, default "reconciler"

	// Handle makes a batch durable; nil means that it is. It is called by one goroutine, never concurrently. Its context ends after a
	// minute, and outlives a cancelled Run by a few seconds, so that what is under way can end. After an error the same changes come
	// again, on a new connection: what is worth trying at once, as after a deadlock, Handle tries itself.
	Handle func(ctx context.Context, b Batch) error

	// OnSlotCreated is called whenever the slot has to be made anew (first start, lost, invalidated, dropped, failed over): the caller
	// notes, durably, that everything must be compared. The changes from the moment of the call on are in the new slot already, yet the
	// slot takes its name only after the call has returned nil: a crash in between leaves no slot, and the next start calls again. So
	// the news cannot be lost, and may come twice. A comparison that starts after the call misses nothing.
	OnSlotCreated func(ctx context.Context) error

	Log *slog.Logger // default slog.Default()

	BatchKeys  int // changes in a batch, default 4096; there are two at a time
	BatchBytes int // of keys in a batch, default 1 MiB

	// MaxRetained is how many bytes of WAL the server may keep for the slot. With more the slot is given up on purpose, as if it were lost:
	// that costs a comparison, where a full disk costs the application. It must be well above what a busy server writes between two
	// checkpoints, by which a slot that is up to date lags too. 0: no limit.
	MaxRetained int64

	// CheckEvery is how often the publication is looked at while streaming, on a connection of its own, where anything was written since;
	// default 15 s. A missing publication makes PostgreSQL 18, and a table that was taken out makes every version, leave changes out
	// without an error.
	CheckEvery time.Duration
}

// Batch is what was changed by one or more committed transactions, or by a part of a large one.
// It is valid until Handle returns: its slices, not its strings, are used again.
type Batch struct {
	Changes   []Change // in commit order; a key that was changed twice is there twice
	Truncated []string // tables that were emptied, written as Change.Table
	// XIDs are the numbers of these transactions. A walsender sends a commit as soon as it is in the WAL, and that can be before other
	// sessions see it (before it leaves the server's list of running transactions; with synchronous replication much before): who reads
	// rows because of a batch must wait until its snapshot sees them, see pg_visible_in_snapshot.
	XIDs        []uint32
	First, Last time.Time // commit times of the oldest and the newest transaction, on the server's clock
}

// Change is one changed row. An UPDATE of the key gives two: the old key as 'D', the new one as 'U'.
type Change struct {
	Table string // as "Conquest"; outside the schema public as "schema.table"
	Key   string // text form of the key column
	Kind  byte   // 'I' insert, 'U' update, 'D' delete
}

// Stats is what a listener is doing.
type Stats struct {
	Connected   bool      // streaming
	State       string    // in a few words, for people
	Class       Class     // of the error that ended the last connection; empty while streaming
	LastError   error     // that error; nil while streaming, unless Handle failed and has taken nothing since
	Received    LSN       // the highest place the server has named
	Confirmed   LSN       // what the server was told last
	LastMessage time.Time // from the server, keepalives among them
	Handling    time.Time // since when Handle is under way; zero: it is not
	Reconnects  int       // connections ended by an error
	SlotsMade   int       // slots made anew
}

// Listener reads one slot. Make it with New.
type Listener struct {
	cfg  Config
	conn *pgx.ConnConfig

	state       atomic.Pointer[status]
	received    atomic.Uint64
	confirmed   atomic.Uint64
	lastMessage atomic.Int64
	reconnects  atomic.Int64
	slotsMade   atomic.Int64

	handling atomic.Int64 // since when Handle is under way; 0: it is not

	// Only Run's goroutine uses what follows.
	since  time.Time // when the last stream began
	known  history
	told   error // what was logged and is not over
	toldAt time.Time
	times  int // connections that an error ended since the last stream
}

// status is what Stats tells of the connection; one is never changed, but replaced.
type status struct {
	connected bool
	text      string // in a few words, for people
	err       error  // what ended the last connection, or Handle failed with; nil: neither
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// New checks the configuration. It does not connect.
func New(cfg Config) (*Listener, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	conn, err := connConfig(&cfg)
	switch {
	case err != nil:
		return nil, err
	case !slotName.MatchString(cfg.Slot):
		return nil, fmt.Errorf("slot name %q: use 1 to 63 lower-case letters, digits and underscores", cfg.Slot)
	case cfg.Publication == "" || len(cfg.Publication) > 63:
		return nil, fmt.Errorf("publication name %q: use 1 to 63 bytes", cfg.Publication)
	case cfg.Handle == nil:
		return nil, errors.New("listener without Handle")
	case cfg.BatchKeys < 0 || cfg.BatchBytes < 0 || cfg.CheckEvery < 0 || cfg.MaxRetained < 0:
		return nil, errors.New("listener with a limit below zero")
	}
	if cfg.OnSlotCreated == nil {
		cfg.OnSlotCreated = func(context.Context) error { return nil }
	}
	setDefault(&cfg.KeyColumn, "id")
	setDefault(&cfg.BatchKeys, 4096)
	setDefault(&cfg.BatchBytes, 1<<20)
	setDefault(&cfg.CheckEvery, 15*time.Second)
	l := &Listener{cfg: cfg, conn: conn}
	l.state.Store(&status{text: "not started"})
	return l, nil
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Run listens until ctx ends, and then returns nil, after Handle has returned and the server has been told. Lost connections are made
// again, and what a person has to mend is waited for: [Listener.Check] tells it beforehand, [Listener.Stats] at any time. It may be called
// again when it has returned.
func (l *Listener) Run(ctx context.Context) error {
	var retry backoff
	l.since, l.known, l.told, l.times = time.Time{}, history{}, nil, 0
	for {
		l.enter(ctx, &status{text: "connecting"})
		last := l.since
		err := l.session(ctx)
		if ctx.Err() != nil {
			l.enter(ctx, &status{text: "stopped"})
			return nil
		}
		class := ErrorClass(err)
		l.times++
		l.enter(ctx, &status{text: "waiting to try again: " + string(class), err: err})
		l.reconnects.Add(1)
		if l.since != last && time.Since(l.since) > sustained {
			retry = 0
		}
		if !retry.wait(ctx, class) {
			return nil
		}
	}
}

// enter publishes the state. An error is logged when it differs from the last one, again after an hour, and its end when the stream is back: a short
// outage is two lines, however often it is tried. Where Handle failed a connection proves nothing: the stream is back when Handle has taken something.
func (l *Listener) enter(ctx context.Context, now *status) {
	if now.err == nil && (!now.connected || l.told != nil && ErrorClass(l.told) == ClassHandle) {
		now.err = l.told // still the reason
	}
	l.state.Store(now)
	switch {
	case now.err != nil && (l.told == nil || l.told.Error() != now.err.Error() || time.Since(l.toldAt) >= remindAfter):
		l.told, l.toldAt = now.err, time.Now()
		l.cfg.Log.WarnContext(ctx, "stream interrupted", slog.String(logSlot, l.cfg.Slot), slog.String(logClass, string(ErrorClass(now.err))),
			slog.Any(logError, now.err), slog.Int(logTimes, l.times))
	case now.connected && now.err == nil:
		l.cfg.Log.InfoContext(ctx, "streaming", slog.String(logSlot, l.cfg.Slot), slog.String(logPosition, LSN(l.confirmed.Load()).String()), slog.Int(logTimes, l.times))
		l.told, l.times = nil, 0
	}
}

// handled is told, by Run's goroutine, that Handle has taken something: what it had failed at is over.
func (l *Listener) handled(ctx context.Context) {
	if l.told != nil {
		l.told = nil
		l.enter(ctx, &status{connected: true, text: "streaming"})
	}
}

// The keys of log attributes.
const (
	logSlot     = "slot"
	logClass    = "class"
	logError    = "error"
	logReason   = "reason"
	logPosition = "position"
	logTimes    = "times" // connections that an error ended since it streamed last
	logSQLState = "sqlstate"
)

// Stats may be called at any time, by anyone.
func (l *Listener) Stats() Stats {
	now := l.state.Load()
	s := Stats{
		Connected: now.connected, State: now.text, LastError: now.err,
		Received: LSN(l.received.Load()), Confirmed: LSN(l.confirmed.Load()),
		Reconnects: int(l.reconnects.Load()), SlotsMade: int(l.slotsMade.Load()),
	}
	if now.err != nil {
		s.Class = ErrorClass(now.err)
	}
	if at := l.lastMessage.Load(); at != 0 {
		s.LastMessage = time.Unix(0, at)
	}
	if at := l.handling.Load(); at != 0 {
		s.Handling = time.Unix(0, at)
	}
	return s
}

// remindAfter is when an outage that goes on is told again: a log is kept for days, and read from its end.
const remindAfter = time.Hour

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 10 * time.Second
	busyRetry  = time.Second      // a slot that is in use is free the moment its reader goes: look often, for as long as it takes
	sustained  = 30 * time.Second // a connection that lived this long was a good one
)

// backoff is the last wait: each is twice as long as the one before, up to a limit, and jittered by half.
type backoff time.Duration

// wait returns false when ctx has ended.
func (b *backoff) wait(ctx context.Context, class Class) bool {
	limit := lastRetry
	if class == ClassSlotBusy {
		limit = busyRetry
	}
	next := min(max(2*time.Duration(*b), firstRetry), limit)
	*b = backoff(next)
	timer := time.NewTimer(next/2 + rand.N(next/2))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
