package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/story"
)

// DiffCmd is `reconciler diff`: one look at both sides as they are now. It writes nothing unless --apply, and then only that
// keys are to be looked at: the daemon decides. It works before `setup` and with the daemon down.
type DiffCmd struct {
	JSON  bool   `help:"Print {\"version\": 1, \"counts\": {class: n}, \"keys\": [{\"key\", \"class\", \"row\", \"tasks\", \"decision\", \"reason\", \"since\"}], \"noted\": [{\"key\", \"what\"}], \"plan\", \"brake\", \"working\"}."`
	Apply bool   `help:"Make dirty what is shown: the daemon then acts on it, as the column decision says."`
	Plan  string `placeholder:"HASH" help:"With --apply: your word that exactly the plan with this hash is right, also where the brakes would stop it. A plan that the daemon was braked at is released."`
	Key   string `placeholder:"KEY" help:"Look at this conquest alone."`
}

// Help is the rest of `reconciler diff --help`.
func (c *DiffCmd) Help() string {
	return "The exit status is 0 where both sides are equal, 1 where they differ, and 2 where it could not look. Keys that wait for a person count as " +
		"different; what is noted does not, nor what the daemon is working on."
}

// Run looks and prints. Its error carries the exit status.
func (c *DiffCmd) Run(ctx context.Context, cfg *Config, log *slog.Logger) error {
	return c.diff(ctx, cfg, log, os.Stdout)
}

func (c *DiffCmd) diff(ctx context.Context, cfg *Config, log *slog.Logger, out io.Writer) error {
	if c.Plan != "" && !c.Apply {
		return withStatus{errors.New("--plan goes with --apply"), 2}
	}
	d, done, err := openDiffer(ctx, cfg, log, !c.Apply, new(passwords))
	if err != nil {
		return withStatus{err, 2}
	}
	defer done()
	var r *reconciler.Report
	if c.Key != "" {
		r, err = d.Keys(ctx, c.Key)
	} else {
		r, err = d.All(ctx)
	}
	if err != nil {
		return withStatus{err, 2}
	}
	write := writeReport
	if c.JSON {
		write = func(out io.Writer, r *reconciler.Report) error { return printJSON(out, r) }
	}
	if err := write(out, r); err != nil {
		return withStatus{err, 2}
	}
	if c.Apply {
		return c.apply(ctx, d, r, cfg.LocalUser)
	}
	if len(r.Keys) > 0 {
		return withStatus{fmt.Errorf("%s", count(len(r.Keys), "key differs", "keys differ")), 1}
	}
	return nil
}

// apply makes dirty what was shown. A plan that the daemon waits with is released, so that it goes on by itself.
func (c *DiffCmd) apply(ctx context.Context, d *reconciler.Differ, r *reconciler.Report, by string) error {
	released := 0
	if c.Plan != "" {
		n, err := d.Ledger.Release(ctx, c.Plan, by)
		if err != nil && !errors.Is(err, ledger.ErrNoPlan) {
			return withStatus{err, 2}
		}
		released = n
	}
	if len(r.Keys) == 0 && released == 0 {
		return nil
	}
	n, err := 0, error(nil)
	if released == 0 || r.Plan == c.Plan {
		n, err = d.Apply(ctx, r, c.Plan)
	}
	var braked *reconciler.BrakedError
	switch {
	case errors.As(err, &braked) && braked.Plan == "": // what differs waits for a person, key by key
		return withStatus{err, 1}
	case errors.As(err, &braked):
		return withStatus{hinted{err, fmt.Sprintf("If it is right: reconciler diff --apply --plan %s", braked.Plan)}, 1}
	case err != nil:
		return withStatus{err, 2}
	}
	return withStatus{fmt.Errorf("%s; the daemon acts on it from now on", count(max(n, released), "key was made dirty", "keys were made dirty")), 1}
}

