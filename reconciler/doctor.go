package reconciler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/cdc"
	"github.com/aristotle/reconciler/labelstudio"
)

// Severity says what a finding asks for.
type Severity string

// The severities.
const (
	Fatal   Severity = "fatal"   // the daemon cannot work like this: `run` does not start
	Warning Severity = "warning" // it works, and something is lost, slow or in danger
	Note    Severity = "note"    // worth knowing; nothing has to be done
)

// Finding is one problem of the system, in words that need no others.
type Finding struct {
	Severity Severity `json:"severity"`
	What     string   `json:"what"`
	Why      string   `json:"why"`
	Mend     string   `json:"mend"` // the exact command, or where to do it
}

// Checkup is how one check ended.
type Checkup struct {
	Check    string    `json:"check"`
	Fact     string    `json:"fact,omitempty"` // what was found, in a line, also where all is well
	Findings []Finding `json:"findings"`
	After    string    `json:"after,omitempty"` // the check without which this one was left out
	Err      error     `json:"-"`               // why it could not look
}

// Patient is what a doctor looks at. Studio may be nil where there is no token: then Label Studio is left out.
type Patient struct {
	Database    string // ARISTOTLE_DATABASE_URL
	Replication string // ARISTOTLE_REPLICATION_URL
	OneURL      bool   // the second was not set, so it is the first

	Slot, Publication, Schema string

	StudioDatabase string // LABEL_STUDIO_DATABASE_URL; empty: none

	Studio   *labelstudio.Client
	Projects []int64 // LABEL_STUDIO_PROJECTS, empty for all

	PublicURL string // RECONCILER_PUBLIC_URL; empty: the way of the webhooks is not tried, as that writes in Label Studio
	Secret    string // RECONCILER_WEBHOOK_SECRET
	Listen    string // RECONCILER_LISTEN

	Log *slog.Logger
}

// check is one thing to look at. What it finds are problems of the system; its error means that it could not look.
type check struct {
	name  string
	after string // a check that must have reached what this one needs
	look  func(*visit, context.Context) (fact string, findings []Finding, err error)
	slow  bool // not for every start of the daemon
}

// checks are all of them, in the order in which one rests on another.
func checks() []check {
	return []check{
		{name: "database", look: (*visit).database},
		{name: "pooler", after: "database", look: (*visit).pooler},
		{name: "rights", after: "database", look: (*visit).rights},
		{name: "schema", after: "database", look: (*visit).schema},
		{name: "brakes", after: "database", look: (*visit).brakes, slow: true}, // a daemon that starts tells of them itself
		{name: "replication", look: (*visit).replication},
		{name: "publication", after: "database", look: (*visit).publication},
		{name: "slot", after: "database", look: (*visit).slot},
		{name: "new slot", after: "replication", look: (*visit).newSlot, slow: true},
		{name: "failover", after: "database", look: (*visit).failover, slow: true},
		{name: "disk", after: "database", look: (*visit).disk},
		{name: "label studio", look: (*visit).labelStudio},
		{name: "projects", after: "label studio", look: (*visit).projects},
		{name: "label studio database", look: (*visit).studioDatabase, slow: true}, // a start looks by opening it
		{name: "webhooks", after: "projects", look: (*visit).webhooks, slow: true},
		{name: "clocks", after: "database", look: (*visit).clocks},
	}
}

// visit is one examination: the patient, and the connections that it took.
type visit struct {
	*Patient
	db      *pgx.Conn // as the ordinary role
	stream  *pgx.Conn // as the role with REPLICATION, for queries
	synced  []labelstudio.Project
	reached map[string]bool
}

// checkLimit is for one check: one server that hangs keeps no other from being looked at.
const checkLimit = 15 * time.Second

// Examine makes all checks, one after the other, and returns how each ended. It changes nothing that lasts.
func Examine(ctx context.Context, p *Patient) []Checkup { return examine(ctx, p, checks()) }

// ExamineStart makes those that take no longer than a start of the daemon may.
func ExamineStart(ctx context.Context, p *Patient) []Checkup {
	return examine(ctx, p, slices.DeleteFunc(checks(), func(c check) bool { return c.slow }))
}

func examine(ctx context.Context, p *Patient, all []check) []Checkup {
	v := &visit{Patient: p, reached: map[string]bool{}}
	defer v.leave(context.WithoutCancel(ctx))
	var ups []Checkup
	for _, c := range all {
		up := Checkup{Check: c.name, Findings: []Finding{}}
		if c.after != "" && !v.reached[c.after] {
			up.After = c.after
		} else {
			var found []Finding
			limited, cancel := context.WithTimeout(ctx, checkLimit)
			up.Fact, found, up.Err = c.look(v, limited)
			cancel()
			up.Findings = append(up.Findings, found...)
		}
		ups = append(ups, up)
	}
	return ups
}

// reach notes that what a check connects to was reached.
func (v *visit) reach(name string) { v.reached[name] = true }

func (v *visit) leave(ctx context.Context) {
	for _, c := range []*pgx.Conn{v.db, v.stream} {
		if c != nil {
			_ = c.Close(ctx) // it was only looked at
		}
	}
}

// findingOf makes a finding of what the stream's own checks say is for a person to mend, else returns the error.
func findingOf(err error, why string) ([]Finding, error) {
	if e, ok := cdc.Mendable(err); ok {
		return []Finding{{Fatal, fmt.Sprintf("%s: %v", e.Op, e.Err), why, e.Hint}}, nil
	}
	return nil, err
}

// Fatalities is what keeps the daemon from starting, as one error: every fatal finding, and that nobody answers as the database. What else
// could not be looked at, such as tables that a migration holds, or a Label Studio that is away, is waited for.
func Fatalities(ups []Checkup) error {
	var all []error
	for _, up := range ups {
		for _, f := range up.Findings {
			if f.Severity == Fatal {
				all = append(all, fmt.Errorf("%s. %s", f.What, f.Mend))
			}
		}
		if up.Err != nil && up.Check == "database" {
			all = append(all, fmt.Errorf("look at the %s: %w", up.Check, up.Err))
		}
	}
	return errors.Join(all...)
}
