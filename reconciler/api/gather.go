package api

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/aristotle/reconciler/reconciler/ledger"
)

// maxCommits is how many commits of deliveries run at a time. A second one keeps the
// database busy while the first waits for its disk.
const maxCommits = 2

// gather commits what deliveries link. Those that arrive while others are being
// committed wait, and then share one commit: so a burst of them costs a commit now and
// then and not one each, and nobody waits longer than for the commit under way and
// the next. Alone, a delivery waits for nothing.
type gather struct {
	commit func(context.Context, []ledger.Link) error

	mu      sync.Mutex
	next    []*delivery // gathers while others are committed
	commits int         // under way
}

// delivery is what one delivery links.
type delivery struct {
	links []ledger.Link
	err   error
	done  chan struct{} // closed when err is known
}

// panicked is a panic of a commit, on its way to the request that waits for it.
type panicked string

func (p panicked) Error() string { return string(p) }

// add returns once links are committed, or ctx has ended: then nobody knows. It panics
// where the commit did, so that the server answers and counts that as of any handler.
func (g *gather) add(ctx context.Context, links []ledger.Link) error {
	d := &delivery{links: links, done: make(chan struct{})}
	g.mu.Lock()
	g.next = append(g.next, d)
	if g.commits < maxCommits {
		g.commits++
		go g.run()
	}
	g.mu.Unlock()
	select {
	case <-d.done:
		if p := panicked(""); errors.As(d.err, &p) {
			panic(p)
		}
		return d.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run commits what has gathered, until nothing has.
func (g *gather) run() {
	for {
		g.mu.Lock()
		all := g.next
		g.next = nil
		if len(all) == 0 {
			g.commits--
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		g.commitAll(all)
		for _, d := range all {
			close(d.done)
		}
	}
}

// commitAll commits deliveries together. Where that fails each has to stand for itself:
// one that the database refuses must not take the others with it.
func (g *gather) commitAll(all []*delivery) {
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	var links []ledger.Link
	for _, d := range all {
		links = append(links, d.links...)
	}
	err := g.try(ctx, links)
	for _, d := range all {
		if d.err = err; err != nil && len(all) > 1 {
			d.err = g.try(ctx, d.links) // at once, where ctx has ended
		}
	}
}

// try commits. A panic here, where no request is, would end the process.
func (g *gather) try(ctx context.Context, links []ledger.Link) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicked(fmt.Sprintf("%v, in a commit of links\n%s", v, debug.Stack()))
		}
	}()
	return g.commit(ctx, links)
}
