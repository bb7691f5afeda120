package web

import (
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/aristotle/reconciler/metrics"
)

// Limits of a server. What takes longer is nobody's request; a handler that streams
// moves its own deadline with [http.ResponseController], after its first byte.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second // a delivery of 5,000 tasks takes seconds to arrive
	writeTimeout      = 30 * time.Second // from the first byte on: see begin
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10 // a long query has to be told what is wrong with it
)

// Options are what a server needs.
type Options struct {
	Listener metrics.Listener
	Metrics  *metrics.Metrics
	Log      *slog.Logger
}

// NewServer returns a server for h, ready to serve. Every answer has the security
// headers of a program that serves no pages; a handler that does replaces them. A
// panic of h is logged, counted and answered with a 500 that shows nothing of it.
func NewServer(o Options, h http.Handler) *http.Server {
	return &http.Server{
		Handler:           o.Wrap(h),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
}

// errPanicked is no Problem, so it is answered with a 500.
var errPanicked = errors.New("panic")

// Wrap is what NewServer puts around a handler.
func (o Options) Wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		seen := &response{ResponseWriter: w}
		defer func() { o.ended(seen, r, recover()) }()
		h.ServeHTTP(seen, r)
	})
}

// ended counts a request, and answers for a handler that panicked.
func (o Options) ended(w *response, r *http.Request, panicked any) {
	if panicked != nil && panicked != http.ErrAbortHandler {
		o.Metrics.Panics.Inc()
		o.Log.ErrorContext(r.Context(), "panic in a handler", "method", r.Method, "route", r.Pattern, "error", panicked, "stack", string(debug.Stack()))
		if w.status == 0 {
			w.Header().Del("Content-Encoding")
			Fail(w, errPanicked)
			panicked = nil
		}
	}
	w.begin(http.StatusOK)
	o.Metrics.HTTPRequests.With(o.Listener, metrics.CodeOf(w.status)).Inc()
	if panicked != nil { // half an answer is out: the caller must see that it is cut
		panic(http.ErrAbortHandler)
	}
}

// security are the headers of a program that serves no pages. Nobody changes a value
// in place: they are shared by all answers.
var security = http.Header{
	"Cache-Control":                {"no-store"},
	"Content-Security-Policy":      {"default-src 'none'; frame-ancestors 'none'"},
	"Cross-Origin-Resource-Policy": {"same-origin"},
	"Referrer-Policy":              {"no-referrer"},
	"X-Content-Type-Options":       {"nosniff"},
	"X-Frame-Options":              {"DENY"},
}

func secure(h http.Header) {
	for name, values := range security {
		h[name] = values
	}
}

// response notes the status that was sent.
type response struct {
	http.ResponseWriter
	status int
}

// begin notes the status of an answer that begins now, and its time to be written with it: what a handler
// takes before, on a machine that has much to do, the server would count too, and send nothing at all.
func (w *response) begin(status int) {
	if w.status != 0 {
		return
	}
	w.status = status
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(writeTimeout)) // a test's writer may have none
}

func (w *response) WriteHeader(status int) {
	if status >= http.StatusOK { // 1xx come before the answer
		w.begin(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	w.begin(http.StatusOK)
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
