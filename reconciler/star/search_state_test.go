package star

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// The state of the search is one key: its row, what we remember, up to two tasks,
// up to two workers and what is under way between them. It is flat and small,
// holds no pointer, and two states that differ in nothing that matters are made
// equal by canonical, so that they can be told apart by ==.
type state struct {
	row     row
	hub     hub
	tasks   [2]remote
	edges   [2]edge
	workers [2]worker
	loose   [3]flight // PATCHes whose sender is gone or has given up
	queue   queue
	backup  backup
	left    budget
	sent    uint8 // PATCHes, where the model counts them
	alive   words // people's words that nobody has knowingly overridden
	says    words // those of them that say star
}

// words is a set of people's words. Each place where a star is shown carries the
// words that have led to what it shows. Who speaks there has seen them: they are
// overridden and leave every set; the new word takes their place. So what must
// hold at rest is: some word that is alive says the value.
type words uint8

// attempt names a PATCH and its stamp; 0 is none.
type attempt uint8

type row struct {
	gone   bool
	result Result
	gen    uint8 // its createdAt
	by     words
}

type hub struct {
	known, d, changed bool // changed: n > 0, all that is ever asked of n
	gen               uint8
	before            Result
}

// page is a meta, and whose words it shows.
type page struct {
	gold, isGold Value
	stamp        attempt
	by           words
}

type remote struct {
	gone  bool // 404
	away  bool // its data names another conquest
	other bool // flips when the number is given to another task
	page
	stars, born uint8 // annotations that say star, and how many ids were given away
	starsBy     words
	unseen      bool // a person's change of meta that no S3 has taken up
	tampered    bool // meta was replaced or an old copy saved, and no S3 has taken that up
	copied      bool // somebody holds an old copy of the whole task row
	copy        page
}

type edge struct {
	unlinked        bool // its task is another conquest's: there is no edge
	isNew, s, other bool
	older           Value // is_gold_star, where it differed
	last            attempt
	issued          attempt // the last attempt of all: only a mutant asks
	base            uint8
	begun           Initial
	intent          intent
	held            bool
	note            note // what was seen when it was held
}

type intent struct {
	there, value, passed bool // passed: its deadline
	attempt              attempt
}

type note struct {
	shown bool
	older Value
	stamp attempt
	stars uint8
	by    words
}

// The steps of a worker. The name is of the step that comes next.
const (
	idle uint8 = iota
	reads
	settles // S3
	sends   // S4 and S5
)

type worker struct {
	step  uint8
	mine  bool // the queue's claim is still the one that it was given
	later bool // a trigger came since
	read  [2]read
	posts [2]post
}

const (
	notYet uint8 = iota
	seenIt
	unreadIt
	missingIt
)

type read struct {
	sight                 uint8
	other, tampered, away bool
	page
	stars   uint8
	starsBy words
	ripe    attempt // at S1: the intent whose deadline had passed
	alive   attempt // at S1: the intent whose deadline had not
}

// The stages of a PATCH.
const (
	none uint8 = iota
	todo
	sent
	worked
	refused // it certainly had and will have no effect
	unknown
)

type post struct {
	stage   uint8
	value   bool
	attempt attempt
	by      words
}

type flight struct {
	there   bool
	task    uint8
	value   bool
	attempt attempt
	by      words
}

// queue is used by the models that do not let a pass begin at any time.
type queue struct {
	told  bool // something changed, and its trigger has not arrived
	dirty bool
}

// backup is what was saved of one of the sides, and can be put back.
type backup struct {
	there bool
	row   row
	hub   hub
	edges [2]edge
	dirty bool
	pages [2]page
	stars [2]uint8
}

// budget is what may still happen. Early are clicks before the first turn.
type budget struct {
	edits, stars, crashes, lost, refusals, unread, blobs, saves, rows, tasks, others, clicks, early, foreign, moves, backups uint8
}

// counts are the fields of a budget, and budgetNames what they count.
func (b budget) counts() [16]uint8 {
	return [...]uint8{b.edits, b.stars, b.crashes, b.lost, b.refusals, b.unread, b.blobs, b.saves, b.rows, b.tasks, b.others, b.clicks, b.early, b.foreign, b.moves, b.backups}
}

var budgetNames = [...]string{"edits", "stars", "crashes", "lost", "refusals", "unread", "blobs", "saves", "rows", "tasks", "others", "clicks", "early clicks", "foreign", "moves", "backups"}

// speak adds a word by somebody who had seen those of at, and leaves it there.
func (s *state) speak(value bool, at *words) {
	seen := *at
	var word words
	for word = 1; word&(s.alive|seen) != 0; word <<= 1 {
		if word == 1<<7 {
			panic("too many words at once")
		}
	}
	s.alive = s.alive&^seen | word
	s.says &^= word
	if value {
		s.says |= word
	}
	*at = word
}

// also adds a word by somebody who overrides nobody: by whoever had put there what
// has come back.
func (s *state) also(value bool, at *words) {
	seen := *at
	*at = 0
	s.speak(value, at)
	*at |= seen
}

