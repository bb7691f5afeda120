package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler"
)

// doctorLimit bounds the whole of doctor. Each server that does not answer takes some ten seconds of it.
const doctorLimit = 2 * time.Minute

// DoctorCmd is `reconciler doctor`: looks at everything that the daemon stands on, and says what is wrong, why that matters, and the
// command that mends it. It writes nothing that lasts.
type DoctorCmd struct {
	JSON bool `help:"Print {\"version\": 1, \"checks\": [{\"check\", \"fact\", \"findings\": [{\"severity\", \"what\", \"why\", \"mend\"}], \"after\", \"error\"}]}."`
}

// Help is the rest of `reconciler doctor --help`.
func (c *DoctorCmd) Help() string {
	return "The exit status is 0 where all is well, notes apart, 1 where something has to be mended, and 2 where a check could not look."
}

// Run examines and prints. Its error carries the exit status.
func (c *DoctorCmd) Run(ctx context.Context, cfg *Config, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, doctorLimit)
	defer cancel()
	return c.doctor(ctx, cfg, log, os.Stdout)
}

func (c *DoctorCmd) doctor(ctx context.Context, cfg *Config, log *slog.Logger, out io.Writer) error {
	p, err := patient(cfg, log, nil)
	if err != nil {
		return withStatus{err, 2}
	}
	if p.Studio != nil {
		defer p.Studio.CloseIdleConnections()
	}
	ups := reconciler.Examine(ctx, p)
	write := writeCheckups
	if c.JSON {
		write = writeCheckupsJSON
	}
	if err := write(out, ups); err != nil {
		return withStatus{err, 2}
	}
	return verdictOf(ups)
}

// patient is what the settings lead to. Without a token nobody looks at Label Studio; observe is told of each request to it.
func patient(cfg *Config, log *slog.Logger, observe func(labelstudio.Request)) (*reconciler.Patient, error) {
	p := &reconciler.Patient{
		Database: string(cfg.AristotleDatabaseURL), Replication: string(cfg.AristotleReplicationURL),
		OneURL: cfg.AristotleReplicationURL == cfg.AristotleDatabaseURL,
		Slot:   string(cfg.Slot), Publication: string(cfg.Publication), Schema: string(cfg.Schema),
		StudioDatabase: string(cfg.LabelStudioDatabaseURL),
		Projects:       cfg.LabelStudioProjects, Log: log,
		PublicURL: string(cfg.PublicURL), Secret: string(cfg.WebhookSecret), Listen: string(cfg.Listen),
	}
	if cfg.DryRun {
		p.PublicURL = ""
	}
	if cfg.LabelStudioAPIKey == "" {
		return p, nil
	}
	studio, err := labelstudio.New(labelstudio.Options{URL: string(cfg.LabelStudioURL), Token: string(cfg.LabelStudioAPIKey), Observe: observe})
	p.Studio = studio
	return p, err
}

// verdictOf is the exit status: what could not be looked at counts most, since something may be behind it.
func verdictOf(ups []reconciler.Checkup) error {
	mend, blind := 0, 0
	for _, up := range ups {
		if up.Err != nil {
			blind++
		}
		for _, f := range up.Findings {
			if f.Severity != reconciler.Note {
				mend++
			}
		}
	}
	switch {
	case blind > 0:
		return withStatus{fmt.Errorf("%s could not look, and %s to be mended", count(blind, "check", "checks"), count(mend, "thing has", "things have")), 2}
	case mend > 0:
		return withStatus{fmt.Errorf("%s to be mended", count(mend, "thing has", "things have")), 1}
	}
	return nil
}

// writeCheckups is the form for people: a line for each check, and below it what was found.
func writeCheckups(out io.Writer, ups []reconciler.Checkup) error {
	var b strings.Builder
	for _, up := range ups {
		fmt.Fprintf(&b, "%-9s %s", word(up), up.Check)
		switch {
		case up.After != "":
			fmt.Fprintf(&b, ": left out, as %q could not be reached", up.After)
		case up.Err != nil:
			fmt.Fprintf(&b, ": could not look: %s", plain(up.Err))
		case up.Fact != "":
			fmt.Fprintf(&b, ": %s", up.Fact)
		}
		b.WriteString("\n")
		for _, f := range up.Findings {
			fmt.Fprintf(&b, "  %s: %s.\n    why:  %s\n    mend: %s\n", f.Severity, f.What, f.Why, f.Mend)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// word is the worst of a check.
func word(up reconciler.Checkup) string {
	worst := "ok"
	if up.After != "" || up.Err != nil {
		worst = "?"
	}
	for _, f := range up.Findings {
		switch {
		case f.Severity == reconciler.Fatal:
			return "FATAL"
		case f.Severity == reconciler.Warning:
			worst = "WARNING"
		}
	}
	return worst
}

func writeCheckupsJSON(out io.Writer, ups []reconciler.Checkup) error {
	type checkup struct {
		reconciler.Checkup
		Error string `json:"error,omitempty"`
	}
	all := make([]checkup, len(ups))
	for i, up := range ups {
		all[i].Checkup = up
		if up.Err != nil {
			all[i].Error = plain(up.Err)
		}
	}
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(map[string]any{"version": 1, "checks": all})
}
