package reconciler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// sights is what a pass saw of the tasks of its keys.
type sights struct {
	tasks      map[int64]sight
	missing    map[int64]bool // 404, its project being readable
	errs       map[int64]error
	ratings    map[string][]aristotle.Rating // by key
	unsearched error                         // the conquests without a task were not looked up everywhere
	strange    map[string]error              // by conquest: its task is in what may be another Label Studio's
	away       error                         // Label Studio as a whole was of no use
}

// sight is one task as it was read.
type sight struct {
	labelstudio.Task
	at    time.Time // before it was asked for
	known bool      // the same answer showed a task by which its project is known
}

// asAway marks an error with errAway where it concerns Label Studio as a whole, by asking
// it for the least: a request that fails by itself must keep nothing else waiting.
func asAway(ctx context.Context, studio taskSide, err error) error {
	if errors.Is(err, errAway) || !labelstudio.Away(err) {
		return err
	}
	if _, none := studio.Whoami(ctx); none != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	return err
}

// unread notes tasks that could not be read.
func (t *Turner) unread(ctx context.Context, s *sights, ids []int64, err error) {
	for _, id := range ids {
		s.errs[id] = err
	}
	if s.away != nil {
		return
	}
	if err = asAway(ctx, t.tasks, err); errors.Is(err, errAway) {
		s.away = err
	}
}

// look is S2: it reads the tasks of the claimed keys afresh, one listing a project,
// asked for after the claim. What a listing does not show is asked for by itself,
// since a listing may be short.
func (t *Turner) look(ctx context.Context, claims []ledger.Claim, found searched) *sights {
	s := &sights{unsearched: found.failed, strange: found.strange, tasks: map[int64]sight{}, missing: map[int64]bool{}, errs: map[int64]error{}}
	if errors.Is(found.failed, errAway) {
		s.away = found.failed
	}
	byProject, unmet := map[int64][]int64{}, map[int64]bool{}
	for _, c := range claims {
		for _, e := range c.Edges {
			if !t.Projects.Have(e.Project) {
				continue
			}
			byProject[e.Project] = append(byProject[e.Project], e.Task)
			unmet[e.Project] = unmet[e.Project] || e.TaskCreatedAt == nil
		}
	}
	for _, l := range found.links {
		byProject[l.Project] = append(byProject[l.Project], l.Task)
	}
	start := time.Now()
	for _, project := range slices.Sorted(maps.Keys(byProject)) {
		var marks []ledger.Edge
		if unmet[project] && s.away == nil { // nothing tells whose such a task is but what its answer shows beside it
			var err error
			if marks, err = t.landmarks(ctx, project); err != nil {
				t.unread(ctx, s, byProject[project], fmt.Errorf("project %d: %w", project, err))
				continue
			}
		}
		t.lookProject(ctx, s, project, byProject[project], marks)
	}
	t.doubt(ctx, s, claims, found.links)
	if len(s.tasks) > 0 {
		follow(&t.pace.read, time.Since(start))
	}
	t.learnPeople(ctx, s)
	return s
}

// doubtAbove is how many tasks of a project must be known for its being another one to
// be looked into: as few as the brakes let a pass link anew by itself.
const doubtAbove = 20

// doubt makes sure, before it is believed that tasks are other tasks now, or what tasks say
// that were never looked at, that this is still the Label Studio that we know, whatever led to
// the turn: what a pass has found in ours may be turned when another one answers. In another
// project than it was, the task must be one of a project that is known.
func (t *Turner) doubt(ctx context.Context, s *sights, claims []ledger.Claim, found []ledger.Link) {
	strange, moved, others := map[int64][]int64{}, map[int64][]int64{}, map[int64]bool{} // by project; by task
	for _, l := range found {
		strange[l.Project] = append(strange[l.Project], l.Task)
	}
	for _, c := range claims {
		for _, e := range c.Edges {
			task, read := s.tasks[e.Task]
			others[e.Task] = ledger.KeyOf(task.Data) != c.Key || isOtherTask(ledger.Edge{TaskCreatedAt: e.TaskCreatedAt}, task.CreatedAt)
			switch {
			case !read || !others[e.Task] && (e.TaskCreatedAt != nil || task.known):
			case task.Project != e.Project:
				moved[task.Project] = append(moved[task.Project], e.Task)
			default:
				strange[e.Project] = append(strange[e.Project], e.Task)
			}
		}
	}
	t.doubtEach(ctx, s, strange, others, t.recogniseMany)
	t.doubtEach(ctx, s, moved, others, func(ctx context.Context, project int64) error { return recognise(ctx, t.rows, t.tasks, project) })
}

