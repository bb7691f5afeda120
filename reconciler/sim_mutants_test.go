package reconciler

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var simMutate = flag.String("sim.mutant", "", "the rule that is broken in the sides")

// simMutant is a rule of what surrounds the turn that is broken on purpose: of the
// SQL, which the row side has in memory, of the client, and of the stream.
type simMutant string

const (
	confirmFirst simMutant = "confirm the slot before the queue is committed"
	doneAsWanted simMutant = "mark done what was dirtied meanwhile"
	claimStays   simMutant = "drop a lease without a claim"
	endsAnyClaim simMutant = "a claim that is lost ends the turn"
	anyAttempt   simMutant = "S5 without the attempt check"
	refusalAny   simMutant = "a refusal clears any intent"
	earlyUncount simMutant = "a click before the first turn counts for nothing"
	busyIsGone   simMutant = "a row that somebody keeps locked is gone"
	believeRows  simMutant = "believe a filter's answer without checking the rows"
)

func (m simMutant) break_(rows *memRows) {
	switch m {
	case doneAsWanted:
		rows.doneAsWanted = true
	case claimStays:
		rows.claimStays = true
	case endsAnyClaim:
		rows.endsAnyClaim = true
	case anyAttempt:
		rows.settlesAnyAttempt = true
	case refusalAny:
		rows.refusalClearsAny = true
	case earlyUncount:
		rows.earlyUncounted = true
	case busyIsGone:
		rows.busyIsGone = true
	}
}

// turnMutant is a rule of the turn itself that is broken on purpose: one place in its
// source, which must be there exactly once. The source stays as it is; what is
// compiled for this test has all mutants, each asleep until it is asked for.
type turnMutant struct {
	name, file, old, new string
}

func turnMutants() []turnMutant {
	return []turnMutant{
		{"no claim check", "turn.go", `if st.claim != c.Claim {`, `if st.claim != c.Claim && !mutant("no claim check") {`},
		{"hold a lock across HTTP", "turn.go", `st := states[c.Key]`,
			`st := states[c.Key]; if mutant("hold a lock across HTTP") { _, _ = t.tasks.Whoami(ctx) }`},
		{"PATCH again before the deadline", "decide.go", `return !claimed.Alive || star.Stamp(*e.IntentAttempt) == read`,
			`return !claimed.Alive || star.Stamp(*e.IntentAttempt) == read || mutant("PATCH again before the deadline") ||
				mutant("deadline looked at after the GET") && left(e) <= 0`},
		{"deadline looked at after the GET", "", "", ""},
		{"forget a row while a PATCH may live", "decide.go", `alive := aliveFor(c, st.edges, s); alive {`,
			`alive := aliveFor(c, st.edges, s); alive && !mutant("forget a row while a PATCH may live") {`},
		{"decide on ratings older than a click", "decide.go", `if clicked(c, st) {`, `if clicked(c, st) && !mutant("decide on ratings older than a click") {`},
		{"an intent that is gone counts as settled", "decide.go", `return !claimed.Alive` + "\n", `return !claimed.Alive || mutant("an intent that is gone counts as settled")` + "\n"},
		{"another task is the old one", "glimpse.go", `return e.TaskCreatedAt != nil && !created`, `return !mutant("another task is the old one") && e.TaskCreatedAt != nil && !created`},
		{"what waits is remembered as the same task", "remember.go", `case e.look.Sight == star.Waiting:`,
			`case e.look.Sight == star.Waiting && !mutant("what waits is remembered as the same task"):`},
		{"", "remember.go", `case e.look.Sight == star.Seen:`, `case e.look.Sight == star.Seen || e.look.Sight == star.Waiting:`},
		{"404 is an un-star", "decide.go", `			e.miss()`,
			`			if e.miss(); mutant("404 is an un-star") { e.look.Sight, e.pause, e.look.Meta.Gold = star.Seen, nil, star.No }`},
		{"a hold that has ended waits for a trigger", "decide.go", `case decision.Edges[i].Held && i < decision.Speaker:`,
			`case decision.Edges[i].Held && i < decision.Speaker && !mutant("a hold that has ended waits for a trigger"):`},
		{"a task that was not read is no reason to come again", "decide.go", `case edge.look.Sight == star.Unread:`,
			`case edge.look.Sight == star.Unread && !mutant("a task that was not read is no reason to come again"):`},
		{"believe a short page", "look.go", `if _, seen := s.tasks[id]; !seen && s.away == nil {`,
			`if _, seen := s.tasks[id]; !seen && mutant("believe a short page") { s.missing[id] = true } else if !seen && s.away == nil {`},
		{"PATCH what was read long ago", "patch.go", `if time.Since(p.task.at) > labelstudio.MaxAge ||`, `if time.Since(p.task.at) > labelstudio.MaxAge && !mutant("PATCH what was read long ago") ||`},
		{"retry a PATCH inside the client", "patch.go", `	answer, err := t.tasks.PatchMeta(ctx, p.task.ID, meta)`,
			`	answer, err := t.tasks.PatchMeta(ctx, p.task.ID, meta)
	if err != nil && mutant("retry a PATCH inside the client") { answer, err = t.tasks.PatchMeta(ctx, p.task.ID, meta) }`},
		{"a PATCH without an answer is a refusal", "patch.go", `if unsent || labelstudio.NotDone(err) {`,
			`if unsent || labelstudio.NotDone(err) || mutant("a PATCH without an answer is a refusal") {`},
		{"no stamp", "patch.go", `stamp{Task: p.task.ID, Attempt: p.attempt}`, `stamp{Task: p.task.ID, Attempt: p.attempt, none: mutant("no stamp")}`},
		{"", "tasks.go", `	Attempt string ` + "`json:\"attempt\"`", `	Attempt string ` + "`json:\"attempt\"`; none bool"},
		{"", "tasks.go", `	return json.Marshal(m)`, `	if s.none { delete(m, metaStamp) }
	return json.Marshal(m)`},
		{"believe another Label Studio's tasks", "look.go", `		err := recognise(ctx, project)`, `		err := recognise(ctx, project); if mutant("believe another Label Studio's tasks") { err = nil }`},
		{"believe what was never looked at", "look.go", `(e.TaskCreatedAt != nil || task.known):`, `(e.TaskCreatedAt != nil || task.known || mutant("believe what was never looked at")):`},
		{"believe what was read before ours was back", "look.go", `case others[id]:`, `case others[id] && !mutant("believe what was read before ours was back"):`},
		{"believe what is read after ours was known", "look.go", `read && !again.CreatedAt.Equal(first.CreatedAt) {`, `read && !again.CreatedAt.Equal(first.CreatedAt) && !mutant("believe what is read after ours was known") {`},
		{"any task with its number is a landmark of the listing", "look.go", `m.Task == task.ID && !isOtherTask(m, task.CreatedAt)`, `m.Task == task.ID && (!isOtherTask(m, task.CreatedAt) || mutant("any task with its number is a landmark of the listing"))`},
		{"know what was never looked at by one landmark", "look.go", `if unmet[project] && s.away == nil {`, `if unmet[project] && s.away == nil && !mutant("know what was never looked at by one landmark") {`},
		{"believe what was found", "look.go", `for _, l := range found {
		strange`, `for _, l := range found {
		if mutant("believe what was found") { break }
		strange`},
		{"link what another Label Studio has", "look.go", `	err := recognise(ctx, t.rows, t.tasks, project)`, `	err := recognise(ctx, t.rows, t.tasks, project); if mutant("link what another Label Studio has") { err = nil }`},
		{"any task with its number is a landmark", "guard.go", `case err == nil && !isOtherTask(e, t.CreatedAt):`, `case err == nil && (!isOtherTask(e, t.CreatedAt) || mutant("any task with its number is a landmark")):`},
		{"any task's answer tells that a PATCH worked", "patch.go", `return answer.CreatedAt.Equal(p.task.CreatedAt) &&`, `return (answer.CreatedAt.Equal(p.task.CreatedAt) || mutant("any task's answer tells that a PATCH worked")) &&`},
		{"put nobody's keys back", "patch.go", `writeMeta(p.task.Meta, p.value,`, `writeMeta(forgetful(p.task.Meta), p.value,`},
	}
}

