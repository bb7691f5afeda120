package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler"
)

// demo is the world that the demo makes, as far as it has come.
type demo struct {
	cmd       *DemoCmd
	cfg       *Config
	screen    *screen
	conquests []sandbox.Conquest

	postgres *sandbox.Server
	app      *pgx.Conn // Aristotle's database as its owner: the application, and our eye on it
	studio   *demoStudio
	client   *labelstudio.Client
	me       string // e-mail of the client's user
	project  int64
	tasks    map[string]int64 // by conquest
	daemon   *daemon

	stops []func() error // of what was started, in the order of the starts
}

// demoStudio is the Label Studio of the demo, the real one or the stand-in.
type demoStudio struct {
	url, token      string
	email, password string // of the login; empty for the stand-in, which has no pages
	// starred looks at a task without costing Label Studio a request, which it would answer instead of the daemon's.
	starred func(ctx context.Context, task int64) (bool, error)
}

// stopLimit bounds the closing of a connection.
const stopLimit = 5 * time.Second

// stop ends what was started, last first.
func (d *demo) stop() error {
	var all error
	for _, stop := range slices.Backward(d.stops) {
		all = errors.Join(all, stop())
	}
	return all
}

func (d *demo) startPostgres(ctx context.Context) error {
	return d.screen.during("PostgreSQL", func() (string, error) {
		server, err := sandbox.Start(ctx, sandbox.Options{Port: int(d.cmd.PostgresPort), Log: d.screen.note,
			Settings: map[string]string{"max_slot_wal_keep_size": "1GB"}})
		if err != nil {
			return "", err
		}
		d.stops = append(d.stops, server.Stop)
		d.postgres = server
		conn, err := pgx.Connect(ctx, server.URL())
		if err != nil {
			return "", fmt.Errorf("connect to PostgreSQL: %w", err)
		}
		defer closeConn(conn)
		return fmt.Sprintf("%s on port %d", conn.PgConn().ParameterStatus("server_version"), server.Port()), nil
	})
}

// closeConn is for clean-up, when ctx may have ended.
func closeConn(conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	return conn.Close(ctx)
}

// connect opens a connection that is closed at the end.
func (d *demo) connect(ctx context.Context, url string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	d.stops = append(d.stops, func() error { return closeConn(conn) })
	return conn, nil
}

func (d *demo) loadAristotle(ctx context.Context) error {
	return d.screen.during("Aristotle", func() (string, error) {
		url, err := d.postgres.CreateDatabase(ctx, sandbox.Schema{Name: "aristotle_dev", Texts: true})
		if err != nil {
			return "", err
		}
		if err := sandbox.Load(ctx, url, d.conquests); err != nil {
			return "", err
		}
		d.cfg.AristotleAdminURL = DSN(url)
		if d.app, err = d.connect(ctx, url); err != nil {
			return "", fmt.Errorf("connect to aristotle_dev: %w", err)
		}
		counts := map[string]int{}
		for _, c := range d.conquests {
			counts[c.Result]++
		}
		return fmt.Sprintf("%d conquests: %d VICTORY, %d DEFEAT, %d NEUTRAL, %d PENDING", len(d.conquests),
			counts["VICTORY"], counts["DEFEAT"], counts["NEUTRAL"], counts["PENDING"]), nil
	})
}

func (d *demo) startStudio(ctx context.Context) error {
	return d.screen.during("Label Studio", func() (fact string, err error) {
		if fact, err = d.startEither(ctx); err != nil {
			return "", err
		}
		d.cfg.LabelStudioURL, d.cfg.LabelStudioPublicURL, d.cfg.LabelStudioAPIKey = BaseURL(d.studio.url), BaseURL(d.studio.url), Secret(d.studio.token)
		d.client, err = labelstudio.New(labelstudio.Options{URL: d.studio.url, Token: d.studio.token})
		if err != nil {
			return "", err
		}
		user, err := d.client.Whoami(ctx)
		d.me = user.Email
		return fact, err
	})
}

// startEither starts the real one, or the stand-in where that is wanted or all that this machine can run.
func (d *demo) startEither(ctx context.Context) (fact string, err error) {
	if d.cmd.StandIn {
		return d.startStandIn()
	}
	fact, err = d.startReal(ctx)
	if errors.Is(err, studio.ErrNoPython) {
		d.screen.note(fmt.Sprintf("The real one cannot run here, so a stand-in takes its place: %v.", err))
		return d.startStandIn()
	}
	return fact, err
}

// startReal starts Label Studio on a second database of the same server. Its stars are read there: a request for each look
// would slow down the one process that it is.
func (d *demo) startReal(ctx context.Context) (fact string, err error) {
	real, err := studio.StartReal(ctx, studio.RealOptions{Postgres: d.postgres.URL(), Port: int(d.cmd.LabelStudioPort), Log: d.screen.note})
	if err != nil {
		return "", hinted{err, "The demo also runs without it: reconciler demo --stand-in"}
	}
	d.stops = append(d.stops, real.Stop)
	db, err := d.connect(ctx, real.DatabaseURL())
	if err != nil {
		return "", fmt.Errorf("connect to Label Studio's database: %w", err)
	}
	d.studio = &demoStudio{url: real.URL(), token: real.Token(), email: real.Email(), password: real.Password(),
		starred: func(ctx context.Context, task int64) (gold bool, err error) {
			err = db.QueryRow(ctx, `SELECT COALESCE(meta @> '{"gold_star": true}', false) FROM task WHERE id = $1`, task).Scan(&gold)
			return gold, err
		}}
	return "the real one, at " + real.URL(), nil
}

