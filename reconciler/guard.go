package reconciler

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"

	"github.com/aristotle/reconciler/labelstudio"
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

// errStranger is what may be another Label Studio than the one that we know.
var errStranger = errors.New("neither the first nor the last of the tasks that were known is there: is it another Label Studio, or one that was restored?")

// recognise fails with errStranger where a project shows none of the tasks by which it is
// known again. One that we know nothing of is known by its Label Studio: by tasks of other
// projects.
func recognise(ctx context.Context, rows rowSide, studio taskSide, project int64) error {
	edges, own, err := rows.Known(ctx, project)
	if err != nil || len(edges) == 0 { // nothing is known that it could differ from
		return err
	}
	err = anyThere(ctx, studio, edges)
	if errors.Is(err, errStranger) && !own {
		err = fmt.Errorf("nothing is known of it, and of other projects %w", err)
	}
	return err
}

// anyThere fails with errStranger where none of the tasks that edges remember is there. Each is
// asked for by itself, since a listing may be short.
func anyThere(ctx context.Context, studio taskSide, edges []ledger.Edge) error {
	var failed error
	for _, e := range edges {
		switch t, err := studio.Task(ctx, e.Task); {
		case err == nil && !isOtherTask(e, t.CreatedAt):
			return nil
		case err != nil && !labelstudio.IsNotFound(err):
			failed = errors.Join(failed, err)
		}
	}
	if failed != nil {
		return failed
	}
	return errStranger
}

// check tells why a plan must wait for a person; "": it need not.
func (b Brakes) check(ctx context.Context, l *ledger.Ledger, p *plan) (string, error) {
	switch {
	case !p.any: // nothing to ask about
		return "", nil
	case p.strays > 0:
		why := fmt.Sprintf("it would link %d keys to tasks of what may be another Label Studio: neither the first nor the last of the tasks that were known is there", p.strays)
		if others := p.Links - p.strays; others > 0 {
			why += fmt.Sprintf("; and find another or no task of %d", others)
		}
		return why, nil
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
