package reconciler

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

func newRunner() string { return uuid.NewString() }

// full runs the full pass that is due, if one is, and returns when the next one will
// be by the clock. Its run that nobody was there for is made up, once.
func (p *Passes) full(ctx context.Context) (next time.Time, err error) {
	if !p.wanted.Swap(false) && time.Now().Before(p.rest) {
		return p.rest, nil
	}
	p.rest = time.Time{}
	last, err := p.Ledger.LastFull(ctx)
	if err != nil {
		return time.Now().Add(p.Retry), err
	}
	open, err := p.Ledger.OpenPasses(ctx)
	if err != nil {
		return time.Now().Add(p.Retry), err
	}
	why := "nothing was ever compared"
	if last != nil {
		next, why = p.Full.Next(last.BeganAt.UTC()), "it is time"
	}
	if err := p.noteReady(ctx, last); err != nil {
		return time.Now().Add(p.Retry), err
	}
	p.showBrakes(open)
	for _, o := range open {
		p.marking = p.marking || o.State == ledger.PassMarking
		if o.State == ledger.PassBraked && o.EndedAt.Add(brakedRetry).Before(next) {
			next, why = o.EndedAt.Add(brakedRetry), "a plan was braked"
		}
	}
	if !time.Now().Before(next) {
		if err := p.want(ctx, why, nil); err != nil {
			return next, err
		}
		if open, err = p.Ledger.OpenPasses(ctx); err != nil {
			return next, err
		}
	}
	for _, pass := range open {
		now, until := time.Now(), p.unread[pass.ID].at
		if until.Before(p.notBefore) {
			until = p.notBefore
		}
		switch {
		case pass.State == ledger.PassBraked || pass.State == ledger.PassMarking:
			continue
		case now.Before(until):
			if until.Before(next) || !now.Before(next) {
				next = until
			}
			continue
		case pass.BeganAt != nil && now.Sub(*pass.BeganAt) > tooOld:
			delete(p.unread, pass.ID)
			return now, p.Ledger.ReplacePass(ctx, pass.ID)
		}
		p.goOn(ctx, pass)
		return now, nil // there may be another one
	}
	if len(open) == 0 {
		if soon := time.Now().Add(restFor); soon.Before(next) {
			next = soon
		}
		p.rest = next
	}
	return next, nil
}

// retry is when something that fails is tried again, and how long that is after the last time.
type retry struct {
	at       time.Time
	distance time.Duration
}

// goOn runs a pass. One that fails goes on later, and keeps others waiting for a moment;
// one that could read nothing waits longer and longer by itself.
func (p *Passes) goOn(ctx context.Context, pass ledger.Pass) {
	err := p.run(ctx, pass)
	p.tell(ctx, string(metrics.Full), err)
	last := p.unread[pass.ID]
	delete(p.unread, pass.ID)
	if err == nil {
		return
	}
	p.notBefore = time.Now().Add(p.Retry)
	p.away.Store(errors.Is(err, errAway))
	if errors.Is(err, errUnread) {
		distance := min(max(2*last.distance, p.Retry), mostRetry)
		p.unread[pass.ID] = retry{time.Now().Add(distance), distance}
	}
}

// errUnread is a pass none of whose projects can be read, though Label Studio is there.
var errUnread = errors.New("there is nothing to compare yet")

// want notes, for good, that a full pass is needed: see [ledger.Ledger.WantFull].
func (p *Passes) want(ctx context.Context, why string, projects []int64) error {
	defer p.wanted.Store(true) // also where it says that it failed
	return p.Ledger.WantFull(ctx, why, projects)
}

// noteReady lets turns begin once every project was read, everything was compared and may
// go on; and where they had begun, whatever became of the last pass: what people do one by
// one waits for no brake.
func (p *Passes) noteReady(ctx context.Context, last *ledger.Pass) error {
	select {
	case <-p.linked:
		return nil
	default:
	}
	all, begun, err := p.Ledger.Met(ctx)
	if begun || all && last != nil && (last.State == ledger.PassMarking || last.State == ledger.PassDone) {
		p.ready()
	}
	return err
}

