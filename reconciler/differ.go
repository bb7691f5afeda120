package reconciler

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/logs"
)

// Differ looks at both sides as they are now and says what is different, by the rules
// of the passes. It writes nothing, anywhere, and does without our tables where they
// were never made: then it tells what a first contact would do.
type Differ struct {
	Ledger      *ledger.Ledger
	Studio      *labelstudio.Client
	Database    *labelstudio.Database // nil: tasks are read through the API
	Projects    ledger.Projects       // LABEL_STUDIO_PROJECTS, empty for all
	Initial     string                // RECONCILER_INITIAL
	GroundTruth bool                  // RECONCILER_GROUND_TRUTH
	Brakes      Brakes
	Page        int
	Pause       time.Duration
	Log         *slog.Logger

	failures logs.Failures
}

// Report is what a look has found. Its JSON is a promise: version 1 only ever grows.
type Report struct {
	Version int            `json:"version"`
	Counts  map[string]int `json:"counts"`  // different keys by class, each class
	Keys    []Difference   `json:"keys"`    // in the order of their bytes
	Noted   []Noted        `json:"noted"`   // no differences, yet somebody may want to know
	Plan    string         `json:"plan"`    // hash of what would change; "" where nothing would
	Brake   string         `json:"brake"`   // why a pass would not do it by itself; "" where it would
	Working int            `json:"working"` // keys that differ, and are being worked on: not in Keys
}

// Difference is a key whose sides differ, or that waits for a person.
type Difference struct {
	Key      string          `json:"key"`
	Class    string          `json:"class"`
	Row      *DifferentRow   `json:"row"` // null: there is no such conquest
	Tasks    []DifferentTask `json:"tasks"`
	Decision string          `json:"decision"` // what a turn would do
	Reason   string          `json:"reason"`
	Since    time.Time       `json:"since"` // when a pass first found it so; else when the side that changed last did

	finding ledger.Finding
}

// DifferentRow is the row side.
type DifferentRow struct {
	Result      *string    `json:"result"`
	EvaluatedBy *string    `json:"evaluated_by"`
	EvaluatedAt *time.Time `json:"evaluated_at"`
	UpdatedAt   *time.Time `json:"updated_at"`
}

// DifferentTask is the task side.
type DifferentTask struct {
	Task        int64     `json:"task"`
	Project     int64     `json:"project"`
	Star        bool      `json:"star"` // what its meta shows
	Annotations []Starred `json:"annotations"`
	UpdatedAt   time.Time `json:"updated_at"`
}

// Starred is an annotation that says star.
type Starred struct {
	ID int64     `json:"id"`
	By string    `json:"by"` // e-mail; "": nobody knows
	At time.Time `json:"at"`
}

// Noted is what is worth knowing of a key and is no difference.
type Noted struct {
	Key  string `json:"key"`
	What string `json:"what"`
}

// confirmMost is up to how many differences are looked at once more: those that are gone by
// then were changes on their way.
const confirmMost = 1000

