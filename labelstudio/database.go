package labelstudio

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Database reads tasks from Label Studio's own PostgreSQL, which takes it a hundredth of
// what its API does. It writes nothing: every transaction is read-only. It knows the tables
// of Label Studio 1.23, and refuses others.
type Database struct{ pool *pgxpool.Pool }

const (
	databaseConns   = 2               // few: it is another's database
	databaseConnect = 5 * time.Second // where the URL has no connect_timeout: a host that has lost its power refuses nothing
)

// OpenDatabase returns the database that a role may read which has SELECT on task and
// task_completion. It connects when it is asked something; configure may add to how. Close it.
func OpenDatabase(ctx context.Context, url string, configure ...func(*pgxpool.Config)) (*Database, error) {
	conf, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("read the URL of Label Studio's database: it is none") // the error itself could show the password
	}
	conf.MaxConns = databaseConns
	conf.ConnConfig.ConnectTimeout = cmp.Or(conf.ConnConfig.ConnectTimeout, databaseConnect)
	conf.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	conf.ConnConfig.RuntimeParams["statement_timeout"] = "60000"
	if conf.ConnConfig.RuntimeParams["application_name"] == "" {
		conf.ConnConfig.RuntimeParams["application_name"] = "reconciler"
	}
	for _, c := range configure {
		c(conf)
	}
	pool, err := pgxpool.NewWithConfig(ctx, conf)
	if err != nil {
		return nil, fmt.Errorf("connect to Label Studio's database: %w", err)
	}
	return &Database{pool: pool}, nil
}

// Close ends its connections.
func (d *Database) Close() { d.pool.Close() }

// ErrSchema says that the database is not that of a Label Studio that is known.
var ErrSchema = errors.New("these are not the tables of Label Studio 1.23")

// databaseColumns are those that are read, with their types.
const databaseColumns = `task.id int task.project_id int task.data jsonb task.meta jsonb task.created_at timestamptz task.updated_at timestamptz
	task_completion.id int task_completion.task_id int task_completion.result jsonb task_completion.was_cancelled bool
	task_completion.ground_truth bool task_completion.completed_by_id int task_completion.updated_by_id int
	task_completion.created_at timestamptz task_completion.updated_at timestamptz`

// Check connects and looks whether what is read is there: [ErrSchema] where it is not.
func (d *Database) Check(ctx context.Context) error {
	rows, err := d.pool.Query(ctx, `
		SELECT c.relname || '.' || a.attname || ' ' || regexp_replace(t.typname, '^int[48]$', 'int')
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
		WHERE c.oid IN (to_regclass('task'), to_regclass('task_completion')) AND a.attnum > 0 AND NOT a.attisdropped
		  AND has_column_privilege(c.oid, a.attnum, 'SELECT')`)
	if err != nil {
		return fmt.Errorf("look at Label Studio's database: %w", err)
	}
	there, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look at Label Studio's database: %w", err)
	}
	var lacks []string
	words := strings.Fields(databaseColumns)
	for i := 0; i < len(words); i += 2 {
		if want := words[i] + " " + words[i+1]; !slices.Contains(there, want) {
			lacks = append(lacks, want)
		}
	}
	if len(lacks) > 0 {
		return fmt.Errorf("look at Label Studio's database: %w: no column %s that may be read", ErrSchema, strings.Join(lacks, ", "))
	}
	return nil
}

// Mendable tells whether what [Database.Check] found is for a person to mend: the server
// refuses the login, or it is [ErrSchema].
func Mendable(err error) bool {
	var said *pgconn.PgError
	return errors.Is(err, ErrSchema) || errors.As(err, &said) && strings.HasPrefix(said.Code, "28")
}

// Role tells as whom it reads, and whether that role may also write what is read here: it need not.
func (d *Database) Role(ctx context.Context) (name string, writes bool, err error) {
	err = d.pool.QueryRow(ctx, `SELECT current_user, EXISTS (
		SELECT FROM unnest(ARRAY[to_regclass('task'), to_regclass('task_completion')]) AS t
		WHERE has_table_privilege(t, 'INSERT, UPDATE, DELETE, TRUNCATE') OR has_any_column_privilege(t, 'INSERT, UPDATE'))`).Scan(&name, &writes)
	if err != nil {
		return "", false, fmt.Errorf("look at the rights in Label Studio's database: %w", err)
	}
	return name, writes, nil
}

