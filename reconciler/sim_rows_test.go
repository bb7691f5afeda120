package reconciler

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/star"
)

// memRows is the row side in memory: what the SQL of ledger and aristotle does, each
// method one transaction. It refuses what the protocol forbids of a turn: the first
// breach is told to breach. The conformance suite compares it with PostgreSQL.
type memRows struct {
	breach  func(format string, args ...any)
	dirtied func() // after keys became dirty

	conquests map[string]*memConquest
	ratings   map[string]aristotle.Rating
	hubs      map[string]*memHub
	edges     map[int64]*memEdge
	queue     map[string]*memQueue
	projects  map[int64]bool // whose first full pass is finished
	texts     map[int64]ledger.Text
	audits    []ledger.Audit
	answers   map[string]string // by attempt
	attempts  map[string]bool   // every one that was ever committed
	initial   string
	writes    int           // changes of anything but the queue
	busy      string        // the key whose row the application keeps locked
	landmarks []ledger.Edge // by which projects are known

	// Rules of the SQL, broken by a mutant.
	doneAsWanted, claimStays, endsAnyClaim, settlesAnyAttempt, refusalClearsAny, earlyUncounted, busyIsGone bool
}

type memConquest struct {
	aristotle.Conquest
	example bool
	by      *string
}

type memHub struct {
	ledger.Hub
	searched time.Time
}

type memEdge struct {
	ledger.Edge
	deadline time.Time // of its intent, by the database's clock
}

// memQueue is a row of the queue. Zero times are NULL.
type memQueue struct {
	want, done, claim                     int64
	priority                              int16
	source                                ledger.Source
	since, runAfter, tried, leased, lookA time.Time
	attempts                              int
	err                                   string
}

// memGap is the ledger's minimum gap.
const memGap = time.Second

func newMemRows() *memRows {
	return &memRows{
		breach: func(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }, dirtied: func() {},
		conquests: map[string]*memConquest{}, ratings: map[string]aristotle.Rating{}, hubs: map[string]*memHub{},
		edges: map[int64]*memEdge{}, queue: map[string]*memQueue{}, projects: map[int64]bool{},
		attempts: map[string]bool{}, texts: map[int64]ledger.Text{}, answers: map[string]string{}, initial: "union",
	}
}

// ordered returns a map's entries by key.
func ordered[K cmp.Ordered, V any](m map[K]V) []V {
	all := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, m[k])
	}
	return all
}

func (m *memRows) edgesOf(key string) (all []*memEdge) {
	for _, e := range m.edges {
		if e.Key == key {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *memEdge) int { return cmp.Compare(a.Task, b.Task) })
	return all
}

// markDirty is the function of that name.
func (m *memRows) markDirty(keys []string, from ledger.Source) {
	prio := map[ledger.Source]int16{ledger.FromAPI: 0, ledger.FromCuration: 0, ledger.FromDiff: 2}
	p, ok := prio[from]
	if !ok {
		p = 1
	}
	now := time.Now()
	keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	for _, key := range keys {
		q := m.queue[key]
		if q == nil {
			m.queue[key] = &memQueue{want: 1, priority: p, source: from, since: now, runAfter: now}
			continue
		}
		if q.want > q.done {
			if q.priority > p {
				q.source = from
			}
			q.priority = min(q.priority, p)
			pulled := now
			if at := q.tried.Add(memGap); !q.tried.IsZero() && at.After(now) {
				pulled = at
			}
			if pulled.Before(q.runAfter) {
				q.runAfter = pulled
			}
		} else {
			q.priority, q.source, q.since, q.runAfter = p, from, now, now
		}
		q.want++
	}
	if len(keys) > 0 {
		m.dirtied()
	}
}

// changed is EnqueueChanged: rows as they are now, compared with their hubs.
func (m *memRows) changed(keys []string, from ledger.Source) {
	var dirty []string
	for _, key := range keys {
		c, h := m.conquests[key], m.hubs[key]
		if c == nil {
			if h != nil {
				dirty = append(dirty, key)
			}
			continue
		}
		same := h != nil && h.Of(&c.Conquest)
		if h == nil || h.D == nil || !same || *h.D != c.IsVictory() {
			dirty = append(dirty, key)
		}
		switch {
		case c.IsVictory():
		case h == nil:
			m.hubs[key] = &memHub{Hub: ledger.Hub{Key: key, CreatedAt: c.CreatedAt, Before: c.Result}}
		case same:
			h.Before = c.Result
		}
	}
	m.markDirty(dirty, from)
}

