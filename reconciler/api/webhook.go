package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/web"
)

const (
	// maxWebhook is above what Label Studio sends for 5,000 imported tasks.
	maxWebhook = 64 << 20
	// commitTimeout leaves room below the 1.0 s after which Label Studio stops
	// listening, inside the annotator's own request.
	commitTimeout = 700 * time.Millisecond
	// maxBodies bounds the large deliveries that are in memory at a time, in bytes, each of
	// which takes some times its size. Label Studio sends one after another.
	maxBodies = maxWebhook
	// maxProbe is above the names that the doctor gives its deliveries.
	maxProbe = 64
	// smallBody is far above what is sent for one annotation.
	smallBody = 1 << 20
	// maxNamed is how many tasks or annotations a delivery may name: far above the 5,000 into
	// which Label Studio splits what it tells, and what versions that do not split have to tell.
	maxNamed = 500_000
)

// How the log tells of what could not be answered. Of deliveries it says which: failed, where that was not the sender's doing.
const (
	msgWebhook  = "webhook"
	msgSync     = "sync call"
	msgExamples = "examples"
)

var failed = fmt.Sprint(metrics.Failed, http.StatusServiceUnavailable)

// webhook takes a delivery: it commits which keys it concerns, answers, and never
// uses the body again. A delivery is at most once and never repeated: what we refuse
// or cannot keep, the incremental pass finds.
func (a *API) webhook(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	action, outcome, err := a.deliver(w, r)
	a.Metrics.WebhookDuration.Observe(time.Since(start).Seconds())
	a.Metrics.Webhooks.With(metrics.ActionOf(action), outcome).Inc()
	if err == nil {
		if outcome == metrics.Accepted { // what is ignored asks no database
			a.failures.Over(r.Context(), a.Log, msgWebhook, failed)
		}
		web.Answer(w, http.StatusOK, map[string]string{"status": string(outcome)})
		return
	}
	var p *web.Problem
	if !errors.As(err, &p) {
		p = &web.Problem{Status: http.StatusServiceUnavailable, Detail: "The database is away. Nothing needs to be sent again: the next pass finds it."}
	}
	a.failures.Log(r.Context(), a.Log, slog.LevelWarn, msgWebhook, fmt.Sprint(outcome, p.Status), err,
		slog.String("action", string(metrics.ActionOf(action))), slog.String("outcome", string(outcome)), slog.Int("status", p.Status))
	web.Fail(w, p)
}

func (a *API) deliver(w http.ResponseWriter, r *http.Request) (action string, outcome metrics.WebhookOutcome, err error) {
	if err := a.admit(r); err != nil {
		return "", metrics.Refused, err
	}
	probe, err := probeOf(r)
	if err != nil {
		return "", metrics.Refused, err
	}
	release, err := a.reserve(r.ContentLength)
	if err != nil {
		return "", metrics.Failed, err
	}
	defer release()
	body, err := web.ReadBody(w, r, maxWebhook)
	if err != nil {
		return "", metrics.Refused, err
	}
	e, err := parseEvent(body)
	if err != nil {
		return "", metrics.Refused, err
	}
	// A sender that was cut off has sent all the same: the key is kept also for one that has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commitTimeout)
	defer cancel()
	n, err := a.enqueue(ctx, e)
	if err == nil && probe != "" {
		err = a.Ledger.TellProbe(ctx, probe) // the doctor waits for it
	}
	if err != nil {
		return e.Action, metrics.Failed, err
	}
	a.arrived(ctx, e.Project.ID)
	if n == nothing {
		return e.Action, metrics.Ignored, nil
	}
	a.Metrics.Triggers.With(metrics.Webhook).Add(float64(n))
	return e.Action, metrics.Accepted, nil
}

// probeOf returns the name that the doctor gave a delivery in its URL, "" for all others.
func probeOf(r *http.Request) (string, error) {
	name := r.URL.Query().Get("probe")
	odd := strings.ContainsFunc(name, func(c rune) bool {
		return c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	})
	if odd || len(name) > maxProbe {
		return "", web.Refuse(http.StatusBadRequest, "probe must be a name of at most %d letters, digits and hyphens.", maxProbe)
	}
	return name, nil
}

// admit says who may deliver: whoever knows the secret. Without one, or without tokens
// and with another one, only this machine is answered at all.
func (a *API) admit(r *http.Request) error {
	if a.Secret.Is(auth.Bearer(r)) {
		return nil
	}
	if a.Secret == nil || a.Guard.Tokens == nil {
		if err := auth.OnlyLocal(r); err != nil {
			return err
		}
	}
	if a.Secret == nil {
		return nil
	}
	return web.Refuse(http.StatusUnauthorized, "Send the webhook secret as Authorization: Bearer.")
}

// reserve keeps the large bodies that are read at a time below [maxBodies]. Small ones,
// and so whoever starred something, never wait behind them.
func (a *API) reserve(length int64) (release func(), err error) {
	if length < 0 || length > maxWebhook { // not told, or refused before it is read
		length = maxWebhook
	}
	if length <= smallBody {
		return func() {}, nil
	}
	if !a.bodies.TryAcquire(length) {
		return nil, &web.Problem{Status: http.StatusServiceUnavailable, After: time.Second, Detail: "Too many large deliveries at a time. Nothing needs to be sent again: the next pass finds it."}
	}
	return func() { a.bodies.Release(length) }, nil
}

