package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler"
)

// Readiness follows progress: each part must have got on lately, whatever it says of itself. It is looked at when somebody asks,
// and costs nothing else. These times together keep a change from going unnoticed for more than 30 s.
const (
	readyFor   = 8 * time.Second // that all was well is believed for so long: probes come from several sides
	unreadyFor = time.Second     // and that it was not
	stallAfter = 20 * time.Second
	rightsFor  = 20 * time.Second // that we have all rights is believed for so long
	probeLimit = 2 * time.Second  // for both sides, asked at once: probes themselves wait two or three seconds
)

// readiness remembers the last look.
type readiness struct {
	mu      sync.Mutex
	at      time.Time
	reasons []string

	projects   []string // what is missing of those that were configured
	projectsAt time.Time
	rightsAt   time.Time // when we had all rights
}

// ready says whether this process does its job, and if not, why. One that does not lead is ready when it can take webhooks.
func (d *daemon) ready(w http.ResponseWriter, r *http.Request) {
	reasons := d.unready(r.Context())
	warnings := []string{} // in spite of which it does its job
	if d.hooks != nil {
		warnings = append(warnings, d.hooks.Warnings()...)
	}
	answerReady(w, d.leading.Load(), reasons, warnings)
}

func answerReady(w http.ResponseWriter, leader bool, reasons, warnings []string) {
	w.Header().Set("Content-Type", "application/json")
	if len(reasons) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"ready": len(reasons) == 0, "leader": leader, "reasons": append([]string{}, reasons...), "warnings": warnings})
}

// unready is why this process does not do its job; empty: it does.
func (d *daemon) unready(ctx context.Context) []string {
	d.seen.mu.Lock()
	defer d.seen.mu.Unlock()
	keep := readyFor
	if len(d.seen.reasons) > 0 {
		keep = unreadyFor
	}
	if time.Since(d.seen.at) < keep {
		return d.seen.reasons
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeLimit) // who asked may go: the answer is for the next one
	defer cancel()
	studio := make(chan []string, 1)
	go func() { studio <- d.studioReasons(ctx) }()
	reasons := append(append([]string{}, d.databaseReasons(ctx)...), d.streamReasons()...)
	d.seen.reasons, d.seen.at = append(reasons, <-studio...), time.Now()
	return d.seen.reasons
}

// databaseReasons looks at rights, tables, and whether the queue moves.
func (d *daemon) databaseReasons(ctx context.Context) []string {
	stats, err := d.ledger.Stats(ctx)
	if err == nil && time.Since(d.seen.rightsAt) > rightsFor {
		if err = d.ledger.Check(ctx); err == nil {
			d.seen.rightsAt = time.Now()
		}
	}
	if err != nil {
		return []string{"database: " + plain(explained(err))}
	}
	if err := d.turner.Trouble(); err != nil && d.leading.Load() {
		return []string{"queue: " + plain(explained(err))}
	}
	stalled := time.Since(d.turner.Progress())
	if d.leading.Load() && stats.Ready > 0 && stalled > stallAfter && time.Since(d.led()) > stallAfter {
		return []string{fmt.Sprintf("queue: %d keys are ready, and the worker has not moved for %v", stats.Ready, min(stalled, time.Since(d.led())).Round(time.Second))}
	}
	return nil
}

func (d *daemon) streamReasons() []string {
	if !d.leading.Load() {
		return nil
	}
	s := d.stream.Stats()
	reason := func(format string, args ...any) []string { return []string{"stream: " + fmt.Sprintf(format, args...)} }
	switch {
	case s.LastError != nil: // it ends with what to do about it
		return reason("%s: %s", s.State, plain(s.LastError))
	case !s.Connected:
		return reason("%s", s.State)
	case time.Since(s.LastMessage) > stallAfter:
		return reason("nothing came for %v, not even a keepalive", time.Since(s.LastMessage).Round(time.Second))
	case !s.Handling.IsZero() && time.Since(s.Handling) > stallAfter:
		return reason("keys are not taken into the queue since %v", time.Since(s.Handling).Round(time.Second))
	}
	return nil
}

// studioReasons asks Label Studio only where nobody has had an answer lately.
func (d *daemon) studioReasons(ctx context.Context) []string {
	if !d.leading.Load() {
		return nil
	}
	var err error
	switch configured := d.cfg.LabelStudioProjects; {
	case len(configured) > 0 && time.Since(d.seen.projectsAt) > stallAfter:
		var all []labelstudio.Project
		if all, err = d.studio.Projects(ctx); err == nil {
			d.seen.projects, d.seen.projectsAt = reconciler.MissingProjects(configured, all), time.Now()
		}
	case time.Since(d.answered()) > stallAfter:
		_, err = d.studio.Whoami(ctx)
	}
	switch {
	case time.Since(d.answered()) > stallAfter && err != nil:
		return []string{"Label Studio is away: " + err.Error()}
	case d.turner.Away() || d.passes.Away():
		return []string{"Label Studio is away"}
	}
	return d.seen.projects
}

// answered is when Label Studio gave what it was asked for last.
func (d *daemon) answered() time.Time { return time.Unix(0, d.answeredAt.Load()) }

// led is since when this process leads.
func (d *daemon) led() time.Time { return time.Unix(0, d.ledAt.Load()) }
