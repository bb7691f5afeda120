package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Webhook is what we know of our webhook of a project.
type Webhook struct {
	Project     int64
	ID          int64      // in Label Studio; 0: there is none
	Since       time.Time  // when it was made or mended last
	Problem     string     // what keeps us from having one; "": nothing
	DeliveredAt *time.Time // when something arrived, to half a minute; nil: never
	MissedAt    *time.Time // when a pass found what it should have announced; nil: never
}

// Silent tells whether a change was found that nobody had announced, and nothing has
// arrived since: Label Studio does not reach us, and tells nobody.
func (w Webhook) Silent() bool {
	return w.MissedAt != nil && (w.DeliveredAt == nil || w.DeliveredAt.Before(*w.MissedAt))
}

// Webhooks returns what we know of our webhooks, by project.
func (l *Ledger) Webhooks(ctx context.Context) (map[int64]Webhook, error) {
	all := map[int64]Webhook{}
	rows, err := l.pool.Query(ctx, `SELECT project, id, since, COALESCE(problem, ''), delivered_at, missed_at FROM webhook`)
	if err == nil {
		var w Webhook
		_, err = pgx.ForEachRow(rows, []any{&w.Project, &w.ID, &w.Since, &w.Problem, &w.DeliveredAt, &w.MissedAt}, func() error {
			all[w.Project] = w
			w = Webhook{}
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read what is known of the webhooks: %w", err)
	}
	return all, nil
}

// SetWebhook notes which webhook a project has, or why it has none. One that was made or
// mended has missed nothing yet.
func (l *Ledger) SetWebhook(ctx context.Context, project, id int64, problem string, mended bool) error {
	_, err := l.pool.Exec(ctx, `INSERT INTO webhook AS w (project, id, since, problem) VALUES ($1, $2, now(), NULLIF($3, ''))
		ON CONFLICT (project) DO UPDATE SET id = EXCLUDED.id, problem = EXCLUDED.problem,
			since = CASE WHEN $4 THEN EXCLUDED.since ELSE w.since END, missed_at = CASE WHEN $4 THEN NULL ELSE w.missed_at END
		WHERE $4 OR (w.id, w.problem) IS DISTINCT FROM (EXCLUDED.id, EXCLUDED.problem)`, project, id, problem, mended)
	if err != nil {
		return fmt.Errorf("note the webhook of project %d: %w", project, err)
	}
	return nil
}

// KeepWebhooks forgets the webhooks of all other projects.
func (l *Ledger) KeepWebhooks(ctx context.Context, projects []int64) error {
	if _, err := l.pool.Exec(ctx, `DELETE FROM webhook WHERE project <> ALL($1)`, projects); err != nil {
		return fmt.Errorf("forget webhooks of other projects: %w", err)
	}
	return nil
}

// Delivered notes that something arrived from a project with a webhook of ours.
func (l *Ledger) Delivered(ctx context.Context, project int64) error {
	if _, err := l.pool.Exec(ctx, `UPDATE webhook SET delivered_at = now() WHERE project = $1`, project); err != nil {
		return fmt.Errorf("note a delivery from project %d: %w", project, err)
	}
	return nil
}

// ProbeChannel is where deliveries that the doctor caused are told, for a schema.
func ProbeChannel(schema string) string { return schema + "_probe" }

// TellProbe tells the doctor that the delivery arrived which it had caused under a name.
func (l *Ledger) TellProbe(ctx context.Context, name string) error {
	if _, err := l.pool.Exec(ctx, `SELECT pg_notify($1, $2)`, ProbeChannel(l.schema), name); err != nil {
		return fmt.Errorf("tell of a delivery: %w", err)
	}
	return nil
}

// Mark is a place in the audit, and the database's time there.
type Mark struct {
	id int64
	at time.Time
}

// Mark returns the present end of the audit.
func (l *Ledger) Mark(ctx context.Context) (m Mark, err error) {
	if err = l.pool.QueryRow(ctx, `SELECT COALESCE(max(id), 0), now() FROM audit`).Scan(&m.id, &m.at); err != nil {
		return Mark{}, fmt.Errorf("find the end of the audit: %w", err)
	}
	return m, nil
}

// skewAllowed is how far Label Studio's clock may be ahead of ours before changes of
// the time in which nobody was there to be told count as missed.
const skewAllowed = time.Minute

// CountMissed counts the stars that people gave or took by annotations, that a pass
// found and no webhook had announced, since after: the webhooks note it, and the place
// to go on from is returned. What people did before since, or before the webhook was
// there, could not be announced.
func (l *Ledger) CountMissed(ctx context.Context, after Mark, since time.Time) (n int, next Mark, err error) {
	if next, err = l.Mark(ctx); err != nil {
		return 0, after, err
	}
	err = l.pool.QueryRow(ctx, `WITH missed AS (
			SELECT e.project, count(*) AS n, max(a.at) AS at
			FROM audit a JOIN edge e ON e.task_id = a.task_id JOIN webhook w ON w.project = e.project
			WHERE a.id > $1 AND a.id <= $2 AND a.source = 'diff' AND a.said_by = 'annotation'
			  AND w.id <> 0 AND e.task_updated_at > GREATEST(w.since, $3) + $4::interval
			GROUP BY e.project
		), noted AS (
			UPDATE webhook w SET missed_at = m.at FROM missed m WHERE m.project = w.project
		)
		SELECT COALESCE(sum(n), 0)::bigint FROM missed`, after.id, next.id, since, skewAllowed).Scan(&n)
	if err != nil {
		return 0, after, fmt.Errorf("count missed deliveries: %w", err)
	}
	return n, next, nil
}

// Time is when the mark was made, by the database's clock.
func (m Mark) Time() time.Time { return m.at }
