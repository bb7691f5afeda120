package curation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/semaphore"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/icl"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/logs"
	"github.com/aristotle/reconciler/reconciler/web"
)

// Options are what the app needs. Ledger, Studio, Metrics, Log, Examples
// and Guard are required.
type Options struct {
	Ledger  *ledger.Ledger
	Studio  *labelstudio.Client
	Metrics *metrics.Metrics
	Log     *slog.Logger

	Examples       *icl.Source    // what is exported
	Guard          *auth.Guard    // who may come in; without tokens everybody on this machine is its local user
	TrustedProxies []netip.Prefix // RECONCILER_TRUSTED_PROXIES

	Projects ledger.Projects // LABEL_STUDIO_PROJECTS, empty for all
	Initial  string          // RECONCILER_INITIAL
	Slot     string          // RECONCILER_SLOT, for the status page

	GroundTruth bool // RECONCILER_GROUND_TRUTH

	// Where a person's browser finds the two sides. In AristotleURL {id} stands for the
	// conquest's id; empty for no link.
	StudioURL, AristotleURL string

	Now func() time.Time // by which sessions end; nil for the clock
}

// App is the web app. It is safe for concurrent use.
type App struct {
	Options
	reader   *pgxpool.Pool
	pages    *pages
	sessions sessions
	origin   *http.CrossOriginProtection
	counts   memo[confined, counts]
	facets   memo[confined, facets]
	watcher  *watcher
	samples  samples
	stop     context.CancelFunc
	exports  *semaphore.Weighted // downloads that are under way
	studio   prober
	people   people
	failures logs.Failures

	exportLimit time.Duration
}

// How old the list's counts and what there is to filter by may be.
const (
	countsFresh = 2 * time.Second
	facetsFresh = 30 * time.Second
)

// New returns the app, ready to serve. It asks nobody anything.
func New(ctx context.Context, o Options) (*App, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &App{Options: o, origin: http.NewCrossOriginProtection(), exports: semaphore.NewWeighted(maxExports), exportLimit: exportLimit}
	a.counts.fresh, a.facets.fresh = countsFresh, facetsFresh
	a.sessions.now = o.Now
	a.sessions.key = func(ctx context.Context) ([]byte, error) { return o.Ledger.Secret(ctx, "session") }
	var err error
	if a.pages, err = parsePages(); err != nil {
		return nil, err
	}
	if a.reader, err = newReader(ctx, o.Ledger.Pool()); err != nil {
		return nil, err
	}
	// Not ctx, which is only for the start.
	a.samples.ctx, a.stop = context.WithCancel(context.WithoutCancel(ctx))
	a.samples.ledger = o.Ledger
	a.watcher = newWatcher(a.reader, o.Log)
	a.studio = prober{client: o.Studio}
	a.people.studio = o.Studio
	return a, nil
}

// Close ends what watches for pages, and closes the connections.
func (a *App) Close() {
	a.watcher.close()
	a.stop()
	a.samples.done.Wait()
	a.reader.Close()
}

// Server returns the server, ready to serve.
func (a *App) Server() *http.Server {
	s := web.NewServer(web.Options{Listener: metrics.ListenCuration, Metrics: a.Metrics, Log: a.Log}, a.routes())
	s.RegisterOnShutdown(a.watcher.close) // else a stop would wait for pages that are open
	return s
}

