package reconciler

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/star"
)

// state is all that Aristotle's database holds of one key, locked.
type state struct {
	row     *aristotle.Conquest // nil: there is no such conquest
	hub     *ledger.Hub         // nil: there is none
	edges   []ledger.Edge       // in task order
	ratings []aristotle.Rating  // as they were before the locks
	claim   int64
	notes   *string // of a sync call that is queued
	lost    bool    // the row that was here before was VICTORY
	busy    bool    // there is a row, and somebody else has locked it: nothing else is known of it
}

// change is what one key's turn writes: all of it, or nothing.
type change struct {
	forget  []string // keys whose hub goes
	hubs    []ledger.Hub
	edges   []ledger.Edge
	unlink  []int64
	links   []ledger.Link
	texts   []ledger.Text
	verdict []aristotle.Verdict
	ratings []aristotle.Rating
	audit   []ledger.Audit
	answers []ledger.Answer
	dirty   []string // other keys that this turn gave a task to
	ends    []ledger.End
}

func (c *change) add(o change) {
	c.forget = append(c.forget, o.forget...)
	c.hubs = append(c.hubs, o.hubs...)
	c.edges = append(c.edges, o.edges...)
	c.unlink = append(c.unlink, o.unlink...)
	c.links = append(c.links, o.links...)
	c.texts = append(c.texts, o.texts...)
	c.verdict = append(c.verdict, o.verdict...)
	c.ratings = append(c.ratings, o.ratings...)
	c.audit = append(c.audit, o.audit...)
	c.answers = append(c.answers, o.answers...)
	c.dirty = append(c.dirty, o.dirty...)
	c.ends = append(c.ends, o.ends...)
}

// Ratings implements rowSide.
func (d database) Ratings(ctx context.Context, keys []string) (map[string][]aristotle.Rating, error) {
	ratings := map[string][]aristotle.Rating{}
	b := &pgx.Batch{}
	aristotle.QueueRatings(b, keys, func(r aristotle.Rating) { ratings[r.Key] = append(ratings[r.Key], r) })
	if err := d.Pool().SendBatch(ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("read the ratings of %d keys: %w", len(keys), err)
	}
	return ratings, nil
}

// Decide is the transaction of S3, for many keys in two round trips: lock and read,
// then write and commit. decide is called once for all of them, between the two,
// and must not wait for anything. Rows are waited for once, all together: what was
// read in Label Studio becomes too old meanwhile.
func (d database) Decide(ctx context.Context, claims []ledger.Claim, decide func(map[string]*state) (change, error)) (err error) {
	conn, err := d.Pool().Acquire(ctx)
	if err != nil {
		return fmt.Errorf("settle %d keys: %w", len(claims), err)
	}
	defer conn.Release()
	// A connection with an open transaction must not go back to the pool.
	defer func() {
		if conn.Conn().PgConn().TxStatus() != 'I' {
			_, rollback := conn.Exec(context.WithoutCancel(ctx), "rollback")
			err = errors.Join(err, rollback)
		}
	}()
	states, err := d.lock(ctx, conn.Conn(), claims, true)
	if ledger.IsLocked(err) {
		if _, err = conn.Exec(ctx, "rollback"); err == nil {
			states, err = d.lock(ctx, conn.Conn(), claims, false)
		}
	}
	if err != nil {
		return fmt.Errorf("lock %d keys: %w", len(claims), err)
	}
	c, err := decide(states)
	if err != nil {
		return err
	}
	if err := conn.SendBatch(ctx, d.writes(c)).Close(); err != nil {
		return fmt.Errorf("settle %d keys: %w", len(claims), err)
	}
	return nil
}

