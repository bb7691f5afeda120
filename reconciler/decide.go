package reconciler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

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
	task   sight  // where it was read
	gone   bool   // 404, its project being readable
	pause  *pause // it counts as not read, for a while and through no failure; nil: it does not
}

// pause is why an answer is not acted on yet, and when to look again.
type pause struct {
	wait time.Duration
	why  error
}

// The times of a pause.
const (
	// goneFor is how long a task must have been gone until that is believed: whoever
	// restores it, or puts a proxy right, has that long.
	goneFor = time.Minute
	// firstPass is how often a key looks whether the first pass over the projects is
	// finished; its end makes the key dirty anyway.
	firstPass = 10 * time.Second
	// strangeFor is how often a key whose only task is in what may be another Label Studio's looks
	// whether that is mended; the release of the plan that links it makes the key dirty anyway.
	strangeFor = maxBackoff
)

var (
	errGone  = errors.New("Label Studio does not have its task any more: looking again before that is believed")
	errUnmet = errors.New("the first pass over the projects is not finished, or its plan waits for a release: other tasks of it may have a say")
)

// decide is S3 for one key, between its locks and its writes. It asks nobody.
func (t *Turner) decide(c ledger.Claim, st *state, s *sights) decided {
	out := decided{write: writes{claim: c}}
	if clicked(c, st) {
		out.ends = []ledger.End{later(c, 0)}
		return out
	}
	if st.hub != nil && (st.row == nil || !st.hub.Of(st.row)) {
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
	t.remember(&out, c, st, edges, d, c.Search && s.unsearched == nil && s.strange == nil)
	out.write.end = t.end(c, s, edges, d)
	if len(out.forget) > 0 { // the ratings were read before the locks, and may have been the other row's
		out.write.end = sooner(out.write.end, later(c, 0))
	}
	if len(out.write.patches) == 0 {
		out.ends = []ledger.End{out.write.end}
	}
	if d.Conflict {
		out.count = append(out.count, func(context.Context) { t.Metrics.Sync.With(direction(d), metrics.Conflict).Inc() })
	}
	return out
}

// clicked tells whether a click has changed the hub since the claim: then the ratings
// were read before it wrote one.
func clicked(c ledger.Claim, st *state) bool {
	switch {
	case st.hub == nil || st.hub.D == nil:
		return false
	case c.N == nil:
		return true
	default:
		return *c.N != st.hub.N
	}
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
			wait, alive = max(wait, left(e)), true
		}
	}
	return wait, alive
}

// forgetRow drops what was known of a row that is gone, or is another row now.
func (d *decided) forgetRow(c ledger.Claim, st *state) {
	d.forget = []string{c.Key}
	d.audit = append(d.audit, ledger.Audit{Key: c.Key, Source: trigger(c), Reason: ledger.ReasonForget, D: st.hub.D, N: &st.hub.N})
	st.lost, st.hub = st.hub.D != nil && *st.hub.D, nil
	for i, e := range st.edges {
		e = remember(e, toStar(e).Forget())
		e.Held = nil
		st.edges[i] = e
		d.edges = append(d.edges, e)
	}
}

// see puts each stored edge of our projects together with what was read of its task. Edges whose
// task is another task now are unlinked on the way.
func (t *Turner) see(d *decided, c ledger.Claim, st *state, s *sights) []seen {
	var edges []seen
	for _, stored := range st.edges {
		if !t.Projects.Have(stored.Project) {
			continue
		}
		task, read := s.tasks[stored.Task]
		e := seen{stored: stored, look: star.Look{Edge: toStar(stored), Sight: star.Unread}, task: task, gone: s.missing[stored.Task]}
		switch {
		case e.gone:
			e.miss()
		case read:
			e.look.Meta = readMeta(stored.Task, task.Meta)
			e.look.Stars = stars(&task.Task, t.GroundTruth)
			e.look.Sight = star.Waiting
			if settled(c, stored, e.look.Meta.Stamp) {
				e.look.Sight = star.Seen
			}
			if key := ledger.KeyOf(task.Data); e.look.Sight == star.Seen && (key != c.Key || isOtherTask(stored, task.CreatedAt)) {
				d.relink(c, stored, task, key)
				continue
			}
			d.keepText(c, stored, task)
			e.await()
		}
		edges = append(edges, e)
	}
	return edges
}

// miss believes that a task is gone once it has been for a while.
func (e *seen) miss() {
	left := goneFor
	if e.stored.MissingSince != nil {
		left -= time.Since(*e.stored.MissingSince)
	}
	if e.look.Sight = star.Missing; left > 0 {
		e.look.Sight, e.pause = star.Unread, &pause{left, errGone}
	}
}

// await keeps a task from having its say before the tasks of all projects are linked,
// where what it says depends on theirs: a bare VICTORY is none if one of them is starred.
func (e *seen) await() {
	if e.look.New && e.look.Begun == star.LabelStudio && e.stored.Unmet {
		e.look.Sight, e.pause = star.Unread, &pause{firstPass, errUnmet}
	}
}

