package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/aristotle/reconciler/cdc"
	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler"
	"github.com/aristotle/reconciler/reconciler/api"
	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/curation"
	"github.com/aristotle/reconciler/reconciler/icl"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// RunCmd is `reconciler run`: the daemon.
type RunCmd struct {
	step      func(string)     // for tests: see reconciler.Options
	passStep  func(string)     // and reconciler.Passes
	careEvery time.Duration    // and reconciler.Hooks
	now       func() time.Time // and curation.Options
}

// Run keeps both sides equal until ctx ends.
func (c *RunCmd) Run(ctx context.Context, cfg *Config, log *slog.Logger, again *reread) error {
	if cfg.DryRun {
		return runDry(ctx, cfg, log, again)
	}
	d, err := newDaemon(ctx, cfg, log, c)
	if err != nil {
		return err
	}
	d.reread = again
	return d.run(ctx)
}

// The times of the daemon.
const (
	startLimit    = time.Minute     // until everything must have been looked at and prepared
	shutdownLimit = 5 * time.Second // for requests that are under way at a stop
	againAfter    = 2 * time.Second // between two tries to lead
)

// daemon is the parts in the order in which they are made and started; they stop in
// the reverse.
type daemon struct {
	following // cfg and log, and what else may change

	apiListener, curationListener, metricsListener net.Listener

	ledger   *ledger.Ledger
	metrics  *metrics.Metrics
	registry *prometheus.Registry
	stream   *cdc.Listener
	examples *icl.Source
	index    *icl.Index
	intake   *reconciler.Intake
	passes   *reconciler.Passes
	turner   *reconciler.Turner
	leading  atomic.Bool
	hooks    *reconciler.Hooks // nil: nobody told by which URL Label Studio reaches us
	guard    *auth.Guard
	curation *curation.App

	seen              readiness
	answeredAt, ledAt atomic.Int64
	step              func(string)
	passStep          func(string)
	now               func() time.Time
	careEvery         time.Duration

	studioDatabase *labelstudio.Database // nil: passes read through the API
}

// newDaemon opens everything that can be wrong, and starts nothing: what it returns
// can run. Whatever a person has to mend is an error here.
func newDaemon(ctx context.Context, cfg *Config, log *slog.Logger, c *RunCmd) (d *daemon, err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	d = &daemon{following: following{cfg: cfg, log: log}, registry: prometheus.NewRegistry(), step: c.step, passStep: c.passStep, careEvery: c.careEvery, now: c.now}
	made := d // whatever an error returns in place of it
	defer func() {
		if err != nil {
			made.close()
		}
	}()
	if d.apiListener, err = listen(cfg.Listen, "RECONCILER_LISTEN"); err != nil {
		return nil, err
	}
	if d.metricsListener, err = listen(cfg.MetricsListen, "RECONCILER_METRICS_LISTEN"); err != nil {
		return nil, err
	}
	if d.curationListener, err = listen(cfg.CurationListen, "RECONCILER_CURATION_LISTEN"); err != nil {
		return nil, err
	}
	d.guard = &auth.Guard{Local: cfg.LocalUser}
	if cfg.TokensFile != "" {
		if d.guard.Tokens, err = auth.Load(cfg.TokensFile); err != nil {
			return nil, fmt.Errorf("RECONCILER_TOKENS_FILE: %w", err)
		}
	}
	d.secret = auth.NewSecret(string(cfg.WebhookSecret))
	d.metrics = metrics.New(d.registry)
	d.metrics.TokensOK.Set(1)
	d.metrics.SlotWALLimit.Set(math.Inf(1))
	if cfg.SlotWALLimit > 0 {
		d.metrics.SlotWALLimit.Set(float64(cfg.SlotWALLimit))
	}
	b := readBuild()
	metrics.BuildInfo(d.registry, b.Version, b.Revision, b.Go)
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := d.examine(ctx); err != nil {
		return nil, err
	}
	if d.ledger, err = openLedger(ctx, cfg, ofTheDay(&d.passwords.ordinary)); err != nil {
		return nil, err
	}
	if err := d.ledger.Migrate(ctx); err != nil {
		return nil, err
	}
	if d.examples, err = icl.Open(ctx, string(cfg.AristotleDatabaseURL), string(cfg.Schema), ofTheDay(&d.passwords.ordinary)); err != nil {
		return nil, err
	}
	if d.studioDatabase, err = openStudioDatabase(ctx, cfg, ofTheDay(&d.passwords.studio)); err != nil {
		return nil, err
	}
	if err := d.assemble(); err != nil {
		return nil, err
	}
	return d, d.openCuration(ctx)
}

