package reconciler

import (
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
	"github.com/aristotle/reconciler/reconciler/star"
)

// The sizes and times of a pass.
const (
	// fullPage is the cheapest size of a page of everything: above it nothing is gained.
	fullPage = 1000
	// changedPage bounds a page of what changed; there are rarely more than a few.
	changedPage = 500
	// overlap is how far behind its newest a pass asks again: updated_at is set before
	// the commit that shows it, and commits overtake one another.
	overlap = time.Minute
	// fullRetry is when a full pass that failed is made up.
	fullRetry = 10 * time.Minute
	// skew is what our clock and Label Studio's may differ by, where only ours is known.
	skew = 5 * time.Minute
)

// Passes look for what no event tells: a star that was set through Label Studio's
// API, a webhook that did not arrive, news that were lost. They write nothing but
// dirty keys; a turn reads again and decides.
type Passes struct {
	Ledger      *ledger.Ledger
	Intake      *Intake
	Studio      *labelstudio.Client
	Metrics     *metrics.Metrics
	Log         *slog.Logger
	Incremental cron.Schedule // RECONCILER_DIFF_SCHEDULE
	Full        cron.Schedule // RECONCILER_FULL_DIFF_SCHEDULE
	Initial     string        // RECONCILER_INITIAL
	GroundTruth bool          // RECONCILER_GROUND_TRUTH
	Projects    []int64       // LABEL_STUDIO_PROJECTS, empty for all

	poke   chan struct{}
	linked chan struct{}
	once   sync.Once
	away   atomic.Bool // the last pass found no Label Studio

	failures logs.Failures
}

// msgPass is how the log tells of a pass that failed.
const msgPass = "pass"

// NewPasses returns p, ready to run.
func NewPasses(p *Passes) *Passes {
	p.poke, p.linked = make(chan struct{}, 1), make(chan struct{})
	return p
}

// Ready is closed when turns may begin: at once, but where first contact depends on
// the other tasks of a key it is when every task was linked.
func (p *Passes) Ready() <-chan struct{} {
	if p.Initial != "labelstudio" {
		p.once.Do(func() { close(p.linked) })
	}
	return p.linked
}

// Poke makes the next incremental pass start now: a webhook said that something
// happened, and not what.
func (p *Passes) Poke() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

// Away tells whether the last pass found no Label Studio.
func (p *Passes) Away() bool { return p.away.Load() }

