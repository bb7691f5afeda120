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
// waits for its deadline. Text fields and ratings have no say in a decision.
type model struct {
	name    string
	tasks   int
	workers int
	queued  bool  // passes begin where the queue has the key, not at any time
	patches uint8 // the most there may ever be; 0: not counted
	begun   Initial
	rows    []Result // those that a person sets; nil: PENDING and VICTORY
	older   bool     // some tools write is_gold_star
	known   bool     // starts at rest after first contact, else before it
	starred bool     // the tasks and, where known, the row
	begin   []Result // where not known: the rows it may begin with; nil: PENDING
	left    budget
	size    size
	mutant  mutant
}

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
	var all []state
	for _, result := range begin {
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
			if m.known {
				t.by, t.starsBy = s.row.by, s.row.by
			} else {
				s.speak(m.starred, &t.by)
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
	}
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

// spend takes one off what may still happen.
func spend(left *uint8) bool {
	if *left == 0 {
		return false
	}
	*left--
	return true
}

// people are what people do on purpose.
func (m *model) people(s *state, try tries) {
	rows := m.rows
	if rows == nil {
		rows = []Result{Pending, Victory}
	}
	for _, r := range rows {
		if r != s.row.result && !s.row.gone {
			try("a person sets the row to "+rowSet[r], 0, func(s *state) bool {
				if !spend(&s.left.edits) {
					return false
				}
				s.row.result = r
				s.speak(r == Victory, &s.row.by)
				return m.changed(s)
			})
		}
		if s.row.gone {
			try("another row comes: "+rowSet[r], 0, func(s *state) bool {
				s.row = row{result: r, gen: s.row.gen + 1}
				if r != Pending {
					s.speak(r == Victory, &s.row.by)
				}
				return m.changed(s)
			})
		}
	}
	if !s.row.gone {
		try("the row is deleted", 0, func(s *state) bool { return spend(&s.left.rows) && m.dropRow(s) && m.changed(s) })
	}
	if m.left.clicks > 0 {
		for _, v := range []bool{false, true} {
			try([]string{"a click on the page: no star", "a click on the page: star"}[bit(v)], 0, func(s *state) bool { return m.click(s, v) && m.changed(s) })
		}
	}
	for i := range m.tasks {
		if s.tasks[i].gone {
			continue
		}
		try("a person changes the star in meta", i, func(s *state) bool { return m.editMeta(s, i, false) && m.changed(s) })
		if m.older {
			try("a person changes is_gold_star", i, func(s *state) bool { return m.editMeta(s, i, true) && m.changed(s) })
		}
		try("an annotation says star", i, func(s *state) bool {
			t := &s.tasks[i]
			if !spend(&s.left.stars) {
				return false
			}
			t.stars |= 1 << t.born
			t.born++
			t.annotator(s, true)
			return m.changed(s)
		})
		try("meta is copied from the other task", i, func(s *state) bool { return m.copyMeta(s, i) && m.changed(s) })
		m.unstars(s, i, try)
	}
}

// rowSet tells what a person sets a row to.
var rowSet = [...]string{"PENDING", "VICTORY", "DEFEAT"}

// unstars takes annotations away that were there at our last look. At a first
// contact what is not there any more has no say.
func (m *model) unstars(s *state, i int, try tries) {
	seen := s.tasks[i].stars & s.edges[i].base
	if s.edges[i].isNew || s.row.gone || !s.hub.known || s.hub.gen != s.row.gen {
		return
	}
	for id := range 6 {
		if seen>>id&1 != 0 {
			try("an annotation's star is taken away", i, func(s *state) bool {
				t := &s.tasks[i]
				if !spend(&s.left.stars) {
					return false
				}
				if t.stars &^= 1 << id; t.stars == 0 {
					t.annotator(s, false)
				}
				return m.changed(s)
			})
		}
	}
}

// annotator speaks by an annotation. Who annotates sees the task, so meta as
// well; who writes meta, which no page shows, sees meta alone.
func (t *remote) annotator(s *state, star bool) {
	t.starsBy |= t.by
	s.speak(star, &t.starsBy)
}

// editMeta is a person who changes what the task shows, leaving our stamp.
func (m *model) editMeta(s *state, i int, older bool) bool {
	t := &s.tasks[i]
	differ := t.isGold != Absent && t.isGold != t.gold // which one a person sees is his tool's affair
	if t.tampered || differ || older && t.unseen || !spend(&s.left.edits) {
		return false
	}
	shows := Look{Edge: s.edges[i].edge(i), Meta: t.page.meta()}.Shown()
	if older {
		t.isGold = Of(!shows)
	} else {
		t.gold = Of(!shows)
	}
	t.unseen = true
	s.speak(!shows, &t.by)
	return true
}

// copyMeta puts another task's meta here, its stamp included: a person's word
// where it changes what is shown. A stamp of another task is none.
func (m *model) copyMeta(s *state, i int) bool {
	t, o := &s.tasks[i], &s.tasks[1-i]
	if o.gold == Absent || t.gold.Shown() == o.gold.Shown() || t.tampered || s.edges[i].intent.there || !spend(&s.left.foreign) {
		return false
	}
	t.gold, t.stamp, t.unseen = o.gold, 0, true
	if m.breaks(foreignStamp) {
		t.stamp = o.stamp
	}
	s.speak(t.gold == Yes, &t.by)
	return true
}

// dropRow deletes the row. What it had not yet sent on goes with it: what counts
// from here on is what the tasks show, and what is under way to them.
func (m *model) dropRow(s *state) bool {
	s.row = row{gone: true, gen: s.row.gen}
	var p [40]*words
	for _, w := range s.places(&p) {
		*w = 0
	}
	s.alive, s.says = 0, 0
	for i := range m.tasks {
		t := &s.tasks[i]
		s.speak(Look{Edge: s.edges[i].edge(i), Meta: t.page.meta()}.Shown(), &t.by)
		if base := s.edges[i].base; t.stars&^base != 0 || t.stars == 0 && base != 0 {
			s.speak(t.stars != 0, &t.starsBy)
		}
		for w := range s.workers {
			if r := &s.workers[w].read[i]; r.page.meta() == t.page.meta() {
				r.by = t.by
			}
		}
	}
	var sent [2][2]words // what is under way to a task says what it was sent to say
	word := func(task int, value bool) words {
		w := &sent[task][bit(value)]
		if *w == 0 {
			s.speak(value, w)
		}
		return *w
	}
	for i := range m.tasks {
		for w := range s.workers {
			if p := &s.workers[w].posts[i]; p.stage != none {
				p.by = word(i, p.value)
			}
		}
	}
	for n := range s.loose {
		if f := &s.loose[n]; f.there {
			f.by = word(int(f.task), f.value)
		}
	}
	return true
}

// click is our page, or `held settle`: an edit of the row that we write ourselves.
func (m *model) click(s *state, v bool) bool {
	if s.row.gone || !s.edges[0].held && !s.edges[1].held || !spend(&s.left.clicks) {
		return false
	}
	switch {
	case v:
		s.row.result = Victory
	case s.row.result == Victory:
		s.row.result = Pending
	}
	if s.hub.known && s.hub.gen == s.row.gen {
		s.hub.d, s.hub.changed = v, true
		for i := range m.tasks {
			if e := &s.edges[i]; e.held && !m.breaks(holdByRow) {
				s.row.by |= e.note.by // the page shows what was noted
				e.isNew, e.s, e.last, e.base = false, e.note.shown, e.note.stamp, e.note.stars
				e.held, e.note = false, note{}
			}
		}
	}
	s.speak(v, &s.row.by)
	return true
}

// tampering is what nobody means: other people's tools, and the tasks' own life.
func (m *model) tampering(s *state, i int, try tries) {
	if t := &s.tasks[i]; t.gone {
		try("the task is back", i, func(s *state) bool { s.tasks[i].gone = false; return m.changed(s) })
		return
	}
	try("the task is gone", i, func(s *state) bool {
		s.tasks[i].gone = spend(&s.left.tasks)
		return s.tasks[i].gone && m.changed(s)
	})
	another := func(p page) func(*state) bool {
		return func(s *state) bool {
			t := &s.tasks[i]
			if t.unseen || t.stars != s.edges[i].base || !spend(&s.left.others) {
				return false // a word that was not looked at goes with its task
			}
			*t = remote{other: !t.other, page: p}
			return m.changed(s)
		}
	}
	was := s.tasks[i].page
	try("the number is another task now", i, another(page{}))
	try("the number is another task now, from an old export", i, another(page{gold: was.gold})) // whose word that was, it does not show
	try("somebody replaces meta", i, func(s *state) bool {
		t := &s.tasks[i]
		if t.unseen || t.page.meta() == (Meta{}) || !spend(&s.left.blobs) {
			return false
		}
		t.page, t.tampered = page{}, true
		return m.changed(s)
	})
	try("somebody opens the task", i, func(s *state) bool {
		t := &s.tasks[i]
		if t.copied || t.gold != Absent && t.stamp == 0 || !spend(&s.left.saves) {
			return false
		}
		t.copied, t.copy = true, t.page
		return true
	})
	try("the old copy is saved over ours", i, func(s *state) bool {
		t := &s.tasks[i]
		if !t.copied || t.unseen || t.stamp == 0 || t.stamp == t.copy.stamp {
			return false
		}
		t.page, t.tampered, t.copied, t.copy = t.copy, true, false, page{}
		return m.changed(s)
	})
}

// work is the worker w, its faults and its end.
func (m *model) work(s *state, w int, try tries) {
	k := &s.workers[w]
	if k.step == idle && (!m.queued || s.queue.dirty) {
		try("a worker claims the key", w, func(s *state) bool { m.claim(s, w); return true })
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
}

// calm is the next step of a run without faults and without people; false: at rest.
func (m *model) calm(s state) (state, bool) {
	switch {
	case m.deliver(&s):
	case m.passTime(&s):
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
	if m.tasks == 1 && s.left.clicks < m.left.clicks && s.edges[0].held {
		return "a click did not end the hold"
	}
	for i := range m.tasks {
		t, e := s.tasks[i], s.edges[i]
		held = held || e.held
		if t.gone || e.held {
			continue
		}
		heard |= t.by | t.starsBy
		switch shown := (Look{Edge: e.edge(i), Meta: t.page.meta()}).Shown(); {
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
	if held || s.alive != 0 && heard == 0 {
		return "" // a person is asked; or the only word is on a task that is gone
	}
	return "the value is not what anybody wants: an edit is lost, or was invented"
}