func (d *daemon) openCuration(ctx context.Context) (err error) {
	cfg := d.cfg
	d.curation, err = curation.New(ctx, curation.Options{
		Ledger: d.ledger, Studio: d.studio, Metrics: d.metrics, Log: d.log, Guard: d.guard, Examples: d.examples, TrustedProxies: cfg.TrustedProxies,
		Projects: ledger.Projects(cfg.LabelStudioProjects), Initial: string(cfg.Initial), GroundTruth: cfg.GroundTruth, Slot: string(cfg.Slot),
		StudioURL: string(cfg.LabelStudioPublicURL), AristotleURL: string(cfg.AristotleURL), Now: d.now,
	})
	return err
}

func openLedger(ctx context.Context, cfg *Config, configure ...func(*pgxpool.Config)) (*ledger.Ledger, error) {
	l, err := ledger.Open(ctx, string(cfg.AristotleDatabaseURL), string(cfg.Schema), configure...)
	if err != nil {
		return nil, hinted{err, fmt.Sprintf("Check ARISTOTLE_DATABASE_URL (%v), or run `reconciler setup`.", cfg.AristotleDatabaseURL)}
	}
	return l, nil
}

func listen(at Address, setting string) (net.Listener, error) {
	l, err := net.Listen("tcp", string(at))
	if err != nil {
		return nil, hinted{fmt.Errorf("listen on %s: %w", at, err), "Set " + setting + " to another address, or stop what has this one."}
	}
	return l, nil
}

// examine is `reconciler doctor` before the start: what is fatal ends it, all of it told at once, the rest is logged. A Label
// Studio that does not answer is waited for.
func (d *daemon) examine(ctx context.Context) error {
	p, err := patient(d.cfg, d.log, d.observe)
	if err != nil {
		return err
	}
	d.studio = p.Studio
	ups := reconciler.ExamineStart(ctx, p)
	for _, up := range ups {
		for _, f := range up.Findings {
			if f.Severity == reconciler.Warning {
				d.log.WarnContext(ctx, f.What, "why", f.Why, "mend", f.Mend)
			}
		}
		switch {
		case up.Check != "label studio" && up.Err != nil:
			d.log.WarnContext(ctx, "could not look: going on", "check", up.Check, "error", up.Err)
		case up.Check != "label studio":
		case up.Err != nil:
			d.log.WarnContext(ctx, "Label Studio does not answer: waiting for it", "url", d.cfg.LabelStudioURL, "error", up.Err)
		case len(up.Findings) == 0 || up.Findings[0].Severity != reconciler.Fatal:
			d.metrics.LabelStudioUp.Set(1)
			d.log.InfoContext(ctx, "Label Studio answers", "url", d.cfg.LabelStudioURL, "is", up.Fact)
		}
	}
	return reconciler.Fatalities(ups)
}

// openStudioDatabase returns nil where none is set. One that does not answer is left to the passes, which do without it meanwhile.
func openStudioDatabase(ctx context.Context, cfg *Config, configure ...func(*pgxpool.Config)) (*labelstudio.Database, error) {
	if cfg.LabelStudioDatabaseURL == "" {
		return nil, nil
	}
	db, err := labelstudio.OpenDatabase(ctx, string(cfg.LabelStudioDatabaseURL), configure...)
	if err == nil {
		if err = db.Check(ctx); !labelstudio.Mendable(err) {
			return db, nil
		}
		db.Close()
	}
	return nil, hinted{err, fmt.Sprintf("Check LABEL_STUDIO_DATABASE_URL (%v), or leave it out: passes then read through the API.", cfg.LabelStudioDatabaseURL)}
}

