package reconciler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// twin is one world twice: PostgreSQL with the stand-in, and the sides in memory.
// Everything is done to both, and after each step both must be the same: so the
// simulation runs between sides that do what the real ones do.
type twin struct {
	*testing.T
	rng *rand.Rand
	log []string

	busy *rand.Rand // of rows that the application keeps locked during a turn; nil: of none

	db     *pgxpool.Pool
	ledger *ledger.Ledger
	studio *studio.StandIn
	patch  studio.Fault // of every PATCH

	rows  *memRows
	tasks *memTasks

	project int64
	ids     []int64
	user    labelstudio.User
	born    int

	open    []ledger.Patched // of an S5 that goes with the next claim
	ends    []ledger.End
	claims  [2][2][]ledger.Claim // by worker and world
	turners [2][2]*Turner
}

const twinKeys = 2

// soon makes a row that is locked one that is not waited for long.
func soon(conf *pgxpool.Config) { conf.ConnConfig.RuntimeParams["lock_timeout"] = "20" }

func newTwin(t *testing.T, seed uint64) *twin {
	w := &twin{T: t, rng: rand.New(rand.NewPCG(seed, 5)), rows: newMemRows(), tasks: newMemTasks()}
	url := pgtest.Database(t, sandbox.Schema{})
	var err error
	if w.db, err = pgxpool.New(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.db.Close)
	w.exec(`CREATE SCHEMA reconciler`)
	if w.ledger, err = ledger.Open(t.Context(), url, "reconciler", soon); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.ledger.Close)
	if err := w.ledger.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.studio, err = studio.StartStandIn(studio.StandInOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.studio.Close() })
	w.studio.Faults(func(r *http.Request) studio.Fault {
		if r.Method == http.MethodPatch {
			return w.patch
		}
		return studio.Fault{}
	})
	client, err := labelstudio.New(labelstudio.Options{URL: w.studio.URL(), Token: w.studio.Token()})
	if err != nil {
		t.Fatal(err)
	}
	w.user = labelstudio.User{Email: "ann@example.com"}
	w.user.ID = w.studio.AddUser(w.user.Email)
	w.tasks.users = []labelstudio.User{w.user}
	w.rows.breach = t.Errorf
	w.project = w.studio.AddProject("twin")
	w.exec(`INSERT INTO reconciler.project (id, full_at, watermark) VALUES ($1, now(), now())`, w.project)
	w.rows.projects[w.project] = true
	for k := range twinKeys {
		w.newRow(key(k), "PENDING")
		for range k + 1 {
			w.addTask(key(k))
		}
	}
	for worker := range 2 {
		for world := range 2 {
			tr := NewTurner(Options{Ledger: w.ledger, Studio: client, Metrics: newMetrics(), Log: slog.New(slog.DiscardHandler),
				Deadline: time.Minute, Initial: "union", Projects: []int64{w.project}})
			n := 0
			tr.attempt = func() string { n++; return fmt.Sprintf("w%d-%d", worker, n) }
			tr.jitter = func(time.Duration) time.Duration { return time.Hour }
			if world == 1 {
				tr.rows, tr.tasks = w.rows, faultyTasks{w}
			}
			w.turners[worker][world] = tr
		}
	}
	return w
}

// faultyTasks are the tasks in memory, with the stand-in's faults.
type faultyTasks struct{ *twin }

func (f faultyTasks) TasksByID(ctx context.Context, project int64, ids []int64) ([]labelstudio.Task, error) {
	return f.tasks.TasksByID(ctx, project, ids)
}
func (f faultyTasks) Task(ctx context.Context, id int64) (*labelstudio.Task, error) {
	return f.tasks.Task(ctx, id)
}
func (f faultyTasks) FindTasks(ctx context.Context, project int64, field string, values []string) ([]labelstudio.Task, error) {
	return f.tasks.FindTasks(ctx, project, field, values)
}
func (f faultyTasks) Projects(ctx context.Context) ([]labelstudio.Project, error) {
	return f.tasks.Projects(ctx)
}
func (f faultyTasks) Users(ctx context.Context) ([]labelstudio.User, error) {
	return f.tasks.Users(ctx)
}
func (f faultyTasks) Whoami(ctx context.Context) (labelstudio.User, error) {
	return f.tasks.Whoami(ctx)
}

