package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/story"
)

// StatusCmd is `reconciler status`. It asks Aristotle's database, which knows what the daemon knows; Label Studio, where it has a
// token; and the daemon of this machine, where one answers.
type StatusCmd struct {
	Key  string `arg:"" optional:"" help:"A conquest's id: tell its story."`
	JSON bool   `name:"json" help:"Print JSON."`
}

const (
	storyLength = 200             // records of the audit that a story is told from
	stuckShown  = 20              // keys that are named
	askLimit    = 5 * time.Second // for what may be away
)

// Run looks, and prints.
func (c *StatusCmd) Run(ctx context.Context, cfg *Config) error {
	return withLedger(ctx, cfg, func(ctx context.Context, l *ledger.Ledger) error {
		if c.Key != "" {
			return c.tell(ctx, l, os.Stdout)
		}
		s, err := statusOf(ctx, cfg, l)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(os.Stdout, s)
		}
		return s.print(os.Stdout)
	})
}

// tell prints the story of one key.
func (c *StatusCmd) tell(ctx context.Context, l *ledger.Ledger, out io.Writer) error {
	h, err := l.History(ctx, c.Key, storyLength)
	if err != nil {
		return err
	}
	s := story.Tell(h)
	if c.JSON {
		return printJSON(out, s)
	}
	var p printer
	p.printf("%s\n", s.Key)
	for _, sentence := range s.Now {
		p.printf("  %s\n", sentence)
	}
	if s.Cut {
		p.printf("\n  … what was before is left out\n")
	} else if len(s.Story) > 0 {
		p.printf("\n")
	}
	for _, e := range s.Story {
		p.printf("  %s  %-8s  %s\n", story.When(e.At), e.Source, e.Text)
	}
	return p.to(out)
}

// status is what `reconciler status --json` prints.
type status struct {
	Version int             `json:"version"`
	Leader  *ledger.Leader  `json:"leader"` // nil: no daemon leads
	Daemon  daemonStatus    `json:"daemon"`
	Queue   queueStatus     `json:"queue"`
	Stuck   []ledger.Stuck  `json:"stuck"` // those that wait longest
	Oldest  oldestStatus    `json:"oldest_unsynced_seconds"`
	Slot    slotStatus      `json:"slot"`
	Passes  []projectStatus `json:"projects"`
	Open    []passStatus    `json:"passes"` // full passes that are wanted or under way, and all that were braked
	Drift   []driftStatus   `json:"drift"`  // what passes have found and no turn has settled
	Studio  studioStatus    `json:"label_studio"`
}

type queueStatus struct {
	Ready   int `json:"ready"`
	Waiting int `json:"waiting"`
	Running int `json:"running"`
	Stuck   int `json:"stuck"`
	Held    int `json:"held"`
}

type oldestStatus struct {
	ToStudio    float64 `json:"to_label_studio"`
	ToAristotle float64 `json:"to_aristotle"`
}

type slotStatus struct {
	Name     string   `json:"name"`
	Status   string   `json:"wal_status"` // "" where there is none
	Active   bool     `json:"active"`
	Retained float64  `json:"retained_wal_bytes"`
	Lag      float64  `json:"lag_bytes"`
	Safe     *float64 `json:"safe_wal_bytes"` // nil: no limit
}

// projectStatus is how far the passes have got in a project.
type projectStatus struct {
	Project int64      `json:"project"`
	Full    *time.Time `json:"full_pass_at"`  // when the last full pass began that was finished
	Changes *time.Time `json:"changes_until"` // the newest change that was seen, by Label Studio's clock
}

// passStatus is a pass that is not over.
type passStatus struct {
	Pass  int64  `json:"pass"`
	Kind  string `json:"kind"`
	State string `json:"state"`
	Why   string `json:"why"`
	Tasks int64  `json:"tasks_read"`
	Brake string `json:"brake"` // why it was braked
	Plan  string `json:"plan"`
}

