// Package metrics holds every metric of the program: names, labels and buckets in one place, so that a dashboard can be
// checked against one file.
//
// Where the contract lists the values of all labels of a metric, every combination exists with 0 from the start: a rate over
// a series that appears with its first failure misses that failure, and an alert on an absent series never fires. The
// values are types of their own here, so a misspelt label does not compile.
//
// The gauges that describe stored state (queue, oldest unsynced, slot, drift) are plain gauges: whoever serves /metrics sets
// them from one look at the database just before it gathers. Nothing in this package reads anything.
package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics is one set of metrics. The zero value is of no use: see [New].
type Metrics struct {
	// Sync counts turns that ended, once per direction in which they carried something.
	Sync Vec2[prometheus.Counter, Direction, Outcome]
	// SyncDuration is seconds from the trigger to both sides equal.
	SyncDuration Vec1[prometheus.Observer, Direction]
	// OldestUnsynced is the age in seconds of the oldest change not carried over yet; 0 when there is none.
	OldestUnsynced Vec1[prometheus.Gauge, Direction]
	// QueueKeys is how many keys the queue has in each state.
	QueueKeys Vec1[prometheus.Gauge, State]
	// Triggers counts keys made dirty, by what made them so.
	Triggers Vec1[prometheus.Counter, Source]

	// DriftKeys is how many keys the last diff pass found different.
	DriftKeys Vec1[prometheus.Gauge, Drift]
	// OldestDrift is the age in seconds of the oldest difference that a pass has found and no turn has settled; 0 for none.
	OldestDrift prometheus.Gauge
	// DiffTasks is how many tasks the full pass that is under way, or the last one, has read.
	DiffTasks prometheus.Gauge
	// DiffLastSuccess is the Unix time in seconds at which a pass last ended well; 0 for never.
	DiffLastSuccess Vec1[prometheus.Gauge, Pass]
	// DiffDuration is seconds that a pass took, however it ended.
	DiffDuration Vec1[prometheus.Observer, Pass]
	// DiffBraked is 1 while the mass-change brake keeps the last pass of a kind from its writes, else 0.
	DiffBraked Vec1[prometheus.Gauge, Pass]

	// SlotRetainedWAL is the WAL in bytes that the server keeps for our slot.
	SlotRetainedWAL prometheus.Gauge
	// SlotLag is the WAL in bytes between the server's end and what we confirmed.
	SlotLag prometheus.Gauge
	// SlotSafeWAL is the WAL in bytes that can still be written before the server gives our slot up; +Inf without such a limit.
	SlotSafeWAL prometheus.Gauge
	// SlotWALLimit is RECONCILER_SLOT_WAL_LIMIT in bytes, above which we give the slot up ourselves; +Inf without such a limit.
	SlotWALLimit prometheus.Gauge
	// DatabaseUp is 1 while Aristotle's database answers; while it is 0 the gauges of stored state are old.
	DatabaseUp prometheus.Gauge

	// LabelStudioRequests counts requests by operation (one name per method of the client) and [Code].
	LabelStudioRequests Vec2[prometheus.Counter, Operation, Code]
	// LabelStudioDuration is seconds per request, its body read.
	LabelStudioDuration Vec1[prometheus.Observer, Operation]
	// LabelStudioUp is 1 while Label Studio answers with our token, else 0.
	LabelStudioUp prometheus.Gauge

	// Webhooks counts deliveries by Label Studio's action and by what became of them.
	Webhooks Vec2[prometheus.Counter, Action, WebhookOutcome]
	// WebhookDuration is seconds until a delivery was answered. Its sender is a person who waits for Submit.
	WebhookDuration prometheus.Observer
	// WebhooksMissed counts changes that a pass found and that Label Studio should have announced, but no delivery did.
	WebhooksMissed prometheus.Counter
	// WebhooksBroken is how many projects had no working webhook of ours, or one whose deliveries do not arrive, when it was last looked after.
	WebhooksBroken prometheus.Gauge
	// WebhookRepairs counts webhooks that had to be made or switched on again.
	WebhookRepairs prometheus.Counter

	// HTTPRequests counts requests by server and status.
	HTTPRequests Vec2[prometheus.Counter, Listener, Code]
	// TokensOK is 1 while the tokens are those of the file, 0 while it has an error and the tokens from before count.
	TokensOK prometheus.Gauge

	// ICLDuration is seconds per request for examples. The format of a request that names none of ours is "other".
	ICLDuration Vec2[prometheus.Observer, Format, Code]

	// ICLExamples is how many gold ratings this process holds in memory: those it serves, and those without a usable text.
	ICLExamples Vec1[prometheus.Gauge, HeldExample]
	// ICLIndexFresh is 1 while examples are served from memory, 0 while the database is asked.
	ICLIndexFresh prometheus.Gauge
	// ICLIndexBytes is the memory that the examples take.
	ICLIndexBytes prometheus.Gauge

	// Leader is 1 while this process runs the turns, 0 while another one does.
	Leader prometheus.Gauge
	// Panics counts mistakes of ours that were caught: the key that met one is tried again, later and later.
	Panics prometheus.Counter
}

