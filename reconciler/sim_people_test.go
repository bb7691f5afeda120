package reconciler

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/star"
)

// This file is what people and their tools do. What no program can tell apart from
// outside (see the package star) they do not do here, as in the exhaustive search:
// an edit of meta on top of a replaced meta or of an old copy that was not looked
// at, and the reverse; an edit of one star key on top of an edit of the other that was
// not looked at, or where they differ or may come to at first contact; an annotation
// that comes and goes between two looks.

// act lets somebody do something, and tells whether there was anything to do.
func (s *sim) act() bool {
	if s.acts == 0 {
		return false
	}
	key := s.keys[s.rng.IntN(len(s.keys))]
	for _, e := range ordered(s.rows.edges) { // it matters most where a PATCH is under way
		if e.IntentAttempt != nil && s.rng.IntN(3) == 0 {
			key = e.Key
		}
	}
	done := false
	switch n := s.rng.IntN(25); {
	case n < 6:
		done = s.editRow(key)
	case n > 21:
		done = s.click(key)
	case n < 7:
		done = s.loseRow(key)
	default:
		if id, ok := s.someTask(key); ok {
			done = s.actOn(key, id, n)
		}
	}
	if done {
		s.acts--
	}
	return done
}

func (s *sim) someTask(key string) (int64, bool) {
	ids := s.accounts[key].ids()
	if len(ids) == 0 {
		return 0, false
	}
	return ids[s.rng.IntN(len(ids))], true
}

func (s *sim) actOn(key string, id int64, n int) bool {
	t, sp, a := s.tasks.tasks[id], s.accounts[key].tasks[id], s.accounts[key]
	if t.gone {
		t.gone = false
		s.logf("task %d is back", id)
		s.sweep = append(s.sweep, key) // what a full pass finds
		return true
	}
	switch {
	case n < 11:
		return s.editMeta(key, t, sp, a)
	case n < 14:
		s.logf("an annotation of %d says star", id)
		s.tasks.annotate(t, 0, true, s.somebody())
		a.annotator(sp, true)
		s.hook(t)
	case n < 16:
		return s.unstar(key, t, sp, a)
	case n < 18 && !s.met(key, id):
		return false // a star that was never looked at goes with its meta
	case n < 17:
		if sp.unseen || readMeta(id, t.Meta) == (star.Meta{}) {
			return false
		}
		s.logf("somebody replaces the meta of %d", id)
		s.setMeta(t, json.RawMessage([]string{`{}`, `null`, `{"other": 1}`, `[]`}[s.rng.IntN(4)]))
		sp.meta, sp.tampered = 0, true
	case n < 18:
		return s.oldCopy(t, sp)
	case n < 19:
		s.logf("somebody notes something in the meta of %d", id)
		m := object(t.Meta)
		if m == nil {
			return false
		}
		m["note"] = json.RawMessage(fmt.Sprint(t.version))
		raw, err := json.Marshal(m)
		if err != nil {
			panic(err)
		}
		s.setMeta(t, raw)
	default:
		return s.moveTask(key, t, sp)
	}
	return true
}

// met tells whether a task has had its first contact with the row that there is.
func (s *sim) met(key string, id int64) bool {
	e, h, row := s.rows.edges[id], s.rows.hubs[key], s.rows.conquests[key]
	return e != nil && e.S != nil && e.Key == key && row != nil && h != nil && h.D != nil && h.Of(&row.Conquest)
}

func (s *sim) editRow(key string) bool {
	row, a := s.rows.conquests[key], s.accounts[key]
	result := []string{aristotle.Pending, aristotle.Victory, aristotle.Victory, "DEFEAT"}[s.rng.IntN(4)]
	if row == nil {
		s.newRow(key, result)
		a.row = 0
		if result != aristotle.Pending || s.initial != "union" {
			a.speak(result == aristotle.Victory, &a.row)
		}
		s.logf("another row of %s comes: %s", key, result)
	} else {
		if *row.Result == result {
			return false
		}
		row.Result = &result
		a.speak(result == aristotle.Victory, &a.row)
		s.logf("a person sets the row of %s to %s", key, result)
	}
	s.wal = append(s.wal, key)
	return true
}

