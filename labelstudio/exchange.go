package labelstudio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// What an answer may hold. Over the limit is an error, so that a stranger on the address cannot fill our memory.
const (
	maxSmallBody   = 4 << 20   // hooks, a page of projects
	maxUsersBody   = 64 << 20  // all at once, half a kilobyte each, and whatever keys somebody has given to an editor's actions
	maxTaskBody    = 64 << 20  // one task with all its annotations
	maxListingBody = 512 << 20 // 1,000 tasks of 2.5 kB are 2.7 MB; prompts may be a hundred times that
	maxErrorBody   = 64 << 10
)

// Operation names what an HTTP exchange was for: the label of metrics.
type Operation string

// The operations.
const (
	OpVersion          Operation = "version"
	OpWhoami           Operation = "whoami"
	OpUsers            Operation = "users"
	OpTokenRefresh     Operation = "token_refresh"
	OpProjects         Operation = "projects"
	OpProjectCreate    Operation = "project_create"
	OpProjectUpdate    Operation = "project_update"
	OpProjectDelete    Operation = "project_delete"
	OpTask             Operation = "task"
	OpTasksByID        Operation = "tasks_by_id"
	OpTasksFind        Operation = "tasks_find"
	OpTasksAfter       Operation = "tasks_after"
	OpTasksChanged     Operation = "tasks_changed"
	OpTaskPatch        Operation = "task_patch"
	OpTaskDelete       Operation = "task_delete"
	OpTasksImport      Operation = "tasks_import"
	OpAnnotationCreate Operation = "annotation_create"
	OpAnnotationUpdate Operation = "annotation_update"
	OpAnnotationDelete Operation = "annotation_delete"
	OpWebhooks         Operation = "webhooks"
	OpWebhookCreate    Operation = "webhook_create"
	OpWebhookUpdate    Operation = "webhook_update"
	OpWebhookDelete    Operation = "webhook_delete"
)

// call is one request to make. The zero limit is that of a read for GET and of a write otherwise.
type call struct {
	op        Operation
	method    string
	path      string // below the base URL, with Label Studio's final slash
	query     url.Values
	body      []byte
	limit     time.Duration
	maxBody   int64
	anonymous bool // carries no token
	inTurn    bool // waits until no other such call is under way
}

func (r call) isRead() bool { return r.method == http.MethodGet }

// do makes the request and returns the body of a 2xx answer. Its time limit runs from here on, the wait for a turn and
// for an access token included: a caller that leaves a write so much time before a deadline can rely on it.
func (c *Client) do(ctx context.Context, r call) ([]byte, error) {
	limit := r.limit
	if limit == 0 && r.isRead() {
		limit = c.read
	} else if limit == 0 {
		limit = c.write
	}
	begin := time.Now()
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	body, err := c.authorized(limited, r)
	var e *Error
	if errors.As(err, &e) && e.Status == 0 && limited.Err() != nil {
		e.own = ctx.Err() != nil
		if !e.own {
			e.Err = noAnswer{limit, limited.Err()}
		} else if end, ok := ctx.Deadline(); ok && !e.NotSent && ctx.Err() == context.DeadlineExceeded {
			e.Err = noAnswer{end.Sub(begin).Round(time.Second / 10), ctx.Err()}
		}
	}
	return body, err
}

// noAnswer is the end of a time limit, in words that a person understands.
type noAnswer struct {
	within time.Duration
	error
}

func (e noAnswer) Error() string { return fmt.Sprintf("no answer within %s", e.within) }
func (e noAnswer) Unwrap() error { return e.error }

// authorized takes the turn and the token and sends; a read that is answered 401 is sent once more with a new access token.
// A write is not: its 401 is a refusal that the caller may repeat when it likes.
func (c *Client) authorized(ctx context.Context, r call) ([]byte, error) {
	if r.inTurn {
		done, err := c.takeTurn(ctx)
		if err != nil {
			return nil, &Error{Op: r.op, NotSent: true, Err: fmt.Errorf("wait for the write before: %w", err)}
		}
		defer done()
	}
	if r.anonymous {
		return c.exchange(ctx, r, "")
	}
	auth := c.auth.Load()
	header, err := auth.header(ctx, c.refresh)
	if err != nil {
		return nil, notSent(r.op, err)
	}
	body, err := c.exchange(ctx, r, header)
	if statusOf(err) != http.StatusUnauthorized || !auth.expired(header) || !r.isRead() {
		return body, err
	}
	if header, err = auth.header(ctx, c.refresh); err != nil {
		return nil, notSent(r.op, err)
	}
	return c.exchange(ctx, r, header)
}

