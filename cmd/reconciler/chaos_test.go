package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/labelstudio/sandbox/lstest"
)

var (
	killCount = flag.Int("kills", 30, "how often the kill loop kills something; thousands take hours")
	killSeed  = flag.Uint64("kills.seed", 0, "what the kill loop's people and faults do; 0: something else each time")
)

// The kill loop: three people edit both sides without a pause while the daemon's two replicas, PostgreSQL and Label Studio are killed and started
// again. Every now and then the people pause, and when all is at rest every key is compared with what the protocol promises.
type killLoop struct {
	*street
	server *sandbox.Server
	real   *studio.Real
	chance *rand.Rand // of the main loop; each person has one of his own

	daemons   [2]*process
	addresses [2]string
	keys      []*loopKey
	rows      sync.RWMutex // whoever edits rows reads; whoever takes PostgreSQL away writes
	tasks     sync.RWMutex // the same of Label Studio

	edits, killed          int
	lost, invented, undone int
	tried, overlaps        int // lost updates of Label Studio that were to be brought about, and were
	conflicts              int // keys that people edited in two places between two rests
}

// loopKey is a conquest, its tasks, and what people did to it since it was last at rest.
type loopKey struct {
	key    string
	tasks  []int64
	notes  []int64 // the annotator's, one a task
	mu     sync.Mutex
	before bool            // VICTORY at the last rest
	edited bool            // by anybody, ever
	said   map[string]bool // by place: what was said there last
}

// say notes an edit.
func (k *loopKey) say(place string, value bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.said[place] = value
}

func (k *loopKey) has(place string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, said := k.said[place]
	return said
}

// loopKeys is few enough that people come back to a key while it is worked on, and many enough that most keys are edited in one place between two rests:
// of those it is known to the last bit what must become.
const loopKeys = 24

// TestKillLoop has a Label Studio of its own, since it kills it. It is the longest test, and mostly waits: for deadlines, and for the looks after a PATCH.
// go test starts tests in the order of their files' names, so this file has a name that comes early.
func TestKillLoop(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short leaves the real Label Studio out")
	}
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("go test ./cmd/reconciler -run TestKillLoop -kills %d -kills.seed %d", *killCount, seed)
	real := lstest.Real(t, pgtest.Shared(t).URL())
	server, cfg := ownServer(t, sandbox.Options{})
	l := &killLoop{street: pave(t, cfg, hire(t, real)), server: server, real: real, chance: rand.New(rand.NewPCG(seed, 0))}
	l.env = append(l.env, shortDeadline)
	l.settleIn()
	ctx, stop := context.WithCancel(t.Context())
	var people sync.WaitGroup
	for i, edit := range []func(*rand.Rand) bool{l.editRow, l.editMeta, l.editNote} {
		people.Go(func() { l.person(ctx, rand.New(rand.NewPCG(seed, uint64(i+1))), edit) })
	}
	goHome := func() { stop(); people.Wait() }
	defer goHome()
	for _, fault := range l.faults() {
		l.pause(upTo(l.chance, 1500*time.Millisecond))
		fault()
		if l.killed++; l.killed%6 == 0 {
			l.rest()
		}
	}
	goHome() // the last rest judges their last edits, and nobody counts any more
	l.rest()
	t.Logf("%d edits, %d kills, %d saves over a PATCH of %d tried, %d keys edited in two places at once; lost %d, invented %d, undone %d",
		l.edits, l.killed, l.overlaps, l.tried, l.conflicts, l.lost, l.invented, l.undone)
}

func upTo(chance *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(chance.Int64N(int64(d)))
}

// pause lets the others go on for a time.
func (l *killLoop) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.Context().Done():
	}
}

