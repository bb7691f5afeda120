package reconciler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/logs"
)

// The sizes and times of a pass.
const (
	// DefaultPage is the cheapest size of a page of everything: above it nothing is gained.
	DefaultPage = 1000
	// changedPage bounds a page of what changed; there are rarely more than a few.
	changedPage = 500
	// manyChanged is where what changed is more than a pass holds in memory: then a full
	// pass of the project reads it.
	manyChanged = 20_000
	// overlap is how far behind its newest a pass asks again: updated_at is set before
	// the commit that shows it, and commits overtake one another.
	overlap = time.Minute
	// DefaultRetry is when a full pass that failed goes on from where it was.
	DefaultRetry = time.Minute
	// mostRetry bounds how far apart a pass is tried that can read nothing: a project
	// that is refused may stay so for days.
	mostRetry = 15 * time.Minute
	// awayRetry is when an incremental pass that found no Label Studio looks again.
	awayRetry = 10 * time.Second
	// brakedRetry is when a full pass that was braked looks again: a person may have
	// mended what was wrong, instead of releasing it.
	brakedRetry = time.Hour
	// tooOld is a full pass that is not gone on with: what it saw says little by now.
	tooOld = 24 * time.Hour
	// restFor is how long it is believed that the table of passes is as we left it: only
	// the leader writes there, but one that has lost the lead may not know it yet.
	restFor = 5 * time.Minute
	// skew is what our clock and Label Studio's may differ by, where only ours is known.
	skew = 5 * time.Minute
	// foundPage is how many keys share a transaction of what a pass has found.
	foundPage = 1000
	// markMost is how many keys that passes found may wait in the queue, and markEvery
	// how often it is filled up: more than the worker turns meanwhile.
	markMost  = 5000
	markEvery = time.Second
)

// Passes look for what no event tells: a star that was set through Label Studio's
// API, a webhook that did not arrive, news that were lost. They write nothing but
// what they have found and dirty keys; a turn reads again and decides.
//
// An incremental pass asks for the tasks that changed. A full pass reads every task,
// in the order of ids, and notes those that are not as their edges remember; then it
// compares these notes with every row, in the order of keys. It commits where it is
// with what it has found, and goes on from there after a crash, on whatever replica.
// What it has come to it hands to the brakes, whole, before the first key is marked.
type Passes struct {
	Ledger      *ledger.Ledger
	Intake      *Intake
	Studio      *labelstudio.Client
	Database    *labelstudio.Database // LABEL_STUDIO_DATABASE_URL, nil for none: full passes read there
	Hooks       *Hooks                // is told what deliveries must tell too; nil: there are none
	Metrics     *metrics.Metrics
	Log         *slog.Logger
	Incremental cron.Schedule   // RECONCILER_DIFF_SCHEDULE
	Full        cron.Schedule   // RECONCILER_FULL_DIFF_SCHEDULE
	Initial     string          // RECONCILER_INITIAL
	GroundTruth bool            // RECONCILER_GROUND_TRUTH
	Projects    ledger.Projects // LABEL_STUDIO_PROJECTS, empty for all
	Brakes      Brakes
	Page        int           // RECONCILER_DIFF_PAGE, 0 for DefaultPage
	Pause       time.Duration // RECONCILER_DIFF_PAUSE
	Retry       time.Duration // 0 for DefaultRetry

	// Step is called when a pass has committed something, with what. A test ends the
	// process there. Nil: nothing.
	Step func(name string)

	runner string // tells this process from others that go on with the same pass
	poke   chan struct{}
	linked chan struct{}
	once   sync.Once
	away   atomic.Bool // the last pass found no Label Studio

	nextChanges time.Time       // when the next incremental pass is due
	lastChanges time.Time       // when the last one began
	notBefore   time.Time       // when a full pass that failed may go on
	unread      map[int64]retry // by pass, of those that can read nothing
	running     bool            // a full pass is under way
	marking     bool            // findings wait to be made dirty
	looked      time.Time       // when it was last asked for such
	found       atomic.Bool     // there are findings, or there may be
	heard       map[int64]notes // by project, of the incremental pass before; none: nobody was there to be told
	braked      string          // the plan that was told of

	wanted  atomic.Bool              // a full pass may be wanted, whatever rest says
	rest    time.Time                // no full pass is open, or due, before
	known   map[int64]ledger.Project // as read at knownAt; nil: to be read
	knownAt time.Time

	failures logs.Failures
}

// NewPasses returns p, ready to run.
func NewPasses(p *Passes) *Passes {
	p.poke, p.linked = make(chan struct{}, 1), make(chan struct{})
	p.runner = newRunner()
	p.Page, p.Retry = cmp.Or(p.Page, DefaultPage), cmp.Or(p.Retry, DefaultRetry)
	if p.Step == nil {
		p.Step = func(string) {}
	}
	p.heard, p.unread = map[int64]notes{}, map[int64]retry{}
	return p
}

// Ready is closed when turns may begin: at once, but where first contact depends on
// the other tasks of a key it is when every task was linked and the brakes let go. Once
// they have begun, no restart makes them wait for a pass again.
func (p *Passes) Ready() <-chan struct{} {
	if p.Initial != "labelstudio" {
		p.ready()
	}
	return p.linked
}

func (p *Passes) ready() { p.once.Do(func() { close(p.linked) }) }

// pokeGap keeps passes apart that webhooks ask for: a hundred that say nothing but that
// something happened must not keep Label Studio busy with listings.
const pokeGap = time.Second

