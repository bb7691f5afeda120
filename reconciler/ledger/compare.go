package ledger

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle"
)

// Pair is all that Aristotle's database holds of one key: its row, and what we
// remember of its tasks.
type Pair struct {
	Key     string
	Row     *Row // nil: there is no such conquest
	Hub     *Hub // nil: there is none
	Rating  Rating
	Working Working
	Edges   []PairEdge // in task order
}

// Row is a conquest as a pass compares it.
type Row struct {
	aristotle.Conquest // without its notes and its owners
	EvaluatedBy        *string
	EvaluatedAt        *time.Time
	UpdatedAt          *time.Time
}

// Rating is what the gold ratings of a row's triple are like.
type Rating struct {
	Gold   int64 // how many there are: one is right where the row is VICTORY
	Fit    bool  // they are samples and have five stars
	Placed bool  // they name a task
}

// Working is where a key is in the queue.
type Working struct {
	Dirty, Running bool
	TriedAt        *time.Time // when it was last claimed
}

// PairEdge is a task of the key, and what a pass noted of it: nil where it saw what
// the edge remembers.
type PairEdge struct {
	Edge
	Seen json.RawMessage
}

//go:embed sql/compare.sql
var compareSQL string

//go:embed sql/unlike.sql
var unlikeSQL string

//go:embed sql/nothing.sql
var nothingSQL string

// reading returns a statement that reads our tables, as empty where they were never made.
func (l *Ledger) reading(ctx context.Context, sql string) (string, error) {
	ours, err := l.HasTables(ctx)
	if !ours {
		sql = nothingSQL + sql
	}
	return sql, err
}

// HasTables tells whether our tables are there: a dry run, and a look before `setup`,
// do without.
func (l *Ledger) HasTables(ctx context.Context) (bool, error) {
	var there bool
	err := l.pool.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, pgx.Identifier{l.schema, "finding"}.Sanitize()).Scan(&there)
	if err != nil {
		return false, fmt.Errorf("look for our tables: %w", err)
	}
	return there, nil
}

// pairsAtOnce is how many keys that are unlike are looked at together: some application's
// ratings have no index, and are read whole each time.
const pairsAtOnce = 5000

// Compare hands every key after one over, in the order of keys, but those that are at rest
// and that the pass saw as they are remembered: which are left is one statement that streams.
// It needs constant memory; each may take its time, as nothing is locked.
func (l *Ledger) Compare(ctx context.Context, pass int64, after string, each func(Pair) error) error {
	sql, err := l.reading(ctx, unlikeSQL)
	if err != nil {
		return err
	}
	// The settings of the pool are for look-ups by key; this reads whole tables, with as many processes as the server allows.
	set := []string{"enable_seqscan = on", "enable_mergejoin = on", "enable_hashjoin = on", "enable_bitmapscan = on", "min_parallel_table_scan_size = 0",
		"plan_cache_mode = force_custom_plan", "statement_timeout = 0", "work_mem = '64MB'"}
	err = l.look(ctx, set, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, sql, pgx.QueryExecModeExec, pass, after)
		if err != nil {
			return err
		}
		var key string
		var keys []string
		_, err = pgx.ForEachRow(rows, []any{&key}, func() error {
			if keys = append(keys, key); len(keys) < pairsAtOnce {
				return nil
			}
			full := keys
			keys = keys[:0]
			return l.ComparePairs(ctx, pass, full, each)
		})
		if err != nil {
			return err
		}
		return l.ComparePairs(ctx, pass, keys, each)
	})
	if err != nil {
		return fmt.Errorf("compare rows with what is remembered: %w", err)
	}
	return nil
}

// look runs a read-only transaction with settings of its own. It may stand idle for as long as
// what is made of it takes.
func (l *Ledger) look(ctx context.Context, settings []string, run func(pgx.Tx) error) error {
	begin := "BEGIN READ ONLY; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL " + strings.Join(settings, "; SET LOCAL ")
	return pgx.BeginTxFunc(ctx, l.pool, pgx.TxOptions{BeginQuery: begin}, run)
}

// ComparePairs is Compare for some keys, those at rest included.
func (l *Ledger) ComparePairs(ctx context.Context, pass int64, keys []string, each func(Pair) error) error {
	if len(keys) == 0 {
		return nil
	}
	sql, err := l.reading(ctx, compareSQL)
	if err != nil {
		return err
	}
	// Rows and memory are looked up by key; their ratings may have to be read whole, and must not be at each key.
	set := []string{"enable_hashjoin = on", "plan_cache_mode = force_custom_plan"}
	err = l.look(ctx, set, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, sql, pass, keys)
		if err != nil {
			return err
		}
		return pairs(rows, each)
	})
	if err != nil {
		return fmt.Errorf("compare %d rows with what is remembered: %w", len(keys), err)
	}
	return nil
}

