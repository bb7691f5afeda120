package star

import (
	"slices"
	"strconv"
)

// This file is the turn: S1 to S5 as the package reconciler does them, around the
// real Decide and Forget. A step is one transaction or one request.

// The names of attempts that are new in a step; canonical renames them at once.
const fresh attempt = 60

var (
	idsOf    = sets()
	stampsOf = names()
)

// sets are the sets of annotation ids by their bits.
func sets() (all [64]IDs) {
	for bits := range all {
		for id := range 6 {
			if bits>>id&1 != 0 {
				all[bits] = append(all[bits], int64(id))
			}
		}
	}
	return all
}

func bitsOf(ids IDs) (bits uint8) {
	for _, id := range ids {
		bits |= 1 << id
	}
	return bits
}

func names() (all [64]Stamp) {
	for i := 1; i < len(all); i++ {
		all[i] = Stamp(strconv.Itoa(i))
	}
	return all
}

func attemptOf(s Stamp) attempt {
	n, _ := strconv.Atoi(string(s)) // "" is 0
	return attempt(n)
}

func (p page) meta() Meta { return Meta{Gold: p.gold, IsGold: p.isGold, Stamp: stampsOf[p.stamp]} }

// edge puts a remembered edge into the words of Decide, and back.
func (e edge) edge(i int) Edge {
	out := Edge{Task: int64(i), New: e.isNew, Begun: e.begun, S: e.s, Older: e.older, Last: stampsOf[e.last], Base: idsOf[e.base]}
	if e.intent.there {
		out.Intent = &Intent{Value: e.intent.value, Attempt: stampsOf[e.intent.attempt]}
	}
	return out
}

func (e *edge) remember(now Edge) {
	e.isNew, e.begun, e.s, e.older = now.New, now.Begun, now.S, now.Older
	e.last, e.base = attemptOf(now.Last), bitsOf(now.Base)
	switch {
	case now.Intent == nil:
		e.intent = intent{}
	case now.Intent.Attempt == "": // new
		e.intent = intent{there: true, value: now.Intent.Value}
	}
}

// claim is S1: whose deadline has passed is noted here, before anything is read.
func (m *model) claim(s *state, w int) {
	for i := range s.workers {
		if !m.breaks(claimNotBumped) {
			s.workers[i].mine = false
		}
	}
	k := &s.workers[w]
	listed := k.read // only with a mutant: idle workers have read nothing
	*k = worker{step: reads, mine: true, read: listed}
	for i := range m.tasks {
		switch e := s.edges[i].intent; {
		case e.passed:
			k.read[i].ripe = e.attempt
		case e.there:
			k.read[i].alive = e.attempt
		}
		if s.edges[i].unlinked {
			k.read[i].sight = unreadIt
		}
	}
	if m.reading(s, w) == m.tasks {
		k.step = settles
	}
}

// look is S2 for one task.
func (m *model) look(s *state, w, i int, sight uint8) {
	k, t := &s.workers[w], &s.tasks[i]
	r := read{sight: sight, ripe: k.read[i].ripe, alive: k.read[i].alive}
	if sight == seenIt && t.gone {
		r.sight = missingIt
	} else if sight == seenIt {
		r.page, r.stars, r.starsBy, r.other, r.tampered, r.away = t.page, t.stars, t.starsBy, t.other, t.tampered, t.away
		if m.breaks(baseFirst) {
			s.edges[i].base = t.stars
		}
	}
	k.read[i] = r
	if k.step != idle && m.reading(s, w) == m.tasks {
		k.step = settles
	}
}

// settled tells whether the PATCH of an edge can take effect no more, and could not
// when the task was read. Where it could, only its own stamp proves that it has.
func (m *model) settled(s *state, w, i int) bool {
	e, r := s.edges[i].intent, s.workers[w].read[i]
	switch {
	case m.breaks(patchAgain) || e.there && r.sight == seenIt && e.attempt == r.stamp:
		return true
	case m.breaks(unsentIsSettled) && s.unsent(i, e.attempt):
		return true
	case m.breaks(readAgain) && r.alive == 0:
		return true
	case m.breaks(deadlineLate):
		return !e.there || e.passed
	case r.alive != 0:
		return !e.there && m.breaks(goneIsSettled)
	}
	return !e.there || r.ripe == e.attempt
}

