package reconciler_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler"
)

var (
	passSeeds = flag.Int("pass.seeds", 12, "how many full passes to run amid people's changes")
	passSeed  = flag.Uint64("pass.seed", 0, "run this one")
)

// TestPassesAmidChanges runs the real full pass while people change rows and tasks, turns are made, listings fail, and the process ends and another goes
// on: before and after each request of it, and after each of its commits. The simulation has no full pass, whose merge joins, brakes and findings are SQL; this is what
// it would ask of one. Which comes first of a commit and of the listing that is asked for meanwhile is not the seed's: a seed is nearly the same again.
func TestPassesAmidChanges(t *testing.T) {
	t.Parallel()
	first, last := uint64(1), uint64(*passSeeds)
	if testing.Short() {
		last = min(last, 4)
	}
	if *passSeed != 0 {
		first, last = *passSeed, *passSeed
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			newAmid(t, seed).run()
		})
	}
}

// amid is one pass, and what happens meanwhile.
type amid struct {
	*rig
	turner *reconciler.Turner
	brakes reconciler.Brakes
	blind  bool // the incremental pass sees nothing: all is left to the full one
	turned bool // turns are made meanwhile

	mu     sync.Mutex
	chance *rand.Rand
	keys   map[string]*amidKey
	faults int  // of a listing, or of the process: left
	quiet  bool // nothing happens any more
	begun  bool // the pass has begun
	die    context.CancelFunc
}

// amidKey is a conquest with its task. People change it in one place only, as often as they like: so it is known to the last bit what must become of it.
type amidKey struct {
	place  place
	task   int64
	want   bool // VICTORY
	early  bool // it was changed before the pass
	during bool // and after it had begun
	over   bool // what can be done in its place only once was done
}

type place int

const (
	inRow place = iota
	inMeta
	inNotes
	taskGone
	taskMoved
	rowGone
	nowhere
)

const amidKeys = 30 // three pages

