package metrics

// The closed lists of label values. They are functions, not variables, so that nothing can change them.

// Direction says to which side a turn carried a change.
type Direction string

// The two directions.
const (
	ToLabelStudio Direction = "to_label_studio"
	ToAristotle   Direction = "to_aristotle"
)

func directions() []Direction { return []Direction{ToLabelStudio, ToAristotle} }

// Outcome says how a turn ended.
type Outcome string

// The ends of a turn. A conflict is two unseen edits that disagree, or a first contact that was held.
const (
	Success  Outcome = "success"
	Failure  Outcome = "failure"
	Conflict Outcome = "conflict"
)

func outcomes() []Outcome { return []Outcome{Success, Failure, Conflict} }

// State is the state of a key in the queue.
type State string

// The states of a key in the queue.
const (
	Ready   State = "ready"
	Waiting State = "waiting"
	Running State = "running"
	Stuck   State = "stuck"
	Held    State = "held"
)

func states() []State { return []State{Ready, Waiting, Running, Stuck, Held} }

// Source is what made a key dirty.
type Source string

// The sources of dirty keys.
const (
	WAL      Source = "wal"
	Webhook  Source = "webhook"
	Diff     Source = "diff"
	API      Source = "api"
	Curation Source = "curation"
)

func sources() []Source { return []Source{WAL, Webhook, Diff, API, Curation} }

// Drift is the class of a difference that a pass found.
type Drift string

// The classes of drift.
const (
	StarMissing    Drift = "star_missing"
	VictoryMissing Drift = "victory_missing"
	RatingWrong    Drift = "rating_wrong"
	LinkStale      Drift = "link_stale"
	DriftHeld      Drift = "held"
)

// Drifts are all of them.
func Drifts() []Drift { return []Drift{StarMissing, VictoryMissing, RatingWrong, LinkStale, DriftHeld} }

// Pass is a kind of diff pass.
type Pass string

// The kinds of diff pass.
const (
	Incremental Pass = "incremental"
	Full        Pass = "full"
)

func passes() []Pass { return []Pass{Incremental, Full} }

// Action is the action of a webhook delivery: one of Label Studio's names, or [OtherAction].
type Action string

// OtherAction stands for every action that Label Studio 1.23 does not have. What a stranger sends must not become a label.
const OtherAction Action = "other"

func actions() []Action {
	return []Action{
		"PROJECT_CREATED", "PROJECT_UPDATED", "PROJECT_DELETED",
		"TASKS_CREATED", "TASKS_DELETED",
		"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED",
		"LABEL_LINK_CREATED", "LABEL_LINK_UPDATED", "LABEL_LINK_DELETED",
		OtherAction,
	}
}

// ActionOf is the label value for the action that a delivery names.
func ActionOf(name string) Action {
	for _, a := range actions() {
		if string(a) == name {
			return a
		}
	}
	return OtherAction
}

// WebhookOutcome is what became of a delivery.
type WebhookOutcome string

// What becomes of a delivery: its keys are in the queue; it does not concern us; it was not right (secret, body); we could
// not keep it.
const (
	Accepted WebhookOutcome = "accepted"
	Ignored  WebhookOutcome = "ignored"
	Refused  WebhookOutcome = "refused"
	Failed   WebhookOutcome = "failed"
)

func webhookOutcomes() []WebhookOutcome {
	return []WebhookOutcome{Accepted, Ignored, Refused, Failed}
}

// Listener is one of the servers that people and programs call: port 4080 and the curation app.
type Listener string

// The servers.
const (
	ListenAPI      Listener = "api"
	ListenCuration Listener = "curation"
)

// Operation names one method of the Label Studio client. That list is the client's; it is closed, too.
type Operation string

// Code is an HTTP status in decimal, or "none" without an answer: see [CodeOf].
type Code string

// Format is a format of in-context-learning examples.
type Format string

// The formats of examples, and what stands for any other text that a caller asks for.
const (
	ChatML      Format = "chatml"
	Alpaca      Format = "alpaca"
	OpenAI      Format = "openai"
	OtherFormat Format = "other"
)

// FormatOf is the label value for the format that a request names.
func FormatOf(name string) Format {
	switch f := Format(name); f {
	case ChatML, Alpaca, OpenAI:
		return f
	}
	return OtherFormat
}

// HeldExample is what becomes of a gold rating that is held in memory.
type HeldExample string

// A rating is served, or left out as it has no usable text.
const (
	Served  HeldExample = "served"
	LeftOut HeldExample = "left_out"
)

func heldExamples() []HeldExample { return []HeldExample{Served, LeftOut} }
