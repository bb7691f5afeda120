// Package web is what the daemon's two servers for people and programs share, port
// 4080 and the curation app: answers and problems, strict reading of bodies and
// queries, limits, security headers, and routes that are listed so that a test can
// hold them against openapi.yaml, which is here too.
package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Problem is a request that is answered with an error, as RFC 9457 has it. It is an
// error, so that whoever finds it can return it: see [Fail].
type Problem struct {
	Status int
	Detail string // what the caller can do about it; nothing of the inside, no secret
	// After is sent as Retry-After, in whole seconds; 0 for none.
	After time.Duration
	Err   error // the cause, for the log alone
}

// Refuse makes a Problem.
func Refuse(status int, format string, args ...any) *Problem {
	return &Problem{Status: status, Detail: fmt.Sprintf(format, args...)}
}

// Error is the detail, and the cause where there is one.
func (p *Problem) Error() string {
	if p.Err == nil {
		return p.Detail
	}
	return p.Detail + ": " + p.Err.Error()
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// RetryAfter says in the header of an answer when to try again, where that is known.
func (p *Problem) RetryAfter(h http.Header) {
	if p.After > 0 {
		h.Set("Retry-After", strconv.Itoa(int(max(1, p.After.Round(time.Second).Seconds()))))
	}
}

// Fail answers with err: a [Problem] as it says, anything else as a 500 that shows
// nothing of it. Whoever calls it has logged err, or need not.
func Fail(w http.ResponseWriter, err error) {
	var p *Problem
	if !errors.As(err, &p) {
		p = Refuse(http.StatusInternalServerError, "Something went wrong here; the daemon's log says what. Try again.")
	}
	p.RetryAfter(w.Header())
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="reconciler"`)
	}
	write(w, "application/problem+json", p.Status, map[string]any{
		"type": "about:blank", "title": http.StatusText(p.Status), "status": p.Status, "detail": p.Detail,
	})
}

// Answer answers with JSON. body must be able to become JSON.
func Answer(w http.ResponseWriter, status int, body any) {
	write(w, "application/json", status, body)
}

func write(w http.ResponseWriter, contentType string, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Errorf("answer with %T: %w", body, err)) // our own structs
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // a caller who has gone needs no answer
}