// Poke makes the next incremental pass start now, or a second after the last: a
// webhook said that something happened, and not what.
func (p *Passes) Poke() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

// NewSlot notes that news of rows were lost: everything is to be compared.
func (p *Passes) NewSlot(ctx context.Context) error {
	err := errors.Join(p.Intake.examplesLost(ctx), p.Ledger.WantFull(ctx, "the replication slot is a new one", nil))
	p.wanted.Store(true) // also where it says that it failed
	p.Poke()
	return err
}

// Found tells whether passes have found differences that may not be settled.
func (p *Passes) Found() bool { return p.found.Load() }

// Away tells whether the last pass found no Label Studio.
func (p *Passes) Away() bool { return p.away.Load() }

// Run runs the passes, one at a time, until ctx ends: only the leader does. The first
// comes at once and makes up for what was missed while nobody ran. A pass that fails
// is made up by the next one: it says so once, until that changes.
func (p *Passes) Run(ctx context.Context) error {
	p.nextChanges, p.notBefore = time.Time{}, time.Time{}
	clear(p.heard)
	clear(p.unread)
	p.found.Store(true) // another process may have left some
	p.rest, p.known = time.Time{}, nil
	p.tell(ctx, "the last full pass", p.noteEnded(ctx))
	if p.Database != nil {
		p.survey().answered(ctx, p.Database.Check(ctx)) // the first pass that reads there may be hours away
	}
	for ctx.Err() == nil {
		next, err := p.full(ctx)
		if p.tell(ctx, "looking for passes", err); err != nil {
			p.notBefore = time.Now().Add(p.Retry)
		}
		p.tick(ctx)
		p.wait(ctx, next)
	}
	return nil
}

// noteEnded tells the metrics when a full pass last ended well, whichever process that was.
func (p *Passes) noteEnded(ctx context.Context) error {
	at, err := p.Ledger.FullEnded(ctx)
	if at != nil {
		p.Metrics.DiffLastSuccess.With(metrics.Full).Set(float64(at.UnixMilli()) / 1000)
	}
	return err
}

// tick makes what was found dirty, and runs the incremental pass where that is due. It
// is called between the pages of a full pass too, which may take long; only there can
// a person have released a plan that [Passes.full] has not seen.
func (p *Passes) tick(ctx context.Context) {
	now := time.Now()
	if p.marking || p.running && now.Sub(p.looked) >= markEvery {
		p.looked = now
		p.mark(ctx)
	}
	if now.Before(p.nextChanges) || ctx.Err() != nil {
		return
	}
	p.lastChanges, p.nextChanges = now, p.Incremental.Next(now.UTC())
	err := p.changes(ctx)
	p.Metrics.DiffDuration.With(metrics.Incremental).Observe(time.Since(now).Seconds())
	p.tell(ctx, string(metrics.Incremental), err)
	if p.found.Load() {
		left, err := p.Ledger.DropSettled(ctx)
		p.tell(ctx, "cleaning up", err)
		p.found.Store(left || err != nil)
	}
	away := errors.Is(err, errAway)
	if soon := time.Now().Add(awayRetry); away && soon.Before(p.nextChanges) {
		p.nextChanges = soon // with a schedule of hours, that it is back must not take hours to be known
	}
	if was := p.away.Swap(away); was && !away {
		p.notBefore = time.Time{} // it is back
	}
	if err == nil {
		p.Metrics.LabelStudioUp.Set(1)
		p.Metrics.DiffLastSuccess.With(metrics.Incremental).SetToCurrentTime()
	}
	if p.marking {
		p.mark(ctx)
	}
}

// msgPass is how the log tells of a pass that failed.
const msgPass = "pass"

// tell logs what went wrong, once until it changes or is over.
func (p *Passes) tell(ctx context.Context, what string, err error) {
	switch {
	case ctx.Err() != nil:
	case err == nil:
		p.failures.Over(ctx, p.Log, msgPass, what)
	default:
		p.failures.Log(ctx, p.Log, slog.LevelWarn, msgPass, what, err, slog.String(logPass, what))
	}
}

// mark makes findings dirty, as many as the queue has room for.
func (p *Passes) mark(ctx context.Context) {
	n, more, err := p.Ledger.MarkFound(ctx, markMost)
	p.tell(ctx, "marking", err)
	p.Intake.count(metrics.Diff, n)
	if err != nil {
		return // what waited waits
	}
	if p.marking = more; !more && n > 0 {
		p.Step("marked")
	}
}

func (p *Passes) wait(ctx context.Context, next time.Time) {
	if next.Before(p.notBefore) {
		next = p.notBefore
	}
	if p.nextChanges.Before(next) {
		next = p.nextChanges
	}
	d := time.Until(next)
	if p.marking {
		d = min(d, markEvery)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.poke:
		if soon := p.lastChanges.Add(pokeGap); soon.Before(p.nextChanges) {
			p.nextChanges = soon
		}
	case <-ctx.Done():
	}
}

// each goes through projects. One that fails keeps no other from its pass, unless
// Label Studio is away.
func (p *Passes) each(ctx context.Context, ids []int64, pass func(int64) error) error {
	var all error
	for _, id := range ids {
		if err := asAway(ctx, p.Studio, pass(id)); err != nil {
			all = errors.Join(all, fmt.Errorf("project %d: %w", id, err))
			if errors.Is(err, errAway) || ctx.Err() != nil {
				break
			}
		}
	}
	return all
}