// Same tells whether this is the database of the Label Studio that has told of a task,
// after a [Database.Check].
func (d *Database) Same(ctx context.Context, t Task) (same bool, err error) {
	if err := d.Check(ctx); err != nil {
		return false, err
	}
	err = d.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM task WHERE id = $1 AND project_id = $2 AND created_at = $3)`, t.ID, t.Project, t.CreatedAt).Scan(&same)
	if err != nil {
		return false, fmt.Errorf("look for task %d in Label Studio's database: %w", t.ID, err)
	}
	return same, nil
}

// TasksAfter is [Client.TasksAfter], but that Data has the keys "conquest_id" and "id"
// alone, and users come as numbers. Of data that is long, and so kept compressed, the
// second is only read where the first is no text: unpacking it is what costs.
func (d *Database) TasksAfter(ctx context.Context, project, afterID int64, limit int) (tasks []Task, total int, err error) {
	tasks = make([]Task, 0, limit)
	var older []int64 // those that may have an "id"
	rows, err := d.pool.Query(ctx, `
		SELECT id, created_at, updated_at, meta, data->'conquest_id'
		FROM task WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3`, project, afterID, limit)
	if err == nil {
		t := Task{Project: project}
		var meta, first []byte // as they are: a json.RawMessage would be parsed on its way
		_, err = pgx.ForEachRow(rows, []any{&t.ID, &t.CreatedAt, &t.UpdatedAt, &meta, &first}, func() error {
			t.Meta, t.Data, t.Annotations = meta, ids(first, nil), []Annotation{}
			if len(first) < len(`"x"`) || first[0] != '"' {
				older = append(older, t.ID)
			}
			tasks = append(tasks, t)
			t, meta, first = Task{Project: project}, nil, nil
			return nil
		})
	}
	if err == nil && len(older) > 0 {
		err = d.readIDs(ctx, tasks, older)
	}
	if err == nil && len(tasks) > 0 {
		err = d.annotate(ctx, tasks)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read tasks of project %d after %d from Label Studio's database: %w", project, afterID, err)
	}
	return tasks, len(tasks), nil
}

// readIDs reads both keys of the data of older tasks.
func (d *Database) readIDs(ctx context.Context, tasks []Task, older []int64) error {
	rows, err := d.pool.Query(ctx, `SELECT id, data->'conquest_id', data->'id' FROM task WHERE id = ANY($1) ORDER BY id`, older)
	if err != nil {
		return err
	}
	var id int64
	var first, second []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &first, &second}, func() error {
		at, _ := slices.BinarySearchFunc(tasks, id, func(t Task, id int64) int { return cmp.Compare(t.ID, id) })
		tasks[at].Data = ids(first, second)
		first, second = nil, nil
		return nil
	})
	return err
}

// ids is an object with the keys that are there.
func ids(first, second []byte) json.RawMessage {
	data := append(make([]byte, 0, len(`{"conquest_id":,"id":}`)+len(first)+len(second)), '{')
	if first != nil {
		data = append(append(data, `"conquest_id":`...), first...)
	}
	if second != nil {
		if first != nil {
			data = append(data, ',')
		}
		data = append(append(data, `"id":`...), second...)
	}
	return append(data, '}')
}

// annotate adds the annotations to tasks, which are in the order of their ids.
func (d *Database) annotate(ctx context.Context, tasks []Task) error {
	rows, err := d.pool.Query(ctx, `
		SELECT a.id, a.task_id, a.result, a.was_cancelled, a.ground_truth, COALESCE(a.completed_by_id, 0), COALESCE(a.updated_by_id, 0), a.created_at, a.updated_at
		FROM task_completion a WHERE a.task_id >= $1 AND a.task_id <= $2 ORDER BY a.task_id, a.id`, tasks[0].ID, tasks[len(tasks)-1].ID)
	if err != nil {
		return err
	}
	var id, task, by, updatedBy int64
	var result []byte
	var cancelled, truth bool
	var created, updated time.Time
	at := 0
	_, err = pgx.ForEachRow(rows, []any{&id, &task, &result, &cancelled, &truth, &by, &updatedBy, &created, &updated}, func() error {
		for at < len(tasks) && tasks[at].ID < task {
			at++
		}
		if at == len(tasks) || tasks[at].ID != task {
			return nil // of another project
		}
		a := Annotation{ID: id, Task: task, WasCancelled: cancelled, GroundTruth: truth, CompletedBy: UserRef{ID: by}, UpdatedBy: UserRef{ID: updatedBy},
			CreatedAt: created, UpdatedAt: updated}
		if len(result) > 0 {
			var said regions
			if err := json.Unmarshal(result, &said); err != nil {
				return fmt.Errorf("annotation %d: %w", id, withoutText(err))
			}
			a.Result = said.list
		}
		tasks[at].Annotations = append(tasks[at].Annotations, a)
		result = nil
		return nil
	})
	return err
}
