package star

import (
	"flag"
	"fmt"
	"hash/maphash"
	"strings"
	"testing"
	"time"
)

var searchAll = flag.Bool("search.all", false, "search the large models too: it takes minutes and gigabytes")

// search is a breadth-first search: every state of a model once, in order of
// its distance from the start, so that the first fault found has a shortest trace.
type search struct {
	*model
	states []state
	from   []uint32 // the state that each was reached from first
	table  []uint32 // open addressing: index into states + 1
	seed   maphash.Seed
}

// found is what a search came to.
type found struct {
	states, rests int
	longest       int    // steps of the longest run to rest
	fault         string // "": none
	trace         string
}

func newSearch(m *model) *search {
	return &search{model: m, table: make([]uint32, 1<<16), seed: maphash.MakeSeed()}
}

// slot is where s stands in the table, or would.
func (q *search) slot(s *state) *uint32 {
	mask := uint64(len(q.table) - 1)
	for h := maphash.Comparable(q.seed, *s); ; h++ {
		p := &q.table[h&mask]
		if *p == 0 || q.states[*p-1] == *s {
			return p
		}
	}
}

func (q *search) add(s *state, from uint32) {
	p := q.slot(s)
	if *p != 0 {
		return
	}
	q.states = append(q.states, *s)
	q.from = append(q.from, from)
	*p = uint32(len(q.states))
	if len(q.states) > len(q.table)*2/3 {
		q.table = make([]uint32, 2*len(q.table))
		for i := range q.states {
			*q.slot(&q.states[i]) = uint32(i + 1)
		}
	}
}

// run searches a model to its end, or to the first fault. What is at rest is
// judged as it is met; that every state comes to rest, and that all happens that may, at the end.
func (q *search) run() found {
	for _, s := range q.starts() {
		q.add(&s, ^uint32(0))
	}
	for i := 0; i < len(q.states); i++ {
		s := q.states[i]
		if q.patches > 0 && s.sent > q.patches {
			return found{states: len(q.states), fault: "more PATCHes than changes and faults", trace: q.trace(i)}
		}
		if next, more := q.calm(s); !more {
			if fault := q.wrong(next); fault != "" {
				return found{states: len(q.states), fault: fault, trace: q.trace(i)}
			}
		}
		q.each(&s, func(_ step, t state) { q.add(&t, uint32(i)) })
	}
	if what := q.unspent(); what != "" {
		return found{states: len(q.states), fault: "it has no state in which all happened that may: " + what}
	}
	return q.rest()
}

// unspent names what never happens as often as the model lets it: a bound that means nothing.
func (q *search) unspent() string {
	least := q.left.counts()
	for i := range q.states {
		for n, left := range q.states[i].left.counts() {
			least[n] = min(least[n], left)
		}
	}
	for n, left := range least {
		if left > 0 {
			return budgetNames[n]
		}
	}
	return ""
}

// rest follows every state to rest. Each is followed by one step, to a state
// whose way is known or is followed first; a way that comes back to itself never rests.
func (q *search) rest() found {
	f := found{states: len(q.states)}
	const open = -1
	steps := make([]int32, len(q.states)) // to rest, plus one
	var way []uint32
	for i := range q.states {
		way = append(way[:0], uint32(i))
		for len(way) > 0 {
			at := way[len(way)-1]
			next, more := q.calm(q.states[at])
			if !more {
				f.rests++
				steps[at] = 1
			}
			if steps[at] > 0 {
				way = way[:len(way)-1]
				continue
			}
			to := *q.slot(&next)
			if to == 0 {
				f.fault, f.trace = "a calm step that the search did not take", q.trace(int(at))
				return f
			}
			switch n := steps[to-1]; {
			case n == open:
				f.fault, f.trace = "it never comes to rest", q.trace(i)
				return f
			case n > 0:
				steps[at] = n + 1
				f.longest = max(f.longest, int(n))
			default:
				steps[at] = open
				way = append(way, to-1)
			}
		}
	}
	return f
}

// trace tells how a state was reached, one step a line.
func (q *search) trace(i int) string {
	var way []int
	for at := uint32(i); at != ^uint32(0); at = q.from[at] {
		way = append(way, int(at))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-40s %v\n", "at first", q.states[way[len(way)-1]])
	for n := len(way) - 2; n >= 0; n-- {
		s := q.states[way[n+1]]
		told := false
		q.each(&s, func(by step, t state) {
			if !told && t == q.states[way[n]] {
				fmt.Fprintf(&b, "%-40s %v\n", fmt.Sprintf("%s (%d)", by.what, by.at), t)
				told = true
			}
		})
	}
	return b.String()
}

// skip leaves out what is too large for this run.
func (m *model) skip(t *testing.T) {
	switch {
	case m.size == large && !*searchAll:
		t.Skip("a large model: -search.all")
	case m.size == medium && raceOn:
		t.Skip("not under the race detector, which has nothing to find in a search")
	}
}

// TestSearch goes through every state of every model.
func TestSearch(t *testing.T) {
	for _, m := range models() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			m.skip(t)
			start := time.Now()
			f := newSearch(&m).run()
			t.Logf("%d states, %d at rest, at most %d steps to rest, %v", f.states, f.rests, f.longest, time.Since(start).Round(time.Millisecond))
			if f.fault != "" {
				t.Errorf("%s\n%s", f.fault, f.trace)
			}
		})
	}
}
