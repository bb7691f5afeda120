package icl

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// patience is how long a test waits before it gives up: a busy machine must not fail it.
const patience = 3 * time.Minute

// rig is a database with a source on it.
type rig struct {
	testing.TB
	db  *pgxpool.Pool // as the application
	url string
	src *Source
}

func newRig(t testing.TB, schema sandbox.Schema) *rig {
	t.Helper()
	r := &rig{TB: t, url: pgtest.Database(t, schema)}
	var err error
	if r.db, err = pgxpool.New(t.Context(), r.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.db.Close)
	r.exec(`CREATE SCHEMA reconciler`)
	l, err := ledger.Open(t.Context(), r.url, "reconciler")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.src = r.open()
	return r
}

func (r *rig) open() *Source {
	r.Helper()
	s, err := Open(r.Context(), r.url, "reconciler")
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(s.Close)
	return s
}

func (r *rig) exec(sql string, args ...any) {
	r.Helper()
	if _, err := r.db.Exec(r.Context(), sql, args...); err != nil {
		r.Fatal(err)
	}
}

// index starts an index that nobody's slot is watched for.
func (r *rig) index(src *Source, memory int64) *Index {
	r.Helper()
	x := NewIndex(src, Options{Log: slog.New(slog.DiscardHandler), Metrics: metrics.New(prometheus.NewRegistry()), Memory: memory})
	r.keep(x)
	return x
}

// keep runs an index until the test ends.
func (r *rig) keep(x *Index) {
	r.Helper()
	ctx, stop := context.WithCancel(r.Context())
	done := make(chan error)
	go func() { done <- x.Run(ctx) }()
	r.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			r.Error(err)
		}
	})
}

// eventually waits until what is true; asking again is all there is.
func (r *rig) eventually(what func() bool) {
	r.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !what(); <-tick.C {
		if time.Now().After(deadline) {
			r.Fatal("it never happened")
		}
	}
}

// shown is all that a query gives, page by page.
func (r *rig) shown(read func(context.Context, Query) (Page, error), q Query, f Format) (lines []string) {
	r.Helper()
	for {
		page, err := read(r.Context(), q)
		if err != nil {
			r.Fatal(err)
		}
		for _, e := range page.Examples {
			lines = append(lines, string(e.Append([]byte(e.ID+" "), f)))
		}
		lines = append(lines, fmt.Sprint("left out ", page.LeftOut, " next ", page.Next))
		if q.Cursor = page.Next; q.Cursor == "" {
			return lines
		}
	}
}

// The index answers as the database does, in every query, page by page, after any edits
// of any table, in any number of replicas.
func TestIndexIsTheSource(t *testing.T) {
	t.Parallel()
	for _, schema := range []sandbox.Schema{{Texts: true}, {Texts: true, Enums: true}, {}} {
		t.Run(fmt.Sprintf("%+v", schema), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, schema)
			edit := &editor{rig: r, rand: rand.New(rand.NewPCG(1, uint64(len(t.Name())))), schema: schema}
			for range 200 {
				edit.once()
			}
			replicas := []*Index{r.index(r.src, 1<<30), r.index(r.open(), 1<<30)}
			for _, x := range replicas {
				r.eventually(x.Fresh)
			}
			for range 25 {
				var n News
				for range 1 + edit.rand.IntN(20) {
					edit.once()
				}
				n, edit.news = edit.news, News{}
				if err := r.src.Tell(t.Context(), n, nil); err != nil {
					t.Fatal(err)
				}
				for i, q := range edit.queries() {
					f := []Format{ChatML, Alpaca, OpenAI}[i%3]
					want := r.shown(r.src.Examples, q, f)
					for _, x := range replicas {
						var got []string
						agree := func() bool {
							got = r.shown(x.Examples, q, f)
							return cmp.Equal(want, got)
						}
						for deadline := time.Now().Add(patience); !agree(); <-time.After(time.Millisecond) {
							if time.Now().After(deadline) {
								t.Fatalf("%+v (-database +memory):\n%s", q, cmp.Diff(want, got))
							}
						}
						if !x.Fresh() {
							t.Fatal("it was the database that answered")
						}
					}
				}
			}
			for _, x := range replicas {
				x.check(t)
			}
		})
	}
}