// settleIn makes the keys, starts the daemons and waits until each task carries a stamp of ours.
func (l *killLoop) settleIn() {
	for i := range l.addresses {
		l.addresses[i] = freeAddress(l.T)
	}
	var all []int64
	for i := range loopKeys {
		k := &loopKey{key: fmt.Sprint("key_", i), said: map[string]bool{}, before: true}
		k.tasks = append(k.tasks, l.pair(k.key, "VICTORY"))
		if i%6 == 0 {
			k.tasks = append(k.tasks, l.task(k.key, l.projects[1], nil))
		}
		for _, task := range k.tasks {
			k.notes = append(k.notes, l.annotate(task, false))
		}
		all = append(all, k.tasks...)
		l.keys = append(l.keys, k)
	}
	for i := range l.daemons {
		l.startDaemon(i)
		l.hook(l.daemons[i])
	}
	l.wantContact(all...)
	l.rest()
}

func (l *killLoop) startDaemon(i int) {
	l.daemons[i] = l.start("RECONCILER_LISTEN=" + l.addresses[i])
}

// person edits, and looks around between two edits.
func (l *killLoop) person(ctx context.Context, chance *rand.Rand, edit func(*rand.Rand) bool) {
	for ctx.Err() == nil {
		if edit(chance) {
			l.count(&l.edits)
		}
		select {
		case <-time.After(200*time.Millisecond + upTo(chance, 600*time.Millisecond)):
		case <-ctx.Done():
		}
	}
}

func (l *killLoop) count(n *int) {
	l.keys[0].mu.Lock()
	defer l.keys[0].mu.Unlock()
	*n++
}

func (l *killLoop) any(chance *rand.Rand) *loopKey { return l.keys[chance.IntN(len(l.keys))] }

// editRow is a person in the application, who sees a row and decides otherwise.
func (l *killLoop) editRow(chance *rand.Rand) bool {
	l.rows.RLock()
	defer l.rows.RUnlock()
	k := l.any(chance)
	var gold bool
	no := []string{"PENDING", "DEFEAT", "NEUTRAL"}[chance.IntN(3)]
	if err := l.db.QueryRow(l.Context(), `UPDATE "Conquest" SET result = CASE WHEN result = 'VICTORY' THEN $2 ELSE 'VICTORY' END, "updatedAt" = now()
		WHERE id = $1 RETURNING result = 'VICTORY'`, k.key, no).Scan(&gold); err != nil {
		l.Error(err)
		return false
	}
	k.say("row", gold)
	return true
}

// editMeta is a person with a script, who reads a task's meta and writes it back with the star turned.
func (l *killLoop) editMeta(chance *rand.Rand) bool {
	l.tasks.RLock()
	defer l.tasks.RUnlock()
	k := l.any(chance)
	i := chance.IntN(len(k.tasks))
	gold := !l.meta(k.tasks[i]).gold()
	l.setMeta(k.tasks[i], object{"gold_star": gold})
	k.say(fmt.Sprint("meta ", i), gold)
	return true
}

// editNote is the annotator, who gives the star or takes it back: once between two rests, since twice between two looks of ours cannot be seen from outside.
func (l *killLoop) editNote(chance *rand.Rand) bool {
	l.tasks.RLock()
	defer l.tasks.RUnlock()
	k := l.any(chance)
	i := chance.IntN(len(k.tasks))
	place := fmt.Sprint("note ", i)
	if k.has(place) {
		return false
	}
	t, err := l.studio.Task(l.Context(), k.tasks[i])
	if err != nil {
		l.Error(err)
		return false
	}
	starred := false
	for _, a := range t.Annotations {
		starred = starred || a.ID == k.notes[i] && saysStar(a)
	}
	k.say(place, !starred)
	l.reannotate(k.notes[i], !starred)
	return true
}

func saysStar(a labelstudio.Annotation) bool {
	for _, r := range a.Result {
		for _, c := range r.Choices() {
			if c == "gold_star" {
				return true
			}
		}
	}
	return false
}

