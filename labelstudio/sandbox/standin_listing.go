package sandbox

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
)

// listQuery is the `query` parameter.
type listQuery struct {
	Ordering []string `json:"ordering"`
	Filters  struct {
		Conjunction string     `json:"conjunction"`
		Items       []listItem `json:"items"`
	} `json:"filters"`
}

type listItem struct {
	Filter   string          `json:"filter"`
	Operator string          `json:"operator"`
	Type     string          `json:"type"`
	Value    json.RawMessage `json:"value"`
}

func (i listItem) column() string { return strings.TrimPrefix(i.Filter, "filter:tasks:") }

// parseListQuery decodes the percent signs once more, as the real one does: what is no escape stays.
func parseListQuery(text string) (q listQuery, err error) {
	q.Filters.Conjunction = "and"
	if text == "" {
		return q, nil
	}
	err = json.Unmarshal([]byte(unquote(text)), &q)
	return q, err
}

func unquote(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			if one, err := url.PathUnescape(text[i : i+3]); err == nil {
				b.WriteString(one)
				i += 2
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// listingOp tells what a listing is for by the first column it filters.
func listingOp(text string) labelstudio.Operation {
	q, err := parseListQuery(text)
	if err != nil || len(q.Filters.Items) == 0 {
		return labelstudio.OpTasksAfter
	}
	switch first := q.Filters.Items[0]; {
	case strings.HasPrefix(first.column(), "data."):
		return labelstudio.OpTasksFind
	case first.column() == "updated_at":
		return labelstudio.OpTasksChanged
	case first.Operator == "in_list":
		return labelstudio.OpTasksByID
	}
	return labelstudio.OpTasksAfter
}

// listingCost is called before the listing is made and makes it once for its number of rows.
func (s *StandIn) listingCost(r *request) time.Duration {
	if s.delays == (Delays{}) {
		return 0
	}
	q := r.URL.Query()
	rows := len(s.listTasks(r).rows())
	wait := s.delays.Light + time.Duration(rows)*s.delays.LightRow
	if q.Get("fields") == "all" {
		wait = s.delays.Listing + time.Duration(rows)*s.delays.ListingRow
	}
	if p := s.projects[listProject(q)]; p != nil && listingOp(q.Get("query")) == labelstudio.OpTasksFind {
		wait += s.delays.Search + time.Duration(len(p.tasks))*s.delays.SearchTask
	}
	return wait
}

func listProject(q url.Values) int64 {
	id, err := strconv.ParseInt(q.Get("project"), 10, 64)
	if err != nil {
		return 0
	}
	return id
}

func (s *StandIn) listTasks(r *request) *answer {
	q := r.URL.Query()
	if q.Get("project") == "" {
		return &answer{status: http.StatusNotFound, body: object{"detail": "Neither project nor view id specified"}}
	}
	p := s.projects[listProject(q)]
	if p == nil {
		return missing("Project")
	}
	query, err := parseListQuery(q.Get("query"))
	if err != nil {
		return refuse(http.StatusInternalServerError, err.Error())
	}
	matches, refusal := p.filter(query)
	if refusal != nil {
		return refusal
	}
	size, number := positive(q.Get("page_size"), 100), 1
	if text := q.Get("page"); text != "" {
		number = positive(text, 0)
	}
	begin := (number - 1) * size
	if number < 1 || begin > 0 && begin >= len(matches) {
		return refuse(http.StatusNotFound, "Invalid page.")
	}
	return ok(s.rowsBody(q, matches, matches[begin:min(begin+size, len(matches))]))
}

func (s *StandIn) rowsBody(q url.Values, matches, page []*task) object {
	include := names(q.Get("include"))
	rows := make([]object, 0, len(page))
	for _, t := range page {
		body := s.taskBody(t, row)
		if q.Get("fields") != "all" {
			delete(body, "annotations")
			delete(body, "predictions")
		} else if notes := body["annotations"].([]object); len(include) > 0 {
			for i := range notes {
				notes[i] = notes[i].only(include) // the same names select the keys of what is nested
			}
		}
		rows = append(rows, body.only(include))
	}
	notes := 0
	for _, t := range matches {
		notes += len(t.notes)
	}
	return object{"tasks": rows, "total": len(matches), "total_annotations": notes, "total_predictions": 0}
}

func (a *answer) rows() []object {
	body, isObject := a.body.(object)
	if rows, isList := body["tasks"].([]object); isObject && isList {
		return rows
	}
	return nil
}

// cutRows makes a listing short: its total says more than it has.
func (a *answer) cutRows() {
	if rows := a.rows(); rows != nil {
		a.body.(object)["tasks"] = rows[:len(rows)/2]
	}
}

// filter returns the tasks that match, ordered.
func (p *project) filter(q listQuery) ([]*task, *answer) {
	if c := q.Filters.Conjunction; c != "and" {
		return nil, refuse(http.StatusInternalServerError, fmt.Sprintf("Filter conjunction statement has no operation %s", c))
	}
	matches := p.candidates(q.Filters.Items)
	for _, item := range q.Filters.Items {
		test, refusal := item.compile()
		if refusal != nil {
			return nil, refusal
		}
		matches = slices.DeleteFunc(matches, func(t *task) bool { return !test(t) })
	}
	switch order := strings.Join(q.Ordering, ","); order {
	case "", "tasks:id":
	case "-tasks:id":
		slices.Reverse(matches)
	default:
		return nil, refuse(http.StatusInternalServerError, "Cannot resolve keyword '"+order+"' into field.")
	}
	return matches, nil
}

// candidates are the tasks that can match: where ids are asked for, these alone, so that a look at a few does not cost a walk over all.
func (p *project) candidates(items []listItem) []*task {
	for _, item := range items {
		if ids, isList := item.idList(); isList {
			var some []*task
			for _, id := range ids {
				at, there := slices.BinarySearchFunc(p.tasks, id, func(t *task, id int64) int { return cmp.Compare(t.id, id) })
				if there {
					some = append(some, p.tasks[at])
				}
			}
			return some
		}
	}
	return slices.Clone(p.tasks)
}

// idList returns the ids of an in_list filter, in order. A bare text, and what is no number in the list, gives none, and no error.
func (i listItem) idList() (ids []int64, isList bool) {
	if i.column() != "id" || i.Operator != "in_list" {
		return nil, false
	}
	var list []json.RawMessage
	_ = json.Unmarshal(i.Value, &list)
	for _, value := range list {
		if id, err := number(value); err == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), true
}

// compile makes a test of tasks. An operator that does not exist is taken as equality, without a word.
func (i listItem) compile() (func(*task) bool, *answer) {
	column := i.column()
	field, isData := strings.CutPrefix(column, "data.")
	switch {
	case strings.Contains(column, "__"):
		return nil, invalid(object{"non_field_errors": []string{fmt.Sprintf(`"__" is not generally allowed in filters. Consider asking your administrator to add %q to DATA_MANAGER_FILTER_ALLOWLIST`, column)}})
	case isData:
		return i.compareJSON(func(t *task) json.RawMessage { return t.fields[field] }), nil
	case column == "id":
		return i.compareID()
	case column == "updated_at":
		return i.compareTime()
	case column == "meta" && i.Operator == "contains":
		var part string
		_ = json.Unmarshal(i.Value, &part) // no text is found nowhere
		part = strings.ToLower(part)
		return func(t *task) bool { return part != "" && strings.Contains(strings.ToLower(string(t.meta)), part) }, nil
	}
	return nil, refuse(http.StatusInternalServerError, "Cannot resolve keyword '"+column+"' into field.")
}

// compareJSON compares JSON values: "123" is not 123.
func (i listItem) compareJSON(get func(*task) json.RawMessage) func(*task) bool {
	if i.Operator != "in_list" {
		want, err := jsonb(i.Value)
		return func(t *task) bool { return err == nil && bytes.Equal(get(t), want) }
	}
	var list []json.RawMessage
	_ = json.Unmarshal(i.Value, &list) // a bare text gives nothing, and no error
	wanted := make(map[string]bool, len(list))
	for _, value := range list {
		if normal, err := jsonb(value); err == nil {
			wanted[string(normal)] = true
		}
	}
	return func(t *task) bool { return wanted[string(get(t))] }
}

func (i listItem) compareID() (func(*task) bool, *answer) {
	if ids, isList := i.idList(); isList {
		return func(t *task) bool {
			_, there := slices.BinarySearch(ids, t.id)
			return there
		}, nil
	}
	want, err := number(i.Value)
	if err != nil {
		return nil, refuse(http.StatusInternalServerError, "Field 'id' expected a number but got "+string(i.Value)+".")
	}
	return ordered(i.Operator, func(t *task) int { return cmp.Compare(t.id, want) }), nil
}

func (i listItem) compareTime() (func(*task) bool, *answer) {
	var text string
	err := json.Unmarshal(i.Value, &text)
	want, parseErr := time.Parse("2006-01-02T15:04:05.999999Z", text)
	if err != nil || parseErr != nil || !strings.Contains(text, ".") {
		return nil, refuse(http.StatusInternalServerError, fmt.Sprintf("time data '%s' does not match format '%%Y-%%m-%%dT%%H:%%M:%%S.%%fZ'", text))
	}
	return ordered(i.Operator, func(t *task) int { return t.updated.Compare(want) }), nil
}

// ordered turns a comparison of a task's column with the value into a test.
func ordered(operator string, compare func(*task) int) func(*task) bool {
	return func(t *task) bool {
		switch c := compare(t); operator {
		case "greater":
			return c > 0
		case "greater_or_equal":
			return c >= 0
		case "less":
			return c < 0
		case "less_or_equal":
			return c <= 0
		case "not_equal":
			return c != 0
		default:
			return c == 0
		}
	}
}

// number reads a number, also one that is written as a text.
func number(raw json.RawMessage) (int64, error) {
	return strconv.ParseInt(strings.Trim(string(raw), `"`), 10, 64)
}

func names(list string) map[string]bool {
	set := map[string]bool{}
	for _, name := range strings.Split(list, ",") {
		if name != "" {
			set[name] = true
		}
	}
	return set
}

// positive reads a positive number; anything else is the default.
func positive(text string, def int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		return def
	}
	return n
}