// keepText stores what the task says where that is news. It decides nothing, so it
// is kept also of a task that waits.
func (d *decided) keepText(c ledger.Claim, e ledger.Edge, task sight) {
	if text := textOf(c.Key, &task.Task); ledger.KeyOf(task.Data) == c.Key && !bytes.Equal(text.Hash(), e.TextHash) {
		d.texts = append(d.texts, text)
	}
}

// settled tells whether what was read of an edge's task may be decided on: whether no
// PATCH could take effect after it was read. That is so where there was none at the
// claim, or its deadline had passed then; and where it was alive, if the intent is
// still there and the task carries its stamp. An intent that was alive and is gone
// was settled by the worker that had the key before: its PATCH may have taken effect
// after the task was read.
func settled(c ledger.Claim, e ledger.Edge, read star.Stamp) bool {
	var claimed ledger.ClaimedEdge
	if i := slices.IndexFunc(c.Edges, func(k ledger.ClaimedEdge) bool { return k.Task == e.Task }); i >= 0 {
		claimed = c.Edges[i]
	}
	switch {
	case e.IntentAttempt == nil:
		return !claimed.Alive
	case *e.IntentAttempt != claimed.Attempt:
		return false
	default:
		return !claimed.Alive || star.Stamp(*e.IntentAttempt) == read
	}
}

// left is how long an edge's intent is alive, nothing where there is none any more.
func left(e ledger.Edge) time.Duration {
	if e.IntentWait == nil {
		return 0
	}
	return time.Duration(*e.IntentWait * float64(time.Second))
}

// relink forgets an edge whose task is another task now, and begins a new one for
// the conquest that the task names.
func (d *decided) relink(c ledger.Claim, e ledger.Edge, task sight, key string) {
	d.unlink = append(d.unlink, e.Task)
	d.edges = slices.DeleteFunc(d.edges, func(f ledger.Edge) bool { return f.Task == e.Task })
	d.audit = append(d.audit, ledger.Audit{Key: c.Key, Task: &e.Task, Source: trigger(c), Reason: ledger.ReasonRelink})
	if key != "" {
		d.links = append(d.links, ledger.Link{Task: e.Task, Project: task.Project, Key: key})
		d.dirty = append(d.dirty, key)
	}
}

// direction is where a decision carried a change to.
func direction(d star.Decision) metrics.Direction {
	if d.Speaker >= 0 || slices.ContainsFunc(d.Edges, func(o star.Outcome) bool { return o.Held }) {
		return metrics.ToAristotle
	}
	return metrics.ToLabelStudio
}

// carried counts a change that reached the other side.
func (t *Turner) carried(ctx context.Context, c ledger.Claim, to metrics.Direction, took time.Duration) {
	t.Metrics.Sync.With(to, metrics.Success).Inc()
	t.Metrics.SyncDuration.With(to).Observe(took.Seconds())
	t.Log.LogAttrs(ctx, slog.LevelInfo, "carried", slog.String(logKey, c.Key), slog.String(logTo, string(to)), slog.Duration(logTook, took))
}

var errUnseen = errors.New("a task that was linked meanwhile is not read yet")

// end says how the turn of a key ends, as far as S3 knows. Where a PATCH is to come
// its end waits for that: see patchAll.
func (t *Turner) end(c ledger.Claim, s *sights, edges []seen, decision star.Decision) ledger.End {
	e := success(c)
	switch strange := s.strange[c.Key]; {
	case c.Search && s.unsearched != nil:
		e = t.unreadEnd(s, c, fmt.Errorf("look up its task: %w", s.unsearched))
	case c.Search && strange != nil && len(edges) == 0:
		e = because(later(c, strangeFor), fmt.Errorf("look up its task: %w", strange))
	}
	for i, edge := range edges { // one that is Open waits for one of the others
		switch {
		case edge.look.Sight == star.Waiting:
			e = sooner(e, later(c, left(edge.stored)))
		case edge.pause != nil:
			e = sooner(e, because(later(c, edge.pause.wait), edge.pause.why))
		case edge.look.Sight == star.Unread:
			e = sooner(e, t.unreadEnd(s, c, s.errs[edge.stored.Task]))
		case decision.Edges[i].Held && i < decision.Speaker: // it may agree with what was said after it
			e = sooner(e, later(c, 0))
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
func (t *Turner) unreadEnd(s *sights, c ledger.Claim, err error) ledger.End {
	switch {
	case s.away != nil:
		return later(c, 0)
	case err == nil: // linked between the claim and S3
		return because(later(c, 0), errUnseen)
	default:
		return t.failed(c, err)
	}
}

// because says why a key waits.
func because(e ledger.End, why error) ledger.End {
	text := why.Error()
	e.Error = &text
	return e
}

// sooner is the end that is due first; a success is due last.
func sooner(a, b ledger.End) ledger.End {
	if a.Wait == nil || b.Wait != nil && *b.Wait < *a.Wait {
		return b
	}
	return a
}
