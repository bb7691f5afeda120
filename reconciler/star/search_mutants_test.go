package star

import (
	"slices"
	"testing"
)

// mutant is a rule that is broken on purpose.
type mutant string

// Rules of the turn; see where each is asked for.
const (
	noIntent            mutant = "no intent"
	ackFirst            mutant = "acknowledge before the PATCH"
	baseFirst           mutant = "base first"
	noClaimCheck        mutant = "no claim check"
	claimNotBumped      mutant = "claim not bumped"
	patchAgain          mutant = "PATCH again before the deadline"
	deadlineLate        mutant = "deadline looked at after the GET"
	goneIsSettled       mutant = "an intent that is gone counts as settled"
	ackByGet            mutant = "acknowledge only by a later GET"
	noStamp             mutant = "no stamp"
	anyAttempt          mutant = "S5 without the attempt check"
	refusalClearsAny    mutant = "a refusal clears any intent"
	missingUnstars      mutant = "404 is an un-star"
	missingForgets      mutant = "404 forgets the edge"
	newRowIsOld         mutant = "a new row is the old one"
	forgetBase          mutant = "a row that goes takes the base along"
	otherTaskIsOld      mutant = "another task is the old one"
	keepsLink           mutant = "a task that names another conquest stays linked"
	foreignStamp        mutant = "a foreign stamp counts"
	holdByRow           mutant = "a hold ended by the row alone"
	earlyUncounted      mutant = "a click before the first turn counts for nothing"
	clickOnRowAlone     mutant = "a click on another row than the hub's is of the row alone"
	trustListing        mutant = "trust a listing that was asked for before S1"
	readAgain           mutant = "read again without S1"
	unsentIsSettled     mutant = "not sent yet counts as settled"
	holdEnds            mutant = "hold only until the first full pass"
	doneForgetsTriggers mutant = "mark done what was dirtied meanwhile"
)

// Rules of Decide, broken around it.
const (
	absentUnstars    mutant = "absent is an un-star"
	metaOrAnnotation mutant = "star = meta OR annotation"
	oneBoolean       mutant = "one boolean for all annotations"
	metaWins         mutant = "meta wins over annotations"
	rowWins          mutant = "the row wins over a task that lags"
	lateStarCounts   mutant = "a late task's star always counts"
	waitingDecided   mutant = "a waiting edge decided"
	waitingPatched   mutant = "a waiting edge sent a PATCH"
	refreshStamp     mutant = "refresh the stamp"
	oldCopyCounts    mutant = "an old copy is an edit"
	issuedIsLast     mutant = "old means not the last attempt issued"
	taskByTask       mutant = "labelstudio task by task"
	unreadIsNone     mutant = "an unread task is none"
	noReversal       mutant = "worked, then reversed is: did not happen"
)

// decide is Decide, or what a mutant makes of it.
func (m *model) decide(s *state, looks []Look) ([]Look, Decision) {
	row, hub := s.row.result, Hub{Known: s.hub.known, D: s.hub.d, N: int64(bit(s.hub.changed))}
	if m.mutant == "" {
		return looks, Decide(row, hub, looks)
	}
	switch m.mutant {
	case taskByTask:
		return looks, byTask(row, hub, looks)
	case unreadIsNone:
		looks = slices.DeleteFunc(looks, func(l Look) bool { return l.New && l.Sight == Unread })
		return looks, Decide(row, hub, looks)
	}
	bent := append([]Look(nil), looks...)
	deaf := make([]bool, len(looks)) // the task is not listened to
	for i := range bent {
		l := &bent[i]
		known := l.Sight == Seen && !l.New
		switch m.mutant {
		case absentUnstars:
			if known && l.Meta.value(l.Edge) == Absent {
				l.Meta.Gold = No
			}
		case metaOrAnnotation:
			l.Meta.Gold, l.Stars, l.Base = Of(l.Shown() || len(l.Stars) > 0), nil, nil
		case oneBoolean:
			l.Stars, l.Base = idsOf[bit(len(l.Stars) > 0)], idsOf[bit(len(l.Base) > 0)]
		case metaWins:
			if said, _ := l.meta(); known && said != Absent {
				l.Stars = l.Base
			}
		case rowWins:
			if known && l.Intent == nil && l.S != (row == Victory) {
				l.Meta, l.Stars, deaf[i] = Meta{Gold: Of(l.S), Stamp: l.Last}, l.Base, true
			}
		case lateStarCounts:
			if l.Sight == Seen && l.New && l.stars() && !hub.D && row != Victory {
				row, hub.N = Pending, 0
			}
		case waitingDecided:
			if l.Sight == Waiting {
				l.Sight = Seen
			}
		case oldCopyCounts:
			if known && l.Intent == nil {
				l.Last = l.Meta.Stamp
			}
		case issuedIsLast:
			if known && l.Intent == nil {
				l.Last = stampsOf[s.edges[l.Task].issued]
			}
		case noReversal:
			if known && l.Intent != nil && l.Shown() != l.Intent.Value {
				l.Meta.Stamp = ""
			}
		}
	}
	d := Decide(row, hub, bent)
	for i := range d.Edges {
		o, l := &d.Edges[i], looks[i]
		switch {
		case m.mutant == waitingPatched && l.Sight == Waiting,
			m.mutant == refreshStamp && l.Sight == Seen && !o.New && !o.Write && l.Meta.Stamp == "":
			if o.Intent == nil || o.S != d.Hub.D || m.mutant == refreshStamp {
				o.Intent, o.Write = &Intent{Value: d.Hub.D}, true
			}
		case deaf[i]:
			o.Edge, o.Write = l.Remembered(), false
			o.follow(Seen, d.Hub.D)
		case l.Sight == Seen && !o.New:
			o.Last, o.Base = l.Meta.Stamp, l.Stars
		}
	}
	return looks, d
}

