package curation

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/icl"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// open serves newApp's app as it is for whoever is on this machine.
func open(t testing.TB, conquests int, more ...string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(newApp(t, conquests, func(*Options) {}, more...).routes())
	t.Cleanup(s.Close)
	return s
}

// newApp makes the app on a database of its own with so many conquests, each with a task that agrees with it, and what else is executed.
func newApp(t testing.TB, conquests int, change func(*Options), more ...string) *App {
	t.Helper()
	ctx, url := t.Context(), pgtest.Database(t, sandbox.Schema{Texts: true})
	db, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(ctx)
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := db.Exec(ctx, sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE SCHEMA reconciler`)
	l, err := ledger.Open(ctx, url, "reconciler")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	if err := l.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	exec(`INSERT INTO "Conquest" (id, title, "conquestType", description, result, philosopher, domain, status, "createdAt", "updatedAt")
		SELECT 'conquest_' || lpad(i::text, 6, '0'), (ARRAY['Analysis ', 'ANALYSIS ', 'Überblick '])[1 + i % 3] || md5(i::text) || ' of something of interest', 'CANDIDATE_EVALUATION', repeat('lorem ipsum ', 20),
			(ARRAY['PENDING', 'PENDING', 'VICTORY', 'DEFEAT', 'NEUTRAL'])[1 + i % 5], 'user' || i % 50 || '@example.com', 'domain' || i % 7, 'COMPLETED',
			timestamp '2025-01-01' + i * interval '1 minute', CASE WHEN i % 10 > 0 THEN timestamp '2025-01-01' + (i * 7919) % 5000 * interval '1 minute' END
		FROM generate_series(0, $1) i`, conquests-1)
	exec(`INSERT INTO reconciler.edge (task_id, key, project, begun, s) SELECT i + 1, 'conquest_' || lpad(i::text, 6, '0'), 1, 'union', i % 5 = 2 FROM generate_series(0, $1) i`, conquests-1)
	exec(`INSERT INTO reconciler.queue (key, done_gen, priority, source) SELECT id, 1, 1, 'wal' FROM "Conquest"`)
	for _, sql := range more {
		exec(sql)
	}
	exec(`VACUUM ANALYZE`)
	examples, err := icl.Open(ctx, url, "reconciler")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(examples.Close)
	client, err := labelstudio.New(labelstudio.Options{URL: "http://127.0.0.1:1", Token: "x"})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Ledger: l, Studio: client, Metrics: metrics.New(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler),
		Guard: &auth.Guard{Local: "me@localhost"}, Examples: examples, StudioURL: "http://127.0.0.1:1"}
	change(&o)
	a, err := New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func get(t testing.TB, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v %s", url, resp.StatusCode, err, body)
	}
	return string(body)
}

// BenchmarkList is a person's look at a list of 100,000 conquests: until its first byte, and until all of it is there.
func BenchmarkList(b *testing.B) {
	s := open(b, 100_000)
	searches := 0
	for name, path := range map[string]string{
		"first": "/", "last": "/?dir=asc", "by title": "/?sort=title", "search": "/?q=c4ca4238", "held": "/?sync=held", "no task": "/?sync=no-task",
		"filtered": "/?result=VICTORY&domain=domain3", "new search": "/?q=%04x", "new wide search": "/?q=%02x",
	} {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				at := path
				if strings.Contains(path, "%") { // nobody has searched for it before: it is not counted yet
					searches++
					at = fmt.Sprintf(path, searches)
				}
				start := time.Now()
				get(b, s.URL+at)
				took = append(took, time.Since(start))
				for strings.Contains(get(b, s.URL+at), "data-again") { // what is counted after one list is not to slow the next
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}
