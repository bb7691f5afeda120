package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// PassState is where a pass is.
type PassState string

// The states of a pass, in the order in which it goes through them. A plan that would
// change too much ends in PassBraked, until a person releases it or a later pass over
// everything replaces it.
const (
	PassWanted    PassState = "wanted"
	PassReading   PassState = "reading"   // the tasks
	PassComparing PassState = "comparing" // with the rows
	PassMarking   PassState = "marking"   // what differs is made dirty, little by little
	PassDone      PassState = "done"
	PassBraked    PassState = "braked"
	PassReplaced  PassState = "replaced"
)

// Pass is one look at both sides. The times are the database's.
type Pass struct {
	ID       int64
	Kind     string // "full" or "incremental"
	State    PassState
	Why      string  // what it was wanted for
	Projects []int64 // those whose tasks are read; nil: all
	AskedAt  time.Time
	BeganAt  *time.Time
	EndedAt  *time.Time
	Project  int64 // reading has got to this task of this project
	Task     int64
	Read     []int64 // projects that were read to their end
	Key      string  // comparing has got to this key
	Tasks    int64   // read so far
	Plan     *string // hash of what it would change; nil: not known yet, or nothing
	Tally
	Brake      *string // why it was braked
	ReleasedAt *time.Time
	ReleasedBy *string
}

// Tally counts keys by what would be done with them.
type Tally struct {
	Sets   int // VICTORY or the star is set
	Clears int // or taken away
	Links  int // their task is gone, or another one
}

// Add adds another tally to it.
func (t *Tally) Add(o Tally) {
	t.Sets, t.Clears, t.Links = t.Sets+o.Sets, t.Clears+o.Clears, t.Links+o.Links
}

// ErrOvertaken says that another process has gone on with a pass.
var ErrOvertaken = errors.New("another process has taken this pass over")

const passColumns = `id, kind, state, why, projects, asked_at, began_at, ended_at, project, task, read, key, tasks, plan, sets, clears, links, brake, released_at, released_by`

func (p *Pass) fields() []any {
	return []any{&p.ID, &p.Kind, &p.State, &p.Why, &p.Projects, &p.AskedAt, &p.BeganAt, &p.EndedAt, &p.Project, &p.Task, &p.Read, &p.Key, &p.Tasks, &p.Plan,
		&p.Sets, &p.Clears, &p.Links, &p.Brake, &p.ReleasedAt, &p.ReleasedBy}
}

func (l *Ledger) passes(ctx context.Context, where string, args ...any) (all []Pass, err error) {
	rows, err := l.pool.Query(ctx, `SELECT `+passColumns+` FROM pass `+where, args...)
	return collectPasses(rows, err)
}

