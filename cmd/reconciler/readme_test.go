package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// readmeCommands are the command lines of the README, in its order: what is indented as code. One that ends in a backslash goes on in the next line.
func readmeCommands(t *testing.T) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	picture, begun := false, ""
	for line := range strings.Lines(string(text)) {
		code, indented := strings.CutPrefix(line, "    ")
		code = begun + strings.TrimPrefix(strings.TrimSpace(code), "$ ")
		switch more := false; {
		case strings.HasPrefix(line, "```"):
			picture = !picture
		case picture || !indented || code == "":
		default:
			if begun, more = strings.CutSuffix(code, `\`); !more {
				lines, begun = append(lines, code), ""
			}
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
	task := s.pair("conquest_abc123", "VICTORY")
	s.exec(`UPDATE "Conquest" SET philosopher = 'user@example.com', domain = 'software_engineering' WHERE id = 'conquest_abc123'`)
	tokens := filepath.Join(t.TempDir(), "tokens.yaml")
	write(t, tokens, fmt.Sprintf("- {name: reader, email: reader@example.com, sha256: %x, scopes: [icl, sync, curate]}\n", sha256.Sum256([]byte("a token"))))
	s.env = append(s.env, "ARISTOTLE_ADMIN_URL="+string(cfg.AristotleAdminURL), "RECONCILER_LOG_LEVEL=info", "RECONCILER_TOKENS_FILE="+tokens, "TOKEN=a token")
	bin := s.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "reconciler")); err != nil {
		t.Fatal(err)
	}
	var daemon *process
	ran := map[string]int{}
	misspelt := regexp.MustCompile(`is no flag|unexpected argument|expected one of|is missing:|problems with the settings`)
	for _, line := range readmeCommands(t) {
		line = regexp.MustCompile(`\bKEY\b`).ReplaceAllString(line, "row")
		program, rest, _ := strings.Cut(line, " ")
		name, _, _ := strings.Cut(rest, " ")
		switch {
		case line == "go run ./cmd/reconciler demo":
			continue // TestDemo
		case strings.HasPrefix(line, "go test "):
			continue // this is one of them
		case program == "export" || program == "unset": // the values are the reader's own
			s.wantSettings(rest)
			continue
		case program == "curl" && daemon != nil:
			s.wantAnswer(regexp.MustCompile(`/tasks/\d+/`).ReplaceAllString(strings.NewReplacer("127.0.0.1:4080", daemon.listen, "127.0.0.1:8001", daemon.curation).Replace(line), fmt.Sprintf("/tasks/%d/", task)))
			ran[program]++
			continue
		case program != "reconciler":
			t.Errorf("nobody runs what the README says: %s", line)
			continue
		case name == "run" && daemon == nil:
			daemon = s.start()
			ran[name]++
			continue
		case name == "run":
			continue
		case name == "uninstall" && daemon != nil:
			daemon.stop()
			s.wantNobody()
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir = t.TempDir()
		cmd.Env = append(append(os.Environ(), s.env...), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
		cmd.Stdin = strings.NewReader("yes\n")
		out, err := cmd.CombinedOutput()
		ran[name]++
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
		if ran[name] == 0 {
			t.Errorf("the README has no line that begins with `reconciler %s`", name)
		}
	}
	if ran["curl"] != 3 {
		t.Errorf("%d calls of the README were made, want its call of each: sync, curation, examples", ran["curl"])
	}
}

// wantSettings wants every name that the README gives a shell to be one of a setting.
func (s *street) wantSettings(text string) {
	s.Helper()
	known := knownNames(settings(new(Config)))
	text, _, _ = strings.Cut(text, "#")
	for _, word := range strings.Fields(text) {
		if name, _, _ := strings.Cut(word, "="); !known[name] {
			s.Errorf("the README sets %s, which is no setting", name)
		}
	}
}

// wantAnswer wants a curl of the README to be answered with 200 and with what was asked for. A sync call may take longer than it waits for.
func (s *street) wantAnswer(curl string) {
	s.Helper()
	s.eventually(func() string {
		cmd := exec.CommandContext(s.Context(), "sh", "-c", curl+` --silent --show-error --write-out '%{http_code}'`)
		cmd.Env = append(os.Environ(), s.env...)
		out, err := cmd.CombinedOutput()
		said := string(out)
		if err == nil && strings.HasSuffix(said, "202") && strings.Contains(said, `"accepted"`) {
			return curl + ": " + said
		}
		if err != nil || !strings.HasSuffix(said, "200") || !regexp.MustCompile(`"status":"success"|"gold_star":true|"count":1,`).MatchString(said) {
			s.Errorf("%s: %v\n%s", curl, err, said)
		}
		return ""
	})
}
