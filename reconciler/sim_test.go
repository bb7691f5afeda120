package reconciler

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/star"
)

var (
	simSchedules = flag.Int("sim.schedules", 10_000, "how many schedules to simulate")
	simSeed      = flag.Uint64("sim.seed", 0, "simulate this one schedule and tell all of it")
)

// sim is one schedule: real Turners between sides in memory, and a scheduler that
// decides by its seed alone who goes on, what fails, how time passes, and what people
// do meanwhile. It runs in a bubble of testing/synctest: whenever everybody waits, the
// scheduler takes its next step.
type sim struct {
	seed    uint64
	rng     *rand.Rand
	start   time.Time
	metrics *metrics.Metrics
	mutant  simMutant

	rows      *memRows
	tasks     *memTasks
	elsewhere *memTasks // another Label Studio, while it answers at the URL; nil: ours does
	strayed   bool      // it did
	keys      []string
	accounts  map[string]*account
	replicas  []*replica
	listeners map[string]func()
	deadlines map[string]time.Time // by attempt
	sent      map[string]bool      // by attempt
	loose     []*flight
	wal       []string // keys whose rows changed, not confirmed
	hooks     []hook
	sweep     []string // keys that only a full pass finds
	listed    func()   // the end of a pass that has listed all tasks; nil: none is under way
	initial   string

	weights       [9]int // of the kinds of steps
	ahead         int    // the daemon that goes on more often than others
	exact         bool   // every trigger arrives, and no pass helps
	acts, faults  int    // left
	status        int    // what Label Studio answers to everything; 0: as it should
	born, daemons int
	patches       int

	mu     sync.Mutex // of what several replicas do at once
	broken string     // the first breach
	told   *strings.Builder
}

func (s *sim) logf(format string, args ...any) {
	if s.told != nil {
		fmt.Fprintf(s.told, "%9.3fs ", time.Since(s.start).Seconds())
		fmt.Fprintf(s.told, format+"\n", args...)
	}
}

func (s *sim) breach(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == "" {
		s.broken = fmt.Sprintf(format, args...)
		s.logf("BREACH: %s", s.broken)
	}
}

func (s *sim) accountOf(task int64) *account { return s.accounts[s.tasks.tasks[task].key()] }

func (s *sim) somebody() labelstudio.User {
	return s.tasks.users[s.rng.IntN(len(s.tasks.users))]
}

// simulate runs one schedule and returns what broke, "" for nothing, and its log.
func simulate(t *testing.T, seed uint64, m *metrics.Metrics, mutant simMutant, tell bool) (broken, log string) {
	synctest.Test(t, func(*testing.T) {
		s := &sim{seed: seed, rng: rand.New(rand.NewPCG(seed, 4)), start: time.Now(), metrics: m, mutant: mutant}
		if tell {
			s.told = &strings.Builder{}
		}
		s.build()
		s.run()
		broken = s.broken
		if tell {
			log = s.told.String()
		}
	})
	return broken, log
}

// build makes the world that a schedule begins with.
func (s *sim) build() {
	s.rows, s.tasks = newMemRows(), newMemTasks()
	s.rows.breach = s.breach
	s.rows.dirtied = s.wake
	s.accounts, s.listeners = map[string]*account{}, map[string]func(){}
	s.deadlines, s.sent = map[string]time.Time{}, map[string]bool{}
	s.tasks.users = []labelstudio.User{{ID: 1, Email: "sync@example.com"}, {ID: 2, Email: "ann@example.com"}, {ID: 3, Email: "bob@example.com"}}
	s.initial = "union"
	if s.rng.IntN(4) == 0 {
		s.initial = []string{"aristotle", "labelstudio", "hold"}[s.rng.IntN(3)]
	}
	s.rows.initial = s.initial
	s.mutant.break_(s.rows)
	s.exact = s.initial != "labelstudio" && s.rng.IntN(3) == 0
	for i, w := range [...]int{58, 12, 12, 9, 3, 2, 2, 2, 1} {
		s.weights[i] = w * []int{1, 1, 1, 4}[s.rng.IntN(4)]
	}
	s.acts, s.faults = 2+s.rng.IntN(6), s.rng.IntN(7)
	for i := range 1 + s.rng.IntN(3) {
		s.addKey(fmt.Sprint("k", i), 10*int64(i+1))
	}
	if s.rng.IntN(2) == 0 {
		s.known()
	}
	for range 1 + s.rng.IntN(2) {
		s.launch()
	}
}

