package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Project is how far the passes have got in a project.
type Project struct {
	FullAt    *time.Time // when the last full pass over it began; nil: its first is not finished
	Watermark *time.Time // the newest updated_at that was seen, on Label Studio's clock; set with FullAt
}

// Projects returns how far the passes have got, by project.
func (l *Ledger) Projects(ctx context.Context) (map[int64]Project, error) {
	all := map[int64]Project{}
	rows, err := l.pool.Query(ctx, `SELECT id, full_at, watermark FROM project`)
	if err == nil {
		var id int64
		var p Project
		_, err = pgx.ForEachRow(rows, []any{&id, &p.FullAt, &p.Watermark}, func() error {
			all[id] = p
			p = Project{}
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read how far the passes have got: %w", err)
	}
	return all, nil
}

// SetFull notes that a full pass over a project is finished, all its keys being
// committed, and that what changed since begun is the incremental pass's.
func (l *Ledger) SetFull(ctx context.Context, project int64, begun time.Time) error {
	_, err := l.pool.Exec(ctx, `INSERT INTO project AS p (id, full_at, watermark) VALUES ($1, $2, $2)
		ON CONFLICT (id) DO UPDATE SET full_at = EXCLUDED.full_at, watermark = COALESCE(p.watermark, EXCLUDED.watermark)`, project, begun)
	if err != nil {
		return fmt.Errorf("note a full pass over project %d: %w", project, err)
	}
	return nil
}

// EnqueueMet makes the keys of all tasks of projects dirty that had no first contact,
// and notes that the first pass over these projects, begun then, is finished. It
// returns how many keys.
func (l *Ledger) EnqueueMet(ctx context.Context, projects []int64, begun time.Time) (int, error) {
	if len(projects) == 0 {
		return 0, nil
	}
	var n int
	b := &pgx.Batch{}
	b.Queue(`INSERT INTO project AS p (id, full_at, watermark) SELECT id, $2, $2 FROM unnest($1::bigint[]) AS id ORDER BY id
		ON CONFLICT (id) DO UPDATE SET full_at = EXCLUDED.full_at, watermark = EXCLUDED.watermark`, projects, begun)
	b.Queue(`SELECT mark_dirty(array_agg(key), $2, $3, $4) FROM edge WHERE project = ANY($1) AND s IS NULL`,
		projects, FromDiff.priority(), string(FromDiff), minGap).QueryRow(func(r pgx.Row) error { return r.Scan(&n) })
	if err := l.pool.SendBatch(ctx, b).Close(); err != nil {
		return 0, fmt.Errorf("enqueue the tasks of %d new projects: %w", len(projects), err)
	}
	return n, nil
}

// SetWatermark notes what an incremental pass has seen, all its keys being committed.
func (l *Ledger) SetWatermark(ctx context.Context, project int64, newest time.Time) error {
	if _, err := l.pool.Exec(ctx, `UPDATE project SET watermark = $2 WHERE id = $1`, project, newest); err != nil {
		return fmt.Errorf("note the watermark of project %d: %w", project, err)
	}
	return nil
}

// Changed is a task that an incremental pass found.
type Changed struct {
	Link
	UpdatedAt time.Time `json:"updated_at"`
}

// EnqueueTouched links tasks and makes those of their keys dirty that no turn has
// looked at since the task changed, and returns how many.
func (l *Ledger) EnqueueTouched(ctx context.Context, tasks []Changed, initial string) (int, error) {
	return l.enqueueDiffering(ctx, len(tasks), tasks, initial, `
		SELECT unnest(ARRAY[x.key, e.key]) AS key
		FROM jsonb_to_recordset($1) AS x(task_id bigint, key text, updated_at timestamptz) JOIN edge e USING (task_id)
		WHERE e.task_updated_at IS DISTINCT FROM x.updated_at OR e.key <> x.key`)
}

// Shown is a task that a full pass has read.
type Shown struct {
	Link
	Shown bool    `json:"shown"`
	Stars []int64 `json:"stars"`
}

// EnqueueShown links tasks and makes those of their keys dirty that do not show
// what we remember, or what the hub says, and returns how many.
func (l *Ledger) EnqueueShown(ctx context.Context, tasks []Shown, initial string) (int, error) {
	return l.enqueueDiffering(ctx, len(tasks), tasks, initial, `
		SELECT unnest(ARRAY[x.key, e.key]) AS key
		FROM jsonb_to_recordset($1) AS x(task_id bigint, key text, shown boolean, stars bigint[])
		JOIN edge e USING (task_id) LEFT JOIN hub h ON h.key = e.key
		WHERE (h.key IS NOT NULL OR EXISTS (SELECT FROM public."Conquest" c WHERE c.id = x.key))
		  AND (e.key <> x.key OR e.s IS DISTINCT FROM x.shown OR e.base <> COALESCE(x.stars, '{}') OR h.d IS DISTINCT FROM x.shown
		   OR e.intent_value IS NOT NULL OR e.missing_since IS NOT NULL)`)
}

// enqueueDiffering links tasks, then makes the keys dirty that a query over them and
// their edges finds: one round trip, one transaction.
func (l *Ledger) enqueueDiffering(ctx context.Context, n int, tasks any, initial, differing string) (dirty int, err error) {
	if n == 0 {
		return 0, nil
	}
	b := &pgx.Batch{}
	b.Queue(linkSQL, tasks, initial)
	b.Queue(`SELECT mark_dirty(array_agg(key), $2, $3, $4) FROM (`+differing+`) k WHERE key IS NOT NULL`,
		tasks, FromDiff.priority(), string(FromDiff), minGap).QueryRow(func(r pgx.Row) error { return r.Scan(&dirty) })
	if err := l.pool.SendBatch(ctx, b).Close(); err != nil {
		return 0, fmt.Errorf("enqueue the keys of %d tasks: %w", n, err)
	}
	return dirty, nil
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
