package sandbox

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aristotle/reconciler/labelstudio"
)

func (s *StandIn) listProjects(r *request) *answer {
	q := r.URL.Query()
	size, number := positive(q.Get("page_size"), 30), positive(q.Get("page"), 1)
	ids := make([]int64, 0, len(s.projects))
	for id := range s.projects {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b int64) int { return int(b - a) }) // the newest first
	begin := (number - 1) * size
	if begin > 0 && begin >= len(ids) {
		return refuse(http.StatusNotFound, "Invalid page.")
	}
	end := min(begin+size, len(ids))
	results := make([]object, 0, size)
	for _, id := range ids[begin:end] {
		results = append(results, s.projectBody(s.projects[id]).only(names(q.Get("include"))))
	}
	body := object{"count": len(ids), "next": nil, "previous": nil, "results": results}
	if end < len(ids) {
		q.Set("page", strconv.Itoa(number+1))
		body["next"] = s.URL() + "/api/projects/?" + q.Encode()
	}
	return ok(body)
}

func (s *StandIn) createProject(r *request) *answer {
	var in labelstudio.NewProject
	if refusal := r.decode(&in); refusal != nil {
		return refusal
	}
	if n := utf8.RuneCountInString(in.Title); n < 3 || n > 50 {
		return invalid(object{"title": []string{fmt.Sprintf("Project name of %d characters must have 3 to 50.", n)}})
	}
	required, err := requiredKeys(in.LabelConfig)
	if err != nil {
		return invalid(object{"label_config": []string{err.Error()}})
	}
	p := s.addProject(in.Title, in.Description, in.LabelConfig, required)
	return &answer{status: http.StatusCreated, body: s.projectBody(p)}
}

// requiredKeys are the keys of data that the configuration's object tags show. A Header shows one as well and needs none.
func requiredKeys(config string) ([]string, error) {
	objects := []string{"Text", "HyperText", "Paragraphs", "Image", "Audio", "Video", "List", "Table", "Chat", "TimeSeries", "Pdf"}
	var keys []string
	for d := xml.NewDecoder(strings.NewReader(config)); ; {
		token, err := d.Token()
		if err == io.EOF {
			return keys, nil
		}
		if err != nil {
			return nil, err
		}
		tag, isTag := token.(xml.StartElement)
		if !isTag || !slices.Contains(objects, tag.Name.Local) {
			continue
		}
		for _, a := range tag.Attr {
			if key, found := strings.CutPrefix(a.Value, "$"); found && a.Name.Local == "value" {
				keys = append(keys, key)
			}
		}
	}
}

// updateProject takes a title and nothing else.
func (s *StandIn) updateProject(r *request) *answer {
	p := s.projects[r.id()]
	if p == nil {
		return missing("Project")
	}
	var in labelstudio.NewProject
	if refusal := r.decode(&in); refusal != nil {
		return refusal
	}
	if in.Title != "" {
		p.title = in.Title
	}
	return &answer{status: http.StatusOK, body: s.projectBody(p), after: s.announce(p.id, labelstudio.ProjectUpdated, object{})}
}

func (s *StandIn) deleteProject(r *request) *answer {
	if s.projects[r.id()] == nil {
		return missing("Project")
	}
	s.removeProject(r.id())
	return noContent(nil)
}

// imported is one item of an import.
type imported struct {
	Data        json.RawMessage `json:"data"`
	Meta        json.RawMessage `json:"meta"`
	Annotations []noteIn        `json:"annotations"`
}

func (s *StandIn) importCost(r *request) time.Duration {
	var items []json.RawMessage
	if json.Unmarshal(r.body, &items) != nil {
		return s.delays.Other
	}
	return s.delays.Other + time.Duration(len(items))*s.delays.ImportTask
}

// importTasks takes all or none.
func (s *StandIn) importTasks(r *request) *answer {
	p := s.projects[r.id()]
	if p == nil {
		return missing("Project")
	}
	var items []imported
	if refusal := r.decode(&items); refusal != nil {
		return refusal
	}
	wrong := make([]any, len(items))
	var refused bool
	for i := range items {
		wrong[i] = object{}
		if text := items[i].check(p); text != "" {
			wrong[i], refused = fmt.Sprintf("Error at item %d: %s", i, text), true
		}
	}
	if refused {
		return invalid(object{"non_field_errors": wrong})
	}
	made, notes := make([]*task, 0, len(items)), 0
	for _, item := range items {
		t := s.addTask(p, item.Data, item.Meta)
		for _, in := range item.Annotations {
			truth := in.GroundTruth == nil || *in.GroundTruth // unasked
			in.GroundTruth = nil
			a := s.addNote(r.user, t, in)
			a.groundTruth, a.updatedBy = truth, 0
			notes++
		}
		t.updatedBy = 0
		made = append(made, t)
	}
	body := object{"task_count": len(made), "annotation_count": notes, "prediction_count": 0, "duration": 0.1, "file_upload_ids": []int64{}, "could_be_tasks_list": false, "found_formats": []string{}, "data_columns": []string{}}
	if r.URL.Query().Get("return_task_ids") == "true" {
		ids := make([]int64, 0, len(made))
		for _, t := range made {
			ids = append(ids, t.id)
		}
		body["task_ids"] = ids
	}
	return &answer{status: http.StatusCreated, body: body, after: s.announce(p.id, labelstudio.TasksCreated, s.createdPayloads(p, made)...)}
}

