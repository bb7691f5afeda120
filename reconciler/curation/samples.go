package curation

import (
	"context"
	"sync"
	"time"

	"github.com/aristotle/reconciler/reconciler/ledger"
)

const (
	sampleEvery = 5 * time.Second
	// sampleFor is how long after the last look at the status page samples are still taken:
	// a daemon that nobody looks at asks nothing.
	sampleFor = 10 * time.Minute
)

// samples are what the queue looked like lately, for the charts.
type samples struct {
	ledger *ledger.Ledger
	ctx    context.Context // ends with the app

	mu            sync.Mutex
	queue, oldest []sample
	until         time.Time // samples are taken until then
	running       bool
	done          sync.WaitGroup
}

type sample struct {
	at    time.Time
	value float64
}

// taken returns the samples that there are, and has more taken.
func (s *samples) taken() (queue, oldest []sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = time.Now().Add(sampleFor)
	if !s.running && s.ctx.Err() == nil {
		s.running = true
		s.done.Go(s.run)
	}
	return append([]sample(nil), s.queue...), append([]sample(nil), s.oldest...)
}

// run takes samples until nobody has looked for a while.
func (s *samples) run() {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for s.wanted() {
		s.take()
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *samples) wanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = time.Now().Before(s.until)
	return s.running
}

// take takes one. While the database is away there is none: the chart has a gap.
func (s *samples) take() {
	ctx, cancel := context.WithTimeout(s.ctx, sampleEvery)
	defer cancel()
	stats, err := s.ledger.Stats(ctx)
	if err != nil {
		return
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(recent(s.queue, now), sample{now, float64(stats.Ready + stats.Waiting + stats.Running + stats.Stuck)})
	s.oldest = append(recent(s.oldest, now), sample{now, max(stats.OldestToStudio, stats.OldestToAristotle)})
}

// recent are the samples that a chart still has room for.
func recent(all []sample, now time.Time) []sample {
	for len(all) > 0 && now.Sub(all[0].at) > chartFor {
		all = all[1:]
	}
	return all
}