// What does not fit is served from the database, the same: that is told once, and ends when it fits again.
func TestIndexTooLarge(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Schema{Texts: true})
	grow := func() (ids []string) {
		r.exec(`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, is_gold_star, philosopher, domain, created_at)
			SELECT 'R' || i, 'c' || i, 'conquest_analysis', true, 'p', 'd', now() FROM generate_series(0, 19) i`)
		r.exec(`INSERT INTO conquest_prompt SELECT 'P' || i, 'c' || i, jsonb_build_object('prompt', repeat('p', 10000)) FROM generate_series(0, 19) i ON CONFLICT DO NOTHING`)
		r.exec(`INSERT INTO conquest_response SELECT 'A' || i, 'c' || i, jsonb_build_object('response', 'r') FROM generate_series(0, 19) i ON CONFLICT DO NOTHING`)
		for i := range 20 {
			ids = append(ids, fmt.Sprint("R", i))
		}
		return ids
	}
	grow()
	var log strings.Builder
	var mu sync.Mutex
	m := metrics.New(prometheus.NewRegistry())
	x := NewIndex(r.src, Options{Log: slog.New(slog.NewTextHandler(locked{&mu, &log}, nil)), Metrics: m, Memory: 150_000})
	x.retry = time.Millisecond
	r.keep(x)
	check := func(what string, fresh bool, warned, examples int) {
		t.Helper()
		for _, q := range []Query{{Philosopher: "p", Domain: "d", Limit: 7}, {Philosopher: "p", Domain: "D", Limit: 7}} {
			if diff := cmp.Diff(r.shown(r.src.Examples, q, ChatML), r.shown(x.Examples, q, ChatML)); diff != "" {
				t.Errorf("%s (-database +index):\n%s", what, diff)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if n := strings.Count(log.String(), "do not fit into RECONCILER_ICL_MEMORY"); x.Fresh() != fresh || n != warned {
			t.Errorf("%s: fresh is %v, warned %d times, want %d:\n%s", what, x.Fresh(), n, warned, &log)
		}
		if f, n := testutil.ToFloat64(m.ICLIndexFresh), testutil.ToFloat64(m.ICLExamples.With(metrics.Served)); f != map[bool]float64{true: 1}[fresh] || n != float64(examples) {
			t.Errorf("%s: the metrics say fresh %v, examples %v", what, f, n)
		}
		x.mu.RLock()
		defer x.mu.RUnlock()
		if kept := x.groups != nil; kept != fresh {
			t.Errorf("%s: that memory holds examples is %v", what, kept)
		}
	}
	tries := r.src.pool.Stat().NewConnsCount()
	r.eventually(func() bool { return r.src.pool.Stat().NewConnsCount() > tries+5 }) // each listens anew
	check("too large at the start", false, 1, 0)
	r.exec(`DELETE FROM ml_analysis_rating WHERE id <> 'R1'`)
	r.eventually(x.Fresh)
	check("it fits", true, 1, 1)
	r.exec(`DELETE FROM ml_analysis_rating`)
	if err := r.src.Tell(t.Context(), News{Ratings: grow()}, nil); err != nil {
		t.Fatal(err)
	}
	r.eventually(func() bool { return !x.Fresh() })
	tries = r.src.pool.Stat().NewConnsCount()
	r.eventually(func() bool { return r.src.pool.Stat().NewConnsCount() > tries+5 })
	check("it grew", false, 2, 0)
}

// Tables that a migration of the application adds are read from the first row on that is told of them.
func TestTablesComeLater(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Schema{})
	r.exec(`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, is_gold_star, philosopher, domain) VALUES ('R', 'c', 'conquest_analysis', true, 'p', 'd')`)
	r.exec(`INSERT INTO reconciler.edge (task_id, key, project, begun) VALUES (1, 'c', 1, 'union')`)
	r.exec(`INSERT INTO reconciler.task_text (task_id, key, prompt, response) VALUES (1, 'c', 'asked there', 'answered there')`)
	x := r.index(r.src, 1<<30)
	r.eventually(x.Fresh)
	for _, c := range []struct{ table, key, shown string }{{"conquest_prompt", "prompt", "asked here"}, {"conquest_response", "response", "answered here"}} {
		r.exec(`CREATE TABLE ` + c.table + ` (id VARCHAR PRIMARY KEY, conquest_analysis_id VARCHAR NOT NULL, data JSONB)`)
		r.exec(`INSERT INTO `+c.table+` VALUES ('T', 'c', jsonb_build_object($1::text, $2::text))`, c.key, c.shown)
		if err := r.src.Tell(t.Context(), map[string]News{"prompt": {Prompts: []string{"T"}}, "response": {Responses: []string{"T"}}}[c.key], nil); err != nil {
			t.Fatal(err)
		}
		q := Query{Philosopher: "p", Domain: "d", Limit: 1}
		r.eventually(func() bool {
			return x.Fresh() && strings.Contains(strings.Join(r.shown(x.Examples, q, ChatML), ""), c.shown)
		})
	}
}

