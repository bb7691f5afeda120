package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Finding is a key that a pass found different, or that is to be looked at.
type Finding struct {
	Key       string `json:"key"`
	Class     string `json:"class"`     // of drift, as the metrics name it; "": only to be looked at
	Change    string `json:"change"`    // "set", "clear", "link" or "stray", as a Tally counts it; "": none of them
	Explained bool   `json:"explained"` // it is being worked on, or changed meanwhile
	Leave     bool   `json:"leave"`     // it is noted, and not made dirty: a turn would change nothing
	Decision  string `json:"decision"`  // what a turn would do
	Reason    string `json:"reason"`
}

// AddFindings commits what a pass has found up to a key, and that it has got there.
func (l *Ledger) AddFindings(ctx context.Context, pass int64, runner string, found []Finding, upto string) error {
	b := &pgx.Batch{}
	queueFindings(b, pass, found)
	return l.step(ctx, b, pass, `key = $3`, runner, upto)
}

// queueFindings keeps since where an earlier pass found the same.
func queueFindings(b *pgx.Batch, pass int64, found []Finding) {
	if len(found) == 0 {
		return
	}
	b.Queue(`INSERT INTO finding (pass, key, class, change, explained, decision, reason, since, marked_at)
		SELECT $1, x.key, x.class, x.change, x.explained, x.decision, x.reason,
			COALESCE((SELECT min(since) FROM finding f WHERE f.key = x.key AND f.class = x.class), now()), CASE WHEN x.leave THEN now() END
		FROM jsonb_to_recordset($2) AS x(key text, class text, change text, explained boolean, leave boolean, decision text, reason text)
		ON CONFLICT (key, pass) DO UPDATE SET class = EXCLUDED.class, change = EXCLUDED.change, explained = EXCLUDED.explained,
			decision = EXCLUDED.decision, reason = EXCLUDED.reason, marked_at = EXCLUDED.marked_at`, pass, found)
}

// Stray is a key with the first of the tasks that a pass saw name it and did not link.
type Stray struct {
	Key           string
	Task, Project int64
}

// Strays returns them in the order of keys; stray is what is noted of such a task.
func (l *Ledger) Strays(ctx context.Context, pass int64, stray any) ([]Stray, error) {
	rows, err := l.pool.Query(ctx, `SELECT DISTINCT ON (seen->>'key') seen->>'key', task_id, project FROM sight WHERE pass = $1 AND seen @> $2 AND seen ? 'key' ORDER BY 1, 2`, pass, stray)
	if err != nil {
		return nil, fmt.Errorf("read the strays of pass %d: %w", pass, err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Stray])
}

// Plan hands the findings of a pass that it would act upon over, in the order of the
// keys' bytes. What a person has released already is not asked for again.
func (l *Ledger) Plan(ctx context.Context, pass int64, each func(Finding) error) error {
	rows, err := l.pool.Query(ctx, `SELECT key, class, change, explained, decision, reason FROM finding f
		WHERE pass = $1 AND marked_at IS NULL AND NOT EXISTS (SELECT FROM finding o JOIN pass p ON p.id = o.pass AND p.state = 'marking' AND p.released_at IS NOT NULL
			WHERE o.key = f.key AND o.change = f.change AND o.marked_at IS NULL)
		ORDER BY key COLLATE "C"`, pass)
	if err == nil {
		var f Finding
		_, err = pgx.ForEachRow(rows, []any{&f.Key, &f.Class, &f.Change, &f.Explained, &f.Decision, &f.Reason}, func() error { return each(f) })
	}
	if err != nil {
		return fmt.Errorf("read the plan of pass %d: %w", pass, err)
	}
	return nil
}