// addKey makes a conquest with its tasks: at rest, or before their first contact.
func (s *sim) addKey(key string, first int64) {
	a := newAccount()
	s.accounts[key] = a
	s.keys = append(s.keys, key)
	known, starred := s.rng.IntN(2) == 0, s.rng.IntN(2) == 0
	result := aristotle.Pending
	if known && starred {
		result = aristotle.Victory
	} else if !known {
		result = []string{aristotle.Pending, aristotle.Victory, "DEFEAT"}[s.rng.IntN(3)]
	}
	s.newRow(key, result)
	row := s.rows.conquests[key]
	if result != aristotle.Pending || known || s.initial != "union" {
		a.speak(result == aristotle.Victory, &a.row)
	}
	if known {
		before := aristotle.Pending
		s.rows.hubs[key] = &memHub{Hub: ledger.Hub{Key: key, D: &starred, Before: &before, CreatedAt: row.CreatedAt}}
		for _, r := range aristotle.Rate(row.Conquest, starred, &aristotle.Place{Task: first}, nil) {
			s.rows.commit(change{ratings: []aristotle.Rating{r}}, time.Now())
		}
	}
	for i := range 1 + s.rng.IntN(2) {
		id := first + int64(i)
		t := s.tasks.add(id, 1+int64(s.rng.IntN(2)), key)
		sp := &spoken{}
		a.tasks[id] = sp
		t.Meta = s.firstMeta(starred, known)
		if known {
			s.rows.projects[t.Project] = true
			created, updated := t.CreatedAt, t.UpdatedAt
			s.rows.edges[id] = &memEdge{Edge: ledger.Edge{Task: id, Key: key, Project: t.Project, Begun: "union", S: &starred,
				TaskCreatedAt: &created, TaskUpdatedAt: &updated}}
			s.rows.texts[id] = textOf(key, &t.Task)
			sp.meta, sp.stars = a.row, a.row
		} else {
			a.speak(starred, &sp.meta)
			s.hook(t)
		}
	}
	if !known {
		s.wal = append(s.wal, key)
	}
}

// firstMeta is what stands in a task's meta at first. Older writers know one star key, others the other.
func (s *sim) firstMeta(starred, known bool) []byte {
	all := []string{`{}`, `{}`, `{"gold_star": false}`, `{"is_gold_star": false}`}
	if starred {
		all = []string{`{"gold_star": true}`, `{"is_gold_star": true}`, `{"gold_star": true, "is_gold_star": true}`, `{"gold_star": true}`}
	}
	if starred && !known && s.rng.IntN(8) == 0 {
		return []byte(`{"gold_star": false, "is_gold_star": true}`) // they differ: the star counts
	}
	return []byte(all[s.rng.IntN(len(all))])
}

func (s *sim) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range ordered(s.listeners) {
		l()
	}
}

// launch starts a daemon.
func (s *sim) launch() {
	s.daemons++
	r := &replica{sim: s, name: fmt.Sprint("w", s.daemons), ended: make(chan struct{})}
	n := 0
	chance := rand.New(rand.NewPCG(s.seed, uint64(100+s.daemons)))
	r.turner = NewTurner(Options{Metrics: s.metrics, Log: slog.New(slog.DiscardHandler), Deadline: time.Minute, Initial: s.initial})
	r.turner.rows, r.turner.tasks = simRows{r}, simTasks{r}
	r.turner.attempt = func() string { n++; return fmt.Sprintf("%s-%d", r.name, n) }
	r.turner.jitter = func(below time.Duration) time.Duration { return time.Duration(chance.Int64N(int64(below))) }
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	s.replicas = append(s.replicas, r)
	s.logf("%s starts", r.name)
	go func() {
		defer close(r.ended)
		if err := r.turner.Work(ctx); err != nil {
			s.breach("%s: %v", r.name, err)
		}
	}()
}

