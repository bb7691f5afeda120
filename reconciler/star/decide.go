package star

// By says where a person's word was found.
type By string

// The places a word can be found in.
const (
	ByNobody     By = ""
	ByMeta       By = "meta"
	ByAnnotation By = "annotation"
	ByTask       By = "task" // first contact: meta or annotation, it is all new
)

// Reason says what a task's meta was taken for. It is for the audit record.
type Reason string

// The reasons. Where the word was an annotation's it went over what meta was.
const (
	Same         Reason = "same"
	EditOfMeta   Reason = "edit of meta"
	Worked       Reason = "worked"
	Reversed     Reason = "worked, then reversed"
	DidNotHappen Reason = "did not happen"
	MetaReplaced Reason = "meta replaced"
	OldCopy      Reason = "old copy"
	Adopted      Reason = "adopt"
	UnionStar    Reason = "union: star"
	UnionVictory Reason = "union: victory"
	BothDecided  Reason = "a person decided both"
	TaskIsRight  Reason = "the task is right"
	NotYetRead   Reason = "another task is not read yet"
	NotSeen      Reason = "not seen"
)

// Outcome is what becomes of one edge.
type Outcome struct {
	Edge          // as it is to be remembered
	Said   Value  // what a person said, Absent for nothing
	By     By     // where
	Reason Reason // what its meta was taken for
	Held   bool   // first contact waits for a person: what was seen is to be noted
	Open   bool   // first contact waits for the other tasks to be read
	Write  bool   // Intent is new: give it an attempt and a deadline, then PATCH

	contradicts bool // meta and an annotation said different things
}

// Decision is what becomes of a key. The row is to follow the hub wherever its
// result says otherwise.
type Decision struct {
	Hub      Hub
	Edges    []Outcome // as the looks came, in task order
	Speaker  int       // the edge whose word the hub followed last, -1 for none
	Conflict bool      // two unseen edits disagree, or a first contact is held
}

// Decide takes one pass over a key: the row, the hub and a look at each edge in
// task order. An intent of an edge that was Seen has passed its deadline, or its
// own stamp was read.
func Decide(row Result, hub Hub, looks []Look) Decision {
	d := Decision{Speaker: -1}
	edited := d.takeRow(row, hub)
	for i, l := range looks {
		d.Edges = append(d.Edges, d.hear(row, looks, l))
		o := &d.Edges[i]
		if o.Said != Absent && o.Said != Of(d.Hub.D) {
			d.Conflict = d.Conflict || edited
			d.Hub.D = o.Said == Yes
			d.Hub.N++
			d.Speaker = i
		}
		d.Conflict = d.Conflict || o.Held || o.contradicts
	}
	for i := range d.Edges {
		d.Edges[i].follow(looks[i].Sight, d.Hub.D)
	}
	return d
}

// takeRow is step 1: whoever changed the row has spoken.
func (d *Decision) takeRow(row Result, hub Hub) (edited bool) {
	a := row == Victory
	d.Hub = hub
	if !hub.Known {
		d.Hub = Hub{Known: true, D: a}
	} else if a != hub.D {
		d.Hub.D = a
		d.Hub.N++
		return true
	}
	return false
}

// hear is steps 2 to 4 for one edge: what did a person say on this task since
// our last look? An edge that was not seen keeps all it knows.
func (d *Decision) hear(row Result, looks []Look, l Look) Outcome {
	if l.Sight != Seen {
		return Outcome{Edge: l.Edge, Reason: NotSeen}
	}
	if l.New {
		return d.meet(row, looks, l)
	}
	o := Outcome{}
	o.Said, o.Reason = l.meta()
	if o.Said != Absent {
		o.By = ByMeta
	}
	if said := l.annotations(); said != Absent {
		o.contradicts = o.Said != Absent && o.Said != said
		o.Said, o.By = said, ByAnnotation
	}
	o.Edge = l.Remembered()
	return o
}

// meta is step 2 of a known edge: what its meta says, and what that is taken for.
func (l Look) meta() (said Value, reason Reason) {
	v := l.Meta.value(l.Edge)
	m := v.Shown()
	if p := l.Intent; p != nil {
		switch {
		case m == p.Value:
			return Absent, Worked
		case l.Meta.Stamp == p.Attempt:
			return Of(m), Reversed
		default:
			return Absent, DidNotHappen
		}
	}
	switch {
	case m == l.S:
		return Absent, Same
	case v == Absent:
		return Absent, MetaReplaced
	case l.Meta.Stamp != "" && l.Meta.Stamp != l.Last:
		return Absent, OldCopy
	default:
		return Of(m), EditOfMeta
	}
}

// annotations is step 3: a change of the set counts, its state does not.
func (l Look) annotations() Value {
	switch {
	case len(l.Stars.Minus(l.Base)) > 0:
		return Yes
	case len(l.Base) > 0 && len(l.Stars) == 0:
		return No
	default:
		return Absent
	}
}

// Remembered is step 4: the edge whose shadow is what was read, whatever it was taken for.
func (l Look) Remembered() Edge {
	return Edge{
		Task: l.Task, Begun: l.Begun,
		S: l.Shown(), Older: l.Meta.older(), Last: l.Meta.Stamp, Base: l.Stars,
	}
}

// follow is step 6. It waits until every edge was heard, so that no task is
// written to say what another has just taken back. Two star keys that differ are
// written too: whoever reads one of them reads something else than who reads the other.
func (o *Outcome) follow(sight Sight, d bool) {
	if sight == Seen && !o.New && (o.S != d || o.Older != Absent) {
		o.Intent, o.Write = &Intent{Value: d}, true
	}
}
