package api

import (
	"context"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/icl"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/web"
)

const (
	// iclTimeout bounds a request that the database has to answer.
	iclTimeout   = 10 * time.Second
	defaultLimit = 10
	ndjson       = "application/x-ndjson"
	// maxSending bounds the large answers, in bytes, that callers keep in memory by reading them slowly.
	maxSending = 64 << 20
)

// iclCall is a request for examples.
type iclCall struct {
	icl.Query
	kind   *string // conquest_type as it was asked for
	format icl.Format
	accepts
}

// accepts is how a caller takes an answer.
type accepts struct {
	lines    bool // NDJSON
	compress bool // gzip
}

func acceptsOf(r *http.Request) accepts {
	return accepts{wantsLines(r.Header["Accept"]), wantsGzip(r.Header["Accept-Encoding"])}
}

// examples answers requests for examples, those that are refused included, and measures them.
func (a *API) examples() http.Handler {
	guarded := a.Guard.Require(auth.ICL, http.HandlerFunc(a.icl))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		m := &measured{ResponseWriter: w, format: metrics.OtherFormat, status: http.StatusOK}
		guarded.ServeHTTP(m, r)
		a.Metrics.ICLDuration.With(m.format, metrics.CodeOf(m.status)).Observe(time.Since(start).Seconds())
	})
}

// measured notes what an answer is counted as.
type measured struct {
	http.ResponseWriter
	format metrics.Format
	status int
}

func (m *measured) WriteHeader(status int) {
	m.status = status
	m.ResponseWriter.WriteHeader(status)
}

// icl answers once more what it has answered before, where that still holds.
func (a *API) icl(w http.ResponseWriter, r *http.Request) {
	how := acceptsOf(r)
	ready := a.answers.get(r.URL.RawQuery, how)
	if ready == nil || a.Version(ready.query) != ready.version {
		var err error
		if ready, err = a.answerICL(w.(*measured), r, how); err != nil {
			web.Fail(w, err)
			return
		}
	} else if err := auth.From(r.Context()).Confined(ready.query.Philosopher, ready.query.Domain); err != nil {
		web.Fail(w, err)
		return
	}
	w.(*measured).format = ready.format
	if ready.body == nil && ready.version == 0 { // of the database: the index keeps its own
		if !a.sending.TryAcquire(ready.size) {
			web.Fail(w, &web.Problem{Status: http.StatusServiceUnavailable, After: time.Second, Detail: "Too many large answers are under way: try again, or ask for fewer examples by limit."})
			return
		}
		defer a.sending.Release(ready.size)
	}
	ready.send(w, r)
}

// answerICL makes an answer.
func (a *API) answerICL(w *measured, r *http.Request, how accepts) (*iclAnswer, error) {
	c, err := parseICL(r)
	w.format = metrics.FormatOf(string(c.format))
	if err != nil {
		return nil, err
	}
	c.accepts = how
	if err := auth.From(r.Context()).Confined(c.Philosopher, c.Domain); err != nil {
		return nil, err
	}
	page, err := a.page(r.Context(), c.Query)
	if err != nil {
		return nil, err
	}
	ready := c.answer(r.URL, page)
	a.answers.put(r.URL.RawQuery, how, ready)
	return ready, nil
}

// page asks for a page; what goes wrong with the database is a 503.
func (a *API) page(ctx context.Context, q icl.Query) (icl.Page, error) {
	asking, cancel := context.WithTimeout(ctx, iclTimeout)
	defer cancel()
	page, err := a.Examples(asking, q)
	switch {
	case err == nil:
		a.failures.Over(ctx, a.Log, msgExamples, "")
	case errors.Is(err, icl.ErrCursor), errors.Is(err, icl.ErrOtherCursor):
		return page, web.Refuse(http.StatusBadRequest, "cursor cannot be used: %v. Leave it out to begin with the newest.", err)
	default:
		if ctx.Err() == nil { // else the caller has gone
			a.failures.Log(ctx, a.Log, slog.LevelWarn, msgExamples, "", err)
		}
		p := &web.Problem{Status: http.StatusServiceUnavailable, After: time.Second, Err: err, Detail: "Aristotle's database does not answer: try again."}
		if ledger.IsSchemaGone(err) {
			p.Detail = "Tables or rights in Aristotle's database are not there: whoever runs the reconciler must run `reconciler setup`."
		}
		return page, p
	}
	return page, nil
}

// parseICL reads a request. Its refusals name the parameter. The format is set where
// it could be read, also beside an error.
func parseICL(r *http.Request) (c iclCall, err error) {
	q, err := web.Query(r, "philosopher", "domain", "conquest_type", "limit", "format", "cursor")
	if err != nil {
		return c, err
	}
	c.format = icl.ChatML
	if q.Has("format") {
		c.format = icl.Format(q.Get("format"))
	}
	c.Query = icl.Query{Philosopher: q.Get("philosopher"), Domain: q.Get("domain"), Type: q.Get("conquest_type"), Cursor: q.Get("cursor"), Limit: defaultLimit}
	if c.Type != "" { // empty is "any", as a form sends it
		c.kind = &c.Type
	}
	if text := q.Get("limit"); q.Has("limit") {
		if c.Limit, err = strconv.Atoi(text); err != nil || text[0] == '+' || c.Limit < 1 || c.Limit > icl.MaxLimit {
			return c, web.Refuse(http.StatusBadRequest, "limit must be a whole number from 1 to %d.", icl.MaxLimit)
		}
	}
	for _, p := range []struct{ name, value string }{{"philosopher", c.Philosopher}, {"domain", c.Domain}} {
		if p.value == "" {
			return c, web.Refuse(http.StatusBadRequest, "%s is missing, or empty.", p.name)
		}
	}
	for _, p := range []struct{ name, value string }{{"philosopher", c.Philosopher}, {"domain", c.Domain}, {"conquest_type", c.Type}} {
		if len(p.value) > maxID {
			return c, web.Refuse(http.StatusBadRequest, "%s may have %d bytes.", p.name, maxID)
		}
	}
	if !c.format.Valid() {
		return c, web.Refuse(http.StatusBadRequest, "format must be chatml, alpaca or openai.")
	}
	return c, nil
}

// weight is the q of a choice of Accept or Accept-Encoding, which is 1 unless said.
func weight(params map[string]string) float64 {
	q, err := strconv.ParseFloat(params["q"], 64)
	if err != nil {
		return 1
	}
	return q
}

// wantsLines tells whether NDJSON is asked for by its name, and JSON no more than it.
func wantsLines(accept []string) bool {
	lines, whole := 0.0, 0.0
	if len(accept) == 1 && !strings.Contains(accept[0], "ndjson") {
		return false // as most
	}
	for _, choice := range strings.Split(strings.Join(accept, ","), ",") {
		switch kind, params, err := mime.ParseMediaType(choice); {
		case err != nil:
		case kind == ndjson:
			lines = weight(params)
		case kind == "application/json":
			whole = weight(params)
		}
	}
	return lines > 0 && lines >= whole
}

func wantsGzip(accept []string) bool {
	for _, choice := range strings.Split(strings.Join(accept, ","), ",") {
		// It looks like a media type without a slash, and is read as one.
		if kind, params, err := mime.ParseMediaType(choice); err == nil && kind == "gzip" {
			return weight(params) > 0
		}
	}
	return false
}
