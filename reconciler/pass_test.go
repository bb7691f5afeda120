package reconciler_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// never is a schedule whose time does not come: a test asks for its passes.
type never struct{}

func (never) Next(now time.Time) time.Time { return now.Add(1000 * time.Hour) }

// passes returns passes that run when they are asked for.
func (r *rig) passes(change func(*reconciler.Passes)) *reconciler.Passes {
	p := &reconciler.Passes{Ledger: r.ledger, Intake: r.intake, Studio: r.client, Metrics: r.metrics, Log: slog.New(slog.NewTextHandler(logWriter{r.TB}, nil)),
		Incremental: never{}, Full: never{}, Initial: "union", Projects: []int64{r.project}, Brakes: reconciler.Brakes{Count: 20, Share: 0.1}, Page: 10}
	if change != nil {
		change(p)
	}
	return reconciler.NewPasses(p)
}

type logWriter struct{ testing.TB }

func (w logWriter) Write(b []byte) (int, error) {
	w.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// pass runs passes until every one that was wanted is over or braked, and what it has
// found is dirty.
func (r *rig) pass(p *reconciler.Passes) {
	r.Helper()
	r.during(p.Run, func() bool {
		p.Poke()
		return r.ask(`SELECT EXISTS (SELECT FROM reconciler.pass) AND NOT EXISTS (SELECT FROM reconciler.pass WHERE state NOT IN ('done', 'replaced', 'braked'))`)
	})
}

// full asks for a full pass and runs it.
func (r *rig) full(p *reconciler.Passes) {
	r.Helper()
	if err := r.ledger.WantFull(r.Context(), "a test", nil); err != nil {
		r.Fatal(err)
	}
	r.pass(p)
}

// contacted makes the first contact of all keys.
func (r *rig) contacted() {
	r.Helper()
	r.full(r.passes(nil))
	r.turnAll(r.turner(r.client))
	r.atRest()
}

// text returns one text of the database.
func (r *rig) text(sql string, args ...any) (s string) {
	r.Helper()
	if err := r.db.QueryRow(r.Context(), `SELECT COALESCE((`+sql+`)::text, '')`, args...).Scan(&s); err != nil {
		r.Fatal(err)
	}
	return s
}

// atRest checks that both sides are equal and nothing is dirty.
func (r *rig) atRest() {
	r.Helper()
	r.want("drift", r.text(`SELECT string_agg(concat_ws(' ', c.id, c.result, 'd', h.d, 's', e.s), ', ' ORDER BY c.id) FROM "Conquest" c LEFT JOIN reconciler.hub h ON h.key = c.id
		LEFT JOIN reconciler.edge e ON e.key = c.id AND e.missing_since IS NULL AND e.held IS NULL
		WHERE h.d IS DISTINCT FROM (c.result = 'VICTORY') OR e.s <> h.d
		   OR h.d <> EXISTS (SELECT FROM ml_analysis_rating WHERE conquest_analysis_id = c.id AND is_gold_star AND rating = 5)`), "")
	r.want("dirty", r.text(`SELECT string_agg(key, ', ') FROM reconciler.queue WHERE want_gen > done_gen`), "")
}

// TestDrift makes every class of drift while nobody listens: no stream, no webhook. The
// full pass finds each and names it, a turn repairs it, and the next pass finds nothing
// and has nothing written.
func TestDrift(t *testing.T) {
	t.Parallel()
	newRig(t, driftKeys, studio.Delays{}).drift()
}

const driftKeys = 12

// drift is the same on whatever Label Studio.
func (r *rig) drift() {
	r.Helper()
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id IN ('c4', 'c5', 'c6', 'c7')`)
	r.contacted()

	must := func(err error) {
		r.Helper()
		if err != nil {
			r.Fatal(err)
		}
	}
	star := func(i int, gold bool) {
		r.Helper()
		_, err := r.client.PatchMeta(r.Context(), r.tasks[i], fmt.Appendf(nil, `{"gold_star": %t}`, gold))
		must(err)
	}
	star(1, true)                                                         // a star without VICTORY
	r.exec(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id = 'c2'`)    // VICTORY without a star
	_, err := r.client.CreateAnnotation(r.Context(), r.tasks[3], gold(r)) // an annotation that stars
	must(err)
	star(4, false)                                                    // a star taken away
	r.exec(`UPDATE "Conquest" SET result = 'DEFEAT' WHERE id = 'c5'`) // VICTORY taken away
	r.exec(`DELETE FROM ml_analysis_rating WHERE conquest_analysis_id = 'c6'`)
	r.exec(`UPDATE ml_analysis_rating SET rating = 3 WHERE conquest_analysis_id = 'c7'`)
	must(r.client.DeleteTask(r.Context(), r.tasks[8])) // a link gone stale
	late, err := r.client.ImportTasks(r.Context(), r.project, []labelstudio.NewTask{{Data: map[string]any{"conquest_id": "c4", "prompt": "p", "response": "r"}}})
	must(err)
	r.exec(`INSERT INTO "Conquest" (id, result, philosopher, domain) VALUES ('alone', 'PENDING', 'p', 'd')`)

	r.full(r.passes(nil))
	r.want("found", r.text(`SELECT string_agg(DISTINCT concat_ws(' ', key, class, NULLIF(change, '')), ', ') FROM reconciler.finding`),
		"c1 victory_missing set, c2 star_missing set, c3 victory_missing set, c4 star_missing clear, c5 victory_missing clear, c6 rating_wrong, c7 rating_wrong, c8 link_stale link")
	drift, err := r.ledger.Drift(r.Context())
	if err != nil || len(drift) != 4 {
		r.Errorf("drift %v, %v", drift, err)
	}
	r.turnFor(r.turner(r.client))
	r.exec(`UPDATE reconciler.edge SET missing_since = missing_since - interval '1 hour'`) // a 404 is believed after a while
	r.turnAll(r.turner(r.client))
	r.atRest()
	r.want("rows", r.text(`SELECT string_agg(id || ' ' || result, ', ' ORDER BY id) FROM "Conquest" WHERE id < 'c6'`),
		"alone PENDING, c0 PENDING, c1 VICTORY, c10 PENDING, c11 PENDING, c2 VICTORY, c3 VICTORY, c4 PENDING, c5 DEFEAT")
	for i, task := range r.tasks[:8] {
		if want := i == 1 || i == 2 || i == 3 || i > 5; r.gold(task) == true != want {
			r.Errorf("the task of c%d shows %v", i, r.gold(task))
		}
	}
	if r.gold(late[0]) == true {
		r.Error("the late task shows the star")
	}
	if !r.ask(`SELECT missing_since IS NOT NULL FROM reconciler.edge WHERE task_id = $1`, r.tasks[8]) {
		r.Error("the task that is gone is not missing")
	}

	requests, written := r.studio.Requests(), r.written()
	for range 2 {
		r.full(r.passes(nil))
		r.turnAll(r.turner(r.client))
	}
	r.want("found again", r.text(`SELECT string_agg(concat_ws(' ', key, class, reason), ', ') FROM reconciler.finding`), "")
	r.want("written again", r.written(), written)
	now := r.studio.Requests()
	for op, n := range requests {
		if op != labelstudio.OpTasksAfter && op != labelstudio.OpTasksChanged && op != labelstudio.OpProjects && op != "" && now[op] > n+2 {
			r.Errorf("%d requests %s of passes that found nothing", now[op]-n, op)
		}
	}
}

