package reconciler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/star"
)

// fate is what the scheduler makes of a call.
type fate struct {
	kind   fateKind
	status int // of an answer that is an error; 0: none comes
}

type fateKind uint8

const (
	granted fateKind = iota
	slow             // done; the answer is kept back
	failed_          // not done, and the caller is told of a failure
	lost             // done, and the caller is told of a failure
	late             // a PATCH that fails, and takes effect later
	short            // a listing without some of its rows
	crash            // the process dies before it is done
	gaveUp           // the caller's time was over
)

// call is a call to a side that waits for the scheduler.
type call struct {
	what   string
	remote bool // to Label Studio
	done   bool // it was done, and its answer is awaited
	patch  *flight
	fate   chan fate
}

// flight is a PATCH that was sent.
type flight struct {
	task    int64
	meta    json.RawMessage
	attempt string
	value   bool
	at      *memTasks // to which it was sent
	until   time.Time // it takes effect before that, or never
}

// replica is one daemon: a real Turner that works between sides which ask the
// scheduler for leave.
type replica struct {
	*sim
	name   string
	turner *Turner
	stop   context.CancelFunc
	ended  chan struct{}
	dead   bool               // it crashed: what it still does is not done
	locked bool               // it is between the locks of S3 and its commit
	calls  []*call            // that wait, in a fixed order
	cut    context.CancelFunc // ends its session that listens

	claims map[string]ledger.Claim // of this turn
	reads  map[int64]*sighting     // of this turn
	missed map[int64]bool          // of this turn: answered with 404
	turn   int                     // how many it began
	met    int                     // the one in which another Label Studio came
	strays map[int64]bool          // of this turn: projects in which it found tasks of another Label Studio, and no landmark of ours since
}

// sighting is what a task showed when it was read.
type sighting struct {
	at             time.Time // asked for
	task           labelstudio.Task
	version, other int
	meta, stars    words
	tampered       bool
	strange        bool // it is another Label Studio's
}

// ask waits for the scheduler. A process that crashed ends here.
func (r *replica) ask(ctx context.Context, c *call) fate {
	if r.locked {
		r.breach("%s: %s while the rows are locked", r.name, c.what)
	}
	c.fate = make(chan fate, 1)
	r.mu.Lock()
	r.calls = append(r.calls, c)
	slices.SortFunc(r.calls, func(a, b *call) int { return strings.Compare(a.what, b.what) })
	dead := r.dead
	r.mu.Unlock()
	v := fate{kind: crash}
	if !dead {
		select {
		case v = <-c.fate:
		case <-ctx.Done():
			v.kind = gaveUp
		}
	}
	r.mu.Lock()
	r.calls = slices.DeleteFunc(r.calls, func(o *call) bool { return o == c })
	dead = r.dead
	r.mu.Unlock()
	if v.kind == crash || dead {
		if c.patch != nil {
			r.loosen(c.patch)
		}
		runtime.Goexit()
	}
	return v
}

// die makes the process one that does nothing any more.
func (r *replica) die() {
	r.mu.Lock()
	r.dead = true
	r.mu.Unlock()
	r.stop()
}

var errSession = errors.New("the session was lost")

// transact is a call to the row side.
func transact[T any](ctx context.Context, r *replica, what string, do func() (T, error)) (T, error) {
	var none T
	switch v := r.ask(ctx, &call{what: what}); v.kind {
	case granted:
		return do()
	case slow:
		result, err := do()
		if v := r.ask(ctx, &call{what: what + ", answer"}); v.kind != granted && v.kind != slow {
			return none, errSession
		}
		return result, err
	case lost:
		_, _ = do()
		return none, errSession
	case gaveUp:
		return none, ctx.Err()
	default:
		return none, errSession
	}
}

// simRows is the row side of one replica.
type simRows struct{ *replica }

func (s simRows) SettleAndClaim(ctx context.Context, patched []ledger.Patched, ends []ledger.End, dirty, looks int) ([]ledger.Claim, error) {
	what := "S1"
	if len(patched)+len(ends) > 0 {
		what = fmt.Sprintf("S5 %s%sthen S1", patchedText(patched), endsText(ends))
	}
	return transact(ctx, s.replica, what, func() ([]ledger.Claim, error) {
		s.turn++
		s.claims, s.strays, s.reads, s.missed = map[string]ledger.Claim{}, map[int64]bool{}, map[int64]*sighting{}, map[int64]bool{}
		all, err := s.rows.SettleAndClaim(ctx, patched, ends, dirty, looks)
		for _, c := range all {
			s.logf("        claims %s as %d, gen %d%s", c.Key, c.Claim, c.Gen, alive(c))
			s.claims[c.Key] = c
		}
		return all, err
	})
}