func (d *daemon) observe(r labelstudio.Request) {
	if strings.HasPrefix(r.Code, "2") {
		d.answeredAt.Store(time.Now().UnixNano())
	}
	op := metrics.Operation(r.Operation)
	d.metrics.LabelStudioRequests.With(op, metrics.Code(r.Code)).Inc()
	d.metrics.LabelStudioDuration.With(op).Observe(r.Duration.Seconds())
}

// assemble puts the parts together.
func (d *daemon) assemble() (err error) {
	cfg := d.cfg
	d.index = icl.NewIndex(d.examples, icl.Options{Log: d.log, Metrics: d.metrics, Memory: int64(cfg.ICLMemory), Slot: string(cfg.Slot)})
	d.intake = &reconciler.Intake{Ledger: d.ledger, Metrics: d.metrics, Examples: d.examples}
	d.stream, err = cdc.New(cdc.Config{
		URL: string(cfg.AristotleReplicationURL), Slot: string(cfg.Slot), Publication: string(cfg.Publication),
		Tables: []string{reconciler.TableConquest}, Handle: d.intake.Stream, OnSlotCreated: func(ctx context.Context) error { return d.passes.NewSlot(ctx) }, Log: d.log,
		Password:    d.passwords.stream(cfg),
		MaxRetained: int64(cfg.SlotWALLimit),
	})
	if err != nil {
		return err
	}
	metrics.Stream{
		Connected:  func() bool { return d.stream.Stats().Connected },
		Reconnects: func() int { return d.stream.Stats().Reconnects },
		SlotsMade:  func() int { return d.stream.Stats().SlotsMade },
	}.Register(d.registry)
	if cfg.PublicURL != "" {
		d.hooks = &reconciler.Hooks{Ledger: d.ledger, Studio: d.studio, Metrics: d.metrics, Log: d.log,
			URL: string(cfg.PublicURL), Secret: d.secret.Text, Projects: cfg.LabelStudioProjects, Every: d.careEvery}
	}
	d.passes = reconciler.NewPasses(&reconciler.Passes{
		Ledger: d.ledger, Intake: d.intake, Studio: d.studio, Hooks: d.hooks, Metrics: d.metrics, Log: d.log,
		Incremental: cfg.DiffSchedule.Schedule, Full: cfg.FullDiffSchedule.Schedule,
		Initial: string(cfg.Initial), GroundTruth: cfg.GroundTruth, Projects: ledger.Projects(cfg.LabelStudioProjects),
		Brakes: brakes(cfg),
		Page:   int(cfg.DiffPage), Pause: cfg.DiffPause, Database: d.studioDatabase, Step: d.passStep,
	})
	var evaluator *string
	if cfg.UnknownEvaluator != "" {
		evaluator = &cfg.UnknownEvaluator
	}
	d.turner = reconciler.NewTurner(reconciler.Options{
		Ledger: d.ledger, Studio: d.studio, Metrics: d.metrics, Log: d.log, Step: d.step,
		Deadline: cfg.LabelStudioDeadline, Initial: string(cfg.Initial), GroundTruth: cfg.GroundTruth,
		Evaluator: evaluator, Projects: ledger.Projects(cfg.LabelStudioProjects), Ready: d.passes.Ready(),
	})
	d.intake.Wake = d.turner.Wake
	return nil
}

