package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/logs"
)

// rereadEvery is how often the secrets' files are looked at. They are replaced by hand or by an orchestrator, once in weeks.
const rereadEvery = 5 * time.Second

// reread reads the settings anew while the program runs: flags and environment are what they were, files may have changed.
type reread struct {
	load  func() (loaded, []string)
	level *slog.LevelVar // of the log
}

// again returns the settings as they are now.
func (r *reread) again() (*Config, error) {
	l, problems := r.load()
	if len(problems) > 0 {
		return nil, settingsError(problems)
	}
	return &l.config, nil
}

// passwords of the two roles, and of the one in Label Studio's database, as of the last look. Connections that are open stay; new ones
// use what is there then.
type passwords struct{ ordinary, replication, studio atomic.Pointer[string] }

// ofTheDay makes the new connections of a pool use the password of the day.
func ofTheDay(password *atomic.Pointer[string]) func(*pgxpool.Config) {
	return func(conf *pgxpool.Config) {
		conf.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
			if text := password.Load(); text != nil {
				c.Password = *text
			}
			return nil
		}
	}
}

// stream returns what gives the stream its password of the day.
func (p *passwords) stream(cfg *Config) func() string {
	parts, err := cfg.AristotleReplicationURL.parts()
	if err != nil {
		return nil // it was read before
	}
	return func() string {
		if text := p.replication.Load(); text != nil {
			return *text
		}
		return parts.Password
	}
}

// following takes over what may change while the program runs. The daemon is one, and so is a dry run.
type following struct {
	cfg       *Config
	log       *slog.Logger
	reread    *reread // nil: the settings stay as they are
	studio    *labelstudio.Client
	secret    *auth.Secret // of the webhook; nil: no delivery is taken
	passwords passwords
	failures  logs.Failures
}

// reading looks at the secrets' files every few seconds, and at SIGHUP at the log's level as well, until ctx ends. A file that cannot be
// read, or holds what cannot be right, changes nothing and is told.
func (f *following) reading(ctx context.Context) error {
	if f.reread == nil {
		return nil
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	tick := time.NewTicker(rereadEvery)
	defer tick.Stop()
	const what = "read the settings again: going on with those before"
	for {
		asked := false
		select {
		case <-tick.C:
		case <-hangup:
			asked = true
		case <-ctx.Done():
			return nil
		}
		now, err := f.reread.again()
		if err == nil {
			err = f.follow(ctx, now, asked)
		}
		if err != nil {
			f.failures.Log(ctx, f.log, slog.LevelError, what, "", err)
			continue
		}
		f.failures.Over(ctx, f.log, what, "")
	}
}

// follow takes over what has changed, and where a person asked says what may not.
func (f *following) follow(ctx context.Context, now *Config, asked bool) error {
	if err := errors.Join(f.followStudio(ctx, now), f.followPasswords(ctx, now)); err != nil {
		return err
	}
	if now.WebhookSecret != f.cfg.WebhookSecret && now.WebhookSecret != "" && f.secret != nil {
		f.secret.Set(string(now.WebhookSecret))
		f.cfg.WebhookSecret = now.WebhookSecret
		f.told(ctx, "RECONCILER_WEBHOOK_SECRET")
	}
	if !asked {
		return nil
	}
	f.reread.level.Set(now.LogLevel)
	f.cfg.LogLevel = now.LogLevel
	now.AristotleAdminURL = f.cfg.AristotleAdminURL // no daemon uses it, and where it is not set it has the ordinary role's password
	f.log.InfoContext(ctx, "settings were read again", "log_level", now.LogLevel, "need_restart", strings.Join(differing(f.cfg, now), " "))
	return nil
}

func (f *following) told(ctx context.Context, setting string) {
	f.log.InfoContext(ctx, "a secret was replaced", "setting", setting)
}

func (f *following) followStudio(ctx context.Context, now *Config) error {
	if now.LabelStudioAPIKey == f.cfg.LabelStudioAPIKey {
		return nil
	}
	if err := f.studio.SetToken(string(now.LabelStudioAPIKey)); err != nil {
		return fmt.Errorf("LABEL_STUDIO_API_KEY: %w", err)
	}
	f.cfg.LabelStudioAPIKey = now.LabelStudioAPIKey
	f.told(ctx, "LABEL_STUDIO_API_KEY")
	return nil
}

// followPasswords takes over passwords alone: another host or role is another installation.
func (f *following) followPasswords(ctx context.Context, now *Config) error {
	for _, s := range []struct {
		name  string
		was   *DSN
		is    DSN
		store *atomic.Pointer[string]
	}{
		{"ARISTOTLE_DATABASE_URL", &f.cfg.AristotleDatabaseURL, now.AristotleDatabaseURL, &f.passwords.ordinary},
		{"ARISTOTLE_REPLICATION_URL", &f.cfg.AristotleReplicationURL, now.AristotleReplicationURL, &f.passwords.replication},
		{"LABEL_STUDIO_DATABASE_URL", &f.cfg.LabelStudioDatabaseURL, now.LabelStudioDatabaseURL, &f.passwords.studio},
	} {
		if *s.was == s.is || s.was.String() != s.is.String() {
			continue
		}
		parts, err := s.is.parts()
		if err != nil {
			return fmt.Errorf("%s cannot be read", s.name)
		}
		s.store.Store(&parts.Password)
		*s.was = s.is
		f.told(ctx, s.name)
	}
	return nil
}

// differing names the settings that were changed and count after a restart.
func differing(was, is *Config) (names []string) {
	old := settings(was)
	for i, s := range settings(is) {
		if !reflect.DeepEqual(s.value.Interface(), old[i].value.Interface()) { // as text secrets are all the same
			names = append(names, s.env)
		}
	}
	return names
}