func alive(c ledger.Claim) (text string) {
	for _, e := range c.Edges {
		if e.Alive {
			text += fmt.Sprintf(", %s lives at %d", e.Attempt, e.Task)
		}
	}
	return text
}

func (s simRows) Link(ctx context.Context, links []ledger.Link, initial string) error {
	if len(links) == 0 {
		return nil
	}
	if slices.ContainsFunc(links, func(l ledger.Link) bool { return s.strays[l.Project] }) {
		s.breach("%s: %v are linked to another Label Studio's", s.name, links)
	}
	_, err := transact(ctx, s.replica, fmt.Sprint("link ", links), func() (any, error) { return nil, s.rows.Link(ctx, links, initial) })
	return err
}

func (s simRows) Known(ctx context.Context, project int64) ([]ledger.Edge, bool, error) {
	return s.rows.Known(ctx, project)
}

func (s simRows) Landmarks(ctx context.Context, project int64, than int) ([]ledger.Edge, bool, error) {
	return s.rows.Landmarks(ctx, project, than)
}

func (s simRows) Ratings(ctx context.Context, keys []string) (map[string][]aristotle.Rating, error) {
	return transact(ctx, s.replica, "ratings", func() (map[string][]aristotle.Rating, error) { return s.rows.Ratings(ctx, keys) })
}

func (s simRows) Decide(ctx context.Context, claims []ledger.Claim, decide func(map[string]*state) (change, error)) error {
	_, err := transact(ctx, s.replica, "S3", func() (any, error) {
		var states map[string]*state
		var done change
		err := s.rows.Decide(ctx, claims, func(st map[string]*state) (change, error) {
			states = s.rows.lock(claims, time.Now()) // a copy: decide may change its own
			s.locked = true
			defer func() { s.locked = false }()
			var err error
			done, err = decide(st)
			return done, err
		})
		if err == nil {
			s.settled(claims, states, done)
		}
		return nil, err
	})
	return err
}

func (s simRows) Settle(ctx context.Context, patched []ledger.Patched, ends []ledger.End) error {
	if len(patched)+len(ends) == 0 {
		return nil
	}
	_, err := transact(ctx, s.replica, fmt.Sprintf("S5 %s%s", patchedText(patched), endsText(ends)), func() (any, error) {
		return nil, s.rows.Settle(ctx, patched, ends)
	})
	return err
}

func patchedText(all []ledger.Patched) (text string) {
	for _, p := range all {
		text += fmt.Sprintf("%s worked=%v, ", p.Attempt, p.Worked)
	}
	return text
}

func endsText(all []ledger.End) (text string) {
	for _, e := range all {
		switch {
		case e.Wait == nil:
			text += e.Key + " done"
		case e.Failed:
			text += fmt.Sprintf("%s failed (%s), in %.3fs", e.Key, *e.Error, *e.Wait)
		default:
			text += fmt.Sprintf("%s again in %.3fs", e.Key, *e.Wait)
		}
		if e.Look != nil {
			text += fmt.Sprintf(", a look in %.0fs", *e.Look)
		}
		text += "; "
	}
	return text
}

func (s simRows) Listen(ctx context.Context, wake func()) error {
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	s.mu.Lock()
	s.cut = cut
	s.listeners[s.name] = wake
	s.mu.Unlock()
	wake()
	<-ctx.Done()
	s.mu.Lock()
	delete(s.listeners, s.name)
	s.mu.Unlock()
	return errSession
}

// simTasks is the task side of one replica: the memory behind a network.
type simTasks struct{ *replica }