// run takes steps until the schedule is over, then lets everything come to rest.
func (s *sim) run() {
	for range 30 + s.rng.IntN(60) {
		if s.settle(); s.broken != "" {
			break
		}
		s.step()
	}
	if s.settle(); s.broken == "" {
		s.rest()
	}
	for _, r := range s.replicas {
		r.die()
	}
	for _, r := range s.replicas {
		<-r.ended
	}
}

// settle waits until everybody waits. Who was told to stop and has is replaced.
func (s *sim) settle() {
	synctest.Wait()
	for i, r := range s.replicas {
		select {
		case <-r.ended:
			s.replicas = slices.Delete(slices.Clone(s.replicas), i, i+1)
			s.launch()
			s.settle()
			return
		default:
		}
	}
}

// parked are the calls that wait for the scheduler, in a fixed order.
func (s *sim) parked() (all []parked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.replicas {
		for _, c := range r.calls {
			all = append(all, parked{r, c})
		}
	}
	return all
}

type parked struct {
	*replica
	call *call
}

// step is one step of the schedule.
func (s *sim) step() {
	for !s.try(s.draw()) {
	}
}

// draw draws what comes next, by this schedule's own weights: one has many lost
// leases, another much time, so that together they come to more than the mean would.
func (s *sim) draw() int {
	sum := 0
	for _, w := range s.weights {
		sum += w
	}
	n := s.rng.IntN(sum)
	for what, w := range s.weights {
		if n -= w; n < 0 {
			return what
		}
	}
	panic("unreachable")
}

// try takes a step of one kind, and tells whether there was one to take.
func (s *sim) try(what int) bool {
	switch what {
	case 0:
		p := s.parked()
		if len(p) == 0 {
			return false
		}
		s.grant(s.choose(p))
	case 1:
		return s.act()
	case 2:
		return s.deliver()
	case 3:
		s.pass_(s.someTime())
	case 4:
		if s.exact {
			return false
		}
		if s.listed == nil || s.rng.IntN(4) == 0 { // or its process dies, and another begins
			s.listed = s.list()
		} else {
			s.listed()
			s.listed = nil
		}
	case 5:
		if s.fault(1) == 0 {
			return false
		}
		s.kill()
	case 6:
		if len(s.loose) == 0 {
			return false
		}
		s.resolve(s.rng.IntN(len(s.loose)))
	case 7:
		return s.weather()
	default:
		s.logf("a new leader drops all leases")
		for _, q := range s.rows.queue {
			q.leased = time.Time{}
		}
	}
	return true
}

// choose picks who goes on. For a while it is mostly the same daemon, so that one
// can come a long way while another stands still.
func (s *sim) choose(all []parked) parked {
	if s.rng.IntN(10) == 0 {
		s.ahead = s.rng.IntN(3)
	}
	if i := slices.IndexFunc(all, func(p parked) bool { return p.replica == s.replicas[s.ahead%len(s.replicas)] }); i >= 0 && s.rng.IntN(4) > 0 {
		return all[i]
	}
	return all[s.rng.IntN(len(all))]
}

// fault returns n, or 0 where nothing may fail any more.
func (s *sim) fault(n int) int {
	if n == 0 || s.faults == 0 {
		return 0
	}
	s.faults--
	return n
}

func (s *sim) someTime() time.Duration {
	d := []time.Duration{time.Millisecond, 40 * time.Millisecond, 300 * time.Millisecond, time.Second, 3 * time.Second,
		5 * time.Second, 11 * time.Second, 31 * time.Second, 56 * time.Second, 70 * time.Second}
	return d[s.rng.IntN(len(d))]
}

// pass_ lets time pass. A PATCH that is under way takes effect before its deadline, or
// never: it is looked for more often than one can come to its deadline unseen.
func (s *sim) pass_(d time.Duration) {
	s.logf("%v pass", d)
	for to := time.Now().Add(d); ; {
		next := time.Now().Add(margin - time.Second)
		if next.After(to) {
			next = to
		}
		i := -1
		for n, f := range s.loose {
			if before := f.until.Add(-time.Millisecond); !before.After(next) {
				i, next = n, before
			}
		}
		if left := time.Until(next); left > 0 {
			s.sleep(left)
		}
		if i >= 0 {
			s.resolve(i)
		} else if next.Equal(to) {
			return
		}
	}
}