// TestUnseenResult: a result that was set while the slot was lost is what the row gets back when its star is taken away.
// The full pass of the new slot notes it, which is no drift, and the next one has nothing written.
func TestUnseenResult(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, studio.Delays{})
	r.contacted()
	r.exec(`UPDATE "Conquest" SET result = 'DEFEAT' WHERE id = 'c0'`)
	r.full(r.passes(nil))
	r.want("found", r.text(`SELECT string_agg(concat_ws(' ', key, class), ', ') FROM reconciler.finding`), "")
	r.turnAll(r.turner(r.client))
	written := r.written()
	r.full(r.passes(nil))
	r.turnAll(r.turner(r.client))
	r.want("written again", r.written(), written)

	r.exec(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id = 'c0'`)
	r.dirty("c0")
	r.turnAll(r.turner(r.client))
	r.setMeta(map[string]any{"gold_star": false})
	r.dirty("c0")
	r.turnAll(r.turner(r.client))
	r.want("given back", r.shows(), "DEFEAT false@2 false")
}

// TestUnreadStaysUnread: a project that cannot be read is not taken for read by whoever goes on with the pass, in whichever half that is: once it can be,
// its tasks are linked with the choice for a first contact.
func TestUnreadStaysUnread(t *testing.T) {
	t.Parallel()
	for _, ends := range []string{"page", "found"} {
		t.Run(ends, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 3, studio.Delays{})
			second := r.studio.AddProject("second")
			for range 25 {
				r.studio.AddTask(second, map[string]any{"conquest_id": "c0"}, nil)
			}
			r.studio.Faults(func(q *http.Request) studio.Fault {
				if q.URL.Path == "/api/tasks/" && q.URL.Query().Get("project") == fmt.Sprint(r.project) {
					return studio.Fault{Kind: studio.FaultShort}
				}
				return studio.Fault{}
			})
			passes := func(step func(string)) *reconciler.Passes {
				return r.passes(func(p *reconciler.Passes) {
					p.Initial, p.Projects, p.Retry, p.Step = "hold", []int64{r.project, second}, time.Hour, step
				})
			}
			if err := r.ledger.WantFull(t.Context(), "a test", nil); err != nil {
				t.Fatal(err)
			}
			ctx, end := context.WithCancel(t.Context())
			defer end()
			ended := false
			if err := passes(func(name string) {
				if name == ends {
					ended = true
					end()
				}
			}).Run(ctx); err != nil || !ended {
				t.Fatalf("it ended there: %v, %v", ended, err)
			}

			ctx, end = context.WithCancel(t.Context())
			var running sync.WaitGroup
			defer running.Wait()
			defer end()
			running.Go(func() { _ = passes(nil).Run(ctx) })
			r.eventually(func() bool { return r.ask(`SELECT EXISTS (SELECT FROM reconciler.project WHERE full_at IS NOT NULL)`) })
			end()
			running.Wait()
			r.want("read", r.text(`SELECT string_agg(id::text, ', ') FROM reconciler.project WHERE full_at IS NOT NULL`), fmt.Sprint(second))

			r.studio.Faults(nil)
			r.pass(passes(nil))
			r.want("linked", r.text(`SELECT string_agg(DISTINCT project || ' ' || begun, ', ') FROM reconciler.edge`), fmt.Sprintf("%d hold, %d hold", r.project, second))
		})
	}
}

// written tells what was written to rows, ratings and memory so far.
func (r *rig) written() string {
	r.Helper()
	return r.text(`SELECT string_agg(x, ' ' ORDER BY x) FROM (
		SELECT id || xmin AS x FROM "Conquest" UNION ALL SELECT id || xmin FROM ml_analysis_rating
		UNION ALL SELECT key || xmin FROM reconciler.hub UNION ALL SELECT 'e' || task_id || xmin FROM reconciler.edge) w`)
}

func gold(t testing.TB) labelstudio.AnnotationEdit {
	t.Helper()
	region, err := labelstudio.ChoicesRegion("verdict", "model_response", "gold_star")
	if err != nil {
		t.Fatal(err)
	}
	return labelstudio.AnnotationEdit{Result: []labelstudio.Region{region}}
}

// TestIdle: where nothing changes any more, an incremental pass is one listing, of nothing. What changed last
// moves the watermark once when it is no news any more, and after that nothing is written.
func TestIdle(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, studio.Delays{})
	var listed []int
	r.sendThrough(func(q *http.Request) (*http.Response, error) { // to a Label Studio where all was an hour ago
		changed := since.MatchString(q.URL.Query().Get("query"))
		q, asked := q.Clone(q.Context()), q.URL.Query()
		asked.Set("query", since.ReplaceAllStringFunc(asked.Get("query"), func(at string) string { return later(t, at, time.Hour) }))
		q.URL.RawQuery = asked.Encode()
		return edit(func(body []byte) []byte {
			body = updated.ReplaceAllFunc(body, func(at []byte) []byte { return []byte(later(t, string(at), -time.Hour)) })
			if changed {
				listed = append(listed, len(updated.FindAll(body, -1)))
			}
			return body
		})(q)
	})
	r.contacted()
	r.exec(`UPDATE reconciler.project SET watermark = now() - interval '1 hour'`)
	written := func() string { return r.text(`SELECT xmin FROM reconciler.project`) + r.written() }
	p := r.passes(nil)
	listed = nil
	before := written()
	for i := range 3 {
		asked := r.studio.Requests()
		if err := p.Changes(t.Context()); err != nil {
			t.Fatal(err)
		}
		switch now := written(); {
		case i == 0 && now == before:
			t.Error("the watermark was not moved")
		case i > 0 && now != before:
			t.Errorf("pass %d wrote", i)
		default:
			before = now
		}
		for op, n := range r.studio.Requests() {
			if more := n - asked[op]; i > 0 && more > 0 && (more > 1 || op != labelstudio.OpTasksChanged && op != "") {
				t.Errorf("%d requests %s of pass %d", more, op, i)
			}
		}
	}
	r.want("listed", fmt.Sprint(listed), "[3 0 0]")
}

// TestOnePass: of two replicas one runs passes. Where it has lost the lead and does not know, the other goes on with its pass from where that is, and
// what the first one comes to is not taken.
func TestOnePass(t *testing.T) {
	t.Parallel()
	r := newRig(t, 30, studio.Delays{})
	if err := r.ledger.WantFull(t.Context(), "a test", nil); err != nil {
		t.Fatal(err)
	}
	page, standing, done, overtaken := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	logs := func(text string, said chan struct{}) *slog.Logger {
		tell := sync.OnceFunc(func() { close(said) })
		return slog.New(slog.NewTextHandler(lines(func(line string) {
			t.Log(line)
			if strings.Contains(line, text) {
				tell()
			}
		}), nil))
	}
	first := r.passes(func(p *reconciler.Passes) {
		p.Log = logs(ledger.ErrOvertaken.Error(), overtaken)
		stop := sync.OnceFunc(func() { close(page); <-done })
		p.Step = func(string) { stop() } // after its first page
	})
	var asked atomic.Int64
	r.sendThrough(func(q *http.Request) (*http.Response, error) {
		asked.Add(1)
		if strings.Contains(q.URL.Query().Get("query"), `"value":0}`) {
			t.Error("the second reads the first page again")
		}
		return http.DefaultTransport.RoundTrip(q)
	})
	second := r.passes(nil)
	replica, err := ledger.Open(t.Context(), r.url, "reconciler")
	if err != nil {
		t.Fatal(err)
	}
	defer replica.Close()

	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	release := sync.OnceFunc(func() { close(done) })
	defer running.Wait()
	defer cancel()
	defer release()
	running.Go(func() {
		_ = r.ledger.Lead(ctx, slog.New(slog.DiscardHandler), func(context.Context) error { return first.Run(ctx) }) // it does not know
	})
	r.soon(page)
	running.Go(func() { _ = replica.Lead(ctx, logs("another replica leads", standing), second.Run) })
	r.soon(standing)
	second.Poke()
	if n := asked.Load(); n > 0 {
		t.Errorf("the second asked %d times while the first leads", n)
	}
	conn, err := pgx.Connect(t.Context(), r.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	pid, err := ledger.LeaderProcess(t.Context(), conn, "reconciler")
	if err != nil {
		t.Fatal(err)
	}
	r.exec(`SELECT pg_terminate_backend($1)`, pid)
	r.eventually(func() bool { return r.ask(`SELECT bool_and(state = 'done') FROM reconciler.pass`) })
	release()
	r.soon(overtaken)
	r.want("passes", r.text(`SELECT string_agg(state || ' ' || tasks, ', ') FROM reconciler.pass WHERE kind = 'full'`), "done 30")
}

var (
	since   = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`)
	updated = regexp.MustCompile(`("updated_at": ?")[^"]+`)
)

// later moves the time at the end of a text.
func later(t *testing.T, text string, by time.Duration) string {
	t.Helper()
	at := since.FindString(text)
	moved, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSuffix(text, at) + moved.Add(by).Format("2006-01-02T15:04:05.000000Z")
}

// TestLookByAnotherClock: what changed is found by a look whose clock is ahead of Label Studio's.
func TestLookByAnotherClock(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, studio.Delays{})
	r.contacted()
	r.studio.SetMeta(r.tasks[1], map[string]any{"gold_star": true})
	d := &reconciler.Differ{Ledger: r.ledger, Studio: r.client, Projects: []int64{r.project}, Initial: "union", Log: slog.New(slog.DiscardHandler)}
	report, err := d.Since(t.Context(), time.Now().Add(5*time.Minute))
	if err != nil || len(report.Keys) != 1 || report.Keys[0].Key != "c1" {
		t.Errorf("%+v, %v", report, err)
	}
}