// lock begins the transaction and reads, in the lock order of the ledger. It waits for
// rows that others have locked, or goes on without them.
func (database) lock(ctx context.Context, conn *pgx.Conn, claims []ledger.Claim, wait bool) (map[string]*state, error) {
	states := make(map[string]*state, len(claims))
	var keys, first []string
	for _, c := range claims {
		states[c.Key] = &state{}
		keys = append(keys, c.Key)
		if !c.Hub {
			first = append(first, c.Key)
		}
	}
	b := &pgx.Batch{}
	b.Queue("begin")
	row := func(c aristotle.Conquest) { states[c.ID].row = &c }
	if wait {
		aristotle.QueueLock(b, keys, row)
	} else {
		aristotle.QueueLockFree(b, keys, row, func(key string) { states[key].busy = true })
	}
	ledger.QueueNewHubs(b, first)
	ledger.QueueLockHubs(b, keys, func(h ledger.Hub) { states[h.Key].hub = &h })
	ledger.QueueLockEdges(b, keys, func(e ledger.Edge) { states[e.Key].edges = append(states[e.Key].edges, e) })
	ledger.QueueClaims(b, keys, func(key string, claim int64, notes *string) { states[key].claim, states[key].notes = claim, notes })
	return states, conn.SendBatch(ctx, b).Close()
}

// writes is the other half. Before its last statement nothing has happened; after
// it, a crash leaves keys with intents, which the next turn settles.
func (d database) writes(c change) *pgx.Batch {
	b := &pgx.Batch{}
	aristotle.QueueVerdicts(b, c.verdict)
	aristotle.QueueWriteRatings(b, c.ratings)
	ledger.QueueForget(b, c.forget)
	ledger.QueueHubs(b, c.hubs)
	ledger.QueueUnlink(b, c.unlink)
	ledger.QueueEdges(b, c.edges)
	ledger.QueueLinks(b, c.links, d.initial)
	ledger.QueueTexts(b, c.texts)
	ledger.QueueAnswers(b, c.answers)
	ledger.QueueAudit(b, c.audit)
	ledger.QueueFinish(b, c.ends)
	ledger.QueueDirty(b, c.dirty, ledger.FromDiff)
	b.Queue("commit")
	return b
}

// resultOf is what a decision depends on in a row.
func resultOf(c *aristotle.Conquest) star.Result {
	switch {
	case c.IsVictory():
		return star.Victory
	case c.Result == nil || *c.Result == aristotle.Pending:
		return star.Pending
	default:
		return star.Other
	}
}

// The words of RECONCILER_INITIAL, as edges store them.
var initials = map[string]star.Initial{
	"union": star.Union, "aristotle": star.Aristotle, "labelstudio": star.LabelStudio, "hold": star.Hold,
}

// toStar puts a stored edge into the words of the protocol.
func toStar(e ledger.Edge) star.Edge {
	s := star.Edge{Task: e.Task, New: e.S == nil, Begun: initials[e.Begun], Base: star.Set(e.Base...)}
	if e.S != nil {
		s.S = *e.S
	}
	if e.Older != nil {
		s.Older = star.Of(*e.Older)
	}
	if e.Last != nil {
		s.Last = star.Stamp(*e.Last)
	}
	if e.IntentValue != nil {
		s.Intent = &star.Intent{Value: *e.IntentValue, Attempt: star.Stamp(*e.IntentAttempt)}
	}
	return s
}

// remember puts what is to be remembered of an edge back into its stored form. A
// new intent has its attempt by now.
func remember(e ledger.Edge, s star.Edge) ledger.Edge {
	e.S, e.Older, e.Last, e.Base = nil, nil, nil, s.Base
	e.IntentValue, e.IntentAttempt = nil, nil
	if !s.New {
		e.S = &s.S
	}
	if s.Older != star.Absent {
		older := s.Older == star.Yes
		e.Older = &older
	}
	if s.Last != "" {
		last := string(s.Last)
		e.Last = &last
	}
	if s.Intent != nil {
		attempt := string(s.Intent.Attempt)
		e.IntentValue, e.IntentAttempt = &s.Intent.Value, &attempt
	}
	return e
}