func (f faultyTasks) PatchMeta(ctx context.Context, id int64, meta json.RawMessage) (*labelstudio.Task, error) {
	var answer *labelstudio.Task
	var err error
	if f.patch.Kind == studio.FaultNone || f.patch.Kind == studio.FaultLost {
		answer, err = f.tasks.PatchMeta(ctx, id, meta)
	}
	switch {
	case f.patch.Kind == studio.FaultNone || err != nil:
		return answer, err
	case f.patch.Status != 0:
		return nil, answered(labelstudio.OpTaskPatch, f.patch.Status)
	default:
		return nil, unanswered(labelstudio.OpTaskPatch)
	}
}

func key(k int) string { return fmt.Sprint("c", k) }

func (w *twin) exec(sql string, args ...any) {
	w.Helper()
	if _, err := w.db.Exec(w.Context(), sql, args...); err != nil {
		w.Fatal(err)
	}
}

func (w *twin) done(n int, err error) {
	w.Helper()
	if err != nil {
		w.Fatal(n, err)
	}
}

func (w *twin) newRow(key, result string) {
	w.born++
	created := fmt.Sprintf("2026-01-01 00:00:%02d", w.born)
	w.exec(`INSERT INTO "Conquest" (id, result, philosopher, domain, "createdAt") VALUES ($1, $2, 'p', 'd', $3::text::timestamp)`, key, result, created)
	w.rows.conquests[key] = &memConquest{Conquest: aristotle.Conquest{ID: key, Result: &result, Philosopher: "p", Domain: "d", CreatedAt: &created}}
}

func (w *twin) addTask(key string) {
	id := w.studio.AddTask(w.project, map[string]any{"conquest_id": key, "prompt": "p", "response": "r"}, map[string]any{})
	w.tasks.add(id, w.project, key)
	w.ids = append(w.ids, id)
}

// step does one thing to both worlds.
func (w *twin) step() (diff string) {
	k, task, worker := key(w.rng.IntN(twinKeys)), w.ids[w.rng.IntN(len(w.ids))], w.rng.IntN(2)
	t := w.tasks.tasks[task]
	switch n := w.rng.IntN(18); n {
	case 0, 1:
		w.editRow(k, []string{"PENDING", "VICTORY", "DEFEAT"}[w.rng.IntN(3)])
	case 2:
		meta := []string{`{"gold_star": true}`, `{"gold_star": false, "note": 1}`, `{}`, `{"is_gold_star": true, "gold_star": false}`, `null`}[w.rng.IntN(5)]
		w.say("the meta of %d becomes %s", task, meta)
		w.studio.SetMeta(task, json.RawMessage(meta))
		w.tasks.setMeta(t, json.RawMessage(meta))
	case 3:
		w.annotate(task, t)
	case 4:
		w.say("task %d is deleted", task)
		if w.rng.IntN(4) == 0 {
			w.studio.DeleteTask(task)
			t.gone = true
		}
	case 5, 6:
		w.say("the row of %s is in the stream", k)
		w.done(w.ledger.EnqueueChanged(w.Context(), []string{k}, nil, ledger.FromWAL))
		w.rows.changed([]string{k}, ledger.FromWAL)
	case 7:
		w.say("a webhook of %d", task)
		links := []ledger.Link{{Task: task, Project: w.project, Key: t.key()}}
		w.done(w.ledger.Linked(w.Context(), links, "union", ledger.FromWebhook))
		w.rows.linked(links, ledger.FromWebhook)
	case 8:
		w.passOver()
	case 9:
		w.say("leases are dropped")
		w.done(0, w.ledger.DropLeases(w.Context()))
		for _, q := range w.rows.queue {
			q.leased = time.Time{}
		}
	case 10, 11, 12:
		return w.claim(worker)
	case 13:
		w.lateEnd(task)
	case 14:
		w.click(k)
	default:
		w.turn(worker)
	}
	return ""
}