// LastHour is what the passes of the last hour have done without being asked by a
// person.
func (l *Ledger) LastHour(ctx context.Context) (Tally, error) {
	var t Tally
	err := l.pool.QueryRow(ctx, `SELECT COALESCE(sum(sets), 0)::int, COALESCE(sum(clears), 0)::int, COALESCE(sum(links), 0)::int FROM pass
		WHERE ended_at > now() - interval '1 hour' AND released_at IS NULL AND state IN ('marking', 'done')`).Scan(&t.Sets, &t.Clears, &t.Links)
	if err != nil {
		return Tally{}, fmt.Errorf("count what the passes of the last hour did: %w", err)
	}
	return t, nil
}

// LinkedKeys counts the keys that have a task.
func (l *Ledger) LinkedKeys(ctx context.Context) (n int, err error) {
	if err = l.pool.QueryRow(ctx, `SELECT count(DISTINCT key) FROM edge`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the linked keys: %w", err)
	}
	return n, nil
}

// Planned is what a pass has come to.
type Planned struct {
	Plan  string // its hash; "": it would change nothing
	Brake string // why it must stop; "": it may go on
	Tally
}

func (p Planned) state() PassState {
	if p.Brake != "" {
		return PassBraked
	}
	return PassMarking
}

// EndComparing commits what a full pass has come to. What earlier passes had found
// and this one did not is over; read are the projects that it has read, whose news
// since it began are the incremental pass's from now on: what was more than that could
// hold must not be asked for again. skew is what the clocks may differ by. Sights that hold
// stray are kept, for [Ledger.Release].
func (l *Ledger) EndComparing(ctx context.Context, pass int64, runner string, is Planned, read []int64, skew time.Duration, stray any) error {
	b := &pgx.Batch{}
	b.Queue(`INSERT INTO project AS p (id, full_at, watermark)
		SELECT r, began_at, began_at - $3::interval FROM pass, unnest($2::bigint[]) AS r WHERE pass.id = $1 ORDER BY r
		ON CONFLICT (id) DO UPDATE SET full_at = EXCLUDED.full_at, watermark = GREATEST(p.watermark, EXCLUDED.watermark)`, pass, read, skew)
	// One that reads more than this one goes on, with what it has found, and so does one that a person has released.
	b.Queue(`UPDATE pass o SET state = 'replaced', ended_at = COALESCE(o.ended_at, now()) FROM pass p
		WHERE p.id = $1 AND o.id < p.id AND o.state IN ('braked', 'marking', 'reading', 'comparing') AND o.released_at IS NULL AND (p.projects IS NULL OR o.projects <@ p.projects)`, pass)
	b.Queue(`DELETE FROM finding f USING pass o WHERE o.id = f.pass AND o.id < $1 AND o.state IN ('done', 'replaced')`, pass)
	b.Queue(`DELETE FROM sight s USING pass o WHERE o.id = s.pass AND (o.id = $1 AND NOT seen @> $2 OR o.state IN ('done', 'replaced'))`, pass, stray)
	return l.step(ctx, b, pass, endSet, runner, is.state(), is.Plan, is.Sets, is.Clears, is.Links, is.Brake)
}

const endSet = `state = $3, plan = NULLIF($4, ''), sets = $5, clears = $6, links = $7, brake = NULLIF($8, ''), ended_at = now()`

// Incremental is what an incremental pass has come to.
type Incremental struct {
	Why        string
	Found      []Finding
	Watermarks map[int64]time.Time // the newest updated_at that it saw, by project
	Planned
}

