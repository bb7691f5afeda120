package reconciler

import "slices"

// words is a set of people's words. Each place where a star is shown carries the
// words that have led to what it shows. Who speaks there has seen them: they are
// overridden, and the new word takes their place. So what must hold at rest is: some
// word that nobody has knowingly overridden says the value. The exhaustive search of
// package star keeps the same account of the same words.
type words uint64

// account is the words of one key.
type account struct {
	born        int
	alive, says words
	row         words
	tasks       map[int64]*spoken
	posts       map[string]*post // by attempt
}

// spoken is the words at one task.
type spoken struct {
	meta, stars words
	unseen      bool // a person's change of meta that no S3 has taken up
	tampered    bool // meta was replaced or an old copy saved, and no S3 has taken that up
	other       int  // grows when its number is given to another task
	copied      bool // somebody holds an old copy of the whole row:
	copy        []byte
	copyBy      words
	note        words // of the look that a hold noted
}

// post is a PATCH that S3 has committed: what it was to say, and by whose words.
type post struct {
	task  int64
	value bool
	by    words
}

func newAccount() *account { return &account{tasks: map[int64]*spoken{}, posts: map[string]*post{}} }

// speak adds a word by somebody who had seen those of at, and leaves it there.
func (a *account) speak(value bool, at *words) {
	word := words(1) << a.born
	if a.born++; word == 0 {
		panic("more words than there is room for")
	}
	a.alive = a.alive&^*at | word
	if value {
		a.says |= word
	}
	*at = word
}

// annotator speaks by an annotation. Who annotates sees the task, so meta as well;
// who writes meta, which no page shows, sees meta alone.
func (a *account) annotator(t *spoken, star bool) {
	t.stars |= t.meta
	a.speak(star, &t.stars)
}

// wanted tells whether some living word says value, and whether any lives at all.
func (a *account) wanted(value bool) (wanted, any bool) {
	at := a.row
	for _, t := range a.tasks {
		at |= t.meta | t.stars | t.copyBy | t.note
	}
	living := at & a.alive
	if value {
		return living&a.says != 0, living != 0
	}
	return living&^a.says != 0, living != 0
}

// heard is what somebody settled of one edge: what was read, and what became of it.
type heard struct {
	task      int64
	read      sighting
	decided   bool // it has had its first contact
	held      bool
	attempt   string // of a new PATCH, "" for none
	value     bool
	unchanged bool // the task is still as it was read
}

// settled is S3 for the words: the row follows what was heard, and PATCHes carry
// what the row has heard.
func (a *account) settled(all []heard) {
	for _, h := range all {
		if h.decided {
			a.row |= h.read.meta | h.read.stars
		}
	}
	for _, h := range all {
		t := a.tasks[h.task]
		if t == nil || t.other != h.read.other {
			continue
		}
		if t.note = 0; h.held {
			t.note = h.read.meta | h.read.stars
		}
		if h.unchanged {
			t.unseen = false
		}
		t.tampered = t.tampered && !h.read.tampered
		switch {
		case h.attempt != "":
			a.posts[h.attempt] = &post{h.task, h.value, a.row}
		case h.decided && h.unchanged:
			// The task shows what all agree on: who speaks there from now on has seen it.
			t.meta |= a.row
			t.stars |= a.row
		}
	}
}

// land is a PATCH taking effect on a task that showed this.
func (a *account) land(task int64, attempt string, showed bool, other int) {
	t, p := a.tasks[task], a.posts[attempt]
	by := words(0)
	if p != nil {
		if by = p.by; showed == p.value {
			by |= t.meta // it undoes nothing
		}
	}
	if t.other != other {
		by = t.meta // it was meant for the task before
	}
	t.meta = by
	t.stars |= by
	t.unseen, t.tampered = false, false
}

// dropRow forgets all words with the row: what it had not yet sent on goes with it.
// What counts from here on is what the tasks show, and what is under way to them.
func (a *account) dropRow(shows func(task int64) (meta bool, stars, changed bool)) {
	a.row, a.alive = 0, 0
	for _, id := range a.ids() {
		t := a.tasks[id]
		t.meta, t.stars, t.copyBy, t.note = 0, 0, 0, 0
		meta, stars, changed := shows(id)
		if a.speak(meta, &t.meta); changed {
			a.speak(stars, &t.stars)
		}
		var sent [2]words // what is under way to a task says what it was sent to say
		for _, p := range a.posts {
			if p.task != id {
				continue
			}
			w := &sent[0]
			if p.value {
				w = &sent[1]
			}
			if *w == 0 {
				a.speak(p.value, w)
			}
			p.by = *w
		}
	}
}

func (a *account) ids() (ids []int64) {
	for id := range a.tasks {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