// settle is S3: one transaction.
func (m *model) settle(s *state, w int) {
	k := &s.workers[w]
	if !k.mine && !m.breaks(noClaimCheck) {
		*k = worker{}
		return
	}
	if s.hub.known && (s.row.gone || s.row.gen != s.hub.gen) && !m.breaks(newRowIsOld) {
		for i := range m.tasks {
			if !m.settled(s, w, i) {
				m.end(s, w, false)
				return
			}
		}
		s.hub = hub{}
		for i := range m.tasks {
			e := &s.edges[i]
			e.remember(e.edge(i).Forget())
			e.held, e.note = false, note{}
			if m.breaks(forgetBase) {
				e.base = 0
			}
		}
	}
	if s.row.gone {
		m.end(s, w, true)
		return
	}
	looks, relinked := m.see(s, w)
	unseen := slices.ContainsFunc(looks, func(l Look) bool { return l.Sight == Waiting || l.Sight == Unread })
	looks, d := m.decide(s, looks)
	m.commit(s, w, looks, d)
	for i := range m.tasks {
		if k.posts[i].stage == todo {
			k.step = sends
			k.later = k.later || unseen || relinked
			for j := range k.read {
				k.read[j] = read{}
			}
			return
		}
	}
	m.end(s, w, !unseen && !relinked)
}

// see puts the edges together with what was read. An edge whose task is another
// one is begun anew, and is looked at in the next pass.
func (m *model) see(s *state, w int) (looks []Look, relinked bool) {
	looks = make([]Look, 0, m.tasks)
	for i := range m.tasks {
		r, e := s.workers[w].read[i], &s.edges[i]
		if e.unlinked {
			continue
		}
		l := Look{Edge: e.edge(i), Sight: Unread}
		switch r.sight {
		case missingIt:
			l.Sight = Missing
			if m.breaks(missingForgets) {
				*e = edge{isNew: true, begun: m.begun, other: e.other}
				continue
			}
			if m.breaks(missingUnstars) {
				l.Sight, l.Meta = Seen, Meta{Gold: No, Stamp: l.Last}
			}
		case seenIt:
			l.Meta, l.Stars, l.Sight = r.page.meta(), idsOf[r.stars], Waiting
			if m.settled(s, w, i) {
				l.Sight = Seen
			}
			if l.Sight == Seen && r.away && !m.breaks(keepsLink) {
				*e = edge{unlinked: true}
				continue
			}
			if l.Sight == Seen && r.other != e.other && !m.breaks(otherTaskIsOld) {
				*e = edge{isNew: true, begun: m.begun, other: r.other}
				relinked = true
				continue
			}
		}
		looks = append(looks, l)
	}
	return looks, relinked
}

// commit writes what was decided: row, hub, edges, and intents for the PATCHes.
func (m *model) commit(s *state, w int, looks []Look, d Decision) {
	k := &s.workers[w]
	for n, o := range d.Edges {
		if i := looks[n].Task; looks[n].Sight == Seen && !o.New {
			s.row.by |= k.read[i].by | k.read[i].starsBy
		}
	}
	if s.row.result != Victory {
		s.hub.before = s.row.result
	}
	s.hub.known, s.hub.d, s.hub.changed, s.hub.gen = true, d.Hub.D, d.Hub.N > 0, s.row.gen
	switch {
	case d.Hub.D:
		s.row.result = Victory
	case s.row.result == Victory:
		s.row.result = s.hub.before
	}
	for n, o := range d.Edges {
		m.commitEdge(s, w, looks[n], o)
	}
}

