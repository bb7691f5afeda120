package reconciler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/star"
)

// decided is what S3 makes of one key: what to commit, and what to send after it.
type decided struct {
	change
	write writes
	count []func(context.Context) // the metrics and the log, once it is committed
}

// seen is one edge of the key together with what was read of its task.
type seen struct {
	stored ledger.Edge
	look   star.Look
	task   sight // where it was Seen
}

// decide is S3 for one key, between its locks and its writes. It asks nobody.
func (t *Turner) decide(c ledger.Claim, st *state, s *sights) decided {
	out := decided{write: writes{claim: c}}
	if st.hub != nil && (st.row == nil || !sameRow(st.hub, st.row)) {
		if wait, alive := aliveFor(c, st.edges, s); alive {
			out.ends = []ledger.End{later(c, wait)}
			return out
		}
		out.forgetRow(c, st)
	}
	edges := t.see(&out, c, st, s)
	if st.row == nil { // tasks whose conquest is not there, or not any more: seen, and nothing to decide
		for _, e := range edges {
			stored := e.stored
			t.rememberTask(&stored, e, star.Outcome{})
			out.store(stored, e.stored)
		}
		out.ends = []ledger.End{success(c)}
		return out
	}
	looks := make([]star.Look, len(edges))
	for i, e := range edges {
		looks[i] = e.look
	}
	d := star.Decide(resultOf(st.row), starHub(st.hub), looks)
	t.remember(&out, c, st, edges, d, c.Search && s.unsearched == nil)
	if out.write.end = out.end(c, s, edges, d); len(out.write.patches) == 0 {
		out.ends = []ledger.End{out.write.end}
	}
	if d.Conflict {
		out.count = append(out.count, func(context.Context) { t.Metrics.Sync.With(direction(d), metrics.Conflict).Inc() })
	}
	return out
}

func starHub(h *ledger.Hub) star.Hub {
	if h == nil || h.D == nil {
		return star.Hub{}
	}
	return star.Hub{Known: true, D: *h.D, N: h.N}
}

// aliveFor tells whether a PATCH of the edges may still take effect, and for how long.
func aliveFor(c ledger.Claim, edges []ledger.Edge, s *sights) (wait time.Duration, alive bool) {
	for _, e := range edges {
		if !settled(c, e, readMeta(e.Task, s.tasks[e.Task].Meta).Stamp) {
			wait, alive = max(wait, time.Duration(*e.IntentWait*float64(time.Second))), true
		}
	}
	return wait, alive
}

// forgetRow drops what was known of a row that is gone, or is another row now.
func (d *decided) forgetRow(c ledger.Claim, st *state) {
	d.forget = []string{c.Key}
	d.audit = append(d.audit, ledger.Audit{Key: c.Key, Source: c.Source, Reason: "the row is gone or another one", D: st.hub.D, N: &st.hub.N})
	st.lost, st.hub = st.hub.D != nil && *st.hub.D, nil
	for i, e := range st.edges {
		e = remember(e, toStar(e).Forget())
		e.Held = nil
		st.edges[i] = e
		d.edges = append(d.edges, e)
	}
}

// see puts each stored edge together with what was read of its task. Edges whose
// task is another task now are unlinked on the way.
func (t *Turner) see(d *decided, c ledger.Claim, st *state, s *sights) []seen {
	var edges []seen
	for _, e := range st.edges {
		task, read := s.tasks[e.Task]
		look := star.Look{Edge: toStar(e), Sight: star.Unread}
		switch {
		case s.missing[e.Task]:
			look.Sight = star.Missing
		case read:
			look.Meta = readMeta(e.Task, task.Meta)
			look.Stars = stars(&task.Task, t.GroundTruth)
			look.Sight = star.Waiting
			if settled(c, e, look.Meta.Stamp) {
				look.Sight = star.Seen
			}
			if key := ledger.KeyOf(task.Data); look.Sight == star.Seen && (key != c.Key || isOther(e, task)) {
				d.relink(c, e, task, key)
				continue
			}
		}
		edges = append(edges, seen{stored: e, look: look, task: task})
	}
	return edges
}

// settled tells whether an edge's PATCH can take effect no more: there is none, its
// deadline had passed when the key was claimed, before the task was read, or the
// task carries its stamp.
func settled(c ledger.Claim, e ledger.Edge, read star.Stamp) bool {
	if e.IntentAttempt == nil || star.Stamp(*e.IntentAttempt) == read {
		return true
	}
	i := slices.IndexFunc(c.Edges, func(k ledger.ClaimedEdge) bool { return k.Task == e.Task })
	return i >= 0 && c.Edges[i].Attempt == *e.IntentAttempt && !c.Edges[i].Alive
}

