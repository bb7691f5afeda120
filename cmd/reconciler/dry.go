package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler"
)

// dryRun is `reconciler run` with RECONCILER_DRY_RUN: passes look and report, to the log and the metrics alone. There is no turn,
// no slot, no webhook and no other listener, the database session is read-only, and our tables need not be there.
type dryRun struct {
	following
	differ   *reconciler.Differ
	metrics  *metrics.Metrics
	last     atomic.Pointer[error] // how the last look ended; nil: none has yet
	reported map[string]string     // what was logged of each key
}

func runDry(ctx context.Context, cfg *Config, log *slog.Logger, again *reread) error {
	metricsListener, err := listen(cfg.MetricsListen, "RECONCILER_METRICS_LISTEN")
	if err != nil {
		return err
	}
	d := &dryRun{following: following{cfg: cfg, log: log, reread: again}, reported: map[string]string{}}
	start, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	differ, done, err := openDiffer(start, cfg, log, true, &d.passwords)
	if err != nil {
		metricsListener.Close()
		return err
	}
	defer done()
	d.differ, d.studio = differ, differ.Studio
	registry := prometheus.NewRegistry()
	d.metrics = metrics.New(registry)
	log.InfoContext(ctx, "dry run: nothing is written anywhere", "metrics", metricsListener.Addr().String())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.serve(ctx, metricsListener, registry) })
	g.Go(func() error { d.look(ctx); return nil })
	g.Go(func() error { return d.reading(ctx) })
	g.Go(func() error {
		newNotifier().run(ctx, log, func(time.Time) error { return nil }) // a look has limits of its own
		return nil
	})
	return g.Wait()
}

func (d *dryRun) serve(ctx context.Context, l net.Listener, registry *prometheus.Registry) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("alive\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		var reasons []string
		switch err := d.last.Load(); {
		case err == nil:
			reasons = []string{"the first look is not over"}
		case *err != nil:
			reasons = []string{plain(*err)}
		}
		answerReady(w, false, reasons, []string{"a dry run: it looks and reports"})
	})
	return serve(ctx, d.log, l, &http.Server{Handler: mux, ReadHeaderTimeout: lookLimit})
}

// look looks at everything at once and whenever a full pass would, and in between at what changed.
func (d *dryRun) look(ctx context.Context) {
	var everything, since time.Time
	for ctx.Err() == nil {
		start := time.Now()
		kind, r, err := metrics.Full, (*reconciler.Report)(nil), error(nil)
		if !start.Before(everything) {
			r, err = d.differ.All(ctx)
			if err == nil {
				everything = d.cfg.FullDiffSchedule.Next(start.UTC())
			}
		} else {
			kind = metrics.Incremental
			r, err = d.differ.Since(ctx, since)
		}
		if ctx.Err() != nil {
			return
		}
		d.last.Store(&err)
		d.up(err)
		d.metrics.DiffDuration.With(kind).Observe(time.Since(start).Seconds())
		if err != nil {
			d.failures.Log(ctx, d.log, slog.LevelWarn, "pass", string(kind), err, slog.String("pass", string(kind)))
		} else {
			since = start
			d.failures.Over(ctx, d.log, "pass", string(kind), slog.String("pass", string(kind)))
			d.report(ctx, kind, r)
		}
		next := d.cfg.DiffSchedule.Next(time.Now().UTC())
		timer := time.NewTimer(time.Until(next))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// up sets the gauges of the two sides by how a look ended.
func (d *dryRun) up(err error) {
	var studio *labelstudio.Error
	switch {
	case err == nil:
		d.metrics.DatabaseUp.Set(1)
		d.metrics.LabelStudioUp.Set(1)
	case errors.As(err, &studio):
		d.metrics.LabelStudioUp.Set(0)
	default:
		d.metrics.DatabaseUp.Set(0)
	}
}

// report logs each difference once until it changes.
func (d *dryRun) report(ctx context.Context, kind metrics.Pass, r *reconciler.Report) {
	d.metrics.DiffLastSuccess.With(kind).SetToCurrentTime()
	now := map[string]string{}
	for _, k := range r.Keys {
		text := fmt.Sprintf("%s: %s (%s)", k.Class, k.Decision, k.Reason)
		if now[k.Key] = text; d.reported[k.Key] != text {
			d.log.InfoContext(ctx, "would act", "key", k.Key, "class", k.Class, "decision", k.Decision, "reason", k.Reason)
		}
	}
	if kind == metrics.Incremental {
		maps.Copy(d.reported, now)
		return
	}
	d.reported = now
	for _, class := range metrics.Drifts() {
		d.metrics.DriftKeys.With(class).Set(float64(r.Counts[string(class)]))
	}
	attrs := []any{"different", len(r.Keys), "noted", len(r.Noted), "plan", r.Plan}
	if r.Brake != "" {
		attrs = append(attrs, "brake", r.Brake)
	}
	d.log.InfoContext(ctx, "both sides were compared", attrs...)
}
