package cdc

import (
	"context"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
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
)

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
