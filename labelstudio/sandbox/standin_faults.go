package sandbox

import (
	"encoding/json"
	"maps"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
)

// Delays say how long Label Studio computes for a request of each kind. Where any is set, it computes for one request at a time, as one Python
// process does; what comes meanwhile waits.
type Delays struct {
	Patch      time.Duration // PATCH of a task
	Task       time.Duration // GET of a task
	Listing    time.Duration // a listing with annotations, and for each of its rows …
	ListingRow time.Duration
	Light      time.Duration // a listing without, and for each of its rows …
	LightRow   time.Duration
	Search     time.Duration // a listing that filters by data, beside its rows, and for each task of the project …
	SearchTask time.Duration
	Annotation time.Duration // create, update or delete
	ImportTask time.Duration // for each task of an import
	Other      time.Duration
}

// MeasuredDelays are those of Label Studio 1.23.2 on PostgreSQL with two busy cores.
func MeasuredDelays() Delays {
	const us = time.Microsecond
	return Delays{
		Patch: 117 * time.Millisecond, Task: 117 * time.Millisecond,
		Listing: 80 * time.Millisecond, ListingRow: 1500 * us,
		Light: 30 * time.Millisecond, LightRow: 450 * us,
		Search: 40 * time.Millisecond, SearchTask: 16 * us,
		Annotation: 71 * time.Millisecond, ImportTask: 1200 * us, Other: 18 * time.Millisecond,
	}
}

// FaultKind is what goes wrong with a request.
type FaultKind int

// The kinds of faults.
const (
	FaultNone   FaultKind = iota
	FaultStatus           // not done; answered with Fault.Status
	FaultCut              // not done; the connection is cut
	FaultLost             // done; the connection is cut before the answer, or, where Fault.Status is set, that is answered
	FaultLate             // done after Fault.Delay, whether the client still waits or not
	FaultHang             // not done; no answer until the client goes
	FaultShort            // a listing without the second half of its rows, while its total counts them
)

// Fault is what the function given to [StandIn.Faults] decides for a request.
type Fault struct {
	Kind   FaultKind
	Status int
	Delay  time.Duration
}

// Faults sets the function that is asked for every request, before anything is done; nil ends the faults. It may be called while requests
// are under way and must be safe for concurrent use; it must not read the request's body.
func (s *StandIn) Faults(decide func(*http.Request) Fault) { s.faults.set(decide) }

// OnPatch sets a function that is called for every PATCH of a task's meta that took effect, before it is answered.
func (s *StandIn) OnPatch(notify func(task int64, meta json.RawMessage)) { s.patch.set(notify) }

// Requests returns how many requests came so far, by what for; faults and refusals count.
func (s *StandIn) Requests() map[labelstudio.Operation]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.counts)
}

// compute holds the one core for a time. It does not end when the client goes: the real one does not notice either.
func (s *StandIn) compute(d time.Duration) {
	if s.delays == (Delays{}) {
		return
	}
	select {
	case s.core <- struct{}{}:
		defer func() { <-s.core }()
		s.pause(d)
	case <-s.closed:
	}
}

// pause returns after d, or when the stand-in is closed.
func (s *StandIn) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.closed:
	}
}

// atomicFunc holds a function that may be exchanged while others call it.
type atomicFunc[F any] struct{ p atomic.Pointer[F] }

func (a *atomicFunc[F]) set(f F) { a.p.Store(&f) }

func (a *atomicFunc[F]) get() (f F) {
	if p := a.p.Load(); p != nil {
		f = *p
	}
	return f
}
