package reconciler_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler/api"
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

// BenchmarkStars makes two thousand VICTORYs at once, against a Label Studio as slow
// as it was measured, and compares with a loop that only PATCHes.
func BenchmarkStars(b *testing.B) {
	const n = 2000
	r := newRig(b, n, studio.MeasuredDelays())
	r.settled()
	yardstick := func(count int) time.Duration {
		start := time.Now()
		for _, t := range r.tasks[:count] {
			if _, err := r.client.PatchMeta(b.Context(), t, json.RawMessage(`{"gold_star": false}`)); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(start) / time.Duration(count)
	}
	bare := yardstick(100)
	stop := r.run()
	defer stop()
	left, all := n, make(chan struct{})
	var mu sync.Mutex
	r.studio.OnPatch(func(int64, json.RawMessage) {
		mu.Lock()
		defer mu.Unlock()
		if left--; left == 0 {
			close(all)
		}
	})
	start := time.Now()
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY'`)
	<-all
	took := time.Since(start)
	r.studio.OnPatch(nil)
	b.ReportMetric(n/took.Seconds(), "stars/s")
	b.ReportMetric(float64(bare*n)/float64(took), "ratio")
	b.ReportMetric(0, "ns/op")
	b.Log(r.studio.Requests())
}

// BenchmarkWebhook measures a delivery from its arrival to the answer, the key being committed.
func BenchmarkWebhook(b *testing.B) {
	r := newRig(b, 1000, studio.Delays{})
	r.settled()
	a := &api.API{Ledger: r.ledger, Metrics: r.metrics, Log: slog.New(slog.DiscardHandler), Secret: "s", Initial: "union", Poke: func() {}}
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