// linked is Linked: what a webhook does with a task that it was told of.
func (m *memRows) linked(links []ledger.Link, from ledger.Source) {
	var keys []string
	m.link(links, m.initial)
	for _, l := range links {
		keys = append(keys, l.Key, m.edges[l.Task].Key)
	}
	m.markDirty(keys, from)
}

// touched is EnqueueTouched: what an incremental pass does with tasks that changed.
func (m *memRows) touched(links []ledger.Link, updated []time.Time) {
	m.link(links, m.initial)
	var keys []string
	for i, l := range links {
		if e := m.edges[l.Task]; e.TaskUpdatedAt == nil || !e.TaskUpdatedAt.Equal(updated[i]) || e.Key != l.Key {
			keys = append(keys, l.Key, e.Key)
		}
	}
	m.markDirty(keys, ledger.FromDiff)
}

// click is Click, and returns how many tasks it settled.
func (m *memRows) click(c ledger.Click) (settled int, err error) {
	row, stored, edges := m.conquests[c.Key], m.hubs[c.Key], m.edgesOf(c.Key)
	if row == nil {
		return 0, ledger.ErrNoConquest
	}
	if c.Held && !slices.ContainsFunc(edges, func(e *memEdge) bool { return e.Held != nil }) {
		return 0, ledger.ErrNotHeld
	}
	if stored == nil {
		stored = &memHub{Hub: ledger.Hub{Key: c.Key, CreatedAt: row.CreatedAt}}
		m.hubs[c.Key] = stored
	}
	hub, by := stored.Hub, "click"
	if !hub.Of(&row.Conquest) {
		hub.CreatedAt, hub.Before = row.CreatedAt, nil
	}
	if !row.IsVictory() {
		hub.Before = row.Result
	}
	rec := ledger.Audit{Key: c.Key, Source: c.From, Reason: ledger.ReasonClick, Said: &c.Gold, SaidBy: &by, Who: c.Who, Result: row.Result}
	var done change
	if row.IsVictory() != c.Gold {
		v := aristotle.Verdict{ID: c.Key, Result: aristotle.Victory, By: c.Who}
		if !c.Gold {
			v.Result = hub.GiveBack()
		}
		rec.Wrote, done.verdict = &v.Result, []aristotle.Verdict{v}
	}
	done.audit = []ledger.Audit{rec}
	if hub.D != nil || !m.earlyUncounted {
		hub.N++
	}
	hub.D = &c.Gold
	d, n := hub.D, hub.N
	done.audit[0].D, done.audit[0].N = d, &n
	for _, edge := range edges {
		if h := edge.Held; h != nil {
			e := edge.Edge
			e.S, e.Older, e.Base, e.Held, e.Last = &h.Shown, h.Older, h.Stars, nil, nil
			if h.Stamp != "" {
				e.Last = &h.Stamp
			}
			done.edges = append(done.edges, e)
			done.audit = append(done.audit, ledger.Audit{Key: c.Key, Task: &e.Task, Source: c.From, Reason: ledger.ReasonSettled,
				Who: c.Who, Result: rec.Result, Shown: e.S, Stars: e.Base, D: d, N: &n})
		}
	}
	done.hubs = []ledger.Hub{hub}
	var at *aristotle.Place
	if len(edges) > 0 {
		there := slices.IndexFunc(edges, func(e *memEdge) bool { return e.MissingSince == nil })
		at = &aristotle.Place{Task: edges[max(0, there)].Task, Fill: true}
	}
	done.ratings = aristotle.Rate(row.Conquest, c.Gold, at, ordered(m.ratings))
	m.commit(done, time.Now())
	m.markDirty([]string{c.Key}, c.From)
	return len(done.edges), nil
}

// met is EnqueueMet: the first pass over projects is finished.
func (m *memRows) met(projects []int64) {
	var keys []string
	for _, p := range projects {
		m.projects[p] = true
		for _, e := range m.edges {
			if e.Project == p && e.S == nil {
				keys = append(keys, e.Key)
			}
		}
	}
	m.markDirty(keys, ledger.FromDiff)
}

func (m *memRows) link(links []ledger.Link, initial string) {
	for _, l := range links {
		if m.edges[l.Task] != nil {
			continue
		}
		begun := initial
		if m.projects[l.Project] {
			begun = "union"
		}
		m.edges[l.Task] = &memEdge{Edge: ledger.Edge{Task: l.Task, Key: l.Key, Project: l.Project, Begun: begun}}
	}
}

