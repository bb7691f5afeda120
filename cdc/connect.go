package cdc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// connectTimeout covers name, TCP, TLS and login at one host; a URL may set its own by connect_timeout. A host that has lost its
	// power refuses nothing, and the next one of the URL must have its turn.
	connectTimeout = 5 * time.Second
	// peerTimeout is how long sent bytes may stay unacknowledged before the system gives the connection up.
	peerTimeout = 30 * time.Second
	// closeTimeout is how long a connection may take to say goodbye.
	closeTimeout = time.Second
)

// connConfig turns the URL into what replication needs. Queries on such a connection can only be of the simple kind.
func connConfig(cfg *Config) (*pgx.ConnConfig, error) {
	if u, err := url.Parse(cfg.URL); err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return nil, errors.New("replication URL: use postgres://user:password@host:port/database") // without the text: it has a password
	}
	conn, err := pgx.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("replication URL: %w", err)
	}
	conn.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	setDefault(&conn.ConnectTimeout, connectTimeout)
	dialer := &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4},
		Control:         setUserTimeout,
	}
	conn.DialFunc = dialer.DialContext
	conn.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		cfg.Log.Warn("notice from the server", logSQLState, n.Code, logReason, n.Message)
	}
	// A URL that a pool takes as well may say how large the pool is.
	maps.DeleteFunc(conn.RuntimeParams, func(name, _ string) bool { return strings.HasPrefix(name, "pool_") })
	setDefault(&cfg.Application, "reconciler")
	conn.RuntimeParams["application_name"] = cfg.Application
	// What a role or a database sets for its short queries would end a stream, or a slot that waits to be made.
	for _, name := range []string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"} {
		conn.RuntimeParams[name] = "0"
	}
	return conn, nil
}

// connect opens a connection: for replication, or a plain one of the same role.
func (l *Listener) connect(ctx context.Context, replication bool) (*pgx.Conn, error) {
	cfg := l.conn.Copy()
	if l.cfg.Password != nil {
		cfg.Password = l.cfg.Password()
	}
	if replication {
		cfg.RuntimeParams["replication"] = "database"
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, wrap("connect", err)
	}
	return conn, nil
}

// hangUp closes a connection in bounded time, also after ctx has ended. An error here has nobody left to concern.
func hangUp(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx)
}
