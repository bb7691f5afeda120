package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Call is a sync call: Aristotle says that a conquest was marked VICTORY.
type Call struct {
	Key                 string
	Philosopher, Domain string  // must be the conquest's
	Notes               *string // for the task's meta, where the row has none
}

// ErrNotVictory says that the row's result is another one.
var ErrNotVictory = errors.New("the row is not VICTORY")

// EnqueueCall makes the key of a call dirty for a person who waits, and returns the
// generation to wait for. The row decides: without it, or with another philosopher
// or domain, ErrNoConquest, and ErrNotVictory where it says otherwise; then nothing
// is written. The notes stay with the queue's row until a turn has ended that began
// with them. For what others have locked it waits as long as ctx lets it.
func (l *Ledger) EnqueueCall(ctx context.Context, c Call) (gen int64, err error) {
	err = untilFree(ctx, func() error {
		gen, err = l.enqueueCall(ctx, c)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("enqueue the call for %q: %w", c.Key, err)
	}
	return gen, nil
}

func (l *Ledger) enqueueCall(ctx context.Context, c Call) (gen int64, err error) {
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		var victory bool
		err := tx.QueryRow(ctx, `SELECT result IS NOT NULL AND result::text = 'VICTORY' FROM public."Conquest"
			WHERE id = $1 AND philosopher = $2 AND domain = $3`, c.Key, c.Philosopher, c.Domain).Scan(&victory)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return ErrNoConquest
		case err != nil:
			return err
		case !victory:
			return ErrNotVictory
		}
		b := &pgx.Batch{}
		QueueDirty(b, []string{c.Key}, FromAPI)
		b.Queue(`UPDATE queue SET notes = COALESCE($2, notes) WHERE key = $1 RETURNING want_gen`, c.Key, c.Notes).
			QueryRow(func(r pgx.Row) error { return r.Scan(&gen) })
		return tx.SendBatch(ctx, b).Close()
	})
	return gen, err
}

// Standing is how a key stands: what its row says now, and what its tasks showed when
// they were last looked at.
type Standing struct {
	Row     bool // there is one
	Victory bool
	Tasks   []TaskStanding // by id
}

// TaskStanding is one task of a key.
type TaskStanding struct {
	Task, Project int64
	Shown         bool // the star
	Settled       bool // neither new nor with a PATCH whose end is not known
	Held          bool
	Missing       bool
}

// Standing reads how a key stands.
func (l *Ledger) Standing(ctx context.Context, key string) (Standing, error) {
	var s Standing
	b := &pgx.Batch{}
	b.Queue(`SELECT result IS NOT NULL AND result::text = 'VICTORY' FROM public."Conquest" WHERE id = $1`, key).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&s.Victory}, func() error {
			s.Row = true
			return nil
		})
		return err
	})
	b.Queue(`SELECT task_id, project, COALESCE(s, false), s IS NOT NULL AND intent_value IS NULL, held IS NOT NULL, missing_since IS NOT NULL
		FROM edge WHERE key = $1 ORDER BY task_id`, key).Query(func(rows pgx.Rows) error {
		var t TaskStanding
		_, err := pgx.ForEachRow(rows, []any{&t.Task, &t.Project, &t.Shown, &t.Settled, &t.Held, &t.Missing}, func() error {
			s.Tasks = append(s.Tasks, t)
			return nil
		})
		return err
	})
	if err := l.pool.SendBatch(ctx, b).Close(); err != nil {
		return Standing{}, fmt.Errorf("read how %q stands: %w", key, err)
	}
	return s, nil
}