// Link implements rowSide.
func (m *memRows) Link(_ context.Context, links []ledger.Link, initial string) error {
	m.link(links, initial)
	return nil
}

// Known implements rowSide: as Landmarks, and of a project that has none those of others.
func (m *memRows) Known(ctx context.Context, project int64) ([]ledger.Edge, bool, error) {
	if edges, own, err := m.Landmarks(ctx, project, 0); own || err != nil {
		return edges, own, err
	}
	return m.landmarks, false, nil
}

// Landmarks implements rowSide: where there is one, many more are known.
func (m *memRows) Landmarks(_ context.Context, project int64, _ int) (edges []ledger.Edge, many bool, err error) {
	for _, e := range m.landmarks {
		if e.Project == project {
			edges = append(edges, e)
		}
	}
	return edges, len(edges) > 0, nil
}

// Ratings implements rowSide.
func (m *memRows) Ratings(_ context.Context, keys []string) (map[string][]aristotle.Rating, error) {
	all := map[string][]aristotle.Rating{}
	for _, r := range ordered(m.ratings) {
		if slices.Contains(keys, r.Key) {
			all[r.Key] = append(all[r.Key], r)
		}
	}
	return all, nil
}

// SettleAndClaim implements rowSide.
func (m *memRows) SettleAndClaim(ctx context.Context, patched []ledger.Patched, ends []ledger.End, dirty, looks int) ([]ledger.Claim, error) {
	if err := m.Settle(ctx, patched, ends); err != nil {
		return nil, err
	}
	now := time.Now()
	var due, look []string
	for key, q := range m.queue {
		leased := !q.leased.IsZero() && !q.leased.Before(now)
		switch {
		case leased:
		case q.want > q.done && !q.runAfter.After(now):
			due = append(due, key)
		case !q.lookA.IsZero() && !q.lookA.After(now):
			look = append(look, key)
		}
	}
	slices.SortFunc(due, func(a, b string) int {
		x, y := m.queue[a], m.queue[b]
		return cmp.Or(cmp.Compare(x.priority, y.priority), x.runAfter.Compare(y.runAfter), cmp.Compare(a, b))
	})
	slices.SortFunc(look, func(a, b string) int {
		return cmp.Or(m.queue[a].lookA.Compare(m.queue[b].lookA), cmp.Compare(a, b))
	})
	keys := slices.Concat(due[:min(dirty, len(due))], look[:min(looks, len(look))])
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(cmp.Compare(m.queue[a].priority, m.queue[b].priority), cmp.Compare(a, b))
	})
	var claims []ledger.Claim
	for _, key := range keys {
		claims = append(claims, m.claim(key, now))
	}
	return claims, nil
}

func (m *memRows) claim(key string, now time.Time) ledger.Claim {
	q, h, edges := m.queue[key], m.hubs[key], m.edgesOf(key)
	if !m.claimStays {
		q.claim++
	}
	q.tried, q.leased = now, now.Add(ledger.Lease)
	c := ledger.Claim{Key: key, Gen: q.want, Claim: q.claim, Dirty: q.want > q.done, Attempts: q.attempts,
		Since: q.since, Source: q.source, Hub: h != nil}
	if h != nil && h.D != nil {
		n := h.N
		c.N = &n
	}
	row := m.conquests[key]
	c.Search = len(edges) == 0 && row != nil && row.IsVictory() &&
		(h == nil || h.searched.IsZero() || h.searched.Before(now.Add(-ledger.SearchAgain)))
	for _, e := range edges {
		k := ledger.ClaimedEdge{Task: e.Task, Project: e.Project, Base: e.Base, TaskCreatedAt: e.TaskCreatedAt}
		if e.IntentAttempt != nil {
			k.Attempt, k.Alive = *e.IntentAttempt, e.deadline.After(now)
		}
		c.Edges = append(c.Edges, k)
	}
	return c
}

// Decide implements rowSide. A transaction here is never seen halfway: its locks
// keep others out for as long as it lasts.
func (m *memRows) Decide(_ context.Context, claims []ledger.Claim, decide func(map[string]*state) (change, error)) error {
	now := time.Now()
	states := m.lock(claims, now)
	c, err := decide(states)
	if err != nil {
		return err
	}
	m.police(claims, c)
	for _, k := range claims { // the empty hubs of the lock stay, whoever has the claims
		if row := m.conquests[k.Key]; row != nil && m.hubs[k.Key] == nil && !k.Hub {
			m.hubs[k.Key] = &memHub{Hub: ledger.Hub{Key: k.Key, CreatedAt: row.CreatedAt}}
		}
	}
	m.commit(c, now)
	return nil
}

