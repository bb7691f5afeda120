package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle/sandbox"
)

// manager is a service manager that hears what a daemon tells it.
func manager(t *testing.T) (socket string, heard func() string) {
	t.Helper()
	// Not t.TempDir: its name can be longer than a socket's may be.
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	states := make(chan string, 10_000)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil { // the test has closed it
				return
			}
			states <- string(b[:n])
		}
	}()
	return socket, func() string {
		t.Helper()
		select {
		case s := <-states:
			return s
		case <-time.After(patience):
			t.Fatal("the manager hears nothing")
			return ""
		}
	}
}

// The service manager hears that the daemon is ready, that it lives, and that it stops; whoever has no curl asks the binary.
func TestServiceManagerAndHealthcheck(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	socket, heard := manager(t)
	p := s.start("NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=200000")
	for _, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"} {
		if got := heard(); got != want {
			t.Fatalf("the manager heard %q, want %q", got, want)
		}
	}
	healthcheck := func(args ...string) (string, error) {
		cmd := exec.Command(p.cmd.Path, append([]string{"healthcheck"}, args...)...)
		cmd.Env = append(os.Environ(), "RECONCILER_METRICS_LISTEN="+p.metrics)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	s.eventually(func() string {
		if out, err := healthcheck("--ready"); err != nil {
			return out
		}
		return ""
	})
	if out, err := healthcheck(); err != nil || out != "" {
		t.Errorf("healthcheck of a living daemon: %v %s", err, out)
	}
	if status := p.stop(); status != 0 {
		t.Errorf("status %d", status)
	}
	for got := heard(); got != "STOPPING=1"; got = heard() {
		if got != "WATCHDOG=1" {
			t.Fatalf("the manager heard %q", got)
		}
	}
	if out, err := healthcheck(); err == nil || !strings.Contains(out, "ask the daemon") {
		t.Errorf("healthcheck without a daemon: %v %s", err, out)
	}
}

// A process of which a part hangs says why in place of living on.
func TestWatchdogFollowsAlive(t *testing.T) {
	t.Parallel()
	socket, heard := manager(t)
	var hangs atomic.Bool
	ctx := t.Context()
	go notifier{socket: socket, watchdog: 2 * time.Millisecond}.run(ctx, slog.New(slog.DiscardHandler), func(time.Time) error {
		if hangs.Load() {
			return errors.New("it hangs")
		}
		return nil
	})
	if got := heard(); got != "READY=1" {
		t.Fatalf("heard %q first", got)
	}
	if got := heard(); got != "WATCHDOG=1" {
		t.Fatalf("heard %q of a living one", got)
	}
	hangs.Store(true)
	for heard() == "WATCHDOG=1" { // sent before
	}
	for range 5 {
		if got := heard(); got != "STATUS=it hangs" {
			t.Fatalf("heard %q of one that hangs", got)
		}
	}
}

// A service manager that is not there is told of once, whatever it would have heard.
func TestNobodyHears(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	ctx, stop := context.WithCancel(t.Context())
	asked := 0
	notifier{socket: filepath.Join(t.TempDir(), "nobody"), watchdog: 2 * time.Millisecond}.run(ctx, slog.New(slog.NewTextHandler(&log, nil)), func(time.Time) error {
		if asked++; asked == 5 {
			stop()
		}
		return fmt.Errorf("it has not moved for %d s", asked)
	})
	if n := strings.Count(log.String(), "tell the service manager"); n != 1 {
		t.Errorf("told %d times:\n%s", n, &log)
	}
}

// A turn that hangs is found out, and one that is only waited for is not.
func TestAliveFollowsTheWorker(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	s.pair("hangs", "VICTORY")
	l, problems := load("run", nil, s.env)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	hanging, release := make(chan struct{}), make(chan struct{})
	letGo := sync.OnceFunc(func() { close(release) })
	var once atomic.Bool
	d, err := newDaemon(t.Context(), &l.config, slog.New(slog.DiscardHandler), &RunCmd{step: func(string) {
		if !once.Swap(true) {
			close(hanging)
			<-release
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	ctx := t.Context()
	go func() { ran <- d.run(ctx) }()
	t.Cleanup(func() {
		letGo()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-hanging:
	case <-time.After(patience):
		t.Fatal("no turn began")
	}
	since := d.turner.Progress()
	heard := d.stream.Stats().LastMessage // the stream's time is its own
	if err := d.alive(slices.MinFunc([]time.Time{since, heard}, time.Time.Compare).Add(stuckFor)); err != nil {
		t.Errorf("within its time: %v", err)
	}
	if err := d.alive(since.Add(stuckFor + time.Second)); err == nil || !strings.Contains(err.Error(), "worker") {
		t.Errorf("after its time: %v", err)
	}
	letGo()
	s.eventually(func() string {
		if !d.turner.Progress().After(since) {
			return "the worker does not go on"
		}
		return ""
	})
}