// EndIncremental commits it: its findings are to be made dirty, or braked, and what it
// has seen need not be read again. One that found nothing to act upon leaves no trace
// but the watermarks, and one that finds a plan that is braked already adds to it.
func (l *Ledger) EndIncremental(ctx context.Context, is Incremental) error {
	b := &pgx.Batch{}
	for project, at := range is.Watermarks {
		b.Queue(`UPDATE project SET watermark = $2 WHERE id = $1 AND watermark < $2`, project, at)
	}
	if b.Len() == 0 && len(is.Found) == 0 {
		return nil
	}
	err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		if len(is.Found) > 0 {
			var pass int64
			err := tx.QueryRow(ctx, `WITH same AS (
					SELECT id FROM pass WHERE kind = 'incremental' AND state = 'braked' AND $1 = 'braked' AND plan = $3 LIMIT 1
				), made AS (
					INSERT INTO pass (kind, state, why, began_at, ended_at, plan, sets, clears, links, brake)
					SELECT 'incremental', $1, $2, now(), now(), NULLIF($3, ''), $4::int, $5::int, $6::int, NULLIF($7, '') WHERE NOT EXISTS (TABLE same) RETURNING id
				) TABLE same UNION ALL TABLE made`,
				is.state(), is.Why, is.Plan, is.Sets, is.Clears, is.Links, is.Brake).Scan(&pass)
			if err != nil {
				return err
			}
			queueFindings(b, pass, is.Found)
		}
		return tx.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return fmt.Errorf("commit an incremental pass: %w", err)
	}
	return nil
}

// MarkFound makes findings dirty of passes that may, until most keys wait that passes have
// made dirty: people's changes go first, and the queue stays short. It returns how
// many it made dirty, and whether more are to come.
func (l *Ledger) MarkFound(ctx context.Context, most int) (n int, more bool, err error) {
	const sql = `WITH room AS (
			SELECT $1 - count(*) AS n FROM (
				SELECT FROM queue WHERE want_gen > done_gen AND priority = $2 AND leased_until IS NULL AND attempts = 0 LIMIT $1) waiting
		), next AS (
			SELECT f.key, f.pass FROM finding f JOIN pass p ON p.id = f.pass AND p.state = 'marking'
			WHERE f.marked_at IS NULL ORDER BY f.pass, f.key LIMIT (SELECT GREATEST(n, 0) FROM room)
		), noted AS (
			UPDATE finding f SET marked_at = now() FROM next WHERE f.key = next.key AND f.pass = next.pass AND f.class <> '' RETURNING f.key
		), looked AS (
			DELETE FROM finding f USING next WHERE f.key = next.key AND f.pass = next.pass AND f.class = '' RETURNING f.key
		)
		SELECT count(*), COALESCE(mark_dirty(array_agg(key), $2::smallint, $3, $4), 0) FROM (TABLE noted UNION ALL TABLE looked) marked`
	var dirty int
	b := &pgx.Batch{}
	b.Queue(sql, most, FromDiff.priority(), string(FromDiff), minGap).QueryRow(func(r pgx.Row) error { return r.Scan(&n, &dirty) })
	b.Queue(`UPDATE pass SET state = 'done' WHERE state = 'marking' AND NOT EXISTS (SELECT FROM finding f WHERE f.pass = pass.id AND marked_at IS NULL)`)
	b.Queue(`SELECT EXISTS (SELECT FROM pass WHERE state = 'marking')`).QueryRow(func(r pgx.Row) error { return r.Scan(&more) })
	if err := l.transact(ctx, b); err != nil {
		return 0, false, fmt.Errorf("make findings dirty: %w", err)
	}
	return n, more, nil
}

// ErrNoPlan says that no braked pass has this plan.
var ErrNoPlan = errors.New("no braked pass has this plan")