// openDiffer opens what a look needs, with the passwords of the day. readOnly: not even by mistake is anything written.
func openDiffer(ctx context.Context, cfg *Config, log *slog.Logger, readOnly bool, p *passwords) (d *reconciler.Differ, done func(), err error) {
	how := []func(*pgxpool.Config){ofTheDay(&p.ordinary)}
	if readOnly {
		how = append(how, ledger.ReadOnly)
	}
	l, err := ledger.Open(ctx, string(cfg.AristotleDatabaseURL), string(cfg.Schema), how...)
	if err != nil {
		return nil, nil, hinted{err, fmt.Sprintf("Check ARISTOTLE_DATABASE_URL (%v).", cfg.AristotleDatabaseURL)}
	}
	studio, err := labelstudio.New(labelstudio.Options{URL: string(cfg.LabelStudioURL), Token: string(cfg.LabelStudioAPIKey)})
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	db, err := openStudioDatabase(ctx, cfg, ofTheDay(&p.studio))
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	done = func() {
		studio.CloseIdleConnections()
		if db != nil {
			db.Close()
		}
		l.Close()
	}
	return &reconciler.Differ{Ledger: l, Studio: studio, Database: db, Projects: ledger.Projects(cfg.LabelStudioProjects), Initial: string(cfg.Initial),
		GroundTruth: cfg.GroundTruth, Brakes: brakes(cfg), Page: int(cfg.DiffPage), Pause: cfg.DiffPause, Log: log}, done, nil
}

func brakes(cfg *Config) reconciler.Brakes {
	return reconciler.Brakes{Count: int(cfg.BrakeCount), Share: float64(cfg.BrakeShare)}
}

// writeReport is the report as a person reads it: counts first.
func writeReport(out io.Writer, r *reconciler.Report) error {
	var p printer
	if len(r.Keys) == 0 {
		p.printf("Both sides are equal.\n")
	} else {
		p.printf("%s:\n", count(len(r.Keys), "key differs", "keys differ"))
		for _, class := range metrics.Drifts() {
			if n := r.Counts[string(class)]; n > 0 {
				p.printf("  %6d %s\n", n, class)
			}
		}
	}
	for _, k := range r.Keys {
		p.printf("\n%s  %s, since %s\n", k.Key, k.Class, story.When(k.Since))
		p.printf("  Aristotle:    %s\n", rowText(k.Row))
		for _, t := range k.Tasks {
			p.printf("  Label Studio: %s\n", taskText(t))
		}
		p.printf("  decision:     %s (%s)\n", k.Decision, k.Reason)
	}
	if r.Working > 0 {
		p.printf("\n%s being worked on right now: not counted.\n", count(r.Working, "key is", "keys are"))
	}
	writeNoted(&p, r.Noted)
	if r.Plan != "" {
		p.printf("\nplan %s\n", r.Plan)
	}
	if r.Brake != "" {
		p.printf("The brakes would stop a pass: %s.\n", r.Brake)
	}
	return p.to(out)
}

// writeNoted counts what is noted, and names a few of each.
func writeNoted(p *printer, noted []reconciler.Noted) {
	const few = 5
	by := map[string][]string{}
	var kinds []string
	for _, n := range noted {
		if by[n.What] == nil {
			kinds = append(kinds, n.What)
		}
		by[n.What] = append(by[n.What], n.Key)
	}
	slices.Sort(kinds)
	for _, what := range kinds {
		keys, more := by[what], ""
		if len(keys) > few {
			keys, more = keys[:few], ", …"
		}
		p.printf("\nnoted, no difference: %d %s: %s%s\n", len(by[what]), what, strings.Join(keys, ", "), more)
	}
}

func rowText(r *reconciler.DifferentRow) string {
	if r == nil {
		return "no such conquest"
	}
	text := "no result"
	if r.Result != nil {
		text = *r.Result
	}
	if r.EvaluatedBy != nil {
		text += " by " + *r.EvaluatedBy
	}
	if r.EvaluatedAt != nil {
		text += " at " + story.When(*r.EvaluatedAt)
	}
	if r.UpdatedAt != nil {
		text += ", changed " + story.When(*r.UpdatedAt)
	}
	return text
}

func taskText(t reconciler.DifferentTask) string {
	text := fmt.Sprintf("task %d of project %d: no star", t.Task, t.Project)
	if t.Star {
		text = fmt.Sprintf("task %d of project %d: star", t.Task, t.Project)
	}
	for _, a := range t.Annotations {
		text += fmt.Sprintf(", annotation %d says star", a.ID)
		if a.By != "" {
			text += " (" + a.By + ")"
		}
	}
	return text + ", changed " + story.When(t.UpdatedAt)
}