// request is a read of Label Studio.
func request[T any](ctx context.Context, r *replica, op labelstudio.Operation, what string, do func(short bool) (T, error)) (T, error) {
	var none T
	limited, cancel := context.WithTimeout(ctx, labelstudio.DefaultReadTimeout)
	defer cancel()
	v := r.ask(limited, &call{what: what, remote: true})
	if v.kind == granted || v.kind == short {
		return do(v.kind == short)
	}
	if v.kind == slow {
		result, err := do(false)
		if v = r.ask(limited, &call{what: what + ", answer", remote: true}); v.kind == granted || v.kind == slow || v.kind == short {
			return result, err
		}
	}
	switch {
	case ctx.Err() != nil: // the caller's own doing says nothing about Label Studio
		return none, ctx.Err()
	case v.status != 0:
		return none, answered(op, v.status)
	default:
		return none, unanswered(op)
	}
}

// seen is what a task shows at this moment, and whose words that is.
func (s *sim) seen(asked time.Time, t labelstudio.Task) *sighting {
	if s.elsewhere != nil {
		return &sighting{at: asked, task: t, strange: true}
	}
	sp := s.accountOf(t.ID).tasks[t.ID]
	return &sighting{at: asked, task: t, version: s.tasks.tasks[t.ID].version, other: sp.other, meta: sp.meta, stars: sp.stars, tampered: sp.tampered}
}

func (s simTasks) TasksByID(ctx context.Context, project int64, ids []int64) ([]labelstudio.Task, error) {
	asked := time.Now()
	var seen []*sighting
	all, err := request(ctx, s.replica, labelstudio.OpTasksByID, fmt.Sprint("S2 list ", ids), func(short bool) ([]labelstudio.Task, error) {
		all, err := s.studio().TasksByID(ctx, project, ids)
		if s.elsewhere != nil && !s.elsewhere.has(project) {
			err = answered(labelstudio.OpTasksByID, http.StatusNotFound)
		}
		if short {
			all = all[:len(all)/2]
			if s.mutant == believeRows { // Label Studio's answer has rows that nobody asked for, the client drops them
				all = s.studio().everywhere()
			}
		}
		for _, t := range all {
			if t.ID > 0 {
				seen = append(seen, s.seen(asked, t))
			}
		}
		return all, err
	})
	for _, id := range ids {
		s.missed[id] = labelstudio.IsNotFound(err)
	}
	for _, read := range seen {
		if err == nil {
			s.reads[read.task.ID] = read
		}
	}
	return all, err
}

func (s simTasks) Task(ctx context.Context, id int64) (*labelstudio.Task, error) {
	asked := time.Now()
	var seen *sighting
	t, err := request(ctx, s.replica, labelstudio.OpTask, fmt.Sprint("S2 get ", id), func(bool) (*labelstudio.Task, error) {
		t, err := s.studio().Task(ctx, id)
		if err == nil && id > 0 {
			seen = s.seen(asked, *t)
		} else if s.elsewhere == nil {
			clear(s.strays)
		}
		return t, err
	})
	first := s.reads[id]
	if delete(s.reads, id); seen != nil && err == nil && (first == nil || first.task.CreatedAt.Equal(t.CreatedAt)) { // else it counts as not read
		s.reads[id] = seen
	}
	s.missed[id] = labelstudio.IsNotFound(err)
	return t, err
}

func (s simTasks) FindTasks(ctx context.Context, project int64, field string, values []string) ([]labelstudio.Task, error) {
	return request(ctx, s.replica, labelstudio.OpTasksFind, fmt.Sprint("find ", field, " ", values), func(bool) ([]labelstudio.Task, error) {
		all, err := s.studio().FindTasks(ctx, project, field, values)
		s.strays[project] = s.strays[project] || s.elsewhere != nil && len(all) > 0
		return all, err
	})
}

func (s simTasks) Projects(ctx context.Context) ([]labelstudio.Project, error) {
	return request(ctx, s.replica, labelstudio.OpProjects, "projects", func(bool) ([]labelstudio.Project, error) { return s.studio().Projects(ctx) })
}

func (s simTasks) Users(ctx context.Context) ([]labelstudio.User, error) {
	all, err := request(ctx, s.replica, labelstudio.OpUsers, "users", func(bool) ([]labelstudio.User, error) { return s.tasks.Users(ctx) })
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, read := range s.reads {
		if err != nil && len(read.task.Annotations) > 0 {
			delete(s.reads, id) // without its people it counts as not read
		}
	}
	return all, err
}