// lateEnd is an S5 that comes when the attempt may be another one, and the claim is.
func (w *twin) lateEnd(task int64) {
	all := sortedKeys(w.rows.attempts)
	if len(all) == 0 {
		return
	}
	p := ledger.Patched{Task: task, Attempt: all[w.rng.IntN(len(all))], Worked: w.rng.IntN(2) == 0, Answer: ledger.AnswerWorked}
	var ends []ledger.End
	k := key(w.rng.IntN(twinKeys))
	if q := w.rows.queue[k]; q != nil {
		ends = []ledger.End{{Key: k, Claim: q.claim - 1, Gen: q.want}}
	}
	w.say("S5 of %s at %d, worked=%v; a late end of %s", p.Attempt, task, p.Worked, k)
	if w.open == nil && w.rng.IntN(2) == 0 {
		w.open, w.ends = []ledger.Patched{p}, ends // with the next claim
		return
	}
	w.done(0, w.ledger.Settle(w.Context(), []ledger.Patched{p}, ends))
	w.done(0, w.rows.Settle(w.Context(), []ledger.Patched{p}, ends))
}

func (w *twin) click(k string) {
	c := ledger.Click{Key: k, Gold: w.rng.IntN(2) == 0, Who: &w.user.Email, From: ledger.FromCuration, Held: w.rng.IntN(4) == 0}
	w.say("a click on %s: star %v, held %v", k, c.Gold, c.Held)
	real, err := w.ledger.Click(w.Context(), c)
	settled, mem := w.rows.click(c)
	if !errors.Is(err, mem) || real.Settled != settled {
		w.Fatalf("click: %d, %v; in memory %d, %v\nafter:\n%s", real.Settled, err, settled, mem, strings.Join(w.log, "\n"))
	}
}

func (w *twin) say(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *twin) editRow(k, result string) {
	row := w.rows.conquests[k]
	switch {
	case row == nil:
		w.say("another row of %s comes: %s", k, result)
		w.newRow(k, result)
	case w.rng.IntN(8) == 0:
		w.say("the row of %s is deleted", k)
		w.exec(`DELETE FROM "Conquest" WHERE id = $1`, k)
		delete(w.rows.conquests, k)
	default:
		w.say("a person sets the row of %s to %s", k, result)
		w.exec(`UPDATE "Conquest" SET result = $2 WHERE id = $1`, k, result)
		row.Result = &result
	}
}

func (w *twin) annotate(task int64, t *memTask) {
	if t.gone {
		return
	}
	region := labelstudio.Region{Type: "choices", FromName: "star", ToName: "prompt", Value: json.RawMessage(`{"choices": ["gold_star"]}`)}
	id, err := w.studio.Annotate(w.user.ID, task, labelstudio.AnnotationEdit{Result: []labelstudio.Region{region}})
	w.done(0, err)
	w.say("annotation %d of %d says star", id, task)
	w.tasks.notes = id - 1
	w.tasks.annotate(t, 0, true, w.user)
}

func (w *twin) passOver() {
	w.say("a pass finds every task")
	var links []ledger.Link
	for _, id := range w.ids {
		if t := w.tasks.tasks[id]; !t.gone {
			links = append(links, ledger.Link{Task: id, Project: w.project, Key: t.key()})
		}
	}
	w.done(w.ledger.Linked(w.Context(), links, "union", ledger.FromDiff))
	w.rows.linked(links, ledger.FromDiff)
}

// claim lets time pass, since the two worlds are not at the same instant, then claims:
// so that nothing is due within the difference. Of keys that are due at the same time
// the first comes first, as in memory.
func (w *twin) claim(worker int) (diff string) {
	d := []time.Duration{7 * time.Second, 7 * time.Second, 2 * time.Hour}[w.rng.IntN(3)]
	w.exec(`UPDATE reconciler.queue SET run_after = run_after - $1::interval + ascii(right(key, 1)) * interval '1 microsecond', tried_at = tried_at - $1::interval,
		leased_until = leased_until - $1::interval, look_at = look_at - $1::interval, since = since - $1::interval`, d)
	w.exec(`UPDATE reconciler.edge SET intent_deadline = intent_deadline - $1::interval, missing_since = missing_since - $1::interval`, d)
	w.exec(`UPDATE reconciler.hub SET searched_at = searched_at - $1::interval`, d)
	w.rows.shift(d)
	limit := 1 + w.rng.IntN(3)
	for world, side := range []rowSide{database{w.ledger, "union"}, w.rows} {
		var err error
		w.claims[worker][world], err = side.SettleAndClaim(w.Context(), w.open, w.ends, limit, limit)
		w.done(0, err)
	}
	w.open, w.ends = nil, nil
	real, mem := told(w.claims[worker][0]), told(w.claims[worker][1])
	w.say("%v later, worker %d claims %v", d, worker, real)
	return cmp.Diff(real, mem)
}

