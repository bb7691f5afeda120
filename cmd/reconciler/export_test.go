package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// TestExport: what is exported, in which order, and that it is what the programs that train models read.
func TestExport(t *testing.T) {
	t.Parallel()
	cfg := unprepared(t, sandbox.Schema{Texts: true})
	setUp(t, cfg, false)
	l, err := ledger.Open(t.Context(), string(cfg.AristotleDatabaseURL), string(cfg.Schema))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	execAll(t, connect(t, cfg.AristotleAdminURL),
		`INSERT INTO "Conquest" (id, "conquestType", philosopher, domain) SELECT 'c' || i, 'DESIGN_REVIEW', 'p' || i % 2, 'd' FROM generate_series(1, 600) i`,
		`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, is_gold_star, philosopher, domain, created_at)
			SELECT 'r' || i, 'c' || i, 'conquest_analysis', i <> 7, 'p' || i % 2, 'd', timestamp '2026-01-01' + i * interval '1 hour' FROM generate_series(1, 600) i`,
		`INSERT INTO conquest_prompt SELECT 'p' || i, 'c' || i, jsonb_build_object('prompt', E'ask "' || i || E'" ünï\u2028 \n <b>') FROM generate_series(1, 600) i`,
		`INSERT INTO conquest_response SELECT 'p' || i, 'c' || i, jsonb_build_object('response', CASE WHEN i <> 9 THEN 'say ' || i ELSE '' END) FROM generate_series(1, 600) i`)
	export := func(args ...string) []byte {
		t.Helper()
		file := filepath.Join(t.TempDir(), "out.jsonl")
		args = append([]string{"export", "-o", file, "--aristotle-database-url", string(cfg.AristotleDatabaseURL)}, args...)
		if err := execute(t.Context(), &commands{}, args); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if files, err := os.ReadDir(filepath.Dir(file)); err != nil || len(files) != 1 {
			t.Errorf("%v beside it: %v", files, err)
		}
		return text
	}
	said := func(text []byte) (all []string) {
		for line := range bytes.Lines(text) {
			var e struct{ Output string }
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatal(err)
			}
			all = append(all, strings.TrimPrefix(e.Output, "say "))
		}
		return all
	}
	var want []string
	for i := 600; i > 0; i-- {
		if i != 7 && i != 9 {
			want = append(want, fmt.Sprint(i))
		}
	}
	if diff := cmp.Diff(want, said(export("--format", "alpaca"))); diff != "" {
		t.Errorf("everything (-want +got):\n%s", diff)
	}
	for args, want := range map[string][]string{
		"--philosopher p1 --limit 3":                                     {"599", "597", "595"},
		"--since 2026-01-01T05:00:00+02:00 --until 2026-01-01T11:00:00Z": {"10", "8", "6", "5", "4", "3"},
		"--domain x": nil,
		"--conquest-type design_review --until 2026-01-01T03:00:00Z":        {"2", "1"},
		"--conquest-type design_review --until 2026-01-01 --philosopher p0": nil,
	} {
		if diff := cmp.Diff(want, said(export(append(strings.Fields(args), "--format", "alpaca")...))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", args, diff)
		}
	}
	files := []string{fmt.Sprint(len(want))}
	for _, f := range []string{"chatml", "alpaca", "openai"} {
		text := export("--format", f)
		if !bytes.Equal(text, export("--format", f)) {
			t.Errorf("%s: two exports differ", f)
		}
		file := filepath.Join(t.TempDir(), f)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, f, file)
	}
	t.Run("datasets", func(t *testing.T) { trains(t, files...) })
}

// trains lets the real library load exports.
func trains(t *testing.T, args ...string) {
	cmd := exec.CommandContext(t.Context(), "python3", append([]string{"testdata/export_check.py"}, args...)...)
	cmd.Env = append(os.Environ(), "HF_HUB_OFFLINE=1")
	out, err := cmd.CombinedOutput()
	missing := errors.Is(err, exec.ErrNotFound) || bytes.Contains(out, []byte("No module named 'datasets'"))
	switch {
	case missing && os.Getenv("CI") != "true":
		t.Skip("python3 with the package datasets is not here: pip install datasets")
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	}
}

// A failed export leaves no file, and what stood there before.
func TestExportWhole(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "out.jsonl")
	if err := os.WriteFile(file, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := execute(t.Context(), &commands{}, []string{"export", "--format", "openai", "-o", file, "--aristotle-database-url", "postgres://u:secret@127.0.0.1:1/x"})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("an export without a database: %v", err)
	}
	text, err := os.ReadFile(file)
	if files, err2 := os.ReadDir(filepath.Dir(file)); err != nil || string(text) != "before" || err2 != nil || len(files) != 1 {
		t.Errorf("%q %v %v", text, err, files)
	}
}

// An export takes the memory of some examples and not of all, as a command and from the page.
func TestExportStreams(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("how much memory a process took at most is asked of /proc")
	}
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{Texts: true}, side)
	const examples, most = 200, 300 << 20 // each example has a megabyte; all of them together take 440, and a busy machine collects late
	s.exec(`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, is_gold_star, philosopher, domain)
		SELECT i, i, 'conquest_analysis', true, 'p', 'd' FROM generate_series(1, $1) i`, examples)
	s.exec(`INSERT INTO conquest_prompt SELECT i, i, jsonb_build_object('prompt', repeat('p', 1 << 20)) FROM generate_series(1, $1) i`, examples)
	s.exec(`INSERT INTO conquest_response SELECT i, i, '{"response": "r"}' FROM generate_series(1, $1) i`, examples)
	check := func(what string, out io.Reader, pid int) {
		t.Helper()
		lines := bufio.NewReaderSize(out, 5<<18) // a line, and not the next
		for i := range examples {
			if i == examples-1 { // the program has yet to write the last one
				if took := peak(t, pid); took > most {
					t.Errorf("%s took %d MiB", what, took>>20)
				}
			}
			if line, err := lines.ReadSlice('\n'); err != nil || !bytes.HasSuffix(line, []byte("}]}\n")) {
				t.Fatalf("%s: line %d has %d bytes, %v", what, i, len(line), err)
			}
		}
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Errorf("%s: after the last line come %d bytes, %v", what, len(rest), err)
		}
	}
	p := s.start("RECONCILER_ICL_MEMORY=0")
	resp, err := http.Get("http://" + p.curation + "/export.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	check("the page's", resp.Body, p.cmd.Process.Pid)

	cmd := exec.CommandContext(t.Context(), p.cmd.Path, "export", "--format", "openai")
	cmd.Env = append(os.Environ(), s.env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	check("the command's", out, cmd.Process.Pid)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// peak is how many bytes of memory a process has had at most.
func peak(t *testing.T, pid int) (bytes int64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	var kB int64
	if _, err := fmt.Sscan(after, &kB); err != nil {
		t.Fatalf("%v: %s", err, status)
	}
	return kB << 10
}