// Buckets, in seconds. Each list has a bound at the limit that somebody waits for or is alarmed by.
var (
	// From the stand-in's few milliseconds over a real GET and PATCH (0.25 s) and LABEL_STUDIO_DEADLINE (60 s) to an outage.
	syncBuckets = []float64{.002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600}
	// A real GET or PATCH takes 0.12 s, a search 1.6 s; the client gives up after 10 s.
	labelStudioBuckets = []float64{.005, .01, .025, .05, .1, .15, .25, .5, 1, 2, 5, 10}
	// The goal is 10 ms; Label Studio stops listening after 1 s.
	webhookBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}
	// A pass over what changed is a listing a project; one over everything reads a thousand tasks in a second or two.
	diffBuckets = []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}
	// Examples come from memory: anything above 10 ms is the network's or ours to look at.
	iclBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}
)

// New makes all metrics and registers them with reg. It panics where one of them is registered there already, as two sets
// in one registry are a mistake of the program.
func New(reg prometheus.Registerer) *Metrics {
	f := factory{reg}
	return &Metrics{
		Sync: counter2(f, "sync_total", "Turns that ended, by direction and outcome.",
			"direction", directions(), "outcome", outcomes()),
		SyncDuration: histogram1(f, "sync_duration_seconds", "From the trigger to both sides equal.", syncBuckets,
			"direction", directions()),
		OldestUnsynced: gauge1(f, "oldest_unsynced_seconds", "Age of the oldest change not carried over yet.",
			"direction", directions()),
		QueueKeys: gauge1(f, "queue_keys", "Keys in the queue, by state.", "state", states()),
		Triggers:  counter1(f, "triggers_total", "Keys made dirty, by what made them so.", "source", sources()),

		DriftKeys: gauge1(f, "diff_drift_keys", "Keys that the last diff pass found different, by class.",
			"class", Drifts()),
		OldestDrift: f.gauge("diff_oldest_drift_seconds", "Age of the oldest difference that is known and not settled."),
		DiffTasks:   f.gauge("diff_full_tasks_read", "Tasks that the full pass has read."),
		DiffLastSuccess: gauge1(f, "diff_last_success_timestamp_seconds", "When a diff pass last ended well.",
			"pass", passes()),
		DiffDuration: histogram1(f, "diff_duration_seconds", "Diff passes, however they ended.", diffBuckets, "pass", passes()),
		DiffBraked:   gauge1(f, "diff_braked", "1 while the mass-change brake holds a pass.", "pass", passes()),

		SlotRetainedWAL: f.gauge("slot_retained_wal_bytes", "WAL that the server keeps for our replication slot."),
		SlotLag:         f.gauge("slot_lag_bytes", "WAL between the server's end and what we confirmed."),
		SlotSafeWAL:     f.gauge("slot_safe_wal_bytes", "WAL that can be written before our slot is lost; +Inf: no limit."),
		SlotWALLimit:    f.gauge("slot_wal_limit_bytes", "WAL above which we give our slot up ourselves; +Inf: no limit."),
		DatabaseUp:      f.gauge("database_up", "1 while Aristotle's database answers."),

		LabelStudioRequests: counter2[Operation, Code](f, "label_studio_requests_total",
			"Requests to Label Studio, by operation and status (none: no answer).", "operation", nil, "code", nil),
		LabelStudioDuration: histogram1[Operation](f, "label_studio_request_duration_seconds",
			"Requests to Label Studio, body read.", labelStudioBuckets, "operation", nil),
		LabelStudioUp: f.gauge("label_studio_up", "1 while Label Studio answers with our token."),

		Webhooks: counter2(f, "webhooks_total", "Deliveries from Label Studio, by action and outcome.",
			"action", actions(), "outcome", webhookOutcomes()),
		WebhookDuration: f.histogram("webhook_duration_seconds", "Until a delivery was answered.", webhookBuckets),
		WebhooksMissed:  f.counter("webhooks_missed_total", "Changes that a pass found and no delivery had announced."),
		WebhooksBroken:  f.gauge("webhooks_broken", "Projects without a working webhook of ours."),
		WebhookRepairs:  f.counter("webhook_repairs_total", "Webhooks that were made or switched on again."),

		HTTPRequests: counter2[Listener, Code](f, "http_requests_total", "Requests, by server and status.", "listener", nil, "code", nil),
		TokensOK:     f.gauge("tokens_file_ok", "0 while the tokens file has an error and the tokens from before count."),

		ICLDuration: histogram2[Format, Code](f, "icl_request_duration_seconds", "Requests for examples.", iclBuckets,
			"format", "code"),

		ICLExamples:   gauge1(f, "icl_examples", "Gold ratings held in memory, by whether they can be served.", "state", heldExamples()),
		ICLIndexFresh: f.gauge("icl_index_fresh", "1 while examples are served from memory."),
		ICLIndexBytes: f.gauge("icl_index_bytes", "Memory that the examples take."),

		Leader: f.gauge("leader", "1 while this process runs the turns."),
		Panics: f.counter("panics_total", "Mistakes in the program that were caught."),
	}
}

