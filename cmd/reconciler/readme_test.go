package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// readmeCommands are the command lines of the README that call the program, in its order: what is indented as code and begins with its name.
func readmeCommands(t *testing.T) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		code, indented := strings.CutPrefix(line, "    ")
		code = strings.TrimPrefix(strings.TrimSpace(code), "$ ")
		if indented && strings.HasPrefix(code, "reconciler ") {
			lines = append(lines, code)
		}
	}
	return lines
}

// What the README tells a person to type works, in the order in which it stands there: from a fresh database to uninstall.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	_, cfg := ownServer(t, limited(""))
	_, side := standIn(t)
	s := pave(t, cfg, side)
	s.exec(`DROP SCHEMA reconciler CASCADE`) // as before any setup
	s.exec(`DROP PUBLICATION reconciler`)
	s.pair("row", "VICTORY")
	s.env = append(s.env, "ARISTOTLE_ADMIN_URL="+string(cfg.AristotleAdminURL), "RECONCILER_CURATION_LISTEN=127.0.0.1:0", "RECONCILER_LOG_LEVEL=info")
	bin := s.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "reconciler")); err != nil {
		t.Fatal(err)
	}
	var daemon *process
	ran := map[string]bool{}
	misspelt := regexp.MustCompile(`is no flag|unexpected argument|expected one of|is missing:|problems with the settings`)
	for _, line := range readmeCommands(t) {
		line = regexp.MustCompile(`\bKEY\b`).ReplaceAllString(line, "row")
		name := strings.Fields(line)[1]
		switch {
		case name == "demo":
			continue // TestDemo
		case name == "run" && daemon == nil:
			daemon = s.start()
			ran[name] = true
			continue
		case name == "run":
			continue
		case name == "uninstall" && daemon != nil:
			daemon.stop()
			s.zero(`SELECT count(*), 'the slot is read' FROM pg_replication_slots WHERE active`)
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir = t.TempDir()
		cmd.Env = append(append(os.Environ(), s.env...), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
		cmd.Stdin = strings.NewReader("yes\n")
		out, err := cmd.CombinedOutput()
		ran[name] = true
		// Status 1 is an answer of doctor, diff and held; anything above, and a word that the program does not know, is a mistake of the README.
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() > 1 || misspelt.Match(out) || err != nil && (name == "setup" || name == "doctor" || name == "uninstall") {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
		if name == "uninstall" && daemon != nil { // what stands below it in the README needs a daemon again
			setUp(t, cfg, false)
			daemon = s.start()
		}
	}
	for _, name := range []string{"setup", "run", "doctor", "status", "held", "uninstall"} {
		if !ran[name] {
			t.Errorf("the README has no line that begins with `reconciler %s`", name)
		}
	}
}
