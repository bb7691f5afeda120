package reconciler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// memTasks is the task side in memory: a Label Studio as far as a turn meets it. The
// conformance suite compares it with the stand-in.
type memTasks struct {
	tasks map[int64]*memTask
	users []labelstudio.User
	notes int64 // the newest annotation
	clock time.Time

	landmark time.Time // when the tasks were made by which its projects are known; zero: there are none
}

type memTask struct {
	labelstudio.Task
	gone    bool // 404, for a while or for good
	version int  // of everything that a read shows
}

func newMemTasks() *memTasks { return &memTasks{tasks: map[int64]*memTask{}} }

// add makes a task, and returns it.
func (m *memTasks) add(id, project int64, key string) *memTask {
	t := &memTask{Task: labelstudio.Task{ID: id, Project: project, Meta: json.RawMessage(`{}`),
		Data: json.RawMessage(fmt.Sprintf(`{"conquest_id": %q, "prompt": "p", "response": "r"}`, key))}}
	t.CreatedAt = m.now()
	m.changed(t)
	m.tasks[id] = t
	return t
}

// now is a time that nothing had before.
func (m *memTasks) now() time.Time {
	if now := time.Now(); now.After(m.clock) {
		m.clock = now
	} else {
		m.clock = m.clock.Add(time.Microsecond)
	}
	return m.clock
}

func (m *memTasks) changed(t *memTask) { t.version++; t.UpdatedAt = m.now() }

func (t *memTask) key() string { return ledger.KeyOf(t.Data) }

// answer is a task as a read shows it: nobody may change it afterwards.
func (t *memTask) answer() labelstudio.Task {
	a := t.Task
	a.Meta = slices.Clone(t.Meta)
	a.Annotations = append([]labelstudio.Annotation{}, t.Annotations...)
	return a
}

// setMeta is anybody's PATCH of meta: it replaces it whole.
func (m *memTasks) setMeta(t *memTask, meta json.RawMessage) {
	t.Meta = meta
	m.changed(t)
}

// annotate makes an annotation, or changes the one with that id. star is what it says.
func (m *memTasks) annotate(t *memTask, id int64, star bool, by labelstudio.User) int64 {
	if id == 0 {
		m.notes++
		id = m.notes
		a := labelstudio.Annotation{ID: id, CompletedBy: labelstudio.UserRef{ID: by.ID}, CreatedAt: time.Now()}
		t.Annotations = append(slices.Clone(t.Annotations), a)
	}
	t.Annotations = slices.Clone(t.Annotations)
	a := &t.Annotations[slices.IndexFunc(t.Annotations, func(a labelstudio.Annotation) bool { return a.ID == id })]
	a.UpdatedBy, a.UpdatedAt, a.Result = labelstudio.UserRef{ID: by.ID}, time.Now(), nil
	if star {
		a.Result = []labelstudio.Region{{Type: "choices", FromName: "star", ToName: "prompt", Value: json.RawMessage(`{"choices": ["gold_star"]}`)}}
	}
	m.changed(t)
	return id
}

// unannotate deletes an annotation.
func (m *memTasks) unannotate(t *memTask, id int64) {
	t.Annotations = slices.DeleteFunc(slices.Clone(t.Annotations), func(a labelstudio.Annotation) bool { return a.ID == id })
	m.changed(t)
}

// TasksByID implements taskSide.
func (m *memTasks) TasksByID(_ context.Context, project int64, ids []int64) ([]labelstudio.Task, error) {
	var all []labelstudio.Task
	for _, t := range ordered(m.tasks) {
		if t.Project == project && !t.gone && slices.Contains(ids, t.ID) {
			all = append(all, t.answer())
		}
	}
	if t, is := m.landmarkOf(-project); is && slices.Contains(ids, t.ID) {
		all = append(all, *t)
	}
	return all, nil
}

// everywhere are the tasks of all projects: what Label Studio answers where it does
// not understand a filter.
func (m *memTasks) everywhere() (all []labelstudio.Task) {
	for _, t := range ordered(m.tasks) {
		if !t.gone {
			all = append(all, t.answer())
		}
	}
	return all
}

// Task implements taskSide.
func (m *memTasks) Task(_ context.Context, id int64) (*labelstudio.Task, error) {
	if t, is := m.landmarkOf(id); is {
		return t, nil
	}
	t := m.tasks[id]
	if t == nil || t.gone {
		return nil, answered(labelstudio.OpTask, http.StatusNotFound)
	}
	a := t.answer()
	return &a, nil
}

// FindTasks implements taskSide.
func (m *memTasks) FindTasks(_ context.Context, project int64, field string, values []string) ([]labelstudio.Task, error) {
	var all []labelstudio.Task
	for _, t := range ordered(m.tasks) {
		var data map[string]any
		if t.Project != project || t.gone || json.Unmarshal(t.Data, &data) != nil {
			continue
		}
		if text, ok := data[field].(string); ok && slices.Contains(values, text) {
			a := t.answer()
			a.Annotations = nil
			all = append(all, a)
		}
	}
	return all, nil
}

// PatchMeta implements taskSide.
func (m *memTasks) PatchMeta(_ context.Context, id int64, meta json.RawMessage) (*labelstudio.Task, error) {
	t := m.tasks[id]
	if t == nil || t.gone {
		return nil, answered(labelstudio.OpTaskPatch, http.StatusNotFound)
	}
	m.setMeta(t, meta)
	a := t.answer()
	return &a, nil
}

// Projects implements taskSide.
func (m *memTasks) Projects(context.Context) ([]labelstudio.Project, error) {
	var all []labelstudio.Project
	for _, t := range ordered(m.tasks) {
		if !slices.ContainsFunc(all, func(p labelstudio.Project) bool { return p.ID == t.Project }) {
			all = append(all, labelstudio.Project{ID: t.Project})
		}
	}
	return all, nil
}

// Users implements taskSide.
func (m *memTasks) Users(context.Context) ([]labelstudio.User, error) { return m.users, nil }

// Whoami implements taskSide.
func (m *memTasks) Whoami(context.Context) (labelstudio.User, error) {
	return labelstudio.User{ID: 1, Email: "sync@example.com"}, nil
}

// answered is the error of an answer with this status that is Label Studio's own.
func answered(op labelstudio.Operation, status int) error {
	return &labelstudio.Error{Op: op, Status: status, Detail: http.StatusText(status)}
}

// unanswered is the error of a request that was sent and brought no answer.
func unanswered(op labelstudio.Operation) error {
	return &labelstudio.Error{Op: op, Err: errors.New("no answer")}
}