// sleep lets the clock go on. Whom it wakes sees all that was done before.
func (s *sim) sleep(d time.Duration) {
	s.fence()
	time.Sleep(d)
	s.settle()
}

// fence orders what was done before everything that others do once they have woken:
// they take this lock first.
func (s *sim) fence() {
	s.mu.Lock()
	defer s.mu.Unlock()
}

// loosen makes a PATCH one that nobody waits for.
func (r *replica) loosen(f *flight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loose = append(r.loose, f)
	slices.SortFunc(r.loose, func(a, b *flight) int { return strings.Compare(a.attempt, b.attempt) })
}

// resolve lets a loose PATCH take effect, or be lost.
func (s *sim) resolve(i int) {
	f := s.loose[i]
	s.loose = slices.Delete(s.loose, i, i+1)
	if !time.Now().Before(f.until) {
		panic("a PATCH later than its deadline: a mistake of the simulation")
	}
	if s.rng.IntN(3) == 0 {
		s.logf("PATCH %s is lost on the way", f.attempt)
		return
	}
	s.logf("PATCH %s takes effect late", f.attempt)
	if _, err := s.land(f); err != nil {
		s.logf("        %v", err)
	}
}

// kill ends a daemon, at whatever it is, and starts another.
func (s *sim) kill() {
	i := s.rng.IntN(len(s.replicas))
	r := s.replicas[i]
	if !slices.ContainsFunc(s.parked(), func(p parked) bool { return p.replica == r }) && s.rng.IntN(2) == 0 {
		s.logf("%s is told to stop", r.name)
		r.stop()
		return // it stays in the list until it has stopped
	}
	s.logf("%s is killed", r.name)
	s.end(r)
}

// weather changes what Label Studio as a whole does, or cuts a session that listens, or keeps a row locked.
func (s *sim) weather() bool {
	if s.status != 0 {
		s.status = 0
		s.logf("Label Studio is well again")
		return true
	}
	if s.rows.busy != "" {
		s.logf("the application lets the row of %s go", s.rows.busy)
		s.rows.busy = ""
		return true
	}
	if s.rng.IntN(3) == 0 {
		return s.turnTo()
	}
	if s.fault(1) == 0 {
		return false
	}
	if s.rng.IntN(4) == 0 {
		s.rows.busy = s.keys[s.rng.IntN(len(s.keys))]
		s.logf("the application keeps the row of %s locked", s.rows.busy)
		return true
	}
	if r := s.replicas[s.rng.IntN(len(s.replicas))]; s.rng.IntN(3) == 0 && r.cut != nil {
		s.logf("the session of %s that listens is lost", r.name)
		r.cut()
		return true
	}
	s.status = []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, -1}[s.rng.IntN(6)]
	s.logf("Label Studio answers %d from now on", s.status)
	return true
}

// grant lets one call go on, well or badly.
func (s *sim) grant(r parked) {
	c := r.call
	v := fate{}
	bad := s.rng.IntN(8) == 0
	switch {
	case c.remote && s.status > 0:
		v = fate{failed_, s.status}
	case c.remote && s.status < 0:
		v = fate{kind: failed_}
	case !bad || s.fault(1) == 0:
		if s.rng.IntN(6) == 0 {
			v.kind = slow
		}
	case c.patch != nil:
		v.kind = []fateKind{failed_, lost, late}[s.rng.IntN(3)]
		if v.kind == failed_ || s.rng.IntN(2) == 0 {
			v.status = []int{0, 500, 502, 408, 302}[s.rng.IntN(5)]
			if v.kind == failed_ && s.rng.IntN(2) == 0 {
				v.status = []int{400, 401, 403, 404, 409, 429}[s.rng.IntN(6)]
			}
		}
	case c.remote:
		v.kind = []fateKind{failed_, short, lost}[s.rng.IntN(3)]
		v.status = []int{0, 401, 403, 429, 500, 503}[s.rng.IntN(6)]
	default:
		v.kind = []fateKind{failed_, lost, crash}[s.rng.IntN(3)]
	}
	if c.done && labelstudio.NotDone(answered(labelstudio.OpTaskPatch, v.status)) {
		v.status = 0 // what is done is not refused
	}
	s.logf("%s %s%s", r.name, c.what, v)
	if v.kind == crash {
		s.end(r.replica)
	} else {
		c.fate <- v
	}
}