// click is a person on our page, who sees the row and what is held, or who settles a hold.
func (s *sim) click(key string) bool {
	a, row := s.accounts[key], s.rows.conquests[key]
	c := ledger.Click{Key: key, Gold: s.rng.IntN(2) == 0, From: ledger.FromCuration, Held: s.rng.IntN(2) == 0}
	stored := s.rows.hubs[key]
	early := row != nil && (stored == nil || stored.D == nil || !stored.Of(&row.Conquest)) // no turn has come to this row yet: it goes over what the tasks have shown from the first
	var notes words
	for _, e := range s.rows.edgesOf(key) {
		if sp := a.tasks[e.Task]; e.Held != nil && sp != nil {
			notes |= sp.note
		}
	}
	settled, err := s.rows.click(c)
	if err != nil {
		return false
	}
	s.logf("a click on %s: star %v, %d holds settled", key, c.Gold, settled)
	if settled > 0 {
		a.row |= notes
	}
	for _, sp := range a.tasks {
		if early && !sp.unseen {
			a.row |= sp.meta
		}
	}
	a.speak(row.IsVictory(), &a.row)
	s.wal = append(s.wal, key)
	return true
}

func (s *sim) newRow(key, result string) {
	s.born++
	created := fmt.Sprintf("2026-01-01 00:00:%02d", s.born)
	s.rows.conquests[key] = &memConquest{Conquest: aristotle.Conquest{ID: key, Result: &result, Philosopher: "p", Domain: "d", CreatedAt: &created}}
}

func (s *sim) loseRow(key string) bool {
	if s.rows.conquests[key] == nil || s.rng.IntN(2) == 0 {
		return false
	}
	s.logf("the row of %s is deleted", key)
	delete(s.rows.conquests, key)
	for id, r := range s.rows.ratings {
		if r.Key == key {
			delete(s.rows.ratings, id)
		}
	}
	a := s.accounts[key]
	a.dropRow(func(id int64) (meta, say, changed bool) {
		t, e := s.tasks.tasks[id], s.rows.edges[id]
		base, now := star.IDs(nil), stars(&t.Task, false)
		if e != nil {
			base = star.Set(slices.Clone(e.Base)...)
		}
		return shows(nil, id, t.Meta), len(now) > 0, len(now.Minus(base)) > 0 || len(now) == 0 && len(base) > 0
	})
	for _, id := range a.ids() { // a click on the next row that comes before any turn leaves an edge what it knows: then an edit is heard as one
		if sp, e, meta := a.tasks[id], s.rows.edges[id], s.tasks.tasks[id].Meta; sp.unseen && shows(e, id, meta) != shows(nil, id, meta) {
			var edit words
			a.speak(shows(e, id, meta), &edit)
			sp.meta |= edit
		}
	}
	for _, r := range s.replicas { // who has read the task as it is has read these words
		for id, read := range r.reads {
			if sp := a.tasks[id]; sp != nil {
				read.stars = 0
				if read.meta = 0; readMeta(id, read.task.Meta) == readMeta(id, s.tasks.tasks[id].Meta) {
					read.meta = sp.meta
				}
			}
		}
	}
	s.wal = append(s.wal, key)
	return true
}

// setMeta is somebody's PATCH of meta, of which no webhook tells.
func (s *sim) setMeta(t *memTask, meta json.RawMessage) {
	s.tasks.setMeta(t, meta)
	if s.exact {
		s.hook(t)
	}
}

