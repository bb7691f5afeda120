package ledger

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Source is what made a key dirty. It is a label of the metrics and of the audit.
type Source string

// The sources of triggers.
const (
	FromWAL      Source = "wal"
	FromWebhook  Source = "webhook"
	FromDiff     Source = "diff"
	FromAPI      Source = "api"
	FromCuration Source = "curation"
)

// priority of a source: a person waiting, then what people did, then what a pass found.
func (s Source) priority() int16 {
	switch s {
	case FromAPI, FromCuration:
		return 0
	case FromDiff:
		return 2
	default:
		return 1
	}
}

const (
	// minGap keeps triggers from pulling a key that failed closer than this to its last attempt.
	minGap = time.Second
	// A commit is in the WAL before others see it: for microseconds, or with
	// synchronous replication until the standby has it.
	firstUnseen = time.Millisecond
	maxUnseen   = 100 * time.Millisecond
	// Lease is how long a claimed key is left alone. It only saves work: claim and
	// deadline are what protects.
	Lease = time.Minute
	// SearchAgain is how long "this conquest has no task" is believed. New tasks are
	// found by webhook and by the passes; this is the net below them.
	SearchAgain = 10 * time.Minute
)

//go:embed sql/enqueue_changed.sql
var enqueueChanged string

// EnqueueChanged makes those of keys dirty whose row, as it is now, differs from the
// hub, and returns how many. It is for changes of rows of "Conquest" by transactions
// that the WAL has: it waits until they can be seen, and for locks, as long as ctx lets it.
// Nobody is notified: whoever calls it wakes the worker, as the leader's stream can.
func (l *Ledger) EnqueueChanged(ctx context.Context, keys []string, by []uint32, from Source) (int, error) {
	if len(keys) == 0 {
		return 0, nil
	}
	xids := make([]int64, len(by))
	for i, x := range by {
		xids[i] = int64(x)
	}
	for wait := firstUnseen; ; wait = min(2*wait, maxUnseen) {
		var n *int
		err := l.pool.QueryRow(ctx, enqueueChanged, keys, from.priority(), string(from), minGap, xids).Scan(&n)
		if err != nil && !IsLocked(err) {
			return 0, fmt.Errorf("enqueue %d changed keys: %w", len(keys), err)
		}
		if n != nil {
			return *n, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, fmt.Errorf("wait to see a transaction that the stream has: %w", ctx.Err())
		}
	}
}

// Enqueue makes keys dirty, and returns how many there were.
func (l *Ledger) Enqueue(ctx context.Context, keys []string, from Source) (int, error) {
	if len(keys) == 0 {
		return 0, nil
	}
	var n int
	if err := l.pool.QueryRow(ctx, markDirty, keys, from.priority(), string(from), minGap).Scan(&n); err != nil {
		return 0, fmt.Errorf("enqueue %d keys: %w", len(keys), err)
	}
	return n, nil
}

// IsLocked tells that a statement gave up a lock that it will get another time.
func IsLocked(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "55P03" || pg.Code == "40P01")
}

// untilFree does something, again for as long as locks keep it from it and ctx lets it: it
// is for what nobody else would try again.
func untilFree(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil || !IsLocked(err) {
			return err
		}
		select {
		case <-time.After(firstUnseen): // the lock timeout was the wait
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}

const markDirty = `SELECT mark_dirty($1, $2, $3, $4)`

// QueueDirty adds to a batch that keys are dirty.
func QueueDirty(b *pgx.Batch, keys []string, from Source) {
	if len(keys) > 0 {
		b.Queue(markDirty, keys, from.priority(), string(from), minGap)
	}
}

// Claim is a key that this worker may turn, for as long as nobody claims it again.
type Claim struct {
	Key      string
	Gen      int64 // want_gen as of the claim: what a success will have done
	Claim    int64
	Dirty    bool // false: only the look after a PATCH was due
	Attempts int
	Since    time.Time
	Source   Source
	Search   bool   // VICTORY without a known task: look one up
	Hub      bool   // it has one
	N        *int64 // how often its value had changed; nil: it had none
	Edges    []ClaimedEdge
}

// ClaimedEdge is a task of a claimed key, and its intent as of the claim.
type ClaimedEdge struct {
	Task, Project int64
	Attempt       string // "": no intent
	Alive         bool   // its deadline had not passed
	Base          []int64
	TaskCreatedAt *time.Time // nil: never read
}

//go:embed sql/claim.sql
var claimSQL string

// Claim takes up to dirty keys that are dirty, and up to looks keys that are due
// for the look after a PATCH. It is S1 of the protocol.
func (l *Ledger) Claim(ctx context.Context, dirty, looks int) ([]Claim, error) {
	return l.SettleAndClaim(ctx, nil, nil, dirty, looks)
}

// SettleAndClaim is S5 of some keys and S1 of the next, in one transaction and one
// round trip: all of it is done, or nothing.
func (l *Ledger) SettleAndClaim(ctx context.Context, patched []Patched, ends []End, dirty, looks int) ([]Claim, error) {
	b := &pgx.Batch{}
	queueSettle(b, patched, ends)
	var claims []Claim
	b.Queue(claimSQL, dirty, looks, Lease, SearchAgain).Query(func(rows pgx.Rows) (err error) {
		claims, err = claimsOf(rows)
		return err
	})
	if err := l.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("settle %d tasks and claim keys: %w", len(patched), err)
	}
	return claims, nil
}

