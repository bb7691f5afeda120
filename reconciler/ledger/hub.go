package ledger

import (
	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle"
)

// Hub is what is stored of a key.
type Hub struct {
	Key      string  `json:"key"`
	D        *bool   `json:"d"` // nil: no turn has come yet
	N        int64   `json:"n"`
	Before   *string `json:"before"` // the row's result before VICTORY; nil: unknown
	Searched bool    `json:"searched"`
	// The row's "createdAt" as the database writes it.
	CreatedAt *string `json:"created_at"`
}

// Of tells whether the hub is this row's, not that of an earlier one with the same id.
func (h *Hub) Of(c *aristotle.Conquest) bool {
	if h.CreatedAt == nil || c.CreatedAt == nil {
		return h.CreatedAt == c.CreatedAt
	}
	return *h.CreatedAt == *c.CreatedAt
}

// GiveBack is the result that the row gets when its star is taken away: the one it
// had before VICTORY, PENDING where that is not known. h may be nil.
func (h *Hub) GiveBack() string {
	if h == nil || h.Before == nil || *h.Before == aristotle.Victory {
		return aristotle.Pending
	}
	return *h.Before
}

// Missed tells whether the row came to its result unseen, where that was lost with a slot:
// taking a star away would give back an older one.
func (h *Hub) Missed(c *aristotle.Conquest) bool {
	now := aristotle.Pending
	if c.Result != nil {
		now = *c.Result
	}
	return now != aristotle.Victory && now != h.GiveBack()
}

// QueueNewHubs adds to a batch that keys which have a row get a hub, empty, where they
// have none. It comes before QueueLockHubs: made only when it is written, after the
// locks on the queue, a hub would break the lock order.
func QueueNewHubs(b *pgx.Batch, keys []string) {
	if len(keys) > 0 {
		b.Queue(`INSERT INTO hub (key, created_at) SELECT id, "createdAt" FROM public."Conquest" WHERE id = ANY($1)
			ORDER BY id ON CONFLICT DO NOTHING`, keys)
	}
}

// QueueLockHubs adds to a batch that each hub of keys is locked and handed over.
func QueueLockHubs(b *pgx.Batch, keys []string, each func(Hub)) {
	queueHubs(b, hubsSQL+` FOR UPDATE`, keys, each)
}

// hubsSQL reads the hubs of keys, in lock order.
const hubsSQL = `SELECT key, d, n, created_at::text, before FROM hub WHERE key = ANY($1) ORDER BY key`

func queueHubs(b *pgx.Batch, sql string, keys []string, each func(Hub)) {
	b.Queue(sql, keys).Query(func(rows pgx.Rows) error {
		var h Hub
		_, err := pgx.ForEachRow(rows, []any{&h.Key, &h.D, &h.N, &h.CreatedAt, &h.Before}, func() error {
			each(h)
			h = Hub{}
			return nil
		})
		return err
	})
}

// QueueHubs adds to a batch that hubs are stored as they are.
func QueueHubs(b *pgx.Batch, hubs []Hub) {
	if len(hubs) == 0 {
		return
	}
	b.Queue(`INSERT INTO hub AS h (key, d, n, created_at, before, searched_at)
		SELECT key, d, n, created_at, before, CASE WHEN searched THEN now() END
		FROM jsonb_to_recordset($1) AS x(key text, d boolean, n bigint, created_at timestamp, before text, searched boolean)
		ORDER BY key
		ON CONFLICT (key) DO UPDATE SET d = EXCLUDED.d, n = EXCLUDED.n, created_at = EXCLUDED.created_at,
			before = EXCLUDED.before, searched_at = COALESCE(EXCLUDED.searched_at, h.searched_at)`, hubs)
}

// QueueForget adds to a batch that the hubs of keys are forgotten: their rows are gone.
func QueueForget(b *pgx.Batch, keys []string) {
	if len(keys) > 0 {
		b.Queue(`DELETE FROM hub WHERE key = ANY($1)`, keys)
	}
}

// QueueClaims adds to a batch that the claims of keys are read and locked, last of
// all locks, and the notes that a sync call left there.
func QueueClaims(b *pgx.Batch, keys []string, each func(key string, claim int64, notes *string)) {
	b.Queue(`SELECT key, claim, notes FROM queue WHERE key = ANY($1) ORDER BY key FOR UPDATE`, keys).
		Query(func(rows pgx.Rows) error {
			var key string
			var claim int64
			var notes *string
			_, err := pgx.ForEachRow(rows, []any{&key, &claim, &notes}, func() error {
				each(key, claim, notes)
				notes = nil
				return nil
			})
			return err
		})
}