func collectPasses(rows pgx.Rows, err error) (all []Pass, _ error) {
	if err == nil {
		var p Pass
		_, err = pgx.ForEachRow(rows, p.fields(), func() error {
			all = append(all, p)
			p = Pass{}
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the passes: %w", err)
	}
	return all, nil
}

// Braked returns the passes that wait for a person's word, oldest first: none where our
// tables were never made in the schema.
func Braked(ctx context.Context, db *pgx.Conn, schema string) ([]Pass, error) {
	rows, err := db.Query(ctx, `SELECT `+passColumns+` FROM `+pgx.Identifier{schema, "pass"}.Sanitize()+` WHERE state = 'braked' ORDER BY id`)
	all, err := collectPasses(rows, err)
	if IsSchemaGone(err) {
		err = nil
	}
	return all, err
}

// OpenPasses returns those passes that are not over, oldest first: wanted, under way,
// or braked.
func (l *Ledger) OpenPasses(ctx context.Context) ([]Pass, error) {
	return l.passes(ctx, `WHERE state NOT IN ('done', 'replaced') ORDER BY id`)
}

// LastFull returns the newest pass over everything that was begun, nil where none was.
func (l *Ledger) LastFull(ctx context.Context) (*Pass, error) {
	all, err := l.passes(ctx, `WHERE kind = 'full' AND projects IS NULL AND began_at IS NOT NULL ORDER BY id DESC LIMIT 1`)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

// FullEnded is when a full pass over everything last came to its end, nil for never.
func (l *Ledger) FullEnded(ctx context.Context) (at *time.Time, err error) {
	err = l.pool.QueryRow(ctx, `SELECT max(ended_at) FROM pass WHERE kind = 'full' AND projects IS NULL AND state IN ('marking', 'done', 'braked')`).Scan(&at)
	if err != nil {
		return nil, fmt.Errorf("look when a full pass last ended: %w", err)
	}
	return at, nil
}

// WantFull notes that a full pass is needed, for good: also where the process ends
// before it. projects are those whose tasks are to be read: nil for all. One that is
// wanted for as much is enough, and so is one that still reads: it comes to the rows
// after that, and tasks that changed since it began are asked for after it.
func (l *Ledger) WantFull(ctx context.Context, why string, projects []int64) error {
	if _, err := l.pool.Exec(ctx, wantSQL, why, projects, 0); err != nil {
		return fmt.Errorf("ask for a full pass: %w", err)
	}
	return nil
}

// wantSQL takes a pass for enough only where it is newer than $3.
const wantSQL = `INSERT INTO pass (kind, state, why, projects) SELECT 'full', 'wanted', $1, $2::bigint[]
	WHERE NOT EXISTS (SELECT FROM pass WHERE kind = 'full' AND state IN ('wanted', 'reading') AND id > $3 AND (projects IS NULL OR projects @> $2))`

// BeginPass makes a pass the runner's, who goes on with it from where it is.
func (l *Ledger) BeginPass(ctx context.Context, id int64, runner string) (Pass, error) {
	var p Pass
	err := l.pool.QueryRow(ctx, `UPDATE pass SET runner = $2, began_at = COALESCE(began_at, now()), state = CASE state WHEN 'wanted' THEN 'reading' ELSE state END
		WHERE id = $1 RETURNING `+passColumns, id, runner).Scan(p.fields()...)
	if err != nil {
		return Pass{}, fmt.Errorf("begin pass %d: %w", id, err)
	}
	return p, nil
}

// ReplacePass gives up a pass that was not over, since it is too old to go on with. What
// it was wanted for is wanted anew.
func (l *Ledger) ReplacePass(ctx context.Context, id int64) error {
	_, err := l.pool.Exec(ctx, `WITH replaced AS (UPDATE pass SET state = 'replaced', ended_at = now() WHERE id = $1 RETURNING why, projects)
		INSERT INTO pass (kind, state, why, projects) SELECT 'full', 'wanted', why, projects FROM replaced r
		WHERE NOT EXISTS (SELECT FROM pass p WHERE kind = 'full' AND state = 'wanted' AND (p.projects IS NULL OR p.projects @> r.projects))`, id)
	if err != nil {
		return fmt.Errorf("give up pass %d: %w", id, err)
	}
	return nil
}

// Page is what a pass has read of a project, up to a task.
type Page struct {
	Project, Task int64
	Tasks         int // how many it read
	Links         []Link
	Initial       string  // RECONCILER_INITIAL, for new links
	Sights        []Sight // of tasks that are not as they are remembered
	Absent        any     // what a sight holds that says nothing of a task that another project showed
}

// Sight is what a pass saw of a task. What it means is the pass's.
type Sight struct {
	Task    int64 `json:"task_id"`
	Project int64 `json:"project"`
	Seen    any   `json:"seen"`
}

// ReadPage commits what a pass has read, and that it has.
func (l *Ledger) ReadPage(ctx context.Context, pass int64, runner string, page Page) error {
	b := &pgx.Batch{}
	QueueLinks(b, page.Links, page.Initial)
	if len(page.Sights) > 0 {
		b.Queue(`INSERT INTO sight (pass, task_id, project, seen) SELECT $1, task_id, project, seen
			FROM jsonb_to_recordset($2) AS x(task_id bigint, project bigint, seen jsonb)
			ON CONFLICT (task_id, pass) DO UPDATE SET project = EXCLUDED.project, seen = EXCLUDED.seen
			WHERE sight.project = EXCLUDED.project OR NOT EXCLUDED.seen @> $3`, pass, page.Sights, page.Absent)
	}
	return l.step(ctx, b, pass, `project = $3, task = $4, tasks = tasks + $5`, runner, page.Project, page.Task, page.Tasks)
}

// Sights returns what a pass noted of tasks, by task.
func (l *Ledger) Sights(ctx context.Context, pass int64, tasks []int64) (map[int64][]byte, error) {
	all := map[int64][]byte{}
	rows, err := l.pool.Query(ctx, `SELECT task_id, seen FROM sight WHERE pass = $1 AND task_id = ANY($2)`, pass, tasks)
	if err == nil {
		var task int64
		var seen []byte
		_, err = pgx.ForEachRow(rows, []any{&task, &seen}, func() error {
			all[task] = seen
			seen = nil
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the sights of pass %d: %w", pass, err)
	}
	return all, nil
}

// ProjectsSeen returns the projects of which a pass noted a task that holds like.
func (l *Ledger) ProjectsSeen(ctx context.Context, pass int64, like any) ([]int64, error) {
	rows, err := l.pool.Query(ctx, `SELECT DISTINCT project FROM sight WHERE pass = $1 AND seen @> $2`, pass, like)
	if err != nil {
		return nil, fmt.Errorf("read the sights of pass %d: %w", pass, err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// Distrust notes that nothing may be inferred from what a project lacks: change is
// merged into what the pass noted of the tasks that it did not show.
func (l *Ledger) Distrust(ctx context.Context, pass, project int64, absent, change any) error {
	_, err := l.pool.Exec(ctx, `UPDATE sight SET seen = seen || $4 WHERE pass = $1 AND project = $2 AND seen @> $3`, pass, project, absent, change)
	if err != nil {
		return fmt.Errorf("distrust project %d: %w", project, err)
	}
	return nil
}

// step runs a batch together with a change of the pass, if that is still the runner's.
func (l *Ledger) step(ctx context.Context, b *pgx.Batch, pass int64, set, runner string, args ...any) error {
	overtaken := false
	b.Queue(`UPDATE pass SET `+set+` WHERE id = $1 AND runner = $2 RETURNING 1`, append([]any{pass, runner}, args...)...).QueryRow(func(r pgx.Row) error {
		var one int
		err := r.Scan(&one)
		if errors.Is(err, pgx.ErrNoRows) {
			overtaken = true
			return ErrOvertaken // rolls the batch back
		}
		return err
	})
	if err := l.transact(ctx, b); err != nil {
		if overtaken {
			err = ErrOvertaken
		}
		return fmt.Errorf("go on with pass %d: %w", pass, err)
	}
	return nil
}

// transact runs a batch as one transaction that an error of a callback undoes.
func (l *Ledger) transact(ctx context.Context, b *pgx.Batch) error {
	return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error { return tx.SendBatch(ctx, b).Close() })
}

// EndProject notes that a pass has read all tasks of a project.
func (l *Ledger) EndProject(ctx context.Context, pass int64, runner string, project int64) error {
	return l.step(ctx, &pgx.Batch{}, pass, `read = read || $3::bigint`, runner, project)
}

// EndReading notes that a pass has read all tasks that it could. The projects that it
// could not read get a pass of their own: an older one ends with this one.
func (l *Ledger) EndReading(ctx context.Context, pass int64, runner string, unread []int64) error {
	b := &pgx.Batch{}
	if len(unread) > 0 {
		b.Queue(wantSQL, "a project could not be read", unread, pass)
	}
	return l.step(ctx, b, pass, `state = 'comparing'`, runner)
}

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

// Meet notes which projects are to be read: until a full pass has finished over each of
// them, nobody knows all tasks of a key.
func (l *Ledger) Meet(ctx context.Context, projects []int64) error {
	b := &pgx.Batch{}
	b.Queue(`DELETE FROM project WHERE full_at IS NULL AND id <> ALL ($1)`, projects)
	b.Queue(`INSERT INTO project (id) SELECT unnest($1::bigint[]) ON CONFLICT DO NOTHING`, projects)
	if err := l.pool.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("note which projects are to be read: %w", err)
	}
	return nil
}

// Met tells whether a full pass has finished over every project that is to be read, and
// whether any turn has begun a first contact since our tables were made.
func (l *Ledger) Met(ctx context.Context) (all, begun bool, err error) {
	err = l.pool.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM project WHERE full_at IS NULL), EXISTS (SELECT FROM edge WHERE s IS NOT NULL OR held IS NOT NULL)`).Scan(&all, &begun)
	if err != nil {
		return false, false, fmt.Errorf("look whether every project was read: %w", err)
	}
	return all, begun, nil
}