func claimsOf(rows pgx.Rows) (claims []Claim, err error) {
	var c Claim
	var task, project *int64
	var attempt *string
	var alive, search *bool
	var base []int64
	var created *time.Time
	dst := []any{&c.Key, &c.Gen, &c.Claim, &c.Dirty, &c.Attempts, &c.Since, &c.Source, &task, &project, &attempt, &alive, &base, &created, &search, &c.Hub, &c.N}
	_, err = pgx.ForEachRow(rows, dst, func() error {
		if n := len(claims); n == 0 || claims[n-1].Key != c.Key {
			c.Search = search != nil && *search
			claims = append(claims, c)
		}
		if task != nil {
			e := ClaimedEdge{Task: *task, Project: *project, Base: base, TaskCreatedAt: created}
			if attempt != nil {
				e.Attempt, e.Alive = *attempt, *alive
			}
			last := &claims[len(claims)-1]
			last.Edges = append(last.Edges, e)
		}
		base, created, c.N = nil, nil, nil
		return nil
	})
	return claims, err
}

// End is how a turn of one key ended. The zero value but for the names is a success.
type End struct {
	Key    string   `json:"key"`
	Claim  int64    `json:"claim"`
	Gen    int64    `json:"gen"`
	Look   *float64 `json:"look"`   // seconds until one more look
	Wait   *float64 `json:"wait"`   // still dirty, due again in so many seconds
	Failed bool     `json:"failed"` // counts as an attempt
	Error  *string  `json:"error"`
	// To is where a turn that failed would have carried a change, as the metrics name it; "": it is not counted by its end.
	To string `json:"-"`
}

//go:embed sql/finish.sql
var finishSQL string

// QueueFinish adds the ends to a batch that is to commit with what led to them.
func QueueFinish(b *pgx.Batch, ends []End) {
	if len(ends) > 0 {
		b.Queue(finishSQL, ends, minGap)
	}
}

// DropLeases lets a new leader take up at once what another had claimed. A
// predecessor that is still at it is stopped by its claims, not by this.
func (l *Ledger) DropLeases(ctx context.Context) error {
	if _, err := l.pool.Exec(ctx, `UPDATE queue SET leased_until = NULL WHERE leased_until IS NOT NULL`); err != nil {
		return fmt.Errorf("drop leases: %w", err)
	}
	return nil
}

// Listen calls wake whenever a trigger has committed, until ctx ends or the
// connection does. It calls it once at the start, for what came before.
func (l *Ledger) Listen(ctx context.Context, wake func()) error {
	return l.listen(ctx, []string{l.schema}, wake, func(*pgconn.Notification) { wake() })
}

// listen calls begun once notifications of the channels will arrive, then each with
// every one, until ctx ends or the connection does.
func (l *Ledger) listen(ctx context.Context, channels []string, begun func(), each func(*pgconn.Notification)) error {
	pooled, err := l.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	// The session must not go back to the pool still listening, nor count for it.
	conn := pooled.Hijack()
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, c := range channels {
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{c}.Sanitize()); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
	}
	for begun(); ; {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil
			}
			return fmt.Errorf("listen: %w", err)
		}
		each(n)
	}
}
