package labelstudio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Task is a task as far as the answer told it.
type Task struct {
	ID      int64
	Project int64
	// Data and Meta are exactly the bytes received; nil where the answer had none. Label Studio accepts any JSON as meta, null among it.
	Data, Meta json.RawMessage
	CreatedAt  time.Time
	UpdatedAt  time.Time
	// Annotations is nil where the answer had none of them, and empty where the task has none. Ask [Task.Annotated] before believing it.
	Annotations []Annotation
}

// Annotated reports whether the answer told the task's annotations.
func (t *Task) Annotated() bool { return t.Annotations != nil }

// taskWire is a task as answers and webhooks have it. Without a method of its own it is decoded in place: a page of a scan is then
// read twice, not five times.
type taskWire struct {
	ID          int64           `json:"id"`
	Project     int64           `json:"project"`
	Data        json.RawMessage `json:"data"`
	Meta        json.RawMessage `json:"meta"`
	CreatedAt   time.Time       `json:"created_at"`
	UpdatedAt   time.Time       `json:"updated_at"`
	Annotations []Annotation    `json:"annotations"`
}

func (w taskWire) task() (Task, error) {
	if w.ID == 0 {
		return Task{}, errors.New("a task without an id")
	}
	return Task(w), nil
}

// UnmarshalJSON reads a task as any answer or webhook has it.
func (t *Task) UnmarshalJSON(text []byte) (err error) {
	var wire taskWire
	if err := json.Unmarshal(text, &wire); err != nil {
		return err
	}
	*t, err = wire.task()
	return err
}

// Task fetches one task with its annotations, users as objects. It costs Label Studio about 120 ms; two or more are read cheaper
// by [Client.TasksByID].
func (c *Client) Task(ctx context.Context, id int64) (*Task, error) {
	t, err := c.oneTask(ctx, id, call{op: OpTask, method: http.MethodGet, query: url.Values{"resolve_uri": {"false"}}})
	if err != nil {
		return nil, fmt.Errorf("fetch task %d: %w", id, err)
	}
	return t, nil
}

// PatchMeta replaces the task's whole meta by the JSON given, which travels as it is, and returns the task as the answer tells it. It is exactly
// one request, sent at most once. An error for which [NotDone] holds means that nothing changed; any other error, that nobody knows. Even
// a success may not last: Label Studio saves whole rows, so a person's save that overlaps this one can put the old meta back.
func (c *Client) PatchMeta(ctx context.Context, id int64, meta json.RawMessage) (*Task, error) {
	if !json.Valid(meta) {
		return nil, fmt.Errorf("patch task %d: %w", id, notSent(OpTaskPatch, errors.New("meta is not JSON")))
	}
	// Put together by hand: the encoder would rewrite what is other people's.
	body := append(append([]byte(`{"meta":`), meta...), '}')
	t, err := c.oneTask(ctx, id, call{op: OpTaskPatch, method: http.MethodPatch, body: body, inTurn: true})
	if err != nil {
		return nil, fmt.Errorf("patch task %d: %w", id, err)
	}
	return t, nil
}

func (c *Client) oneTask(ctx context.Context, id int64, r call) (*Task, error) {
	r.path, r.maxBody = taskPath(id), maxTaskBody
	body, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	t := new(Task)
	if err := json.Unmarshal(body, t); err != nil {
		return nil, undecodable(r.op, err)
	}
	if t.ID != id {
		return nil, undecodable(r.op, fmt.Errorf("it is task %d", t.ID))
	}
	return t, nil
}

// DeleteTask deletes a task with its annotations.
func (c *Client) DeleteTask(ctx context.Context, id int64) error {
	_, err := c.do(ctx, call{op: OpTaskDelete, method: http.MethodDelete, path: taskPath(id), maxBody: maxSmallBody, inTurn: true})
	if err != nil {
		return fmt.Errorf("delete task %d: %w", id, err)
	}
	return nil
}

func taskPath(id int64) string { return "/api/tasks/" + strconv.FormatInt(id, 10) + "/" }

// NewTask is a task to import. Data must have every key that the project's label configuration shows.
type NewTask struct {
	Data        any              `json:"data"`
	Meta        any              `json:"meta,omitempty"` // nil: none; an import refuses null
	Annotations []AnnotationEdit `json:"annotations,omitempty"`
}

// ImportTasks creates tasks in one request, all or none, and returns their ids in the order given. Annotations that come with them count as ground
// truth unless they say otherwise, and no webhook announces them.
func (c *Client) ImportTasks(ctx context.Context, project int64, tasks []NewTask) ([]int64, error) {
	ids, err := c.importTasks(ctx, project, tasks)
	if err != nil {
		return nil, fmt.Errorf("import %d tasks into project %d: %w", len(tasks), project, err)
	}
	return ids, nil
}

func (c *Client) importTasks(ctx context.Context, project int64, tasks []NewTask) ([]int64, error) {
	if len(tasks) == 0 {
		return nil, nil
	}
	body, err := json.Marshal(tasks)
	if err != nil {
		return nil, notSent(OpTasksImport, err)
	}
	answer, err := c.do(ctx, call{
		op: OpTasksImport, method: http.MethodPost, path: "/api/projects/" + strconv.FormatInt(project, 10) + "/import",
		query: url.Values{"return_task_ids": {"true"}}, body: body, limit: importTimeout, maxBody: maxTaskBody,
	})
	if err != nil {
		return nil, err
	}
	var told struct {
		IDs []int64 `json:"task_ids"`
	}
	if err := json.Unmarshal(answer, &told); err != nil {
		return nil, undecodable(OpTasksImport, err)
	}
	if len(told.IDs) != len(tasks) {
		return nil, undecodable(OpTasksImport, fmt.Errorf("it has %d ids", len(told.IDs)))
	}
	return told.IDs, nil
}
