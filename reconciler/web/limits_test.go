package web_test

import (
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aristotle/reconciler/reconciler/web"
)

// pipes is a listener whose connections are in memory, where a test's clock rules.
type pipes struct {
	accepted chan net.Conn
	closed   func()
}

func (p pipes) Accept() (net.Conn, error) {
	if c := <-p.accepted; c != nil {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error {
	p.closed()
	return nil
}

func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// Who sends nothing, or a byte now and then, or reads nothing, is cut off in time, whatever the route does. Who waits for a slow
// answer gets all of it.
func TestServerLimits(t *testing.T) {
	t.Parallel()
	const begun = "POST / HTTP/1.1\r\nHost: x\r\n"
	trickle := func(c net.Conn) {
		for { // until it is cut off
			if _, err := io.WriteString(c, "x"); err != nil {
				return
			}
			time.Sleep(time.Second) // of the bubble
		}
	}
	for name, c := range map[string]struct {
		begin string
		after func(net.Conn)
		limit time.Duration
		slow  time.Duration // until the answer begins
		whole bool
	}{
		"no request":       {begin: "", after: func(net.Conn) {}, limit: 5 * time.Second},
		"half a header":    {begin: begun, after: trickle, limit: 5 * time.Second},
		"half a body":      {begin: begun + "Content-Length: 1000\r\n\r\n", after: trickle, limit: 30 * time.Second},
		"an endless chunk": {begin: begun + "Transfer-Encoding: chunked\r\n\r\nffffff\r\n", after: trickle, limit: 30 * time.Second},
		"no reader":        {begin: begun + "Content-Length: 0\r\n\r\n", limit: 30 * time.Second},
		"no more requests": {begin: begun + "Content-Length: 0\r\n\r\n", after: func(net.Conn) {}, limit: 2 * time.Minute, whole: true},
		"a slow answer":    {begin: begun + "Content-Length: 0\r\n\r\n", after: func(net.Conn) {}, slow: 45 * time.Second, limit: 45*time.Second + 2*time.Minute, whole: true},
		"slow, no reader":  {begin: begun + "Content-Length: 0\r\n\r\n", slow: 45 * time.Second, limit: 75 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := pipes{accepted: make(chan net.Conn)}
				l.closed = sync.OnceFunc(func() { close(l.accepted) })
				s := web.NewServer(options(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if _, err := web.ReadBody(w, r, 1<<30); err != nil {
						web.Fail(w, err)
						return
					}
					time.Sleep(c.slow)
					_, _ = w.Write(make([]byte, 1<<20)) // the caller may not read it
				}))
				served := make(chan error)
				go func() { served <- s.Serve(l) }()
				ours, theirs := net.Pipe()
				l.accepted <- theirs
				start := time.Now()
				var after sync.WaitGroup
				if _, err := io.WriteString(ours, c.begin); err != nil {
					t.Error(err)
				}
				if c.after == nil {
					time.Sleep(c.limit + time.Second)
				} else {
					after.Go(func() { c.after(ours) })
				}
				text, err := io.ReadAll(ours)
				took := time.Since(start)
				if whole := len(text) > 1<<20; err != nil || whole != c.whole || took < c.limit || took > c.limit+2*time.Second {
					t.Errorf("cut off after %v with %d bytes, %v; want %v", took, len(text), err, c.limit)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				<-served
				after.Wait()
			})
		})
	}
}
