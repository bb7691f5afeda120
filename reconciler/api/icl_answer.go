package api

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/icl"
)

// iclAnswer is an answer with examples: ready bytes, unless it is a large one, which is
// written from the memory of the index and compressed on the way.
type iclAnswer struct {
	query   icl.Query
	format  metrics.Format
	version uint64 // that it holds for; 0: for this request alone
	tag     string
	header  http.Header
	body    []byte // nil: a large one
	size    int64  // of its examples, in bytes; at most maxSending
	call    iclCall
	page    icl.Page
}

// answer makes the answer with a page.
func (c iclCall) answer(u *url.URL, page icl.Page) *iclAnswer {
	a := &iclAnswer{query: c.Query, format: metrics.FormatOf(string(c.format)), version: page.Version, tag: c.tag(page), call: c, page: page,
		header: http.Header{
			"Cache-Control": {"private, no-cache"}, // keep it, and ask whether it still holds
			"Content-Type":  {"application/json"},
			"Vary":          {"Accept, Accept-Encoding, Authorization"},
		}}
	a.header.Set("ETag", a.tag)
	if c.compress {
		a.header.Set("Content-Encoding", "gzip")
	}
	if c.lines {
		a.header.Set("Content-Type", ndjson)
		if page.Next != "" {
			a.header.Set("Link", "<"+next(u, page.Next)+`>; rel="next"`)
		}
	}
	n := 0
	for _, e := range page.Examples {
		n += e.Len(c.format)
	}
	a.size = int64(min(n, maxSending))
	if n <= maxReady {
		var b bytes.Buffer
		if err := a.write(&b); err != nil {
			panic(err) // memory takes everything
		}
		a.body, a.call, a.page = b.Bytes(), iclCall{}, icl.Page{}
		a.header.Set("Content-Length", strconv.Itoa(len(a.body)))
	} else if !c.compress {
		head, between, tail := c.around(page)
		n += len(head) + len(between)*(len(page.Examples)-1) + len(tail)
		a.header.Set("Content-Length", strconv.Itoa(n))
	}
	return a
}

// send sends the answer, or that what the caller has still holds. A caller who has
// gone needs none.
func (a *iclAnswer) send(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	for name, values := range a.header {
		h[name] = values // as it is: nobody adds to it in place
	}
	if given := r.Header.Get("If-None-Match"); given != "" && matches(given, a.tag) {
		for _, name := range []string{"Content-Type", "Content-Length", "Content-Encoding"} {
			h.Del(name)
		}
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if a.body != nil {
		_, _ = w.Write(a.body)
		return
	}
	_ = a.write(w)
}

// zippers are used again: each takes a megabyte.
var zippers = sync.Pool{New: func() any { z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed); return z }} // there is such a level

// write writes the body.
func (a *iclAnswer) write(w io.Writer) error {
	if !a.call.compress {
		return a.call.write(w, a.page)
	}
	z := zippers.Get().(*gzip.Writer)
	defer zippers.Put(z)
	z.Reset(w)
	if err := a.call.write(z, a.page); err != nil {
		return err
	}
	return z.Close()
}

func (c iclCall) write(w io.Writer, page icl.Page) error {
	head, between, tail := c.around(page)
	if _, err := io.WriteString(w, head); err != nil {
		return err
	}
	for i, e := range page.Examples {
		if i > 0 {
			if _, err := io.WriteString(w, between); err != nil {
				return err
			}
		}
		if err := e.Write(w, c.format); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, tail)
	return err
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

const (
	// maxReady is how large an answer may be to be kept as ready bytes.
	maxReady = 64 << 10
	// maxAnswers and maxKept bound what is kept: then it begins anew.
	maxAnswers = 4096
	maxKept    = 32 << 20 // bytes
	maxQuery   = 4 << 10  // bytes
)

// iclAnswers keeps answers, so that the same request is answered by copying for as
// long as no example of its philosopher and domain changes. The zero value keeps none yet.
type iclAnswers struct {
	mu    sync.RWMutex
	ready map[iclKey]*iclAnswer
	bytes int
}

type iclKey struct {
	query string
	accepts
}

func (k *iclAnswers) get(query string, how accepts) *iclAnswer {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.ready[iclKey{query, how}]
}

func (k *iclAnswers) put(query string, how accepts, a *iclAnswer) {
	if a.version == 0 || a.body == nil || len(query) > maxQuery {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	key := iclKey{query, how}
	if was := k.ready[key]; was != nil {
		k.bytes -= len(was.body) + len(query)
	}
	if k.bytes += len(a.body) + len(query); k.ready == nil || k.bytes > maxKept || len(k.ready) >= maxAnswers {
		k.ready, k.bytes = map[iclKey]*iclAnswer{}, len(a.body)+len(query)
	}
	k.ready[key] = a
}