func (d *demo) startStandIn() (fact string, err error) {
	s, err := studio.StartStandIn(studio.StandInOptions{Addr: string(loopback(d.cmd.LabelStudioPort))})
	if err != nil {
		return "", err
	}
	d.stops = append(d.stops, s.Close)
	d.studio = &demoStudio{url: s.URL(), token: s.Token(), starred: func(_ context.Context, task int64) (bool, error) {
		t, there := s.Task(task)
		if !there {
			return false, fmt.Errorf("task %d is gone", task)
		}
		return metaStar(t)
	}}
	return "a STAND-IN, without pages, at " + s.URL(), nil
}

func (d *demo) importTasks(ctx context.Context) error {
	return d.screen.during("Project", func() (string, error) {
		p, err := d.client.CreateProject(ctx, labelstudio.NewProject{Title: "Conquests", LabelConfig: studio.LabelConfig})
		if err != nil {
			return "", err
		}
		d.project = p.ID
		var tasks []labelstudio.NewTask
		for _, c := range d.conquests {
			tasks = append(tasks, labelstudio.NewTask{Data: map[string]string{"conquest_id": c.ID, "conquest_type": c.Type, "title": c.Title,
				"prompt": c.Prompt, "response": c.Response, "system_prompt": c.SystemPrompt}})
		}
		ids, err := d.client.ImportTasks(ctx, p.ID, tasks)
		if err != nil {
			return "", err
		}
		d.tasks = map[string]int64{}
		for i, id := range ids {
			d.tasks[d.conquests[i].ID] = id
		}
		return fmt.Sprintf("%d tasks, one for each conquest, none with a star", len(ids)), nil
	})
}

// setUp is what an operator does once: `reconciler setup`.
func (d *demo) setUp(ctx context.Context) error {
	return d.screen.during("Setup", func() (string, error) {
		role := func(name string) (DSN, error) {
			u, err := url.Parse(string(d.cfg.AristotleAdminURL))
			if err != nil {
				return "", errors.New("the sandbox's URL cannot be read") // the error itself would show the password
			}
			u.User = url.UserPassword(name, rand.Text())
			return DSN(u.String()), nil
		}
		var err error
		if d.cfg.AristotleDatabaseURL, err = role("reconciler"); err != nil {
			return "", err
		}
		if d.cfg.AristotleReplicationURL, err = role("reconciler_stream"); err != nil {
			return "", err
		}
		d.cfg.WebhookSecret = cmp.Or(d.cfg.WebhookSecret, Secret(rand.Text()))
		err = new(SetupCmd).setup(ctx, d.cfg, io.Discard)
		return "two roles, publication and schema, by `reconciler setup`", err
	})
}

// startDaemon starts it in this process. Where it cannot go on, fail ends everything.
func (d *demo) startDaemon(ctx context.Context, fail context.CancelCauseFunc) error {
	return d.screen.during("Daemon", func() (string, error) {
		level := d.cfg.LogLevel
		if level == slog.LevelInfo { // the default: what goes well is told on the screen
			level = slog.LevelWarn
		}
		var err error
		d.daemon, err = newDaemon(ctx, d.cfg, newLogger(os.Stderr, d.cfg.LogFormat, level), new(RunCmd))
		if err != nil {
			return "", err
		}
		run, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() {
			err := d.daemon.run(run)
			if err != nil {
				fail(fmt.Errorf("the daemon: %w", err))
			}
			ended <- err
		}()
		d.stops = append(d.stops, func() error {
			stop()
			<-ended // its error, where there is one, has ended the demo already
			return nil
		})
		_, err = d.client.CreateWebhook(ctx, labelstudio.Webhook{Project: d.project, URL: d.webhook(), SendPayload: true, IsActive: true,
			Headers: map[string]string{"Authorization": "Bearer " + string(d.cfg.WebhookSecret)},
			Actions: labelstudio.WebhookActions()})
		return "in this process; its webhook is registered in Label Studio", err
	})
}

func (d *demo) webhook() string {
	return "http://" + local(Address(d.daemon.apiListener.Addr().String())) + reconciler.HookPath
}

// find returns the nth conquest, from 0, that had a result at the start.
func (d *demo) find(result string, n int) sandbox.Conquest { return d.having(result)[n] }

// having returns the conquests that had a result at the start, the finished ones, which read best.
func (d *demo) having(result string) (all []sandbox.Conquest) {
	for _, c := range d.conquests {
		if c.Result == result && c.Status == "COMPLETED" {
			all = append(all, c)
		}
	}
	return all
}