// doubtEach takes back what was read of tasks whose project is not recognised.
func (t *Turner) doubtEach(ctx context.Context, s *sights, tasks map[int64][]int64, others map[int64]bool, recognise func(context.Context, int64) error) {
	for _, project := range slices.Sorted(maps.Keys(tasks)) {
		err := recognise(ctx, project)
		for _, id := range tasks[project] {
			switch {
			case err != nil:
				delete(s.tasks, id)
			case others[id]:
				t.lookTwice(ctx, s, id)
			}
		}
		if err != nil {
			t.unread(ctx, s, tasks[project], fmt.Errorf("project %d: %w", project, err))
		}
	}
}

// lookTwice reads a task once more: where it is the same still, no other Label Studio was
// there only when it was read, nor is there since ours was known by its tasks.
func (t *Turner) lookTwice(ctx context.Context, s *sights, id int64) {
	first := s.tasks[id]
	delete(s.tasks, id)
	t.lookAlone(ctx, s, id)
	if again, read := s.tasks[id]; read && !again.CreatedAt.Equal(first.CreatedAt) {
		delete(s.tasks, id)
		t.unread(ctx, s, []int64{id}, errStranger)
	}
}

// recogniseMany fails where a project shows none of the tasks by which we know it, if we know
// many: what makes keys dirty one by one may have been at some of those.
func (t *Turner) recogniseMany(ctx context.Context, project int64) error {
	marks, err := t.landmarks(ctx, project)
	if err != nil || len(marks) == 0 {
		return err
	}
	return anyThere(ctx, t.tasks, marks)
}

// landmarks are the tasks by which a project is known, of which we know many.
func (t *Turner) landmarks(ctx context.Context, project int64) ([]ledger.Edge, error) {
	marks, many, err := t.rows.Landmarks(ctx, project, doubtAbove)
	if !many {
		marks = nil
	}
	return marks, err
}

// lookProject lists tasks, and landmarks with them. Where the answer shows none of those, as
// it may be short, they are asked for by themselves, before it is asked for again: see doubt
// for what comes after.
func (t *Turner) lookProject(ctx context.Context, s *sights, project int64, ids []int64, marks []ledger.Edge) {
	if s.away != nil {
		t.unread(ctx, s, ids, s.away)
		return
	}
	at := time.Now()
	asked := slices.Clone(ids)
	for _, m := range marks {
		asked = append(asked, m.Task)
	}
	listed, err := t.tasks.TasksByID(ctx, project, asked)
	known := slices.ContainsFunc(listed, func(task labelstudio.Task) bool {
		return slices.ContainsFunc(marks, func(m ledger.Edge) bool { return m.Task == task.ID && !isOtherTask(m, task.CreatedAt) })
	})
	if len(marks) > 0 && !known {
		if err := anyThere(ctx, t.tasks, marks); err != nil {
			t.unread(ctx, s, ids, fmt.Errorf("project %d: %w", project, err))
			return
		}
		at = time.Now()
		listed, err = t.tasks.TasksByID(ctx, project, ids)
	}
	if err != nil && !(labelstudio.IsNotFound(err) && t.projectGone(ctx, project)) { // what was in one that is gone may be in another
		t.unread(ctx, s, ids, err)
		return
	}
	for _, task := range listed {
		if slices.Contains(ids, task.ID) {
			task.Project = project
			s.add(task, at, known)
		}
	}
	for _, id := range ids {
		if _, seen := s.tasks[id]; !seen && s.away == nil {
			t.lookAlone(ctx, s, id)
		}
	}
}

// projectGone tells whether a project was deleted: there is a list of all that our
// token sees, and it is not on it. An empty list says nothing: a token of somebody
// else's has that too.
func (t *Turner) projectGone(ctx context.Context, project int64) bool {
	all, err := t.tasks.Projects(ctx)
	return err == nil && len(all) > 0 && !slices.ContainsFunc(all, func(p labelstudio.Project) bool { return p.ID == project })
}

// lookAlone reads a task that a listing of its project did not show. The listing was
// answered, or the project is gone: a 404 means that the task is gone, and so does a
// project that is not ours.
func (t *Turner) lookAlone(ctx context.Context, s *sights, id int64) {
	at := time.Now()
	task, err := t.tasks.Task(ctx, id)
	switch {
	case labelstudio.IsNotFound(err), err == nil && !t.Projects.Have(task.Project):
		s.missing[id] = true
	case err == nil:
		s.add(*task, at, false)
	default:
		t.unread(ctx, s, []int64{id}, err)
	}
}

var errNoAnnotations = errors.New("the answer tells no annotations")

