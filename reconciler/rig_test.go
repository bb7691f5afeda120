package reconciler_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	"github.com/aristotle/reconciler/cdc"
	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

func TestMain(m *testing.M) {
	if os.Getenv(deliver) != "" {
		if err := sender(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	pgtest.Main(m)
}

// patience is how long a test waits before it gives up: a busy machine must not fail it.
const patience = 3 * time.Minute

// rig is the daemon's parts in this process, between a real PostgreSQL and the stand-in.
type rig struct {
	testing.TB
	url     string
	db      *pgxpool.Pool // as the application
	ledger  *ledger.Ledger
	studio  *studio.StandIn
	client  *labelstudio.Client
	metrics *metrics.Metrics
	intake  *reconciler.Intake
	project int64
	tasks   []int64 // of the conquests c0, c1, …
	moved   bool    // to another Label Studio than the stand-in
	suffix  string  // of names that the server shares
}

func newRig(b testing.TB, conquests int, delays studio.Delays) *rig {
	b.Helper()
	return newRigAt(b, pgtest.Database(b, sandbox.Schema{}), conquests, delays)
}

func newRigAt(b testing.TB, url string, conquests int, delays studio.Delays) *rig {
	b.Helper()
	ctx := b.Context()
	r := &rig{TB: b, url: url, suffix: fmt.Sprint("_", time.Now().UnixNano()), metrics: metrics.New(prometheus.NewRegistry())}
	var err error
	if r.db, err = pgxpool.New(ctx, r.url); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(r.db.Close)
	r.exec(`CREATE SCHEMA reconciler`)
	r.exec(`CREATE PUBLICATION reconciler FOR TABLE "Conquest" (id)`)
	r.exec(`INSERT INTO "Conquest" (id, result, philosopher, domain) SELECT 'c' || i, 'PENDING', 'p', 'd' FROM generate_series(0, $1) i`, conquests-1)
	if r.ledger, err = ledger.Open(ctx, r.url, "reconciler"); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(r.ledger.Close)
	if err := r.ledger.Migrate(ctx); err != nil {
		b.Fatal(err)
	}
	if r.studio, err = studio.StartStandIn(studio.StandInOptions{Delays: delays}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = r.studio.Close() })
	r.project = r.studio.AddProject("bench")
	for i := range conquests {
		r.tasks = append(r.tasks, r.studio.AddTask(r.project, map[string]any{"conquest_id": fmt.Sprint("c", i), "prompt": "p", "response": "r"}, map[string]any{}))
	}
	if r.client, err = labelstudio.New(labelstudio.Options{URL: r.studio.URL(), Token: r.studio.Token()}); err != nil {
		b.Fatal(err)
	}
	r.intake = &reconciler.Intake{Ledger: r.ledger, Metrics: r.metrics, Wake: func() {}}
	return r
}

func (r *rig) exec(sql string, args ...any) {
	r.Helper()
	if _, err := r.db.Exec(r.Context(), sql, args...); err != nil {
		r.Fatal(err)
	}
}

// moveTo makes the tasks anew in another Label Studio.
func (r *rig) moveTo(url, token string) {
	r.Helper()
	var err error
	if r.client, err = labelstudio.New(labelstudio.Options{URL: url, Token: token}); err != nil {
		r.Fatal(err)
	}
	p, err := r.client.CreateProject(r.Context(), labelstudio.NewProject{Title: "bench", LabelConfig: studio.LabelConfig})
	if err != nil {
		r.Fatal(err)
	}
	r.project, r.moved = p.ID, true
	var tasks []labelstudio.NewTask
	for i := range r.tasks {
		tasks = append(tasks, labelstudio.NewTask{Data: json.RawMessage(fmt.Sprintf(`{"conquest_id": "c%d", "prompt": "p", "response": "r"}`, i))})
	}
	if r.tasks, err = r.client.ImportTasks(r.Context(), p.ID, tasks); err != nil {
		r.Fatal(err)
	}
}

// anyRow says that any row may have changed.
var anyRow = cdc.Batch{Truncated: []string{reconciler.TableConquest}}

// settled links every task and makes a turn of every key, as after a first full pass.
func (r *rig) settled() {
	r.Helper()
	r.exec(`INSERT INTO reconciler.project (id, full_at, watermark) VALUES ($1, now(), now())`, r.project)
	r.exec(`INSERT INTO reconciler.edge (task_id, key, project, begun) SELECT t, 'c' || (i - 1), $2, 'union' FROM unnest($1::bigint[]) WITH ORDINALITY u(t, i)`,
		r.tasks, r.project)
	if err := r.intake.Stream(r.Context(), anyRow); err != nil {
		r.Fatal(err)
	}
	for t := r.turner(r.client); ; {
		claims, err := r.ledger.Claim(r.Context(), 250, 250)
		if err != nil {
			r.Fatal(err)
		}
		if len(claims) == 0 {
			break
		}
		if err := t.Turn(r.Context(), claims); err != nil {
			r.Fatal(err)
		}
	}
	r.exec(`ANALYZE`)
}

// run starts stream and worker, and returns once the stream is there.
func (r *rig) run() (stop func()) {
	r.Helper()
	slot := "bench" + r.suffix
	l, err := cdc.New(cdc.Config{URL: r.url, Slot: slot, Publication: "reconciler", Handle: r.intake.Stream, OnSlotCreated: func(context.Context) error { return nil }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.Fatal(err)
	}
	t := r.turner(r.client)
	r.intake.Wake = t.Wake
	ctx, cancel := context.WithCancel(r.Context())
	var g errgroup.Group
	g.Go(func() error { return l.Run(ctx) })
	g.Go(func() error { return t.Work(ctx) })
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !l.Stats().Connected {
		<-tick.C
	}
	return func() {
		cancel()
		if err := g.Wait(); err != nil {
			r.Error(err)
		}
	}
}

func (r *rig) turner(c *labelstudio.Client) *reconciler.Turner {
	return reconciler.NewTurner(reconciler.Options{Ledger: r.ledger, Studio: c, Metrics: r.metrics, Log: slog.New(slog.DiscardHandler),
		Deadline: time.Minute, Initial: "union", Projects: []int64{r.project}})
}

// during lets something run until what is true, and ends it.
func (r *rig) during(run func(context.Context) error, what func() bool) {
	r.Helper()
	ctx, stop := context.WithCancel(r.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := run(ctx); err != nil {
			r.Error(err)
		}
	})
	defer running.Wait()
	defer stop()
	r.eventually(what)
}

// eventually waits until what is true; asking again is all there is. It asks after a tenth of the time that it has waited, since others need the machine.
func (r *rig) eventually(what func() bool) {
	r.Helper()
	for begin := time.Now(); !what(); <-time.After(min(max(time.Since(begin)/10, 2*time.Millisecond), 100*time.Millisecond)) {
		if time.Since(begin) > patience {
			r.Fatal("it never happened")
		}
	}
}

// soon waits for what another goroutine tells.
func (r *rig) soon(what <-chan struct{}) {
	r.Helper()
	select {
	case <-what:
	case <-time.After(patience):
		r.Fatal("it never happened")
	}
}

// ask returns a boolean of the database.
func (r *rig) ask(sql string, args ...any) (yes bool) {
	r.Helper()
	if err := r.db.QueryRow(r.Context(), sql, args...).Scan(&yes); err != nil {
		r.Fatal(err)
	}
	return yes
}
