package labelstudio

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxDetail bounds what of an answer goes into an error, in bytes: validation errors quote whole tasks.
const maxDetail = 400

// Error is a request that did not bring what it was for. It never holds a token. Ask it by [IsNotFound], [IsAuth], [NotDone] and [Away].
type Error struct {
	Op     Operation // what was asked, or [OpTokenRefresh] where already the access token could not be had
	Status int       // of the answer; 0 where none came
	Detail string    // what Label Studio said, at most some 400 bytes; "" where the answer was not its own, but a proxy's
	Hint   string    // what a person can do about it; often empty
	// NotSent: certainly no byte of the request left, since no connection was made, its token could not be had, or it was given up before.
	NotSent bool
	Err     error // the cause, where there is one beside the status

	own bool // the caller's doing: its context ended, or it asked for what cannot be sent
	cut bool // the answer began and did not end
}

// Error tells status, detail, cause and hint; what was asked is told by the errors around it.
func (e *Error) Error() string {
	var parts []string
	if e.Status != 0 {
		parts = append(parts, fmt.Sprintf("status %d", e.Status))
	}
	if e.Detail != "" {
		parts = append(parts, e.Detail)
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	text := strings.Join(parts, ": ")
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func statusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// IsNotFound reports that Label Studio itself answered 404. The 404 of a proxy that has lost it says nothing about a task, and is [Away].
func IsNotFound(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound && e.Detail != ""
}

// IsAuth reports that the token was refused (401) or may not do this (403).
func IsAuth(err error) bool {
	s := statusOf(err)
	return s == http.StatusUnauthorized || s == http.StatusForbidden
}

// NotDone reports that the request certainly had no effect: it was never sent, or was answered by a 4xx other than 408.
// All else, a redirect, a 5xx, an answer that was cut or could not be read, may or may not have had one. A nil error is not "not done".
func NotDone(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	return e.NotSent || e.Status >= 400 && e.Status <= 499 && e.Status != http.StatusRequestTimeout
}

// Away reports that Label Studio as a whole is of no use at the moment, so that other requests would fare no better: no connection, no
// answer in time or half of one, a redirect, 401, 403, 408, 429, a 404 that is not Label Studio's, and every 5xx but the one that a
// listing gives when one of its tasks is deleted meanwhile. What the caller gave up itself says nothing.
func Away(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Status {
	case 0:
		return !e.own
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotFound:
		return e.Detail == ""
	}
	return e.cut || e.Status >= 300 && e.Status <= 399 || e.Status >= 500 && !isListingRace(e)
}

// isListingRace recognises the 500 of a listing one of whose tasks was deleted while it was put together: its detail is that task's id.
func isListingRace(e *Error) bool {
	switch e.Op {
	case OpTasksByID, OpTasksFind, OpTasksAfter, OpTasksChanged:
		_, err := strconv.ParseInt(strings.Trim(e.Detail, "'"), 10, 64)
		return e.Status == http.StatusInternalServerError && err == nil
	}
	return false
}

// notSent is for a request that failed before it could be made.
func notSent(op Operation, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return &Error{Op: op, NotSent: true, Err: err, own: true}
	}
	// A copy: the others who waited for the same refresh have the original.
	before := *e
	before.NotSent = true
	return fmt.Errorf("get an access token: %w", &before)
}

// undecodable is a 2xx answer that could not be read for what it should be.
func undecodable(op Operation, err error) error {
	return &Error{Op: op, Status: http.StatusOK, Err: fmt.Errorf("decode the answer: %w", withoutText(err))}
}

// withoutText drops what a decoding error quotes of the body, of which it may be any part.
func withoutText(err error) error {
	var wrongType *json.UnmarshalTypeError
	var wrongTime *time.ParseError
	switch {
	case errors.As(err, &wrongType):
		return fmt.Errorf("json: %s is no %s (at byte %d)", wrongType.Field, wrongType.Type, wrongType.Offset)
	case errors.As(err, &wrongTime):
		return errors.New("json: what should be a time is none")
	}
	return err
}

// statusError reads an error body, which is Label Studio's {"id", "status_code", "version", "detail", "validation_errors"}, Django's
// bare {"detail"}, a proxy's page, or nothing.
func statusError(op Operation, resp *http.Response, body []byte) *Error {
	e := &Error{Op: op, Status: resp.StatusCode, Detail: decodeDetail(body)}
	e.Hint = hint(e, resp.Header.Get("Location"))
	return e
}

func decodeDetail(body []byte) (detail string) {
	var answer struct {
		Detail     json.RawMessage `json:"detail"`
		Validation json.RawMessage `json:"validation_errors"`
	}
	if json.Unmarshal(body, &answer) != nil || len(answer.Detail) == 0 {
		return ""
	}
	if json.Unmarshal(answer.Detail, &detail) != nil {
		detail = string(answer.Detail)
	}
	if len(answer.Validation) > 0 && string(answer.Validation) != "null" {
		detail += ": " + string(answer.Validation)
	}
	// Errors are kept in PostgreSQL, which takes no NUL: with one the end of a turn could not be committed.
	return shorten(strings.ReplaceAll(strings.ToValidUTF8(detail, "?"), "\x00", "?"), maxDetail)
}

func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + " …"
}

// hint says what a person can do.
func hint(e *Error, location string) string {
	has := func(text string) bool { return strings.Contains(e.Detail, text) }
	switch {
	case e.Op == OpTokenRefresh && e.Status == http.StatusUnauthorized:
		return "the personal access token is no longer good: make a new token in Label Studio under Account & Settings and set it"
	case e.Status == http.StatusUnauthorized && has("legacy token authentication has been disabled"):
		return "use a personal access token, or allow legacy tokens in Label Studio's organization settings"
	case e.Status == http.StatusUnauthorized:
		return "Label Studio does not know the token: check it, or make a new one under Account & Settings"
	case e.Status == http.StatusForbidden && has("reserved network address"):
		return "Label Studio may not send to private addresses: set SSRF_PROTECTION_ENABLED=false or USE_DEFAULT_BANNED_SUBNETS=false there and restart it"
	case e.Status == http.StatusForbidden:
		return "the token's user may not do this: give it the rights, or use another user's token"
	case e.Status >= 300 && e.Status <= 399:
		return "redirects are not followed: set the URL to where it leads" + redirectTarget(location)
	case e.Status == http.StatusNotFound && e.Detail == "":
		return "this 404 is not Label Studio's: check the URL and its path prefix"
	}
	return ""
}

func redirectTarget(location string) string {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" {
		return ""
	}
	return ", " + u.Scheme + "://" + u.Host
}

func hintNoAnswer(base *url.URL, t *tracer) string {
	if t.got.Load() {
		return ""
	}
	return "is Label Studio running at " + base.String() + "?"
}
