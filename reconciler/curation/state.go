package curation

import (
	"cmp"
	"time"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// syncState is how a conquest stands between the two sides.
type syncState string

// The states. A key that is dirty is under way whatever else it is.
const (
	syncDone     syncState = "synced"
	syncUnderWay syncState = "syncing"
	syncStuck    syncState = "stuck"
	syncHeld     syncState = "held"
	syncNoTask   syncState = "no-task"
)

func syncStates() []syncState {
	return []syncState{syncDone, syncUnderWay, syncHeld, syncStuck, syncNoTask}
}

// Name is the state as a person reads it.
func (s syncState) Name() string {
	switch s {
	case syncDone:
		return "In sync"
	case syncUnderWay:
		return "Syncing"
	case syncStuck:
		return "Stuck"
	case syncHeld:
		return "Held"
	default:
		return "No task"
	}
}

// Says explains it.
func (s syncState) Says() string {
	switch s {
	case syncDone:
		return "Both sides agree."
	case syncUnderWay:
		return "Saved here; Label Studio follows in a moment."
	case syncStuck:
		return "Saved here, but Label Studio does not take it. It is tried again by itself; the page of the conquest says what keeps it."
	case syncHeld:
		return "The two sides differed when they first met, and only a person can say which is right."
	default:
		return "There is no task in Label Studio for this conquest (yet)."
	}
}

// Conquest is a row of the list: the conquest as Aristotle has it, and how it stands.
type Conquest struct {
	ID, Title, Type, Result, Philosopher, Domain, Status string
	UpdatedAt                                            *time.Time
	Tasks                                                []int64 // those that are there
	Starred                                              int     // how many of them show the star
	Held, Dirty                                          bool
	Attempts                                             int
	sortedBy                                             string
}

// Heading is the title, or the id where there is none.
func (c Conquest) Heading() string { return cmp.Or(c.Title, c.ID) }

// Gold tells whether the conquest is VICTORY, which is the star.
func (c Conquest) Gold() bool { return c.Result == aristotle.Victory }

// Sync is the conquest's state.
func (c Conquest) Sync() syncState {
	follows := c.Starred == 0
	if c.Gold() {
		follows = c.Starred == len(c.Tasks)
	}
	switch {
	case c.Held:
		return syncHeld
	case c.Dirty && c.Attempts >= ledger.StuckAfter:
		return syncStuck
	case c.Dirty:
		return syncUnderWay
	case len(c.Tasks) == 0:
		return syncNoTask
	case !follows: // changed a moment ago: the stream has not told us yet
		return syncUnderWay
	default:
		return syncDone
	}
}
