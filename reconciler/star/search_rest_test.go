package star

// This file is rest: how a state gets there without faults, and what must hold there.

// calm is the next step of a run without faults and without people; false: at rest.
func (m *model) calm(s state) (state, bool) {
	switch {
	case m.deliver(&s):
	case m.passTime(&s):
	case m.relink(&s):
	case s.queue.told:
		s.tell()
	case m.queued && !s.queue.dirty:
		return s, false
	default:
		if !m.queued && m.atRest(s) {
			return s, false
		}
		m.claim(&s, 0)
	}
	s.canonical()
	return s, true
}

// deliver takes on what is under way.
func (m *model) deliver(s *state) bool {
	for n, f := range s.loose {
		if f.there {
			s.loose[n] = flight{}
			m.land(s, int(f.task), f.value, f.attempt, f.by)
			return true
		}
	}
	for w := range m.workers {
		if s.workers[w].step != idle {
			m.advance(s, w)
			return true
		}
	}
	return false
}

func (m *model) passTime(s *state) bool {
	for i := range m.tasks {
		if m.expire(s, i) {
			return true
		}
	}
	return false
}

// atRest tells whether a whole pass over s, which is idle, changes nothing.
func (m *model) atRest(s state) bool {
	after := s
	m.claim(&after, 0)
	for after.workers[0].step == reads || after.workers[0].step == settles {
		m.advance(&after, 0)
	}
	after.canonical()
	s.canonical()
	return after == s
}

// wrong tells what is wrong with a state at rest, "" for nothing: a pass over it
// would write, the sides are not equal, something was not looked at, or the value
// is one that nobody wants: each word that says it was overridden by somebody who
// had seen it, or there never was one.
func (m *model) wrong(s state) string {
	if !m.atRest(s) {
		return "a pass at rest writes"
	}
	if s.row.gone {
		if s.hub.known {
			return "the row is gone and its hub is not"
		}
		return ""
	}
	a := s.row.result == Victory
	if a != s.hub.d {
		return "the row is not the hub"
	}
	held, heard := false, s.row.by
	asked := s.left.edits < m.left.edits || s.left.stars < m.left.stars || s.left.clicks < m.left.clicks || s.left.early < m.left.early
	if m.begun == Hold && s.hub.changed && !asked {
		return "a person was to decide, and nobody has"
	}
	if m.tasks == 1 && m.left.rows == 0 && s.left.clicks < m.left.clicks && s.edges[0].held { // with another row first contact has come again
		return "a click did not end the hold"
	}
	for i := range m.tasks {
		t, e := s.tasks[i], s.edges[i]
		held = held || e.held
		if t.away && !e.unlinked {
			return "a task of another conquest is linked"
		}
		if t.gone || t.away || e.held {
			continue
		}
		heard |= t.by | t.starsBy
		switch shown := m.shown(&s, i); {
		case e.isNew:
			return "an edge is new at rest"
		case shown != a:
			return "a task shows what the row does not say"
		case t.stars != e.base:
			return "stars that were not looked at"
		case e.intent.there:
			return "an intent is left"
		}
	}
	for i := range 8 {
		if s.alive>>i&1 != 0 && s.says>>i&1 == words(bit(a)) {
			return ""
		}
	}
	if held && m.mixed && !asked {
		return "a person is asked what all agree on"
	}
	if held || s.alive != 0 && heard == 0 {
		return "" // a person is asked; or the only word is on a task that is gone
	}
	return "the value is not what anybody wants: an edit is lost, or was invented"
}