// showBrakes sets what the metrics say of the brakes.
func (p *Passes) showBrakes(open []ledger.Pass) {
	for _, kind := range []metrics.Pass{metrics.Full, metrics.Incremental} {
		braked := 0.
		if slices.ContainsFunc(open, func(o ledger.Pass) bool { return o.State == ledger.PassBraked && o.Kind == string(kind) }) {
			braked = 1
		}
		p.Metrics.DiffBraked.With(kind).Set(braked)
	}
}

// run takes a full pass from where it is to its plan.
func (p *Passes) run(ctx context.Context, pass ledger.Pass) error {
	p.running = true
	start := time.Now()
	defer func() {
		p.running = false
		p.Metrics.DiffDuration.With(metrics.Full).Observe(time.Since(start).Seconds())
	}()
	pass, err := p.Ledger.BeginPass(ctx, pass.ID, p.runner)
	if err != nil {
		return err
	}
	p.Log.InfoContext(ctx, "full pass", logPass, pass.ID, "why", pass.Why, "from", fmt.Sprintf("%s %d/%d %q", pass.State, pass.Project, pass.Task, pass.Key))
	read, failed, err := p.read(ctx, pass)
	if err != nil {
		return err
	}
	found, err := p.compareAll(ctx, pass)
	if err != nil {
		return err
	}
	return errors.Join(p.planned(ctx, pass, read, found), failed)
}

// read is the first half: every task of the projects. It returns which were read, also
// before a restart. One that cannot be read keeps no other from it: it has a pass of its
// own later. Where none can be, the pass goes on later from where it is.
func (p *Passes) read(ctx context.Context, pass ledger.Pass) (read []int64, failed, err error) {
	if pass.State != ledger.PassReading {
		return pass.Read, nil, nil
	}
	ids, err := p.scope(ctx, pass)
	if err != nil {
		return nil, nil, err
	}
	start, tasks := time.Now(), pass.Tasks
	read = pass.Read
	var unread []int64
	for _, project := range ids {
		if slices.Contains(pass.Read, project) {
			continue
		}
		err := asAway(ctx, p.Studio, p.readProject(ctx, pass, project, &tasks))
		switch {
		case err == nil:
			read = append(read, project)
		case ctx.Err() != nil || errors.Is(err, errAway) || errors.Is(err, ledger.ErrOvertaken):
			return nil, nil, err
		default:
			failed, unread = errors.Join(failed, fmt.Errorf("project %d: %w", project, err)), append(unread, project)
		}
	}
	if failed != nil && len(read) == 0 {
		return nil, nil, fmt.Errorf("%w: %w", errUnread, failed)
	}
	p.Log.InfoContext(ctx, "every task was read", logPass, pass.ID, "projects", read, "tasks", tasks, logTook, time.Since(start))
	return read, failed, p.Ledger.EndReading(ctx, pass.ID, p.runner, unread)
}

func (p *Passes) readProject(ctx context.Context, pass ledger.Pass, project int64, tasks *int64) error {
	after := int64(0)
	if project == pass.Project { // before a restart
		after = pass.Task
	}
	s := p.survey()
	if after < lastTask {
		err := s.project(ctx, project, after, func(g page) error {
			*tasks += int64(len(g.tasks))
			p.progress(ctx, pass, project, *tasks)
			return p.keep(ctx, pass, project, g)
		})
		if err != nil {
			return err
		}
	}
	if err := p.distrust(ctx, s, pass, project); err != nil {
		return err
	}
	return p.Ledger.EndProject(ctx, pass.ID, p.runner, project)
}

// lastTask is what a page covers that ends a project.
const lastTask = math.MaxInt64