// run starts the parts and waits until ctx ends or one of them cannot go on.
func (d *daemon) run(ctx context.Context) error {
	defer d.close()
	g, ctx := errgroup.WithContext(ctx)
	a := &api.API{Ledger: d.ledger, Metrics: d.metrics, Log: d.log, Guard: d.guard, Secret: d.secret,
		Initial: string(d.cfg.Initial), Projects: ledger.Projects(d.cfg.LabelStudioProjects), Examples: d.index.Examples, Version: d.index.Version}
	g.Go(func() error { return serve(ctx, d.log, d.metricsListener, d.observer()) })
	g.Go(func() error { return serve(ctx, d.log, d.apiListener, a.Server()) })
	g.Go(func() error { return serve(ctx, d.log, d.curationListener, d.curation.Server()) })
	g.Go(func() error { return d.ledger.Relay(ctx, d.log, d.passes.Poke) })
	if d.guard.Tokens != nil {
		g.Go(func() error { return d.guard.Tokens.Watch(ctx, d.metrics, d.log) })
	}
	g.Go(func() error { return d.index.Run(ctx) })
	g.Go(func() error { return d.lead(ctx) })
	g.Go(func() error { return d.reading(ctx) })
	g.Go(func() error {
		newNotifier().run(ctx, d.log, d.alive)
		return nil
	})
	d.log.InfoContext(ctx, "running", "listen", d.apiListener.Addr().String(), "metrics", d.metricsListener.Addr().String(),
		"curation", d.curationListener.Addr().String())
	err := g.Wait()
	if err == nil {
		d.log.Info("stopped")
	}
	return err
}

// serve answers until ctx ends, and then what is under way. What takes longer than a stop may, as a download does, is cut.
func serve(ctx context.Context, log *slog.Logger, l net.Listener, s *http.Server) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			log.WarnContext(ctx, "requests are cut that were not answered before the stop", "listen", l.Addr().String(), "error", err)
			_ = s.Close() // else what they hold is held until their readers are done
		}
	})
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	<-stopped
	return nil
}

// lead runs stream, turns and passes whenever this replica is the leader. Nothing ends it but ctx: what a person has to mend was
// told before the start, and what was taken away since is waited for.
func (d *daemon) lead(ctx context.Context) error {
	for {
		err := d.ledger.Lead(ctx, d.log, d.leader)
		d.leading.Store(false)
		d.metrics.StandBy()
		if err != nil && ctx.Err() == nil {
			d.failures.Log(ctx, d.log, slog.LevelWarn, msgLead, "", quiet{explained(err)})
		}
		select {
		case <-time.After(againAfter):
		case <-ctx.Done():
			return nil
		}
	}
}

// msgLead is how the log tells that the lead could not be taken, or was lost.
const msgLead = "not leading: trying again"

// explained says what to do about an error of the database, where that is known.
func explained(err error) error {
	if ledger.IsSchemaGone(err) && !errors.Is(err, ledger.ErrNoSchema) {
		return fmt.Errorf("%w: run `reconciler setup`", err)
	}
	return err
}

func (d *daemon) leader(ctx context.Context) error {
	// Our tables and rights may have been taken away while we ran, and made anew by `setup`.
	if err := errors.Join(d.ledger.Migrate(ctx), d.ledger.Check(ctx)); err != nil {
		return err
	}
	d.ledAt.Store(time.Now().UnixNano())
	d.leading.Store(true)
	d.metrics.Leader.Set(1)
	d.failures.Over(ctx, d.log, msgLead, "")
	d.log.InfoContext(ctx, "leading")
	if err := d.ledger.DropLeases(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.stream.Run(ctx) })
	g.Go(func() error { return d.turner.Work(ctx) })
	g.Go(func() error { return d.passes.Run(ctx) })
	if d.hooks != nil {
		g.Go(func() error { return d.hooks.Run(ctx) })
	}
	g.Go(func() error { return reconciler.Prune(ctx, d.ledger, time.Duration(d.cfg.AuditRetention), d.log) })
	return g.Wait()
}

// close releases what newDaemon has opened, last first.
func (d *daemon) close() {
	if d.curation != nil {
		d.curation.Close()
	}
	if d.examples != nil {
		d.examples.Close()
	}
	if d.studioDatabase != nil {
		d.studioDatabase.Close()
	}
	if d.ledger != nil {
		d.ledger.Close()
	}
	for _, l := range []net.Listener{d.metricsListener, d.curationListener, d.apiListener} {
		if l != nil {
			_ = l.Close() // a server that has stopped has closed it already
		}
	}
}
