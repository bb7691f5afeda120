package star

// meet is first contact: a task without a shadow meets a hub. Where they agree
// there is nothing to decide; where they differ nobody knows who spoke last, and
// the choice that the edge was begun under decides.
func (d *Decision) meet(row Result, looks []Look, l Look) Outcome {
	star, fresh := l.stars(), d.Hub.N == 0
	adopt := Outcome{Edge: l.Remembered(), Reason: Adopted}
	if star == d.Hub.D || l.Begun == Aristotle {
		return adopt
	}
	if l.Begun == LabelStudio && fresh {
		if star {
			return l.says(Yes, TaskIsRight)
		}
		switch othersShowNone(looks, l.Task) {
		case Yes:
			return l.says(No, TaskIsRight)
		case Absent:
			return Outcome{Edge: l.Edge, Reason: NotYetRead, Open: true}
		}
	}
	switch {
	case l.Begun == Hold:
		return Outcome{Edge: l.Edge, Reason: BothDecided, Held: true}
	case !star:
		adopt.Reason = UnionVictory // it is starred by step 6
		return adopt
	case row == Pending && fresh:
		return l.says(Yes, UnionStar)
	default:
		return Outcome{Edge: l.Edge, Reason: BothDecided, Held: true}
	}
}

func (l Look) says(v Value, r Reason) Outcome {
	return Outcome{Edge: l.Remembered(), Said: v, By: ByTask, Reason: r}
}

// othersShowNone tells whether every other task of the key is as new as this
// one, was read, and shows no star: only then does a task without a star speak
// against the row. Absent: one that could not be read leaves it open. It looks
// at the edges as they came into the pass, not as this pass leaves them.
func othersShowNone(looks []Look, task int64) Value {
	none := Yes
	for _, o := range looks {
		switch {
		case o.Task == task:
		case !o.New || o.Sight == Missing || o.Sight == Seen && o.stars():
			return No
		case o.Sight != Seen:
			none = Absent
		}
	}
	return none
}
