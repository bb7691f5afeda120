package reconciler_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	"github.com/aristotle/reconciler/cdc"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/icl"
)

// exampleRig is a change stream and the indexes of two replicas that are told of it.
type exampleRig struct {
	*rig
	replicas []*icl.Index
	stream   func() (stop func()) // starts it anew
}

func newExampleRig(t testing.TB, ratings int) *exampleRig {
	t.Helper()
	r := &exampleRig{rig: newRigAt(t, pgtest.Database(t, sandbox.Schema{Texts: true}), 1, studio.Delays{})}
	r.exec(`ALTER PUBLICATION reconciler ADD TABLE ml_analysis_rating (id), conquest_prompt (id), conquest_response (id)`)
	r.exec(`INSERT INTO "Conquest" (id, "conquestType", philosopher, domain) SELECT 'k' || i, 'DESIGN_REVIEW', 'p' || i % 12, 'd' FROM generate_series(1, $1) i`, ratings)
	r.exec(`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, is_gold_star, philosopher, domain, created_at)
		SELECT 'r' || i, 'k' || i, 'conquest_analysis', true, 'p' || i % 12, 'd', timestamp '2026-01-01' + i * interval '1 second' FROM generate_series(1, $1) i`, ratings)
	for _, table := range []string{"prompt", "response"} {
		r.exec(`INSERT INTO conquest_`+table+` SELECT 'row' || i, 'k' || i, jsonb_build_object($2::text, repeat('what is virtue? ', 30) || i) FROM generate_series(1, $1) i`,
			ratings, table)
	}
	r.exec(`ANALYZE`)
	slot := "examples" + r.suffix
	r.exec(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, slot)
	for range 2 {
		src, err := icl.Open(t.Context(), r.url, "reconciler")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(src.Close)
		x := icl.NewIndex(src, icl.Options{Log: slog.New(slog.DiscardHandler), Metrics: metrics.New(prometheus.NewRegistry()), Memory: 1 << 30, Slot: slot})
		r.replicas = append(r.replicas, x)
		r.background(x.Run)
		r.intake.Examples = src
	}
	r.stream = func() func() {
		l, err := cdc.New(cdc.Config{URL: r.url, Slot: slot, Publication: "reconciler", Handle: r.intake.Stream, OnSlotCreated: func(ctx context.Context) error { return r.intake.Stream(ctx, anyRow) }, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return r.background(l.Run)
	}
	return r
}

// background runs something until the test ends, or until it is stopped.
func (r *exampleRig) background(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	var g errgroup.Group
	g.Go(func() error { return run(ctx) })
	stop = func() {
		cancel()
		if err := g.Wait(); err != nil {
			r.Error(err)
		}
	}
	r.Cleanup(stop)
	return stop
}

// newest is the id of the newest example of a philosopher in one replica.
func (r *exampleRig) newest(x *icl.Index, philosopher string) string {
	r.Helper()
	page, err := x.Examples(r.Context(), icl.Query{Philosopher: philosopher, Domain: "d", Limit: 1})
	if err != nil {
		r.Fatal(err)
	}
	if len(page.Examples) == 0 {
		return ""
	}
	return page.Examples[0].ID
}

// What the application does is seen in every replica's memory: a star, its end, another
// text, a row that is gone, a table that is emptied. While nobody reads the stream the
// database answers.
func TestReplicasSeeStars(t *testing.T) {
	r := newExampleRig(t, 24)
	stop := r.stream()
	all := func(what string, is func(*icl.Index) bool) {
		t.Helper()
		for _, x := range r.replicas {
			r.eventually(func() bool { return is(x) && x.Fresh() })
		}
	}
	all("fresh", (*icl.Index).Fresh)
	shows := func(id string) func(*icl.Index) bool {
		return func(x *icl.Index) bool { return r.newest(x, "p0") == id }
	}
	for _, step := range []struct{ sql, newest string }{
		{`UPDATE ml_analysis_rating SET is_gold_star = false WHERE id = 'r24'`, "r12"},
		{`UPDATE ml_analysis_rating SET is_gold_star = true WHERE id = 'r24'`, "r24"},
		{`DELETE FROM conquest_prompt WHERE conquest_analysis_id = 'k24'`, "r12"},
		{`INSERT INTO conquest_prompt VALUES ('new', 'k24', '{"prompt": "again"}')`, "r24"},
		{`UPDATE ml_analysis_rating SET philosopher = 'p1' WHERE id = 'r24'`, "r12"},
		{`DELETE FROM ml_analysis_rating WHERE id = 'r12'`, ""},
		{`UPDATE ml_analysis_rating SET philosopher = 'p0' WHERE id = 'r23'`, "r23"},
	} {
		r.exec(step.sql)
		all(step.sql, shows(step.newest))
	}
	stop()
	for _, x := range r.replicas {
		r.eventually(func() bool { return !x.Fresh() })
	}
	r.exec(`UPDATE ml_analysis_rating SET philosopher = 'p0' WHERE id = 'r22'`)
	r.exec(`DELETE FROM ml_analysis_rating WHERE id = 'r23'`)
	for _, x := range r.replicas {
		if got := r.newest(x, "p0"); got != "r22" {
			t.Errorf("the newest is %s, want r22, which the stream has not told", got)
		}
	}
	r.stream()
	all("after a gap", shows("r22"))
	r.exec(`TRUNCATE ml_analysis_rating`)
	all("emptied", shows(""))
}

// BenchmarkVisible stars and unstars among 100,000 gold ratings, 200 times a second, and
// measures each from its commit until both replicas show it.
func BenchmarkVisible(b *testing.B) {
	const rate, n = 200, 2000
	r := newExampleRig(b, 100_000)
	r.stream()
	for _, x := range r.replicas {
		r.eventually(x.Fresh)
	}
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	var took []time.Duration
	for i := range n { // once, whatever b.N is
		<-tick.C
		id := fmt.Sprint("r", 100_000-i%24)
		r.exec(`UPDATE ml_analysis_rating SET created_at = timestamp '2027-01-01' + $2 * interval '1 second' WHERE id = $1`, id, i)
		start := time.Now()
		for _, x := range r.replicas {
			r.eventually(func() bool { return r.newest(x, fmt.Sprint("p", (100_000-i%24)%12)) == id })
		}
		took = append(took, time.Since(start))
	}
	b.ReportMetric(quantile(took, .5), "p50-ms")
	b.ReportMetric(quantile(took, .99), "p99-ms")
	b.ReportMetric(0, "ns/op")
}