// Readers that are slow, more of them than there are connections, keep nobody from telling what the stream has.
func TestTellWaitsForNoReader(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Schema{Texts: true})
	r.exec(`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, is_gold_star, philosopher, domain) VALUES ('R', 'c', 'conquest_analysis', true, 'p', 'd')`)
	r.exec(`INSERT INTO conquest_prompt VALUES ('P', 'c', '{"prompt": "p"}')`)
	r.exec(`INSERT INTO conquest_response VALUES ('A', 'c', '{"response": "r"}')`)
	out, in := io.Pipe() // nobody reads it
	var all sync.WaitGroup
	for range 2 * maxConns {
		all.Go(func() {
			_, _ = r.src.Export(t.Context(), in, Selection{}, ChatML, func(Exported) { _, _ = in.Write(nil) })
		})
	}
	defer all.Wait()
	defer out.Close()
	r.eventually(func() bool { return r.src.pool.Stat().AcquiredConns() == maxConns })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.src.Tell(ctx, News{Ratings: []string{"R"}}, nil); err != nil {
		t.Error(err)
	}
}

// Of long texts few are read at once, and each example is there all the same, in its order.
func TestLongTexts(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Schema{Texts: true})
	r.exec(`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, is_gold_star, philosopher, domain, created_at)
		SELECT lpad(i::text, 3, '0'), i, 'conquest_analysis', true, 'p', 'd', now() FROM generate_series(1, 60) i`)
	r.exec(`INSERT INTO conquest_prompt SELECT i, i, jsonb_build_object('prompt', i || repeat('p', 1 << 20)) FROM generate_series(1, 60) i`)
	r.exec(`INSERT INTO conquest_response SELECT i, i, jsonb_build_object('response', i) FROM generate_series(1, 60) i`)
	r.exec(`INSERT INTO conquest_prompt VALUES ('more', '60', jsonb_build_object('prompt', repeat('p', 1 << 20)))`)
	r.exec(`INSERT INTO reconciler.edge (task_id, key, project, begun) VALUES (1, '7', 1, 'union')`)
	r.exec(`INSERT INTO reconciler.task_text (task_id, key, prompt, system, corrected) SELECT 1, '7', repeat('a', 8 << 20), repeat('b', 8 << 20), repeat('c', 8 << 20)`)
	ratings, have, err := readRatings(t.Context(), r.src.pool, Selection{}, nil, 100)
	if err != nil {
		t.Fatal(err)
	}
	var part []Rating
	var got []string
	for e, err := range examples(t.Context(), r.src.pool, have, ratings, func(of []Rating) wanted { part = of; return byConquest(of) }) {
		if err != nil {
			t.Fatal(err)
		}
		if len(part) > partBytes>>20 {
			t.Fatalf("%d long texts at once", len(part))
		}
		prompt := e.Key + "ppp"
		if !strings.Contains(string(e.chat), `"content":"`+prompt) || e.Key == "7" != strings.Contains(string(e.chat), "ccc") {
			t.Errorf("%s is %.100s", e.Key, e.chat)
		}
		got = append(got, e.ID)
	}
	if len(got) != 60 || !slices.IsSorted(got) {
		t.Errorf("%d examples: %q", len(got), got)
	}
}

