package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	// ownTimeout is the silence after which a server is dead if it has no wal_sender_timeout of its own.
	ownTimeout = 2 * time.Minute
	// statusMost is the longest between two status messages: proxies cut connections that are idle.
	statusMost = 10 * time.Second
	// statusLeast is the shortest between two that only tell of progress.
	statusLeast = 100 * time.Millisecond
	// answerLeast is the shortest between two answers: a server that shuts down asks again as soon as it has one.
	answerLeast = 10 * time.Millisecond
	// stormGap and stormPatience make out a server that shuts down and waits for us: it asks this often, for this long.
	stormGap      = 200 * time.Millisecond
	stormPatience = time.Second
	// handleGrace is how long Handle may go on after its connection ended or Run was cancelled.
	handleGrace = 5 * time.Second
	// startTimeout bounds everything from the first check to START_REPLICATION, OnSlotCreated included.
	startTimeout = 2 * time.Minute
)

var (
	errSilent   = errors.New("the server has gone silent")
	errEnded    = errors.New("the server has ended the stream")
	errShutdown = errors.New("the server is shutting down and waits for us")
)

// session is one connection, from START_REPLICATION to its end. All but durable belongs to the goroutine in stream.
type session struct {
	l       *Listener
	conn    *pgconn.PgConn
	decoder decoder
	pos     *Position
	pending *pending

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
	others.Go(func() { cancel(l.watchPublication(running, l.known.print)) })

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

// senderTimeout reads the patience that the server has with us; 0 there means none at all, and then our own counts.
func senderTimeout(ctx context.Context, conn *pgx.Conn) (time.Duration, error) {
	var ms int64
	if err := conn.QueryRow(ctx, `SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout'`).Scan(&ms); err != nil {
		return 0, wrap("read wal_sender_timeout", err)
	}
	if ms == 0 {
		return ownTimeout, nil
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// quotePublication writes a name as pgoutput wants it inside its option's literal: without double quotes it would be folded to lower case.
func quotePublication(name string) string {
	return strings.ReplaceAll(`"`+strings.ReplaceAll(name, `"`, `""`)+`"`, "'", "''")
}

// stream reads and answers until an error or the end of ctx, whose cause it returns.
func (s *session) stream(ctx context.Context) error {
	now := time.Now()
	for {
		due, err := s.keepUp(now)
		if err != nil {
			return err
		}
		if s.pending.full() {
			if now = s.waitForRoom(ctx, due); ctx.Err() != nil {
				return context.Cause(ctx)
			}
			continue
		}
		// First the deadline, then the look at ctx: who cancels does it the other way round, so the wish to stop is never overwritten.
		if !due.Equal(s.deadline) {
			if err := s.conn.Conn().SetReadDeadline(due); err != nil {
				return wrap("read the stream", err)
			}
			s.deadline = due
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		// Without a context: pgconn would watch it with a goroutine for each message, and set deadlines for writes as well.
		msg, err := s.conn.ReceiveMessage(context.Background())
		now = time.Now()
		switch {
		case err != nil && pgconn.Timeout(err):
			if now.Sub(s.heard) > s.timeout {
				return wrap("read the stream", errSilent)
			}
			continue
		case err != nil:
			return wrap("read the stream", err)
		}
		s.heard = now
		s.l.lastMessage.Store(now.UnixNano())
		if err := s.receive(msg, now); err != nil {
			return err
		}
	}
}

// keepUp sends a status if it is time, and returns when it will be next.
func (s *session) keepUp(now time.Time) (due time.Time, err error) {
	if err := s.pos.Durable(LSN(s.durable.Load())); err != nil {
		return due, wrap("confirm", err)
	}
	if due = s.due(); now.Before(due) {
		return due, nil
	}
	if err := s.report(now); err != nil {
		return due, err
	}
	return s.due(), nil
}

// due is when the next status must go out. While anything is on its way through Handle that is soon, as nobody calls when it is done.
func (s *session) due() time.Time {
	switch {
	case s.asked:
		return s.sentAt.Add(min(answerLeast, s.interval))
	case s.pos.Confirmed() > s.sent || !s.pos.Idle():
		return s.sentAt.Add(min(statusLeast, s.interval))
	default:
		return s.sentAt.Add(s.interval)
	}
}

// report sends a status. All three positions are the confirmed one. It asks for an answer, which is how a silent server is told from one
// that has nothing to say, and how the position moves on at rest. An answer to a question asks nothing: else they would never end.
func (s *session) report(now time.Time) error {
	at := s.pos.Confirmed()
	if err := s.conn.Conn().SetWriteDeadline(now.Add(s.timeout)); err != nil {
		return wrap("send status", err)
	}
	if err := pglogrepl.SendStandbyStatusUpdate(context.Background(), s.conn, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: at, WALFlushPosition: at, WALApplyPosition: at, ClientTime: now, ReplyRequested: !s.asked,
	}); err != nil {
		return wrap("send status", err)
	}
	s.sent, s.sentAt, s.asked = at, now, false
	s.l.known.confirmed = max(s.l.known.confirmed, at)
	s.l.confirmed.Store(uint64(at))
	s.l.received.Store(uint64(s.pos.Received()))
	return nil
}

// waitForRoom waits until something was taken from pending or a status is due, and returns the time. Nothing is read meanwhile, so the
// server's silence counts from here anew.
func (s *session) waitForRoom(ctx context.Context, due time.Time) time.Time {
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-s.pending.room:
	case <-timer.C:
	}
	s.heard = time.Now()
	return s.heard
}

// receive takes one message of the protocol. Whatever is neither data nor a keepalive ends the stream.
func (s *session) receive(msg pgproto3.BackendMessage, now time.Time) error {
	switch msg := msg.(type) {
	case *pgproto3.CopyData:
		return s.copyData(msg.Data, now)
	case *pgproto3.ErrorResponse:
		return wrap("read the stream", pgconn.ErrorResponseToPgError(msg))
	case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus: // pgconn has seen to them
		return nil
	case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
		return wrap("read the stream", errEnded)
	default:
		return malformed(fmt.Errorf("unexpected message %T", msg))
	}
}

func (s *session) copyData(data []byte, now time.Time) error {
	if len(data) == 0 {
		return malformed(errShort)
	}
	switch data[0] {
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		k, err := pglogrepl.ParsePrimaryKeepaliveMessage(data[1:])
		if err != nil {
			return malformed(err)
		}
		return s.keepalive(k, now)
	case pglogrepl.XLogDataByteID:
		// The positions in its head are no positions: 0 for some messages, and for rows the place of a change, not of a commit.
		x, err := pglogrepl.ParseXLogData(data[1:])
		if err != nil {
			return malformed(err)
		}
		return s.walData(x.WALData)
	default:
		return malformed(fmt.Errorf("unknown copy data %q", data[0]))
	}
}

func (s *session) walData(data []byte) error {
	ev, err := s.decoder.decode(data)
	if err != nil {
		return malformed(err)
	}
	switch ev.kind {
	case 0:
		return nil
	case 'B':
		err = s.pos.Begin()
	case 'C':
		err = s.pos.Commit(ev.end)
	default:
		if !s.pos.Open() {
			err = errors.New("a row outside a transaction")
		}
	}
	if err != nil {
		return malformed(err)
	}
	s.pending.add(ev)
	return nil
}

// keepalive takes the server's position and answers if asked to. A server that shuts down asks without pause until we have confirmed
// everything; where Handle does not get there in time, it is let go: what is unconfirmed comes again.
func (s *session) keepalive(k pglogrepl.PrimaryKeepaliveMessage, now time.Time) error {
	if err := s.pos.Durable(LSN(s.durable.Load())); err != nil {
		return wrap("confirm", err)
	}
	s.pos.Keepalive(k.ServerWALEnd)
	s.l.received.Store(uint64(s.pos.Received()))
	if !k.ReplyRequested {
		return nil
	}
	if k.ServerWALEnd != s.askedEnd || now.Sub(s.askedAt) > stormGap {
		s.storm = now
	}
	s.asked, s.askedAt, s.askedEnd = true, now, k.ServerWALEnd
	if now.Sub(s.storm) > stormPatience && s.pos.Confirmed() < k.ServerWALEnd {
		return wrap("read the stream", errShutdown)
	}
	return nil
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
		if len(b.Changes)+len(b.Truncated) > 0 {
			if err := s.l.cfg.Handle(ctx, b); err != nil {
				return &Error{Op: "hand over", Class: ClassHandle, Err: err}
			}
		}
		if end != 0 {
			s.durable.Store(uint64(end))
		}
	}
}

// finish tells the server the last position and leaves the stream in good order, in bounded time: a server in the middle of a large
// transaction would first send the rest of it. Run ends well either way; what was not told comes again.
func (s *session) finish() error {
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

func malformed(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Op: "read the stream", Class: ClassMalformed, Err: err}
}