// pairs puts the rows of one key together, and hands them over.
func pairs(rows pgx.Rows, each func(Pair) error) error {
	var now Pair
	begun := false
	var r pairRow
	_, err := pgx.ForEachRow(rows, r.fields(), func() error {
		if begun && now.Key != r.key {
			if err := each(now); err != nil {
				return err
			}
			begun = false
		}
		if !begun {
			now, begun = r.pair(), true
		}
		if r.task != nil {
			now.Edges = append(now.Edges, r.edge())
		}
		r = pairRow{}
		return nil
	})
	if err == nil && begun {
		err = each(now)
	}
	return err
}

// pairRow is one row of the answer. A key without an edge has NULLs for one.
type pairRow struct {
	key           string
	here, known   bool
	row           Row
	hub           Hub
	hubN          *int64
	rating        Rating
	working       Working
	task, project *int64
	begun         *string
	e             Edge
	seen          json.RawMessage
}

func (r *pairRow) fields() []any {
	e := &r.e
	return []any{&r.key, &r.here, &r.row.Result, &r.row.CreatedAt, &r.row.EvaluatedBy, &r.row.EvaluatedAt, &r.row.UpdatedAt,
		&r.known, &r.hub.D, &r.hubN, &r.hub.CreatedAt, &r.hub.Before, &r.rating.Gold, &r.rating.Fit, &r.rating.Placed,
		&r.working.Dirty, &r.working.Running, &r.working.TriedAt,
		&r.task, &r.project, &r.begun, &e.TaskCreatedAt, &e.TaskUpdatedAt, &e.S, &e.Older, &e.Last, &e.Base,
		&e.IntentValue, &e.IntentAttempt, &e.IntentWait, &e.MissingSince, &e.Held, &r.seen}
}

func (r *pairRow) pair() Pair {
	p := Pair{Key: r.key, Rating: r.rating, Working: r.working}
	if r.here {
		row := r.row
		row.ID = r.key
		p.Row = &row
	}
	if r.known {
		hub := r.hub
		hub.Key, hub.N = r.key, *r.hubN
		p.Hub = &hub
	}
	return p
}

func (r *pairRow) edge() PairEdge {
	e := PairEdge{Edge: r.e, Seen: r.seen}
	e.Task, e.Project, e.Key, e.Begun = *r.task, *r.project, r.key, *r.begun
	return e
}