func (m *memRows) lock(claims []ledger.Claim, now time.Time) map[string]*state {
	states := map[string]*state{}
	for _, c := range claims {
		st := &state{}
		states[c.Key] = st
		if row := m.conquests[c.Key]; row != nil {
			if st.busy = c.Key == m.busy && !m.busyIsGone; c.Key != m.busy {
				copied := row.Conquest
				st.row = &copied
			}
			if h := m.hubs[c.Key]; h != nil {
				copied := h.Hub
				st.hub = &copied
			} else if !c.Hub { // made by the lock, empty
				st.hub = &ledger.Hub{Key: c.Key, CreatedAt: row.CreatedAt}
			}
		} else if h := m.hubs[c.Key]; h != nil {
			copied := h.Hub
			st.hub = &copied
		}
		for _, e := range m.edgesOf(c.Key) {
			copied := e.Edge
			copied.Unmet = !m.projects[e.Project]
			if text, found := m.texts[e.Task]; found {
				copied.TextHash = text.Hash()
			}
			if e.IntentAttempt != nil {
				wait := e.deadline.Sub(now).Seconds()
				copied.IntentWait = &wait
			}
			st.edges = append(st.edges, copied)
		}
		if q := m.queue[c.Key]; q != nil {
			st.claim = q.claim
		}
	}
	return states
}

// police refuses a change that a turn must not make.
func (m *memRows) police(claims []ledger.Claim, c change) {
	own := map[string]bool{}
	for _, k := range claims {
		own[k.Key] = m.queue[k.Key] != nil && m.queue[k.Key].claim == k.Claim
	}
	mine := func(what, key string) {
		if !own[key] {
			m.breach("S3 writes the %s of %s without having its claim", what, key)
		}
	}
	said := map[string]bool{}
	for _, a := range c.audit {
		mine("audit", a.Key)
		if a.Wrote != nil {
			said[a.Key+" "+*a.Wrote] = true
		}
		if a.Attempt != nil {
			said[*a.Attempt] = true
		}
	}
	for _, v := range c.verdict {
		mine("row", v.ID)
		if !said[v.ID+" "+v.Result] {
			m.breach("S3 writes %s into the row of %s, and the audit does not tell why", v.Result, v.ID)
		}
	}
	for _, r := range c.ratings {
		mine("rating", r.Key)
	}
	for _, key := range c.forget {
		mine("hub", key)
	}
	for _, h := range c.hubs {
		mine("hub", h.Key)
	}
	for _, e := range c.ends {
		mine("end", e.Key)
	}
	for _, task := range c.unlink {
		if e := m.edges[task]; e == nil {
			m.breach("S3 unlinks task %d, which is not linked", task)
		} else {
			mine("edge", e.Key)
		}
	}
	for _, e := range c.edges {
		m.policeEdge(e, mine, said)
	}
}

func (m *memRows) policeEdge(e ledger.Edge, mine func(what, key string), said map[string]bool) {
	was := m.edges[e.Task]
	if was == nil {
		m.breach("S3 writes the edge of task %d, which is not linked", e.Task)
		return
	}
	mine("edge", was.Key)
	if e.Key != was.Key || e.Begun != was.Begun {
		m.breach("S3 changes key or choice of the edge of task %d", e.Task)
	}
	switch {
	case e.IntentFor == nil && e.IntentAttempt != nil && (was.IntentAttempt == nil || *was.IntentAttempt != *e.IntentAttempt):
		m.breach("S3 gives task %d an intent without a deadline", e.Task)
	case e.IntentFor != nil && m.attempts[*e.IntentAttempt]:
		m.breach("S3 uses attempt %s twice", *e.IntentAttempt)
	case e.IntentFor != nil && !said[*e.IntentAttempt]:
		m.breach("S3 means to PATCH task %d, and the audit does not tell why", e.Task)
	}
}

