// Package labelstudio is a client of Label Studio's HTTP API. It is checked against Community 1.23.2, and reads what older and newer versions are known
// to answer otherwise.
//
// It is written for a program that shares a Label Studio with people and must not lose what they do. Four rules follow from that.
//
// One call of a writing method is at most one request that writes. Nothing here, and nothing in net/http below, sends it twice: a
// POST or PATCH without Idempotency-Key, whose body cannot be rewound, is not repeated there, and no redirect is followed. So an error means either "certainly not done" (see [NotDone]) or "nobody knows", and the caller can look before it decides.
//
// Every answer is judged by its status first. Error bodies have an id too (a UUID text), which must never be taken for an object's.
//
// Listings are not believed. Label Studio takes an unknown operator for equality and a bare text in a list for nothing, both with status 200;
// so each row is compared with what was asked, and what is missing from a listing is unknown, not deleted.
//
// Reading is tolerant: unknown keys are ignored, absent ones leave the zero value, users come as numbers, objects or lists. What is there
// but cannot be read is an error; it is never skipped. Only what is inside of an annotation's result may be anything, as it may in Label Studio.
//
// Against Django's development server, which pip installations and the Docker image run by default, a reused connection costs 40 ms a request (it
// sends head and body apart, and the second waits for a delayed acknowledgement). On Linux the client acknowledges at once. Elsewhere it knows
// that server by its Server header and then opens a new connection for every request.
package labelstudio

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// DefaultReadTimeout is how long a read may take. A listing of 1,000 rows takes one second on an idle Label Studio and its one core may be busy
	// with an import; its own proxy gives up after 90 s.
	DefaultReadTimeout = 30 * time.Second
	// DefaultWriteTimeout is how long a write may take, the wait for its turn included. It is short because a caller that fences
	// its writes by a deadline has to wait this long, and more, after a write whose answer was lost.
	DefaultWriteTimeout = 10 * time.Second
	// importTimeout is for one import: Label Studio takes about 1.2 ms a task, all inside the request.
	importTimeout = 5 * time.Minute
	// dialTimeout is shorter than any request's limit, so that a host that does not answer is told as "not sent" and not as "unknown".
	dialTimeout = 5 * time.Second
	// readIdle is below the 60 s and more after which usual proxies close a connection that nobody uses.
	readIdle = 30 * time.Second
	// writeIdle is below the second or two after which the hastiest servers do.
	writeIdle = 500 * time.Millisecond
)

// Options are what a [Client] needs to know. URL and Token are required.
type Options struct {
	// URL is the address of Label Studio, http or https, with a path prefix where it is served under one.
	URL string
	// Token is a personal access token or a legacy token; which one it is, is seen from its form.
	Token string
	// ReadTimeout limits each read; 0 means [DefaultReadTimeout].
	ReadTimeout time.Duration
	// WriteTimeout limits each write, from the call on; 0 means [DefaultWriteTimeout].
	WriteTimeout time.Duration
	// Observe is called once for every HTTP exchange, after it ended, from the goroutine that made it. May be nil.
	Observe func(Request)
	// Transport replaces the client's own connections. It must neither repeat requests nor follow redirects.
	Transport http.RoundTripper
}

// Request describes one finished HTTP exchange to [Options.Observe].
type Request struct {
	Operation Operation
	Code      string // the status ("200"), or "none" where no answer came
	Duration  time.Duration
}

// Client calls one Label Studio as one user. It is safe for concurrent use; writes to tasks and annotations take turns (one process
// of Label Studio does no more than one at a time, and parallel ones make its column counters drift).
type Client struct {
	base        *url.URL
	auth        atomic.Pointer[auth]
	read, write time.Duration
	observe     func(Request)

	// Connections that wait for another read, those that wait a moment for another write, and none that wait. The same one
	// where the caller brought its own.
	pooled, warm, fresh http.RoundTripper
	traced              bool        // the transport is ours: that no connection was got is proof that nothing was sent
	runserver           atomic.Bool // the last answer came from a server that needs a new connection for every request
	clock               atomic.Pointer[ClockReading]
	turn                chan struct{} // held by the one write that is under way
}

// New checks the options and returns a client; it makes no request.
func New(o Options) (*Client, error) {
	base, err := parseURL(o.URL)
	if err != nil {
		return nil, fmt.Errorf("read Label Studio's URL: %w", err)
	}
	credentials, err := newAuth(strings.TrimSpace(o.Token))
	if err != nil {
		return nil, fmt.Errorf("read Label Studio's token: %w", err)
	}
	c := &Client{
		base: base, observe: o.Observe,
		read: orDefault(o.ReadTimeout, DefaultReadTimeout), write: orDefault(o.WriteTimeout, DefaultWriteTimeout),
		pooled: o.Transport, warm: o.Transport, fresh: o.Transport, turn: make(chan struct{}, 1),
	}
	c.auth.Store(credentials)
	if o.Transport == nil {
		c.pooled, c.warm, c.fresh, c.traced = newTransport(readIdle), newTransport(writeIdle), newTransport(0), true
	}
	if c.observe == nil {
		c.observe = func(Request) {}
	}
	return c, nil
}

// ClockReading is how far another clock is ahead of ours, and how exact that is known: a Date header has whole seconds, and the
// request's way is in it.
type ClockReading struct{ Ahead, Within time.Duration }

// Clock returns what the last answer told of Label Studio's clock, and whether one did.
func (c *Client) Clock() (reading ClockReading, known bool) {
	if r := c.clock.Load(); r != nil {
		return *r, true
	}
	return ClockReading{}, false
}

// CloseIdleConnections closes the connections that wait for another request.
func (c *Client) CloseIdleConnections() {
	for _, t := range []http.RoundTripper{c.pooled, c.warm, c.fresh} {
		if t, ok := t.(interface{ CloseIdleConnections() }); ok {
			t.CloseIdleConnections()
		}
	}
}

// newTransport makes connections for HTTP/1 alone: HTTP/2 repeats requests by rules of its own. The proxy of the environment is used,
// except for loopback addresses.
// A connection waits for another request as long as idle says; 0: not at all.
func newTransport(idle time.Duration) *http.Transport {
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dial,
		TLSHandshakeTimeout: dialTimeout,
		Protocols:           http1,
		DisableKeepAlives:   idle == 0,
		IdleConnTimeout:     idle,
		MaxIdleConnsPerHost: 4,
	}
}

func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil: // the parser's error quotes the text, which may hold a password
		return nil, errors.New("it is no URL; expected something like http://127.0.0.1:4115")
	case u.User != nil:
		return nil, errors.New("it must not hold a user or password; the token says who we are")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, fmt.Errorf("%q has no http:// or https:// and host; expected something like http://127.0.0.1:4115", text)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%q must end with the path", text)
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// takeTurn waits until no other write is under way, or ctx ends.
func (c *Client) takeTurn(ctx context.Context) (done func(), err error) {
	select {
	case c.turn <- struct{}{}:
		return func() { <-c.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