// faults is the deck that is played: thirty kills of every kind, shuffled, as often as was asked for.
func (l *killLoop) faults() (deck []func()) {
	for len(deck) < *killCount {
		var one []func()
		for range 13 {
			one = append(one, l.killLeader)
		}
		for _, step := range []string{"S1", "S2", "S3", "S4", "S5"} {
			one = append(one, func() { l.killAt(step) }, func() { l.killAt(step) })
		}
		one = append(one, l.killFollower, l.killFollower,
			func() { l.postgresAway(l.server.Crash) }, func() { l.postgresAway(l.server.Crash) }, func() { l.postgresAway(l.server.Halt) },
			l.killStudio, func() { l.overlap(); l.killLeader() })
		l.chance.Shuffle(len(one), func(i, j int) { one[i], one[j] = one[j], one[i] })
		deck = append(deck, one...)
	}
	return deck[:*killCount]
}

// leading is the replica that says that it leads; -1: none does.
func (l *killLoop) leading() int {
	return slices.IndexFunc(l.daemons[:], func(p *process) bool {
		_, body := p.get(l.T, "/readyz")
		return strings.Contains(body, `"leader":true`)
	})
}

// leader is the replica that leads, or one of them.
func (l *killLoop) leader() int {
	if i := l.leading(); i >= 0 {
		return i
	}
	return l.chance.IntN(len(l.daemons))
}

func (l *killLoop) killLeader()   { l.killOne(l.leader()) }
func (l *killLoop) killFollower() { l.killOne(1 - l.leader()) }

func (l *killLoop) killOne(i int) {
	l.daemons[i].kill()
	l.startDaemon(i)
}

// killAt leaves one daemon, which kills itself when a step of a turn is done.
func (l *killLoop) killAt(step string) {
	for _, p := range l.daemons {
		p.kill()
	}
	l.dies(l.spawn("RECONCILER_LISTEN="+l.addresses[0], dieAt+"="+step))
	for i := range l.daemons {
		l.startDaemon(i)
	}
}

// postgresAway ends Aristotle's PostgreSQL for a second or two. Nobody can edit a row meanwhile; in Label Studio people go on.
func (l *killLoop) postgresAway(end func() error) {
	l.rows.Lock()
	defer l.rows.Unlock()
	if err := end(); err != nil {
		l.Fatal(err)
	}
	l.pause(upTo(l.chance, 2*time.Second))
	if err := l.server.Restart(l.Context()); err != nil {
		l.Fatal(err)
	}
	l.db.Reset()
}

// killStudio does the same to Label Studio.
func (l *killLoop) killStudio() {
	l.tasks.Lock()
	defer l.tasks.Unlock()
	if err := l.real.Kill(); err != nil {
		l.Fatal(err)
	}
	l.pause(upTo(l.chance, 2*time.Second))
	if err := l.real.Restart(l.Context()); err != nil {
		l.Fatal(err)
	}
}

