package main

import (
	"fmt"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/auth"
)

// minDeadline is the client's time-out for one request (10 s) and the margin for pauses (5 s): with a deadline that leaves
// nothing above them the daemon would never send a PATCH.
const minDeadline = 15 * time.Second

// fillIn gives the settings whose default is another setting or the system's their values.
func (c *Config) fillIn() {
	if c.AristotleAdminURL == "" {
		c.AristotleAdminURL = c.AristotleDatabaseURL
	}
	if c.AristotleReplicationURL == "" {
		c.AristotleReplicationURL = c.AristotleDatabaseURL
	}
	if c.LabelStudioPublicURL == "" {
		c.LabelStudioPublicURL = c.LabelStudioURL
	}
	if c.LocalUser == "" {
		name := "somebody" // a container may run as a user id that has no name
		if u, err := user.Current(); err == nil && u.Username != "" {
			name = u.Username
		}
		c.LocalUser = name + "@localhost"
	}
}

// validate finds what is wrong between settings that can each be read, for the command that will use them.
func (c *Config) validate(command string) []string {
	return slices.Concat(c.missing(command), c.aristotle(), c.names(), c.times(), c.sizes(), c.access(command))
}

func (c *Config) missing(command string) (problems []string) {
	for _, s := range settings(c) {
		if slices.Contains(needs(command), s.env) && s.value.IsZero() {
			problems = append(problems, fmt.Sprintf("%s is missing: %s (flag --%s, key %s)", s.env, s.help, flagOf(s.env), keyOf(s.env)))
		}
	}
	return problems
}

// aristotle checks that the three URLs mean one database, and one password where they name one role.
func (c *Config) aristotle() (problems []string) {
	if c.AristotleDatabaseURL == "" {
		return nil
	}
	ordinary, err := c.AristotleDatabaseURL.parts()
	if err != nil {
		return []string{"ARISTOTLE_DATABASE_URL cannot be read"}
	}
	for _, other := range []struct {
		name string
		dsn  DSN
	}{{"ARISTOTLE_ADMIN_URL", c.AristotleAdminURL}, {"ARISTOTLE_REPLICATION_URL", c.AristotleReplicationURL}} {
		parts, err := other.dsn.parts()
		switch {
		case err != nil:
			problems = append(problems, other.name+" cannot be read")
		case parts.Database != ordinary.Database:
			problems = append(problems, fmt.Sprintf("%s names database %q and ARISTOTLE_DATABASE_URL %q: they must name the same",
				other.name, parts.Database, ordinary.Database))
		case parts.User == ordinary.User && parts.Password != ordinary.Password:
			problems = append(problems, fmt.Sprintf("%s and ARISTOTLE_DATABASE_URL give role %q two passwords", other.name, parts.User))
		}
	}
	return problems
}

func (c *Config) names() []string {
	if s := string(c.Schema); s == "public" || s == "information_schema" || strings.HasPrefix(s, "pg_") {
		return []string{fmt.Sprintf("RECONCILER_SCHEMA: %q belongs to somebody else; ours must be a schema of its own", s)}
	}
	return nil
}

// minSlotWAL is above what a slot that is up to date lags by: it moves on with a record that comes every few seconds and with checkpoints.
const minSlotWAL = 64 << 20

func (c *Config) sizes() []string {
	if c.SlotWALLimit > 0 && c.SlotWALLimit < minSlotWAL {
		return []string{"RECONCILER_SLOT_WAL_LIMIT: less than 64MiB is what a slot that is up to date keeps: it would be made again and again; 0 is no limit"}
	}
	if c.DiffPage < 1 {
		return []string{"RECONCILER_DIFF_PAGE: a listing has at least one task"}
	}
	return nil
}

func (c *Config) times() []string {
	if c.LabelStudioDeadline <= minDeadline {
		return []string{fmt.Sprintf("LABEL_STUDIO_DEADLINE: %v is too short: a PATCH alone may take %v", c.LabelStudioDeadline, minDeadline)}
	}
	return nil
}

// access refuses to open a door to others without a lock. The metrics listener is apart: a scraper has no login.
func (c *Config) access(command string) (problems []string) {
	if !listens(command) {
		return nil
	}
	if c.TokensFile != "" {
		if _, err := auth.Load(c.TokensFile); err != nil {
			problems = append(problems, "RECONCILER_TOKENS_FILE: "+err.Error())
		}
	}
	if c.PublicURL != "" {
		if err := labelstudio.CheckWebhookURL(string(c.PublicURL)); err != nil {
			problems = append(problems, "RECONCILER_PUBLIC_URL: "+err.Error())
		}
	}
	refuse := func(listener string, a Address, set ...string) {
		problems = append(problems, fmt.Sprintf("%s: %s is not loopback, so others could reach it: set %s, or listen on 127.0.0.1",
			listener, a, strings.Join(set, " and ")))
	}
	var lacks []string
	if c.TokensFile == "" {
		lacks = append(lacks, "RECONCILER_TOKENS_FILE")
	}
	if !c.CurationListen.Loopback() && len(lacks) > 0 {
		refuse("RECONCILER_CURATION_LISTEN", c.CurationListen, lacks...)
	}
	if c.WebhookSecret == "" {
		lacks = append(lacks, "RECONCILER_WEBHOOK_SECRET")
	}
	if !c.Listen.Loopback() && len(lacks) > 0 {
		refuse("RECONCILER_LISTEN", c.Listen, lacks...)
	}
	return problems
}
