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
func ProbeChannel(schema string) string { return channel(schema, "probe") }

// TellProbe tells the doctor that the delivery arrived which it had caused under a name.
func (l *Ledger) TellProbe(ctx context.Context, name string) error {
	if _, err := l.pool.Exec(ctx, `SELECT pg_notify($1, $2)`, ProbeChannel(l.schema), name); err != nil {
		return fmt.Errorf("tell of a delivery: %w", err)
	}
	return nil
}

// Announced is a change that Label Studio announces to a webhook: of a key, in a project.
// Its times are by the clock of this machine.
type Announced struct {
	Project int64
	Key     string
	After   time.Time // when it had not happened yet
	Found   time.Time // when a pass had found it
}

// CountMissed counts those changes of which no webhook has told since they happened: the
// webhooks note it. What was changed before its project had the webhook is not counted.
func (l *Ledger) CountMissed(ctx context.Context, changes []Announced) (n int, err error) {
	if len(changes) == 0 {
		return 0, nil
	}
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		// The clock here may differ from the database's: ages tell a time. They are taken when
		// its now() has passed, however long a connection was waited for. So a change seems to
		// be older than it is, never younger than the delivery that told of it.
		var projects []int64
		var keys []string
		var after, found []time.Duration
		for _, c := range changes {
			projects, keys = append(projects, c.Project), append(keys, c.Key)
			after, found = append(after, time.Since(c.After)), append(found, time.Since(c.Found))
		}
		return tx.QueryRow(ctx, `WITH missed AS (
				SELECT w.project, count(*) AS n, now() - min(x.found) AS at
				FROM unnest($1::bigint[], $2::text[], $3::interval[], $4::interval[]) AS x(project, key, after, found)
				JOIN webhook w ON w.project = x.project LEFT JOIN queue q ON q.key = x.key
				WHERE w.id <> 0 AND w.since < now() - x.after AND (q.told_at IS NULL OR q.told_at < now() - x.after)
				GROUP BY w.project
			), noted AS (
				UPDATE webhook w SET missed_at = m.at FROM missed m WHERE m.project = w.project
			)
			SELECT COALESCE(sum(n), 0)::bigint FROM missed`, projects, keys, after, found).Scan(&n)
	})
	if err != nil {
		return 0, fmt.Errorf("count missed deliveries: %w", err)
	}
	return n, nil
}
