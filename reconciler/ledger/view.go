package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle"
)

// View is where a key stands, for a person to see: its row now, and what we remember of its last turn.
type View struct {
	Key    string
	Row    *aristotle.Face // nil: there is no such conquest
	Hub    *Hub            // nil: no turn has come, or none since the row came
	Edges  []Edge          // its tasks, in their order
	Queued *Queued         // nil: it was never dirty
}

// Queued is a key in the queue.
type Queued struct {
	Dirty    bool       `json:"dirty"`
	Running  bool       `json:"running"` // a worker has it
	Source   Source     `json:"source"`  // what made it dirty last
	Since    time.Time  `json:"since"`   // where dirty
	RunAfter time.Time  `json:"run_after"`
	Attempts int        `json:"attempts"` // failures since the last success
	Error    *string    `json:"last_error"`
	LookAt   *time.Time `json:"look_at"` // when the look after a PATCH is due
}

// Held returns the keys that wait for a person, ordered by key.
func (l *Ledger) Held(ctx context.Context) ([]View, error) {
	rows, err := l.pool.Query(ctx, `SELECT DISTINCT key FROM edge WHERE held IS NOT NULL ORDER BY key`)
	if err == nil {
		var keys []string
		if keys, err = pgx.CollectRows(rows, pgx.RowTo[string]); err == nil {
			return l.Views(ctx, keys)
		}
	}
	return nil, fmt.Errorf("list held keys: %w", err)
}

// Views returns where keys stand, in their order. It locks nothing, so what a turn
// that is under way has committed may show in one part and not in the other.
func (l *Ledger) Views(ctx context.Context, keys []string) ([]View, error) {
	all, at := make([]View, len(keys)), make(map[string]*View, len(keys))
	for i, k := range keys {
		all[i].Key, at[k] = k, &all[i]
	}
	b := &pgx.Batch{}
	aristotle.QueueFaces(b, keys, func(f aristotle.Face) { at[f.ID].Row = &f })
	queueHubs(b, hubsSQL, keys, func(h Hub) { at[h.Key].Hub = &h })
	queueEdges(b, edgesSQL, keys, func(e Edge) { at[e.Key].Edges = append(at[e.Key].Edges, e) })
	b.Queue(`SELECT key, want_gen > done_gen, COALESCE(leased_until > now(), false), source, since, run_after, attempts, last_error, look_at
		FROM queue WHERE key = ANY($1)`, keys).Query(func(rows pgx.Rows) error {
		var key string
		var q Queued
		_, err := pgx.ForEachRow(rows, []any{&key, &q.Dirty, &q.Running, &q.Source, &q.Since, &q.RunAfter, &q.Attempts, &q.Error, &q.LookAt}, func() error {
			at[key].Queued = new(q)
			q = Queued{}
			return nil
		})
		return err
	})
	if err := l.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("look at %d keys: %w", len(keys), err)
	}
	return all, nil
}

// Record is a record of the audit as it is stored.
type Record struct {
	Audit
	At     time.Time
	Answer *string // one of the answers; nil: no PATCH, or its end is not known
}

// History is where a key stands, and how it came there as far as the audit is kept.
type History struct {
	View
	Records []Record // oldest first
	Cut     bool     // there are older ones
}

// History returns where a key stands and its last records. A key that nobody knows has
// neither row nor tasks nor records.
func (l *Ledger) History(ctx context.Context, key string, records int) (History, error) {
	views, err := l.Views(ctx, []string{key})
	if err != nil {
		return History{}, err
	}
	h := History{View: views[0]}
	rows, err := l.pool.Query(ctx, `SELECT at, key, task_id, source, reason, said, said_by, who, result, shown, stars, d, n, wrote, intent, attempt, answer
		FROM (SELECT * FROM audit WHERE key = $1 ORDER BY id DESC LIMIT $2) a ORDER BY id`, key, records+1)
	if err == nil {
		h.Records, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Record, err error) {
			a := &r.Audit
			return r, row.Scan(&r.At, &a.Key, &a.Task, &a.Source, &a.Reason, &a.Said, &a.SaidBy, &a.Who, &a.Result, &a.Shown, &a.Stars, &a.D, &a.N,
				&a.Wrote, &a.Intent, &a.Attempt, &r.Answer)
		})
	}
	if err != nil {
		return History{}, fmt.Errorf("read the audit of %q: %w", key, err)
	}
	if h.Cut = len(h.Records) > records; h.Cut {
		h.Records = h.Records[1:]
	}
	return h, nil
}

// Stuck is a key that fails again and again.
type Stuck struct {
	Key      string    `json:"key"`
	Since    time.Time `json:"since"`
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next_try"`
	Error    *string   `json:"last_error"`
}

// Stuck returns the keys that fail again and again, those that wait longest first and
// no more than limit.
func (l *Ledger) Stuck(ctx context.Context, limit int) ([]Stuck, error) {
	rows, err := l.pool.Query(ctx, `SELECT key, since, attempts, run_after, last_error FROM queue
		WHERE want_gen > done_gen AND attempts >= $1 ORDER BY since, key LIMIT $2`, StuckAfter, limit)
	if err == nil {
		var stuck []Stuck
		if stuck, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Stuck]); err == nil {
			return stuck, nil
		}
	}
	return nil, fmt.Errorf("list stuck keys: %w", err)
}

// Leader is the replica that leads, as the database sees its session.
type Leader struct {
	Name  string    `json:"application_name"`
	From  *string   `json:"address"` // nil: this machine's socket
	Since time.Time `json:"connected_since"`
}

// Leader returns which replica leads, nil where none does.
func (l *Ledger) Leader(ctx context.Context) (*Leader, error) {
	rows, err := l.pool.Query(ctx, `SELECT COALESCE(a.application_name, ''), host(a.client_addr), a.backend_start
		FROM pg_stat_activity a JOIN (SELECT pid FROM pg_locks WHERE `+leadLock+`) k USING (pid)`, l.schema)
	if err == nil {
		var all []Leader
		if all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Leader]); err == nil {
			if len(all) == 0 {
				return nil, nil
			}
			return &all[0], nil
		}
	}
	return nil, fmt.Errorf("look who leads: %w", err)
}

// String names the session.
func (l *Leader) String() string {
	from := "this machine"
	if l.From != nil {
		from = *l.From
	}
	return fmt.Sprintf("%s from %s, connected since %s", l.Name, from, l.Since.UTC().Format(time.DateTime))
}
