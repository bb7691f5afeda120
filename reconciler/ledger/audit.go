package ledger

import "github.com/jackc/pgx/v5"

// Audit is the record of one decision that wrote something or held back.
type Audit struct {
	Key     string  `json:"key"`
	Task    *int64  `json:"task_id"`
	Source  Source  `json:"source"`
	Reason  string  `json:"reason"`
	Said    *bool   `json:"said"`
	SaidBy  *string `json:"said_by"`
	Who     *string `json:"who"`
	Result  *string `json:"result"` // the row's, as it was locked
	Shown   *bool   `json:"shown"`
	Stars   []int64 `json:"stars"`
	D       *bool   `json:"d"`
	N       *int64  `json:"n"`
	Wrote   *string `json:"wrote"`  // the row's new result
	Intent  *bool   `json:"intent"` // the star that the PATCH is to write
	Attempt *string `json:"attempt"`
}

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
