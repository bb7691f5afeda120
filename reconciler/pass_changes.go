package reconciler

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// changed is what an incremental pass has seen.
type changed struct {
	ledger.Incremental
	glimpses map[int64]*glimpse
	keys     map[string]bool // of the tasks that no turn has looked at since they changed
}

// changes is the incremental pass: tasks whose updated_at is at or after what was
// seen last. It asks nothing of Aristotle's tables but the rows of these tasks: the
// changes of rows are the stream's.
func (p *Passes) changes(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			clear(p.heard) // we may not have been there to be told either
		}
	}()
	ids, err := (&projects{}).list(ctx, p.Studio, p.Projects)
	if err != nil {
		return err
	}
	if err := p.recall(ctx); err != nil {
		return err
	}
	began := time.Now()
	c := &changed{Incremental: ledger.Incremental{Why: "tasks changed", Watermarks: map[int64]time.Time{}},
		glimpses: map[int64]*glimpse{}, keys: map[string]bool{}}
	failed := p.each(ctx, ids, func(id int64) error {
		switch {
		case p.known[id].Watermark != nil:
			return p.since(ctx, c, id, *p.known[id].Watermark)
		case p.running:
			return nil // it is being read, or will be seen to be new after that
		default: // its tasks are linked whole first
			return p.wantNew(ctx, id)
		}
	})
	if ctx.Err() != nil || errors.Is(failed, errAway) && len(c.keys) == 0 {
		return failed
	}
	if err := p.judge(ctx, c, began); err != nil {
		return err
	}
	return failed
}

// wantNew asks for the first pass over a project, unless one was braked that has read it: then a
// person says whether it is ours.
func (p *Passes) wantNew(ctx context.Context, project int64) error {
	open, err := p.Ledger.OpenPasses(ctx)
	if err != nil || slices.ContainsFunc(open, func(o ledger.Pass) bool { return o.State == ledger.PassBraked && slices.Contains(o.Read, project) }) {
		return err
	}
	return p.want(ctx, "a project is new", []int64{project})
}

// recall makes sure that we know how far the passes have got.
func (p *Passes) recall(ctx context.Context) (err error) {
	if p.known == nil || time.Since(p.knownAt) > restFor {
		p.knownAt = time.Now()
		p.known, err = p.Ledger.Projects(ctx)
	}
	return err
}

// since reads what changed in a project.
func (p *Passes) since(ctx context.Context, c *changed, project int64, watermark time.Time) error {
	before, known := p.heard[project]
	now := notes{newest: before.newest, began: time.Now()}
	var told []ledger.Announced
	newest, listed := watermark, 0
	for after := int64(0); ; {
		at := time.Now()
		tasks, left, err := p.Studio.TasksChanged(ctx, project, watermark.Add(-overlap), after, changedPage)
		if err != nil {
			return err
		}
		if len(tasks) < min(changedPage, left) {
			return errShort
		}
		listed += len(tasks)
		for i := range tasks {
			if tasks[i].UpdatedAt.After(newest) {
				newest = tasks[i].UpdatedAt
			}
			if key := ledger.KeyOf(tasks[i].Data); now.hear(&tasks[i], before) && known && key != "" {
				told = append(told, ledger.Announced{Project: project, Key: key, After: before.began, Found: time.Now()})
			}
		}
		if err := p.glance(ctx, c, project, tasks, at); err != nil {
			return err
		}
		if len(c.glimpses) > manyChanged {
			return p.want(ctx, "very many tasks changed", []int64{project})
		}
		if len(tasks) < changedPage {
			break
		}
		after = tasks[len(tasks)-1].ID
	}
	// What changed last would be listed again and again: once it is no news by any clock, it is asked for no more.
	if past := now.began.Add(-skew); listed > 0 && past.Add(-overlap).After(newest) {
		newest = past
	}
	if newest.After(watermark) { // an idle pass writes nothing
		c.Watermarks[project] = newest
	}
	p.heard[project] = now
	p.Hooks.expect(told)
	return nil
}

// glance links tasks that changed, and notes those that no turn has looked at since. What
// another Label Studio has changed lately is no news of ours.
func (p *Passes) glance(ctx context.Context, c *changed, project int64, tasks []labelstudio.Task, at time.Time) error {
	if len(tasks) == 0 {
		return nil
	}
	s := p.survey()
	g := page{tasks: tasks, glimpses: map[int64]*glimpse{}}
	ids := make([]int64, len(tasks))
	for i := range tasks {
		seen, err := s.glimpse(&tasks[i], at)
		if err != nil {
			return err
		}
		g.glimpses[tasks[i].ID], ids[i] = &seen, tasks[i].ID
	}
	edges, err := p.Ledger.Edges(ctx, ids)
	if err != nil {
		return err
	}
	edges = slices.DeleteFunc(edges, func(e ledger.Edge) bool {
		seen := g.glimpses[e.Task]
		same := e.Key == seen.Key && e.TaskUpdatedAt != nil && e.TaskUpdatedAt.Equal(seen.UpdatedAt)
		if same { // a turn has seen it so
			delete(g.glimpses, e.Task)
		}
		return same
	})
	if len(g.glimpses) == 0 {
		return nil
	}
	if err := recognise(ctx, database{Ledger: p.Ledger}, p.Studio, project); err != nil {
		return err
	}
	for _, e := range edges {
		c.keys[e.Key] = true
	}
	for _, seen := range g.glimpses {
		if seen.Key != "" {
			c.keys[seen.Key] = true
		}
	}
	maps.Copy(c.glimpses, g.glimpses)
	return p.Ledger.Link(ctx, newLinks(g), p.Initial)
}

// judge compares the keys whose tasks changed with their rows, hands that to the
// brakes, and commits what comes of it.
func (p *Passes) judge(ctx context.Context, c *changed, began time.Time) error {
	keys := slices.Sorted(maps.Keys(c.keys))
	var sum plan
	for part := range slices.Chunk(keys, foundPage) {
		err := p.Ledger.ComparePairs(ctx, 0, part, func(pair ledger.Pair) error {
			f, _, err := p.finding(pair, c.glimpses, began)
			if pair.Row != nil || f.Class != "" || pair.Hub != nil {
				c.Found = append(c.Found, f)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	slices.SortFunc(c.Found, func(a, b ledger.Finding) int { return strings.Compare(a.Key, b.Key) })
	for _, f := range c.Found {
		sum.add(f)
	}
	var err error
	if c.Brake, err = p.Brakes.check(ctx, p.Ledger, &sum); err != nil {
		return err
	}
	c.Plan, c.Tally = sum.hash(), sum.Tally
	// What follows may commit and say that it failed.
	if len(c.Watermarks) > 0 {
		p.known = nil
	}
	if len(keys) > 0 {
		p.wanted.Store(true) // passes are open until all is marked
	}
	// First contacts, and what else the brakes do not count, wait for nobody, unless
	// links do not hold: then these may be the tasks of another Label Studio.
	if c.Brake != "" && c.Links == 0 {
		rest := ledger.Incremental{Why: c.Why, Found: slices.DeleteFunc(slices.Clone(c.Found), acts)}
		c.Found = slices.DeleteFunc(c.Found, func(f ledger.Finding) bool { return !acts(f) })
		if err := p.Ledger.EndIncremental(ctx, rest); err != nil {
			return err
		}
	}
	if err := p.Ledger.EndIncremental(ctx, c.Incremental); err != nil {
		return err
	}
	if len(keys) > 0 {
		p.marking = true
		p.found.Store(true)
	}
	p.brake(ctx, metrics.Incremental, 0, c.Planned)
	return nil
}