// overlap forces Label Studio's lost update: an annotator's save that began before our PATCH ends after it, and puts the meta back that it had read. Both
// are made to wait for the task's row, in that order.
func (l *killLoop) overlap() {
	l.rows.Lock()
	defer l.rows.Unlock()
	l.tasks.Lock()
	defer l.tasks.Unlock()
	l.restLocked()               // nobody else is at the key: where a person has just said the same on the task there is nothing to PATCH
	l.eventually(func() string { // all may be at rest while the next leader is only coming up, which takes longer than the lock is held
		if l.leading() < 0 {
			return "no replica leads"
		}
		return ""
	})
	l.tried++
	k := l.any(l.chance)
	task, err := l.studio.Task(l.Context(), k.tasks[0])
	if err != nil {
		l.Fatal(err)
	}
	var same labelstudio.AnnotationEdit // the annotator says nothing new: a star that was there stays
	for _, note := range task.Annotations {
		if note.ID == k.notes[0] {
			same.Result = note.Result
		}
	}
	tx, err := l.side.database.Begin(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	if _, err := tx.Exec(l.Context(), `SELECT FROM task WHERE id = $1 FOR UPDATE`, k.tasks[0]); err != nil {
		l.Fatal(err)
	}
	defer func() { _ = tx.Rollback(cleanContext(l.T)) }() // nobody waits for it for ever, however this ends
	result := "NEUTRAL"
	if !k.before {
		result = "VICTORY"
	}
	l.setResult(result, k.key)
	k.say("row", !k.before)
	if !l.waiting(1) {
		return // its PATCH did not come in time: the machine is busy
	}
	saved := make(chan error, 1)
	go func() {
		_, err := l.studio.UpdateAnnotation(l.Context(), k.notes[0], same)
		saved <- err
	}()
	overlaps := l.waiting(2)
	if err := tx.Commit(l.Context()); err != nil {
		l.Fatal(err)
	}
	if err := <-saved; err != nil {
		l.Logf("the annotator's save: %v", err) // it changes nothing that people asked for
	}
	if overlaps {
		l.overlaps++
	}
}

// overlapWait is shorter than the time after which the daemon gives a PATCH up.
const overlapWait = 8 * time.Second

// waiting waits until so many of Label Studio's sessions wait for a lock, and tells whether they do.
func (l *killLoop) waiting(n int) bool {
	l.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(overlapWait); time.Now().Before(deadline); <-tick.C {
		var got int
		if err := l.side.database.QueryRow(l.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&got); err != nil {
			l.Fatal(err)
		}
		if got >= n {
			return true
		}
	}
	return false
}

// rest lets people pause, waits until nothing is under way, and judges each key.
func (l *killLoop) rest() {
	l.rows.Lock()
	defer l.rows.Unlock()
	l.tasks.Lock()
	defer l.tasks.Unlock()
	l.restLocked()
}

// restLocked is rest for who has both locks: people who wait for them edit as soon as they are given back.
func (l *killLoop) restLocked() {
	l.eventually(l.unrest)
	for _, k := range l.keys {
		l.judge(k)
	}
	// A turn that hears several people notes all of them under the number that it ends with.
	l.zero(`SELECT count(*), min('the audit does not tell how ' || h.key || ' became ' || h.d || '@' || h.n) FROM reconciler.hub h
		WHERE h.n > 0 AND NOT EXISTS (SELECT FROM reconciler.audit a WHERE a.key = h.key AND a.n = h.n AND a.d = h.d)`)
}

// unrest tells what is not at rest, by both databases.
func (l *killLoop) unrest() string {
	for _, k := range l.keys {
		var why string
		var gold bool
		if err := l.db.QueryRow(l.Context(), `SELECT c.result = 'VICTORY', concat_ws(', ',
				CASE WHEN h.d IS DISTINCT FROM (c.result = 'VICTORY') THEN concat('hub ', h.d, ' result ', c.result) END,
				(SELECT min(concat('edge ', task_id, ' ', s, ' intent ', intent_attempt)) FROM reconciler.edge e WHERE e.key = c.id AND (s IS DISTINCT FROM h.d OR intent_attempt IS NOT NULL)),
				(SELECT concat('dirty, last error ', last_error, ', look ', look_at) FROM reconciler.queue q WHERE q.key = c.id AND (want_gen > done_gen OR look_at IS NOT NULL)),
				CASE WHEN h.d <> EXISTS (SELECT FROM ml_analysis_rating r WHERE r.conquest_analysis_id = c.id AND is_gold_star AND rating = 5) THEN 'rating' END)
			FROM "Conquest" c LEFT JOIN reconciler.hub h ON h.key = c.id WHERE c.id = $1`, k.key).Scan(&gold, &why); err != nil {
			return err.Error() // PostgreSQL may be coming up
		}
		for i, task := range k.tasks {
			m := l.peek(task)
			if m.gold() != gold {
				why += fmt.Sprintf("; task %d shows %v", task, m)
			}
			why += l.unseenStars(task, k.notes[i])
			stamp, _ := m["reconciler"].(map[string]any)
			if !l.isTold(task, fmt.Sprint(stamp["attempt"])) {
				why += fmt.Sprintf("; the audit does not tell of %v", stamp)
			}
		}
		if why != "" {
			return fmt.Sprintf("%s (VICTORY: %v): %s", k.key, gold, why)
		}
	}
	return ""
}

// unseenStars tells whether the annotation's star is not what our last look saw.
func (l *killLoop) unseenStars(task, note int64) string {
	var star, seen bool
	if err := l.side.database.QueryRow(l.Context(), `SELECT result::text LIKE '%gold_star%' FROM task_completion WHERE id = $1`, note).Scan(&star); err != nil {
		return err.Error()
	}
	if err := l.db.QueryRow(l.Context(), `SELECT $2 = ANY(base) FROM reconciler.edge WHERE task_id = $1`, task, note).Scan(&seen); err != nil {
		return err.Error()
	}
	if star != seen {
		return fmt.Sprintf("; annotation %d says star: %v, and was seen to: %v", note, star, seen)
	}
	return ""
}

// isTold tells whether the audit has the PATCH whose stamp a task carries.
func (l *killLoop) isTold(task int64, attempt string) (told bool) {
	if err := l.db.QueryRow(l.Context(), `SELECT EXISTS (SELECT FROM reconciler.audit WHERE task_id = $1 AND attempt = $2)`, task, attempt).Scan(&told); err != nil {
		return false // it is asked again
	}
	return told
}

// trace is what the audit has of a key, and what its tasks show now.
func (l *killLoop) trace(k *loopKey) (text string) {
	err := l.db.QueryRow(l.Context(), `SELECT COALESCE(string_agg(to_jsonb(a)::text, E'\n' ORDER BY a.at, a.id), 'no record') FROM reconciler.audit a WHERE key = $1`, k.key).Scan(&text)
	if err != nil {
		return err.Error()
	}
	for _, task := range k.tasks {
		text += fmt.Sprintf("\nthe meta of task %d: %v", task, l.meta(task))
	}
	return text
}

// becomes says what a key's value at rest makes of what people did. Where they did it in one place, or said the same in several, that is what must
// be. Where they said different things in several places either may be: nobody can tell from outside who had seen what.
func (k *loopKey) becomes(gold bool) string {
	values := map[bool]bool{}
	for _, v := range k.said {
		values[v] = true
	}
	switch {
	case len(values) == 0 && gold != k.before && k.edited:
		return "undone" // there are two values: it is what it was before somebody's edit
	case len(values) == 0 && gold != k.before:
		return "invented"
	case len(values) == 1 && !values[gold]:
		return "lost"
	case len(values) == 2:
		return "conflict"
	}
	return ""
}

// TestKillLoopJudges: what the loop counts is counted when it happens.
func TestKillLoopJudges(t *testing.T) {
	for _, test := range []struct {
		want         string
		before, gold bool
		edited       bool
		said         map[string]bool
	}{
		{"", false, false, false, nil},
		{"", true, true, true, nil},
		{"invented", false, true, false, nil},
		{"undone", true, false, true, nil},
		{"", false, true, false, map[string]bool{"row": true}},
		{"", false, true, true, map[string]bool{"row": true, "meta 1": true}},
		{"lost", false, false, false, map[string]bool{"row": true}},
		{"lost", true, true, true, map[string]bool{"note 1": false, "meta 1": false}},
		{"conflict", true, true, true, map[string]bool{"row": false, "meta 1": true}},
	} {
		k := loopKey{before: test.before, edited: test.edited, said: test.said}
		if got := k.becomes(test.gold); got != test.want {
			t.Errorf("%+v: %q", test, got)
		}
	}
}

// judge compares a key at rest with what people did.
func (l *killLoop) judge(k *loopKey) {
	var gold bool
	if err := l.db.QueryRow(l.Context(), `SELECT result = 'VICTORY' FROM "Conquest" WHERE id = $1`, k.key).Scan(&gold); err != nil {
		l.Fatal(err)
	}
	switch becomes := k.becomes(gold); becomes {
	case "invented", "undone", "lost":
		*map[string]*int{"invented": &l.invented, "undone": &l.undone, "lost": &l.lost}[becomes]++
		l.Errorf("%s: %s is VICTORY: %v (before: %v), and people said %v\n%s", becomes, k.key, gold, k.before, k.said, l.trace(k))
	case "conflict":
		l.conflicts++
	}
	k.before, k.edited, k.said = gold, k.edited || len(k.said) > 0, map[string]bool{}
}
