package cdc

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// handleLimit is how long one call of Handle may take: a call that hangs would keep a full batch, and the server's shutdown, waiting.
	handleLimit = time.Minute
	// handleGrace is how long Handle may go on after its connection ended or Run was cancelled.
	handleGrace = 5 * time.Second
	// startTimeout bounds everything from the first check to START_REPLICATION, OnSlotCreated included.
	startTimeout = 2 * time.Minute
)

// session is one connection, from START_REPLICATION to its end. Run's goroutine owns it; with deliver's it shares pending and durable alone.
type session struct {
	l       *Listener
	conn    *pgconn.PgConn
	decoder decoder
	pos     *Position
	pending *pending

	took    atomic.Bool   // Handle has taken something; set by deliver
	durable atomic.Uint64 // end of the last transaction that Handle made durable; set by deliver

	timeout  time.Duration // silence that means death
	interval time.Duration // between status messages at rest

	deadline time.Time // of the next read
	heard    time.Time // last message
	sentAt   time.Time // last status
	sent     LSN       // what it confirmed

	asked    bool // a reply is owed
	askedAt  time.Time
	askedEnd LSN
	storm    time.Time // since when the server asks without pause
}

// session connects, streams until something ends it, and leaves nothing running. Once it returns, Handle is not under way.
func (l *Listener) session(ctx context.Context) error {
	conn, err := l.connect(ctx, true)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn)
	s, err := l.start(ctx, conn)
	if err != nil {
		return err
	}
	l.since = time.Now()
	l.enter(ctx, &status{connected: true, text: "streaming"})

	running, cancel := context.WithCancelCause(ctx)
	handling, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	var others sync.WaitGroup
	others.Go(func() { // ends a read that waits
		<-running.Done()
		_ = s.conn.Conn().SetReadDeadline(time.Unix(1, 0))
	})
	others.Go(func() { cancel(s.deliver(handling, running.Done())) })
	others.Go(func() { cancel(l.watch(running, l.known.print)) })

	err = s.stream(running)
	cancel(err)
	if ctx.Err() == nil {
		l.enter(ctx, &status{text: "connection lost", err: err})
		hangUp(ctx, conn) // before the wait: a server that shuts down waits for us
	}
	grace := time.AfterFunc(handleGrace, abandon)
	others.Wait()
	grace.Stop()
	if ctx.Err() != nil {
		return s.finish()
	}
	if sqlState(err) == "42704" { // slot and publication may both be there again when prepare looks
		l.known.broken = "the publication was missing at the slot's place"
	}
	return err
}

// start prepares everything and starts the stream.
func (l *Listener) start(ctx context.Context, conn *pgx.Conn) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	now, err := l.prepare(ctx, conn)
	if err != nil {
		return nil, err
	}
	timeout, err := senderTimeout(ctx, conn)
	if err != nil {
		return nil, err
	}
	pos, err := NewPosition(now.confirmed)
	if err != nil {
		return nil, wrap("start the stream", err)
	}
	options := pglogrepl.StartReplicationOptions{Mode: pglogrepl.LogicalReplication, PluginArgs: []string{
		"proto_version '1'", "publication_names '" + quotePublication(l.cfg.Publication) + "'"}}
	if err := pglogrepl.StartReplication(ctx, conn.PgConn(), l.cfg.Slot, now.confirmed, options); err != nil {
		return nil, wrap("start the stream", err)
	}
	l.known = now // not before: until now somebody else may have been reading
	s := &session{
		l: l, conn: conn.PgConn(), pos: pos,
		decoder: decoder{keyColumn: l.cfg.KeyColumn, relations: map[uint32]relation{}},
		pending: newPending(l.cfg.BatchKeys, l.cfg.BatchBytes),
		timeout: timeout, interval: min(timeout/3, statusMost), heard: time.Now(),
	}
	return s, s.report(s.heard)
}

// deliver calls Handle with whatever is pending, until stop or an error. Empty transactions only move the position.
func (s *session) deliver(ctx context.Context, stop <-chan struct{}) error {
	var b Batch
	var end LSN
	for {
		select {
		case <-stop:
			return nil
		case <-s.pending.ready:
		}
		b, end = s.pending.take(b)
		if err := s.hand(ctx, b); err != nil {
			return &Error{Op: "hand over", Class: ClassHandle, Err: err}
		}
		if end != 0 {
			s.durable.Store(uint64(end))
		}
	}
}

func (s *session) hand(ctx context.Context, b Batch) error {
	if len(b.Changes)+len(b.Truncated) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, handleLimit)
	defer cancel()
	s.l.handling.Store(time.Now().UnixNano())
	defer s.l.handling.Store(0)
	err := s.l.cfg.Handle(ctx, b)
	s.took.CompareAndSwap(false, err == nil)
	return err
}

// finish tells the server the last position and leaves the stream in good order, in bounded time: a server in the middle of a large
// transaction would first send the rest of it. Run ends well either way; what was not told comes again.
func (s *session) finish() error {
	if s.conn.IsClosed() { // a read has failed: what is written now would meet pgconn's own goodbye, from a goroutine of its own
		return nil
	}
	if err := s.pos.Durable(LSN(s.durable.Load())); err != nil {
		return wrap("confirm", err)
	}
	s.asked = true // ask nothing
	if err := s.report(time.Now()); err != nil {
		return err
	}
	if err := s.conn.Conn().SetDeadline(time.Now().Add(closeTimeout)); err != nil {
		return wrap("stop", err)
	}
	if _, err := pglogrepl.SendStandbyCopyDone(context.Background(), s.conn); err != nil {
		return wrap("stop", err)
	}
	return nil
}
