// Package ledger is what the reconciler remembers, in a schema of its own in
// Aristotle's database: the queue of dirty keys, the hub of each key, the edge of
// each task, the audit of each decision. It stores and hands back; what the
// values mean is decided in package star.
//
// Everything that must happen together is one statement or one transaction here,
// for many keys at a time. Locks are taken in one order by everybody: "Conquest",
// hub, edge, queue, and within a table by key.
package ledger

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/aristotle/reconciler/aristotle"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Limits of every connection. A turn's transactions take milliseconds; what takes
// longer waits for somebody, and must not make Aristotle wait for us.
const (
	// A row that the application holds is tried again later. This is below the second after which PostgreSQL looks for a deadlock
	// (deadlock_timeout), and ends the one who looks first: where the application waits for us too, we give way.
	lockTimeout      = 500 * time.Millisecond
	statementTimeout = 30 * time.Second
	idleInTxTimeout  = 30 * time.Second
	maxConns         = 8
)

// Ledger is the daemon's memory. It is safe for concurrent use.
type Ledger struct {
	pool    *pgxpool.Pool
	schema  string
	waiting waiting
}

// ReadOnly configures connections by which nothing can be written, not even by mistake.
func ReadOnly(conf *pgxpool.Config) {
	conf.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
}

// Open connects to Aristotle's database as the ordinary role and checks that it
// answers. schema is the name of our schema, which `reconciler setup` makes. configure
// may add to how connections are made.
func Open(ctx context.Context, url, schema string, configure ...func(*pgxpool.Config)) (*Ledger, error) {
	configure = append([]func(*pgxpool.Config){func(conf *pgxpool.Config) { conf.MaxConns = max(maxConns, conf.MaxConns) }}, configure...)
	pool, err := NewPool(ctx, url, schema, map[string]string{
		"application_name":                    "reconciler",
		"lock_timeout":                        ms(lockTimeout),
		"statement_timeout":                   ms(statementTimeout),
		"idle_in_transaction_session_timeout": ms(idleInTxTimeout),
		// Every statement of ours looks rows up by key, a few or a few thousand. It is
		// planned once, for that; planning anew takes longer than most of them run,
		// and statistics of a table that was empty a minute ago mislead.
		// Bitmap scans would not leave behind which dead versions of a row to skip.
		"plan_cache_mode":   "force_generic_plan",
		"enable_seqscan":    "off",
		"enable_bitmapscan": "off",
		"enable_mergejoin":  "off",
		"enable_hashjoin":   "off",
	}, configure...)
	if err != nil {
		return nil, err
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("connect to Aristotle's database: %w", err)
	}
	return &Ledger{pool: pool, schema: schema}, nil
}

// untilWeEnd makes a session end when we do, and not before. Whoever loses the network, or its machine, says no goodbye: the server has to
// ask, after seconds instead of its system's two hours, or what we hold stays held: the lead of all replicas. A session that is to wait, as
// that of the lead does, is not idle.
var untilWeEnd = map[string]string{
	"tcp_keepalives_idle":     "15", // seconds; these four are not for sockets of the same machine, which end with us
	"tcp_keepalives_interval": "5",
	"tcp_keepalives_count":    "4",
	"tcp_user_timeout":        ms(35 * time.Second), // where an answer is under way nothing is asked
	"idle_session_timeout":    "0",
}

// ConnectTimeout bounds a login at one host of a URL that sets no connect_timeout: a host that has lost its power refuses nothing, and the
// next one must have its turn.
const ConnectTimeout = 5 * time.Second

// NewPool returns connections to Aristotle's database as the ordinary role, made when they are asked for: our tables go by their
// bare names, times are UTC. settings are those of each session, application_name only where the URL has none.
func NewPool(ctx context.Context, url, schema string, settings map[string]string, configure ...func(*pgxpool.Config)) (*pgxpool.Pool, error) {
	conf, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
	conf.ConnConfig.ConnectTimeout = cmp.Or(conf.ConnConfig.ConnectTimeout, ConnectTimeout)
	session := conf.ConnConfig.RuntimeParams
	name := cmp.Or(session["application_name"], settings["application_name"])
	maps.Copy(session, settings)
	session["application_name"] = name
	session["search_path"] = pgx.Identifier{schema}.Sanitize()
	session["timezone"] = "UTC"
	session["jit"] = "off"
	// Each statement sees what was committed before it, whatever the database's own default: who has waited for a lock must.
	session["default_transaction_isolation"] = "read committed"
	maps.Copy(session, untilWeEnd)
	for _, c := range configure {
		c(conf)
	}
	pool, err := pgxpool.NewWithConfig(ctx, conf)
	if err != nil {
		return nil, fmt.Errorf("connect to Aristotle's database: %w", err)
	}
	return pool, nil
}

