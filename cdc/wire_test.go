package cdc

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/aristotle/reconciler/aristotle/sandbox"
)

// TestSilentServer: a connection that carries nothing any more, and reports no error either, is given up after wal_sender_timeout.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	r, _ := ownRig(t, sandbox.Options{})
	cut := make(chan struct{})
	through := r.proxy(func(dst io.Writer, src io.Reader) {
		buf := make([]byte, 32<<10)
		for {
			n, err := src.Read(buf)
			select {
			case <-cut: // swallow everything
				n = 0
			default:
			}
			if _, werr := dst.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	})
	e := r.listen(func(cfg *Config) { cfg.URL = through + "&wal_sender_timeout=1s" })
	e.streams()
	close(cut)
	eventually(t, "silence noticed", func() bool { return errors.Is(e.l.Stats().LastError, errSilent) })
	r.exec(`INSERT INTO "Thing" VALUES ('a')`)
	second := r.listen(nil)
	second.hears("I:Thing:a")
}

// TestInterruptedReads: the deadline of a read passes in the midst of messages, again and again, and the stream stays in step.
func TestInterruptedReads(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var slow atomic.Bool
	through := r.proxy(func(dst io.Writer, src io.Reader) {
		ticker := time.NewTicker(300 * time.Millisecond) // as often as a read's deadline comes, and far from the server's own
		defer ticker.Stop()
		buf := make([]byte, 997) // no divisor of any message's size
		for {
			n, err := src.Read(buf)
			if _, werr := dst.Write(buf[:n]); err != nil || werr != nil {
				return
			}
			if slow.Load() {
				<-ticker.C
			}
		}
	})
	e := r.listen(func(cfg *Config) { cfg.URL = through + "&wal_sender_timeout=1s" })
	e.streams()
	slow.Store(true)
	var want strings.Builder
	for i := range 400 {
		want.WriteString("I:Thing:" + strconv.Itoa(i))
		if i < 399 {
			want.WriteByte(' ')
		}
	}
	r.exec(`INSERT INTO "Thing" SELECT i::text FROM generate_series(0, 399) i`)
	e.hears(want.String())
	if s := e.l.Stats(); s.Reconnects != 0 {
		t.Errorf("%+v", s)
	}
}

// TestFinishAfterLoss: who is stopped when the connection has just broken writes nothing more to it: pgconn says goodbye there by itself.
func TestFinishAfterLoss(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	lost, finished := make(chan struct{}), make(chan struct{})
	through := r.proxy(func(dst io.Writer, src io.Reader) {
		select {
		case <-lost:
			<-finished // the request to cancel, which comes before the goodbye
		default:
			go func() { _, _ = io.Copy(dst, src) }()
			<-lost
		}
	})
	l, err := New(Config{URL: through, Slot: r.slot, Publication: "Things", Handle: func(context.Context, Batch) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.connect(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.start(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	close(lost)
	if err := s.stream(t.Context()); err == nil || !s.conn.IsClosed() {
		t.Fatalf("the connection is not lost: %v", err)
	}
	if err := s.finish(); err != nil {
		t.Error(err)
	}
	close(finished)
	<-s.conn.CleanupDone()
}

// TestMalformed: what cannot be read ends the connection and moves nothing.
func TestMalformed(t *testing.T) {
	t.Parallel()
	wal := func(msg []byte) []byte { return append(make([]byte, 25), msg...) }
	for name, messages := range map[string][][]byte{
		"empty":                          {{}},
		"unknown kind":                   {{'?'}},
		"short keepalive":                {{'k', 0}},
		"short data":                     {{'w', 0}},
		"row outside a transaction":      {wal(relationThing), wal(message('I', thing, tuple('N', "x", "a")))},
		"commit outside a transaction":   {wal(beginMessage), wal(commitMessage), wal(commitMessage)},
		"begin inside a transaction":     {wal(beginMessage), wal(beginMessage)},
		"row that ends early":            {wal(beginMessage), wal(relationThing), wal(message('I', thing, tuple('N', "x", "a")[:9]))},
		"row of a table never described": {wal(beginMessage), wal(message('I', thing, tuple('N', "x", "a")))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &session{l: &Listener{}, decoder: *newDecoder(), pending: newPending(10, 1000), pos: start(t, 0x50)}
			var err error
			for _, msg := range messages {
				if err != nil {
					t.Fatalf("too early: %v", err)
				}
				if len(msg) > 24 {
					msg[0] = pglogrepl.XLogDataByteID
				}
				err = s.copyData(msg, time.Now())
			}
			if ErrorClass(err) != ClassMalformed || s.pos.Confirmed() != 0x50 {
				t.Errorf("%v, confirmed %s", err, s.pos.Confirmed())
			}
		})
	}
}

// proxy gives a URL that leads to the server through carry, which moves the server's bytes; the client's go straight.
func (r *rig) proxy(carry func(dst io.Writer, src io.Reader)) string {
	r.t.Helper()
	u, err := url.Parse(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	server := u.Host
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	u.Host = ln.Addr().String()
	var ends sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	ends.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			mu.Lock()
			open = append(open, client, upstream)
			mu.Unlock()
			ends.Go(func() { carry(client, upstream); _ = client.Close() })
			ends.Go(func() { _, _ = io.Copy(upstream, client); _ = upstream.Close() })
		}
	})
	r.t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		ends.Wait()
	})
	return u.String()
}