type driftStatus struct {
	Class  string    `json:"class"`
	Keys   int       `json:"keys"`
	Oldest time.Time `json:"oldest"`
}

// passesOf fills in what the passes are doing and have found.
func (s *status) passesOf(ctx context.Context, l *ledger.Ledger) error {
	open, err := l.OpenPasses(ctx)
	if err != nil {
		return err
	}
	for _, o := range open {
		o := passStatus{Pass: o.ID, Kind: o.Kind, State: string(o.State), Why: o.Why, Tasks: o.Tasks, Brake: deref(o.Brake), Plan: deref(o.Plan)}
		s.Open = append(s.Open, o)
	}
	drift, err := l.Drift(ctx)
	for _, d := range drift {
		s.Drift = append(s.Drift, driftStatus{d.Class, d.Keys, d.Oldest.UTC()})
	}
	return err
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (o passStatus) String() string {
	if o.Brake != "" {
		return fmt.Sprintf("%s pass %d is BRAKED: %s; if that is right: reconciler diff --apply --plan %s", o.Kind, o.Pass, o.Brake, o.Plan)
	}
	return fmt.Sprintf("%s pass %d is %s, %d tasks read (%s)", o.Kind, o.Pass, o.State, o.Tasks, o.Why)
}

// daemonStatus is what the daemon of this machine says of itself.
type daemonStatus struct {
	URL     string   `json:"url"`
	Answers bool     `json:"answers"`
	Ready   bool     `json:"ready"`
	Leader  bool     `json:"leader"`
	Reasons []string `json:"reasons"`
}

type studioStatus struct {
	URL   string `json:"url"`
	Asked bool   `json:"asked"` // false: there is no token to ask with
	User  string `json:"user"`  // whose token it is; "" where it does not answer
	Error string `json:"error"`
}

// statusOf looks at everything. What may be away is no error.
func statusOf(ctx context.Context, cfg *Config, l *ledger.Ledger) (*status, error) {
	s := &status{Version: 1, Daemon: askDaemon(ctx, cfg), Studio: askStudio(ctx, cfg), Stuck: []ledger.Stuck{}, Passes: []projectStatus{}, Open: []passStatus{}, Drift: []driftStatus{}}
	var err error
	if s.Leader, err = l.Leader(ctx); err != nil {
		return nil, err
	}
	stats, err := l.Stats(ctx)
	if err != nil {
		return nil, err
	}
	s.Queue = queueStatus{stats.Ready, stats.Waiting, stats.Running, stats.Stuck, stats.Held}
	s.Oldest = oldestStatus{stats.OldestToStudio, stats.OldestToAristotle}
	if stuck, err := l.Stuck(ctx, stuckShown); err != nil {
		return nil, err
	} else if stuck != nil {
		s.Stuck = stuck
	}
	slot, err := l.Slot(ctx, string(cfg.Slot))
	if err != nil {
		return nil, err
	}
	s.Slot = slotStatus{Name: string(cfg.Slot), Status: slot.Status, Active: slot.Active, Retained: slot.Retained, Lag: slot.Lag}
	if !math.IsInf(slot.Safe, 1) {
		s.Slot.Safe = &slot.Safe
	}
	projects, err := l.Projects(ctx)
	if err != nil {
		return nil, err
	}
	for id, p := range projects {
		s.Passes = append(s.Passes, projectStatus{id, p.FullAt, p.Watermark})
	}
	slices.SortFunc(s.Passes, func(a, b projectStatus) int { return cmp.Compare(a.Project, b.Project) })
	return s, s.passesOf(ctx, l)
}

// askDaemon asks the daemon of this machine, if there is one, whether it does its job.
func askDaemon(ctx context.Context, cfg *Config) daemonStatus {
	d := daemonStatus{URL: "http://" + local(cfg.MetricsListen), Reasons: []string{}}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.URL+"/readyz", nil)
	if err != nil {
		return d
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return d
	}
	defer resp.Body.Close()
	d.Answers = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&d) == nil
	return d
}