// editMeta is a person who changes what the task shows by one of the star keys, leaving
// our stamp.
func (s *sim) editMeta(key string, t *memTask, sp *spoken, a *account) bool {
	was, name := readMeta(t.ID, t.Meta), metaGold
	other := was.IsGold
	if s.rng.IntN(3) == 0 {
		name, other = metaIsGold, was.Gold
	}
	differ := was.Gold != star.Absent && was.IsGold != star.Absent && was.Gold != was.IsGold // which one a person sees is his tool's affair
	if sp.tampered || differ || other != star.Absent && (sp.unseen || !s.met(key, t.ID)) {
		return false
	}
	show := !shows(s.rows.edges[t.ID], t.ID, t.Meta)
	m := object(t.Meta)
	if m == nil {
		m = map[string]json.RawMessage{}
	}
	m[name] = json.RawMessage(fmt.Sprint(show))
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	s.setMeta(t, raw)
	sp.unseen = true
	a.speak(show, &sp.meta)
	s.logf("a person sets %s of %d to %v", name, t.ID, show)
	return true
}

// unstar takes an annotation's star away that was there at our last look.
func (s *sim) unstar(key string, t *memTask, sp *spoken, a *account) bool {
	if !s.met(key, t.ID) {
		return false
	}
	e := s.rows.edges[t.ID]
	var ids []int64
	for _, id := range stars(&t.Task, false) {
		if star.Set(slices.Clone(e.Base)...).Has(id) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return false
	}
	id := ids[s.rng.IntN(len(ids))]
	s.logf("annotation %d of %d says star no more", id, t.ID)
	if s.rng.IntN(2) == 0 {
		s.tasks.unannotate(t, id)
		if !s.drop() {
			s.hooks = append(s.hooks, hook{annotation: id})
		}
	} else {
		s.tasks.annotate(t, id, false, s.somebody())
		s.hook(t)
	}
	if len(stars(&t.Task, false)) == 0 {
		a.annotator(sp, false)
	}
	return true
}

// oldCopy is Label Studio saving a whole row that was read before.
func (s *sim) oldCopy(t *memTask, sp *spoken) bool {
	now := readMeta(t.ID, t.Meta)
	if !sp.copied {
		if (now.Gold != star.Absent || now.IsGold != star.Absent) && now.Stamp == "" {
			return false
		}
		s.logf("somebody opens task %d", t.ID)
		sp.copied, sp.copy, sp.copyBy = true, t.Meta, sp.meta
		return true
	}
	old := readMeta(t.ID, sp.copy)
	if sp.unseen || now.Stamp == "" || now.Stamp == old.Stamp {
		return false
	}
	s.logf("the old copy of %d is saved over ours", t.ID)
	s.setMeta(t, sp.copy)
	sp.meta, sp.tampered = sp.copyBy, true
	sp.copied, sp.copy, sp.copyBy = false, nil, 0
	return true
}

// moveTask makes a task go away, or gives its number to another one.
func (s *sim) moveTask(key string, t *memTask, sp *spoken) bool {
	e := s.rows.edges[t.ID]
	looked := s.met(key, t.ID) && !sp.unseen && !sp.tampered && slices.Equal(e.Base, stars(&t.Task, false))
	if s.rng.IntN(2) == 0 {
		if !looked && (s.initial != "union" || s.met(key, t.ID) || sp.unseen) {
			return false // what it said over all else goes with it
		}
		s.logf("task %d is gone", t.ID)
		t.gone = true
		if !s.drop() {
			s.hooks = append(s.hooks, hook{task: t.ID})
		}
		return true
	}
	if !looked {
		return false // a word that was not looked at goes with its task
	}
	s.logf("the number of task %d is another task now", t.ID)
	other := s.tasks.add(t.ID, t.Project, key)
	other.version = t.version + 1
	*sp = spoken{other: sp.other + 1}
	if s.initial == "labelstudio" {
		s.accounts[key].speak(false, &sp.meta) // before its project's first full pass even a bare task speaks
	}
	s.hook(other)
	return true
}