func ms(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

// Close waits for what is under way and closes all connections.
func (l *Ledger) Close() { l.pool.Close() }

// Pool is for the SQL of Aristotle's tables that has to share our transactions.
func (l *Ledger) Pool() *pgxpool.Pool { return l.pool }

// ErrNoSchema says that `reconciler setup` was not run, or that our schema was
// dropped since.
var ErrNoSchema = errors.New("our schema is not there")

// SchemaError is what a person has to mend before our tables can be made.
type SchemaError struct {
	schema string
	cause  error
	Mend   string // a command
}

// Error ends with the remedy.
func (e *SchemaError) Error() string {
	return fmt.Sprintf("schema %q: %v: run %s", e.schema, e.cause, e.Mend)
}

// Unwrap gives the cause.
func (e *SchemaError) Unwrap() error { return e.cause }

// CheckSchema tells whether this role can make our tables, by making one in a
// transaction that is rolled back. What is wrong is a *SchemaError; other errors mean
// that it could not look.
func CheckSchema(ctx context.Context, db interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}, schema string) error {
	tx, err := db.Begin(ctx)
	if err != nil {
		return fmt.Errorf("look for schema %q: %w", schema, err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // nothing is to stay
	var owner string
	var ours bool
	err = tx.QueryRow(ctx, `SELECT pg_get_userbyid(nspowner), pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = $1`, schema).
		Scan(&owner, &ours)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return &SchemaError{schema, ErrNoSchema, "`reconciler setup`"}
	case err != nil:
		return fmt.Errorf("look for schema %q: %w", schema, err)
	case !ours:
		return &SchemaError{schema, fmt.Errorf("it belongs to role %q", owner), "ALTER SCHEMA " + pgx.Identifier{schema}.Sanitize() +
			" OWNER TO the role of ARISTOTLE_DATABASE_URL, and the same for its tables; or `reconciler setup` with another RECONCILER_SCHEMA"}
	}
	_, err = tx.Exec(ctx, "CREATE TABLE "+pgx.Identifier{schema, "may_we"}.Sanitize()+" ()")
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return &SchemaError{schema, fmt.Errorf("no table can be made in it: %s", pg.Message),
			"GRANT USAGE, CREATE ON SCHEMA " + pgx.Identifier{schema}.Sanitize() + " TO the role of ARISTOTLE_DATABASE_URL"}
	}
	if err != nil {
		return fmt.Errorf("look for schema %q: %w", schema, err)
	}
	return nil
}

// Migrate brings our tables to the version that this program needs. Replicas that
// start together wait for one another.
func (l *Ledger) Migrate(ctx context.Context) error {
	if err := CheckSchema(ctx, l.pool, l.schema); err != nil {
		return err
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	db := stdlib.OpenDBFromPool(l.pool)
	defer db.Close()
	steps, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	if _, err := steps.Up(ctx); err != nil {
		return fmt.Errorf("migrate schema %q: %w", l.schema, err)
	}
	return nil
}

// ErrNoRights says that the role may not do what the contract gives it.
var ErrNoRights = errors.New("the daemon's role lacks rights")

// Check tells whether Aristotle's rows can be read and written, which a migration of
// the application can take away.
func (l *Ledger) Check(ctx context.Context) error {
	lacking, err := aristotle.Lacking(ctx, l.pool)
	if err == nil && len(lacking) > 0 {
		err = fmt.Errorf("%w: %v", ErrNoRights, lacking)
	}
	if err != nil {
		return fmt.Errorf("look at Aristotle's tables: %w", err)
	}
	return nil
}

// IsSchemaGone tells that a statement failed since our tables or our rights were
// taken away: `reconciler setup` mends it.
func IsSchemaGone(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return errors.Is(err, ErrNoSchema) || errors.Is(err, ErrNoRights)
	}
	switch pg.Code {
	case "3F000", "42P01", "42501", "42883", "42703": // no schema, no table, no right, no function, no column
		return true
	}
	return false
}
