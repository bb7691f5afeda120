package main

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// lookLimit bounds what a scrape or a probe may ask of the database.
const lookLimit = 3 * time.Second

// observer serves /metrics, /healthz and /readyz. It shows no secret, and asks
// nobody who it is.
func (d *daemon) observer() *http.Server {
	mux := http.NewServeMux()
	gather := promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{ErrorLog: logPrinter{d}, DisableCompression: true}) // which keeps a megabyte for each scraper
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		d.measure(r.Context())
		gather.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := d.alive(time.Now()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("alive\n"))
	})
	mux.HandleFunc("GET /readyz", d.ready)
	return &http.Server{Handler: mux, ReadHeaderTimeout: lookLimit, ReadTimeout: lookLimit, WriteTimeout: 10 * lookLimit}
}

type logPrinter struct{ *daemon }

func (p logPrinter) Println(v ...any) { p.log.Error("gather metrics", "error", v) }

// measure sets the gauges that tell of stored state. Where the database is away they
// keep their last values, and one gauge says so.
func (d *daemon) measure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	m := d.metrics
	s, slot, err := d.ledger.StatsAndSlot(ctx, string(d.cfg.Slot))
	if err != nil {
		m.DatabaseUp.Set(0)
		d.log.DebugContext(ctx, "measure", "error", err)
		return
	}
	m.DatabaseUp.Set(1)
	for state, n := range map[metrics.State]int{metrics.Ready: s.Ready, metrics.Waiting: s.Waiting, metrics.Running: s.Running,
		metrics.Stuck: s.Stuck, metrics.Held: s.Held} {
		m.QueueKeys.With(state).Set(float64(n))
	}
	if d.leading.Load() { // else it is another one's to tell
		d.measureDrift(ctx, s.Held)
	}
	m.OldestUnsynced.With(metrics.ToLabelStudio).Set(s.OldestToStudio)
	m.OldestUnsynced.With(metrics.ToAristotle).Set(s.OldestToAristotle)
	m.SlotRetainedWAL.Set(slot.Retained)
	m.SlotLag.Set(slot.Lag)
	m.SlotSafeWAL.Set(slot.Safe)
}

// measureDrift sets what the passes know of drift, by class.
func (d *daemon) measureDrift(ctx context.Context, held int) {
	var drift []ledger.Drift
	if d.passes.Found() {
		var err error
		if drift, err = d.ledger.Drift(ctx); err != nil {
			d.log.DebugContext(ctx, "measure", "error", err)
			return
		}
	}
	keys, oldest := map[metrics.Drift]int{metrics.DriftHeld: held}, 0.
	for _, c := range drift {
		keys[metrics.Drift(c.Class)] = c.Keys
		oldest = max(oldest, time.Since(c.Oldest).Seconds())
	}
	for _, class := range metrics.Drifts() {
		d.metrics.DriftKeys.With(class).Set(float64(keys[class]))
	}
	d.metrics.OldestDrift.Set(oldest)
}
