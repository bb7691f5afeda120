package labelstudio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxQuery is how long the query of a listing may be, encoded. Label Studio's servers take a request line of 64 KiB; the rest is
	// room for the path and for proxies that add to it. A server that takes less answers 414 and gets halves.
	maxQuery = 48 << 10
	// findPage is the page size of [Client.FindTasks]; above 1,000 nothing is gained.
	findPage = 1000
)

// The columns asked for. `include` also selects the keys of the nested annotations: without result in it they would come with their ids alone.
const (
	lightColumns = "id,project,data,meta,created_at,updated_at"
	fullColumns  = lightColumns + ",annotations,result,was_cancelled,completed_by,updated_by,ground_truth"
)

// filter is one item of the data manager's filters.
type filter struct {
	Column   string `json:"filter"`
	Operator string `json:"operator"`
	Type     string `json:"type"`
	Value    any    `json:"value"`
}

func idAfter(id int64) filter { return filter{"filter:tasks:id", "greater", "Number", id} }

// page is one listing to ask for: the first page_size rows of a project that match all filters, by id.
type page struct {
	op      Operation
	project int64
	size    int
	full    bool // with annotations
	filters []filter
}

type listing struct {
	Tasks []Task
	Total int
}

// TasksByID reads tasks of a project, annotations included, by one listing of exactly these ids (about 80 ms and 1.5 ms a row), or more
// where they do not fit into one request line. Order is by id. An id that is not in the answer is unknown, not deleted: ask [Client.Task] for it.
func (c *Client) TasksByID(ctx context.Context, project int64, ids []int64) ([]Task, error) {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	tasks, err := halving(ids, func(part []int64) ([]Task, error) {
		p := page{op: OpTasksByID, project: project, size: len(part), full: true}
		p.filters = []filter{{"filter:tasks:id", "in_list", "List", part}}
		got, err := c.list(ctx, p)
		return slices.DeleteFunc(got.Tasks, func(t Task) bool {
			_, asked := slices.BinarySearch(part, t.ID)
			return !asked || t.Project != project
		}), err
	})
	if err != nil {
		return nil, fmt.Errorf("list %d tasks of project %d: %w", len(ids), project, err)
	}
	return tasks, nil
}

// FindTasks returns the tasks of a project whose data has one of the values under the field, without annotations, by id within each
// request. It makes Label Studio read all tasks of the project (1.6 s for 100,000), for a hundred values as for one: batch them. Values are texts; one
// that is an integer as JSON writes it is found stored as a number, too. Every row returned was compared with the values.
func (c *Client) FindTasks(ctx context.Context, project int64, field string, values []string) ([]Task, error) {
	if !plainField.MatchString(field) || strings.Contains(field, "__") {
		return nil, fmt.Errorf("find tasks of project %d: %q is no field that Label Studio can filter by", project, field)
	}
	values = slices.Compact(slices.Sorted(slices.Values(values)))
	// JSON in Postgres holds no NUL: such a value is nowhere, and would make the server refuse the others with it.
	values = slices.DeleteFunc(values, func(v string) bool { return strings.ContainsRune(v, 0) })
	tasks, err := halving(values, func(part []string) ([]Task, error) {
		return c.findAll(ctx, project, field, part)
	})
	if err != nil {
		return nil, fmt.Errorf("find tasks of project %d by %s: %w", project, field, err)
	}
	return tasks, nil
}

