package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle"
)

// Click is a person's word on a conquest, said to us: on the curation page or by
// `reconciler held settle`. It is an edit of the row that we write.
type Click struct {
	Key  string
	Gold bool    // VICTORY, or not
	Who  *string // e-mail; nil: nobody knows
	From Source  // FromCuration or FromAPI: a person waits
	Task int64   // the task that it was said on; 0: none
	Held bool    // it is to settle a hold: where no task of the key is held it is ErrNotHeld
}

// Clicked is what a click came to.
type Clicked struct {
	Row     aristotle.Conquest // as it is now
	Changed bool               // the row said otherwise until now
	Gen     int64              // the tasks follow with the turn that brings the key's done_gen here
	Settled int                // how many tasks were held, and are no longer
}

// What keeps a click from being taken.
var (
	ErrNoConquest = errors.New("no such conquest")
	ErrNotHeld    = errors.New("it is not held")
)

// Click commits a person's word as "A click" of the protocol has it: row, rating,
// hub, the end of every hold and a dirty key in one transaction. The tasks follow with
// a turn. A row that says so already is left alone, but the hub still counts it: after
// that no star of a first contact is taken for news. Where no turn has come yet the hub
// begins with it, counted too: no first contact undoes it. The hub of an earlier row
// is this row's from the click on, for the same reason.
//
// The hold ends with what was seen when it was noted, not with what its task shows
// now: what a person changed after that look still counts, at the next one.
//
// It waits for a row that somebody else holds as long as ctx lets it. A crash before
// the commit leaves nothing; one after it leaves a dirty key. Without such a conquest
// in Aristotle it returns ErrNoConquest.
func (l *Ledger) Click(ctx context.Context, c Click) (done Clicked, err error) {
	err = untilFree(ctx, func() error {
		done, err = l.click(ctx, c)
		return err
	})
	return done, err
}

func (l *Ledger) click(ctx context.Context, c Click) (done Clicked, err error) {
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		s, err := lockForClick(ctx, tx, c.Key)
		if err != nil {
			return err
		}
		if s.row == nil {
			return ErrNoConquest
		}
		if c.Held && !slices.ContainsFunc(s.edges, func(e Edge) bool { return e.Held != nil }) {
			return ErrNotHeld
		}
		b := &pgx.Batch{}
		done = s.take(b, c)
		QueueDirty(b, []string{c.Key}, c.From)
		b.Queue(`SELECT want_gen FROM queue WHERE key = $1`, c.Key).QueryRow(func(r pgx.Row) error { return r.Scan(&done.Gen) })
		return tx.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return Clicked{}, fmt.Errorf("click on %q: %w", c.Key, err)
	}
	return done, nil
}

// clickState is what a click finds, locked.
type clickState struct {
	row     *aristotle.Conquest
	hub     *Hub
	edges   []Edge
	ratings []aristotle.Rating
}

// lockForClick reads and locks in the lock order. A hub is made where there is none, as
// in a turn: what it notes of the row before VICTORY must not depend on the stream
// being faster than the person.
func lockForClick(ctx context.Context, tx pgx.Tx, key string) (*clickState, error) {
	s, keys, b := &clickState{}, []string{key}, &pgx.Batch{}
	aristotle.QueueLock(b, keys, func(c aristotle.Conquest) { s.row = &c })
	QueueNewHubs(b, keys)
	QueueLockHubs(b, keys, func(h Hub) { s.hub = &h })
	QueueLockEdges(b, keys, func(e Edge) { s.edges = append(s.edges, e) })
	aristotle.QueueRatings(b, keys, func(r aristotle.Rating) { s.ratings = append(s.ratings, r) })
	return s, tx.SendBatch(ctx, b).Close()
}

// take adds to a batch what the click writes.
func (s *clickState) take(b *pgx.Batch, c Click) Clicked {
	rec := Audit{Key: c.Key, Source: c.From, Reason: ReasonClick, Said: &c.Gold, SaidBy: ptr("click"), Who: c.Who, Result: s.row.Result}
	if c.Task != 0 {
		rec.Task = &c.Task
	}
	hub := s.hubAfter(c.Gold)
	if s.row.IsVictory() != c.Gold {
		v := aristotle.Verdict{ID: c.Key, Result: aristotle.Victory, By: c.Who}
		if !c.Gold {
			v.Result = hub.GiveBack()
		}
		aristotle.QueueVerdicts(b, []aristotle.Verdict{v})
		s.row.Result, rec.Wrote = &v.Result, &v.Result
	}
	aristotle.QueueWriteRatings(b, aristotle.Rate(*s.row, c.Gold, s.place(c), s.ratings))
	rec.D, rec.N = hub.D, &hub.N
	records, settled := []Audit{rec}, s.release()
	for _, e := range settled {
		records = append(records, Audit{Key: c.Key, Task: &e.Task, Source: c.From, Reason: ReasonSettled, Who: c.Who,
			Result: rec.Result, Shown: e.S, Stars: e.Base, D: hub.D, N: &hub.N})
	}
	QueueEdges(b, settled)
	QueueHubs(b, []Hub{hub})
	QueueAudit(b, records)
	return Clicked{Row: *s.row, Changed: rec.Wrote != nil, Settled: len(settled)}
}

// hubAfter is the hub after a click. That of an earlier row counts on: by another n a
// turn that is under way knows of the click. It is gone where a turn forgot it just now.
func (s *clickState) hubAfter(gold bool) Hub {
	hub := Hub{Key: s.row.ID, D: &gold, N: 1, CreatedAt: s.row.CreatedAt}
	if s.hub != nil {
		hub.N += s.hub.N
		if s.hub.Of(s.row) {
			hub.Before = s.hub.Before
		}
	}
	if !s.row.IsVictory() {
		hub.Before = s.row.Result
	}
	return hub
}

// release ends the holds: the edges take what theirs noted, and are new no longer.
func (s *clickState) release() []Edge {
	var settled []Edge
	for _, e := range s.edges {
		if h := e.Held; h != nil {
			e.S, e.Older, e.Base, e.Held = &h.Shown, h.Older, slices.Clone(h.Stars), nil
			if e.Last = nil; h.Stamp != "" {
				e.Last = &h.Stamp
			}
			settled = append(settled, e)
		}
	}
	return settled
}

// place is where the rating says that the star stands.
func (s *clickState) place(c Click) *aristotle.Place {
	switch {
	case c.Task != 0:
		return &aristotle.Place{Task: c.Task}
	case len(s.edges) > 0: // one that is there, if any is
		there := slices.IndexFunc(s.edges, func(e Edge) bool { return e.MissingSince == nil })
		return &aristotle.Place{Task: s.edges[max(0, there)].Task, Fill: true}
	default:
		return nil
	}
}

func ptr[T any](v T) *T { return &v }