// end lets a daemon die where it is, and starts another.
func (s *sim) end(r *replica) {
	waiting := s.parked()
	r.die()
	for _, p := range waiting {
		if p.replica == r {
			p.call.fate <- fate{kind: crash}
		}
	}
	<-r.ended
	s.replicas = slices.DeleteFunc(s.replicas, func(o *replica) bool { return o == r })
	s.settle()
	s.launch()
}

func (v fate) String() string {
	text := [...]string{"", ": done, its answer is kept back", ": fails", ": done, and fails", ": fails, and takes effect later", ": a short answer", ": killed", ": gives up"}[v.kind]
	if v.status != 0 {
		text += fmt.Sprintf(" (%d)", v.status)
	}
	return text
}

// rest ends all faults, and lets everything come to rest. No full pass helps:
// triggers that were given, one incremental pass where triggers may be lost, and time.
func (s *sim) rest() {
	s.logf("people and faults stop")
	s.faults, s.acts, s.status, s.rows.busy = 0, 0, 0, ""
	if s.elsewhere != nil {
		s.turnBack()
	}
	s.wake()
	s.calm()
	s.stream(len(s.wal))
	for _, h := range s.hooks {
		s.webhook(h)
	}
	s.hooks = nil
	if s.strayed { // a full pass, with the right one back, finds what it said was gone
		s.sweep = append(s.sweep, s.keys...)
	}
	for _, t := range ordered(s.tasks.tasks) {
		if t.gone { // whoever deletes a task tells nobody for sure: a turn for another reason notes it
			s.sweep = append(s.sweep, t.key())
		}
	}
	for _, e := range ordered(s.rows.edges) {
		// A hold is looked at afresh in every full pass. Without a row nothing is decided,
		// and no look at a task is made up for.
		if e.Held != nil || s.rows.conquests[e.Key] == nil {
			s.sweep = append(s.sweep, e.Key)
		}
	}
	s.pass()
	if !s.calm() {
		s.breach("it never comes to rest")
	}
	s.stream(len(s.wal)) // what we wrote ourselves
	if !s.idle() {
		s.breach("our own writes made a key dirty")
	}
	s.check()
	writes, patches := s.rows.writes, s.patches
	s.logf("one more turn of every key")
	s.rows.markDirty(slices.Clone(s.keys), ledger.FromAPI)
	if !s.calm() {
		s.breach("it never comes to rest")
	}
	if s.rows.writes != writes || s.patches != patches {
		s.breach("a pass at rest writes")
	}
	s.check()
}

// calm grants everything until there is nothing to do, and tells whether it came to that.
func (s *sim) calm() bool {
	for end := time.Now().Add(time.Hour); s.broken == "" && time.Now().Before(end); {
		s.settle()
		if len(s.loose) > 0 {
			s.resolve(0)
			continue
		}
		if p := s.parked(); len(p) > 0 {
			s.grantWell(p[0])
			continue
		}
		if s.idle() {
			return true
		}
		s.sleep(beatEvery)
	}
	return s.broken != ""
}

func (s *sim) grantWell(r parked) {
	s.logf("%s %s", r.name, r.call.what)
	r.call.fate <- fate{}
}

func (s *sim) idle() bool {
	for _, q := range s.rows.queue {
		if q.want > q.done || !q.lookA.IsZero() {
			return false
		}
	}
	return true
}

// check is what must be true at rest.
func (s *sim) check() {
	for _, key := range s.keys {
		if text := s.wrong(key); text != "" {
			s.breach("at rest: %s: %s", key, text)
		}
	}
}

