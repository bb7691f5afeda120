package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// setupLimit bounds the whole of setup. It waits for nobody longer than its own lock_timeout; the rest is for slow networks.
const setupLimit = 2 * time.Minute

// SetupCmd is `reconciler setup`: as the user of ARISTOTLE_ADMIN_URL it makes the roles, the rights, the publication and the
// schema that the daemon needs. It looks first, plans what is missing ([planSetup], pure), and runs that in one transaction:
// all of it or nothing. A second run finds nothing missing. Our tables are `run`'s to make, as the ordinary role.
//
// Passwords appear nowhere but as SCRAM verifiers, so what --print prints can be read by others, and be run as it is:
//
//	reconciler setup --print | psql "$ARISTOTLE_ADMIN_URL"
type SetupCmd struct {
	Print bool `help:"Print the SQL that would run, and run nothing. The database is looked at all the same, so what is there already is left out."`
}

// Run looks, plans, and then prints or runs the plan. A wal_level that keeps the daemon from streaming fails it in the end,
// when everything else is prepared, since only a restart of the server changes it.
func (c *SetupCmd) Run(ctx context.Context, cfg *Config) error {
	ctx, cancel := context.WithTimeout(ctx, setupLimit)
	defer cancel()
	return c.setup(ctx, cfg, os.Stdout)
}

func (c *SetupCmd) setup(ctx context.Context, cfg *Config, out io.Writer) error {
	wish, err := wishOf(cfg)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, string(cfg.AristotleAdminURL))
	if err != nil {
		return hinted{fmt.Errorf("connect to %v: %w", cfg.AristotleAdminURL, err), adminHint(cfg)}
	}
	defer conn.Close(context.WithoutCancel(ctx))
	found, err := look(ctx, conn, wish)
	if err != nil {
		return err
	}
	statements, findings := planSetup(wish, found)
	if len(findings) > 0 {
		return fmt.Errorf("nothing was changed, as the daemon cannot work like this:\n  %s", strings.Join(findings, "\n  "))
	}
	if c.Print {
		err = printStatements(out, statements)
	} else {
		err = apply(ctx, conn, statements, out)
	}
	if err != nil {
		return notAdmin(cfg, err)
	}
	return walFinding(found.walLevel)
}

// notAdmin adds to the hint of what the user may not do that nobody said who may.
func notAdmin(cfg *Config, err error) error {
	var h hinted
	if errors.As(err, &h) && cfg.AristotleAdminURL == cfg.AristotleDatabaseURL {
		return hinted{err, adminHint(cfg) + " " + h.hint}
	}
	return err
}

// wishOf reads from the settings what there should be.
func wishOf(cfg *Config) (wish, error) {
	w := wish{schema: string(cfg.Schema), publication: string(cfg.Publication)}
	for _, r := range []struct {
		dsn  DSN
		role *login
	}{{cfg.AristotleDatabaseURL, &w.ordinary}, {cfg.AristotleReplicationURL, &w.replication}} {
		parts, err := r.dsn.parts()
		if err != nil {
			return wish{}, fmt.Errorf("read the URL of %v: %w", r.dsn, err)
		}
		*r.role = login{name: parts.User, password: parts.Password, dsn: r.dsn}
		if parts.Password == "" {
			continue
		}
		salt := make([]byte, scramSalt)
		rand.Read(salt) // never fails: crypto/rand ends the program rather than return bad randomness
		if r.role.verifier, err = scramVerifier(parts.Password, salt, scramIterations); err != nil {
			return wish{}, fmt.Errorf("the password of role %q %w", parts.User, err)
		}
	}
	return w, nil
}

// printStatements writes a script that psql, and any driver that sends several statements at once, can run.
func printStatements(out io.Writer, statements []statement) error {
	var b strings.Builder
	if len(statements) == 0 {
		b.WriteString("-- Everything is there already: nothing to do.\n")
	} else {
		b.WriteString("BEGIN;\n")
		for _, s := range statements {
			fmt.Fprintf(&b, "%s; -- %s\n", s.sql, s.why)
		}
		b.WriteString("COMMIT;\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// apply runs the statements in one transaction.
func apply(ctx context.Context, conn *pgx.Conn, statements []statement, out io.Writer) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, s := range statements {
			if _, err := tx.Exec(ctx, s.sql); err != nil {
				return refused(s, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(statements) == 0 {
		_, err = fmt.Fprintln(out, "Everything is there already: nothing was changed.")
		return err
	}
	for _, s := range statements {
		if s.step {
			if _, err := fmt.Fprintln(out, "done:", s.why); err != nil {
				return err
			}
		}
	}
	return nil
}

// refused explains why a statement failed. The statement itself is left out: it may hold a verifier.
func refused(s statement, err error) error {
	err = fmt.Errorf("%s: %w", s.why, err)
	if pg := new(pgconn.PgError); errors.As(err, &pg) && pg.Code == "42501" && s.hint != "" { // insufficient_privilege
		return hinted{err, s.hint}
	}
	return hinted{err, "Nothing was changed. With --print you get the SQL, to be run by somebody who may."}
}

func walFinding(level string) error {
	if level == "logical" {
		return nil
	}
	return hinted{fmt.Errorf("wal_level is %q, and the daemon needs \"logical\" (all else is prepared)", level),
		"Run ALTER SYSTEM SET wal_level = 'logical' and restart PostgreSQL. Managed servers have a switch of their own: " +
			"rds.logical_replication = 1 on RDS, cloudsql.logical_decoding = on on Cloud SQL, wal_level on Azure."}
}