// check says what is wrong with an item, and brings its JSON into the stored form.
func (item *imported) check(p *project) string {
	var data map[string]json.RawMessage
	if json.Unmarshal(item.Data, &data) != nil || data == nil {
		return `"data" must be an object`
	}
	for _, key := range p.required {
		if _, there := data[key]; !there {
			return fmt.Sprintf("%q key is expected in task data", key)
		}
	}
	if string(item.Meta) == "null" {
		return "meta may not be null"
	}
	if item.Meta == nil {
		item.Meta = json.RawMessage("{}")
	}
	var err error
	if item.Data, err = jsonb(item.Data); err != nil {
		return err.Error()
	}
	if item.Meta, err = jsonb(item.Meta); err != nil {
		return err.Error()
	}
	for _, in := range item.Annotations {
		if !in.hasList() {
			return "result must be a list"
		}
	}
	return ""
}

func (s *StandIn) getTask(r *request) *answer {
	t := s.tasks[r.id()]
	if t == nil {
		return missing("Task")
	}
	return ok(s.taskBody(t, single))
}

// patchTask replaces what is given. Its answer has meta as it was sent, not as it is stored.
func (s *StandIn) patchTask(r *request) *answer {
	t := s.tasks[r.id()]
	if t == nil {
		return missing("Task")
	}
	var in struct {
		Meta json.RawMessage `json:"meta"`
		Data json.RawMessage `json:"data"`
	}
	if json.Valid(r.body) && r.body[0] == '[' {
		return refuse(http.StatusInternalServerError, "'list' object has no attribute 'get'")
	}
	if refusal := r.decode(&in); refusal != nil {
		return refusal
	}
	if string(in.Data) == "null" {
		return invalid(object{"data": []string{"This field may not be null."}})
	}
	stored := [2]json.RawMessage{t.data, t.meta}
	for i, given := range []json.RawMessage{in.Data, in.Meta} {
		if given == nil {
			continue
		}
		var err error
		if stored[i], err = jsonb(given); err != nil {
			return refuse(http.StatusInternalServerError, err.Error())
		}
	}
	t.setData(stored[0])
	t.meta, t.updated = stored[1], s.now()
	body := s.taskBody(t, patched)
	if in.Meta == nil {
		return ok(body)
	}
	body["meta"] = in.Meta
	a := ok(body)
	if notify := s.patch.get(); notify != nil {
		id, meta := t.id, t.meta
		a.after = func(context.Context) { notify(id, meta) }
	}
	return a
}

func (s *StandIn) dropTask(r *request) *answer {
	t := s.tasks[r.id()]
	if t == nil {
		return missing("Task")
	}
	return noContent(s.deleteTask(t))
}

func (s *StandIn) listHooks(r *request) *answer {
	projectID, _ := strconv.ParseInt(r.URL.Query().Get("project"), 10, 64)
	list := make([]labelstudio.Webhook, 0)
	for _, h := range s.hooks {
		if projectID == 0 || h.Project == projectID {
			list = append(list, *h)
		}
	}
	slices.SortFunc(list, func(a, b labelstudio.Webhook) int { return int(a.ID - b.ID) })
	return ok(list)
}

func (s *StandIn) createHook(r *request) *answer {
	h := labelstudio.Webhook{SendPayload: true, SendForAllActions: true, IsActive: true, Actions: []string{}, Headers: map[string]string{}}
	if refusal := r.decode(&h); refusal != nil {
		return refusal
	}
	if h.Project == 0 {
		return refuse(http.StatusNotFound, "Project not found.")
	}
	wrong := checkHook(&h)
	if s.projects[h.Project] == nil {
		wrong["project"] = []string{fmt.Sprintf("Invalid pk \"%d\" - object does not exist.", h.Project)}
	}
	if len(wrong) > 0 {
		return invalid(wrong)
	}
	s.ids.webhook++
	h.ID = s.ids.webhook
	s.hooks[h.ID] = &h
	return &answer{status: http.StatusCreated, body: h}
}

// updateHook takes the absence of actions for none, as the real one does.
func (s *StandIn) updateHook(r *request) *answer {
	h := s.hooks[r.id()]
	if h == nil {
		return missing("Webhook")
	}
	changed := *h
	changed.Actions, changed.Headers = []string{}, nil
	if refusal := r.decode(&changed); refusal != nil {
		return refusal
	}
	if changed.Headers == nil {
		changed.Headers = h.Headers
	}
	changed.ID, changed.Project = h.ID, h.Project
	if wrong := checkHook(&changed); len(wrong) > 0 {
		return invalid(wrong)
	}
	*h = changed
	return ok(changed)
}

func (s *StandIn) dropHook(r *request) *answer {
	if s.hooks[r.id()] == nil {
		return missing("Webhook")
	}
	delete(s.hooks, r.id())
	return noContent(nil)
}
