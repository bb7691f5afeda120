package reconciler

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// The PostgreSQL versions that this program is tested with.
const (
	oldestPostgres = 15
	newestPostgres = 18
)

// plainConnection opens a connection that sets nothing, so that it also comes through a pooler which refuses settings; what it asks is
// sent in one message, so that it survives a change of the server's session between two.
func plainConnection(ctx context.Context, url string) (*pgx.Conn, error) {
	conf, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errors.New("the URL cannot be read") // the parser's error quotes it
	}
	for name := range conf.RuntimeParams {
		if strings.HasPrefix(name, "pool_") { // for a pool, and no setting of the server
			delete(conf.RuntimeParams, name)
		}
	}
	conf.DefaultQueryExecMode = pgx.QueryExecModeExec
	conf.ConnectTimeout = cmp.Or(conf.ConnectTimeout, ledger.ConnectTimeout)
	return pgx.ConnectConfig(ctx, conf)
}

func (v *visit) database(ctx context.Context) (fact string, findings []Finding, err error) {
	if v.db, err = plainConnection(ctx, v.Database); err != nil {
		findings, err = refusedLogin("ARISTOTLE_DATABASE_URL", v.Database, err)
		return "", findings, err
	}
	v.reach("database")
	var version string
	var number int
	var standby bool
	if err := v.db.QueryRow(ctx, `SELECT current_setting('server_version'), current_setting('server_version_num')::int, pg_is_in_recovery()`).
		Scan(&version, &number, &standby); err != nil {
		return "", nil, fmt.Errorf("ask for the version: %w", err)
	}
	if standby {
		findings = append(findings, Finding{Fatal, "ARISTOTLE_DATABASE_URL leads to a standby", "Nothing can be written there.",
			"Let the URL lead to the primary; with several hosts in it add target_session_attrs=read-write."})
	}
	findings = append(findings, versionFindings(number)...)
	findings = append(findings, tlsFindings("ARISTOTLE_DATABASE_URL", v.db)...)
	return "PostgreSQL " + version + ", " + encryption(v.db), findings, nil
}

func versionFindings(number int) []Finding {
	switch major := number / 10000; {
	case major < oldestPostgres:
		return []Finding{{Fatal, fmt.Sprintf("PostgreSQL %d is too old", major), "It cannot publish a key alone.", "Upgrade to PostgreSQL 15 to 18."}}
	case major > newestPostgres:
		return []Finding{{Warning, fmt.Sprintf("PostgreSQL %d is newer than this program", major), "It was tested with 15 to 18.", "Look for a newer version of reconciler."}}
	case number == 150000 || number == 150001:
		return []Finding{{Warning, fmt.Sprintf("PostgreSQL 15.%d has a bug with column lists", number%10000),
			"It can send rows that do not match their description, at which the stream stops.", "Upgrade to the newest 15."}}
	}
	return nil
}

// refusedLogin makes a finding of what the server itself answered: then somebody was there. Anything else means that nobody could look.
func refusedLogin(setting, url string, err error) ([]Finding, error) {
	conf, bad := pgconn.ParseConfig(url)
	if bad != nil {
		return nil, fmt.Errorf("%s: the URL cannot be read", setting)
	}
	role, database := pgx.Identifier{conf.User}.Sanitize(), pgx.Identifier{conf.Database}.Sanitize()
	fatal := func(why, mend string) ([]Finding, error) {
		return []Finding{{Fatal, fmt.Sprintf("%s: %s", setting, serverWords(err)), why, mend}}, nil
	}
	const why = "The daemon cannot log in."
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		var unknown x509.UnknownAuthorityError
		var name x509.HostnameError
		var other x509.CertificateInvalidError
		var bad *tls.CertificateVerificationError
		if errors.As(err, &unknown) || errors.As(err, &name) || errors.As(err, &other) || errors.As(err, &bad) {
			return fatal("The server cannot prove that it is the one that the URL names.",
				"Set sslrootcert in the URL to the file of the authority that signed the server's certificate, and its host to a name in the certificate.")
		}
		if strings.Contains(err.Error(), "server refused TLS connection") {
			return fatal("The URL wants TLS (sslmode), and this server has none.", "Set ssl = on at the server, or sslmode=disable in the URL.")
		}
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	switch {
	case pg.Code == "28P01":
		return fatal(why, "Correct the password in "+setting+", or set it: ALTER ROLE "+role+" PASSWORD '…' (`reconciler setup` does it).")
	case strings.HasPrefix(pg.Code, "28") && strings.Contains(pg.Message, "log in"): // the text only chooses the better advice
		return fatal(why, "ALTER ROLE "+role+" LOGIN (`reconciler setup` does it).")
	case strings.HasPrefix(pg.Code, "28"):
		return fatal(why, "Check role and password in "+setting+", and pg_hba.conf: it needs a line for this role, host and database. `reconciler setup` makes the role.")
	case pg.Code == "3D000":
		return fatal("There is nothing to sync.", "Correct the database's name in "+setting+".")
	case pg.Code == "42501":
		return fatal(why, "GRANT CONNECT ON DATABASE "+database+" TO "+role+" (`reconciler setup` does it).")
	case pg.Code == "08P01":
		return fatal("A pooler answers in place of PostgreSQL, and refuses it.", "Let "+setting+" lead to PostgreSQL itself.")
	}
	return nil, fmt.Errorf("%s: %w", setting, err)
}