// isOther tells whether a task is not the one that its edge remembers: its number
// was used again.
func isOther(e ledger.Edge, task sight) bool {
	return e.TaskCreatedAt != nil && !task.CreatedAt.IsZero() && !e.TaskCreatedAt.Equal(task.CreatedAt)
}

// relink forgets an edge whose task is another task now, and begins a new one for
// the conquest that the task names.
func (d *decided) relink(c ledger.Claim, e ledger.Edge, task sight, key string) {
	d.unlink = append(d.unlink, e.Task)
	d.edges = slices.DeleteFunc(d.edges, func(f ledger.Edge) bool { return f.Task == e.Task })
	d.audit = append(d.audit, ledger.Audit{Key: c.Key, Task: &e.Task, Source: c.Source, Reason: "another task now"})
	if key != "" {
		d.links = append(d.links, ledger.Link{Task: e.Task, Project: task.Project, Key: key})
		d.dirty = append(d.dirty, key)
	}
}

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
	} else if len(edges) > 0 {
		place.Task = edges[0].stored.Task
	} else {
		place = nil
	}
	var wrote *string
	if d.Hub.D != row.IsVictory() {
		v := verdict(c.Key, d.Hub.D, hub.Before, who, t.Evaluator)
		wrote = &v.Result
		out.verdict = append(out.verdict, v)
		out.count = append(out.count, func(ctx context.Context) { t.carried(ctx, c, metrics.ToAristotle) })
	}
	if before == nil || !reflect.DeepEqual(*before, hub) {
		out.hubs = append(out.hubs, hub)
	}
	if d.Hub.D || st.lost || starHub(before).D {
		out.ratings = append(out.ratings, aristotle.Rate(*row, d.Hub.D, place, st.ratings)...)
	}
	for i := range edges {
		t.rememberEdge(out, c, st, edges[i], d, i, who, wrote)
	}
	if edited := starHub(before).Known && d.Hub.D != starHub(before).D && d.Speaker < 0; edited && len(out.audit) == 0 {
		out.audit = append(out.audit, ledger.Audit{Key: c.Key, Source: c.Source, Reason: "edit of the row", Result: row.Result, D: hub.D, N: &hub.N})
	}
}

func (t *Turner) rememberEdge(out *decided, c ledger.Claim, st *state, e seen, d star.Decision, i int, who, wrote *string) {
	o := d.Edges[i]
	if o.Write {
		o.Intent.Attempt = star.Stamp(uuid.NewString())
	}
	stored := remember(e.stored, o.Edge)
	t.rememberTask(&stored, e, o)
	if o.Write {
		limit := t.Deadline.Seconds()
		stored.IntentFor = &limit
		out.write.patches = append(out.write.patches, patch{task: e.task, value: o.Intent.Value,
			attempt: string(o.Intent.Attempt), notes: st.row.Notes})
	}
	out.store(stored, e.stored)
	if o.Said == star.Absent && !o.Write && (!o.Held || e.stored.Held != nil) {
		return
	}
	rec := ledger.Audit{Key: c.Key, Task: &stored.Task, Source: c.Source, Reason: string(o.Reason), Result: st.row.Result,
		Stars: e.look.Stars, D: &d.Hub.D, N: &d.Hub.N}
	shown := e.look.Shown()
	rec.Shown = &shown
	if o.Said != star.Absent {
		said, by := o.Said == star.Yes, string(o.By)
		rec.Said, rec.SaidBy = &said, &by
	}
	if i == d.Speaker {
		rec.Who, rec.Wrote = who, wrote
	}
	if o.Write {
		rec.Intent, rec.Attempt = &o.Intent.Value, stored.IntentAttempt
	}
	out.audit = append(out.audit, rec)
}

// store writes an edge where that changes anything: a pass at rest writes nothing.
func (d *decided) store(e, was ledger.Edge) {
	if !sameEdge(e, was) {
		d.edges = slices.DeleteFunc(d.edges, func(f ledger.Edge) bool { return f.Task == e.Task })
		d.edges = append(d.edges, e)
	}
}

// held is what was seen when a first contact was held: what a person's click settles.
type held struct {
	Shown bool       `json:"shown"`
	Stamp star.Stamp `json:"stamp"`
	Stars star.IDs   `json:"stars"`
}