// hook is a webhook that may arrive: of a task, or of an annotation that was deleted.
type hook struct{ task, annotation int64 }

// drop tells whether a webhook is not delivered.
func (s *sim) drop() bool { return !s.exact && s.rng.IntN(4) == 0 }

func (s *sim) hook(t *memTask) {
	if !s.drop() {
		s.hooks = append(s.hooks, hook{task: t.ID})
	}
}

// deliver takes in a trigger: some of the stream, or a webhook.
func (s *sim) deliver() bool {
	if n := len(s.wal); n > 0 && (len(s.hooks) == 0 || s.rng.IntN(2) == 0) {
		s.stream(1 + s.rng.IntN(n))
		return true
	}
	if len(s.hooks) == 0 {
		return false
	}
	i := s.rng.IntN(len(s.hooks)) // in any order
	h := s.hooks[i]
	if s.rng.IntN(8) > 0 { // or it comes again
		s.hooks = slices.Delete(s.hooks, i, i+1)
	}
	s.webhook(h)
	return true
}

// stream takes in the first changes of the WAL, and confirms them once that has
// committed. Where the process dies in between they come again.
func (s *sim) stream(n int) {
	keys := slices.Compact(slices.Sorted(slices.Values(s.wal[:n])))
	confirm := func() { s.wal = slices.Clone(s.wal[n:]) }
	if s.mutant == confirmFirst {
		confirm()
	}
	switch s.fault(s.rng.IntN(3)) {
	case 1:
		s.logf("the stream is cut before %v are queued", keys)
	case 2:
		s.rows.changed(keys, ledger.FromWAL)
		s.logf("the stream is cut after %v are queued", keys)
	default:
		s.rows.changed(keys, ledger.FromWAL)
		s.logf("the stream queues %v", keys)
		if s.mutant != confirmFirst {
			confirm()
		}
	}
}

func (s *sim) webhook(h hook) {
	s.logf("a webhook of task %d, annotation %d", h.task, h.annotation)
	if h.annotation != 0 {
		for _, e := range ordered(s.rows.edges) {
			if slices.Contains(e.Base, h.annotation) {
				s.rows.markDirty([]string{e.Key}, ledger.FromWebhook)
			}
		}
		return
	}
	t := s.tasks.tasks[h.task]
	if t.gone {
		if e := s.rows.edges[h.task]; e != nil {
			s.rows.markDirty([]string{e.Key}, ledger.FromWebhook)
		}
		return
	}
	s.rows.linked([]ledger.Link{{Task: t.ID, Project: t.Project, Key: t.key()}}, ledger.FromWebhook)
}

// pass is an incremental pass from its listing to its end.
func (s *sim) pass() { s.list()() }

// list is the listing of an incremental pass: it finds the tasks whose updated_at is not the one that was looked at
// last, and goes through projects that none went through before. And what a full pass would find. What comes
// of it is committed later, however old the listing is by then; a pass that dies before has found nothing.
func (s *sim) list() (commit func()) {
	if s.elsewhere != nil {
		s.logf("a pass finds another Label Studio")
		return func() {}
	}
	var links []ledger.Link
	var updated []time.Time
	for _, t := range ordered(s.tasks.tasks) {
		if !t.gone {
			links = append(links, ledger.Link{Task: t.ID, Project: t.Project, Key: t.key()})
			updated = append(updated, t.UpdatedAt)
		}
	}
	swept := s.sweep
	s.logf("a pass lists all tasks")
	return func() {
		s.rows.touched(links, updated)
		var first []int64
		for _, l := range links {
			if !s.rows.projects[l.Project] {
				first = append(first, l.Project)
			}
		}
		s.rows.met(first)
		s.rows.markDirty(swept, ledger.FromDiff)
		s.sweep = s.sweep[len(swept):]
		s.logf("the pass ends")
	}
}