func (m *model) commitEdge(s *state, w int, l Look, o Outcome) {
	i := int(l.Task)
	k, t, e := &s.workers[w], &s.tasks[i], &s.edges[i]
	r := k.read[i]
	e.remember(o.Edge)
	if l.Sight == Seen {
		e.held, e.note = o.Held, note{}
		if o.Held && m.breaks(holdEnds) {
			e.begun = Union
		}
		if o.Held {
			e.note = note{l.Shown(), l.Meta.older(), r.stamp, r.stars, r.by | r.starsBy}
		}
		if t.page == r.page {
			t.unseen = false
		}
		t.tampered = t.tampered && !r.tampered
	}
	if o.Write {
		a := fresh + attempt(i)
		k.posts[i] = post{stage: todo, value: o.Intent.Value, attempt: a, by: s.row.by}
		e.intent.attempt = a
		if m.breaks(issuedIsLast) {
			e.issued = a
		}
		switch {
		case m.breaks(noIntent):
			e.intent = intent{}
		case m.breaks(ackFirst):
			e.s, e.older, e.last, e.intent = o.Intent.Value, Absent, a, intent{}
		}
	} else if l.Sight == Seen && !o.New && t.page == r.page && t.stars == r.stars && t.other == r.other {
		// The task shows what all agree on: who speaks there from now on has seen it.
		t.by |= s.row.by
		t.starsBy |= s.row.by
	}
}

// send is S4: the request leaves. A task that is gone refuses it.
func (m *model) send(s *state, w, i int) {
	p := &s.workers[w].posts[i]
	p.stage = sent
	if m.patches > 0 {
		s.sent++
	}
	if s.tasks[i].gone {
		p.stage = refused
	}
}

// land is a PATCH taking effect.
func (m *model) land(s *state, i int, value bool, a attempt, by words) {
	t := &s.tasks[i]
	if t.gone {
		return
	}
	if (Look{Edge: s.edges[i].edge(i), Meta: t.page.meta()}).Shown() == value {
		by |= t.by // it undoes nothing
	}
	if t.other != s.edges[i].other {
		by = t.by // it was meant for the task before
	}
	t.page = page{gold: Of(value), stamp: a, by: by}
	if m.breaks(noStamp) {
		t.stamp = 0
	}
	t.starsBy |= by
	t.unseen, t.tampered = false, false
}

// acknowledge is S5: one transaction. It asks for the attempt, not for the claim.
func (m *model) acknowledge(s *state, w int) {
	good := true
	for i := range m.tasks {
		p, e := s.workers[w].posts[i], &s.edges[i]
		if p.stage == none {
			continue
		}
		good = good && p.stage == worked
		current := e.intent.there && e.intent.attempt == p.attempt
		any := e.intent.there && m.breaks(anyAttempt)
		switch {
		case p.stage == worked && m.breaks(ackByGet):
		case p.stage == worked && (current || any || m.breaks(noIntent)):
			e.s, e.older, e.last, e.intent = p.value, Absent, p.attempt, intent{}
			if m.breaks(noStamp) {
				e.last = 0
			}
		case p.stage == refused && (current || e.intent.there && m.breaks(refusalClearsAny)):
			e.intent = intent{}
		}
	}
	if m.breaks(readAgain) && !good {
		s.workers[w] = worker{step: reads, mine: s.workers[w].mine, later: s.workers[w].later}
		return
	}
	m.end(s, w, good)
}

// unsent tells whether the worker that is to send a PATCH has not come to it.
func (s *state) unsent(i int, a attempt) bool {
	for _, k := range s.workers {
		if p := k.posts[i]; a != 0 && p.attempt == a && p.stage == todo {
			return true
		}
	}
	return false
}

// end gives the key back: done, unless a trigger came meanwhile.
func (m *model) end(s *state, w int, success bool) {
	k := &s.workers[w]
	if success && k.mine {
		s.queue.dirty = k.later && !m.breaks(doneForgetsTriggers)
	}
	*k = worker{}
}

// expire lets a deadline pass. It may only when the PATCH can have no effect any
// more; a worker that has not sent it yet sees by its clock that it must not.
func (m *model) expire(s *state, i int) bool {
	e := &s.edges[i].intent
	if !e.there || e.passed {
		return false
	}
	for _, f := range s.loose {
		if f.there && int(f.task) == i && f.attempt == e.attempt {
			return false
		}
	}
	for w := range s.workers {
		p := &s.workers[w].posts[i]
		if p.attempt == e.attempt && p.stage == sent {
			return false
		}
		if p.attempt == e.attempt && p.stage == todo {
			p.stage = refused
		}
	}
	e.passed = true
	return true
}

// detach makes a PATCH that was sent one that nobody waits for.
func (s *state) detach(i int, p post) bool {
	for n := range s.loose {
		if f := &s.loose[n]; !f.there {
			*f = flight{true, uint8(i), p.value, p.attempt, p.by}
			return true
		}
	}
	return false
}
