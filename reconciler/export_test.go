package reconciler

import (
	"context"
	"errors"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// Care is one look at the webhooks, for tests that do not wait a minute.
func (h *Hooks) Care(ctx context.Context) error { return h.care(ctx) }

// PassGrace makes everything that deliveries should tell overdue.
func (h *Hooks) PassGrace() {
	for i := range h.expected {
		h.expected[i].Found = h.expected[i].Found.Add(-careEvery)
	}
}

// Changes is one incremental pass.
func (p *Passes) Changes(ctx context.Context) error { return p.changes(ctx) }

// LoseAnswer makes the next S3 commit and be reported as failed. Then is what happens
// before it is tried again.
func (t *Turner) LoseAnswer(then func()) { t.rows = &unheard{t.rows, then} }

type unheard struct {
	rowSide
	then func()
}

func (u *unheard) Decide(ctx context.Context, claims []ledger.Claim, decide func(map[string]*state) (change, error)) error {
	err := u.rowSide.Decide(ctx, claims, decide)
	if u.then != nil {
		u.then()
		u.then, err = nil, errors.Join(err, errors.New("connection lost"))
	}
	return err
}

// CountDecisions counts into n how often S3 is tried.
func (t *Turner) CountDecisions(n *int) { t.rows = &counting{t.rows, n} }

type counting struct {
	rowSide
	n *int
}

func (c *counting) Decide(ctx context.Context, claims []ledger.Claim, decide func(map[string]*state) (change, error)) error {
	*c.n++
	return c.rowSide.Decide(ctx, claims, decide)
}

// PanicOnce makes the next reading of ratings panic.
func (t *Turner) PanicOnce() { t.rows = &panicking{rowSide: t.rows} }

type panicking struct {
	rowSide
	over bool
}

func (p *panicking) Ratings(ctx context.Context, keys []string) (map[string][]aristotle.Rating, error) {
	if !p.over {
		p.over = true
		panic("ratings")
	}
	return p.rowSide.Ratings(ctx, keys)
}