// scope lists the projects that a pass reads, in their order. One that we knew and
// that is not there any more is not read: nothing is inferred from that.
func (p *Passes) scope(ctx context.Context, pass ledger.Pass) ([]int64, error) {
	ids, err := (&projects{}).list(ctx, p.Studio, p.Projects)
	if err != nil {
		return nil, err
	}
	known, err := p.Ledger.Projects(ctx)
	if err != nil {
		return nil, err
	}
	for id := range known {
		if p.Projects.Have(id) && !slices.Contains(ids, id) {
			p.tell(ctx, "vanished", fmt.Errorf("project %d is not there any more: its tasks are left as they are", id))
		}
	}
	if err := p.Ledger.Meet(ctx, ids); err != nil {
		return nil, err
	}
	ids = slices.DeleteFunc(slices.Clone(ids), func(id int64) bool { return pass.Projects != nil && !slices.Contains(pass.Projects, id) })
	slices.Sort(ids)
	return ids, nil
}

func (p *Passes) survey() *survey {
	return &survey{ledger: p.Ledger, studio: p.Studio, api: source{p.Studio, p.Page, p.Pause}, database: p.Database, groundTruth: p.GroundTruth, log: p.Log, failures: &p.failures}
}

// keep commits a page, then lets what is due come in between.
func (p *Passes) keep(ctx context.Context, pass ledger.Pass, project int64, g page) error {
	kept := ledger.Page{Project: project, Task: g.upto, Tasks: len(g.tasks), Initial: p.Initial, Absent: absent}
	for id, glimpse := range g.glimpses {
		kept.Sights = append(kept.Sights, ledger.Sight{Task: id, Project: project, Seen: glimpse})
	}
	kept.Links = newLinks(g)
	if err := p.Ledger.ReadPage(ctx, pass.ID, p.runner, kept); err != nil {
		return err
	}
	p.Step("page")
	p.tick(ctx)
	return ctx.Err()
}

// newLinks are the links of the tasks that are unlike: the others have theirs. Strays get them
// once a person releases the plan that has them.
func newLinks(g page) []ledger.Link {
	var unlike []ledger.Link
	for i := range g.tasks {
		if seen := g.glimpses[g.tasks[i].ID]; seen != nil && seen.Key != "" && !seen.Stray {
			unlike = append(unlike, ledger.Link{Task: g.tasks[i].ID, Project: seen.Project, Key: seen.Key})
		}
	}
	return unlike
}

// Parts of glimpses as they are stored.
var (
	absent  = map[string]bool{"absent": true}  // a listing did not show the task
	strange = map[string]bool{"strange": true} // its project is not the one that we know
	stray   = map[string]bool{"stray": true}   // and it is no task that we know
)

func (p *Passes) distrust(ctx context.Context, s *survey, pass ledger.Pass, project int64) error {
	no, err := s.distrusts(ctx, project, func(first, last int64) (gone, strays bool, err error) {
		seen, err := p.Ledger.Sights(ctx, pass.ID, []int64{first, last})
		if err != nil {
			return false, false, err
		}
		for _, id := range []int64{first, last} {
			if g, err := glimpsed(seen[id]); err != nil || g == nil || !g.Absent {
				return false, false, err
			}
		}
		all, err := p.Ledger.ProjectsSeen(ctx, pass.ID, stray)
		return true, slices.Contains(all, project), err
	})
	if err != nil || !no {
		return err
	}
	p.Log.WarnContext(ctx, "neither the first nor the last of the tasks that were known of a project is there: nothing is inferred from what it lacks", logPass, pass.ID, "project", project)
	return p.Ledger.Distrust(ctx, pass.ID, project, absent, map[string]bool{"distrusted": true})
}

