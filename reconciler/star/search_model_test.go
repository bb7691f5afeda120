package star

// model is one search: what there is at first, what people do, what fails and
// how often. What it counts is bounded; where nothing bounds it (a pass may
// begin at any time, a task may be read at any time) the search goes through
// all of it.
//
// Modelled: every order of people's acts, of the transactions and requests of
// the turn, of late effects and lost answers, crashes, deadlines. A person who
// edits sees what the side shows and changes it.
//
// Not modelled, since nothing from outside can tell it apart (see the package
// comment): an edit of meta on top of a replaced meta or of an old copy that we
// have not looked at, and the reverse; an annotation that comes and goes between
// two looks; an old row that was read before our first PATCH and had a star
// key; a replaced meta that says another star without our stamp while a PATCH
// waits for its deadline; a tool that changes a task at the moment at which the row goes, too. Text fields and ratings have no say in a decision.
type model struct {
	name     string
	tasks    int
	workers  int
	queued   bool  // passes begin where the queue has the key, not at any time
	patches  uint8 // the most there may ever be; 0: not counted
	begun    Initial
	rows     []Result // those that a person sets; nil: PENDING and VICTORY
	older    bool     // some tools write is_gold_star
	mixed    bool     // the second task is starred, the first is not: it says nothing
	late     bool     // the second task comes to a key that is known, with or without a star
	looked   bool     // a task goes only once all that it says was looked at: else what was said last goes with it
	differ   bool     // the two star keys differ at first contact
	restores side     // a backup of this side is put back
	known    bool     // starts at rest after first contact, else before it
	starred  bool     // the tasks and, where known, the row
	begin    []Result // where not known: the rows it may begin with; nil: PENDING
	left     budget
	size     size
	mutant   mutant
}

// side is one whose backup can be put back.
type side string

const (
	ours   side = "ours"   // Aristotle's database, with what we remember
	theirs side = "theirs" // Label Studio's
)

// size tells when a model is searched.
type size uint8

const (
	small  size = iota // always
	medium             // not under the race detector
	large              // only with -search.all
)

func (m *model) breaks(rule mutant) bool { return m.mutant == rule }

// starts are the states that a model begins with.
func (m *model) starts() []state {
	begin := m.begin
	if m.known {
		begin = []Result{Pending}
		if m.starred {
			begin[0] = Victory
		}
	} else if begin == nil {
		begin = []Result{Pending}
	}
	lates := []Value{Absent}
	if m.late {
		lates = []Value{Absent, Yes}
	}
	var all []state
	for n := range len(begin) * len(lates) {
		result, late := begin[n/len(lates)], lates[n%len(lates)]
		s := state{left: m.left, row: row{result: result}, queue: queue{told: m.queued && !m.known}}
		if result != Pending || m.known || m.begun != Union {
			s.speak(result == Victory, &s.row.by)
		}
		if m.known {
			s.hub = hub{known: true, d: m.starred}
		}
		for i := range m.tasks {
			t, e := &s.tasks[i], &s.edges[i]
			e.isNew, e.s, e.begun = !m.known, m.known && m.starred, m.begun
			if m.starred {
				t.gold = Yes
			}
			if m.mixed && i == 1 {
				t.gold = Yes
			}
			if m.differ {
				t.gold, t.isGold = Of(!m.starred), Of(m.starred)
			}
			if m.late && i == 1 {
				e.isNew, e.s = true, false
				if t.gold = late; late == Yes {
					s.speak(true, &t.by)
				}
			} else if m.known {
				t.by, t.starsBy = s.row.by, s.row.by
			} else if !m.mixed || i == 1 {
				s.speak(t.gold == Yes || m.differ, &t.by)
			}
		}
		s.canonical()
		all = append(all, s)
	}
	return all
}

// step is what happened, for a trace.
type step struct {
	what string
	at   int // which task or worker
}

// each calls yield for every state that s can become in one step.
func (m *model) each(s *state, yield func(step, state)) {
	try := func(what string, at int, act func(*state) bool) {
		t := *s
		if act(&t) {
			t.canonical()
			yield(step{what, at}, t)
		}
	}
	m.people(s, try)
	for i := range m.tasks {
		m.tampering(s, i, try)
		m.moving(s, i, try)
	}
	m.restoring(s, try)
	for w := range m.workers {
		m.work(s, w, try)
	}
	m.network(s, try)
	if s.queue.told {
		try("a trigger arrives", 0, (*state).tell)
	}
}

type tries func(what string, at int, act func(*state) bool)

// tell is a trigger: it makes the key dirty, and every pass under way knows of it.
func (s *state) tell() bool {
	s.queue.told, s.queue.dirty = false, true
	for w := range s.workers {
		if s.workers[w].step != idle {
			s.workers[w].later = true
		}
	}
	return true
}

// changed notes that a trigger is to come, where the model asks for triggers.
func (m *model) changed(s *state) bool {
	s.queue.told = m.queued
	return true
}
