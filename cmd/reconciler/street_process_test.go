package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a daemon that runs as a process of its own: this test binary under the program's name.
type process struct {
	cmd      *exec.Cmd
	out      output
	gone     chan struct{}
	listen   string // where it listens
	metrics  string
	curation string
}

// output keeps what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs the daemon, and waits until it is running.
func (s *street) start(env ...string) *process {
	s.Helper()
	p := s.spawn(env...)
	s.wantLog(p, "msg=running listen=")
	_, after, _ := strings.Cut(p.out.String(), "msg=running listen=")
	if _, err := fmt.Sscanf(after, "%s metrics=%s curation=%s", &p.listen, &p.metrics, &p.curation); err != nil {
		s.Fatalf("%v: %s", err, after)
	}
	return p
}

// wantLog waits until the daemon has written a text.
func (s *street) wantLog(p *process, text string) {
	s.Helper()
	s.eventually(func() string {
		said := p.out.String()
		switch {
		case strings.Contains(said, text):
			return ""
		case p.ended():
			s.Fatalf("the daemon ended without %q:\n%s", text, said)
		}
		return fmt.Sprintf("the daemon does not say %q:\n%s", text, said)
	})
}

// spawn runs the daemon, and waits for nothing. Later settings replace earlier ones.
func (s *street) spawn(env ...string) *process {
	s.Helper()
	program := s.program
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			s.Fatal(err)
		}
	}
	link := filepath.Join(s.TempDir(), "reconciler")
	if err := os.Symlink(program, link); err != nil {
		s.Fatal(err)
	}
	p := &process{cmd: exec.Command(link, "run"), gone: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), s.env...), env...)
	p.cmd.Stderr = &p.out
	if err := p.cmd.Start(); err != nil {
		s.Fatal(err)
	}
	go func() {
		defer close(p.gone)
		_ = p.cmd.Wait() // how it ended is in ProcessState
	}()
	s.Cleanup(func() {
		p.kill()
		if strings.Contains(p.out.String(), "WARNING: DATA RACE") { // its exit status would say so, had it not been killed
			s.Error("the daemon has a data race")
		}
		if s.Failed() {
			s.Logf("the daemon said:\n%s", &p.out)
		}
	})
	return p
}

func (p *process) ended() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// kill ends the daemon as `kill -9` does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.gone
}

// stop ends the daemon as an operator does, and returns its exit status.
func (p *process) stop() int {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.gone
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) webhook() string { return "http://" + p.listen + "/v1/webhooks/label-studio" }

// get asks the metrics listener.
func (p *process) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get("http://" + p.metrics + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// metric is the value of one series, by its name and labels as /metrics shows them.
func (p *process) metric(t *testing.T, series string) float64 {
	t.Helper()
	f, found := p.series(t, series)
	if !found {
		t.Fatalf("no series %s", series)
	}
	return f
}

// series is the same for one that may not be there.
func (p *process) series(t *testing.T, series string) (value float64, found bool) {
	t.Helper()
	_, text := p.get(t, "/metrics")
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(line, series+" "); found {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return f, true
		}
	}
	return 0, false
}

// dieAt in the environment of the program makes it kill itself: "S3" when step S3 of a turn is done the first time. It is this
// binary's, not the product's.
const (
	dieAt     = "STREET_DIE_AT"
	diePassAt = "STREET_DIE_PASS_AT" // the same of what a pass commits
	// clockFile names a file that says how far the clock of its sessions is ahead, in hours.
	clockFile = "STREET_CLOCK"
	careEvery = "STREET_CARE_EVERY" // makes it look after its webhooks so often
)

// program is the program itself, for the test binary under the program's name.
func program() {
	step, pass, clock, care := os.Getenv(dieAt), os.Getenv(diePassAt), os.Getenv(clockFile), os.Getenv(careEvery)
	if step == "" && pass == "" && clock == "" && care == "" {
		main()
		return
	}
	var cmds commands
	die := func(at string) func(string) {
		return func(name string) {
			if name == at {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // not one step more
			}
		}
	}
	cmds.Run.step, cmds.Run.passStep = die(step), die(pass)
	if clock != "" {
		cmds.Run.now = func() time.Time {
			text, err := os.ReadFile(clock)
			if err != nil {
				panic(err)
			}
			ahead, err := time.ParseDuration(string(text))
			if err != nil {
				panic(err)
			}
			return time.Now().Add(ahead)
		}
	}
	cmds.Run.careEvery, _ = time.ParseDuration(care) // "": as always
	if err := execute(context.Background(), &cmds, os.Args[1:]); err != nil {
		report(os.Stderr, err)
		os.Exit(exitStatus(err))
	}
}