// All looks at everything. It takes as long as a full pass, and memory for the tasks
// that are not as they are remembered.
func (d *Differ) All(ctx context.Context) (*Report, error) {
	began := time.Now()
	blank, glimpses, err := d.survey(ctx)
	if err != nil {
		return nil, err
	}
	unlike := map[string]bool{}
	for _, g := range glimpses {
		for _, key := range []string{g.Key, g.Was} {
			if key != "" {
				unlike[key] = true
			}
		}
	}
	c := d.collect(glimpses, began, blank)
	err = d.Ledger.Compare(ctx, 0, "", func(p ledger.Pair) error {
		if !unlike[p.Key] {
			c.add(p)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for keys := range slices.Chunk(slices.Sorted(maps.Keys(unlike)), foundPage) {
		if err := d.Ledger.ComparePairs(ctx, 0, keys, func(p ledger.Pair) error { c.add(p); return nil }); err != nil {
			return nil, err
		}
	}
	r, err := d.report(ctx, c)
	if err != nil || len(r.Keys) == 0 || len(r.Keys) > confirmMost {
		return r, err
	}
	for _, g := range glimpses { // by its keys alone a project is not known for another one
		if g.Stray || g.Distrusted {
			return r, nil
		}
	}
	return d.confirm(ctx, r)
}

// confirm looks at what is different once more: what is not any more was on its way.
func (d *Differ) confirm(ctx context.Context, r *Report) (*Report, error) {
	keys := make([]string, len(r.Keys))
	for i, k := range r.Keys {
		keys[i] = k.Key
	}
	again, err := d.Keys(ctx, keys...)
	if err != nil {
		return nil, err
	}
	again.Noted = append(r.Noted, again.Noted...)
	slices.SortFunc(again.Noted, func(a, b Noted) int { return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.What, b.What)) })
	again.Noted = slices.Compact(again.Noted)
	again.Working += r.Working
	return again, nil
}

// Keys looks at some keys. Their tasks are those that are known; of keys that have none
// they are looked up by the conquest's id.
func (d *Differ) Keys(ctx context.Context, keys ...string) (*Report, error) {
	began := time.Now()
	var pairs []ledger.Pair
	if err := d.Ledger.ComparePairs(ctx, 0, keys, func(p ledger.Pair) error { pairs = append(pairs, p); return nil }); err != nil {
		return nil, err
	}
	blank, err := d.Ledger.HasTables(ctx)
	if err != nil {
		return nil, err
	}
	c := d.collect(map[int64]*glimpse{}, began, !blank)
	if err := d.glanceAt(ctx, pairs, c.glimpses); err != nil {
		return nil, err
	}
	c.index()
	for _, p := range pairs {
		c.add(p)
	}
	return d.report(ctx, c)
}

// Since looks at the keys of tasks that Label Studio showed to be saved at a time or later, on our clock.
func (d *Differ) Since(ctx context.Context, at time.Time) (*Report, error) {
	ids, err := (&projects{}).list(ctx, d.Studio, d.Projects)
	if err != nil {
		return nil, err
	}
	keys := map[string]bool{}
	for _, project := range ids {
		for after := int64(0); ; {
			tasks, _, err := d.Studio.TasksChanged(ctx, project, at.Add(-skew-overlap), after, changedPage)
			if err != nil {
				return nil, err
			}
			for i := range tasks {
				keys[ledger.KeyOf(tasks[i].Data)], after = true, tasks[i].ID
			}
			if len(tasks) < changedPage {
				break
			}
		}
	}
	delete(keys, "")
	return d.Keys(ctx, slices.Sorted(maps.Keys(keys))...)
}

// survey reads all tasks.
func (d *Differ) survey(ctx context.Context) (blank bool, all map[int64]*glimpse, err error) {
	ours, err := d.Ledger.HasTables(ctx)
	if err != nil {
		return false, nil, err
	}
	ids, err := (&projects{}).list(ctx, d.Studio, d.Projects)
	if err != nil {
		return false, nil, err
	}
	s := &survey{ledger: d.Ledger, studio: d.Studio, api: source{d.Studio, cmp.Or(d.Page, DefaultPage), d.Pause}, database: d.Database, groundTruth: d.GroundTruth,
		log: d.Log, failures: &d.failures, blank: !ours}
	all = map[int64]*glimpse{}
	for _, project := range ids {
		tasks := 0
		err := s.project(ctx, project, 0, func(p page) error {
			tasks += len(p.tasks)
			for id, g := range p.glimpses {
				if !g.Absent || all[id] == nil { // it says nothing of a task that another project showed
					all[id] = g
				}
			}
			d.Log.DebugContext(ctx, "reading", "project", project, "tasks", tasks)
			return ctx.Err()
		})
		if err == nil {
			err = d.distrust(ctx, s, project, all)
		}
		if err != nil {
			return false, nil, fmt.Errorf("project %d: %w", project, err)
		}
	}
	return s.blank, all, nil
}

func (d *Differ) distrust(ctx context.Context, s *survey, project int64, all map[int64]*glimpse) error {
	seen := slices.DeleteFunc(slices.Collect(maps.Values(all)), func(g *glimpse) bool { return g.Project != project })
	no, err := s.distrusts(ctx, project, func(first, last int64) (absent, stray bool, err error) {
		absent = all[first] != nil && all[first].Absent && all[last] != nil && all[last].Absent
		return absent, slices.ContainsFunc(seen, func(g *glimpse) bool { return g.Stray }), nil
	})
	if err != nil || !no {
		return err
	}
	for _, g := range seen {
		g.Distrusted = g.Absent
	}
	return nil
}

// glanceAt reads the tasks of some keys.
func (d *Differ) glanceAt(ctx context.Context, pairs []ledger.Pair, into map[int64]*glimpse) error {
	at, byProject := time.Now(), map[int64][]int64{}
	var lone []string
	for _, p := range pairs {
		for _, e := range p.Edges {
			if d.Projects.Have(e.Project) {
				byProject[e.Project] = append(byProject[e.Project], e.Task)
			}
		}
		if len(p.Edges) == 0 && p.Row != nil {
			lone = append(lone, p.Key)
		}
	}
	for _, project := range slices.Sorted(maps.Keys(byProject)) {
		if err := d.glanceAtProject(ctx, project, byProject[project], at, into); err != nil {
			return err
		}
	}
	if len(lone) == 0 {
		return nil
	}
	ids, err := (&projects{}).list(ctx, d.Studio, d.Projects)
	if err != nil {
		return err
	}
	for _, project := range ids {
		for _, field := range ledger.KeyFields() {
			found, err := d.Studio.FindTasks(ctx, project, field, lone)
			if err != nil {
				return err
			}
			more := make([]int64, len(found))
			for i := range found {
				more[i] = found[i].ID
			}
			if err := d.glanceAtProject(ctx, project, more, at, into); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Differ) glanceAtProject(ctx context.Context, project int64, ids []int64, at time.Time, into map[int64]*glimpse) error {
	listed, err := d.Studio.TasksByID(ctx, project, ids)
	if err != nil && !labelstudio.IsNotFound(err) { // what was in a project that is gone may be in another
		return err
	}
	for i := range listed {
		g := glimpseOf(&listed[i], d.GroundTruth, at)
		g.Project = project
		into[listed[i].ID] = &g
	}
	for _, id := range ids { // a listing may be short: what it does not show is asked for by itself
		if into[id] != nil {
			continue
		}
		t, err := d.Studio.Task(ctx, id)
		switch {
		case labelstudio.IsNotFound(err):
			into[id] = &glimpse{Project: project, Absent: true, At: at}
		case err != nil:
			return err
		default:
			g := glimpseOf(t, d.GroundTruth, at)
			into[id] = &g
		}
	}
	return nil
}

// collected gathers compared keys.
type collected struct {
	*Differ
	glimpses map[int64]*glimpse
	began    time.Time
	blank    bool
	named    map[string][]int64 // the tasks that name a key
	found    []compared
	noted    []Noted
	working  int
}

func (d *Differ) collect(glimpses map[int64]*glimpse, began time.Time, blank bool) *collected {
	c := &collected{Differ: d, glimpses: glimpses, began: began, blank: blank}
	c.index()
	return c
}

func (c *collected) index() {
	c.named = map[string][]int64{}
	for id, g := range c.glimpses {
		if g.Key != "" && !g.Absent {
			c.named[g.Key] = append(c.named[g.Key], id)
		}
	}
}

// add compares a pair, with the tasks that name it and are not linked yet.
func (c *collected) add(p ledger.Pair) {
	var strays []int64
	for _, id := range c.named[p.Key] {
		if c.glimpses[id].Stray {
			strays = append(strays, id)
		}
		if !slices.ContainsFunc(p.Edges, func(e ledger.PairEdge) bool { return e.Task == id }) && c.glimpses[id].Was == "" {
			e := ledger.PairEdge{}
			e.Task, e.Key, e.Project, e.Begun = id, p.Key, c.glimpses[id].Project, c.begun()
			p.Edges = append(p.Edges, e)
		}
	}
	slices.SortFunc(p.Edges, func(a, b ledger.PairEdge) int { return cmp.Compare(a.Task, b.Task) })
	k := compare(p, c.glimpses, c.Projects, c.began)
	if len(strays) > 0 { // whatever else was found of it
		first := slices.Min(strays)
		k.Finding = strayed(p.Key, first, c.glimpses[first].Project)
	}
	for _, what := range k.noted {
		c.noted = append(c.noted, Noted{p.Key, what})
	}
	switch {
	case k.Explained:
		c.working++
	case k.Class != "":
		c.found = append(c.found, k)
	}
}

// begun is the choice for the first contact of a task that is not linked yet.
func (c *collected) begun() string {
	if c.blank {
		return c.Initial
	}
	return "union"
}

// report says what was found.
func (d *Differ) report(ctx context.Context, c *collected) (*Report, error) {
	r := &Report{Version: 1, Counts: map[string]int{}, Keys: []Difference{}, Noted: append([]Noted{}, c.noted...), Working: c.working}
	for _, class := range metrics.Drifts() {
		r.Counts[string(class)] = 0
	}
	slices.SortFunc(c.found, func(a, b compared) int { return strings.Compare(a.Key, b.Key) })
	slices.SortFunc(r.Noted, func(a, b Noted) int { return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.What, b.What)) })
	r.Noted = slices.Compact(r.Noted)
	var who people
	var refs []labelstudio.UserRef
	var keys []string
	for _, k := range c.found {
		keys = append(keys, k.Key)
		for _, t := range k.tasks {
			for _, s := range t.Stars {
				refs = append(refs, s.By)
			}
		}
	}
	if err := who.learn(ctx, d.Studio, refs); err != nil {
		return nil, err
	}
	since := map[string]time.Time{}
	if !c.blank && len(keys) > 0 {
		var err error
		if since, err = d.Ledger.Since(ctx, keys); err != nil {
			return nil, err
		}
	}
	var sum plan
	for _, k := range c.found {
		sum.add(k.Finding)
		r.Counts[k.Class]++
		r.Keys = append(r.Keys, k.difference(&who, since))
	}
	r.Plan = sum.hash()
	if c.blank || r.Plan == "" {
		return r, nil
	}
	var err error
	r.Brake, err = d.Brakes.check(ctx, d.Ledger, &sum)
	return r, err
}

// difference is a compared key as people and programs read it.
func (c *compared) difference(who *people, since map[string]time.Time) Difference {
	d := Difference{Key: c.Key, Class: c.Class, Tasks: []DifferentTask{}, Decision: c.Decision, Reason: c.Reason, finding: c.Finding}
	if row := c.pair.Row; row != nil {
		d.Row = &DifferentRow{Result: row.Result, EvaluatedBy: row.EvaluatedBy, EvaluatedAt: row.EvaluatedAt, UpdatedAt: row.UpdatedAt}
		if row.UpdatedAt != nil {
			d.Since = row.UpdatedAt.UTC()
		}
	}
	for _, t := range c.tasks {
		dt := DifferentTask{Task: t.task, Project: t.Project, Star: t.star, Annotations: []Starred{}, UpdatedAt: t.UpdatedAt.UTC()}
		for _, s := range t.Stars {
			by := who.email(s.By)
			if by == nil {
				by = new(string)
			}
			dt.Annotations = append(dt.Annotations, Starred{ID: s.ID, By: *by, At: s.At.UTC()})
		}
		if t.UpdatedAt.After(d.Since) {
			d.Since = dt.UpdatedAt
		}
		d.Tasks = append(d.Tasks, dt)
	}
	if at, known := since[c.Key]; known {
		d.Since = at.UTC()
	}
	return d
}

// Apply makes dirty what a report shows, but what waits for a person: the daemon turns
// it. Where the brakes would stop a pass, hash must be the report's plan: a person's
// word for exactly that.
func (d *Differ) Apply(ctx context.Context, r *Report, hash string) (int, error) {
	if hash != "" && hash != r.Plan {
		return 0, &BrakedError{Why: "the plan is another one by now", Plan: r.Plan}
	}
	if r.Brake != "" && hash == "" {
		return 0, &BrakedError{Why: r.Brake, Plan: r.Plan}
	}
	var keys []string
	for _, k := range r.Keys {
		if k.Class != string(metrics.DriftHeld) && !k.finding.Leave {
			keys = append(keys, k.Key)
		}
	}
	return d.Ledger.Enqueue(ctx, keys, ledger.FromDiff)
}

// BrakedError says that a plan needs a person's word.
type BrakedError struct{ Why, Plan string }

func (e *BrakedError) Error() string { return "nothing was done: " + e.Why }
