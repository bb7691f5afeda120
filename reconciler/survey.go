package reconciler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/logs"
)

// lister lists the tasks of a project in the order of their ids: [labelstudio.Client],
// or [labelstudio.Database] where Label Studio's own database may be read.
type lister interface {
	// TasksAfter returns up to limit tasks with ids above after, with their annotations,
	// and how many there are in all above it.
	TasksAfter(ctx context.Context, project, after int64, limit int) (tasks []labelstudio.Task, left int, err error)
}

// survey reads all tasks of projects, page by page, and compares each with its edge:
// a merge join in the order of task ids. What it hands over is only what is unlike.
type survey struct {
	ledger      *ledger.Ledger
	studio      *labelstudio.Client
	api         source
	database    *labelstudio.Database // nil: tasks are read through the API
	log         *slog.Logger
	failures    *logs.Failures // told of
	groundTruth bool
	blank       bool // there are no edges: our tables were never made
}

// source is where the tasks of a project are read.
type source struct {
	lister
	page  int           // tasks a listing
	pause time.Duration // between two of them, for people
}

// page is what a survey has read of a project.
type page struct {
	upto     int64 // the last task id that it covers
	tasks    []labelstudio.Task
	glimpses map[int64]*glimpse   // of the tasks that are unlike their edges
	strange  func() (bool, error) // whether its project is not the one that we know
}

// errShort is a listing that is shorter than it says itself: nothing may be inferred
// from what is not in it.
var errShort = errors.New("the listing is shorter than its own total")

// project reads a project's tasks above an id, and calls each with every page. The
// next page is read meanwhile.
func (s *survey) project(ctx context.Context, project, after int64, each func(page) error) error {
	type answer struct {
		tasks []labelstudio.Task
		left  int
		at    time.Time
		err   error
	}
	from, err := s.source(ctx, project)
	if err != nil {
		return err
	}
	strange := sync.OnceValues(func() (bool, error) { return s.strange(ctx, project) }) // a request, and none where all is as remembered
	var reading sync.WaitGroup
	defer reading.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next := make(chan answer, 1)
	ask := func(after int64, pause time.Duration) {
		reading.Go(func() {
			sleep(ctx, pause)
			a := answer{at: time.Now()}
			a.tasks, a.left, a.err = from.TasksAfter(ctx, project, after, from.page)
			next <- a
		})
	}
	for ask(after, 0); ; {
		a := <-next
		switch {
		case a.err != nil:
			return a.err
		case len(a.tasks) < min(from.page, a.left):
			return errShort
		}
		p := page{tasks: a.tasks, upto: math.MaxInt64, glimpses: map[int64]*glimpse{}, strange: strange}
		last := len(a.tasks) < from.page
		if !last {
			p.upto = a.tasks[len(a.tasks)-1].ID
			ask(p.upto, from.pause)
		}
		if err := s.join(ctx, project, after, a.at, &p); err != nil {
			return err
		}
		if err := each(p); err != nil || last {
			return err
		}
		after = p.upto
	}
}

// join compares a page with the edges of its range.
func (s *survey) join(ctx context.Context, project, after int64, at time.Time, p *page) error {
	ids := make([]int64, len(p.tasks))
	for i := range p.tasks {
		ids[i] = p.tasks[i].ID
	}
	var edges []ledger.Edge
	if !s.blank {
		var err error
		if edges, err = s.ledger.EdgesBetween(ctx, project, after, p.upto, ids); err != nil {
			return err
		}
	}
	others := map[int64]bool{} // of those that are unlike: no task that we know
	for i := range p.tasks {
		t := &p.tasks[i]
		for ; len(edges) > 0 && edges[0].Task < t.ID; edges = edges[1:] {
			p.miss(edges[0], at)
		}
		g, err := s.glimpse(t, at)
		if err != nil {
			return err
		}
		unlike, other := g.Key != "", true
		if len(edges) > 0 && edges[0].Task == t.ID {
			if unlike = g.unlike(edges[0]); edges[0].Key != g.Key {
				g.Was = edges[0].Key
			}
			other = g.Was != "" || isOtherTask(edges[0], g.CreatedAt)
			edges = edges[1:]
		}
		if unlike {
			p.glimpses[t.ID] = new(g)
			others[t.ID] = other
		}
	}
	for _, e := range edges {
		p.miss(e, at)
	}
	if len(p.glimpses) == 0 {
		return nil
	}
	strange, err := p.strange()
	for id, g := range p.glimpses {
		g.Strange, g.Stray = strange, strange && others[id]
	}
	return err
}

func (s *survey) glimpse(t *labelstudio.Task, at time.Time) (glimpse, error) {
	if !t.Annotated() {
		return glimpse{}, fmt.Errorf("read task %d: %w", t.ID, errNoAnnotations)
	}
	return glimpseOf(t, s.groundTruth, at), nil
}

// miss notes that the listing does not show a task that we know.
func (p *page) miss(e ledger.Edge, at time.Time) {
	if e.MissingSince == nil {
		p.glimpses[e.Task] = &glimpse{Key: e.Key, Project: e.Project, Absent: true, At: at}
	}
}

// strange tells whether a project is not the one that we know: what is new in it may be
// another Label Studio's.
func (s *survey) strange(ctx context.Context, project int64) (bool, error) {
	if s.blank {
		return false, nil
	}
	err := recognise(ctx, database{Ledger: s.ledger}, s.studio, project)
	if errors.Is(err, errStranger) {
		return true, nil
	}
	return false, err
}

// distrusts tells whether nothing may be inferred from what a project lacks: neither
// the first nor the last of the tasks that we knew of it is there. It was emptied, or
// it is another project, of another Label Studio or of one that was restored. Where it
// has strays, what it lacks waits for the same word as they do. seen tells whether the
// listing showed nothing of both tasks, and whether it showed a stray.
func (s *survey) distrusts(ctx context.Context, project int64, seen func(first, last int64) (absent, stray bool, err error)) (bool, error) {
	if s.blank {
		return false, nil
	}
	edges, own, err := s.ledger.Known(ctx, project)
	if err != nil || !own {
		return false, err
	}
	absent, stray, err := seen(edges[0].Task, edges[len(edges)-1].Task)
	return absent && !stray, err
}

// databasePage is larger than a page of the API, of which Label Studio's database
// needs a hundredth of the time.
const databasePage = 5000

var errOtherDatabase = errors.New("LABEL_STUDIO_DATABASE_URL is not the database of the Label Studio at LABEL_STUDIO_URL: its tasks are others")

// source is Label Studio's database where there is one that can be read, else its API.
// That both tell of the same tasks is made sure of by the first one.
func (s *survey) source(ctx context.Context, project int64) (source, error) {
	if s.database == nil {
		return s.api, nil
	}
	first, _, err := s.api.TasksAfter(ctx, project, 0, 1)
	if err != nil || len(first) == 0 {
		return s.api, err
	}
	same, err := s.database.Same(ctx, first[0])
	s.answered(ctx, err)
	switch {
	case err != nil:
		return s.api, ctx.Err()
	case !same:
		return source{}, errOtherDatabase
	}
	return source{lister: s.database, page: databasePage}, nil
}

// answered tells that Label Studio's database cannot be read, or can be again, once.
func (s *survey) answered(ctx context.Context, err error) {
	const what = "Label Studio's database cannot be read: reading through its API"
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.failures.Log(ctx, s.log, slog.LevelWarn, what, "", err)
	default:
		s.failures.Over(ctx, s.log, what, "")
	}
}
