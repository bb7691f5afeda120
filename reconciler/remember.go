package reconciler

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/star"
)

// remember turns a decision into what is to be stored, and into the PATCHes.
func (t *Turner) remember(out *decided, c ledger.Claim, st *state, edges []seen, d star.Decision, searched bool) {
	row, before := st.row, st.hub
	hub := ledger.Hub{Key: c.Key, D: &d.Hub.D, N: d.Hub.N, CreatedAt: row.CreatedAt, Searched: searched}
	if before != nil {
		hub.Before = before.Before
	}
	if !row.IsVictory() {
		hub.Before = row.Result
	}
	var who *string
	place := &aristotle.Place{Fill: true}
	if d.Speaker >= 0 {
		who, place.Annotation = t.speaker(edges[d.Speaker], d.Edges[d.Speaker])
		place.Task, place.Fill = d.Edges[d.Speaker].Task, false
	} else if len(edges) > 0 { // one that is there, if any is
		place.Task = edges[max(0, slices.IndexFunc(edges, func(e seen) bool { return !e.gone }))].stored.Task
	} else {
		place = nil
	}
	var wrote *string
	if d.Hub.D != row.IsVictory() {
		v := t.verdict(&hub, who)
		wrote = &v.Result
		out.verdict = append(out.verdict, v)
		out.count = append(out.count, func(ctx context.Context) { t.carried(ctx, c, metrics.ToAristotle, time.Since(c.Since)) })
	}
	if before == nil || !reflect.DeepEqual(*before, hub) {
		out.hubs = append(out.hubs, hub)
	}
	if d.Hub.D || st.lost || starHub(before).D {
		out.ratings = append(out.ratings, aristotle.Rate(*row, d.Hub.D, place, st.ratings)...)
	}
	if was := starHub(before); was.Known && was.D != row.IsVictory() { // whatever a task says on top of it
		now, n := row.IsVictory(), was.N+1
		out.audit = append(out.audit, ledger.Audit{Key: c.Key, Source: trigger(c), Reason: ledger.ReasonRow, Result: row.Result, D: &now, N: &n})
	}
	for i := range edges {
		t.rememberEdge(out, c, st, edges[i], d, i, who, wrote)
	}
	if len(out.audit) == 0 && len(out.ratings) > 0 {
		out.audit = append(out.audit, ledger.Audit{Key: c.Key, Source: trigger(c), Reason: ledger.ReasonRating, Result: row.Result, D: hub.D, N: &hub.N})
	}
}

// trigger is what led to the turn. Where only the look after a PATCH was due, no event has.
func trigger(c ledger.Claim) ledger.Source {
	if !c.Dirty {
		return ledger.FromLook
	}
	return c.Source
}

func (t *Turner) rememberEdge(out *decided, c ledger.Claim, st *state, e seen, d star.Decision, i int, who, wrote *string) {
	o := d.Edges[i]
	if o.Write {
		o.Intent.Attempt = star.Stamp(t.attempt())
	}
	stored := remember(e.stored, o.Edge)
	t.rememberTask(&stored, e, o)
	if o.Write {
		limit := t.Deadline.Seconds()
		stored.IntentFor = &limit
		out.write.patches = append(out.write.patches, patch{task: e.task, value: o.Intent.Value,
			attempt: string(o.Intent.Attempt), notes: cmp.Or(st.row.Notes, st.notes)})
	}
	out.store(stored, e.stored)
	if o.Held && e.stored.Held == nil {
		out.count = append(out.count, func(ctx context.Context) {
			t.Log.WarnContext(ctx, "held: the sides differed at first contact, and neither may win", logKey, c.Key, logTask, stored.Task)
		})
	}
	out.record(c, st, e, stored, d, i)
	if i == d.Speaker { // then it has a record
		rec := &out.audit[len(out.audit)-1]
		rec.Who, rec.Wrote = who, wrote
	}
}

// record audits what was decided on one edge, where that wrote something or held back.
func (d *decided) record(c ledger.Claim, st *state, e seen, stored ledger.Edge, by star.Decision, i int) {
	o, was := by.Edges[i], e.stored
	rec := ledger.Audit{Key: c.Key, Task: &stored.Task, Source: trigger(c), Result: st.row.Result, D: &by.Hub.D, N: &by.Hub.N}
	if gone := stored.MissingSince != nil; gone != (was.MissingSince != nil) {
		rec.Reason = ledger.ReasonBack
		if gone {
			rec.Reason = ledger.ReasonMissing
		}
		d.audit = append(d.audit, rec)
	}
	if text, found := found[o.Reason]; found {
		d.answers = append(d.answers, ledger.Answer{Attempt: *was.IntentAttempt, Text: text})
	}
	if o.Said == star.Absent && !o.Write && (!o.Held || was.Held != nil) {
		return
	}
	shown := e.look.Shown()
	rec.Reason, rec.Shown, rec.Stars = string(o.Reason), &shown, e.look.Stars
	if o.Said != star.Absent {
		said, where := o.Said == star.Yes, string(o.By)
		rec.Said, rec.SaidBy = &said, &where
	}
	if o.Write {
		rec.Intent, rec.Attempt = &o.Intent.Value, stored.IntentAttempt
	}
	d.audit = append(d.audit, rec)
}

