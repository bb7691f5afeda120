package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"

	"github.com/aristotle/reconciler/aristotle/sandbox"
)

// The demo is read by a person who has never seen the program and has a minute. The rules for what it prints:
//
//   - Standard output is for that person. The daemon logs to standard error, warnings and errors alone, so that it is
//     normally silent; --log-level=debug shows all of it.
//   - A line is printed when something is done: what it was, what there is now, how long it took. Three columns, and no line
//     that does not help.
//   - What takes long is announced before, with its size and time. On a terminal the step under way shows a clock, which its
//     line then replaces; a pipe gets finished lines only. No colours.
//   - What is to be copied is whole, works as it is, and stands at the end of a line or on a line of its own.
//   - A time is measured, not estimated, and the text says between which two moments.
//   - A failure ends the demo with a sentence that says what to do, after everything that was started has been stopped.

// DemoCmd is `reconciler demo`: both systems and the daemon on this machine, every flow shown once, then everything is left
// running to be clicked through.
//
// It makes a world of its own and talks to nothing else. Of the settings only those in [DemoCmd.settings]
// count: where ARISTOTLE_… and LABEL_STUDIO_… lead to a real installation, the demo must not follow.
type DemoCmd struct {
	StandIn         bool   `help:"Use the stand-in Label Studio, which needs no Python and starts at once, and has no pages to look at."`
	PostgresPort    uint16 `default:"4002" placeholder:"PORT" help:"Port of the demo's PostgreSQL on 127.0.0.1; 0 takes a free one [default: 4002]."`
	LabelStudioPort uint16 `default:"4115" placeholder:"PORT" help:"Port of the demo's Label Studio on 127.0.0.1; 0 takes a free one [default: 4115]."`
}

// Help is the rest of `reconciler demo --help`.
func (c *DemoCmd) Help() string {
	return "Of the settings only those of the listeners, the tokens file, the webhook secret and the log count: the demo makes a world of its own and talks to no other."
}

// Run prepares, shows, and then waits until ctx ends, which is the way to end it. What was started is stopped in the reverse
// order, however far it had come. What SIGKILL leaves behind, the sandboxes' supervisors remove.
func (c *DemoCmd) Run(ctx context.Context, cfg *Config, _ *slog.Logger) error {
	own, err := c.settings(cfg)
	if err != nil {
		return err
	}
	if err := c.checkPorts(own); err != nil {
		return err
	}
	d := &demo{cmd: c, cfg: own, screen: newScreen(os.Stdout), conquests: sandbox.SampleConquests()}
	err = d.play(ctx)
	if ctx.Err() != nil { // a person asked for the end: whatever that interrupted is no failure
		err = nil
		d.screen.line("\nStopping …")
	}
	if err := errors.Join(err, d.stop()); err != nil {
		return err
	}
	d.screen.line("Stopped. Nothing is left but the downloads, for the next time.")
	return nil
}

// play goes through the demo, and returns when ctx ends, or with the first error.
func (d *demo) play(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	d.announce()
	for _, part := range []func(context.Context) error{
		d.startPostgres, d.loadAristotle, d.startStudio, d.importTasks, d.setUp,
		func(ctx context.Context) error { return d.startDaemon(ctx, fail) },
		d.firstSync, d.showFlows,
	} {
		if err := part(ctx); err != nil {
			if ctx.Err() != nil { // the daemon's error, where that is what ended it all
				return context.Cause(ctx)
			}
			return err
		}
	}
	d.invite()
	<-ctx.Done()
	return context.Cause(ctx)
}

func (d *demo) announce() {
	d.screen.line("The reconciler's demo: PostgreSQL, Label Studio and the daemon, on this machine.\n")
	if d.cmd.StandIn {
		d.screen.line("The first time it downloads PostgreSQL (15 MB, checked by SHA-256), in some ten")
		d.screen.line("seconds; later it starts in three.\n")
		return
	}
	d.screen.line("The first time it downloads PostgreSQL (15 MB, checked by SHA-256) and Label Studio")
	d.screen.line("(260 MB, each package in a pinned version), in about two minutes; later it starts in")
	d.screen.line("under 20 seconds.\n")
}

// settings are the defaults with what the person may choose. The two sides' addresses are filled in as they come up.
func (c *DemoCmd) settings(chosen *Config) (*Config, error) {
	l, problems := load("", nil, nil)
	if len(problems) > 0 {
		return nil, settingsError(problems)
	}
	own := &l.config
	own.Listen, own.CurationListen, own.MetricsListen = chosen.Listen, chosen.CurationListen, chosen.MetricsListen
	own.TokensFile, own.WebhookSecret = chosen.TokensFile, chosen.WebhookSecret
	own.LogFormat, own.LogLevel = chosen.LogFormat, chosen.LogLevel
	return own, nil
}

// checkPorts tells all taken ports at once, before the minutes that the first start may take. Whoever has one is never
// spoken to: the servers themselves refuse a port that is lost after this look.
func (c *DemoCmd) checkPorts(cfg *Config) error {
	var taken settingsError
	for _, want := range []struct {
		who, change string
		at          Address
	}{
		{"PostgreSQL", "--postgres-port", loopback(c.PostgresPort)},
		{"Label Studio", "--label-studio-port", loopback(c.LabelStudioPort)},
		{"the API", "--listen (RECONCILER_LISTEN)", cfg.Listen},
		{"the curation app", "--curation-listen (RECONCILER_CURATION_LISTEN)", cfg.CurationListen},
		{"the metrics", "--metrics-listen (RECONCILER_METRICS_LISTEN)", cfg.MetricsListen},
	} {
		l, err := net.Listen("tcp", string(want.at))
		if err != nil {
			taken = append(taken, fmt.Sprintf("%s, for %s, cannot be had (%v): choose another with %s, or stop what has it",
				want.at, want.who, errors.Unwrap(err), want.change))
			continue
		}
		_ = l.Close() // it was only asked whether it can be had
	}
	if len(taken) == 0 {
		return nil
	}
	return taken
}

func loopback(port uint16) Address {
	return Address(net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
}
