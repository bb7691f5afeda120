// Package api is what programs call on port 4080. A handler has nothing to run a
// turn with: it makes keys dirty and answers.
package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// Limits of the server. A delivery of 5,000 tasks takes seconds to arrive; what
// takes longer is nobody's webhook.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 16 << 10
)

// API answers on port 4080. All fields but Secret and Projects are required.
type API struct {
	Ledger   *ledger.Ledger
	Metrics  *metrics.Metrics
	Log      *slog.Logger
	Secret   string  // RECONCILER_WEBHOOK_SECRET, empty for none
	Initial  string  // RECONCILER_INITIAL
	Projects []int64 // LABEL_STUDIO_PROJECTS, empty for all
	Poke     func()  // start an incremental pass: something happened, nobody knows what
}

// Server returns the server, ready to serve. Its routes are all there is.
func (a *API) Server() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/webhooks/label-studio", a.webhook)
	mux.HandleFunc("/v1/webhooks/label-studio", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", http.MethodPost)
		problem(w, http.StatusMethodNotAllowed, "Label Studio sends its webhooks by POST.")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem(w, http.StatusNotFound, "There is POST /v1/webhooks/label-studio.")
	})
	return &http.Server{
		Handler:           a.guard(mux),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(a.Log.Handler(), slog.LevelDebug),
	}
}

// guard answers only callers of this machine: who is on it may call us, but a page
// from elsewhere that its browser shows may not, by whatever name it found us. A
// caller who knows the webhook secret needs no such proof.
func (a *API) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if a.Secret != "" && a.knowsSecret(r) {
			next.ServeHTTP(w, r)
			return
		}
		origin := r.Header.Get("Origin")
		switch {
		case !isLoopback(r.Host):
			a.forbid(w, r, "Without tokens only this machine is answered: call a loopback name or address.")
		case origin != "" && !strings.EqualFold(strings.TrimPrefix(origin, "http://"), r.Host):
			a.forbid(w, r, "Without tokens no page from another origin is answered.")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (a *API) forbid(w http.ResponseWriter, r *http.Request, why string) {
	a.Log.WarnContext(r.Context(), "request refused", "path", r.URL.Path, "host", r.Host, "status", http.StatusForbidden, "error", why)
	problem(w, http.StatusForbidden, why)
}

func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// knowsSecret compares in a time that tells nothing, also not the secret's length.
func (a *API) knowsSecret(r *http.Request) bool {
	given, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	want, got := sha256.Sum256([]byte(a.Secret)), sha256.Sum256([]byte(given))
	return bearer && subtle.ConstantTimeCompare(want[:], got[:]) == 1
}