// serverWords leaves of a connection error what the server, or the last attempt, said.
func serverWords(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Message
	}
	var bad *tls.CertificateVerificationError
	if errors.As(err, &bad) {
		return bad.Error()
	}
	text := err.Error()
	return text[strings.LastIndex(text, "\n")+1:]
}

func encryption(conn *pgx.Conn) string {
	if secured, ok := conn.PgConn().Conn().(*tls.Conn); ok {
		return tls.VersionName(secured.ConnectionState().Version)
	}
	return "not encrypted"
}

// tlsFindings tells of a connection over a network whose other end is not proven, or that anybody on the way can read.
func tlsFindings(setting string, conn *pgx.Conn) []Finding {
	host := conn.Config().Host
	secured, ok := conn.PgConn().Conn().(*tls.Conn)
	proven := ok && len(secured.ConnectionState().VerifiedChains) > 0
	return transportFindings(setting, host, ok, proven)
}

func transportFindings(setting, host string, encrypted, proven bool) []Finding {
	ip, err := netip.ParseAddr(host)
	local := strings.HasPrefix(host, "/") || host == "localhost" || err == nil && ip.IsLoopback()
	const mend = "Set sslmode=verify-full and sslrootcert=<file of the authority> in "
	switch {
	case local || proven:
		return nil
	case !encrypted:
		return []Finding{{Warning, setting + ": the connection to " + host + " is not encrypted",
			"Whoever is on the way can read e-mails and analyses, and change them.", mend + setting + "; the server needs ssl = on."}}
	}
	return []Finding{{Warning, setting + ": nobody checks that " + host + " is the right server",
		"Whoever is on the way can put himself in its place.", mend + setting + "."}}
}

// poolerTries is how often two sessions are compared. A pooler that lends its sessions out gives the same one to both at once where it is idle.
const poolerTries = 5

// pooler finds one by the number of the server's process: a pooler answers with one of its own. Whether it lends sessions out for
// a transaction at a time is seen where two of our sessions, both open, get the same process.
func (v *visit) pooler(ctx context.Context) (fact string, findings []Finding, err error) {
	pid := func(c *pgx.Conn) (n uint32, err error) {
		err = c.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&n)
		return n, err
	}
	first, err := pid(v.db)
	if err != nil {
		return "", nil, fmt.Errorf("ask who answers: %w", err)
	}
	if first == v.db.PgConn().PID() {
		return "none", nil, nil
	}
	second, err := plainConnection(ctx, v.Database)
	if err != nil {
		return "", nil, fmt.Errorf("connect once more: %w", err)
	}
	defer second.Close(context.WithoutCancel(ctx))
	for range poolerTries {
		a, errA := pid(v.db)
		b, errB := pid(second)
		if err := cmp.Or(errA, errB); err != nil {
			return "", nil, fmt.Errorf("ask who answers: %w", err)
		}
		if a == b {
			return "in transaction mode", []Finding{{Fatal, "ARISTOTLE_DATABASE_URL leads to a pooler in transaction mode",
				"The daemon's lead is a lock of its session, and it listens in its session: here no session is its own.",
				"Let ARISTOTLE_DATABASE_URL lead to PostgreSQL itself, or to a pool with pool_mode = session."}}, nil
		}
	}
	l, err := ledger.Open(ctx, v.Database, v.Schema)
	if err != nil {
		if found, err := refusedLogin("ARISTOTLE_DATABASE_URL", v.Database, err); err == nil {
			return "refuses the daemon", found, nil
		}
		return "", nil, err
	}
	l.Close()
	return "in session mode", []Finding{{Note, "ARISTOTLE_DATABASE_URL leads to a pooler", "It works as long as the pool's mode is session; the replication URL must not lead there.",
		"Nothing, or let the URL lead to PostgreSQL itself."}}, nil
}