var (
	plainField       = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	canonicalInteger = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,30})$`)
)

// findAll pages by id, since any number of tasks may have one value. The values are sorted.
func (c *Client) findAll(ctx context.Context, project int64, field string, values []string) ([]Task, error) {
	var found []Task
	for last := int64(0); ; {
		p := page{op: OpTasksFind, project: project, size: findPage}
		p.filters = []filter{{"filter:tasks:data." + field, "in_list", "List", bothTypes(values)}, idAfter(last)}
		got, err := c.list(ctx, p)
		if err != nil {
			return nil, err
		}
		if err := ascending(got.Tasks, last, project); err != nil {
			return nil, undecodable(OpTasksFind, err)
		}
		for _, t := range got.Tasks {
			value, isText := t.text(field)
			if _, asked := slices.BinarySearch(values, value); isText && asked {
				found = append(found, t)
			}
		}
		// As many rows as the query matches: that was the last page. Not "fewer than asked for", which a server that caps pages always gives.
		if len(got.Tasks) == 0 || len(got.Tasks) >= got.Total {
			return found, nil
		}
		last = got.Tasks[len(got.Tasks)-1].ID
	}
}

// bothTypes adds to each text that is an integer the number: Label Studio compares JSON values, "123" is not 123.
func bothTypes(values []string) []any {
	both := make([]any, 0, len(values))
	for _, v := range values {
		both = append(both, v)
		if canonicalInteger.MatchString(v) {
			both = append(both, json.RawMessage(v))
		}
	}
	return both
}

// text returns the value of a field of data if it is a text or an integer number.
func (t *Task) text(field string) (string, bool) {
	var data map[string]json.RawMessage
	if json.Unmarshal(t.Data, &data) != nil {
		return "", false
	}
	var text string
	if raw := string(data[field]); canonicalInteger.MatchString(raw) {
		return raw, true
	}
	err := json.Unmarshal(data[field], &text)
	return text, err == nil && len(data[field]) > 0 && data[field][0] == '"'
}

// TasksAfter returns the first tasks of a project, by id, whose id is above afterID, with their annotations, and how many there are in all
// above it. Going on from the last id reads the whole project, also while tasks are deleted, which moves pages counted by number. Fewer tasks
// than both limit and total is a short page: the server cut it, or tasks went away meanwhile.
func (c *Client) TasksAfter(ctx context.Context, project, afterID int64, limit int) (tasks []Task, total int, err error) {
	p := page{op: OpTasksAfter, project: project, size: limit, full: true, filters: []filter{idAfter(afterID)}}
	got, err := c.list(ctx, p)
	if err == nil {
		err = checked(p.op, ascending(got.Tasks, afterID, project))
	}
	if err != nil {
		return nil, 0, fmt.Errorf("list tasks of project %d after %d: %w", project, afterID, err)
	}
	return got.Tasks, got.Total, nil
}

// TasksChanged returns the tasks that Label Studio saved at since or later, with their annotations, in pages as [Client.TasksAfter] does. The times are the
// server's, taken before it commits, and some of its own changes move no time: overlap by minutes, and read everything now and then.
func (c *Client) TasksChanged(ctx context.Context, project int64, since time.Time, afterID int64, limit int) (tasks []Task, total int, err error) {
	since = since.UTC().Truncate(time.Microsecond)
	p := page{op: OpTasksChanged, project: project, size: limit, full: true, filters: []filter{
		// The fraction is part of the format: without it the answer is a 500.
		{"filter:tasks:updated_at", "greater_or_equal", "Datetime", since.Format("2006-01-02T15:04:05.000000Z")},
		idAfter(afterID),
	}}
	got, err := c.list(ctx, p)
	if err == nil {
		err = checked(p.op, errors.Join(ascending(got.Tasks, afterID, project), notBefore(got.Tasks, since)))
	}
	if err != nil {
		return nil, 0, fmt.Errorf("list tasks of project %d changed since %s: %w", project, since.Format(time.RFC3339), err)
	}
	return got.Tasks, got.Total, nil
}

// list makes one listing. A 500 that comes from a task being deleted meanwhile is asked once more.
func (c *Client) list(ctx context.Context, p page) (listing, error) {
	query, err := p.encode()
	if err != nil {
		return listing{}, notSent(p.op, err)
	}
	r := call{op: p.op, method: http.MethodGet, path: "/api/tasks/", query: query, maxBody: maxListingBody}
	body, err := c.do(ctx, r)
	var e *Error
	if errors.As(err, &e) && isListingRace(e) {
		body, err = c.do(ctx, r)
	}
	if err != nil {
		return listing{}, err
	}
	got, err := decodeListing(body)
	if err != nil {
		return listing{}, undecodable(p.op, err)
	}
	for i := range got.Tasks {
		if got.Tasks[i].Project == 0 {
			got.Tasks[i].Project = p.project // an older version that does not list the column
		}
	}
	return got, nil
}

func decodeListing(body []byte) (listing, error) {
	var wire struct {
		Tasks *[]taskWire `json:"tasks"`
		Total *int        `json:"total"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return listing{}, err
	}
	if wire.Tasks == nil || wire.Total == nil {
		return listing{}, errors.New("a listing without tasks or total")
	}
	got := listing{Tasks: make([]Task, len(*wire.Tasks)), Total: *wire.Total}
	for i, w := range *wire.Tasks {
		var err error
		if got.Tasks[i], err = w.task(); err != nil {
			return listing{}, err
		}
	}
	return got, nil
}

var errTooLong = errors.New("the query does not fit into a request line")

func (p page) encode() (url.Values, error) {
	if p.size <= 0 {
		return nil, fmt.Errorf("a page of %d rows", p.size)
	}
	query, err := json.Marshal(map[string]any{
		"ordering": []string{"tasks:id"},
		"filters":  map[string]any{"conjunction": "and", "items": p.filters},
	})
	if err != nil {
		return nil, err
	}
	values := url.Values{
		"project":     {strconv.FormatInt(p.project, 10)},
		"page":        {"1"}, // always: the place is in the filter
		"page_size":   {strconv.Itoa(p.size)},
		"resolve_uri": {"false"},
		"fields":      {"task_only"}, // has no annotations, whatever include says
		"include":     {lightColumns},
		// Label Studio decodes the percent signs of this parameter twice.
		"query": {strings.ReplaceAll(string(query), "%", "%25")},
	}
	if p.full {
		values.Set("fields", "all")
		values.Set("include", fullColumns)
	}
	if len(values.Encode()) > maxQuery {
		return nil, errTooLong
	}
	return values, nil
}

// halving calls ask with all items, or, where they do not fit into a request, with each half.
func halving[T any](items []T, ask func([]T) ([]Task, error)) ([]Task, error) {
	if len(items) == 0 {
		return nil, nil
	}
	tasks, err := ask(items)
	tooLong := errors.Is(err, errTooLong) || statusOf(err) == http.StatusRequestURITooLong
	if !tooLong || len(items) == 1 {
		return tasks, err
	}
	first, err := halving(items[:len(items)/2], ask)
	if err != nil {
		return nil, err
	}
	second, err := halving(items[len(items)/2:], ask)
	return append(first, second...), err
}

// ascending checks that a page is what its filter asked for: another project's or an out-of-order row would make a scan skip tasks unseen.
func ascending(tasks []Task, after, project int64) error {
	for _, t := range tasks {
		if t.ID <= after || t.Project != project {
			return fmt.Errorf("task %d of project %d was not asked for: Label Studio did not apply the filter", t.ID, t.Project)
		}
		after = t.ID
	}
	return nil
}

func notBefore(tasks []Task, since time.Time) error {
	for _, t := range tasks {
		if t.UpdatedAt.Before(since) {
			return fmt.Errorf("task %d is older than asked for: Label Studio did not apply the filter", t.ID)
		}
	}
	return nil
}

func checked(op Operation, err error) error {
	if err == nil {
		return nil
	}
	return undecodable(op, err)
}
