package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
)

// demoRun is `reconciler demo` as a process, whose lines a test reads as a person does.
type demoRun struct {
	*testing.T
	cmd    *exec.Cmd
	lines  *bufio.Scanner
	said   strings.Builder
	errors bytes.Buffer // standard error; to be read after the end
	temp   string
}

// freePorts keep demos out of each other's way.
var freePorts = []string{"--postgres-port=0", "--label-studio-port=0", "--listen=127.0.0.1:0", "--curation-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"}

// startDemo starts it in an environment that leads to other installations, where a demo must not go.
func startDemo(t *testing.T, flags ...string) *demoRun {
	t.Helper()
	pgtest.Shared(t) // skips where there is no PostgreSQL to be had
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "reconciler")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	d := &demoRun{T: t, temp: t.TempDir()}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 15*time.Minute) // a first start installs Label Studio
	t.Cleanup(cancel)
	d.cmd = exec.CommandContext(ctx, link, append([]string{"demo"}, flags...)...)
	d.cmd.Env = append(os.Environ(), "TMPDIR="+d.temp, "ARISTOTLE_DATABASE_URL=postgres://stranger@127.0.0.1:1/x",
		"LABEL_STUDIO_URL=http://127.0.0.1:1", "LABEL_STUDIO_API_KEY=strange", "LABEL_STUDIO_PROJECTS=77", "RECONCILER_DRY_RUN=true")
	d.cmd.Stderr = &d.errors
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.lines = bufio.NewScanner(out)
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			_ = d.cmd.Process.Kill()
			_ = d.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("the demo said:\n%s%s", &d.said, &d.errors)
		}
	})
	return d
}

// until reads lines to the one that contains text.
func (d *demoRun) until(text string) {
	d.Helper()
	for d.lines.Scan() {
		fmt.Fprintln(&d.said, d.lines.Text())
		if strings.Contains(d.lines.Text(), text) {
			return
		}
	}
	_ = d.cmd.Wait()
	d.Fatalf("the demo ended (%v) without saying %q", d.cmd.ProcessState, text)
}

// stop ends the demo and reads the rest. It returns the exit status.
func (d *demoRun) stop(sig os.Signal) int {
	d.Helper()
	if sig != nil {
		if err := d.cmd.Process.Signal(sig); err != nil {
			d.Fatal(err)
		}
	}
	for d.lines.Scan() {
		fmt.Fprintln(&d.said, d.lines.Text())
	}
	_ = d.cmd.Wait() // the status says it
	return d.cmd.ProcessState.ExitCode()
}

// after is the first word that was printed after text.
func (d *demoRun) after(text string) string {
	d.Helper()
	_, rest, found := strings.Cut(d.said.String(), text)
	if fields := strings.Fields(rest); found && len(fields) > 0 {
		return fields[0]
	}
	d.Fatalf("the demo did not say %q", text)
	return ""
}

func TestDemo(t *testing.T) {
	t.Parallel()
	t.Run("stand-in", func(t *testing.T) {
		t.Parallel()
		testDemo(startDemo(t, append(freePorts, "--stand-in")...))
	})
	t.Run("real", func(t *testing.T) {
		t.Parallel()
		if testing.Short() {
			t.Skip("-short leaves the real Label Studio out")
		}
		testDemo(startDemo(t, freePorts...))
	})
}

func testDemo(d *demoRun) {
	d.until("Running until Ctrl-C")
	if strings.Contains(d.said.String(), "The real one cannot run here") {
		if os.Getenv("CI") == "true" {
			d.Fatal("Label Studio needs a Python that is not here")
		}
		defer d.Skip("Label Studio needs a Python that is not here: the demo was tested with the stand-in")
	}
	flows := regexp.MustCompile(`(?m)^ .* -> .* \d+ ms$`).FindAllString(d.said.String(), -1)
	if len(flows) != 4 {
		d.Errorf("want a line for each of the four flows, have %q", flows)
	}
	d.Logf("\n%s", strings.Join(flows, "\n"))
	d.runCommands()
	folder := dataFolder(d.T, d.after("postgres://"))
	if status := d.stop(os.Interrupt); status != 0 {
		d.Errorf("exit status %d after SIGINT, want 0", status)
	}
	for line := range strings.Lines(d.errors.String()) {
		if !strings.Contains(line, "what was read is too old to be written back") { // so it is on a busy machine, and is tried again
			d.Errorf("standard error has %s", line)
		}
	}
	d.nothingLeft(folder)
}