// commit writes in the order of the real batch.
func (m *memRows) commit(c change, now time.Time) {
	m.writes += len(c.verdict) + len(c.ratings) + len(c.forget) + len(c.hubs) + len(c.unlink) + len(c.edges) + len(c.links) + len(c.texts) + len(c.audit)
	for _, v := range c.verdict {
		if row := m.conquests[v.ID]; row != nil {
			result := v.Result
			row.Result, row.example, row.by = &result, result == aristotle.Victory, v.By
		}
	}
	for _, r := range c.ratings {
		was, five := m.ratings[r.ID], 5
		if r.Stars = was.Stars; was.ID == "" || r.Gold {
			r.Stars = &five
		}
		m.ratings[r.ID] = r
	}
	for _, key := range c.forget {
		delete(m.hubs, key)
	}
	for _, h := range c.hubs {
		was := m.hubs[h.Key]
		next := &memHub{Hub: h}
		if was != nil {
			next.searched = was.searched
		}
		if h.Searched {
			next.searched = now
		}
		next.Searched = false // it is not read back
		m.hubs[h.Key] = next
	}
	for _, task := range c.unlink {
		delete(m.edges, task)
		delete(m.texts, task)
	}
	for _, e := range c.edges {
		m.storeEdge(e, now)
	}
	m.link(c.links, m.initial)
	for _, t := range c.texts {
		m.texts[t.Task] = t
	}
	for _, a := range c.answers {
		m.answers[a.Attempt] = a.Text
	}
	m.audits = append(m.audits, c.audit...)
	m.finish(c.ends, now)
	m.markDirty(c.dirty, ledger.FromDiff)
}

func (m *memRows) storeEdge(e ledger.Edge, now time.Time) {
	was := m.edges[e.Task]
	if was == nil {
		return
	}
	next := &memEdge{Edge: e, deadline: was.deadline}
	switch {
	case e.IntentFor != nil:
		next.deadline = now.Add(time.Duration(*e.IntentFor * float64(time.Second)))
		m.attempts[*e.IntentAttempt] = true
	case e.IntentValue == nil:
		next.deadline = time.Time{}
	}
	next.IntentFor, next.IntentWait, next.Unmet, next.TextHash = nil, nil, false, nil
	m.edges[e.Task] = next
}

// Settle implements rowSide.
func (m *memRows) Settle(_ context.Context, patched []ledger.Patched, ends []ledger.End) error {
	for _, p := range patched {
		e := m.edges[p.Task]
		if e == nil || e.IntentAttempt == nil ||
			*e.IntentAttempt != p.Attempt && !m.settlesAnyAttempt && (p.Worked || !m.refusalClearsAny) {
			continue
		}
		m.writes++
		next := *e
		if p.Worked {
			next.S, next.Older, next.Last = e.IntentValue, nil, e.IntentAttempt
		}
		if p.UpdatedAt != nil {
			next.TaskUpdatedAt = p.UpdatedAt
		}
		next.IntentValue, next.IntentAttempt, next.deadline = nil, nil, time.Time{}
		m.edges[p.Task] = &next
	}
	m.finish(ends, time.Now())
	return nil
}

// Listen implements rowSide.
func (m *memRows) Listen(ctx context.Context, wake func()) error {
	wake()
	<-ctx.Done()
	return nil
}

func after(now time.Time, seconds float64) time.Time {
	return now.Add(time.Duration(seconds * float64(time.Second)))
}

// finish is finish.sql.
func (m *memRows) finish(ends []ledger.End, now time.Time) {
	for _, x := range ends {
		q := m.queue[x.Key]
		if q == nil || q.claim != x.Claim && !m.endsAnyClaim {
			continue
		}
		switch {
		case x.Look != nil:
			q.lookA = after(now, *x.Look)
		case q.lookA.After(q.tried):
		case x.Wait == nil:
			q.lookA = time.Time{}
		case !q.lookA.IsZero() && q.lookA.Before(after(now, *x.Wait)):
			q.lookA = after(now, *x.Wait)
		}
		q.leased = time.Time{}
		if !m.claimStays {
			q.claim++
		}
		if x.Wait == nil {
			q.done, q.since, q.attempts, q.err = max(q.done, x.Gen), q.tried, 0, ""
			if m.doneAsWanted {
				q.done = q.want
			}
			continue
		}
		q.runAfter = after(now, *x.Wait)
		if gap := q.tried.Add(memGap); q.want > x.Gen {
			if gap.Before(now) {
				gap = now
			}
			if gap.Before(q.runAfter) {
				q.runAfter = gap
			}
		}
		if x.Failed {
			q.attempts++
		}
		if x.Error != nil {
			q.err = *x.Error
		}
	}
}

// shows tells what a task's meta shows beside its edge, which may be nil.
func shows(e *memEdge, task int64, meta []byte) bool {
	l := star.Look{Edge: star.Edge{New: true}, Meta: readMeta(task, meta)}
	if e != nil {
		l.Edge = toStar(e.Edge)
	}
	return l.Shown()
}