// locked is a writer for many.
type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// check is what holds of an index at any time: its books are right.
func (x *Index) check(t *testing.T) {
	t.Helper()
	x.mu.RLock()
	defer x.mu.RUnlock()
	var bytes int64
	leftOut, listed := 0, 0
	for _, e := range x.held.ratings {
		bytes += e.size()
		listed += len(groupsOf(e))
		if !e.Usable() {
			leftOut++
		}
	}
	bytes += ownerSize * int64(len(x.held.prompts.of)+len(x.held.responses.of))
	for _, list := range x.groups {
		listed -= len(list.examples)
	}
	if bytes != x.held.bytes || leftOut != x.held.leftOut || listed != 0 {
		t.Errorf("bytes %d and not %d, left out %d and not %d, listed too few times %d", x.held.bytes, bytes, x.held.leftOut, leftOut, listed)
	}
}

// editor edits everything that an example can depend on, and notes what the stream
// would tell of it.
type editor struct {
	*rig
	rand   *rand.Rand
	schema sandbox.Schema
	news   News
}

func (e *editor) pick(of ...string) string { return of[e.rand.IntN(len(of))] }

func (e *editor) once() {
	key := fmt.Sprintf("it's \"%d\"\\é", e.rand.IntN(30))
	id := fmt.Sprintf("R%d'", e.rand.IntN(60))
	text := e.pick("", " ", "p", "a \u2028 <b>\x01", "größe", strings.Repeat("x", 3000)) + fmt.Sprint(e.rand.IntN(3))
	if e.rand.IntN(4) == 0 {
		text = e.pick("", " \n")
	}
	gold := e.rand.IntN(3) > 0
	philosopher, domain := e.pick("p@x", "q'@x"), e.pick("d", "D")
	switch n := e.rand.IntN(12); {
	case n < 3:
		e.exec(`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, is_gold_star, philosopher, domain, label_studio_task_id, created_at)
			VALUES ($1, $2, 'conquest_analysis', $3, $4, $5, $6, $7::timestamp)
			ON CONFLICT (id) DO UPDATE SET conquest_analysis_id = $2, is_gold_star = $3, philosopher = $4, domain = $5, label_studio_task_id = $6, created_at = $7::timestamp`,
			id, key, gold, philosopher, domain, e.rand.IntN(40), []any{nil, "infinity", "-infinity", "2026-01-01", "2026-01-01", "2026-01-02 03:04:05.678901"}[e.rand.IntN(6)])
		e.news.Ratings = append(e.news.Ratings, id)
	case n < 4:
		e.exec(`UPDATE ml_analysis_rating SET is_gold_star = NOT COALESCE(is_gold_star, false) WHERE id = $1`, id)
		e.news.Ratings = append(e.news.Ratings, id)
	case n < 5:
		e.exec(`DELETE FROM ml_analysis_rating WHERE id = $1`, id)
		e.news.Ratings = append(e.news.Ratings, id)
	case n < 7:
		e.exec(`INSERT INTO "Conquest" (id, "conquestType", philosopher, domain) VALUES ($1, (jsonb_populate_record(NULL::"Conquest", jsonb_build_object('conquestType', $2::text))).`+
			`"conquestType", 'p', 'd') ON CONFLICT (id) DO UPDATE SET "conquestType" = EXCLUDED."conquestType"`, key, []any{nil, "DESIGN_REVIEW", "MARKET_RESEARCH"}[e.rand.IntN(3)])
		e.news.Conquests = append(e.news.Conquests, key)
	case n < 8:
		e.exec(`DELETE FROM "Conquest" WHERE id = $1`, key)
		e.news.Conquests = append(e.news.Conquests, key)
	case n < 10 && e.schema.Texts:
		table, into := "conquest_prompt", &e.news.Prompts
		if e.rand.IntN(2) == 0 {
			table, into = "conquest_response", &e.news.Responses
		}
		if id = "of " + id; e.rand.IntN(4) == 0 {
			e.exec(`DELETE FROM `+table+` WHERE id = $1`, id)
		} else {
			e.exec(`INSERT INTO `+table+` VALUES ($1, $2, jsonb_build_object('prompt', $3::text, 'response', $3::text, 'system_prompt', $4::text))
				ON CONFLICT (id) DO UPDATE SET conquest_analysis_id = EXCLUDED.conquest_analysis_id, data = EXCLUDED.data`, id, key, text, e.pick("", "be brief"))
		}
		*into = append(*into, id)
	case n < 11: // the trigger tells
		task := e.rand.IntN(40)
		e.exec(`INSERT INTO reconciler.edge (task_id, key, project, begun) VALUES ($1, $2, 1, 'union') ON CONFLICT DO NOTHING`, task, key)
		messages := e.pick("", `[{"role":"system","content":"S"},{"role":"user","content":"u"}]`, `[{"role":"user","content":"u"},{"role":"assistant","content":"v"},{"role":"user","content":"w"}]`)
		e.exec(`INSERT INTO reconciler.task_text (task_id, key, prompt, messages, response, system, corrected, annotation_id, annotated_at)
			SELECT task_id, key, $2, $3, $4, $5, $6, 1, now() FROM reconciler.edge WHERE task_id = $1
			ON CONFLICT (task_id) DO UPDATE SET prompt = $2, messages = $3, response = $4, system = $5, corrected = $6`,
			task, text, messages, e.pick("", "the task's"), e.pick("", "sys"), e.pick("", "", "corrected"))
	default:
		e.exec(`DELETE FROM reconciler.edge WHERE task_id = $1`, e.rand.IntN(40))
	}
}

func (e *editor) queries() (all []Query) {
	for _, p := range []string{"p@x", "q'@x", "nobody"} {
		for _, d := range []string{"d", "D"} {
			for _, kind := range []string{"", "design_review", "Market_Research", "x"} {
				all = append(all, Query{Philosopher: p, Domain: d, Type: kind, Limit: 1 + e.rand.IntN(7)})
			}
		}
	}
	return all
}

// Each loss of the session is told, however like the one before: it was mended in between.
func TestIndexTellsEachLoss(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Schema{Texts: true})
	var log strings.Builder
	x := NewIndex(r.src, Options{Log: slog.New(slog.NewTextHandler(&log, nil)), Metrics: metrics.New(prometheus.NewRegistry()), Memory: 1 << 30})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- x.Run(ctx) }()
	for range 2 {
		r.eventually(x.Fresh)
		r.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'`)
		r.eventually(func() bool { return !x.Fresh() })
	}
	r.eventually(x.Fresh)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if begun, ended := strings.Count(log.String(), "level=WARN"), strings.Count(log.String(), "works again: "+msgKeep); begun != 2 || ended != 2 {
		t.Errorf("%d losses were told and %d ends, want 2 of each:\n%s", begun, ended, log.String())
	}
}