// found is what a look tells of a PATCH whose answer was lost.
var found = map[star.Reason]string{star.Worked: ledger.AnswerFound, star.Reversed: ledger.AnswerReversed, star.DidNotHappen: ledger.AnswerNever}

// store writes an edge where that changes anything: a pass at rest writes nothing.
func (d *decided) store(e, was ledger.Edge) {
	if !sameEdge(e, was) {
		d.edges = slices.DeleteFunc(d.edges, func(f ledger.Edge) bool { return f.Task == e.Task })
		d.edges = append(d.edges, e)
	}
}

// rememberTask notes what an edge remembers beside the decision.
func (t *Turner) rememberTask(stored *ledger.Edge, e seen, o star.Outcome) {
	stored.Held = nil
	switch {
	case e.gone:
		if stored.MissingSince == nil {
			now := time.Now()
			stored.MissingSince = &now
		}
	case e.pause != nil: // it waits for the first pass over the project that it is in now
		stored.MissingSince, stored.Project = nil, e.task.Project
	case e.look.Sight == star.Waiting: // what it is now may be another task: that is for the look after the wait
		stored.MissingSince = nil
	case e.look.Sight == star.Seen:
		stored.MissingSince = nil
		stored.Project = e.task.Project
		stored.TaskCreatedAt, stored.TaskUpdatedAt = &e.task.CreatedAt, &e.task.UpdatedAt
	}
	if o.Held {
		stored.Held = t.note(e)
	} else if e.look.Sight != star.Seen {
		stored.Held = e.stored.Held
	}
}

// note is what was seen of a task that is held.
func (t *Turner) note(e seen) *ledger.Held {
	seen := remember(ledger.Edge{}, e.look.Remembered()) // as a click will store it
	h := &ledger.Held{Shown: *seen.S, Older: seen.Older, Stamp: string(e.look.Meta.Stamp), Stars: seen.Base, Since: time.Now().UTC().Truncate(time.Millisecond)}
	if was := e.stored.Held; was != nil && !was.Since.IsZero() {
		h.Since = was.Since
	}
	if n := len(h.Stars); n > 0 {
		a := annotationOf(e.task, h.Stars[n-1])
		at := a.UpdatedAt.UTC()
		h.Who, h.At = t.people.email(lastHand(a)), &at
	}
	return h
}

// sameEdge tells whether two edges are stored alike.
func sameEdge(a, b ledger.Edge) bool {
	timesSame := sameTime(a.TaskCreatedAt, b.TaskCreatedAt) && sameTime(a.TaskUpdatedAt, b.TaskUpdatedAt)
	baseSame := slices.Equal(a.Base, b.Base)
	for _, e := range []*ledger.Edge{&a, &b} {
		e.TaskCreatedAt, e.TaskUpdatedAt, e.Base, e.IntentWait = nil, nil, nil, nil
	}
	return timesSame && baseSame && reflect.DeepEqual(a, b)
}

func sameTime(a, b *time.Time) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(*b)
}

// verdict is a person's word for the row. Who takes a star away gives the row back
// the result that it had before VICTORY.
func (t *Turner) verdict(hub *ledger.Hub, who *string) aristotle.Verdict {
	v := aristotle.Verdict{ID: hub.Key, Result: aristotle.Victory, By: who}
	if who == nil {
		v.By = t.Evaluator
	}
	if !*hub.D {
		v.Result = hub.GiveBack()
	}
	return v
}

// speaker is who said what the hub followed, and by which annotation. A change of
// meta does not say who made it.
func (t *Turner) speaker(e seen, o star.Outcome) (who *string, annotation int64) {
	if o.Said == star.Yes {
		if fresh := e.look.Stars.Minus(e.look.Base); len(fresh) > 0 && o.By != star.ByMeta {
			a := annotationOf(e.task, fresh[len(fresh)-1])
			return t.people.email(lastHand(a)), a.ID
		}
		return nil, 0
	}
	if o.By == star.ByAnnotation {
		gone := e.look.Base[len(e.look.Base)-1]
		return t.people.email(lastHand(annotationOf(e.task, gone))), 0
	}
	return nil, 0
}

// lastHand is who last wrote an annotation: its author, unless somebody has edited it.
func lastHand(a labelstudio.Annotation) labelstudio.UserRef {
	if a.UpdatedBy.ID != 0 && a.UpdatedAt.Sub(a.CreatedAt) > time.Second {
		return a.UpdatedBy
	}
	return a.CompletedBy
}

func annotationOf(task sight, id int64) labelstudio.Annotation {
	for _, a := range task.Annotations {
		if a.ID == id {
			return a
		}
	}
	return labelstudio.Annotation{ID: id} // it was deleted: who did it is not known
}
