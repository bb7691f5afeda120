package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Edge is one task of a key as it is stored. Times of Label Studio are its clock's,
// the deadline is the database's.
type Edge struct {
	Task          int64      `json:"task_id"`
	Key           string     `json:"key"`
	Project       int64      `json:"project"`
	Begun         string     `json:"begun"`
	TaskCreatedAt *time.Time `json:"task_created_at"` // nil: never read
	TaskUpdatedAt *time.Time `json:"task_updated_at"`
	S             *bool      `json:"s"` // nil: new
	Older         *bool      `json:"older"`
	Last          *string    `json:"last"`
	Base          []int64    `json:"base"`
	IntentValue   *bool      `json:"intent_value"`
	IntentAttempt *string    `json:"intent_attempt"`
	IntentFor     *float64   `json:"intent_for"`    // of a new intent: seconds from now to its deadline
	IntentWait    *float64   `json:"-"`             // of a stored one: seconds left, negative once it has passed
	MissingSince  *time.Time `json:"missing_since"` // of the first 404 in a row
	Unmet         bool       `json:"-"`             // no pass over its project, or another that is to be read, has finished yet
	Held          *Held      `json:"held"`          // nil: not held
	TextHash      []byte     `json:"-"`             // of the texts that are stored of it, see [Text.Hash]
}

// Held is what was seen when an edge's first contact was held: what a click settles,
// and what a person wants to know before it.
type Held struct {
	Shown bool       `json:"shown"`
	Older *bool      `json:"older,omitempty"` // as in Edge
	Stamp string     `json:"stamp"`           // "": none
	Stars []int64    `json:"stars"`
	Since time.Time  `json:"since"`         // when it was first held
	Who   *string    `json:"who,omitempty"` // who gave the newest of stars; nil: nobody knows
	At    *time.Time `json:"at,omitempty"`  // and when
}

// EnqueueTasks makes the keys of tasks dirty, and returns how many keys. For what others
// have locked it waits as long as ctx lets it.
func (l *Ledger) EnqueueTasks(ctx context.Context, tasks []int64, from Source) (int, error) {
	return l.enqueueWhere(ctx, `task_id = ANY($1)`, tasks, from)
}

// EnqueueAnnotations makes the keys dirty whose tasks had one of these annotations
// as a star when we last looked, and returns how many keys. Others change nothing by
// going away. It waits as EnqueueTasks does.
func (l *Ledger) EnqueueAnnotations(ctx context.Context, annotations []int64, from Source) (int, error) {
	return l.enqueueWhere(ctx, `base && $1`, annotations, from)
}

func (l *Ledger) enqueueWhere(ctx context.Context, where string, ids []int64, from Source) (int, error) {
	var n int
	err := untilFree(ctx, func() error {
		return l.pool.QueryRow(ctx, `SELECT mark_dirty(array_agg(key), $2, $3, $4) FROM edge WHERE `+where,
			ids, from.priority(), string(from), minGap).Scan(&n)
	})
	if err != nil {
		return 0, fmt.Errorf("enqueue the keys of %d ids: %w", len(ids), err)
	}
	return n, nil
}

// edgeColumns reads edges as scanEdges takes them.
const edgeColumns = `
	SELECT task_id, key, project, begun, task_created_at, task_updated_at, s, older, last, base, intent_value, intent_attempt,
	       extract(epoch FROM intent_deadline - now())::float8, missing_since, (SELECT full_at FROM project p WHERE p.id = edge.project) IS NULL OR EXISTS (SELECT FROM project WHERE full_at IS NULL), held,
	       (SELECT hash FROM task_text t WHERE t.task_id = edge.task_id)`

// edgesSQL reads the edges of keys, in lock order.
const edgesSQL = edgeColumns + ` FROM edge WHERE key = ANY($1) ORDER BY task_id`

// QueueLockEdges adds to a batch that each edge of keys is locked and handed over.
func QueueLockEdges(b *pgx.Batch, keys []string, each func(Edge)) {
	queueEdges(b, edgesSQL+` FOR UPDATE`, keys, each)
}

func queueEdges(b *pgx.Batch, sql string, keys []string, each func(Edge)) {
	b.Queue(sql, keys).Query(func(rows pgx.Rows) error {
		edges, err := scanEdges(rows)
		for _, e := range edges {
			each(e)
		}
		return err
	})
}