// routes is all there is on port 8001.
func (a *App) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /assets/{name}", a.asset)
	m.Handle("GET /login", a.open(a.showLogin))
	m.Handle("POST /login", a.open(a.login))
	m.Handle("POST /logout", a.open(a.logout))

	m.Handle("GET /{$}", a.page(a.showList))
	m.Handle("GET /conquests/{id}", a.page(a.showConquest))
	m.Handle("POST /conquests/{id}/star", a.page(a.clickStar))
	m.Handle("GET /tasks/{task}/edit", a.page(a.showEditor))
	m.Handle("POST /tasks/{task}/edit", a.page(a.saveResponse))
	m.Handle("GET /held", a.page(a.showHeld))
	m.Handle("POST /held/{id}", a.page(a.settle))
	m.Handle("POST /release", a.page(a.release))
	m.Handle("GET /export", a.page(a.showExport))
	m.Handle("GET /export.jsonl", a.page(a.download))
	m.Handle("GET /status", a.page(a.showStatus))
	m.Handle("GET /help", a.page(a.showHelp))
	m.Handle("GET /live", a.page(a.live))
	m.Handle("/", a.page(func(http.ResponseWriter, *http.Request) error {
		return web.Refuse(http.StatusNotFound, "There is no such page. The list of conquests is a good place to start again.")
	}))

	m.Handle(programsUnder, a.programs())
	m.HandleFunc("GET /openapi.yaml", web.ServeOpenAPI)
	return a.secure(m)
}

// programsUnder is where all is for programs.
const programsUnder = "/api/"

// programs are the calls that openapi.yaml describes.
func (a *App) programs() *web.Mux {
	m := &web.Mux{}
	m.Handle("POST /api/tasks/{task}/gold-star", a.program(a.goldStar))
	return m
}

// handler answers, or returns why it cannot.
type handler func(http.ResponseWriter, *http.Request) error

// page is for people: whoever is not known is asked who they are, and an error is a
// page that says what to do.
func (a *App) page(h handler) http.Handler {
	return a.open(func(w http.ResponseWriter, r *http.Request) error {
		who, err := a.identify(r)
		var refused *web.Problem
		switch {
		case errors.As(err, &refused) && refused.Status == http.StatusUnauthorized:
			return a.askWho(w, r)
		case err != nil:
			return err
		}
		r = withPerson(r, who)
		if err = h(w, r); err == nil {
			a.works(r)
		}
		if errors.As(err, &refused) && refused.Status < http.StatusInternalServerError {
			a.fail(w, r, err) // a page like all others, with the way on: what it shows can be read
			return nil
		}
		return err
	})
}

// open is for people who need not be known.
func (a *App) open(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			a.fail(w, r, err)
		}
	})
}

// program is for programs: an error is a problem document.
func (a *App) program(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := a.identify(r)
		if err == nil {
			err = h(w, withPerson(r, who))
		}
		if err != nil {
			a.log(r, err)
			web.Fail(w, err)
			return
		}
		a.works(r)
	})
}

// contentPolicy lets a page use the embedded files and nothing else: whatever a
// conquest's text may hold, a browser runs none of it.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; " +
	"base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// secure stands before everything: it sets the headers of a page, and refuses what a
// page from elsewhere sends in somebody's name.
func (a *App) secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", contentPolicy)
		w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
		w.Header().Set("Referrer-Policy", "same-origin") // with none at all a form would not tell its origin
		if auth.Bearer(r) == "" {                        // a token in a header is nothing that a browser adds by itself
			if err := a.origin.Check(r); err != nil {
				refused := web.Refuse(http.StatusForbidden, "This was sent from a page of another site. Open this page itself and try again.")
				if strings.HasPrefix(r.URL.Path, programsUnder) {
					web.Fail(w, refused)
				} else {
					a.fail(w, r, refused)
				}
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// msgRoute is how the log tells that a request could not be answered.
const msgRoute = "curation"

// log tells of an error that is not the caller's doing.
func (a *App) log(r *http.Request, err error) {
	var p *web.Problem
	if errors.As(err, &p) && p.Status < http.StatusInternalServerError || r.Context().Err() != nil {
		return
	}
	a.failures.Log(r.Context(), a.Log, slog.LevelWarn, msgRoute, r.Pattern, err, slog.String("route", r.Pattern))
}

// works tells the end of what [App.log] told of the same route.
func (a *App) works(r *http.Request) {
	a.failures.Over(r.Context(), a.Log, msgRoute, r.Pattern, slog.String("route", r.Pattern))
}

// conquestURL is the address of a conquest's page.
func conquestURL(id string) string { return "/conquests/" + url.PathEscape(id) }

func taskURL(task int64, what string) string { return fmt.Sprintf("/tasks/%d/%s", task, what) }
