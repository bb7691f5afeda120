// Package aristotle reads and writes the tables of the Aristotle web app. They are
// its own: it migrates them, and may drop and recreate them while we run. Nothing
// is added to them here, and no column is touched but those that the contract names.
//
// Every function adds to a pgx.Batch, so that rows change in the same transaction
// as what we remember of them. Statements name the tables by schema and cast by the
// column's own type: `result` may be a VARCHAR or an enum, and may change from one
// to the other under us.
package aristotle

import (
	"time"

	"github.com/jackc/pgx/v5"
)

// The results that a conquest can have.
const (
	Pending = "PENDING"
	Victory = "VICTORY"
)

// Conquest is a row of "Conquest", as far as we read it.
type Conquest struct {
	ID          string
	Result      *string
	Notes       *string
	Philosopher string
	Domain      string
	// CreatedAt tells one row from another with the same id. It is the text that the
	// database writes: an exact copy, and nil where the column is.
	CreatedAt *string
}

// IsVictory tells whether the result is VICTORY.
func (c Conquest) IsVictory() bool { return c.Result != nil && *c.Result == Victory }

// QueueLock adds to a batch that the rows with these ids are locked against other
// writers and handed over as they are then. NO KEY: rows that only refer to them
// do not wait for us.
func QueueLock(b *pgx.Batch, ids []string, each func(Conquest)) {
	queueLock(b, lockSQL, ids, each)
}

// QueueLockFree is QueueLock that waits for nobody: of rows that others have locked
// it hands over no more than the ids.
func QueueLockFree(b *pgx.Batch, ids []string, each func(Conquest), busy func(id string)) {
	free := map[string]bool{}
	queueLock(b, lockSQL+` SKIP LOCKED`, ids, func(c Conquest) {
		free[c.ID] = true
		each(c)
	})
	b.Queue(`SELECT id FROM public."Conquest" WHERE id = ANY($1)`, ids).Query(func(rows pgx.Rows) error {
		var id string
		_, err := pgx.ForEachRow(rows, []any{&id}, func() error {
			if !free[id] {
				busy(id)
			}
			return nil
		})
		return err
	})
}

const lockSQL = `SELECT id, result::text, "resultNotes", philosopher, domain, "createdAt"::text
	FROM public."Conquest" WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE`

func queueLock(b *pgx.Batch, sql string, ids []string, each func(Conquest)) {
	b.Queue(sql, ids).
		Query(func(rows pgx.Rows) error {
			var c Conquest
			_, err := pgx.ForEachRow(rows, []any{&c.ID, &c.Result, &c.Notes, &c.Philosopher, &c.Domain, &c.CreatedAt}, func() error {
				each(c)
				c = Conquest{}
				return nil
			})
			return err
		})
}

// Face is a row as a person sees it.
type Face struct {
	ID          string     `json:"id"`
	Title       *string    `json:"title"`
	Result      *string    `json:"result"`
	EvaluatedBy *string    `json:"evaluated_by"`
	EvaluatedAt *time.Time `json:"evaluated_at"` // UTC, nil where it is not [Finite], as UpdatedAt
	UpdatedAt   *time.Time `json:"updated_at"`
}

// Finite is a time in SQL, NULL where Go has none for it, as for infinity, or JSON no text: that
// must keep nobody from the row.
func Finite(column string) string {
	return `CASE WHEN ` + column + ` BETWEEN '0001-01-01' AND '9999-12-31' THEN ` + column + ` END`
}

// QueueFaces adds to a batch that the rows with these ids are handed over, unlocked.
func QueueFaces(b *pgx.Batch, ids []string, each func(Face)) {
	b.Queue(`SELECT id, title, result::text, "evaluatedBy", `+Finite(`"evaluatedAt"`)+`, `+Finite(`"updatedAt"`)+`
		FROM public."Conquest" WHERE id = ANY($1)`, ids).
		Query(func(rows pgx.Rows) error {
			var f Face
			_, err := pgx.ForEachRow(rows, []any{&f.ID, &f.Title, &f.Result, &f.EvaluatedBy, &f.EvaluatedAt, &f.UpdatedAt}, func() error {
				each(f)
				f = Face{}
				return nil
			})
			return err
		})
}

// Verdict is a person's word on a conquest, said elsewhere.
type Verdict struct {
	ID     string  `json:"id"`
	Result string  `json:"result"` // Victory, or what it was before
	By     *string `json:"by"`     // e-mail; nil: nobody knows
}

// QueueVerdicts adds to a batch that rows follow a person's word: the result, whether
// it is an example, who said so and when.
func QueueVerdicts(b *pgx.Batch, verdicts []Verdict) {
	if len(verdicts) == 0 {
		return
	}
	// jsonb_populate_record casts the text to whatever type the column has.
	b.Queue(`UPDATE public."Conquest" c SET
			result = (jsonb_populate_record(NULL::public."Conquest", jsonb_build_object('result', x.result))).result,
			"useAsExample" = (x.result = 'VICTORY'),
			"evaluatedBy" = x.by,
			"evaluatedAt" = now() AT TIME ZONE 'UTC',
			"updatedAt" = now() AT TIME ZONE 'UTC'
		FROM jsonb_to_recordset($1) AS x(id text, result text, by text)
		WHERE c.id = x.id`, verdicts)
}

// utc reads a timestamp without a zone as what it is.
func utc(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}