// askStudio asks Label Studio who we are.
func askStudio(ctx context.Context, cfg *Config) studioStatus {
	s := studioStatus{URL: string(cfg.LabelStudioURL)}
	if cfg.LabelStudioAPIKey == "" {
		return s
	}
	s.Asked = true
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	client, err := labelstudio.New(labelstudio.Options{URL: s.URL, Token: string(cfg.LabelStudioAPIKey)})
	if err == nil {
		var user labelstudio.User
		user, err = client.Whoami(ctx)
		s.User = user.Email
	}
	if err != nil {
		s.Error = err.Error()
	}
	return s
}

func (s *status) print(out io.Writer) error {
	var p printer
	line := func(name, format string, args ...any) { p.printf("%-14s"+format+"\n", append([]any{name}, args...)...) }
	if s.Leader == nil {
		line("leader", "none: no daemon runs, or none can lead")
	} else {
		line("leader", "%s", s.Leader)
	}
	line("daemon here", "%s", s.Daemon)
	line("queue", "%d ready, %d waiting, %d running, %d stuck; %d held", s.Queue.Ready, s.Queue.Waiting, s.Queue.Running, s.Queue.Stuck, s.Queue.Held)
	line("oldest", "%s to Label Studio, %s to Aristotle", ago(s.Oldest.ToStudio), ago(s.Oldest.ToAristotle))
	line("slot", "%s", s.Slot)
	for _, project := range s.Passes {
		line("passes", "%s", project)
	}
	if len(s.Passes) == 0 {
		line("passes", "none has finished yet")
	}
	for _, o := range s.Open {
		line("pass", "%s", o)
	}
	for _, d := range s.Drift {
		line("drift", "%s %s, the oldest since %s", count(d.Keys, "key", "keys"), d.Class, story.When(d.Oldest))
	}
	line("Label Studio", "%s", s.Studio)
	for _, k := range s.Stuck {
		text := "unknown"
		if k.Error != nil {
			text = *k.Error
		}
		line("stuck", "%s since %s, %d failures, next try %s: %s", k.Key, story.When(k.Since), k.Attempts, story.When(k.Next), text)
	}
	if n := s.Queue.Stuck - len(s.Stuck); n > 0 {
		line("", "and %d more", n)
	}
	if s.Queue.Held > 0 {
		line("held", "`reconciler held list` shows what waits for a person")
	}
	return p.to(out)
}

func ago(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}

func (d daemonStatus) String() string {
	switch {
	case !d.Answers:
		return d.URL + " does not answer"
	case !d.Ready:
		return fmt.Sprintf("%s is not ready: %v", d.URL, d.Reasons)
	case d.Leader:
		return d.URL + " is ready and leads"
	default:
		return d.URL + " is ready and stands by"
	}
}

func (s slotStatus) String() string {
	if s.Status == "" {
		return s.Name + " is not there: the daemon makes it when it runs"
	}
	reader := "nobody reads it"
	if s.Active {
		reader = "it is read"
	}
	limit := ""
	if s.Safe != nil {
		limit = fmt.Sprintf(", %s until it is lost", story.Size(*s.Safe))
	}
	return fmt.Sprintf("%s is %s, %s; %s of WAL kept for it, %s not confirmed%s", s.Name, s.Status, reader, story.Size(s.Retained), story.Size(s.Lag), limit)
}

func (p projectStatus) String() string {
	full, changes := "never finished", "not yet"
	if p.Full != nil {
		full = "begun " + story.When(*p.Full)
	}
	if p.Changes != nil {
		changes = "until " + story.When(*p.Changes)
	}
	return fmt.Sprintf("project %d: full pass %s, changes seen %s", p.Project, full, changes)
}

func (s studioStatus) String() string {
	switch {
	case !s.Asked:
		return s.URL + " was not asked: LABEL_STUDIO_API_KEY is not set"
	case s.Error != "":
		return s.URL + " cannot be used: " + s.Error
	default:
		return s.URL + " answers, as to " + s.User
	}
}
