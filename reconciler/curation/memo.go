package curation

import (
	"context"
	"sync"
	"time"
)

// memo keeps answers that take long and may be a moment old. Who asks gets the last
// one, and one that is older than fresh is asked for again behind their back. The
// zero value with fresh set is ready to use.
type memo[K comparable, V any] struct {
	fresh time.Duration
	mu    sync.Mutex
	kept  map[K]*kept[V]
}

type kept[V any] struct {
	value V
	at    time.Time
	ready chan struct{} // closed when the question under way is answered; nil: none is
}

// maxKept bounds a memo: it is emptied when it is full.
const maxKept = 500

// memoKeep is for how long an old answer is better than none.
const memoKeep = time.Minute

// ask returns a function that waits so long for the answer, and returns the zero value
// where there is none by then. read goes on meanwhile and after that, for those who
// ask next; its errors are theirs who read the same for themselves.
func (m *memo[K, V]) ask(ctx context.Context, key K, read func(context.Context) (V, error)) func(wait time.Duration) V {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kept == nil || len(m.kept) >= maxKept {
		m.kept = map[K]*kept[V]{}
	}
	k := m.kept[key]
	if k == nil {
		k = &kept[V]{}
		m.kept[key] = k
	}
	age := time.Since(k.at)
	if age > m.fresh && k.ready == nil {
		k.ready = make(chan struct{})
		go m.read(context.WithoutCancel(ctx), k, read)
	}
	if age <= memoKeep {
		value := k.value
		return func(time.Duration) V { return value }
	}
	ready := k.ready
	return func(wait time.Duration) (none V) {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-ready:
			m.mu.Lock()
			defer m.mu.Unlock()
			return k.value
		case <-timer.C:
			return none
		}
	}
}

func (m *memo[K, V]) read(ctx context.Context, k *kept[V], read func(context.Context) (V, error)) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	value, err := read(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		k.value, k.at = value, time.Now()
	}
	close(k.ready)
	k.ready = nil
}

// forget makes all answers old, since somebody has just changed what they tell of.
func (m *memo[K, V]) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.kept)
}