// places returns every set of words in s, in a fixed order.
func (s *state) places(p *[40]*words) []*words {
	n := 0
	add := func(w *words) { p[n] = w; n++ }
	add(&s.row.by)
	for i := range s.tasks {
		add(&s.tasks[i].by)
		add(&s.tasks[i].starsBy)
		add(&s.tasks[i].copy.by)
		add(&s.edges[i].note.by)
		for w := range s.workers {
			add(&s.workers[w].read[i].by)
			add(&s.workers[w].read[i].starsBy)
			add(&s.workers[w].posts[i].by)
		}
	}
	for i := range s.loose {
		add(&s.loose[i].by)
	}
	return p[:n]
}

// attempts returns every attempt in s, in a fixed order.
func (s *state) attempts(p *[48]*attempt) []*attempt {
	n := 0
	add := func(a *attempt) { p[n] = a; n++ }
	for i := range s.tasks {
		add(&s.tasks[i].stamp)
		add(&s.edges[i].last)
		add(&s.edges[i].intent.attempt)
		add(&s.edges[i].note.stamp)
		add(&s.tasks[i].copy.stamp)
		add(&s.edges[i].issued)
		add(&s.backup.pages[i].stamp)
		add(&s.backup.edges[i].last)
		add(&s.backup.edges[i].intent.attempt)
		add(&s.backup.edges[i].note.stamp)
		for w := range s.workers {
			add(&s.workers[w].read[i].stamp)
			add(&s.workers[w].read[i].ripe)
			add(&s.workers[w].read[i].alive)
			add(&s.workers[w].posts[i].attempt)
		}
	}
	for i := range s.loose {
		add(&s.loose[i].attempt)
	}
	return p[:n]
}

// canonical renames what has only an identity: attempts, words, workers.
func (s *state) canonical() {
	if w := &s.workers; w[0].rank() < w[1].rank() {
		w[0], w[1] = w[1], w[0]
	}
	slices.SortStableFunc(s.loose[:], func(a, b flight) int { return cmp.Compare(b.rank(), a.rank()) })
	var a [48]*attempt
	var names [64]attempt
	next := attempt(1)
	for _, p := range s.attempts(&a) {
		if *p == 0 {
			continue
		}
		if names[*p] == 0 {
			names[*p] = next
			next++
		}
		*p = names[*p]
	}
	s.renameWords()
}

func (w *worker) rank() uint8 {
	r := w.step << 1
	if w.mine {
		r++
	}
	return r
}

func (f flight) rank() (r uint8) {
	for i, b := range []bool{f.value, f.task == 0, f.there} {
		if b {
			r |= 1 << i
		}
	}
	return r
}

// renameWords gives words that are at the same places and say the same one name,
// and drops those that are nowhere any more.
func (s *state) renameWords() {
	var p [40]*words
	places := s.places(&p)
	var where [8]uint64
	for at, w := range places {
		*w &= s.alive
		for rest, i := *w, 0; rest != 0; rest, i = rest>>1, i+1 {
			if rest&1 != 0 {
				where[i] |= 2 << at
			}
		}
	}
	var order [8]uint64
	n := 0
	for i, at := range where {
		if at == 0 {
			continue
		}
		if s.says>>i&1 != 0 {
			at |= 1
		}
		if !slices.Contains(order[:n], at) {
			order[n] = at
			n++
		}
	}
	slices.Sort(order[:n])
	s.alive, s.says = words(1)<<n-1, 0
	for _, w := range places {
		*w = 0
	}
	for i, at := range order[:n] {
		s.says |= words(at&1) << i
		for p, w := range places {
			if at>>(p+1)&1 != 0 {
				*w |= 1 << i
			}
		}
	}
}

// String tells a state in one line, leaving out what is at its zero.
func (s state) String() string {
	var b strings.Builder
	row := [...]string{"PENDING", "VICTORY", "OTHER"}[s.row.result]
	if s.row.gone {
		row = "gone"
	}
	fmt.Fprintf(&b, "row %s.%d", row, s.row.gen)
	if s.hub.known {
		fmt.Fprintf(&b, " d=%d.%d", bit(s.hub.d), s.hub.gen)
	}
	for i := range s.tasks {
		t, e := s.tasks[i], s.edges[i]
		if t == (remote{}) && e == (edge{}) {
			continue
		}
		fmt.Fprintf(&b, " | meta %s stars %b, edge ", t.page, t.stars)
		switch {
		case e.unlinked:
			b.WriteString("none")
		case e.held:
			b.WriteString("held")
		case e.isNew:
			b.WriteString("new")
		default:
			fmt.Fprintf(&b, "s=%d last #%d base %b", bit(e.s), e.last, e.base)
		}
		if e.intent.there {
			fmt.Fprintf(&b, " intent %d#%d", bit(e.intent.value), e.intent.attempt)
			if e.intent.passed {
				b.WriteString(" (passed)")
			}
		}
		if t.gone {
			b.WriteString(" (404)")
		}
		if t.away {
			b.WriteString(" (another conquest's)")
		}
	}
	fmt.Fprintf(&b, " | wanted:")
	for i := range 8 {
		if s.alive>>i&1 != 0 {
			fmt.Fprintf(&b, " %d", s.says>>i&1)
		}
	}
	return b.String()
}

func (p page) String() string {
	text := p.gold.String()
	if p.isGold != Absent {
		text += "/" + p.isGold.String()
	}
	if p.stamp != 0 {
		text += fmt.Sprintf("#%d", p.stamp)
	}
	return text
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
