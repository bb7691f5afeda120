package icl

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/logs"
)

// group is one list of examples: of a philosopher and domain, and of one of its
// conquest types, folded, or of any ("").
type group struct{ philosopher, domain, kind string }

// Index has all examples in memory. It answers as its Source does, and lets the
// source answer where it may not be fresh. Run keeps it; Examples may be called at
// any time, by anyone.
type Index struct {
	src     *Source
	log     *slog.Logger
	metrics *metrics.Metrics
	limit   int64         // bytes
	slot    string        // that the change stream is read from; "": nobody watches whether it is
	retry   time.Duration // of what did not fit

	asked atomic.Int64 // when somebody last asked, to a second

	mu      sync.RWMutex
	fresh   bool
	watched time.Time // when it was last looked whether somebody reads the slot
	groups  lists
	// version has grown with every change of a list, for as long as the index lives.
	version uint64

	held     held          // Run's alone
	failures logs.Failures // of Run
}

// Options are what an Index needs beside its source.
type Options struct {
	Log     *slog.Logger
	Metrics *metrics.Metrics
	Memory  int64  // bytes that the index may take; 0: none, the source answers always
	Slot    string // RECONCILER_SLOT: while nobody reads it, the index is not fresh
}

// NewIndex returns an index that is empty and not fresh until Run has filled it.
func NewIndex(src *Source, o Options) *Index {
	return &Index{src: src, log: o.Log, metrics: o.Metrics, limit: o.Memory, slot: o.Slot, retry: tooLargeFor}
}

// Examples answers a query as [Source.Examples] does.
func (x *Index) Examples(ctx context.Context, q Query) (Page, error) {
	after, err := q.after()
	if err != nil {
		return Page{}, err
	}
	if page, ok := x.page(q, after); ok {
		return page, nil
	}
	return x.src.Examples(ctx, q)
}

// Fresh tells whether examples are served from memory.
func (x *Index) Fresh() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.current()
}

// current tells whether memory may answer, and notes that it was asked. The lock must be held. While nobody
// asks it is not watched, to save statements: then the first answers come from the source.
func (x *Index) current() bool {
	if now := time.Now().Unix(); x.asked.Load() != now {
		x.asked.Store(now)
	}
	return x.fresh && (x.slot == "" || time.Since(x.watched) < watchedFor)
}

// page reads a page from memory, where that is fresh. Examples never change: what is
// handed out stays as it is when the lock is gone.
func (x *Index) page(q Query, after *place) (page Page, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if !x.current() {
		return Page{}, false
	}
	held := x.groups[group{q.Philosopher, q.Domain, fold(q.Type)}]
	if held == nil {
		return page, true
	}
	list := held.examples
	i := len(list)
	page.Version = held.version
	if after != nil {
		i, _ = slices.BinarySearchFunc(list, &Rating{At: after.at, ID: after.id}, compareTo)
	}
	page.Examples = make([]*Example, 0, min(q.Limit, i))
	for i--; i >= 0; i-- {
		if !list[i].Usable() {
			page.gap++
		} else if !page.add(q, list[i]) {
			return page, true
		}
	}
	return page.end(), true
}

func compareTo(e *Example, r *Rating) int { return e.compare(r) }

// Version changes whenever what queries of a philosopher, domain and type give does:
// an answer may be given again while it is the [Page.Version] of then. It is 0 where
// nothing may be given again.
func (x *Index) Version(q Query) uint64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if held := x.groups[group{q.Philosopher, q.Domain, fold(q.Type)}]; held != nil && x.current() {
		return held.version
	}
	return 0
}

// lists are all groups that there are.
type lists map[group]*list

// list is the examples of one group, oldest first, so that a new one is put at the end.
type list struct {
	examples []*Example
	version  uint64
}

// groupsOf are the groups that an example is in.
func groupsOf(e *Example) []group {
	all := []group{{e.Philosopher, e.Domain, ""}}
	if e.Type != "" {
		all = append(all, group{e.Philosopher, e.Domain, fold(e.Type)})
	}
	return all
}

// put adds an example to its lists, and drop takes it out. The lock must be held
// where the lists can be read by others.
func (all lists) put(e *Example, version uint64) {
	for _, g := range groupsOf(e) {
		l := all[g]
		if l == nil {
			l = new(list)
			all[g] = l
		}
		i, _ := slices.BinarySearchFunc(l.examples, &e.Rating, compareTo)
		l.examples, l.version = slices.Insert(l.examples, i, e), version
	}
}

func (all lists) drop(e *Example, version uint64) {
	for _, g := range groupsOf(e) {
		l := all[g]
		i, found := slices.BinarySearchFunc(l.examples, &e.Rating, compareTo)
		if !found {
			panic("an example that is held is in its lists")
		}
		if l.examples, l.version = slices.Delete(l.examples, i, i+1), version; len(l.examples) == 0 {
			delete(all, g)
		}
	}
}

// setFresh says whether the index may answer.
func (x *Index) setFresh(fresh bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.fresh, x.watched = fresh, time.Now()
	x.metrics.ICLIndexFresh.Set(map[bool]float64{true: 1}[fresh])
}

// forget drops everything that is held.
func (x *Index) forget() {
	x.setFresh(false)
	x.mu.Lock()
	x.groups = nil
	x.mu.Unlock()
	x.held = held{}
	x.measure()
}

// errTooLarge says that the examples take more memory than they may.
var errTooLarge = errors.New("the examples do not fit into RECONCILER_ICL_MEMORY")

func (x *Index) measure() {
	x.metrics.ICLExamples.With(metrics.Served).Set(float64(len(x.held.ratings) - x.held.leftOut))
	x.metrics.ICLExamples.With(metrics.LeftOut).Set(float64(x.held.leftOut))
	x.metrics.ICLIndexBytes.Set(float64(x.held.bytes))
}
