package star

// This file is what comes from outside: people, their tools, and the life of rows and tasks.

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
		try("the row is deleted", 0, func(s *state) bool { return s.untouched() && spend(&s.left.rows) && m.dropRow(s) && m.changed(s) })
	}
	if m.left.clicks+m.left.early > 0 {
		for _, v := range []bool{false, true} {
			try([]string{"a click on the page: no star", "a click on the page: star"}[bit(v)], 0, func(s *state) bool { return m.click(s, v) && m.changed(s) })
		}
	}
	for i := range m.tasks {
		if s.tasks[i].gone || s.tasks[i].away {
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
	if !s.met(i) {
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

// met tells whether a task has had its first contact with the row that there is.
func (s *state) met(i int) bool {
	return !s.edges[i].isNew && !s.edges[i].unlinked && !s.row.gone && s.hub.known && s.hub.gen == s.row.gen
}

// lookedAt tells whether all that a task says was looked at, and nobody who read it before that is still at it.
func (s *state) lookedAt(i int) bool {
	t := &s.tasks[i]
	for w := range s.workers {
		if s.workers[w].step != idle {
			return false
		}
	}
	return s.met(i) && !t.unseen && t.stars == s.edges[i].base && (Look{Edge: s.edges[i].edge(i), Meta: t.page.meta()}).Shown() == s.edges[i].s
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
	shows := m.shown(s, i)
	mute := m.late && shows && !s.met(i) // at a first contact a task that shows no star says nothing
	if t.tampered || differ || mute || older && t.unseen || !spend(&s.left.edits) {
		return false
	}
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

// untouched tells whether no tool has done something to a task that was not looked at: the memory that would show it goes with the row.
func (s *state) untouched() bool {
	for i, t := range s.tasks {
		if t.tampered || t.other != s.edges[i].other {
			return false
		}
	}
	return true
}

// dropRow deletes the row. What it had not yet sent on goes with it: what counts
// from here on is what the tasks show, and what is under way to them.
func (m *model) dropRow(s *state) bool {
	s.row = row{gone: true, gen: s.row.gen}
	m.asShown(s)
	return true
}

// asShown forgets who wanted what: what counts from here on is what the tasks show,
// and what is under way to them.
func (m *model) asShown(s *state) {
	var p [40]*words
	for _, w := range s.places(&p) {
		*w = 0
	}
	s.alive, s.says = 0, 0
	for i := range m.tasks {
		t := &s.tasks[i]
		s.speak(m.shown(s, i), &t.by)
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
}

// click is our page, or `held settle`: an edit of the row that we write ourselves. Where no
// turn has come yet, be it to this row, the hub is this row's from then on, and the click goes over
// what the tasks have shown from the first.
func (m *model) click(s *state, v bool) bool {
	own := s.hub.known && s.hub.gen == s.row.gen
	left := &s.left.clicks
	if !own {
		left = &s.left.early
	}
	if s.row.gone || own && !s.edges[0].held && !s.edges[1].held || !spend(left) {
		return false
	}
	for i := range m.tasks {
		if t := &s.tasks[i]; !own && !t.unseen {
			s.row.by |= t.by
		}
	}
	if own || !s.hub.known || !m.breaks(clickOnRowAlone) {
		m.clickHub(s, v, own)
	}
	switch {
	case v:
		s.row.result = Victory
	case s.row.result == Victory:
		s.row.result = Pending
	}
	s.speak(v, &s.row.by)
	return true
}

// clickHub is what a click does to the hub, and to the edges that are held.
func (m *model) clickHub(s *state, v, own bool) {
	before := s.hub.before
	if !own {
		before = Pending
	}
	if s.row.result != Victory {
		before = s.row.result
	}
	s.hub = hub{known: true, d: v, gen: s.row.gen, changed: own || s.hub.known || !m.breaks(earlyUncounted), before: before}
	for i := range m.tasks {
		if e := &s.edges[i]; e.held && !m.breaks(holdByRow) {
			s.row.by |= e.note.by // the page shows what was noted
			e.isNew, e.s, e.older, e.last, e.base = false, e.note.shown, e.note.older, e.note.stamp, e.note.stars
			e.held, e.note = false, note{}
		}
	}
}

// tampering is what nobody means: other people's tools, and the tasks' own life.
func (m *model) tampering(s *state, i int, try tries) {
	if s.tasks[i].away {
		return
	}
	if t := &s.tasks[i]; t.gone {
		try("the task is back", i, func(s *state) bool { s.tasks[i].gone = false; return m.changed(s) })
		return
	}
	try("the task is gone", i, func(s *state) bool {
		if m.looked && !s.lookedAt(i) {
			return false
		}
		s.tasks[i].gone = spend(&s.left.tasks)
		return s.tasks[i].gone && m.changed(s)
	})
	another := func(p page) func(*state) bool {
		return func(s *state) bool {
			t := &s.tasks[i]
			if t.unseen || t.stars != s.edges[i].base || m.looked && !s.lookedAt(i) || !spend(&s.left.others) {
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
		if t.unseen || t.page.meta() == (Meta{}) || !s.met(i) || !spend(&s.left.blobs) {
			return false
		}
		t.page, t.tampered = page{}, true
		return m.changed(s)
	})
	try("somebody opens the task", i, func(s *state) bool {
		t := &s.tasks[i]
		if t.copied || (t.gold != Absent || t.isGold != Absent) && t.stamp == 0 || !spend(&s.left.saves) {
			return false
		}
		t.copied, t.copy = true, t.page
		return true
	})
	try("the old copy is saved over ours", i, func(s *state) bool {
		t := &s.tasks[i]
		if !t.copied || t.unseen || !s.met(i) || t.stamp == 0 || t.stamp == t.copy.stamp {
			return false
		}
		t.page, t.tampered, t.copied, t.copy = t.copy, true, false, page{}
		return m.changed(s)
	})
}

// shown is what a task shows to who knows its edge.
func (m *model) shown(s *state, i int) bool {
	return Look{Edge: s.edges[i].edge(i), Meta: s.tasks[i].page.meta()}.Shown()
}

// moving is a task whose data comes to name another conquest, and comes back: as it
// was, or with what the other conquest's turns have written there.
func (m *model) moving(s *state, i int, try tries) {
	t, e := &s.tasks[i], &s.edges[i]
	if !t.away && !e.unlinked {
		try("the task is given to another conquest", i, func(s *state) bool {
			t := &s.tasks[i]
			if t.gone || t.unseen || t.stars != s.edges[i].base || !spend(&s.left.moves) {
				return false // a word that was not looked at goes with its task
			}
			t.away, t.copied, t.copy = true, false, page{}
			return m.changed(s)
		})
	}
	if !t.away {
		return
	}
	back := func(written Value) func(*state) bool {
		return func(s *state) bool {
			t := &s.tasks[i]
			t.away, t.by, t.starsBy = false, 0, 0
			if written != Absent {
				t.page, t.tampered = page{gold: written, stamp: fresh + 2}, true
			}
			s.also(m.shown(s, i), &t.by)
			return m.changed(s)
		}
	}
	try("the task is given back", i, back(Absent))
	try("the task is given back, starred", i, back(Yes))
	try("the task is given back, without a star", i, back(No))
}

// relink is what the other conquest's turn does once it sees that the task is ours again.
func (m *model) relink(s *state) bool {
	for i := range m.tasks {
		if e := &s.edges[i]; e.unlinked && !s.tasks[i].away {
			*e = edge{isNew: true, other: s.tasks[i].other}
			return m.changed(s)
		}
	}
	return false
}

// restoring is a backup of one side that is taken, and put back later. Nobody wants
// that while we are at it (it takes longer than any turn or PATCH), and what it brings back somebody once wanted: from here on it counts beside
// what the other side shows. Ids of annotations that are given anew after it are
// not modelled: they would be taken for those that were there before.
func (m *model) restoring(s *state, try tries) {
	if m.restores == "" {
		return
	}
	if !s.backup.there {
		try("a backup is taken", 0, func(s *state) bool {
			if !spend(&s.left.backups) {
				return false
			}
			b := backup{there: true}
			if m.restores == ours {
				b.row, b.hub, b.edges, b.dirty = s.row, s.hub, s.edges, s.queue.dirty
				b.row.by, b.edges[0].note.by, b.edges[1].note.by = 0, 0, 0
			} else {
				for i, t := range s.tasks {
					b.pages[i], b.stars[i] = t.page, t.stars
					b.pages[i].by = 0
				}
			}
			s.backup = b
			return true
		})
		return
	}
	try("the backup is put back", 0, func(s *state) bool {
		if s.loose != ([3]flight{}) || s.workers != ([2]worker{}) {
			return false
		}
		if m.restores == ours {
			return m.restoreOurs(s)
		}
		return m.restoreTheirs(s)
	})
}

// restoreOurs puts Aristotle's database back: rows and all that we remember.
func (m *model) restoreOurs(s *state) bool {
	b := s.backup
	s.row, s.hub, s.edges, s.queue.dirty, s.backup = b.row, b.hub, b.edges, b.dirty, backup{}
	m.asShown(s)
	s.also(s.row.result == Victory, &s.row.by)
	return m.changed(s)
}

// restoreTheirs puts Label Studio's database back. What was said there and not
// looked at is lost with it: the row counts as it is.
func (m *model) restoreTheirs(s *state) bool {
	s.also(s.row.result == Victory, &s.row.by)
	for i := range m.tasks {
		t := &s.tasks[i]
		t.page, t.stars = s.backup.pages[i], s.backup.stars[i]
		t.unseen, t.tampered = false, true
		s.also(m.shown(s, i), &t.by)
		s.also(t.stars != 0, &t.starsBy)
	}
	s.backup = backup{}
	return m.changed(s)
}