// arrivedEvery is how often it is written down that deliveries of a project arrive.
const arrivedEvery = 30 * time.Second

// arrived proves to whoever looks after the webhooks that this project's works. It
// keeps no delivery from its answer.
func (a *API) arrived(ctx context.Context, project int64) {
	if project == 0 || !a.seen.due(project, time.Now()) {
		return
	}
	if err := a.Ledger.Delivered(ctx, project); err != nil {
		a.Log.DebugContext(ctx, "webhook", "error", err)
	}
}

// sightings is when deliveries of each project were written down last.
type sightings struct {
	mu sync.Mutex
	at map[int64]time.Time
}

// maxSightings bounds it against numbers that somebody makes up.
const maxSightings = 10_000

// due tells whether it is time to write one down, and takes it as written.
func (s *sightings) due(project int64, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.at[project]) < arrivedEvery {
		return false
	}
	if s.at == nil || len(s.at) >= maxSightings {
		s.at = map[int64]time.Time{}
	}
	s.at[project] = now
	return true
}

// nothing is what enqueue returns for a delivery that does not concern us.
const nothing = -1

// enqueue makes dirty what a delivery concerns, and returns how many keys that were
// not counted yet.
func (a *API) enqueue(ctx context.Context, e event) (int, error) {
	switch e.Action {
	case labelstudio.AnnotationCreated, labelstudio.AnnotationsCreated, labelstudio.AnnotationUpdated, labelstudio.TasksCreated:
		return a.linked(ctx, append(e.Task, e.Tasks...))
	case labelstudio.TasksDeleted:
		if len(e.Tasks) > 0 {
			return a.Ledger.EnqueueTasks(ctx, ids(e.Tasks), ledger.FromWebhook)
		}
	case labelstudio.AnnotationsDeleted:
		if len(e.Annotations) > 0 {
			return a.Ledger.EnqueueAnnotations(ctx, ids(e.Annotations), ledger.FromWebhook)
		}
	default:
		return nothing, nil
	}
	// A hook that sends no payload: something happened, a pass finds what.
	return 0, a.Ledger.Poke(ctx)
}

func (a *API) linked(ctx context.Context, tasks []named) (int, error) {
	if len(tasks) == 0 {
		return 0, a.Ledger.Poke(ctx)
	}
	var links []ledger.Link
	for _, t := range tasks {
		if key := ledger.KeyOf(t.Data); key != "" && a.Projects.Have(t.Project) {
			links = append(links, ledger.Link{Task: t.ID, Project: t.Project, Key: key})
		}
	}
	if len(links) == 0 {
		return nothing, nil
	}
	return 0, a.links.add(ctx, links)
}

// commitLinks commits what one or more deliveries link, and counts it: that is not
// each delivery's own.
func (a *API) commitLinks(ctx context.Context, links []ledger.Link) error {
	n, err := a.Ledger.Linked(ctx, links, a.Initial, ledger.FromWebhook)
	a.Metrics.Triggers.With(metrics.Webhook).Add(float64(n))
	return err
}

// event is a delivery as far as we read it: which tasks it is about. Keys that are
// singular in one action hold lists in another.
type event struct {
	Action      string `json:"action"`
	Project     origin `json:"project"`
	Task        many   `json:"task"`
	Tasks       many   `json:"tasks"`
	Annotations many   `json:"annotations"`
}

// named is a task or an annotation by its id; a deleted one has nothing else.
type named struct {
	ID      int64           `json:"id"`
	Project int64           `json:"project"`
	Data    json.RawMessage `json:"data"`
}

// origin is the project that a delivery comes from, 0 where it does not tell.
type origin struct{ ID int64 }

func (o *origin) UnmarshalJSON(text []byte) error {
	var p struct {
		ID int64 `json:"id"`
	}
	if json.Unmarshal(text, &p) == nil { // it is of no concern to the keys
		o.ID = p.ID
	}
	return nil
}

// many is a list, or the one that stands for itself.
type many []named

// UnmarshalJSON takes one after another: a list is refused by the first that is none, and
// not when millions of them have filled the memory.
func (m *many) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return nil
	}
	*m = nil
	d := json.NewDecoder(bytes.NewReader(text))
	if text[0] == '[' {
		if _, err := d.Token(); err != nil {
			return err
		}
	}
	for d.More() && len(*m) <= maxNamed {
		var n named
		if err := d.Decode(&n); err != nil {
			return err
		}
		if n.ID <= 0 {
			return web.Refuse(http.StatusBadRequest, "A task or an annotation has no id.")
		}
		*m = append(*m, n)
	}
	if len(*m) > maxNamed {
		return web.Refuse(http.StatusRequestEntityTooLarge, "A delivery may name %d tasks or annotations.", maxNamed)
	}
	return nil
}

// parseEvent reads a delivery. Its errors quote nothing of the body.
func parseEvent(body []byte) (event, error) {
	var e *event
	err := json.Unmarshal(body, &e)
	var refused *web.Problem
	switch {
	case errors.As(err, &refused):
		return event{}, refused
	case err != nil || e == nil:
		return event{}, web.Refuse(http.StatusBadRequest, "The body must be a JSON object as Label Studio sends it.")
	}
	return *e, nil
}

func ids(of []named) []int64 {
	all := make([]int64, len(of))
	for i, n := range of {
		all[i] = n.ID
	}
	return all
}
