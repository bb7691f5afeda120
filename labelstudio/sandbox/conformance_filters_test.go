package sandbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/aristotle/reconciler/labelstudio"
)

func (at target) filters(t *testing.T) {
	c := at.client(t)
	p := at.project(t, c)
	ids := at.tasks(t, c, p,
		labelstudio.NewTask{Data: texts("123"), Meta: map[string]any{"gold_star": true}}, labelstudio.NewTask{Data: texts(123)}, labelstudio.NewTask{Data: texts("Abc")},
	)
	for _, c := range []struct {
		column, operator, kind, value string
		want                          []int // indexes into ids
	}{
		{"data.conquest_id", "equal", "String", `"123"`, []int{0}},
		{"data.conquest_id", "equal", "String", `123`, []int{1}},
		{"data.conquest_id", "equal", "String", `"abc"`, nil},
		{"data.conquest_id", "in_list", "List", `["123", "Abc"]`, []int{0, 2}},
		{"data.conquest_id", "in_list", "List", `["123", 123, true, null]`, []int{0, 1}},
		{"data.conquest_id", "in_list", "List", `[]`, nil},
		{"data.conquest_id", "in_list", "List", `"123"`, nil}, // a bare text: nothing, and no error
		{"data.nosuch", "equal", "String", `"123"`, nil},
		{"data.conquest_id", "equals", "String", `"123"`, []int{0}}, // no such operator: taken as equality
		{"id", "in_list", "List", fmt.Sprintf(`[%d, "%d"]`, ids[0], ids[1]), []int{0, 1}},
		{"id", "in_list", "List", `[]`, nil},
		{"id", "greater", "Number", strconv.FormatInt(ids[0], 10), []int{1, 2}},
		{"id", "no_such", "Number", strconv.FormatInt(ids[0], 10), []int{0}},
		{"updated_at", "greater", "Datetime", `"2001-01-01T00:00:00.5Z"`, []int{0, 1, 2}},
		{"updated_at", "less", "Datetime", `"2001-01-01T00:00:00.5Z"`, nil},
		{"meta", "contains", "String", `"GOLD_star"`, []int{0}},
	} {
		status, answer := at.ask(t, "GET", listQuery(p, c.column, c.operator, c.kind, c.value), "Token "+at.Token, "")
		want := make([]string, len(c.want))
		for i, index := range c.want {
			want[i] = fmt.Sprintf(`{"id":%d}`, ids[index])
		}
		if status != 200 || !bytes.Contains(answer, []byte(`"tasks":[`+strings.Join(want, ",")+`]`)) || !bytes.Contains(answer, []byte(fmt.Sprintf(`"total":%d,`, len(want)))) {
			t.Errorf("%s %s %s: %d %s, want %v", c.column, c.operator, c.value, status, answer, want)
		}
	}
	for _, c := range []struct {
		column, operator, kind, value string
		status                        int
		part                          string
	}{
		{"updated_at", "greater", "Datetime", `"2026-01-01T00:00:00Z"`, 500, "does not match format"},
		{"meta__gold_star", "equal", "String", `"true"`, 400, "is not generally allowed in filters"},
		{"meta.gold_star", "equal", "String", `true`, 500, ""},
		{"nosuch", "equal", "String", `"x"`, 500, ""},
	} {
		at.refused(t, "GET", listQuery(p, c.column, c.operator, c.kind, c.value), "", c.status, c.part)
	}
	list := fmt.Sprintf("/api/tasks/?project=%d&query=", p)
	at.refused(t, "GET", list+escaped(`{"filters":`), "", 500, "")
	at.refused(t, "GET", list+escaped(`{"filters":{"conjunction":"nor","items":[{"filter":"filter:tasks:id","operator":"equal","type":"Number","value":1}]}}`), "", 500, "")

	long := func(bytes int) string {
		return listQuery(p, "data.conquest_id", "in_list", "List", `["`+strings.Repeat("x", bytes)+`"]`)
	}
	if status, answer := at.ask(t, "GET", long(53_000), "Token "+at.Token, ""); status != 200 {
		t.Errorf("a query of 53 kB: %d %.200s", status, answer)
	}
	if status, answer := at.ask(t, "GET", long(69_000), "Token "+at.Token, ""); status != 414 {
		t.Errorf("a query of 69 kB: %d %.200s", status, answer)
	}
}

func listQuery(project int64, column, operator, kind, value string) string {
	query := fmt.Sprintf(`{"ordering":["tasks:id"],"filters":{"conjunction":"and","items":[{"filter":"filter:tasks:%s","operator":%q,"type":%q,"value":%s}]}}`, column, operator, kind, value)
	return fmt.Sprintf("/api/tasks/?project=%d&fields=task_only&resolve_uri=false&include=id&page_size=1000&query=%s", project, url.QueryEscape(query))
}

// finds: every value that a conquest id could have is found, alone and among the others.
func (at target) finds(t *testing.T) {
	c := at.client(t)
	p := at.project(t, c)
	values := []string{"a", "A", "50%41 off", "100%", "%", "%25", "%2541", "a+b", "a b", "a&b=c#d;e?", `"quoted" \back\slash`, "é 日本 🙂", "null", "true", "{}", "0", "-7", "007", "1.0", "1e3", "12345678901234567890123", "", "line\nbreak", "' OR 1=1 --"}
	var tasks []labelstudio.NewTask
	for _, v := range values {
		tasks = append(tasks, labelstudio.NewTask{Data: texts(v)})
	}
	tasks = append(tasks, labelstudio.NewTask{Data: texts(-7)}, labelstudio.NewTask{Data: texts(0)}, labelstudio.NewTask{Data: texts(json.RawMessage("12345678901234567890123"))},
		labelstudio.NewTask{Data: texts(true)}, labelstudio.NewTask{Data: texts(nil)}, labelstudio.NewTask{Data: texts([]string{"a"})})
	at.tasks(t, c, p, tasks...)
	want := map[string]int{"-7": 2, "0": 2, "12345678901234567890123": 2}
	for _, v := range values {
		found, err := c.FindTasks(t.Context(), p, "conquest_id", []string{v})
		if err != nil || len(found) != max(1, want[v]) {
			t.Errorf("%q: %d tasks, %v", v, len(found), err)
		}
	}
	all, err := c.FindTasks(t.Context(), p, "conquest_id", append(values, "nosuch", "nul\x00"))
	if err != nil || len(all) != len(values)+len(want) {
		t.Errorf("all values: %d tasks, %v; want %d", len(all), err, len(values)+len(want))
	}
	if none, err := c.FindTasks(t.Context(), p, "id", values); err != nil || len(none) != 0 {
		t.Errorf("a field that no task has: %v, %v", none, err)
	}
	if none, err := c.FindTasks(t.Context(), p, "conquest_id", nil); err != nil || none != nil {
		t.Errorf("no values: %v, %v", none, err)
	}
	if _, err := c.FindTasks(t.Context(), p, "conquest__id", values); err == nil {
		t.Error("a path with __ was sent")
	}
}
