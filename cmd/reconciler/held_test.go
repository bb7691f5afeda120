package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/aristotle/sandbox"
)

// command runs the program to its end, and returns what it printed and its exit status. Numbers that differ from run to run are
// written as #, moments as @.
func (s *street) command(args ...string) (stdout, stderr string, status int) {
	s.Helper()
	self, err := os.Executable()
	if err != nil {
		s.Fatal(err)
	}
	link := filepath.Join(s.TempDir(), "reconciler")
	if err := os.Symlink(self, link); err != nil {
		s.Fatal(err)
	}
	cmd := exec.CommandContext(s.Context(), link, args...)
	cmd.Env = append(append(os.Environ(), s.env...), "RECONCILER_LOCAL_USER=me@example.com")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		s.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// timeless takes out what differs from run to run.
func timeless(text string) string {
	text = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`).ReplaceAllString(text, "@")
	return regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(text, "127.0.0.1:#")
}

func (s *street) wantPrinted(what, got, want string) {
	s.Helper()
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), timeless(got)); diff != "" {
		s.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func (s *street) wantHeld(n int) {
	s.Helper()
	s.zero(`SELECT abs($1 - count(*)), count(*) || ' are held' FROM reconciler.edge WHERE held IS NOT NULL`, n)
	s.wantRest()
}

// TestHeld: a star meets a DEFEAT. A person lists and settles that while the daemon is down, both ways; it acts on it when it
// runs again, and tells the story.
func TestHeld(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	s.conquest("byMeta", "DEFEAT")
	byMeta := s.task("byMeta", s.projects[0], map[string]any{"gold_star": true})
	byNote := s.pair("byNote", "NEUTRAL")
	s.annotate(byNote, true)
	p := s.start()
	s.wantHeld(2)
	s.wantLog(p, "held: the sides differed at first contact")
	s.wantLog(p, "msg=streaming") // before that nobody reads the slot
	s.wantPassed()
	s.has("the row", s.row("byMeta"), object{"result": "DEFEAT"})

	out, _, _ := s.command("status")
	if !strings.Contains(out, "leader        reconciler from 127.0.0.1, connected since ") || !strings.Contains(out, "it is read") {
		t.Errorf("status of a daemon that runs:\n%s", out)
	}
	p.stop()
	s.wantNobody()
	out, _, _ = s.command("status", "--metrics-listen", "127.0.0.1:1")
	s.wantPrinted("status", regexp.MustCompile(`(?m)^slot.*\n`).ReplaceAllString(out, ""), `
leader        none: no daemon runs, or none can lead
daemon here   http://127.0.0.1:# does not answer
queue         0 ready, 0 waiting, 0 running, 0 stuck; 2 held
oldest        0s to Label Studio, 0s to Aristotle
passes        project 1: full pass begun @, changes seen until @
passes        project 2: full pass begun @, changes seen until @
Label Studio  http://127.0.0.1:# answers, as to sync@example.com
held          `+"`reconciler held list`"+` shows what waits for a person
`)

	out, _, _ = s.command("held")
	s.wantPrinted("held", out, `
byMeta, held since @
  "A conquest"
  Aristotle:    DEFEAT, evaluated by earlier@example.com
  Label Studio: Task 1 of project 1 waits for a person since @: it shows the star
byNote, held since @
  "A conquest"
  Aristotle:    NEUTRAL, evaluated by earlier@example.com
  Label Studio: Task 2 of project 1 waits for a person since @: an annotation says star, of annotator@example.com at @

2 keys wait. Settle each by `+"`reconciler held settle KEY victory` or `reconciler held settle KEY not-victory`"+`.
`)
	var list struct {
		Version int
		Held    []struct {
			Key   string
			Tasks []struct{ Task int64 }
		}
	}
	out, _, _ = s.command("held", "list", "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || list.Version != 1 || len(list.Held) != 2 || list.Held[1].Tasks[0].Task != byNote {
		t.Errorf("%v: %s", err, out)
	}

	for _, c := range []struct {
		args         []string
		out, problem string
		status       int
	}{
		{[]string{"held", "settle", "byMeta", "victory"}, "byMeta is VICTORY; 1 task that waited follows when the daemon runs: none does now.\n", "", 0},
		{[]string{"held", "settle", "byNote", "not-victory"}, "byNote is NEUTRAL; 1 task that waited follows when the daemon runs: none does now.\n", "", 0},
		{[]string{"held", "settle", "byNote", "victory"}, "", "\"byNote\" does not wait for a person: nothing was changed\n  `reconciler held list`", 1},
		{[]string{"held", "settle", "nobody", "victory"}, "", `there is no conquest "nobody"`, 1},
		{[]string{"held", "settle", "byNote", "perhaps"}, "", "must be one of", 1},
		{[]string{"held"}, "Nothing waits for a person.\n", "", 0},
	} {
		out, problem, status := s.command(c.args...)
		if out != c.out || !strings.Contains(problem, c.problem) || c.problem == "" && problem != "" || status != c.status {
			t.Errorf("%v: status %d\n%s%s", c.args, status, out, problem)
		}
	}
	s.has("the row", s.row("byMeta"), object{"result": "VICTORY", "evaluatedBy": "me@example.com"})
	s.start()
	s.wantRest()
	s.wantStar(byMeta, true)
	s.wantStar(byNote, false)
	s.wantEqual()
	out, _, _ = s.command("status", "byNote")
	s.wantPrinted("the story", out, `
byNote
  The conquest is NEUTRAL, evaluated by earlier@example.com.
  Task 2 of project 1 shows no star.
  Nothing is to be done.

  @  diff      First contact: task 2 came with a star, and the conquest is NEUTRAL. Neither may win: it waits for a person.
  @  api       me@example.com said not VICTORY: the conquest was NEUTRAL already.
  @  api       With that, task 2 waits no longer.
`)
	out, _, _ = s.command("status", "byMeta", "--json")
	var told struct {
		Known bool
		Value bool
		Story []struct{ Text string }
	}
	if err := json.Unmarshal([]byte(out), &told); err != nil || !told.Known || !told.Value || len(told.Story) < 3 {
		t.Errorf("%v: %s", err, out)
	}
	if out, _, status := s.command("status", "nobody"); status != 0 || !strings.Contains(out, "There is no such conquest") {
		t.Errorf("status %d: %s", status, out)
	}
}

// TestStatusWithoutTables: before the daemon's first run there is nothing to tell, and it says what to do.
func TestStatusWithoutTables(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	for _, args := range [][]string{{"status"}, {"held"}, {"status", "k"}, {"held", "settle", "k", "victory"}} {
		if _, problem, status := s.command(args...); status != 1 || !strings.Contains(problem, "start `reconciler run`") {
			t.Errorf("%v: status %d, %s", args, status, problem)
		}
	}
}
