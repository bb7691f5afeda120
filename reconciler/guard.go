package reconciler

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"

	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// Brakes bound what passes may change by themselves: a pass that would, with those of
// the last hour, change more keys than both stops before its first write. Stars set
// and taken away count apart, and so do links that do not hold.
type Brakes struct {
	Count int     // RECONCILER_BRAKE_COUNT
	Share float64 // RECONCILER_BRAKE_SHARE, of the linked keys
}

// plan sums up what a pass would change. The hash is the same for the same keys with
// the same changes, whoever found them: keys must come in the order of their bytes.
type plan struct {
	ledger.Tally
	sum    hash.Hash
	any    bool
	strays int // of the links, those of what may be another Label Studio: no number of them goes by itself
}

// acts tells whether a finding is one that a pass acts upon. What is being worked on
// changes without it, and what is held waits for a person.
func acts(f ledger.Finding) bool {
	return f.Class != "" && f.Class != string(metrics.DriftHeld) && !f.Explained && f.Change != ""
}

func (p *plan) add(f ledger.Finding) {
	if !acts(f) {
		return
	}
	if p.sum == nil {
		p.sum = sha256.New()
	}
	for _, part := range []string{f.Key, f.Class, f.Change, f.Decision} {
		fmt.Fprintf(p.sum, "%d:%s,", len(part), part)
	}
	p.any = true
	switch f.Change {
	case changeSet:
		p.Sets++
	case changeClear:
		p.Clears++
	case changeLink:
		p.Links++
	case changeStray:
		p.Links++
		p.strays++
	}
}

// hash is "" for a plan that changes nothing.
func (p *plan) hash() string {
	if !p.any {
		return ""
	}
	return hex.EncodeToString(p.sum.Sum(nil)[:8])
}

// check tells why a plan must wait for a person; "": it need not.
func (b Brakes) check(ctx context.Context, l *ledger.Ledger, p *plan) (string, error) {
	switch {
	case !p.any: // nothing to ask about
		return "", nil
	case p.strays > 0:
		return fmt.Sprintf("it would link %d keys to new tasks of what may be another Label Studio: their project shows neither the first nor the last of its tasks that were known", p.strays), nil
	}
	hour, err := l.LastHour(ctx)
	if err != nil {
		return "", err
	}
	sum := p.Tally
	sum.Add(hour)
	if max(sum.Sets, sum.Clears, sum.Links) <= b.Count {
		return "", nil
	}
	linked, err := l.LinkedKeys(ctx)
	if err != nil {
		return "", err
	}
	return b.stops(p.Tally, hour, linked), nil
}

func (b Brakes) stops(plan, hour ledger.Tally, linked int) string {
	for _, c := range []struct {
		what       string
		plan, hour int
	}{
		{"set the star of", plan.Sets, hour.Sets}, {"take the star from", plan.Clears, hour.Clears}, {"find another or no task of", plan.Links, hour.Links},
	} {
		if n := c.plan + c.hour; c.plan > 0 && n > b.Count && float64(n) > b.Share*float64(linked) {
			return fmt.Sprintf("it would %s %d keys (%d within the hour, of %d that have a task)", c.what, c.plan, n, linked)
		}
	}
	return ""
}