// runCommands does what each printed command says, in the order of the lines, until it shows what it is to show.
func (d *demoRun) runCommands() {
	var commands []string
	for line := range strings.Lines(d.said.String()) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "curl ") || strings.HasPrefix(line, "psql ") {
			commands = append(commands, line)
		}
	}
	want := []string{`"ready":true`, "alive", `reconciler_sync_total{direction="to_aristotle",outcome="success"} 2`, `"status":"accepted"`,
		`"status":"success"`, `"messages"`, "openapi: 3", `"aristotle_synced":true`, "UPDATE 1", `"gold_star":true`, `"choices":["gold_star"]`, "VICTORY"}
	if len(commands) != len(want) {
		d.Fatalf("%d commands are printed, want %d:\n%s", len(commands), len(want), strings.Join(commands, "\n"))
	}
	for i, command := range commands {
		var out string
		err := until(d.Context(), restEvery, func(ctx context.Context) (bool, error) {
			var err error
			out, err = runCommand(ctx, shellWords(command))
			return strings.Contains(strings.ReplaceAll(out, `": `, `":`), want[i]), err
		})
		if err != nil {
			d.Errorf("%s\nprints %s, want %s (%v)", command, out, want[i], err)
		}
	}
}

// runCommand is as much of curl and psql as the printed lines need: neither need be on the machine of a test.
func runCommand(ctx context.Context, words []string) (string, error) {
	if words[0] == "psql" {
		conn, err := pgx.Connect(ctx, words[1])
		if err != nil {
			return "", err
		}
		defer conn.Close(ctx)
		result, err := conn.PgConn().Exec(ctx, words[3]).ReadAll()
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %s", result[0].CommandTag, bytes.Join(flat(result[0].Rows), []byte(" "))), nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "", nil)
	if err != nil {
		return "", err
	}
	for i := 1; i < len(words) && words[i] != "|"; i++ {
		switch words[i] {
		case "-H":
			i++
			name, value, _ := strings.Cut(words[i], ": ")
			req.Header.Set(name, value)
		case "-d":
			i++
			req.Method, req.Body, req.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader(words[i])), int64(len(words[i]))
		case "-s":
		default:
			if req.URL, err = url.Parse(words[i]); err != nil {
				return "", err
			}
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return string(body), err
}

func flat(rows [][][]byte) (all [][]byte) {
	for _, row := range rows {
		all = append(all, row...)
	}
	return all
}

// shellWords splits a line as a shell does: '…' is literal, "…" knows \".
func shellWords(line string) (words []string) {
	for _, m := range regexp.MustCompile(`'([^']*)'|"((?:\\.|[^"\\])*)"|(\S+)`).FindAllStringSubmatch(line, -1) {
		words = append(words, m[1]+strings.ReplaceAll(m[2], `\"`, `"`)+m[3])
	}
	return words
}

// dataFolder is the folder of the sandbox that a PostgreSQL runs in.
func dataFolder(t *testing.T, dsn string) (folder string) {
	t.Helper()
	if err := connect(t, DSN("postgres://"+dsn)).QueryRow(t.Context(), `SHOW data_directory`).Scan(&folder); err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(folder)
}

// nothingLeft checks that nobody listens where the demo said that somebody does, and that its folders are gone.
func (d *demoRun) nothingLeft(folder string) {
	d.Helper()
	addresses := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindAllString(d.said.String(), -1)
	if len(addresses) < 4 {
		d.Errorf("too few addresses are printed: %q", addresses)
	}
	for _, a := range addresses {
		if conn, err := net.Dial("tcp", a); err == nil {
			conn.Close()
			d.Errorf("somebody still listens on %s", a)
		}
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		d.Errorf("PostgreSQL's folder %s is left (%v)", folder, err)
	}
	left, err := os.ReadDir(d.temp)
	if err != nil || len(left) > 0 {
		d.Errorf("left in the temporary folder: %v (%v)", left, err)
	}
}

// A demo that is ended before it has come far has ended well, and leaves nothing either.
func TestDemoStopsHalfWay(t *testing.T) {
	t.Parallel()
	for _, after := range []string{"PostgreSQL ", "Project ", "First sync "} {
		t.Run(after, func(t *testing.T) {
			t.Parallel()
			d := startDemo(t, append(freePorts, "--stand-in")...)
			d.until(" on port ")
			if after != "PostgreSQL " {
				d.until(after)
			}
			if status := d.stop(syscall.SIGTERM); status != 0 {
				t.Errorf("exit status %d, want 0", status)
			}
			if d.errors.Len() > 0 {
				t.Error("standard error was not silent")
			}
			if conn, err := net.Dial("tcp", "127.0.0.1:"+d.after(" on port ")); err == nil {
				conn.Close()
				t.Error("PostgreSQL is left")
			}
		})
	}
}

func TestDemoNamesTakenPorts(t *testing.T) {
	t.Parallel()
	var ports []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	d := startDemo(t, "--postgres-port="+ports[0], "--label-studio-port="+ports[1], "--listen=127.0.0.1:"+ports[2], "--curation-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0")
	if status := d.stop(nil); status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	for i, want := range []string{", for PostgreSQL, .* with --postgres-port,", ", for Label Studio, .* with --label-studio-port,",
		", for the API, .* with --listen "} {
		if want = "127.0.0.1:" + ports[i] + want; !regexp.MustCompile(want).MatchString(d.errors.String()) {
			t.Errorf("the errors do not say %q", want)
		}
	}
	if d.said.Len() > 0 {
		t.Error("it began all the same")
	}
}