func (s *sim) wrong(key string) string {
	row, hub, a := s.rows.conquests[key], s.rows.hubs[key], s.accounts[key]
	if row == nil {
		if hub != nil {
			return "the row is gone and its hub is not"
		}
		return ""
	}
	if hub == nil || hub.D == nil || *hub.D != row.IsVictory() {
		return "the row is not the hub"
	}
	held, read := false, a.row
	for _, id := range a.ids() {
		t, e := s.tasks.tasks[id], s.rows.edges[id]
		held = held || e != nil && e.Held != nil
		if t.gone || e != nil && e.Held != nil {
			continue
		}
		if e == nil {
			return fmt.Sprintf("task %d is not linked", id)
		}
		read |= a.tasks[id].meta | a.tasks[id].stars
		switch {
		case e.Key != key:
			return fmt.Sprintf("task %d is linked to %s", id, e.Key)
		case e.MissingSince != nil:
			return fmt.Sprintf("task %d is called missing", id)
		case e.S == nil:
			return fmt.Sprintf("the edge of %d is new", id)
		case e.IntentAttempt != nil:
			return fmt.Sprintf("an intent of %d is left", id)
		case shows(e, id, t.Meta) != *hub.D || *e.S != *hub.D:
			return fmt.Sprintf("task %d shows what the row does not say", id)
		case !slices.Equal(e.Base, stars(&t.Task, false)):
			return fmt.Sprintf("the annotations of %d were not looked at", id)
		case object(t.Meta)[metaIsGold] != nil && readMeta(id, t.Meta).IsGold != star.Of(*hub.D):
			return fmt.Sprintf("the two star keys of %d differ", id)
		}
	}
	gold := 0
	for _, r := range s.rows.ratings {
		if r.Key == key && r.Gold {
			gold++
		}
	}
	if want := map[bool]int{true: 1}[*hub.D]; gold != want {
		return fmt.Sprintf("%d gold ratings, want %d", gold, want)
	}
	if wanted, any := a.wanted(*hub.D); !wanted && !held && (read&a.alive != 0 || !any) {
		return fmt.Sprintf("%v is not what anybody wants: an edit is lost, or was invented", *hub.D)
	}
	return ""
}

// newMetrics are shared by all schedules of a test.
func newMetrics() *metrics.Metrics { return metrics.New(prometheus.NewRegistry()) }

// TestSimulation simulates many schedules. A failure prints the seed, and the
// command that tells that schedule step by step.
func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		broken, log := simulate(t, *simSeed, newMetrics(), simMutant(*simMutate), true)
		t.Log("\n" + log)
		if broken != "" {
			t.Error(broken)
		}
		return
	}
	n := *simSchedules
	if testing.Short() || raceOn {
		n /= 20
	}
	shards := runtime.GOMAXPROCS(0)
	var stop atomic.Bool // one that was found is enough
	for shard := range shards {
		t.Run(fmt.Sprint("shard=", shard), func(t *testing.T) {
			t.Parallel()
			m := newMetrics()
			for seed := 1 + shard; seed <= n && !stop.Load(); seed += shards {
				if broken, _ := simulate(t, uint64(seed), m, simMutant(*simMutate), false); broken != "" {
					stop.Store(true)
					_, log := simulate(t, uint64(seed), m, simMutant(*simMutate), true)
					t.Fatalf("seed %d: %s\nto see it again: go test ./reconciler -run 'TestSimulation$' -sim.seed=%d -v\n%s", seed, broken, seed, log)
				}
			}
		})
	}
}

// TestSimulationReplays: a seed tells the same schedule each time, byte for byte.
func TestSimulationReplays(t *testing.T) {
	t.Parallel()
	m := newMetrics()
	for seed := range uint64(40) {
		_, first := simulate(t, seed, m, "", true)
		_, second := simulate(t, seed, m, "", true)
		if first != second {
			a, b := strings.Split(first, "\n"), strings.Split(second, "\n")
			for i := range min(len(a), len(b)) {
				if a[i] != b[i] {
					t.Fatalf("seed %d differs in line %d:\n%s\n%s", seed, i, a[i], b[i])
				}
			}
			t.Fatalf("seed %d: one ends sooner", seed)
		}
	}
}