func scanEdges(rows pgx.Rows) (edges []Edge, err error) {
	var e Edge
	_, err = pgx.ForEachRow(rows, []any{&e.Task, &e.Key, &e.Project, &e.Begun, &e.TaskCreatedAt, &e.TaskUpdatedAt, &e.S, &e.Older, &e.Last, &e.Base,
		&e.IntentValue, &e.IntentAttempt, &e.IntentWait, &e.MissingSince, &e.Unmet, &e.Held, &e.TextHash}, func() error {
		edges = append(edges, e)
		e = Edge{}
		return nil
	})
	return edges, err
}

// QueueEdges adds to a batch that edges are stored as they are.
func QueueEdges(b *pgx.Batch, edges []Edge) {
	if len(edges) == 0 {
		return
	}
	b.Queue(`UPDATE edge SET key = x.key, project = x.project, begun = x.begun,
			task_created_at = x.task_created_at, task_updated_at = x.task_updated_at,
			s = x.s, older = x.older, last = x.last, base = COALESCE(x.base, '{}'),
			intent_value = x.intent_value, intent_attempt = x.intent_attempt,
			intent_deadline = CASE WHEN x.intent_for IS NOT NULL THEN now() + x.intent_for * interval '1 second'
			                       WHEN x.intent_value IS NOT NULL THEN edge.intent_deadline END,
			missing_since = x.missing_since, held = x.held
		FROM jsonb_to_recordset($1) AS x(task_id bigint, key text, project bigint, begun text,
			task_created_at timestamptz, task_updated_at timestamptz, s boolean, older boolean, last text, base bigint[],
			intent_value boolean, intent_attempt text, intent_for float8, missing_since timestamptz, held jsonb)
		WHERE edge.task_id = x.task_id`, edges)
}

// QueueUnlink adds to a batch that edges are forgotten altogether: their tasks are
// other tasks now.
func QueueUnlink(b *pgx.Batch, tasks []int64) {
	if len(tasks) > 0 {
		b.Queue(`DELETE FROM edge WHERE task_id = ANY($1)`, tasks)
	}
}

// Patched is what is known of a PATCH's end.
type Patched struct {
	Task      int64      `json:"task_id"`
	Attempt   string     `json:"attempt"`
	Worked    bool       `json:"worked"` // else it was refused: it certainly had no effect
	UpdatedAt *time.Time `json:"updated_at"`
	Answer    string     `json:"answer"` // for the audit
}

// Settle is S5: it clears the intents whose end is known, each only if it is still
// this attempt's, and ends the turns of their keys, together. The claims do not
// matter to the intents, only to the ends.
func (l *Ledger) Settle(ctx context.Context, patched []Patched, ends []End) error {
	b := &pgx.Batch{}
	queueSettle(b, patched, ends)
	if b.Len() == 0 {
		return nil
	}
	if err := l.pool.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("settle %d tasks: %w", len(patched), err)
	}
	return nil
}

func queueSettle(b *pgx.Batch, patched []Patched, ends []End) {
	if len(patched) > 0 {
		b.Queue(`UPDATE edge SET
				s = CASE WHEN x.worked THEN intent_value ELSE s END,
				older = CASE WHEN x.worked THEN NULL ELSE older END,
				last = CASE WHEN x.worked THEN intent_attempt ELSE last END,
				task_updated_at = COALESCE(x.updated_at, task_updated_at),
				intent_value = NULL, intent_attempt = NULL, intent_deadline = NULL
			FROM ( -- locked in lock order
				SELECT x.* FROM jsonb_to_recordset($1) AS x(task_id bigint, attempt text, worked boolean, updated_at timestamptz)
				JOIN edge l USING (task_id) ORDER BY task_id FOR UPDATE OF l
			) x
			WHERE edge.task_id = x.task_id AND edge.intent_attempt = x.attempt`, patched)
		answers := make([]Answer, len(patched))
		for i, p := range patched {
			answers[i] = Answer{Attempt: p.Attempt, Text: p.Answer}
		}
		QueueAnswers(b, answers)
	}
	QueueFinish(b, ends)
}
