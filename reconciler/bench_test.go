package reconciler_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	"github.com/aristotle/reconciler/cdc"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/labelstudio/sandbox/lstest"
	"github.com/aristotle/reconciler/reconciler/api"
	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// quantile of durations, sorted in place, in milliseconds.
func quantile(d []time.Duration, q float64) float64 {
	slices.Sort(d)
	return float64(d[int(q*float64(len(d)-1))].Microseconds()) / 1000
}

// BenchmarkLatency makes 500 single-row changes a second and measures each from its
// commit to the PATCH that it causes, against a Label Studio without delay.
func BenchmarkLatency(b *testing.B) {
	const rate, n = 500, 2500
	r := newRig(b, n, studio.Delays{})
	r.settled()
	stop := r.run()
	defer stop()
	number := map[int64]int{}
	for i, t := range r.tasks {
		number[t] = i
	}
	var mu sync.Mutex
	got, sent := make([]time.Time, n), make([]time.Time, n)
	left, all := n, make(chan struct{})
	r.studio.OnPatch(func(task int64, _ json.RawMessage) {
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		if i := number[task]; got[i].IsZero() {
			got[i] = now
			if left--; left == 0 {
				close(all)
			}
		}
	})
	conn, err := pgx.Connect(b.Context(), r.url)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(b.Context()))
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	for i := range n { // once, whatever b.N is: the figures are those of all of them
		<-tick.C
		if _, err := conn.Exec(b.Context(), `UPDATE "Conquest" SET result = 'VICTORY' WHERE id = $1`, fmt.Sprint("c", i)); err != nil {
			b.Fatal(err)
		}
		sent[i] = time.Now()
	}
	<-all
	const warm = n / 5 // plans and connections are made while these go through
	took := make([]time.Duration, n-warm)
	for i := range took {
		took[i] = max(0, got[i+warm].Sub(sent[i+warm]))
	}
	b.ReportMetric(quantile(took, .5), "p50-ms")
	b.ReportMetric(quantile(took, .99), "p99-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkStars makes many VICTORYs at once, and compares the time until all their
// tasks are starred and settled with a loop that only PATCHes as many: two thousand
// against a Label Studio as slow as one was measured, two hundred against a real one.
func BenchmarkStars(b *testing.B) {
	b.Run("stand-in", func(b *testing.B) {
		r := newRig(b, 2000, studio.MeasuredDelays())
		benchmarkStars(b, r, 100)
		b.Log(r.studio.Requests())
	})
	b.Run("real", func(b *testing.B) {
		r := newRig(b, 200, studio.Delays{})
		real := lstest.Real(b, pgtest.Shared(b).URL())
		r.moveTo(real.URL(), real.Token())
		benchmarkStars(b, r, 50)
	})
}

func benchmarkStars(b *testing.B, r *rig, yardstick int) {
	r.settled()
	start := time.Now()
	for i := range yardstick {
		if _, err := r.client.PatchMeta(b.Context(), r.tasks[i], json.RawMessage(`{"gold_star": false}`)); err != nil {
			b.Fatal(err)
		}
	}
	bare := time.Since(start) / time.Duration(yardstick)
	stop := r.run()
	defer stop()
	start = time.Now()
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
	for range time.Tick(100 * time.Millisecond) {
		if r.ask(`SELECT bool_and(s AND intent_value IS NULL) FROM reconciler.edge`) {
			break
		}
	}
	took, n := time.Since(start), len(r.tasks)
	b.ReportMetric(float64(n)/took.Seconds(), "stars/s")
	b.ReportMetric(float64(bare)*float64(n)/float64(took), "ratio")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkWebhook measures a delivery from its arrival to the answer, the key being committed.
func BenchmarkWebhook(b *testing.B) {
	r := newRig(b, 1000, studio.Delays{})
	r.settled()
	a := &api.API{Ledger: r.ledger, Metrics: r.metrics, Log: slog.New(slog.DiscardHandler), Guard: &auth.Guard{}, Secret: auth.NewSecret("s"), Initial: "union"}
	h := a.Server().Handler
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		body := fmt.Sprintf(`{"action": "ANNOTATION_CREATED", "annotation": {"id": 1}, "task": {"id": %d, "project": %d, "data": {"conquest_id": "c%d", "prompt": %q}}, "project": {"id": 1}}`,
			r.tasks[i%1000], r.project, i%1000, strings.Repeat("x", 3000))
		req := httptest.NewRequest(http.MethodPost, "/v1/webhooks/label-studio", strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer s")
		w := httptest.NewRecorder()
		start := time.Now()
		h.ServeHTTP(w, req)
		took = append(took, time.Since(start))
		if w.Code != http.StatusOK {
			b.Fatal(w.Code, w.Body)
		}
	}
	b.ReportMetric(quantile(took, .99), "p99-ms")
}

// BenchmarkIntake takes 100,000 one-row changes from the WAL into the durable queue, in
// one transaction and in a thousand; none of them changes whether it is VICTORY. The
// yardstick is pg_recvlogical, reading the same changes into a pipe that is counted.
func BenchmarkIntake(b *testing.B) {
	tool, err := exec.LookPath("pg_recvlogical")
	if err != nil {
		b.Skip("pg_recvlogical, of PostgreSQL's client programs, is not on the PATH")
	}
	for _, transactions := range []int{1, 1000} {
		b.Run(fmt.Sprint("transactions=", transactions), func(b *testing.B) { benchmarkIntake(b, tool, transactions) })
	}
}

func benchmarkIntake(b *testing.B, tool string, transactions int) {
	const n = 100_000
	r := newRig(b, n, studio.Delays{})
	r.settled()
	for _, slot := range []string{"bare", "ours"} {
		slot += r.suffix
		r.exec(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, slot)
	}
	for i := range transactions {
		r.exec(`UPDATE "Conquest" SET title = 'x' WHERE id IN (SELECT 'c' || i FROM generate_series($1::int, $2::int) i)`,
			i*n/transactions, (i+1)*n/transactions-1)
	}
	var end string
	if err := r.db.QueryRow(b.Context(), `SELECT pg_current_wal_lsn()::text`).Scan(&end); err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	out, err := exec.CommandContext(b.Context(), tool, "-d", r.url, "--slot", "bare"+r.suffix, "--start", "--no-loop", "-f", "-", "-F", "0",
		"--endpos", end, "-o", "proto_version=1", "-o", "publication_names=reconciler").Output()
	if err != nil || len(out) < n {
		b.Fatal(len(out), err)
	}
	theirs := time.Since(start)

	var taken atomic.Int64
	all := make(chan struct{})
	l, err := cdc.New(cdc.Config{URL: r.url, Slot: "ours" + r.suffix, Publication: "reconciler", Log: slog.New(slog.DiscardHandler),
		OnSlotCreated: func(context.Context) error { return errors.New("the slot was there") },
		Handle: func(ctx context.Context, batch cdc.Batch) error {
			err := r.intake.Stream(ctx, batch)
			if taken.Add(int64(len(batch.Changes))) == n {
				close(all)
			}
			return err
		}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var g errgroup.Group
	g.Go(func() error { return l.Run(ctx) })
	start = time.Now()
	<-all
	took := time.Since(start)
	cancel()
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(n/took.Seconds(), "rows/s")
	b.ReportMetric(float64(theirs)/float64(took), "ratio")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkEnqueue measures the statement that takes a batch of the stream in: keys
// whose row is what the hub says, and keys that become dirty.
func BenchmarkEnqueue(b *testing.B) {
	const n, batch = 20000, 1000
	for _, dirty := range []bool{false, true} {
		b.Run(fmt.Sprintf("dirty=%v", dirty), func(b *testing.B) {
			r := newRig(b, n, studio.Delays{})
			r.settled()
			if dirty {
				r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
			}
			keys := make([]string, n)
			for i := range keys {
				keys[i] = fmt.Sprint("c", i)
			}
			i := 0
			for b.Loop() {
				if _, err := r.ledger.EnqueueChanged(b.Context(), keys[i:i+batch], nil, ledger.FromWAL); err != nil {
					b.Fatal(err)
				}
				i = (i + batch) % n
			}
			b.ReportMetric(batch*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
		})
	}
}