// EdgesBetween returns, in task order, the edges of a project whose task ids are above
// after and not above upto, and those of other projects among them that are in ids, which
// are ascending. A pass asks for every edge: of those that remember no more than the key,
// the task and the star, nothing else is read; of the others what Edges reads.
func (l *Ledger) EdgesBetween(ctx context.Context, project, after, upto int64, ids []int64) ([]Edge, error) {
	edges := make([]Edge, 0, len(ids))
	var more []int64
	rows, err := l.pool.Query(ctx, `
		SELECT task_id, key, task_created_at, s, last,
		       older IS NULL AND base = '{}' AND intent_value IS NULL AND missing_since IS NULL AND held IS NULL
		FROM edge WHERE task_id > $2 AND task_id <= $3 AND project = $1 ORDER BY task_id`, project, after, upto)
	if err == nil {
		e := Edge{Project: project}
		var plain bool
		_, err = pgx.ForEachRow(rows, []any{&e.Task, &e.Key, &e.TaskCreatedAt, &e.S, &e.Last, &plain}, func() error {
			for len(ids) > 0 && ids[0] < e.Task {
				more, ids = append(more, ids[0]), ids[1:]
			}
			if len(ids) > 0 && ids[0] == e.Task {
				ids = ids[1:]
			}
			if edges = append(edges, e); !plain {
				more = append(more, e.Task)
			}
			e = Edge{Project: project}
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the edges of project %d: %w", project, err)
	}
	if more = append(more, ids...); len(more) == 0 {
		return edges, nil
	}
	full, err := l.Edges(ctx, more)
	byTask := func(a, b Edge) int { return cmp.Compare(a.Task, b.Task) }
	own := edges
	for _, e := range full {
		if at, found := slices.BinarySearchFunc(own, e, byTask); found {
			edges[at] = e
		} else {
			edges = append(edges, e)
		}
	}
	slices.SortFunc(edges, byTask)
	return edges, err
}

// Edges returns, in task order, the edges of tasks. Unmet and TextHash are not read,
// which take a look-up an edge.
func (l *Ledger) Edges(ctx context.Context, tasks []int64) (edges []Edge, err error) {
	rows, err := l.pool.Query(ctx, `
		SELECT task_id, key, project, begun, task_created_at, task_updated_at, s, older, last, base, intent_value, intent_attempt,
		       extract(epoch FROM intent_deadline - now())::float8, missing_since, false, held, NULL::bytea
		FROM edge WHERE task_id = ANY($1) ORDER BY task_id`, tasks)
	if err == nil {
		edges, err = scanEdges(rows)
	}
	if err != nil {
		return nil, fmt.Errorf("read edges: %w", err)
	}
	return edges, nil
}

// Known returns the tasks by which a project is known again, in task order: the first and
// the last of it that we know and that were not missing when we last looked. Of a project
// that we know none of, those of some others: by them its Label Studio is known again.
// own tells which. There are none where nothing is known at all.
func (l *Ledger) Known(ctx context.Context, project int64) (edges []Edge, own bool, err error) {
	const projects = 10 // are enough to know a Label Studio by
	const known = `SELECT min(task_id) AS first, max(task_id) AS last FROM edge WHERE task_created_at IS NOT NULL AND missing_since IS NULL `
	var tasks []int64
	err = l.pool.QueryRow(ctx, `WITH own AS MATERIALIZED (`+known+`AND project = $1),
			others AS (`+known+`AND (SELECT first IS NULL FROM own) GROUP BY project ORDER BY last DESC LIMIT $2)
		SELECT ARRAY(SELECT unnest(ARRAY[first, last]) FROM (TABLE own UNION ALL TABLE others) ends WHERE first IS NOT NULL)`, project, projects).Scan(&tasks)
	if err != nil {
		return nil, false, fmt.Errorf("look for the tasks known of project %d: %w", project, err)
	}
	edges, err = l.Edges(ctx, tasks)
	return edges, len(edges) > 0 && edges[0].Project == project, err
}

// Landmarks returns the first and the last task of a project that we know, and those whose
// keys are at rest: what shows none of them is another project. many tells whether more
// tasks of it are known than so many.
func (l *Ledger) Landmarks(ctx context.Context, project int64, than int) (edges []Edge, many bool, err error) {
	const looked = `task_created_at IS NOT NULL AND missing_since IS NULL `
	const known = ` FROM edge e WHERE project = $1 AND ` + looked
	const end = ` FROM (SELECT * FROM edge WHERE project = $1 ORDER BY task_id DESC LIMIT 1000) e WHERE ` + looked // before their first contact there may be very many
	const rest = `AND NOT EXISTS (SELECT FROM queue q WHERE q.key = e.key AND q.want_gen > q.done_gen) `
	const first, last = `ORDER BY task_id LIMIT 1`, `ORDER BY task_id DESC LIMIT 1`
	var tasks []int64
	err = l.pool.QueryRow(ctx, `SELECT (SELECT count(*) FROM (SELECT`+known+`LIMIT $2 + 1) x) > $2,
		ARRAY((SELECT task_id`+known+rest+first+`) UNION (SELECT task_id`+end+rest+last+`)
			UNION (SELECT task_id`+known+first+`) UNION (SELECT task_id`+end+last+`))`, project, than).Scan(&many, &tasks)
	if err != nil {
		return nil, false, fmt.Errorf("look for the tasks known of project %d: %w", project, err)
	}
	edges, err = l.Edges(ctx, tasks)
	return edges, many, err
}

// EveryKey calls each with all keys that Aristotle has or that we remember, in order,
// so many at a time: however many there are, no statement is long and no list is.
func (l *Ledger) EveryKey(ctx context.Context, size int, each func(keys []string) error) error {
	const sql = `
		(SELECT id AS key FROM public."Conquest" WHERE id > $1 ORDER BY id LIMIT $2)
		UNION
		(SELECT key FROM hub WHERE key > $1 ORDER BY key LIMIT $2)
		ORDER BY key LIMIT $2`
	for after := ""; ; {
		rows, err := l.pool.Query(ctx, sql, after, size)
		if err != nil {
			return fmt.Errorf("read keys after %q: %w", after, err)
		}
		keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("read keys after %q: %w", after, err)
		}
		if len(keys) == 0 {
			return nil
		}
		if err := each(keys); err != nil {
			return err
		}
		after = keys[len(keys)-1]
	}
}