// told is a claim without what only its own world knows.
func told(claims []ledger.Claim) (all []string) {
	for _, c := range claims {
		text := fmt.Sprintf("%s gen %d claim %d dirty=%v attempts=%d from %s search=%v hub=%v", c.Key, c.Gen, c.Claim, c.Dirty, c.Attempts, c.Source, c.Search, c.Hub)
		if c.N != nil {
			text += fmt.Sprint(" n=", *c.N)
		}
		for _, e := range c.Edges {
			text += fmt.Sprintf(", %d: %q alive=%v base %v", e.Task, e.Attempt, e.Alive, e.Base)
		}
		all = append(all, text)
	}
	return all
}

func (m *memRows) shift(d time.Duration) {
	back := func(all ...*time.Time) {
		for _, t := range all {
			if !t.IsZero() {
				*t = t.Add(-d)
			}
		}
	}
	for _, q := range m.queue {
		back(&q.runAfter, &q.tried, &q.leased, &q.lookA, &q.since)
	}
	for _, e := range m.edges {
		if back(&e.deadline); e.MissingSince != nil {
			since := e.MissingSince.Add(-d)
			e.MissingSince = &since
		}
	}
	for _, h := range m.hubs {
		back(&h.searched)
	}
}

// turn takes what a worker has claimed, perhaps long ago, through S2 to S5.
func (w *twin) turn(worker int) {
	w.patch = []studio.Fault{{}, {}, {Kind: studio.FaultStatus, Status: 400}, {Kind: studio.FaultStatus, Status: 500}, {Kind: studio.FaultLost, Status: 500}}[w.rng.IntN(5)]
	if w.busy != nil && w.busy.IntN(3) == 0 {
		w.rows.busy = key(w.busy.IntN(twinKeys))
		defer func() { w.rows.busy = "" }()
	}
	w.say("worker %d turns; PATCHes: %v %d; the application keeps %q locked", worker, w.patch.Kind, w.patch.Status, w.rows.busy)
	tx, err := w.db.Begin(w.Context())
	w.done(0, err)
	defer tx.Rollback(w.Context())
	_, err = tx.Exec(w.Context(), `SELECT FROM "Conquest" WHERE id = $1 FOR NO KEY UPDATE`, w.rows.busy)
	w.done(0, err)
	for world, claims := range w.claims[worker] {
		if err := w.turners[worker][world].Turn(w.Context(), claims); err != nil {
			w.Fatalf("turn: %v\nafter:\n%s", err, strings.Join(w.log, "\n"))
		}
	}
	w.patch = studio.Fault{}
}

// compare tells where the two worlds differ.
func (w *twin) compare() string {
	var text string
	if err := w.db.QueryRow(w.Context(), dumpSQL).Scan(&text); err != nil {
		w.Fatal(err)
	}
	var real any
	if err := json.Unmarshal([]byte(text), &real); err != nil {
		w.Fatal(err)
	}
	metas := map[int64]string{}
	memMetas := map[int64]string{}
	for _, id := range w.ids {
		if t, there := w.studio.Task(id); there {
			metas[id] = canonical(t.Meta)
		}
		if t := w.tasks.tasks[id]; !t.gone {
			memMetas[id] = canonical(t.Meta)
		}
	}
	return cmp.Diff(real, w.rows.dump(w)) + cmp.Diff(metas, memMetas)
}

func canonical(meta json.RawMessage) string {
	m := object(meta)
	if m == nil {
		return string(meta)
	}
	delete(m, "gold_star_updated_at")
	var clean any
	raw, _ := json.Marshal(m)
	_ = json.Unmarshal(raw, &clean)
	raw, _ = json.Marshal(clean)
	return string(raw)
}