// compareAll is the second half: what was seen, with every row. It returns how many
// keys it found, those that were found before a restart left out.
func (p *Passes) compareAll(ctx context.Context, pass ledger.Pass) (total int, err error) {
	start := time.Now()
	var found []ledger.Finding
	commit := func(upto string) error {
		err := p.Ledger.AddFindings(ctx, pass.ID, p.runner, found, upto)
		total, found = total+len(found), found[:0]
		p.Step("found")
		return err
	}
	last := pass.Key
	err = p.Ledger.Compare(ctx, pass.ID, pass.Key, func(pair ledger.Pair) error {
		f, touch, err := p.finding(pair, nil, *pass.BeganAt)
		if err != nil {
			return err
		}
		last = pair.Key
		if touch {
			found = append(found, f)
		}
		if len(found) == foundPage {
			return commit(last)
		}
		return ctx.Err()
	})
	if err == nil {
		err = commit(last)
	}
	if err != nil {
		return 0, err
	}
	strays, err := p.Ledger.Strays(ctx, pass.ID, stray)
	if err != nil {
		return 0, err
	}
	for some := range slices.Chunk(strays, foundPage) { // whatever else was found of their keys
		for _, s := range some {
			found = append(found, strayed(s.Key, s.Task, s.Project))
		}
		if err := commit(last); err != nil {
			return 0, err
		}
	}
	p.Log.InfoContext(ctx, "every row was compared", logPass, pass.ID, logKeys, total, logTook, time.Since(start))
	return total, nil
}

// finding compares a pair with what was seen of its tasks, here or in the pair.
func (p *Passes) finding(pair ledger.Pair, seen map[int64]*glimpse, since time.Time) (f ledger.Finding, touch bool, err error) {
	if seen == nil {
		seen = map[int64]*glimpse{}
		for _, e := range pair.Edges {
			if seen[e.Task], err = glimpsed(e.Seen); err != nil {
				return f, false, fmt.Errorf("read what was seen of task %d: %w", e.Task, err)
			}
		}
	}
	c := compare(pair, seen, p.Projects, since)
	return c.Finding, c.touch || c.Class != "", nil
}

// planned hands the whole to the brakes, and commits what comes of it.
func (p *Passes) planned(ctx context.Context, pass ledger.Pass, read []int64, found int) error {
	var sum plan
	if err := p.Ledger.Plan(ctx, pass.ID, func(f ledger.Finding) error { sum.add(f); return nil }); err != nil {
		return err
	}
	why, err := p.Brakes.check(ctx, p.Ledger, &sum)
	if err != nil {
		return err
	}
	is := ledger.Planned{Plan: sum.hash(), Brake: why, Tally: sum.Tally}
	others, err := p.Ledger.ProjectsSeen(ctx, pass.ID, strange)
	if err != nil {
		return err
	}
	// Of a project that is not the one that we know no news are over: they are asked for once it is there again.
	read = slices.DeleteFunc(slices.Clone(read), func(id int64) bool { return slices.Contains(others, id) })
	if err := p.Ledger.EndComparing(ctx, pass.ID, p.runner, is, read, skew, stray); err != nil {
		return err
	}
	p.marking, p.known = true, nil
	p.found.Store(true)
	p.brake(ctx, metrics.Full, pass.ID, is)
	if pass.Projects == nil {
		p.Metrics.DiffLastSuccess.With(metrics.Full).SetToCurrentTime()
	}
	p.Log.InfoContext(ctx, "full pass: done", logPass, pass.ID, logKeys, found, "sets", is.Sets, "clears", is.Clears, "links", is.Links, "plan", is.Plan)
	p.Step("planned")
	return nil
}

// brake says that a plan waits for a person, once, and what the person can do.
func (p *Passes) brake(ctx context.Context, kind metrics.Pass, pass int64, is ledger.Planned) {
	if is.Brake == "" {
		p.braked = ""
		return
	}
	p.Metrics.DiffBraked.With(kind).Set(1)
	if p.braked == is.Plan {
		return
	}
	p.braked = is.Plan
	p.Log.ErrorContext(ctx, "BRAKED: "+is.Brake+"; nothing was written. Look with `reconciler diff`, and if it is right: `reconciler diff --apply --plan "+is.Plan+"`",
		logPass, pass, "kind", strings.ToLower(string(kind)), "plan", is.Plan)
}

// progress says now and then how far a long pass has got.
func (p *Passes) progress(ctx context.Context, pass ledger.Pass, project, tasks int64) {
	p.Metrics.DiffTasks.Set(float64(tasks))
	const every = 20_000
	if tasks%every < int64(p.Page) && tasks >= every {
		p.Log.InfoContext(ctx, "full pass: reading", logPass, pass.ID, "project", project, "tasks", tasks)
	}
}
