package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/aristotle/reconciler/reconciler/icl"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// ExportCmd is `reconciler export`. It asks Aristotle's database alone, with the daemon up or down.
type ExportCmd struct {
	Format       string `required:"" enum:"chatml,alpaca,openai" placeholder:"chatml|alpaca|openai" help:"chatml, alpaca or openai."`
	Philosopher  string `help:"Only the gold stars of this philosopher; default: of everybody."`
	Domain       string `help:"Only those of this domain."`
	ConquestType string `help:"Only those of this type of conquest, in any case."`
	Since        Moment `placeholder:"TIME" help:"Only stars whose rating was made at this time (RFC 3339, or a day as 2026-11-24, UTC) or later."`
	Until        Moment `placeholder:"TIME" help:"Only those from before this time."`
	Limit        int    `help:"At most so many, the newest; default: all."`
	Output       string `short:"o" placeholder:"FILE" default:"-" help:"Where to write. The file appears when it is whole. Default: standard output."`
}

// Moment is a time on the command line: RFC 3339, or the beginning of a day, UTC.
type Moment struct{ time.Time }

// UnmarshalText reads it.
func (m *Moment) UnmarshalText(text []byte) (err error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if m.Time, err = time.Parse(layout, string(text)); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%q is no time as 2026-11-24T12:00:00Z or 2026-11-24", text)
}

// progressEvery is how often a long export says how far it is.
const progressEvery = 2 * time.Second

// Run writes the examples, and what became of them to standard error.
func (c *ExportCmd) Run(ctx context.Context, cfg *Config) error {
	if c.Limit < 0 {
		return errors.New("--limit must not be below zero")
	}
	src, err := icl.Open(ctx, string(cfg.AristotleDatabaseURL), string(cfg.Schema))
	if err != nil {
		return err
	}
	defer src.Close()
	sel := icl.Selection{Philosopher: c.Philosopher, Domain: c.Domain, Type: c.ConquestType, Since: c.Since.Time, Until: c.Until.Time, Limit: c.Limit}
	start, told := time.Now(), time.Now()
	var n icl.Exported
	err = whole(c.Output, func(w io.Writer) (err error) {
		n, err = src.Export(ctx, w, sel, icl.Format(c.Format), func(n icl.Exported) {
			if time.Since(told) > progressEvery {
				told = time.Now()
				fmt.Fprintf(os.Stderr, "%d examples …\n", n.Examples)
			}
		})
		return err
	})
	switch {
	case ledger.IsSchemaGone(err):
		return hinted{err, "Run `reconciler setup`."}
	case err != nil:
		return err
	}
	fmt.Fprintf(os.Stderr, "%d examples in %v; left out without a usable prompt or response: %d\n",
		n.Examples, time.Since(start).Round(time.Millisecond), n.LeftOut)
	return nil
}

// whole lets write fill a file that takes its name when it is whole; "-" is standard output.
func whole(path string, write func(io.Writer) error) (err error) {
	if path == "-" {
		return write(os.Stdout)
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() { // a device, a pipe: nothing to put in its place
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		return errors.Join(write(f), f.Close())
	}
	f, err := os.OpenFile(filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d", filepath.Base(path), os.Getpid())), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
