package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// uninstallLimit bounds each of looking and removing; what a person takes to answer is not counted.
const uninstallLimit = time.Minute

// UninstallCmd is `reconciler uninstall`: removes from both sides what setup and the daemon have made: our webhooks, slot,
// publication and schema, in that order, so that whatever it cannot finish can be finished by running it again. The stars, the
// results and the ratings stay as they are, and so do the roles, which may be used for something else.
//
// A daemon that runs would make slot and webhooks anew: it must be stopped first, and it is told by what it holds.
type UninstallCmd struct {
	Yes bool `help:"Do not ask."`
}

// Run looks, shows, asks and removes.
func (c *UninstallCmd) Run(ctx context.Context, cfg *Config) error {
	return c.uninstall(ctx, cfg, os.Stdin, os.Stdout)
}

func (c *UninstallCmd) uninstall(ctx context.Context, cfg *Config, in io.Reader, out io.Writer) error {
	conn, err := pgx.Connect(ctx, string(cfg.AristotleAdminURL))
	if err != nil {
		return hinted{fmt.Errorf("connect to %v: %w", cfg.AristotleAdminURL, err), adminHint(cfg)}
	}
	defer conn.Close(context.WithoutCancel(ctx))
	r := &removal{cfg: cfg, conn: conn}
	if err := r.look(ctx); err != nil {
		return err
	}
	if _, err := io.WriteString(out, r.plan()); err != nil {
		return err
	}
	switch {
	case r.running != "":
		return hinted{errors.New("nothing was removed: " + r.running), "Stop the daemon, every replica of it, and run this again."}
	case r.empty():
		return nil
	case !c.Yes && !confirmed(in, out):
		return errors.New("nothing was removed: it was not confirmed")
	}
	return r.remove(ctx, out)
}

// adminHint says which URL was used, and that another can be set.
func adminHint(cfg *Config) string {
	if cfg.AristotleAdminURL == cfg.AristotleDatabaseURL {
		return "ARISTOTLE_ADMIN_URL is not set, so ARISTOTLE_DATABASE_URL was used. Set it to the URL of a user who may create roles, grant and publish."
	}
	return "This is ARISTOTLE_ADMIN_URL."
}

func confirmed(in io.Reader, out io.Writer) bool {
	_, err := io.WriteString(out, "Remove all of this? Type yes: ")
	answer, _ := bufio.NewReader(in).ReadString('\n') // an end without an answer is none
	return err == nil && strings.TrimSpace(answer) == "yes"
}

// removal is what there is to remove.
type removal struct {
	cfg  *Config
	conn *pgx.Conn

	studio      *labelstudio.Client
	webhooks    []labelstudio.Webhook
	others      []string // what is left alone, and why
	slot        bool
	publication bool
	schema      bool
	running     string // why a daemon seems to run
}

func (r *removal) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, uninstallLimit)
	defer cancel()
	for _, look := range []func(context.Context) error{r.lookAtWebhooks, r.lookAtSlot, r.lookAtSchema} {
		if err := look(ctx); err != nil {
			return err
		}
	}
	return nil
}

// lookAtWebhooks finds those that lead to us. Without RECONCILER_PUBLIC_URL nobody can tell ours from those of another installation.
func (r *removal) lookAtWebhooks(ctx context.Context) (err error) {
	switch {
	case r.cfg.PublicURL == "":
		r.others = append(r.others, "webhooks in Label Studio: RECONCILER_PUBLIC_URL is not set, so nobody can tell which are ours. Those that a person made: in each project under Settings, Webhooks")
		return nil
	case r.cfg.LabelStudioAPIKey == "":
		r.others = append(r.others, "webhooks in Label Studio: LABEL_STUDIO_API_KEY is not set")
		return nil
	}
	r.studio, err = labelstudio.New(labelstudio.Options{URL: string(r.cfg.LabelStudioURL), Token: string(r.cfg.LabelStudioAPIKey)})
	if err != nil {
		return err
	}
	hooks, err := r.studio.Webhooks(ctx, 0)
	if err != nil {
		return fmt.Errorf("look for our webhooks: %w", err)
	}
	for _, h := range hooks {
		if address, _, _ := strings.Cut(h.URL, "?"); address == string(r.cfg.PublicURL)+reconciler.HookPath {
			r.webhooks = append(r.webhooks, h)
		}
	}
	return nil
}

