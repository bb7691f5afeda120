package api

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
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
	// maxBuffer is what is gathered before it is sent. A page is mostly one piece; a large
	// one is sent from the memory of the index, whoever is slow to take it.
	maxBuffer = 256 << 10
	ndjson    = "application/x-ndjson"
)

// iclCall is a request for examples.
type iclCall struct {
	icl.Query
	kind     *string // conquest_type as it was asked for
	format   icl.Format
	lines    bool // NDJSON
	compress bool
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

func (a *API) icl(w http.ResponseWriter, r *http.Request) {
	c, err := parseICL(r)
	w.(*measured).format = metrics.FormatOf(string(c.format))
	if err == nil {
		err = auth.From(r.Context()).Confined(c.Philosopher, c.Domain)
	}
	var page icl.Page
	if err == nil {
		page, err = a.page(r.Context(), c.Query)
	}
	if err != nil {
		web.Fail(w, err)
		return
	}
	h := w.Header()
	tag := c.tag(page)
	h.Set("Cache-Control", "private, no-cache") // keep it, and ask whether it still holds
	h.Set("Vary", "Accept, Accept-Encoding, Authorization")
	h.Set("ETag", tag)
	if c.lines && page.Next != "" {
		h.Set("Link", "<"+next(r.URL, page.Next)+`>; rel="next"`)
	}
	if matches(r.Header.Get("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	c.send(w, page)
}

// page asks for a page; what goes wrong with the database is a 503.
func (a *API) page(ctx context.Context, q icl.Query) (icl.Page, error) {
	asking, cancel := context.WithTimeout(ctx, iclTimeout)
	defer cancel()
	page, err := a.Examples(asking, q)
	switch {
	case errors.Is(err, icl.ErrCursor), errors.Is(err, icl.ErrOtherCursor):
		return page, web.Refuse(http.StatusBadRequest, "cursor cannot be used: %v. Leave it out to begin with the newest.", err)
	case err != nil:
		if ctx.Err() == nil { // else the caller has gone
			a.Log.WarnContext(ctx, "examples", "error", err)
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
	c.lines = wantsLines(r.Header.Values("Accept"))
	c.compress = wantsGzip(r.Header.Values("Accept-Encoding"))
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

// tag names what is answered: every byte of it follows from what is hashed.
func (c iclCall) tag(page icl.Page) string {
	b := make([]byte, 0, 2048)
	for _, text := range []string{c.Philosopher, c.Domain, c.Type, string(c.format), page.Next} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	b = binary.AppendUvarint(b, uint64(page.LeftOut))
	for _, e := range page.Examples {
		sum := e.Sum()
		b = append(b, sum[:]...)
	}
	b = strconv.AppendBool(strconv.AppendBool(b, c.lines), c.compress)
	sum := sha256.Sum256(b)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
}

// matches tells whether an If-None-Match names the tag. Whether it is a weak one is
// all the same here.
func matches(header, tag string) bool {
	for _, t := range strings.Split(header, ",") {
		t = strings.TrimSpace(t)
		if t == "*" || strings.TrimPrefix(t, "W/") == tag {
			return true
		}
	}
	return false
}

// next is the request for the next page.
func next(u *url.URL, cursor string) string {
	q := u.Query()
	q.Set("cursor", cursor)
	return u.Path + "?" + q.Encode()
}

// What an answer needs and can use again.
var (
	buffers = sync.Pool{New: func() any { return new(make([]byte, 0, maxBuffer)) }}
	zippers = sync.Pool{New: func() any { z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed); return z }} // there is such a level
)

// send writes the answer. A caller who has gone needs none.
func (c iclCall) send(w http.ResponseWriter, page icl.Page) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	head, between, tail := c.around(page)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if c.lines {
		h.Set("Content-Type", ndjson)
	}
	var out io.Writer = w
	if c.compress {
		h.Set("Content-Encoding", "gzip")
		z := zippers.Get().(*gzip.Writer)
		z.Reset(w)
		defer func() {
			_ = z.Close()
			zippers.Put(z)
		}()
		out = z
	} else {
		n := len(head) + max(0, len(page.Examples)-1)*len(between) + len(tail)
		for _, e := range page.Examples {
			n += e.Len(c.format)
		}
		h.Set("Content-Length", strconv.Itoa(n))
	}
	b := append((*buffer)[:0], head...)
	var err error
	flush := func(more int) {
		if len(b)+more > maxBuffer && err == nil {
			_, err = out.Write(b)
			b = b[:0]
		}
	}
	for i, e := range page.Examples {
		if i > 0 {
			b = append(b, between...)
		}
		n := e.Len(c.format)
		if flush(n); err == nil && n > maxBuffer {
			err = e.Write(out, c.format)
			continue
		}
		b = e.Append(b, c.format)
	}
	b = append(b, tail...)
	flush(maxBuffer)
}

// around is what stands before, between and after the examples.
func (c iclCall) around(page icl.Page) (head, between, tail string) {
	if c.lines {
		if len(page.Examples) == 0 {
			return "", "", ""
		}
		return "", "\n", "\n"
	}
	type first struct {
		Philosopher string     `json:"philosopher"`
		Domain      string     `json:"domain"`
		Type        *string    `json:"conquest_type"`
		Format      icl.Format `json:"format"`
		Count       int        `json:"count"`
	}
	type last struct {
		LeftOut int     `json:"left_out"`
		Next    *string `json:"next_cursor"`
	}
	var after *string
	if page.Next != "" {
		after = &page.Next
	}
	before := text(first{c.Philosopher, c.Domain, c.kind, c.format, len(page.Examples)})
	return strings.TrimSuffix(before, "}") + `,"examples":[`, ",", `],` + strings.TrimPrefix(text(last{page.LeftOut, after}), "{") + "\n"
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts and numbers
	}
	return string(b)
}
