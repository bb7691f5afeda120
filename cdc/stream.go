package cdc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

var (
	errSilent   = errors.New("the server has gone silent")
	errEnded    = errors.New("the server has ended the stream")
	errShutdown = errors.New("the server is shutting down and waits for us")
)

// stream reads and answers until an error or the end of ctx, whose cause it returns.
func (s *session) stream(ctx context.Context) error {
	now := time.Now()
	for {
		if s.took.Swap(false) {
			s.l.handled(ctx)
		}
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

func malformed(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Op: "read the stream", Class: ClassMalformed, Err: err}
}