// lookAtSlot also finds a daemon by what it holds: the slot, or the lock of the one that leads.
func (r *removal) lookAtSlot(ctx context.Context) error {
	var reader int32
	var who string
	err := r.conn.QueryRow(ctx, `SELECT coalesce(active_pid, 0), coalesce(format('%s, role %s, from %s', nullif(a.application_name, ''), a.usename, coalesce(host(a.client_addr), 'this machine')), '')
		FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
		WHERE slot_name = $1 AND database = current_database() AND plugin = 'pgoutput'`, string(r.cfg.Slot)).Scan(&reader, &who)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("look for the slot: %w", err)
	}
	r.slot = err == nil
	if reader != 0 {
		r.running = fmt.Sprintf("slot %s is being read by process %d (%s)", r.cfg.Slot, reader, who)
		return nil
	}
	leader, err := ledger.LeaderProcess(ctx, r.conn, string(r.cfg.Schema))
	if leader != 0 {
		r.running = fmt.Sprintf("a daemon leads, in the session of process %d", leader)
	}
	return err
}

// lookAtSchema takes for ours a schema that has our tables, or none, and a publication as setup takes it.
func (r *removal) lookAtSchema(ctx context.Context) error {
	var all, there, ours bool
	err := r.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1 AND NOT puballtables),
			EXISTS (SELECT FROM pg_publication WHERE pubname = $1 AND puballtables),
			EXISTS (SELECT FROM pg_namespace WHERE nspname = $2),
			NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace($3) AND relkind = 'r')
			OR to_regclass($3 || '.queue') IS NOT NULL AND to_regclass($3 || '.edge') IS NOT NULL`,
		string(r.cfg.Publication), string(r.cfg.Schema), ident(string(r.cfg.Schema))).Scan(&r.publication, &all, &there, &ours)
	if err != nil {
		return fmt.Errorf("look for publication and schema: %w", err)
	}
	if all {
		r.others = append(r.others, fmt.Sprintf("publication %s: it is FOR ALL TABLES", r.cfg.Publication))
	}
	r.schema = there && ours
	if there && !ours {
		r.others = append(r.others, fmt.Sprintf("schema %s: it has tables, and ours are not among them", r.cfg.Schema))
	}
	return nil
}

func (r *removal) empty() bool {
	return len(r.webhooks) == 0 && !r.slot && !r.publication && !r.schema
}

// plan is what will be done, for the person who is asked.
func (r *removal) plan() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, "  "+format+"\n", args...) }
	if r.empty() {
		b.WriteString("There is nothing to remove.\n")
	} else {
		fmt.Fprintf(&b, "To be removed, from %v and Label Studio:\n", r.cfg.AristotleAdminURL)
	}
	for _, h := range r.webhooks {
		line("webhook %d of project %d, to %s", h.ID, h.Project, r.cfg.PublicURL)
	}
	if r.slot {
		line("replication slot %s", r.cfg.Slot)
	}
	if r.publication {
		line("publication %s", r.cfg.Publication)
	}
	if r.schema {
		line("schema %s with all that the daemon remembers: a later setup begins with first contact", r.cfg.Schema)
	}
	b.WriteString("Left as it is:\n")
	line("stars, results and ratings")
	for _, text := range r.others {
		line("%s", text)
	}
	if ordinary, err := wishOf(r.cfg); err == nil {
		names := ident(ordinary.ordinary.name)
		if ordinary.replication.name != ordinary.ordinary.name {
			names += ", " + ident(ordinary.replication.name)
		}
		line("the roles. Once nothing else uses them: DROP OWNED BY %s; DROP ROLE %s", names, names)
	}
	return b.String()
}

func (r *removal) remove(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, uninstallLimit)
	defer cancel()
	done := func(what string, err error) error {
		if err != nil {
			return hinted{fmt.Errorf("remove %s: %w", what, err), "What was told as removed is gone. Run this again for the rest."}
		}
		_, err = fmt.Fprintln(out, "removed:", what)
		return err
	}
	for _, h := range r.webhooks {
		err := r.studio.DeleteWebhook(ctx, h.ID)
		if labelstudio.IsNotFound(err) {
			err = nil
		}
		if err := done(fmt.Sprintf("webhook %d of project %d", h.ID, h.Project), err); err != nil {
			return err
		}
	}
	for _, step := range []struct {
		what, sql string
		there     bool
	}{
		{"replication slot " + string(r.cfg.Slot), `SELECT pg_drop_replication_slot(` + literal(string(r.cfg.Slot)) + `)`, r.slot},
		{"publication " + string(r.cfg.Publication), `DROP PUBLICATION ` + ident(string(r.cfg.Publication)), r.publication},
		{"schema " + string(r.cfg.Schema), `DROP SCHEMA ` + ident(string(r.cfg.Schema)) + ` CASCADE`, r.schema},
	} {
		if !step.there {
			continue
		}
		_, err := r.conn.Exec(ctx, step.sql)
		if err := done(step.what, err); err != nil {
			return err
		}
	}
	return nil
}