// mutantsGo is compiled beside the mutants.
const mutantsGo = `package reconciler

import ("encoding/json"; "os")

var asked = os.Getenv("SIM_MUTANT")

func mutant(name string) bool { return asked == name }

func forgetful(meta json.RawMessage) json.RawMessage {
	if mutant("put nobody's keys back") { return json.RawMessage("{}") }
	return meta
}
`

// mutantSchedules is how many a mutant may live. Most are found in the first hundred, a task that is another one while a PATCH lives in some ten thousand.
const mutantSchedules = 100_000

var seedText = regexp.MustCompile(`seed (\d+): (.*)`)

// TestSimulationMutants: each rule, broken, is found. After how many schedules is in
// the log (-v).
func TestSimulationMutants(t *testing.T) {
	if raceOn || testing.Short() {
		t.Skip("it runs without -race, and not with -short")
	}
	t.Parallel()
	binary := mutants(t)
	find := func(name, env, sides string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := exec.CommandContext(t.Context(), binary, "-test.run=^TestSimulation$", fmt.Sprint("-sim.schedules=", mutantSchedules), "-sim.mutant="+sides)
			c.Env = append(os.Environ(), "SIM_MUTANT="+env)
			out, err := c.CombinedOutput()
			found := seedText.FindStringSubmatch(string(out))
			if err == nil || found == nil {
				t.Fatalf("not found in %d schedules: %v\n%s", mutantSchedules, err, out)
			}
			t.Logf("after %s schedules: %s", found[1], found[2])
		})
	}
	for _, m := range turnMutants() {
		if m.name != "" {
			find(m.name, m.name, "")
		}
	}
	for _, m := range []simMutant{confirmFirst, claimStays, earlyUncount, believeRows} { // TestConformanceMutants finds the others
		find(string(m), "", string(m))
	}
}

// mutants compiles this package's tests with every mutant of the turn in it.
func mutants(t *testing.T) (binary string) {
	t.Helper()
	dir := t.TempDir()
	sources := map[string]string{}
	for _, m := range turnMutants() {
		if m.file == "" {
			continue
		}
		if sources[m.file] == "" {
			text, err := os.ReadFile(m.file)
			if err != nil {
				t.Fatal(err)
			}
			sources[m.file] = string(text)
		}
		if n := strings.Count(sources[m.file], m.old); n != 1 {
			t.Fatalf("the rule of mutant %q is in %s %d times, not once: %s", m.name, m.file, n, m.old)
		}
		sources[m.file] = strings.Replace(sources[m.file], m.old, m.new, 1)
	}
	sources["mutants.go"] = mutantsGo
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, text := range sources {
		from, err := filepath.Abs(name)
		if err != nil {
			t.Fatal(err)
		}
		overlay.Replace[from] = filepath.Join(dir, name)
		if err := os.WriteFile(overlay.Replace[from], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(dir, "mutants.test")
	if out, err := goTool(t.Context(), "test", "-c", "-vet=off", "-overlay="+list, "-o", binary, "."); err != nil {
		t.Fatalf("compile the mutants: %v\n%s", err, out)
	}
	return binary
}

func goTool(ctx context.Context, args ...string) ([]byte, error) {
	return exec.CommandContext(ctx, "go", args...).CombinedOutput()
}