// dumpSQL is all that is stored, without times.
const dumpSQL = `SELECT jsonb_build_object(
	'rows', (SELECT jsonb_agg(jsonb_build_array(id, result, COALESCE("useAsExample", false), "evaluatedBy") ORDER BY id) FROM "Conquest"),
	'ratings', (SELECT jsonb_agg(jsonb_build_array(conquest_analysis_id, is_gold_star, use_as_sample_response, rating, label_studio_task_id, label_studio_annotation_id) ORDER BY id) FROM ml_analysis_rating),
	'hubs', (SELECT jsonb_agg(jsonb_build_array(key, d, n, before, created_at::text, searched_at IS NOT NULL) ORDER BY key) FROM reconciler.hub),
	'edges', (SELECT jsonb_agg(jsonb_build_array(task_id, key, begun, s, older, last, base, intent_value, intent_attempt, missing_since IS NOT NULL, held IS NOT NULL,
		task_created_at IS NOT NULL, task_updated_at IS NOT NULL) ORDER BY task_id) FROM reconciler.edge),
	'queue', (SELECT jsonb_agg(jsonb_build_array(key, want_gen, done_gen, claim, priority, source, attempts, leased_until IS NOT NULL, look_at IS NOT NULL, last_error IS NOT NULL) ORDER BY key) FROM reconciler.queue),
	'audit', (SELECT jsonb_agg(jsonb_build_array(key, task_id, source, reason, said, said_by, who, result, shown, stars, d, n, wrote, intent, attempt) ORDER BY id) FROM reconciler.audit))`

// dump is what dumpSQL is of the memory.
func (m *memRows) dump(w *twin) any {
	list := func(n int) []any { return make([]any, 0, n) }
	rows, ratings, hubs, edges, queue, audit := list(4), list(4), list(4), list(4), list(4), list(4)
	for _, c := range ordered(m.conquests) {
		rows = append(rows, []any{c.ID, c.Result, c.example, c.by})
	}
	for _, r := range ordered(m.ratings) {
		ratings = append(ratings, []any{r.Key, r.Gold, r.Sample, r.Stars, r.Task, r.Annotation})
	}
	for _, h := range ordered(m.hubs) {
		hubs = append(hubs, []any{h.Key, h.D, h.N, h.Before, h.CreatedAt, !h.searched.IsZero()})
	}
	for _, e := range ordered(m.edges) {
		edges = append(edges, []any{e.Task, e.Key, e.Begun, e.S, e.Older, e.Last, append([]int64{}, e.Base...), e.IntentValue, e.IntentAttempt,
			e.MissingSince != nil, e.Held != nil, e.TaskCreatedAt != nil, e.TaskUpdatedAt != nil})
	}
	for _, k := range sortedKeys(m.queue) {
		q := m.queue[k]
		queue = append(queue, []any{k, q.want, q.done, q.claim, q.priority, q.source, q.attempts, !q.leased.IsZero(), !q.lookA.IsZero(), q.err != ""})
	}
	for _, a := range m.audits {
		audit = append(audit, []any{a.Key, a.Task, a.Source, a.Reason, a.Said, a.SaidBy, a.Who, a.Result, a.Shown, a.Stars, a.D, a.N, a.Wrote, a.Intent, a.Attempt})
	}
	all := map[string]any{}
	for name, l := range map[string][]any{"rows": rows, "ratings": ratings, "hubs": hubs, "edges": edges, "queue": queue, "audit": audit} {
		all[name] = any(l)
		if len(l) == 0 {
			all[name] = nil
		}
	}
	raw, err := json.Marshal(all)
	if err != nil {
		w.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		w.Fatal(err)
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// differ runs one schedule and tells where the worlds differ first, "" for nowhere.
func (w *twin) differ() string {
	for range 60 {
		if diff := w.step() + w.compare(); diff != "" {
			return fmt.Sprintf("the worlds differ (-real +memory):\n%s\nafter:\n%s", diff, strings.Join(w.log, "\n"))
		}
	}
	return ""
}

// TestConformance: the memory of the simulation does what PostgreSQL and the stand-in
// do, in seeded schedules of two workers, step by step.
func TestConformance(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			w := newTwin(t, seed)
			w.busy = rand.New(rand.NewPCG(seed, 6))
			if diff := w.differ(); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

// TestConformanceMutants: where the SQL and the memory do not have the same rules, the
// worlds differ soon.
func TestConformanceMutants(t *testing.T) {
	t.Parallel()
	for _, m := range []simMutant{doneAsWanted, claimStays, endsAnyClaim, anyAttempt, refusalAny, busyIsGone} {
		t.Run(string(m), func(t *testing.T) {
			for seed := range uint64(20) {
				w := newTwin(t, seed)
				if m == busyIsGone {
					w.busy = rand.New(rand.NewPCG(seed, 6))
				}
				m.break_(w.rows)
				w.rows.breach = func(string, ...any) {}
				if diff := w.differ(); diff != "" {
					t.Logf("after %d schedules and %d steps", seed, len(w.log))
					return
				}
			}
			t.Error("not found")
		})
	}
}
