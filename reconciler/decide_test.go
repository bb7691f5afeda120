package reconciler

import (
	"testing"

	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/star"
)

// TestSettled: what was read of a task may be decided on only where no PATCH could
// take effect after it was read. The fourth case is a trace that an exhaustive search
// found: two workers at one key, of which the slower one settles its PATCH between
// the other's read and the other's lock; the row's word was then taken from a read
// that was older than the PATCH, and a person's un-star was lost.
func TestSettled(t *testing.T) {
	const a, b = "a", "b"
	for name, c := range map[string]struct {
		claimed string // the intent at the claim
		alive   bool   // then
		now     string // the intent at the lock
		read    star.Stamp
		want    bool
	}{
		"none":                                {"", false, "", "", true},
		"its deadline had passed":             {a, false, a, "", true},
		"alive, and the task carries it":      {a, true, a, a, true},
		"alive, and settled by somebody else": {a, true, "", "", false},
		"alive, settled, and read after it":   {a, true, "", a, false},
		"alive":                               {a, true, a, "", false},
		"another one since":                   {a, false, b, "", false},
		"one that was not there":              {"", false, b, b, false},
		"passed, and cleared":                 {a, false, "", a, true},
	} {
		claim := ledger.Claim{Edges: []ledger.ClaimedEdge{{Task: 1, Attempt: c.claimed, Alive: c.alive}}}
		edge := ledger.Edge{Task: 1}
		if c.now != "" {
			edge.IntentAttempt = &c.now
		}
		if got := settled(claim, edge, c.read); got != c.want {
			t.Errorf("%s: settled is %v, want %v", name, got, c.want)
		}
	}
}
