package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/story"
)

// HeldCmd is `reconciler held`: the keys where the sides differed at first contact and neither may win. It talks to the database
// alone, so it works with the daemon down; the tasks follow with the daemon's next turn.
type HeldCmd struct {
	List   HeldListCmd   `cmd:"" default:"withargs" help:"Both sides of every key that waits."`
	Settle HeldSettleCmd `cmd:"" help:"Say what a key is. It counts as your edit of the conquest, under RECONCILER_LOCAL_USER."`
}

// HeldListCmd is `reconciler held list`.
type HeldListCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// HeldSettleCmd is `reconciler held settle`.
type HeldSettleCmd struct {
	Key     string `arg:"" help:"The conquest's id."`
	Verdict string `arg:"" enum:"victory,not-victory" help:"victory: the conquest becomes VICTORY and its tasks are starred. not-victory: a VICTORY goes back to what it was before, and the tasks lose the star."`
}

// queryLimit bounds a command that looks at the database, or writes one row of it.
const queryLimit = 30 * time.Second

// heldKey is a key of `held list --json`.
type heldKey struct {
	Key   string          `json:"key"`
	Since time.Time       `json:"since"`
	Row   *aristotle.Face `json:"row"`
	Tasks []story.Task    `json:"tasks"` // all of them; the held ones say so
}

// Run lists.
func (c *HeldListCmd) Run(ctx context.Context, cfg *Config) error {
	return withLedger(ctx, cfg, func(ctx context.Context, l *ledger.Ledger) error { return c.list(ctx, l, os.Stdout) })
}

func (c *HeldListCmd) list(ctx context.Context, l *ledger.Ledger, out io.Writer) error {
	views, err := l.Held(ctx)
	if err != nil {
		return err
	}
	keys := []heldKey{}
	for _, s := range views {
		keys = append(keys, heldOf(s))
	}
	if c.JSON {
		return printJSON(out, map[string]any{"version": 1, "held": keys})
	}
	if len(keys) == 0 {
		_, err := fmt.Fprintln(out, "Nothing waits for a person.")
		return err
	}
	var p printer
	for _, k := range keys {
		p.printf("%s, held since %s\n", k.Key, story.When(k.Since))
		if k.Row != nil && k.Row.Title != nil {
			p.printf("  %q\n", *k.Row.Title)
		}
		p.printf("  Aristotle:    %s\n", story.Row(k.Row))
		for _, t := range k.Tasks {
			p.printf("  Label Studio: %s\n", t)
		}
	}
	p.printf("\n%s. Settle each by `reconciler held settle KEY victory` or `reconciler held settle KEY not-victory`.\n", count(len(keys), "key waits", "keys wait"))
	return p.to(out)
}

func heldOf(s ledger.View) heldKey {
	k := heldKey{Key: s.Key, Row: s.Row, Tasks: story.Tasks(s.Edges)}
	for _, t := range k.Tasks {
		if t.Held != nil && (k.Since.IsZero() || t.Held.Since.Before(k.Since)) {
			k.Since = t.Held.Since
		}
	}
	return k
}

// Run settles.
func (c *HeldSettleCmd) Run(ctx context.Context, cfg *Config) error {
	return withLedger(ctx, cfg, func(ctx context.Context, l *ledger.Ledger) error { return c.settle(ctx, l, cfg.LocalUser, os.Stdout) })
}

func (c *HeldSettleCmd) settle(ctx context.Context, l *ledger.Ledger, who string, out io.Writer) error {
	done, err := l.Click(ctx, ledger.Click{Key: c.Key, Gold: c.Verdict == "victory", Who: &who, From: ledger.FromAPI, Held: true})
	switch {
	case errors.Is(err, ledger.ErrNoConquest):
		return hinted{fmt.Errorf("there is no conquest %q", c.Key), "`reconciler held list` shows what waits."}
	case errors.Is(err, ledger.ErrNotHeld):
		return hinted{fmt.Errorf("%q does not wait for a person: nothing was changed", c.Key), "`reconciler held list` shows what does."}
	case err != nil:
		return err
	}
	leader, err := l.Leader(ctx)
	if err != nil {
		return err
	}
	when := "when the daemon runs: none does now"
	if leader != nil {
		when = "in a moment"
	}
	_, err = fmt.Fprintf(out, "%s is %s; %s %s.\n", c.Key, story.Result(done.Row.Result),
		count(done.Settled, "task that waited follows", "tasks that waited follow"), when)
	return err
}

// withLedger runs a command that needs the database alone.
func withLedger(ctx context.Context, cfg *Config, run func(context.Context, *ledger.Ledger) error) error {
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	l, err := openLedger(ctx, cfg)
	if err != nil {
		return err
	}
	defer l.Close()
	if err = run(ctx, l); ledger.IsSchemaGone(err) {
		return hinted{err, "Our tables are not there, or are those of an older version: start `reconciler run`, which makes them; before that, once, `reconciler setup`."}
	}
	return err
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}

// printer gathers what a command prints, so that one error is handled once.
type printer struct{ text []byte }

func (p *printer) printf(format string, args ...any) { p.text = fmt.Appendf(p.text, format, args...) }

func (p *printer) to(out io.Writer) error {
	_, err := out.Write(p.text)
	return err
}
