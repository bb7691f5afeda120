package curation

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// readers bounds how many pages are read at once; the rest wait.
	readers = 4
	// readLimit is above the slowest search that 100,000 rows were seen to take, and
	// below a person's patience.
	readLimit = 10 * time.Second
	// idleReader gives connections back soon: at rest the app holds none.
	idleReader = time.Minute
)

// newReader opens the connections of the pages. They are like the ledger's, but can
// only read, and leave the planner as it is: a list is the one place here that reads
// a whole table, for which the ledger's look-ups by key are the wrong advice.
func newReader(ctx context.Context, of *pgxpool.Pool) (*pgxpool.Pool, error) {
	conf := of.Config()
	conf.MaxConns, conf.MinConns, conf.MinIdleConns, conf.MaxConnIdleTime = readers, 0, 0, idleReader
	params := conf.ConnConfig.RuntimeParams
	for _, planner := range []string{"plan_cache_mode", "enable_seqscan", "enable_bitmapscan", "enable_mergejoin", "enable_hashjoin"} {
		delete(params, planner)
	}
	params["default_transaction_read_only"] = "on"
	params["statement_timeout"] = fmt.Sprint(readLimit.Milliseconds())
	params["application_name"] = "reconciler curation"
	pool, err := pgxpool.NewWithConfig(ctx, conf)
	if err != nil {
		return nil, fmt.Errorf("open the pages' connections: %w", err)
	}
	return pool, nil
}