// StandBy sets to 0 what only a leader knows: what it knew last is another one's to tell from here on.
func (m *Metrics) StandBy() {
	m.Leader.Set(0)
	m.WebhooksBroken.Set(0)
	m.OldestDrift.Set(0)
	for _, class := range Drifts() {
		m.DriftKeys.With(class).Set(0)
	}
	for _, pass := range passes() {
		m.DiffBraked.With(pass).Set(0)
	}
}

// Stream is what the reader of the change stream counts itself. It is asked at every scrape.
type Stream struct {
	// Connected tells whether it reads now; Reconnects is how often the connection was lost, SlotsMade how often there was
	// no slot to go on with, and everything had to be compared.
	Connected             func() bool
	Reconnects, SlotsMade func() int
}

// Register registers the metrics of the stream.
func (s Stream) Register(reg prometheus.Registerer) {
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Name: "cdc_connected", Help: "1 while this process reads the change stream.",
		}, func() float64 {
			if s.Connected() {
				return 1
			}
			return 0
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: namespace, Name: "cdc_reconnects_total", Help: "Times the replication connection was lost and begun again.",
		}, func() float64 { return float64(s.Reconnects()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: namespace, Name: "cdc_slots_made_total", Help: "Replication slots made, as there was none to go on with.",
		}, func() float64 { return float64(s.SlotsMade()) }),
	)
}

// BuildInfo registers reconciler_build_info, a constant 1 whose labels say what is running.
func BuildInfo(reg prometheus.Registerer, version, revision, goVersion string) {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: namespace + "_build_info", Help: "What is running; always 1.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": goVersion},
	})
	g.Set(1)
	reg.MustRegister(g)
}

// CodeOf is the label value of an HTTP status; 0 stands for a request without an answer.
func CodeOf(status int) Code {
	if status == 0 {
		return "none"
	}
	return Code(strconv.Itoa(status))
}
