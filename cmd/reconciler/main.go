// Command reconciler keeps one thing true: a conquest is VICTORY in Aristotle exactly when its task carries the gold star in
// Label Studio. `reconciler COMMAND --help` explains every command and every setting.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/reconciler/logs"
)

// commands is the command line: one command, one field, one file.
type commands struct {
	Version kong.VersionFlag `help:"Print the version, the commit and the Go version that it was built with."`

	Run         RunCmd         `cmd:"" help:"The daemon: keeps both sides equal until it is told to stop."`
	Demo        DemoCmd        `cmd:"" help:"Everything on this machine with nothing to prepare: shows each flow, then keeps running."`
	Setup       SetupCmd       `cmd:"" help:"Create what the daemon needs in Aristotle's PostgreSQL. Again and again is harmless."`
	Diff        DiffCmd        `cmd:"" help:"One look at both sides: what differs, why, and what the daemon would do. Writes nothing unless told to."`
	Doctor      DoctorCmd      `cmd:"" help:"Check everything that the daemon stands on; each finding with its remedy."`
	Uninstall   UninstallCmd   `cmd:"" help:"Remove our webhooks, slot, publication and schema; shows what it will do and asks first."`
	Status      StatusCmd      `cmd:"" help:"What the daemon is doing, also when it is down; with a key, the story of that key."`
	Held        HeldCmd        `cmd:"" help:"Keys that wait for a person: list them, settle one. Works with the daemon down."`
	Export      ExportCmd      `cmd:"" help:"Gold stars as JSON Lines, newest first: a data set."`
	Healthcheck HealthcheckCmd `cmd:"" help:"Ask the daemon on this machine whether it is alive; for containers, which have no curl."`
}

func main() {
	sandbox.Supervise()
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		signal.Stop(signals) // the second one ends the program at once, from before anybody could see that the first has come
		stop()
	}()
	if err := execute(ctx, &commands{}, os.Args[1:]); err != nil {
		report(os.Stderr, err)
		os.Exit(exitStatus(err))
	}
}

// execute parses the command line, gathers the settings and runs the command that was asked for.
func execute(ctx context.Context, cmds *commands, args []string) error {
	kctx, loaded, err := parse(cmds, args, os.Environ())
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	level.Set(loaded.config.LogLevel)
	log := newLogger(os.Stderr, loaded.config.LogFormat, level)
	for _, w := range loaded.warnings {
		log.WarnContext(ctx, w)
	}
	kctx.BindTo(ctx, (*context.Context)(nil))
	return kctx.Run(&loaded.config, log, &reread{load: loaded.again, level: level})
}

// parse reads args with kong and everything else with [load]. All problems of both come in one error.
func parse(cmds *commands, args, environ []string) (*kong.Context, loaded, error) {
	flags := newFlagSource(new(Config))
	parser, err := kong.New(cmds, kong.Name("reconciler"), kong.PostBuild(flags.addTo), kong.Help(flags.help),
		kong.Vars{"version": "reconciler " + readBuild().String()},
		kong.Description("Keeps VICTORY in Aristotle and the gold star in Label Studio equal. `reconciler COMMAND --help` explains every setting."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}))
	if err != nil {
		return nil, loaded{}, fmt.Errorf("build the command line: %w", err)
	}
	if len(args) == 0 {
		return nil, loaded{}, errors.New("say which command: `reconciler --help` lists them")
	}
	if args[0] == "help" {
		args = append(args[1:], "--help")
	}
	args, problems := withoutUnknownFlags(parser.Model, args)
	kctx, err := parser.Parse(args)
	command := ""
	if err == nil {
		command, _, _ = strings.Cut(kctx.Command(), " ") // of `held settle KEY` that is held
	} else if problems = append(problems, err.Error()); len(args) > 0 {
		command = args[0]
	}
	given := flags.given()
	l, more := load(command, given, environ)
	l.again = func() (loaded, []string) { return load("", given, environ) } // what only a start refuses keeps no secret from being read
	if problems = append(problems, more...); len(problems) > 0 {
		status := 1
		if command == "diff" || command == "doctor" {
			status = 2
		}
		return nil, loaded{}, withStatus{settingsError(problems), status}
	}
	return kctx, l, nil
}

// settingsError is everything that is wrong with the command line and the settings, one sentence each.
type settingsError []string

func (e settingsError) Error() string {
	if len(e) == 1 {
		return e[0]
	}
	return fmt.Sprintf("%d problems with the settings:\n  %s", len(e), strings.Join(e, "\n  "))
}

// newLogger writes lines whose errors are told plainly. level may change while it is used.
func newLogger(w io.Writer, format LogFormat, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(w, o)
	if format == "json" {
		h = slog.NewJSONHandler(w, o)
	}
	return slog.New(logs.Handler{Handler: h, Text: plain})
}

// report prints the error, once, with the hint that it carries.
func report(w io.Writer, err error) {
	fmt.Fprintf(w, "reconciler: %s\n", plain(err))
	var h interface{ Hint() string }
	if errors.As(err, &h) && h.Hint() != "" {
		fmt.Fprintf(w, "  %s\n", h.Hint())
	}
}

// exitStatus is what the error asks for, else 1: `diff` and `doctor` have a status 2, "could not look".
func exitStatus(err error) int {
	var c interface{ ExitCode() int }
	if errors.As(err, &c) {
		return c.ExitCode()
	}
	return 1
}

// hinted is an error with a remedy.
type hinted struct {
	error
	hint string
}

func (h hinted) Hint() string  { return h.hint }
func (h hinted) Unwrap() error { return h.error }
