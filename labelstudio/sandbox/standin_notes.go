package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/aristotle/reconciler/labelstudio"
)

// noteIn is an annotation as it is sent; what is absent stays.
type noteIn struct {
	Result       json.RawMessage `json:"result"`
	WasCancelled *bool           `json:"was_cancelled"`
	GroundTruth  *bool           `json:"ground_truth"`
	CompletedBy  *int64          `json:"completed_by"`
	LeadTime     *float64        `json:"lead_time"`
}

func (in noteIn) hasList() bool {
	var list []json.RawMessage
	return json.Unmarshal(in.Result, &list) == nil && list != nil
}

// addNote makes an annotation of a task by a user.
func (s *StandIn) addNote(u *user, t *task, in noteIn) *annotation {
	s.ids.annotation++
	now := s.now()
	a := &annotation{id: s.ids.annotation, task: t.id, result: json.RawMessage("[]"), completedBy: u.id, created: now}
	t.notes = append(t.notes, a)
	s.notes[a.id] = a
	s.changeNote(u, a, in)
	return a
}

// changeNote sets what is given and moves the times of annotation and task.
func (s *StandIn) changeNote(u *user, a *annotation, in noteIn) {
	t := s.tasks[a.task]
	if in.Result != nil {
		a.result = mustJSON(in.Result)
	}
	if in.WasCancelled != nil {
		a.cancelled = *in.WasCancelled
	}
	if in.CompletedBy != nil {
		a.completedBy = *in.CompletedBy
	}
	if in.LeadTime != nil {
		a.leadTime = in.LeadTime
	}
	if in.GroundTruth != nil {
		for _, sibling := range t.notes {
			sibling.groundTruth = sibling.groundTruth && !*in.GroundTruth // taken away without a word
		}
		a.groundTruth = *in.GroundTruth
	}
	a.updatedBy, a.updated = u.id, s.now()
	t.updatedBy, t.updated = u.id, a.updated
}

func (s *StandIn) createNote(r *request) *answer {
	t := s.tasks[r.id()]
	if t == nil {
		return missing("Task")
	}
	in, refusal := s.readNote(r)
	if refusal != nil {
		return refusal
	}
	a := s.addNote(r.user, t, in)
	return &answer{status: http.StatusCreated, body: s.noteBody(a, patched), after: s.announce(t.project, labelstudio.AnnotationCreated, s.notePayload(a))}
}

func (s *StandIn) updateNote(r *request) *answer {
	a := s.notes[r.id()]
	if a == nil {
		return missing("Annotation")
	}
	in, refusal := s.readNote(r)
	if refusal != nil {
		return refusal
	}
	s.changeNote(r.user, a, in)
	send := s.announce(s.tasks[a.task].project, labelstudio.AnnotationUpdated, s.notePayload(a))
	return &answer{status: http.StatusOK, body: s.noteBody(a, patched), after: send}
}

func (s *StandIn) readNote(r *request) (in noteIn, refusal *answer) {
	if refusal := r.decode(&in); refusal != nil {
		return in, refusal
	}
	if len(in.Result) > 0 && in.Result[0] == '"' {
		return in, refuse(http.StatusInternalServerError, "annotation \"result\" can't be parse from str to JSON")
	}
	if in.Result != nil && !in.hasList() {
		return in, invalid(object{"result": []string{"annotation `result` field in annotation must be a list of dicts or null"}})
	}
	if in.Result != nil {
		if _, err := jsonb(in.Result); err != nil {
			return in, refuse(http.StatusInternalServerError, err.Error())
		}
	}
	if in.CompletedBy != nil && s.users[*in.CompletedBy] == nil {
		return in, invalid(object{"completed_by": []string{fmt.Sprintf("Invalid pk \"%d\" - object does not exist.", *in.CompletedBy)}})
	}
	return in, nil
}

func (s *StandIn) dropNote(r *request) *answer {
	a := s.notes[r.id()]
	if a == nil {
		return missing("Annotation")
	}
	return noContent(s.removeNote(a))
}

func (s *StandIn) removeNote(a *annotation) (send func(context.Context)) {
	t := s.tasks[a.task]
	delete(s.notes, a.id)
	t.notes = slices.DeleteFunc(t.notes, func(other *annotation) bool { return other == a })
	t.updated = s.now()
	return s.announce(t.project, labelstudio.AnnotationsDeleted, object{"annotations": idsOnly(a.id)})
}

// Annotate submits an annotation as a user does in the interface, webhooks included, and returns its id.
func (s *StandIn) Annotate(userID, taskID int64, edit labelstudio.AnnotationEdit) (int64, error) {
	s.mu.Lock()
	u, t := s.users[userID], s.tasks[taskID]
	if u == nil || t == nil {
		s.mu.Unlock()
		return 0, fmt.Errorf("annotate task %d as user %d: no such task or user", taskID, userID)
	}
	a := s.addNote(u, t, noteOf(edit))
	send := s.announce(t.project, labelstudio.AnnotationCreated, s.notePayload(a))
	s.mu.Unlock()
	send(context.Background())
	return a.id, nil
}

// UpdateAnnotation changes an annotation as a user does in the interface, webhooks included.
func (s *StandIn) UpdateAnnotation(userID, id int64, edit labelstudio.AnnotationEdit) error {
	s.mu.Lock()
	u, a := s.users[userID], s.notes[id]
	if u == nil || a == nil {
		s.mu.Unlock()
		return fmt.Errorf("update annotation %d as user %d: no such annotation or user", id, userID)
	}
	s.changeNote(u, a, noteOf(edit))
	send := s.announce(s.tasks[a.task].project, labelstudio.AnnotationUpdated, s.notePayload(a))
	s.mu.Unlock()
	send(context.Background())
	return nil
}

// DeleteAnnotation deletes an annotation, webhooks included.
func (s *StandIn) DeleteAnnotation(id int64) error {
	s.mu.Lock()
	a := s.notes[id]
	if a == nil {
		s.mu.Unlock()
		return fmt.Errorf("delete annotation %d: no such annotation", id)
	}
	send := s.removeNote(a)
	s.mu.Unlock()
	send(context.Background())
	return nil
}

func noteOf(edit labelstudio.AnnotationEdit) noteIn {
	in := noteIn{Result: json.RawMessage("[]"), WasCancelled: edit.WasCancelled, GroundTruth: edit.GroundTruth}
	if edit.Result != nil {
		in.Result = encode(edit.Result)
	}
	if edit.CompletedBy != 0 {
		in.CompletedBy = &edit.CompletedBy
	}
	return in
}
