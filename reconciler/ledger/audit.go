package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Audit is the record of one decision that wrote something or held back: what both
// sides showed, what was made of it and why.
type Audit struct {
	Key     string  `json:"key"`
	Task    *int64  `json:"task_id"` // nil: it concerns the key as a whole
	Source  Source  `json:"source"`  // the trigger
	Reason  string  `json:"reason"`
	Said    *bool   `json:"said"`    // what a person said; nil: nobody said anything
	SaidBy  *string `json:"said_by"` // where: "meta", "annotation", "task", "click"
	Who     *string `json:"who"`     // e-mail; nil: nobody knows
	Result  *string `json:"result"`  // the row's, as it was locked
	Shown   *bool   `json:"shown"`   // what the task showed
	Stars   []int64 `json:"stars"`   // its annotations that said star
	D       *bool   `json:"d"`       // the hub after it
	N       *int64  `json:"n"`
	Wrote   *string `json:"wrote"`   // the row's new result; nil: the row was left alone
	Intent  *bool   `json:"intent"`  // the star that the PATCH is to write; nil: no PATCH
	Attempt *string `json:"attempt"` // of that PATCH
}

// FromLook is the source in a record where only the look after a PATCH was due: no trigger, and so none of the metrics.
const FromLook Source = "look"

// The reasons of records that no decision on a task gives.
const (
	ReasonRow     = "edit of the row"
	ReasonRating  = "rating"
	ReasonForget  = "the row is gone or another one"
	ReasonRelink  = "another task now"
	ReasonMissing = "the task is gone"
	ReasonBack    = "the task is back"
	ReasonClick   = "click"
	ReasonSettled = "hold settled by a click"
)

// QueueAudit adds the records to a batch that is to commit with what they tell of.
func QueueAudit(b *pgx.Batch, records []Audit) {
	if len(records) == 0 {
		return
	}
	b.Queue(`INSERT INTO audit (key, task_id, source, reason, said, said_by, who, result, shown, stars, d, n, wrote, intent, attempt)
		SELECT key, task_id, source, reason, said, said_by, who, result, shown, stars, d, n, wrote, intent, attempt
		FROM jsonb_to_recordset($1) AS x(key text, task_id bigint, source text, reason text, said boolean, said_by text, who text,
			result text, shown boolean, stars bigint[], d boolean, n bigint, wrote text, intent boolean, attempt text)`, records)
}

// Answer is what became of a PATCH, in words for the record that it belongs to.
type Answer struct {
	Attempt string `json:"attempt"`
	Text    string `json:"text"`
}

// The answers. A refusal has its error behind a colon. Where S5 never learned one, the
// turn that finds the intent again says what it found.
const (
	AnswerWorked   = "worked"
	AnswerRefused  = "refused" // it certainly had no effect
	AnswerFound    = "no answer, found to have worked"
	AnswerReversed = "no answer, found to have worked and to have been reversed"
	AnswerNever    = "no answer, found to have had no effect"
)

// QueueAnswers adds to a batch that records learn what became of their PATCHes. The
// first answer stays.
func QueueAnswers(b *pgx.Batch, answers []Answer) {
	if len(answers) > 0 {
		b.Queue(`UPDATE audit a SET answer = x.text FROM jsonb_to_recordset($1) AS x(attempt text, text text)
			WHERE a.attempt = x.attempt AND a.answer IS NULL`, answers)
	}
}

// pruneBatch bounds what one statement deletes.
const pruneBatch = 1000

// Prune deletes records that are older than keep, oldest first and a batch at most, and
// tells whether there may be more. It reads no more than that batch: records are
// written in the order of their ids, or nearly.
func (l *Ledger) Prune(ctx context.Context, keep time.Duration) (more bool, err error) {
	tag, err := l.pool.Exec(ctx, `DELETE FROM audit USING (SELECT id FROM audit ORDER BY id LIMIT $2) oldest
		WHERE audit.id = oldest.id AND audit.at < now() - $1::interval`, keep, pruneBatch)
	if err != nil {
		return false, fmt.Errorf("prune the audit: %w", err)
	}
	return tag.RowsAffected() == pruneBatch, nil
}
