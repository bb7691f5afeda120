package reconciler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// This file is another Label Studio that answers at the URL of ours for a while. What we
// know of projects beside the few tasks of a schedule are landmarks: tasks at rest, which
// nobody touches, so that each project is one of which many tasks are known.

// known lets projects be known by a landmark each. Its number is one below zero.
func (s *sim) known() {
	s.tasks.landmark = s.start
	for p := range int64(2) {
		s.rows.projects[1+p] = true
		s.rows.landmarks = append(s.rows.landmarks, ledger.Edge{Task: -1 - p, Project: 1 + p, TaskCreatedAt: &s.start})
	}
}

// studio is the Label Studio that answers.
func (s *sim) studio() *memTasks {
	if s.elsewhere != nil {
		return s.elsewhere
	}
	return s.tasks
}

// turnTo lets another Label Studio answer, or ours again. The other one has projects, tasks
// and conquests with the numbers and names of some of ours, and stars of its own.
func (s *sim) turnTo() bool {
	if s.elsewhere != nil {
		s.turnBack()
		return true
	}
	if s.tasks.landmark.IsZero() || s.fault(1) == 0 {
		return false
	}
	s.strayed = true
	m := newMemTasks()
	m.clock = time.Now().Add(time.Hour) // nothing of ours is as new
	m.users = s.tasks.users
	if s.rng.IntN(2) == 0 {
		m.landmark = m.clock
	}
	for i, key := range s.keys {
		for n := range int64(4) { // two may have the numbers of ours, two have their own
			if s.rng.IntN(2) == 0 {
				continue
			}
			if s.rng.IntN(4) == 0 {
				key = "another"
			}
			t := m.add(10*int64(i+1)+n, 1+int64(s.rng.IntN(3)), key)
			t.Meta = s.firstMeta(s.rng.IntN(2) == 0, false)
			if s.rng.IntN(3) == 0 {
				m.annotate(t, 0, true, s.somebody())
			}
		}
	}
	s.elsewhere = m
	s.logf("another Label Studio answers from now on: %v", m)
	for _, r := range s.replicas {
		r.met = r.turn
	}
	return true
}

// turnBack lets ours answer again. The other one was there for longer than a turn takes: one
// that has met ours on both sides of it is not.
func (s *sim) turnBack() {
	s.elsewhere = nil
	for _, r := range slices.Clone(s.replicas) {
		if r.met == r.turn && len(r.claims) > 0 {
			s.logf("%s is killed", r.name)
			s.end(r)
		}
	}
	s.logf("the right Label Studio answers again")
}

func (m *memTasks) String() (text string) {
	for _, t := range ordered(m.tasks) {
		text += fmt.Sprintf("%d of %s in %d: %s, %d annotations; ", t.ID, t.key(), t.Project, t.Meta, len(t.Annotations))
	}
	return text
}

// policeStrange refuses that what another Label Studio showed becomes of an edge.
func (r *replica) policeStrange(was, e ledger.Edge, unlinked, forgot bool) {
	switch {
	case unlinked:
		r.breach("%s: task %d is given up for one of another Label Studio", r.name, e.Task)
	case e.IntentFor != nil:
		r.breach("%s: PATCH of %d on the word of another Label Studio", r.name, e.Task)
	case !sameTime(e.TaskCreatedAt, was.TaskCreatedAt) || !forgot && !(equalText(e.Last, was.Last) && equalBool(e.S, was.S) && e.Held == was.Held):
		r.breach("%s: the shadow of %d is another Label Studio's", r.name, e.Task)
	}
}

// landmarkOf is a read of a landmark.
func (m *memTasks) landmarkOf(id int64) (*labelstudio.Task, bool) {
	return &labelstudio.Task{ID: id, CreatedAt: m.landmark}, !m.landmark.IsZero() && id < 0
}

func (m *memTasks) has(project int64) bool {
	all, _ := m.Projects(context.Background())
	return slices.ContainsFunc(all, func(p labelstudio.Project) bool { return p.ID == project })
}
