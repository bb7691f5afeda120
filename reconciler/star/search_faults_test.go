package star

// This file is what the workers and the network can do next, faults among it.

// work is the worker w, its faults and its end.
func (m *model) work(s *state, w int, try tries) {
	k := &s.workers[w]
	if k.step == idle && (!m.queued || s.queue.dirty) {
		try("a worker claims the key", w, func(s *state) bool { m.claim(s, w); return true })
	}
	if k.step == idle && m.breaks(trustListing) && m.reading(s, w) < m.tasks {
		try("a listing is asked for early", w, func(s *state) bool { m.look(s, w, m.reading(s, w), seenIt); return true })
	}
	if k.step != idle {
		try("the worker crashes", w, func(s *state) bool { return spend(&s.left.crashes) && m.crash(s, w) })
		try(m.does(s, w), w, func(s *state) bool { m.advance(s, w); return true })
	}
	for i := range m.tasks {
		if k.step == reads && m.reading(s, w) == i {
			try("a task cannot be read", i, func(s *state) bool {
				if !spend(&s.left.unread) {
					return false
				}
				m.look(s, w, i, unreadIt)
				return true
			})
		}
		if p := k.posts[i]; p.stage == sent {
			try("the PATCH works, its answer is lost", i, func(s *state) bool {
				if !spend(&s.left.lost) {
					return false
				}
				m.land(s, i, p.value, p.attempt, p.by)
				s.workers[w].posts[i].stage = unknown
				return true
			})
			try("the PATCH times out", i, func(s *state) bool {
				s.workers[w].posts[i].stage = unknown
				return spend(&s.left.lost) && s.detach(i, p)
			})
			try("the PATCH is refused", i, func(s *state) bool {
				s.workers[w].posts[i].stage = refused
				return spend(&s.left.refusals)
			})
		}
	}
}

// crash loses what the worker knew. What it sent is on its way.
func (m *model) crash(s *state, w int) bool {
	for i, p := range s.workers[w].posts {
		if p.stage == sent && !s.detach(i, p) {
			return false
		}
	}
	s.workers[w] = worker{}
	return true
}

// reading is the task that a worker reads next.
func (m *model) reading(s *state, w int) int {
	for i := range m.tasks {
		if s.workers[w].read[i].sight == notYet {
			return i
		}
	}
	return m.tasks
}

// advance is the next step of a worker where nothing fails.
func (m *model) advance(s *state, w int) {
	k := &s.workers[w]
	switch k.step {
	case reads:
		m.look(s, w, m.reading(s, w), seenIt)
	case settles:
		m.settle(s, w)
	case sends:
		for i, p := range k.posts {
			switch p.stage {
			case todo:
				m.send(s, w, i)
				return
			case sent:
				m.land(s, i, p.value, p.attempt, p.by)
				k.posts[i].stage = worked
				if s.tasks[i].gone {
					k.posts[i].stage = refused
				}
				return
			}
		}
		m.acknowledge(s, w)
	}
}

// does tells what advance will do.
func (m *model) does(s *state, w int) string {
	k := &s.workers[w]
	switch k.step {
	case reads:
		return "S2: a task is read"
	case settles:
		return "S3: decided and committed"
	}
	for _, p := range k.posts {
		switch p.stage {
		case todo:
			return "S4: a PATCH is sent"
		case sent:
			return "the PATCH works and is answered"
		}
	}
	return "S5: the end of the PATCHes is noted"
}

// network is what happens to PATCHes that nobody waits for, and deadlines.
func (m *model) network(s *state, try tries) {
	for n, f := range s.loose {
		if f.there {
			try("a PATCH lands late", int(f.task), func(s *state) bool {
				s.loose[n] = flight{}
				m.land(s, int(f.task), f.value, f.attempt, f.by)
				return true
			})
			try("a PATCH is lost on the way", int(f.task), func(s *state) bool { s.loose[n] = flight{}; return true })
		}
	}
	for i := range m.tasks {
		try("a deadline passes", i, func(s *state) bool { return m.expire(s, i) })
	}
	try("the task is linked again", 0, m.relink)
}