// MaxAge is how old a read of a task may be when a PATCH of its meta is sent: it puts back everybody's other keys as they were read.
const MaxAge = 3 * time.Second

type sentBy struct{}

// SentBy returns a context with which a request is sent until t, or not at all; then its error is [ErrLate]. It is for a write that puts back
// what was read: waiting for other writes, for a token and for a connection makes that older.
func SentBy(ctx context.Context, t time.Time) context.Context {
	return context.WithValue(ctx, sentBy{}, t)
}

// ErrLate is the reason of a request that was not sent, since its time by [SentBy] was over.
var ErrLate = errors.New("it could not be sent in time")

// exchange is one HTTP request and its answer, observed once.
func (c *Client) exchange(ctx context.Context, r call, authorization string) (body []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, &Error{Op: r.op, NotSent: true, Err: err}
	}
	var sent tracer
	req, err := c.request(sent.watch(ctx), r, authorization)
	if err != nil {
		return nil, &Error{Op: r.op, NotSent: true, Err: err}
	}
	begin, code := time.Now(), "none"
	defer func() { c.observe(Request{Operation: r.op, Code: code, Duration: time.Since(begin)}) }()

	resp, err := c.transport(r).RoundTrip(req)
	if err != nil && sent.late.Load() {
		return nil, &Error{Op: r.op, NotSent: true, Err: ErrLate, own: true}
	}
	if err != nil {
		return nil, &Error{Op: r.op, NotSent: sent.nothing(c.traced), Err: err, Hint: hintNoAnswer(c.base, &sent)}
	}
	defer resp.Body.Close()
	code = strconv.Itoa(resp.StatusCode)
	c.learn(resp, begin)

	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		text, _ := readLimited(resp.Body, maxErrorBody) // half an explanation is better than none
		return nil, statusError(r.op, resp, c.auth.Load().redact(text, authorization))
	}
	if body, err = readLimited(resp.Body, r.maxBody); err != nil {
		return nil, &Error{Op: r.op, Status: resp.StatusCode, cut: true, Err: fmt.Errorf("read the answer: %w", err)}
	}
	return body, nil
}

func (c *Client) request(ctx context.Context, r call, authorization string) (*http.Request, error) {
	u := *c.base
	u.Path += r.path
	u.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if r.body != nil {
		// No GetBody: what cannot be rewound is not sent twice.
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(r.body)), int64(len(r.body))
		req.Header.Set("Content-Type", "application/json")
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	req.Header.Set("Accept", "application/json")
	return req, nil
}

// transport gives a write a connection that was in use a moment ago, or a new one: one that the server closes just now would
// leave a write of unknown end behind, and its caller waiting.
func (c *Client) transport(r call) http.RoundTripper {
	switch {
	case c.runserver.Load():
		return c.fresh
	case r.isRead():
		return c.pooled
	default:
		return c.warm
	}
}

// learn notes what an answer tells of the server: its clock, and whether connections should be used again.
func (c *Client) learn(resp *http.Response, asked time.Time) {
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		c.clock.Store(&ClockReading{Ahead: time.Until(date), Within: time.Second + time.Since(asked)})
	}
	is := !acksAtOnce && strings.HasPrefix(resp.Header.Get("Server"), "WSGIServer")
	if was := c.runserver.Swap(is); is && !was {
		c.CloseIdleConnections()
	}
}

func readLimited(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return body, err
}

// tracer notes whether a connection was asked for and got. Without one no byte can have left. One that was got too late for [SentBy] is
// closed before it is used.
type tracer struct{ asked, got, late atomic.Bool }

func (t *tracer) watch(ctx context.Context) context.Context {
	by, limited := ctx.Value(sentBy{}).(time.Time)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { t.asked.Store(true) },
		GotConn: func(c httptrace.GotConnInfo) {
			if limited && time.Now().After(by) {
				t.late.Store(true)
				_ = c.Conn.Close()
				return
			}
			t.got.Store(true)
		},
	})
}

// nothing reports whether certainly no byte of the request left. A foreign transport may not report at all; then only its having asked counts.
func (t *tracer) nothing(reports bool) bool { return (reports || t.asked.Load()) && !t.got.Load() }
