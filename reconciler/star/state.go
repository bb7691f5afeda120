// Package star decides. It is the one place that says what must become of a
// conquest and its tasks, given what both sides show now and what we remember
// of our last look. It is pure: no clock, no chance, no input or output, only
// the standard library, so that an exhaustive search can run the very code
// that the daemon runs.
//
// The words (key, row, task, hub, edge, shadow, intent, stamp) are those of
// the package reconciler's chapter.
//
// # What cannot be closed from outside
//
// Label Studio has no conditional write and saves whole task rows. Eight gaps
// follow that no decision can close, only narrow:
//
//   - A person's save that overlaps our PATCH by milliseconds can put an old
//     meta back. The stamp shows it and the next pass repairs it, unless that
//     meta had a star key and never a stamp of ours: then it looks like a
//     person's edit. Our PATCH can in turn undo another save of data or meta.
//   - An edit on top of such an old copy, or of a replaced meta, before we have
//     looked, can be taken for part of it. The look a few seconds after each
//     PATCH keeps that time short; at rest nothing depends on it.
//   - Somebody replaces meta without our stamp and changes the star between a
//     PATCH whose answer was lost and its deadline: taken for "did not happen".
//   - An annotation changed twice between two looks shows no change. Where meta
//     and an annotation changed between two looks they have no order, and the
//     annotation wins: it woke us by webhook, so the unseen meta is most likely
//     the older.
//   - remove_duplicates moves annotations between tasks: seen halfway, that is an
//     un-star of the one task or a star of the other.
//   - A row that is dropped before its last change was sent to every task takes
//     that change with it.
//   - A PATCH that takes effect after its deadline is recognised by its stamp
//     and undone, but may have covered a person's click.
//   - A backup of Label Studio that is put back lets it give the numbers of
//     annotations anew. A star under one that we had seen is none, until a full
//     pass has seen the set without it.
package star

import "slices"

// Value is what a task's meta says of the star.
type Value uint8

// The values. Absent is neither: no star key and no stamp of ours, or no object.
const (
	Absent Value = iota
	No
	Yes
)

// Of turns a boolean into the Value that says it.
func Of(b bool) Value {
	if b {
		return Yes
	}
	return No
}

// Shown reads Absent as No: it is what the task shows, the m of the protocol.
func (v Value) Shown() bool { return v == Yes }

func (v Value) String() string { return [...]string{"absent", "0", "1"}[v] }

// Result is a conquest's result as far as a decision depends on it.
type Result uint8

// The results. Other is DEFEAT, NEUTRAL, or whatever else a person may choose:
// a decision against the star, which Pending is not.
const (
	Pending Result = iota
	Victory
	Other
)

// Stamp is the attempt that a task's meta carries for this very task; "" is
// none, which a stamp that names another task counts as. Only equality is asked.
type Stamp string

// IDs is a set of annotation ids, ascending.
type IDs []int64

// Set returns the ids as a set.
func Set(ids ...int64) IDs {
	slices.Sort(ids)
	return slices.Compact(IDs(ids))
}

// Has tells whether id is in the set.
func (s IDs) Has(id int64) bool {
	_, found := slices.BinarySearch(s, id)
	return found
}

// Minus returns the ids of s that are not in t.
func (s IDs) Minus(t IDs) IDs {
	var more IDs
	for _, id := range s {
		if !t.Has(id) {
			more = append(more, id)
		}
	}
	return more
}

// Initial is what happens at first contact where the sides differ.
type Initial uint8

// The choices of RECONCILER_INITIAL. An edge keeps the one it was begun under.
const (
	Union Initial = iota
	Aristotle
	LabelStudio
	Hold
)

// Hub is the value that both sides should have, and how many times it has
// changed. After every commit of ours it equals the row: it is our copy of it,
// by which we see that somebody changed the row.
type Hub struct {
	Known bool
	D     bool
	N     int64
}

// Intent is a PATCH that may be under way: committed before it is sent, cleared
// when its end is known. Its deadline is the caller's business: Decide is told
// that an edge Waits while it is alive.
type Intent struct {
	Value   bool
	Attempt Stamp
}

// Edge is what we remember of one task of a key, as of the last look.
type Edge struct {
	Task   int64
	New    bool    // until its first contact, and as long as it is held
	Begun  Initial // the choice for its first contact
	S      bool    // the shadow: what it showed
	Older  Value   // its is_gold_star, where that differed from gold_star
	Last   Stamp   // the stamp it carried
	Base   IDs     // the annotations that said star
	Intent *Intent // nil: none
}

// Forget returns the edge as it is when its row has gone, or is another row:
// first contact comes again. Base stays, or an annotation that was overruled
// would star once more.
func (e Edge) Forget() Edge {
	return Edge{Task: e.Task, New: true, Begun: e.Begun, Base: e.Base}
}

// Meta is what a task's meta holds of the star. The zero value is a meta that is
// empty, or no object at all.
type Meta struct {
	Gold   Value // gold_star
	IsGold Value // is_gold_star, which older writers set
	Stamp  Stamp
}

// value is the v of the protocol. Where both keys are there and differ, the one
// that differs from the shadow is the one somebody changed, unless they differed in
// the same way at the last look: then nobody has changed anything since. (Without
// that the value would be another one at each look.) At first contact, where nothing
// is known, the star counts. Where the stamp is the intent's, its PATCH has taken
// effect: what it wrote is what to compare with.
func (m Meta) value(e Edge) Value {
	s, older := e.S, e.Older
	if e.Intent != nil && m.Stamp == e.Intent.Attempt {
		s, older = e.Intent.Value, Absent
	}
	switch {
	case m.Gold == Absent && m.IsGold == Absent && m.Stamp != "":
		return No
	case m.Gold == Absent:
		return m.IsGold
	case m.IsGold == Absent || m.Gold == m.IsGold:
		return m.Gold
	case e.New:
		return Yes
	case m.IsGold == older:
		return Of(s)
	default:
		return Of(!s)
	}
}

// older is the older key's value where both are there and differ, else Absent.
func (m Meta) older() Value {
	if m.Gold == Absent || m.Gold == m.IsGold {
		return Absent
	}
	return m.IsGold
}

// Sight says how an edge was seen in this pass.
type Sight uint8

// The ways an edge can be seen. Only a Seen one takes part in the pass.
const (
	Seen    Sight = iota // read afresh, after its intent was looked at
	Waiting              // its intent is alive and the task does not carry its stamp
	Unread               // it could not be read this time
	Missing              // its task is gone (404, the project being readable)
)

// Look is an edge together with what its task shows now. Meta and Stars count
// only where it was Seen.
type Look struct {
	Edge
	Sight Sight
	Meta  Meta
	Stars IDs
}

// Shown is what the task shows, the m of the protocol.
func (l Look) Shown() bool { return l.Meta.value(l.Edge).Shown() }

// stars tells whether the task shows a star at first contact.
func (l Look) stars() bool {
	return l.Shown() || len(l.Stars.Minus(l.Base)) > 0
}