// Release lets a braked pass go on: exactly the plan that has this hash, by a person
// whose word it is, strays and all: by them their project is known from now on, also those
// that have the number of a task that we knew, unless a PATCH of that one is not settled. It returns
// how many keys that are. [ErrNoPlan]: there is none, or it was replaced by a later one.
func (l *Ledger) Release(ctx context.Context, hash, by string) (int, error) {
	var n int
	err := l.pool.QueryRow(ctx, `WITH released AS (
			UPDATE pass SET state = 'marking', released_at = now(), released_by = $2 WHERE state = 'braked' AND plan = $1 RETURNING id, sets + clears + links AS n
		), strays AS (
			DELETE FROM sight s USING released r WHERE s.pass = r.id RETURNING s.task_id, s.project, s.seen->>'key' AS key, (s.seen->>'created_at')::timestamptz AS created
		), linked AS (
			INSERT INTO edge AS e (task_id, key, project, begun, task_created_at) SELECT DISTINCT ON (task_id) task_id, key, project, 'union', created FROM strays WHERE key IS NOT NULL ORDER BY task_id
			ON CONFLICT (task_id) DO UPDATE SET key = EXCLUDED.key, project = EXCLUDED.project, begun = EXCLUDED.begun, task_created_at = EXCLUDED.task_created_at, task_updated_at = NULL,
				s = NULL, older = NULL, last = NULL, base = '{}', missing_since = NULL, held = NULL WHERE e.intent_value IS NULL RETURNING task_id
		), others AS (
			DELETE FROM task_text t USING linked l WHERE t.task_id = l.task_id
		), told AS (
			INSERT INTO audit (key, task_id, source, reason) SELECT e.key, task_id, $4, $5 FROM edge e JOIN strays s USING (task_id) WHERE s.key IS NOT NULL AND e.intent_value IS NULL)
		SELECT n, pg_notify($3, '')::text FROM released`, hash, by, channel(l.schema, "poke"), FromDiff, ReasonRelink).Scan(&n, nil)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("release plan %q: %w", hash, ErrNoPlan)
	}
	if err != nil {
		return 0, fmt.Errorf("release plan %q: %w", hash, err)
	}
	return n, nil
}

// Drift is what the passes have found different and no turn has settled since.
type Drift struct {
	Class  string
	Keys   int
	Oldest time.Time // since when the first of them is known
}

// Drift counts it by class. Held keys are not in it: edges have them.
func (l *Ledger) Drift(ctx context.Context) (all []Drift, err error) {
	rows, err := l.pool.Query(ctx, `SELECT f.class, count(DISTINCT f.key), min(f.since) FROM finding f LEFT JOIN queue q ON q.key = f.key
		WHERE f.class NOT IN ('', 'held') AND NOT f.explained AND `+unsettled+` GROUP BY f.class ORDER BY f.class`)
	if err == nil {
		var d Drift
		_, err = pgx.ForEachRow(rows, []any{&d.Class, &d.Keys, &d.Oldest}, func() error {
			all = append(all, d)
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("count the drift: %w", err)
	}
	return all, nil
}

// unsettled: no turn that began after the finding has ended well.
const unsettled = `(q.key IS NULL OR q.want_gen > q.done_gen OR q.tried_at IS NULL OR q.tried_at < f.found_at)`

// DropSettled forgets the findings that turns have settled, and passes that ended long
// ago. It tells whether findings are left.
func (l *Ledger) DropSettled(ctx context.Context) (left bool, err error) {
	b := &pgx.Batch{}
	b.Queue(`DELETE FROM finding f USING queue q WHERE q.key = f.key AND f.marked_at IS NOT NULL AND NOT ` + unsettled)
	b.Queue(`DELETE FROM pass WHERE state IN ('done', 'replaced') AND ended_at < now() - interval '30 days'
		AND id < (SELECT max(id) FROM pass WHERE kind = 'full' AND projects IS NULL)`)
	b.Queue(`SELECT EXISTS (SELECT FROM finding)`).QueryRow(func(r pgx.Row) error { return r.Scan(&left) })
	if err := l.pool.SendBatch(ctx, b).Close(); err != nil {
		return false, fmt.Errorf("forget settled findings: %w", err)
	}
	return left, nil
}

// Since returns since when passes have known keys to be of a class of drift, by key.
func (l *Ledger) Since(ctx context.Context, keys []string) (map[string]time.Time, error) {
	since := map[string]time.Time{}
	rows, err := l.pool.Query(ctx, `SELECT key, min(since) FROM finding WHERE key = ANY($1) AND class <> '' GROUP BY key`, keys)
	if err == nil {
		var key string
		var at time.Time
		_, err = pgx.ForEachRow(rows, []any{&key, &at}, func() error {
			since[key] = at
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("look since when keys differ: %w", err)
	}
	return since, nil
}
