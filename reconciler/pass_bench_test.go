package reconciler_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler"
)

// pairsFlag is how many conquests and tasks the benchmarks of passes have. The goals are meant for
// 1000000 (BenchmarkPassSQL) and 100000 (the others).
var pairsFlag = flag.Int("pairs", 5000, "conquests and tasks in the benchmarks of passes")

var fastFlag = flag.Bool("fast", false, "a Label Studio ten times as fast as was measured, in BenchmarkInitialLoad")

// quietPasses are passes that write no log.
func (r *rig) quietPasses(change func(*reconciler.Passes)) *reconciler.Passes {
	return r.passes(func(p *reconciler.Passes) {
		p.Page = reconciler.DefaultPage
		if change != nil {
			change(p)
		}
	})
}

// BenchmarkPassSQL is a full pass at rest through Label Studio's own database. The yardstick are two
// SELECTs of the same columns, each row by row into nothing.
func BenchmarkPassSQL(b *testing.B) {
	n := *pairsFlag
	r := newRig(b, 0, studio.Delays{})
	url := pgtest.Database(b, sandbox.Schema{Bare: true})
	theirs, err := pgx.Connect(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	defer theirs.Close(context.WithoutCancel(b.Context()))
	// The stand-in shows one of these tasks, by which passes make sure of the database.
	shown, _ := r.studio.Task(r.studio.AddTask(r.project, map[string]any{"conquest_id": "c1"}, nil))
	created := shown.CreatedAt.Format(time.RFC3339Nano)
	text := strings.Repeat("Lorem ipsum dolor sit amet, consetetur sadipscing elitr. ", 40) // as long as data was that was measured, and kept compressed
	for _, sql := range []string{
		`CREATE TABLE task (id int PRIMARY KEY, project_id int, data jsonb, meta jsonb, created_at timestamptz, updated_at timestamptz)`,
		`CREATE TABLE task_completion (id int PRIMARY KEY, task_id int, result jsonb, was_cancelled bool, ground_truth bool, completed_by_id int, updated_by_id int, created_at timestamptz, updated_at timestamptz)`,
		fmt.Sprintf(`INSERT INTO task SELECT i, %d, jsonb_build_object('conquest_id', 'c' || i, 'prompt', '%s', 'response', md5(i::text)), '{"source": "import"}', '%s', '2026-01-01' FROM generate_series(1, %d) i`, r.project, text, created, n),
		fmt.Sprintf(`INSERT INTO task_completion SELECT i, i * 10, '[{"id": "x", "type": "choices", "value": {"choices": ["good"]}}]', false, false, 1, NULL, '2026-01-01', '2026-01-01' FROM generate_series(1, %d) i`, n/10),
		`CREATE INDEX ON task (project_id)`, `CREATE INDEX ON task_completion (task_id)`, `VACUUM ANALYZE`,
	} {
		if _, err := theirs.Exec(b.Context(), sql); err != nil {
			b.Fatal(err)
		}
	}
	r.exec(`INSERT INTO "Conquest" (id, result, philosopher, domain) SELECT 'c' || i, 'PENDING', 'p', 'd' FROM generate_series(1, $1::int) i`, n)
	r.exec(`INSERT INTO reconciler.hub (key, d, n, created_at, before) SELECT id, false, 0, "createdAt", result FROM "Conquest"`)
	r.exec(`INSERT INTO reconciler.project (id, full_at, watermark) VALUES ($1, now(), now())`, r.project)
	r.exec(`INSERT INTO reconciler.edge (task_id, key, project, begun, s, task_created_at, task_updated_at) SELECT i, 'c' || i, $2, 'union', false, $3::timestamptz, '2026-01-01' FROM generate_series(1, $1::int) i`, n, r.project, created)
	r.exec(`VACUUM ANALYZE`)
	db, err := labelstudio.OpenDatabase(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()

	ours, err := pgx.Connect(b.Context(), r.url)
	if err != nil {
		b.Fatal(err)
	}
	defer ours.Close(context.WithoutCancel(b.Context()))
	// The yardstick is taken before and after, for machines that are not always as fast.
	selects := func() time.Duration {
		start := time.Now()
		drain(b, theirs, `SELECT id, data->'conquest_id', meta, created_at, updated_at FROM task ORDER BY id`)
		drain(b, ours, `SELECT id, result, "createdAt", "evaluatedBy", "evaluatedAt", "updatedAt" FROM "Conquest" ORDER BY id`)
		return time.Since(start)
	}
	before := selects()
	peak, stop := watchHeap()
	start := time.Now()
	r.full(r.quietPasses(func(p *reconciler.Passes) { p.Database = db }))
	took := time.Since(start)
	stop()
	bare := (before + selects()) / 2
	r.want("found", r.text(`SELECT string_agg(key, ',') FROM (SELECT key FROM reconciler.finding LIMIT 3) f`), "")
	b.ReportMetric(float64(n)/took.Seconds(), "pairs/s")
	b.ReportMetric(float64(bare)/float64(took), "ratio")
	b.ReportMetric(float64(peak.Load())/1e6, "heap-MB")
	b.ReportMetric(0, "ns/op")
}

// drain reads an answer, and makes nothing of it.
func drain(b *testing.B, conn *pgx.Conn, sql string) {
	b.Helper()
	rows, err := conn.Query(b.Context(), sql)
	if err != nil {
		b.Fatal(err)
	}
	for rows.Next() {
		_ = rows.RawValues()
	}
	if rows.Err() != nil {
		b.Fatal(rows.Err())
	}
}

// watchHeap notes the most memory that is in use.
func watchHeap() (peak *atomic.Uint64, stop func()) {
	peak = new(atomic.Uint64)
	runtime.GC()
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak.Store(max(peak.Load(), m.HeapInuse))
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return peak, func() { cancel(); watching.Wait() }
}

// BenchmarkPassREST is a full pass at rest through the API of a Label Studio as slow as one was
// measured. The yardstick is a bare loop over the same listing.
func BenchmarkPassREST(b *testing.B) {
	r := newRig(b, *pairsFlag, studio.MeasuredDelays())
	r.remembered()
	start := time.Now()
	for after := int64(0); ; {
		tasks, _, err := r.client.TasksAfter(b.Context(), r.project, after, reconciler.DefaultPage)
		if err != nil {
			b.Fatal(err)
		}
		if len(tasks) < reconciler.DefaultPage {
			break
		}
		after = tasks[len(tasks)-1].ID
	}
	bare := time.Since(start)
	before := r.studio.Requests()
	start = time.Now()
	r.full(r.quietPasses(nil))
	took := time.Since(start)
	r.want("found", r.text(`SELECT string_agg(key, ',') FROM (SELECT key FROM reconciler.finding LIMIT 3) f`), "")
	for op, n := range r.studio.Requests() {
		if more := n - before[op]; more > 0 {
			b.Log(op, more)
		}
	}
	b.ReportMetric(float64(*pairsFlag)/took.Seconds(), "tasks/s")
	b.ReportMetric(float64(bare)/float64(took), "ratio")
	b.ReportMetric(0, "ns/op")
}

// remembered is the memory of a first contact that is long over, without making it.
func (r *rig) remembered() {
	r.Helper()
	r.exec(`INSERT INTO reconciler.hub (key, d, n, created_at, before) SELECT id, false, 0, "createdAt", result FROM "Conquest"`)
	r.exec(`INSERT INTO reconciler.project (id, full_at, watermark) VALUES ($1, now(), now() + interval '1 hour')`, r.project)
	r.exec(`INSERT INTO reconciler.edge (task_id, key, project, begun, s) SELECT t, 'c' || (i - 1), $2, 'union', false FROM unnest($1::bigint[]) WITH ORDINALITY u(t, i)`, r.tasks, r.project)
	r.exec(`ANALYZE`)
}

// BenchmarkInitialLoad is the first full pass over conquests that are all VICTORY, until every task
// is starred and settled, against a stand-in as slow as a Label Studio was measured, ten times over
// with -fast: 100,000 take three hours at its pace. The yardstick is a bare loop of PATCHes.
func BenchmarkInitialLoad(b *testing.B) {
	n, delays := *pairsFlag/20, studio.MeasuredDelays()
	if *fastFlag {
		n, delays = *pairsFlag, studio.Delays{Patch: 12 * time.Millisecond, Task: 12 * time.Millisecond, Listing: 8 * time.Millisecond, ListingRow: 150 * time.Microsecond}
	}
	r := newRig(b, n, delays)
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
	const yardstick = 50
	start := time.Now()
	for i := range min(n, yardstick) {
		if _, err := r.client.PatchMeta(b.Context(), r.tasks[i], json.RawMessage(`{}`)); err != nil {
			b.Fatal(err)
		}
	}
	bare := time.Since(start) / time.Duration(min(n, yardstick))
	var left atomic.Int64
	left.Store(int64(n))
	r.studio.OnPatch(func(int64, json.RawMessage) { left.Add(-1) })
	ctx, cancel := context.WithCancel(b.Context())
	var g errgroup.Group
	start = time.Now()
	g.Go(func() error { return r.quietPasses(nil).Run(ctx) })
	g.Go(func() error { return r.turner(r.client).Work(ctx) })
	for range time.Tick(100 * time.Millisecond) {
		if left.Load() <= 0 && r.ask(`SELECT bool_and(s AND intent_value IS NULL) FROM reconciler.edge`) {
			break
		}
	}
	took := time.Since(start)
	cancel()
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(n)/took.Seconds(), "stars/s")
	b.ReportMetric(float64(bare)*float64(n)/float64(took), "ratio")
	b.ReportMetric(0, "ns/op")
}