// Run runs the passes, one at a time, until ctx ends. The first comes at once: it
// makes up for what was missed while nobody ran. A pass that fails is made up by
// the next one: it says so once, until that changes.
func (p *Passes) Run(ctx context.Context) error {
	nextFull := p.Full.Next(time.Now().UTC())
	for ctx.Err() == nil {
		kind, err := metrics.Incremental, error(nil)
		start := time.Now()
		if now := start.UTC(); now.Before(nextFull) {
			err = p.changes(ctx)
		} else {
			kind, err = metrics.Full, p.everything(ctx)
			if nextFull = p.Full.Next(now); err != nil {
				nextFull = now.Add(fullRetry)
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		p.Metrics.DiffDuration.With(kind).Observe(time.Since(start).Seconds())
		p.away.Store(labelstudio.Away(err))
		switch {
		case err == nil:
			p.Metrics.LabelStudioUp.Set(1)
			p.Metrics.DiffLastSuccess.With(kind).SetToCurrentTime()
			p.failures.Over(ctx, p.Log, msgPass, string(kind))
		default:
			p.failures.Log(ctx, p.Log, slog.LevelWarn, msgPass, string(kind), err, slog.String(logPass, string(kind)))
		}
		p.wait(ctx, nextFull)
	}
	return nil
}

func (p *Passes) wait(ctx context.Context, nextFull time.Time) {
	next := p.Incremental.Next(time.Now().UTC())
	if nextFull.Before(next) {
		next = nextFull
	}
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.poke:
	case <-ctx.Done():
	}
}

// changes is the incremental pass: tasks whose updated_at is at or after what was
// seen last.
func (p *Passes) changes(ctx context.Context) error {
	return p.through(ctx, func(id int64, known ledger.Project) error { return p.since(ctx, id, *known.Watermark) })
}

// everything is the full pass: every task and every row.
func (p *Passes) everything(ctx context.Context) error {
	err := p.through(ctx, func(id int64, _ ledger.Project) error { return p.whole(ctx, id) })
	return errors.Join(err, p.Intake.All(ctx))
}

// through goes through the projects. Those that no pass has gone through are linked whole
// first, all of them before any of their keys is turned.
func (p *Passes) through(ctx context.Context, pass func(int64, ledger.Project) error) error {
	ids, err := (&projects{}).list(ctx, p.Studio, p.Projects)
	if err != nil {
		return err
	}
	known, err := p.Ledger.Projects(ctx)
	if err != nil {
		return err
	}
	var first, later []int64
	for _, id := range ids {
		if known[id].FullAt == nil {
			first = append(first, id)
		} else {
			later = append(later, id)
		}
	}
	met := p.meet(ctx, first)
	if met == nil {
		p.once.Do(func() { close(p.linked) })
	}
	return errors.Join(met, p.each(ctx, later, func(id int64) error { return pass(id, known[id]) }))
}

// each goes through projects. One that fails keeps no other from its pass, unless
// Label Studio is away.
func (p *Passes) each(ctx context.Context, ids []int64, pass func(int64) error) error {
	var all error
	for _, id := range ids {
		if err := pass(id); err != nil {
			all = errors.Join(all, fmt.Errorf("project %d: %w", id, err))
			if labelstudio.Away(err) || ctx.Err() != nil {
				break
			}
		}
	}
	return all
}

// meet is the first pass over projects: link every task, then turn their keys.
func (p *Passes) meet(ctx context.Context, projects []int64) error {
	if len(projects) == 0 {
		return nil
	}
	start, found := time.Now(), 0
	var met []int64
	err := p.each(ctx, projects, func(project int64) error {
		err := pages(fullPage, func(after int64) ([]labelstudio.Task, int, error) {
			tasks, total, err := p.Studio.TasksAfter(ctx, project, after, fullPage)
			if err != nil {
				return nil, 0, err
			}
			found += len(tasks)
			return tasks, total, p.Ledger.Link(ctx, linksOf(project, tasks), p.Initial)
		})
		if err == nil {
			met = append(met, project)
		}
		return err
	})
	n, stored := p.Ledger.EnqueueMet(ctx, met, start.Add(-skew))
	p.Intake.count(metrics.Diff, n)
	if stored == nil && len(met) > 0 {
		p.Log.InfoContext(ctx, "new projects were read", "projects", met, "tasks", found, logKeys, n, logTook, time.Since(start))
	}
	return errors.Join(err, stored)
}

// errShort is a listing that is shorter than it says itself: nothing may be
// inferred from what is not in it.
var errShort = errors.New("the listing is shorter than its own total")

func (p *Passes) since(ctx context.Context, project int64, watermark time.Time) error {
	newest := watermark
	err := pages(changedPage, func(after int64) ([]labelstudio.Task, int, error) {
		tasks, total, err := p.Studio.TasksChanged(ctx, project, watermark.Add(-overlap), after, changedPage)
		if err != nil {
			return nil, 0, err
		}
		var changed []ledger.Changed
		for _, t := range tasks {
			if t.UpdatedAt.After(newest) {
				newest = t.UpdatedAt
			}
			if key := ledger.KeyOf(t.Data); key != "" {
				changed = append(changed, ledger.Changed{Link: ledger.Link{Task: t.ID, Project: project, Key: key}, UpdatedAt: t.UpdatedAt})
			}
		}
		n, err := p.Ledger.EnqueueTouched(ctx, changed, p.Initial)
		p.Intake.count(metrics.Diff, n)
		return tasks, total, err
	})
	if err != nil || newest.Equal(watermark) { // an idle pass writes nothing
		return err
	}
	return p.Ledger.SetWatermark(ctx, project, newest)
}

// whole reads every task of a project, and compares what each shows with its edge.
func (p *Passes) whole(ctx context.Context, project int64) error {
	start := time.Now()
	found, dirty := 0, 0
	err := pages(fullPage, func(after int64) ([]labelstudio.Task, int, error) {
		tasks, total, err := p.Studio.TasksAfter(ctx, project, after, fullPage)
		if err != nil {
			return nil, 0, err
		}
		var shown []ledger.Shown
		for i := range tasks {
			t := &tasks[i]
			if !t.Annotated() {
				return nil, 0, fmt.Errorf("read task %d: %w", t.ID, errNoAnnotations)
			}
			if key := ledger.KeyOf(t.Data); key != "" {
				look := star.Look{Edge: star.Edge{New: true}, Meta: readMeta(t.ID, t.Meta)}
				shown = append(shown, ledger.Shown{Link: ledger.Link{Task: t.ID, Project: project, Key: key},
					Shown: look.Shown(), Stars: stars(t, p.GroundTruth)})
			}
		}
		n, err := p.Ledger.EnqueueShown(ctx, shown, p.Initial)
		p.Intake.count(metrics.Diff, n)
		found, dirty = found+len(tasks), dirty+n
		return tasks, total, err
	})
	if err != nil {
		return err
	}
	p.Log.InfoContext(ctx, "every task was read", "project", project, "tasks", found, logKeys, dirty, logTook, time.Since(start))
	return p.Ledger.SetFull(ctx, project, start.Add(-skew))
}

// pages reads a listing in the order of ids until it ends. Every page says how many
// tasks are left, itself included: one that has fewer than it should ends the pass.
func pages(size int, page func(after int64) (tasks []labelstudio.Task, left int, err error)) error {
	for after := int64(0); ; {
		tasks, left, err := page(after)
		if err != nil {
			return err
		}
		if len(tasks) < min(size, left) {
			return errShort
		}
		if len(tasks) < size {
			return nil
		}
		after = tasks[len(tasks)-1].ID
	}
}