func (s simTasks) Whoami(ctx context.Context) (labelstudio.User, error) {
	return request(ctx, s.replica, labelstudio.OpWhoami, "whoami", func(bool) (labelstudio.User, error) { return s.tasks.Whoami(ctx) })
}

// PatchMeta sends: from here on it may take effect at any time until its deadline.
func (s simTasks) PatchMeta(ctx context.Context, id int64, meta json.RawMessage) (*labelstudio.Task, error) {
	limited, cancel := context.WithTimeout(ctx, labelstudio.DefaultWriteTimeout)
	defer cancel()
	f := s.police(id, meta)
	v := s.ask(limited, &call{what: fmt.Sprintf("S4 PATCH %d to %v as %s", id, f.value, f.attempt), remote: true, patch: f})
	var answer *labelstudio.Task
	var err error
	if v.kind == granted || v.kind == slow || v.kind == lost || v.kind == short {
		answer, err = s.land(f)
	}
	if v.kind == slow {
		v = s.ask(limited, &call{what: fmt.Sprintf("S4 PATCH %d, answer", id), remote: true, done: true})
	} else if v.kind == late || v.kind == gaveUp {
		s.loosen(f)
	}
	switch {
	case v.kind == granted || v.kind == slow || v.kind == short:
		return answer, err
	case v.status != 0:
		return nil, answered(labelstudio.OpTaskPatch, v.status)
	default:
		return nil, unanswered(labelstudio.OpTaskPatch)
	}
}

// police refuses a PATCH that must not be sent.
func (s simTasks) police(id int64, meta json.RawMessage) *flight {
	read := readMeta(id, meta)
	f := &flight{task: id, meta: meta, attempt: string(read.Stamp), value: read.Gold == star.Yes, at: s.studio()}
	e, seen := s.rows.edges[id], s.reads[id]
	switch {
	case seen == nil:
		s.breach("%s: PATCH of %d, which was not read", s.name, id)
		return f
	case time.Since(seen.at) > labelstudio.MaxAge:
		s.breach("%s: PATCH of %d on a read that is too old", s.name, id)
	case s.sent[f.attempt]:
		s.breach("%s: attempt %s is sent twice", s.name, f.attempt)
	case !s.rows.attempts[f.attempt]:
		s.breach("%s: PATCH of %d without an intent", s.name, id)
	case e != nil && e.IntentAttempt != nil && *e.IntentAttempt == f.attempt && *e.IntentValue != f.value:
		s.breach("%s: PATCH of %d says what its intent does not", s.name, id)
	}
	s.sent[f.attempt] = true
	f.until = s.deadlines[f.attempt]
	if left := time.Until(f.until); left < labelstudio.DefaultWriteTimeout+margin {
		s.breach("%s: PATCH of %d with %v left to its deadline", s.name, id, left)
	}
	want, err := writeMeta(seen.task.Meta, f.value, stamp{Task: id, Attempt: f.attempt}, nil, time.Now())
	if err != nil || others(want) != others(meta) {
		s.breach("%s: PATCH of %d does not put back what was read: %s, read %s", s.name, id, meta, seen.task.Meta)
	}
	return f
}

// others is what of a meta is other people's.
func others(meta json.RawMessage) string {
	m := object(meta)
	for _, key := range []string{metaGold, metaStamp, "gold_star_updated_at", "synced_from_aristotle", "result_notes"} {
		delete(m, key)
	}
	text, _ := json.Marshal(m)
	return string(text)
}

// land is a PATCH taking effect.
func (s *sim) land(f *flight) (*labelstudio.Task, error) {
	if f.at != s.tasks {
		return f.at.PatchMeta(context.Background(), f.task, f.meta)
	}
	t := s.tasks.tasks[f.task]
	if t == nil || t.gone {
		return nil, answered(labelstudio.OpTaskPatch, http.StatusNotFound)
	}
	a, e := s.accountOf(f.task), s.rows.edges[f.task]
	other := a.tasks[f.task].other
	if e != nil && e.TaskCreatedAt != nil && !e.TaskCreatedAt.Equal(t.CreatedAt) {
		other--
	}
	a.land(f.task, f.attempt, shows(e, f.task, t.Meta), other)
	s.patches++
	return s.tasks.PatchMeta(context.Background(), f.task, f.meta)
}