// byTask decides each task as if it were the only one, one after the other.
func byTask(row Result, hub Hub, looks []Look) Decision {
	sum := Decision{Hub: hub}
	for _, l := range looks {
		d := Decide(row, sum.Hub, []Look{l})
		if row = Pending; d.Hub.D {
			row = Victory
		}
		sum.Hub, sum.Edges = d.Hub, append(sum.Edges, d.Edges[0])
	}
	for i := range sum.Edges {
		o := &sum.Edges[i]
		if o.Write {
			o.Intent, o.Write = nil, false
		}
		o.follow(looks[i].Sight, sum.Hub.D)
	}
	return sum
}

// TestMutants shows that the search finds every broken rule, in which model, and
// after how many states. The numbers are written to the log (-v): those of the
// search behind the protocol are of the same size.
func TestMutants(t *testing.T) {
	named := map[string]model{}
	for _, m := range models() {
		named[m.name] = m
	}
	for mutant, name := range map[mutant]string{
		noIntent:            "faults",
		ackFirst:            "faults, starred",
		baseFirst:           "annotations",
		noClaimCheck:        "two workers, refusals",
		claimNotBumped:      "two workers, refusals",
		patchAgain:          "faults",
		deadlineLate:        "faults",
		goneIsSettled:       "two workers, refusals",
		ackByGet:            "queue, two workers",
		noStamp:             "faults",
		anyAttempt:          "two workers, many faults",
		refusalClearsAny:    "two workers, refusals",
		missingUnstars:      "404",
		missingForgets:      "404",
		newRowIsOld:         "row goes",
		forgetBase:          "row goes, annotations",
		otherTaskIsOld:      "another task",
		keepsLink:           "another conquest",
		trustListing:        "two workers",
		readAgain:           "faults",
		unsentIsSettled:     "two workers",
		holdEnds:            "hold",
		issuedIsLast:        "edits, a refusal",
		taskByTask:          "two tasks, labelstudio, one starred",
		unreadIsNone:        "two tasks, labelstudio, one starred",
		foreignStamp:        "two tasks, copied meta",
		holdByRow:           "hold",
		earlyUncounted:      "union, clicked first",
		clickOnRowAlone:     "row goes, clicked",
		doneForgetsTriggers: "queue, two workers",
		absentUnstars:       "blob",
		metaOrAnnotation:    "annotations",
		oneBoolean:          "annotations",
		metaWins:            "annotations",
		rowWins:             "annotations",
		lateStarCounts:      "another task",
		waitingDecided:      "faults",
		waitingPatched:      "two tasks",
		refreshStamp:        "edits",
		oldCopyCounts:       "old copy",
		noReversal:          "faults",
	} {
		t.Run(string(mutant), func(t *testing.T) {
			t.Parallel()
			m, ok := named[name]
			if !ok {
				t.Fatalf("there is no model %q", name)
			}
			if mutant == anyAttempt { // ninety thousand states
				m.skip(t)
			}
			m.mutant = mutant
			f := newSearch(&m).run()
			if f.fault == "" {
				t.Fatalf("not found in %d states of %q", f.states, name)
			}
			t.Logf("%q, after %d states: %s", name, f.states, f.fault)
		})
	}
}