// role is who we are, as a URL says it.
func role(conn *pgx.Conn) string { return conn.Config().User }

// without says what a missing right keeps the daemon from.
func without(verb string) string {
	switch verb {
	case "INSERT":
		return "A star could not get its rating."
	case "UPDATE":
		return "A star could not be carried over."
	}
	return "What is there could not be seen."
}

func (v *visit) rights(ctx context.Context) (fact string, findings []Finding, err error) {
	refused, err := aristotle.Try(ctx, v.db)
	if err != nil {
		return "", nil, err
	}
	for _, r := range refused {
		findings = append(findings, v.refusal(r))
	}
	hidden, err := v.hiddenRows(ctx)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("as role %q", role(v.db)), append(findings, hidden...), nil
}

func (v *visit) refusal(r aristotle.Refusal) Finding {
	mend := r.Grant(role(v.db)) + " (`reconciler setup` does it)"
	switch r.Err.Code {
	case "42501":
		return Finding{Fatal, fmt.Sprintf("role %q lacks %v", role(v.db), r.Right), without(r.Verb), mend}
	case "42P01", "42703":
		return Finding{Fatal, fmt.Sprintf("%v: %s", r.Right, r.Err.Message), "This is not Aristotle's database, or its migrations have not run.",
			"Correct the database's name in ARISTOTLE_DATABASE_URL, or run the application's migrations."}
	case "55000", "42P10":
		return Finding{Fatal, fmt.Sprintf("%v: %s", r.Right, r.Err.Message), "A publication makes every UPDATE of the table fail, the application's own among them.",
			"Give the table a primary key, ALTER TABLE public." + pgx.Identifier{r.Table}.Sanitize() + " ADD PRIMARY KEY (id), or take it out of the publication; then `reconciler setup`."}
	}
	return Finding{Fatal, fmt.Sprintf("%v: %s", r.Right, r.Err.Message), without(r.Verb), "Look at the table's triggers and rules."}
}

// hiddenRows finds tables some of whose rows this role does not see, and is not told so.
func (v *visit) hiddenRows(ctx context.Context) (findings []Finding, err error) {
	rows, err := v.db.Query(ctx, `SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = ANY ($1) AND row_security_active(oid)`,
		append(aristotle.RequiredTables(), aristotle.OptionalTables()...))
	if err != nil {
		return nil, fmt.Errorf("look for row security: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for row security: %w", err)
	}
	for _, t := range tables {
		findings = append(findings, Finding{Warning, "row-level security of public." + pgx.Identifier{t}.Sanitize() + " holds for the daemon's role",
			"Rows that no policy shows it look as if they were deleted.", "ALTER ROLE " + pgx.Identifier{role(v.db)}.Sanitize() + " BYPASSRLS, or a policy that shows it all rows."})
	}
	return findings, nil
}

func (v *visit) schema(ctx context.Context) (fact string, findings []Finding, err error) {
	err = ledger.CheckSchema(ctx, v.db, v.Schema)
	var not *ledger.SchemaError
	if errors.As(err, &not) {
		return "", []Finding{{Fatal, not.Error(), "What the daemon remembers lies there.", not.Mend}}, nil
	}
	return v.Schema, nil, err
}

// brakes finds plans that wait for a person's word.
func (v *visit) brakes(ctx context.Context) (fact string, findings []Finding, err error) {
	braked, err := ledger.Braked(ctx, v.db, v.Schema)
	for _, p := range braked {
		findings = append(findings, Finding{Warning, fmt.Sprintf("%s pass %d is braked: %s", p.Kind, p.ID, *p.Brake), "Nothing of its plan is written before it is mended or a person says that it is right.",
			"Look with `reconciler diff`. Mend what is wrong there, or release the plan: reconciler diff --apply --plan " + *p.Plan})
	}
	if len(braked) == 0 {
		fact = "no plan waits for a person"
	}
	return fact, findings, err
}