// add takes a task in. An answer without annotations is an error, not an empty set.
func (s *sights) add(task labelstudio.Task, at time.Time, known bool) {
	if !task.Annotated() {
		s.errs[task.ID] = fmt.Errorf("read task %d: %w", task.ID, errNoAnnotations)
		return
	}
	s.tasks[task.ID] = sight{Task: task, at: at, known: known}
}

// learnPeople learns who wrote the stars that were seen, before any lock is taken.
func (t *Turner) learnPeople(ctx context.Context, s *sights) {
	var refs []labelstudio.UserRef
	for _, task := range s.tasks {
		for _, a := range task.Annotations {
			refs = append(refs, a.CompletedBy, a.UpdatedBy)
		}
	}
	if err := t.people.learn(ctx, t.tasks, refs); err != nil {
		var annotated []int64 // without its people a star would lose its giver
		for id, task := range s.tasks {
			if len(task.Annotations) > 0 {
				delete(s.tasks, id)
				annotated = append(annotated, id)
			}
		}
		t.unread(ctx, s, annotated, err)
	}
}

// searched is what a search has found: links, and which keys have a task where none is linked.
type searched struct {
	links   []ledger.Link
	strange map[string]error // nil: no project was left out
	failed  error
}

// search looks up the tasks of those claimed conquests that need one and have none:
// many at a time, since a hundred cost as much as one. It links what it finds, where that
// is not another Label Studio's.
func (t *Turner) search(ctx context.Context, claims []ledger.Claim) (found searched) {
	var keys []string
	for _, c := range claims {
		if c.Search {
			keys = append(keys, c.Key)
		}
	}
	if len(keys) == 0 {
		return found
	}
	projects, err := t.projects.list(ctx, t.tasks, t.Projects)
	if err != nil {
		return searched{failed: err}
	}
	for _, p := range projects { // one that cannot be searched hides no task of another
		found.failed = errors.Join(found.failed, t.searchProject(ctx, p, keys, &found))
		if errors.Is(found.failed, errAway) {
			break
		}
	}
	found.failed = errors.Join(found.failed, t.rows.Link(ctx, found.links, t.Initial))
	return found
}

// searchProject adds what there is to be linked of a project, as far as it could be searched.
func (t *Turner) searchProject(ctx context.Context, project int64, keys []string, into *searched) (failed error) {
	var links []ledger.Link
	for _, field := range ledger.KeyFields() {
		tasks, err := t.tasks.FindTasks(ctx, project, field, keys)
		if err != nil {
			failed = asAway(ctx, t.tasks, err)
			break
		}
		links = append(links, linksOf(project, tasks)...)
	}
	if len(links) == 0 {
		return failed
	}
	err := recognise(ctx, t.rows, t.tasks, project)
	if err != nil {
		err = fmt.Errorf("project %d: %w", project, err)
	}
	switch {
	case errors.Is(err, errStranger):
		t.failures.Log(ctx, t.Log, slog.LevelWarn, msgStrange, fmt.Sprint(project), err)
		if into.strange == nil {
			into.strange = map[string]error{}
		}
		for _, l := range links {
			into.strange[l.Key] = err
		}
	case err != nil:
		return errors.Join(failed, asAway(ctx, t.tasks, err))
	default:
		t.failures.Over(ctx, t.Log, msgStrange, fmt.Sprint(project))
		into.links = append(into.links, links...)
	}
	return failed
}

// linksOf says which conquests tasks belong to.
func linksOf(project int64, tasks []labelstudio.Task) []ledger.Link {
	var links []ledger.Link
	for _, task := range tasks {
		if key := ledger.KeyOf(task.Data); key != "" {
			links = append(links, ledger.Link{Task: task.ID, Project: project, Key: key})
		}
	}
	return links
}

// projectsFor is how long the list of projects is believed. New ones come rarely,
// and the passes ask again.
const projectsFor = time.Minute

// projects remembers which projects there are. It is its owner's alone.
type projects struct {
	ids []int64
	at  time.Time
}

// list returns the ids of the projects that are ours: those that were configured, or all.
func (p *projects) list(ctx context.Context, studio taskSide, configured []int64) ([]int64, error) {
	if len(configured) > 0 {
		return configured, nil
	}
	if p.ids != nil && time.Since(p.at) < projectsFor {
		return p.ids, nil
	}
	all, err := studio.Projects(ctx)
	if err != nil {
		return nil, asAway(ctx, studio, fmt.Errorf("list projects: %w", err))
	}
	ids := make([]int64, len(all))
	for i, project := range all {
		ids[i] = project.ID
	}
	p.ids, p.at = ids, time.Now()
	return ids, nil
}