// rememberTask notes what an edge remembers beside the decision.
func (t *Turner) rememberTask(stored *ledger.Edge, e seen, o star.Outcome) {
	stored.Held = nil
	switch e.look.Sight {
	case star.Missing:
		if stored.MissingSince == nil {
			now := time.Now()
			stored.MissingSince = &now
		}
	case star.Seen, star.Waiting:
		stored.MissingSince = nil
		stored.Project = e.task.Project
		stored.TaskCreatedAt = &e.task.CreatedAt
		if e.look.Sight == star.Seen {
			stored.TaskUpdatedAt = &e.task.UpdatedAt
		}
	}
	if o.Held {
		raw, err := json.Marshal(held{Shown: e.look.Shown(), Stamp: e.look.Meta.Stamp, Stars: e.look.Stars})
		if err != nil {
			panic(err) // a struct of a boolean, a text and numbers
		}
		stored.Held = raw
	} else if e.look.Sight != star.Seen {
		stored.Held = e.stored.Held
	}
}

// sameEdge tells whether two edges are stored alike.
func sameEdge(a, b ledger.Edge) bool {
	heldSame := sameHeld(a.Held, b.Held)
	timesSame := sameTime(a.TaskCreatedAt, b.TaskCreatedAt) && sameTime(a.TaskUpdatedAt, b.TaskUpdatedAt)
	baseSame := slices.Equal(a.Base, b.Base)
	for _, e := range []*ledger.Edge{&a, &b} {
		e.Held, e.TaskCreatedAt, e.TaskUpdatedAt, e.Base, e.IntentWait = nil, nil, nil, nil, nil
	}
	return heldSame && timesSame && baseSame && reflect.DeepEqual(a, b)
}

func sameTime(a, b *time.Time) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(*b)
}

func sameHeld(a, b json.RawMessage) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	var x, y held
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// verdict is a person's word for the row. Who takes a star away gives the row back
// the result that it had before VICTORY.
func verdict(key string, gold bool, before, who, unknown *string) aristotle.Verdict {
	v := aristotle.Verdict{ID: key, Result: aristotle.Victory, By: who}
	if who == nil {
		v.By = unknown
	}
	if !gold {
		v.Result = aristotle.Pending
		if before != nil && *before != aristotle.Victory {
			v.Result = *before
		}
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

// direction is where a decision carried a change to.
func direction(d star.Decision) metrics.Direction {
	if d.Speaker >= 0 || slices.ContainsFunc(d.Edges, func(o star.Outcome) bool { return o.Held }) {
		return metrics.ToAristotle
	}
	return metrics.ToLabelStudio
}

// carried counts a change that reached the other side.
func (t *Turner) carried(ctx context.Context, c ledger.Claim, to metrics.Direction) {
	took := time.Since(c.Since)
	t.Metrics.Sync.With(to, metrics.Success).Inc()
	t.Metrics.SyncDuration.With(to).Observe(took.Seconds())
	t.Log.LogAttrs(ctx, slog.LevelInfo, "carried", slog.String(logKey, c.Key), slog.String(logTo, string(to)), slog.Duration(logTook, took))
}

var errUnseen = errors.New("a task that was linked meanwhile is not read yet")

// end says how the turn of a key ends, as far as S3 knows. Where a PATCH is to come
// its end waits for that: see patchAll.
func (d *decided) end(c ledger.Claim, s *sights, edges []seen, decision star.Decision) ledger.End {
	e := success(c)
	if c.Search && s.unsearched != nil {
		e = s.unreadEnd(c, fmt.Errorf("look up its task: %w", s.unsearched))
	}
	for i, edge := range edges {
		switch {
		case edge.look.Sight == star.Waiting:
			e = sooner(e, later(c, time.Duration(*edge.stored.IntentWait*float64(time.Second))))
		case edge.look.Sight == star.Unread || decision.Edges[i].Open:
			e = sooner(e, s.unreadEnd(c, s.errs[edge.stored.Task]))
		}
	}
	if slices.ContainsFunc(decision.Edges, func(o star.Outcome) bool { return o.Reason == star.Worked || o.Reason == star.Reversed }) {
		look := lookAgain.Seconds() // a PATCH whose answer was lost: its S6 is still to come
		e.Look = &look
	}
	return e
}

// unreadEnd is the end of a turn that could not read a task. Label Studio being away
// is no failure of the key: it waits with all others until the worker has found it again.
func (s *sights) unreadEnd(c ledger.Claim, err error) ledger.End {
	switch {
	case s.away != nil:
		return later(c, 0)
	case err == nil: // linked between the claim and S3
		e := later(c, 0)
		text := errUnseen.Error()
		e.Error = &text
		return e
	default:
		return failed(c, err)
	}
}

// sooner is the end that is due first; a success is due last.
func sooner(a, b ledger.End) ledger.End {
	if a.Wait == nil || b.Wait != nil && *b.Wait < *a.Wait {
		return b
	}
	return a
}