func newAmid(t *testing.T, seed uint64) *amid {
	t.Helper()
	a := &amid{rig: newRig(t, amidKeys, studio.Delays{}), chance: rand.New(rand.NewPCG(seed, 7)), keys: map[string]*amidKey{}, quiet: true}
	a.blind, a.turned, a.faults = a.chance.IntN(2) == 0, a.chance.IntN(2) == 0, a.chance.IntN(4)
	a.brakes = reconciler.Brakes{Count: 1000}
	if a.chance.IntN(3) == 0 {
		a.brakes = reconciler.Brakes{Count: 3, Share: 0.05}
	}
	for i, task := range a.tasks {
		k := &amidKey{task: task, want: a.chance.IntN(2) == 0, place: place(a.chance.IntN(int(nowhere) + 1))}
		if i == 0 {
			k.place = nowhere // where the first and the last task are gone nothing is inferred from it
		}
		a.keys[fmt.Sprint("c", i)] = k
		if k.want {
			a.exec(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id = $1`, fmt.Sprint("c", i))
		}
	}
	a.contacted()
	a.turner = a.rig.turner(a.client) // its requests are not the pass's
	a.sendThrough(func(q *http.Request) (*http.Response, error) {
		q = q.Clone(q.Context())
		q.Header.Set("Fault", a.at())
		answer, err := http.DefaultTransport.RoundTrip(q)
		a.at()
		return answer, err
	})
	a.studio.Faults(func(q *http.Request) studio.Fault { return faults[q.Header.Get("Fault")] })
	return a
}

func (a *amid) run() {
	if a.blind {
		a.exec(`UPDATE reconciler.project SET watermark = '2100-01-01'`)
	}
	a.quiet = false
	for range a.chance.IntN(25) {
		a.act()
	}
	before := a.kept()
	a.studio.OnPatch(func(task int64, meta json.RawMessage) {
		if !a.turned {
			a.Errorf("a pass sent a PATCH of task %d: %s", task, meta)
		}
	})
	if err := a.ledger.WantFull(a.Context(), "a test", nil); err != nil {
		a.Fatal(err)
	}
	a.begun = true
	for a.open() {
		a.goOn()
	}
	a.mu.Lock()
	a.quiet = true
	a.mu.Unlock()
	if !a.turned {
		a.want("written by the pass", a.kept(), before)
		a.studio.OnPatch(nil)
	}
	a.inferred()
	a.drift("changed before the pass", func(k *amidKey) bool { return k.early && !k.during })

	a.settle()
	a.drift("changed at any time", func(*amidKey) bool { return true })
	a.turnGone()
	a.settle() // a change and its taking back, in a plan of an incremental pass that was braked, are remembered only now
	a.turnGone()
	a.atRest()
	a.wanted()
	written := a.written()
	a.settle()
	a.turnAll(a.turner)
	a.want("found at rest", a.text(`SELECT string_agg(concat_ws(' ', key, class, reason), ', ') FROM reconciler.finding`), "")
	a.want("written at rest", a.written(), written)
}

// open tells whether a pass is not over. What was braked waits for a person.
func (a *amid) open() bool {
	a.Helper()
	return a.ask(`SELECT EXISTS (SELECT FROM reconciler.pass WHERE state NOT IN ('done', 'replaced', 'braked'))`)
}

// goOn is a process that runs passes until they are over, or until it dies.
func (a *amid) goOn() {
	ctx, die := context.WithCancel(a.Context())
	defer die()
	a.mu.Lock()
	a.die = die
	a.mu.Unlock()
	p := a.passes(func(p *reconciler.Passes) {
		p.Brakes, p.Retry, p.Step = a.brakes, time.Millisecond, func(string) { a.at() }
	})
	var running sync.WaitGroup
	running.Go(func() { _ = p.Run(ctx) })
	defer running.Wait()
	defer die()
	over := -1 // listings of incremental passes, when all was over
	a.eventually(func() bool {
		p.Poke()
		n := a.studio.Requests()[labelstudio.OpTasksChanged]
		switch {
		case ctx.Err() != nil:
			return true
		case a.open():
			return false
		case over < 0:
			over = n
		}
		// What is braked must stay so in the process that has braked it: its next incremental pass marks before it lists.
		return n > over || !a.ask(`SELECT EXISTS (SELECT FROM reconciler.pass WHERE state = 'braked')`)
	})
}

// settle runs full passes in peace. A person releases what is braked.
func (a *amid) settle() {
	a.Helper()
	for braked := true; braked; {
		if err := a.ledger.WantFull(a.Context(), "a test", nil); err != nil {
			a.Fatal(err)
		}
		for a.open() {
			a.goOn()
		}
		plan := a.text(`SELECT plan FROM reconciler.pass WHERE state = 'braked' AND kind = 'full' ORDER BY id DESC LIMIT 1`)
		if braked = plan != ""; braked {
			if _, err := a.ledger.Release(a.Context(), plan, "somebody"); err != nil {
				a.Fatal(err)
			}
			for a.open() {
				a.goOn()
			}
			return // dirty now, and no pass would find more
		}
	}
}

// faults are what goes wrong with a request, by the header that asks for it.
var faults = map[string]studio.Fault{
	"short": {Kind: studio.FaultShort}, "cut": {Kind: studio.FaultCut},
	"500": {Kind: studio.FaultStatus, Status: http.StatusInternalServerError}, "403": {Kind: studio.FaultStatus, Status: http.StatusForbidden},
}

// at is a point where something may happen, or go wrong.
func (a *amid) at() (fault string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.quiet {
		return ""
	}
	switch n := a.chance.IntN(12); {
	case n < 4:
		a.act()
	case n == 4 && a.turned:
		a.turn()
	case n > 9 && a.faults > 0:
		a.faults--
		if n == 10 {
			a.die()
		} else {
			return []string{"short", "cut", "500", "403"}[a.chance.IntN(4)]
		}
	}
	return ""
}

// turn turns some of what is dirty. A 404 is an hour old at once, so that it is believed at the next look.
func (a *amid) turn() {
	a.exec(`UPDATE reconciler.edge SET missing_since = missing_since - interval '1 hour'`)
	claims, err := a.ledger.Claim(a.Context(), 10, 10)
	if err == nil && len(claims) > 0 {
		err = a.turner.Turn(a.Context(), claims)
	}
	if err != nil {
		a.Error(err)
	}
}

// turnGone is turnAll for tasks that are gone too.
func (a *amid) turnGone() {
	a.Helper()
	for range 30 {
		a.exec(`UPDATE reconciler.queue SET look_at = now() WHERE look_at IS NOT NULL`)
		a.exec(`UPDATE reconciler.queue SET run_after = now() WHERE want_gen > done_gen`)
		a.turn()
	}
	a.turnAll(a.turner)
}

// act is a person who does something.
func (a *amid) act() {
	if a.chance.IntN(10) == 0 {
		a.comes()
		return
	}
	key := fmt.Sprint("c", a.chance.IntN(amidKeys))
	if k := a.keys[key]; k.place != nowhere && !k.over {
		a.change(key, k)
		k.early, k.during = k.early || !a.begun, k.during || a.begun
	}
}

func (a *amid) change(key string, k *amidKey) {
	switch k.place {
	case inRow:
		result := []string{"VICTORY", "VICTORY", "PENDING", "DEFEAT"}[a.chance.IntN(4)]
		a.exec(`UPDATE "Conquest" SET result = $2 WHERE id = $1`, key, result)
		k.want = result == "VICTORY"
	case inMeta:
		k.want = a.chance.IntN(2) == 0
		t, _ := a.studio.Task(k.task)
		meta := map[string]any{}
		if err := json.Unmarshal(t.Meta, &meta); err != nil {
			a.Error(err)
		}
		meta["gold_star"] = k.want
		a.studio.SetMeta(k.task, meta)
	case inNotes:
		a.star(k.task)
		k.want = true
		k.over = true
	case taskGone:
		a.studio.DeleteTask(k.task)
		k.over = true
	case taskMoved: // to a conquest that there is not
		a.setData(k.task, map[string]any{"conquest_id": "of_" + key, "prompt": "p", "response": "r"})
		k.over = true
	case rowGone:
		a.exec(`DELETE FROM "Conquest" WHERE id = $1`, key)
		k.over = true
	}
}

// comes is a new conquest with its task.
func (a *amid) comes() {
	key := fmt.Sprint("new", len(a.keys))
	k := &amidKey{place: nowhere, want: a.chance.IntN(2) == 0}
	result := "PENDING"
	if k.want {
		result = "VICTORY"
	}
	a.exec(`INSERT INTO "Conquest" (id, result, philosopher, domain) VALUES ($1, $2, 'p', 'd')`, key, result)
	k.task = a.studio.AddTask(a.project, map[string]any{"conquest_id": key, "prompt": "p", "response": "r"}, nil)
	k.early, k.during = !a.begun, a.begun
	a.keys[key] = k
}

// kept is what is written where no person writes: our memory of what there was before, the ratings, and the rows that nobody edits.
func (a *amid) kept() string {
	a.Helper()
	var edited, gone []string
	for key, k := range a.keys {
		switch k.place {
		case inRow:
			edited = append(edited, key)
		case rowGone:
			gone = append(gone, key)
		}
	}
	return a.text(`SELECT string_agg(x, ' ' ORDER BY x) FROM (
		SELECT id || xmin AS x FROM "Conquest" WHERE id LIKE 'c%' AND id <> ALL ($1) AND id <> ALL ($2)
		UNION ALL SELECT id || xmin FROM ml_analysis_rating WHERE conquest_analysis_id <> ALL ($2)
		UNION ALL SELECT key || xmin FROM reconciler.hub UNION ALL SELECT 'e' || task_id || xmin FROM reconciler.edge WHERE key LIKE 'c%') w`, edited, gone)
}

// inferred checks what the pass took for gone: nothing that is there. And that it does by itself what the brakes allow, and no more.
func (a *amid) inferred() {
	a.Helper()
	var left []string
	for key, k := range a.keys {
		if k.place == taskGone || k.place == taskMoved {
			left = append(left, key)
		}
	}
	a.want("taken for gone", a.text(`SELECT string_agg(key, ', ') FROM (
		SELECT key FROM reconciler.finding WHERE class = 'link_stale' AND NOT explained UNION SELECT key FROM reconciler.edge WHERE missing_since IS NOT NULL) f WHERE key <> ALL ($1)`, left), "")
	a.want("beyond the brakes", a.text(`SELECT string_agg(concat_ws(' ', id, sets, clears, links), ', ') FROM reconciler.pass
		WHERE state IN ('marking', 'done') AND greatest(sets, clears, links) > $1 AND released_at IS NULL AND id > 1`, a.brakes.Count), "")
	if a.blind && !a.turned {
		a.want("dirty of a plan that is braked", a.text(`SELECT string_agg(q.key, ', ') FROM reconciler.queue q JOIN reconciler.finding f USING (key) JOIN reconciler.pass p ON p.id = f.pass
			WHERE want_gen > done_gen AND p.state = 'braked' AND NOT f.explained`), "")
	}
}

// drift checks that each of the keys which differs is dirty, explained, or in a plan that a person is asked for.
func (a *amid) drift(what string, which func(*amidKey) bool) {
	a.Helper()
	for _, key := range slices.Sorted(maps.Keys(a.keys)) {
		k := a.keys[key]
		if why := a.differs(key, k); which(k) && why != "" && !a.ask(`SELECT EXISTS (SELECT FROM reconciler.queue WHERE key = $1 AND want_gen > done_gen)
				OR EXISTS (SELECT FROM reconciler.finding f JOIN reconciler.pass p ON p.id = f.pass WHERE f.key = $1 AND (f.explained OR p.state = 'braked'))`, key) {
			a.Errorf("%s, and not found: %s: %s", what, key, why)
		}
	}
}

// differs tells what of a key is not as we remember it.
func (a *amid) differs(key string, k *amidKey) string {
	a.Helper()
	t, there := a.studio.Task(k.task)
	var meta map[string]any
	if there {
		if err := json.Unmarshal(t.Meta, &meta); err != nil {
			a.Fatal(err)
		}
	}
	var moved struct {
		Conquest string `json:"conquest_id"`
	}
	_ = json.Unmarshal(t.Data, &moved)
	noted := len(t.Annotations)
	return a.text(`SELECT concat_ws(', ',
			CASE WHEN (h.d IS NOT NULL) <> (c.id IS NOT NULL) OR h.d <> (c.result = 'VICTORY') THEN concat('result ', c.result, ' hub ', h.d) END,
			CASE WHEN NOT $3 AND e.task_id IS NOT NULL AND e.missing_since IS NULL THEN 'its task is gone' END,
			CASE WHEN $3 AND $6 <> $1 AND e.key = $1 THEN 'its task is another conquest''s' END,
			CASE WHEN $3 AND $6 = $1 AND c.id IS NOT NULL AND (e.s IS DISTINCT FROM $4 OR cardinality(e.base) <> $5) THEN concat('task shows ', $4::bool, ' edge ', e.s) END)
		FROM (SELECT $1::text AS key, $2::bigint AS task) k LEFT JOIN "Conquest" c ON c.id = k.key LEFT JOIN reconciler.hub h ON h.key = k.key
		LEFT JOIN reconciler.edge e ON e.task_id = k.task AND e.key = k.key`, key, k.task, there, meta["gold_star"] == true, noted, moved.Conquest)
}

// wanted checks what has become of each key.
func (a *amid) wanted() {
	a.Helper()
	var got, want []string
	for _, key := range slices.Sorted(maps.Keys(a.keys)) {
		k := a.keys[key]
		row, shows := fmt.Sprint(k.want), any(k.want)
		missing := k.place == taskGone && k.over
		switch {
		case missing:
			shows = "404"
		case k.place == taskMoved && k.over, k.place == rowGone && k.over:
			shows = "" // what it showed then
		}
		if k.place == rowGone && k.over {
			row = ""
		}
		want = append(want, fmt.Sprint(key, " ", row, " ", shows, " missing ", missing))
		now := a.gold(k.task)
		if now == nil {
			now = false
		}
		if shows == "" {
			now = ""
		}
		got = append(got, fmt.Sprint(key, " ", a.text(`SELECT result = 'VICTORY' FROM "Conquest" WHERE id = $1`, key), " ", now, " missing ",
			a.ask(`SELECT EXISTS (SELECT FROM reconciler.edge WHERE task_id = $1 AND missing_since IS NOT NULL)`, k.task)))
	}
	a.want("what became of the keys", strings.Join(got, "\n"), strings.Join(want, "\n"))
}
