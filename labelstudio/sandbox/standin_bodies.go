package sandbox

import "strconv"

// shape says in which answer a task stands: Label Studio writes users differently in each.
type shape int

const (
	single  shape = iota // GET of one task: completed_by an object, updated_by a list
	patched              // answer to a PATCH: both numbers
	row                  // in a listing: completed_by a number, updated_by a list
	hook                 // in a webhook: as stored, without annotations
)

func (s *StandIn) taskBody(t *task, in shape) object {
	body := object{
		"id": t.id, "project": t.project, "inner_id": t.inner, "data": t.data, "meta": t.meta,
		"created_at": clock(t.created), "updated_at": clock(t.updated),
		"is_labeled": len(t.notes) > 0, "overlap": 1, "total_annotations": len(t.notes) - t.cancelled(), "cancelled_annotations": t.cancelled(),
		"total_predictions": 0, "comment_count": 0, "unresolved_comment_count": 0, "last_comment_updated_at": nil,
		"comment_authors": []int64{}, "file_upload": nil, "updated_by": userID(t.updatedBy),
	}
	if in == hook {
		body["allow_skip"], body["precomputed_agreement"] = true, nil
		return body
	}
	notes := make([]object, 0, len(t.notes))
	for _, a := range t.notes {
		notes = append(notes, s.noteBody(a, in))
	}
	body["annotations"], body["predictions"] = notes, []object{}
	if in != patched {
		body["drafts"], body["annotations_ids"] = []object{}, noteIDs(t)
		body["updated_by"] = []object{}
		if t.updatedBy != 0 {
			body["updated_by"] = []object{{"user_id": t.updatedBy}}
		}
	}
	return body
}

func (t *task) cancelled() (n int) {
	for _, a := range t.notes {
		if a.cancelled {
			n++
		}
	}
	return n
}

func noteIDs(t *task) (list string) {
	for i, a := range t.notes {
		if i > 0 {
			list += ","
		}
		list += strconv.FormatInt(a.id, 10)
	}
	return list
}

func (s *StandIn) noteBody(a *annotation, in shape) object {
	body := object{
		"id": a.id, "task": a.task, "project": s.tasks[a.task].project, "result": a.result,
		"was_cancelled": a.cancelled, "ground_truth": a.groundTruth, "completed_by": userID(a.completedBy), "updated_by": userID(a.updatedBy),
		"created_at": clock(a.created), "updated_at": clock(a.updated), "draft_created_at": nil, "lead_time": a.leadTime,
		"import_id": nil, "last_action": nil, "bulk_created": false, "parent_prediction": nil, "parent_annotation": nil, "last_created_by": nil,
	}
	if in == hook {
		body["prediction"], body["unique_id"] = object{}, newUUID()
		return body
	}
	if u := s.users[a.completedBy]; u != nil {
		body["created_username"], body["created_ago"] = " "+u.email+", "+strconv.FormatInt(u.id, 10), "0\u00a0minutes"
		if in == single {
			author := person(u)
			author["initials"] = initials(u)
			body["completed_by"] = author
		}
	}
	return body
}

// person is a user inside something else.
func person(u *user) object {
	return object{"id": u.id, "email": u.email, "first_name": "", "last_name": "", "avatar": nil}
}

func userBody(u *user) object {
	return object{
		"id": u.id, "email": u.email, "username": "", "first_name": "", "last_name": "", "initials": initials(u), "avatar": nil, "phone": "",
		"active_organization": 1, "active_organization_meta": object{"title": "Label Studio", "email": "sync@example.com"},
	}
}

func initials(u *user) string { return u.email[:min(2, len(u.email))] }

func (s *StandIn) projectBody(p *project) object {
	var notes int
	for _, t := range p.tasks {
		notes += len(t.notes)
	}
	return object{
		"id": p.id, "title": p.title, "description": p.description, "label_config": p.config, "organization": 1,
		"created_at": clock(p.created), "created_by": person(s.users[1]), "task_number": len(p.tasks), "total_annotations_number": notes,
		"is_published": false, "is_draft": false, "color": "#FFFFFF", "maximum_annotations": 1, "sampling": "Sequential sampling",
	}
}

// projectToken stands in each webhook's project, as a secret does in the real one's: it must be found in no log.
const projectToken = "stand-in-project-token-never-log-me"

// hookProject is the project as webhooks carry it: users as numbers, secrets in clear.
func (s *StandIn) hookProject(p *project) object {
	body := s.projectBody(p)
	body["created_by"], body["token"], body["task_data_password"] = 1, projectToken, nil
	return body
}
