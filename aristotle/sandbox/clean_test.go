package sandbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
)

// asParent in the environment makes the test binary a program that starts a server, says so and waits to be killed.
const asParent = "SANDBOX_TEST_PARENT"

// daemon is an ordinary user that every Unix has; PostgreSQL refuses one without a name.
const daemon = 1

func parent() {
	server, err := sandbox.Start(context.Background(), sandbox.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(server.URL()); err != nil {
		os.Exit(1)
	}
	select {}
}

// launchParent runs such a program with a cache of its own, as another user where uid says so.
func launchParent(t *testing.T, cache string, uid int) (cmd *osexec.Cmd, stdout io.Reader) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/self/exe"); err == nil {
		self = "/proc/self/exe" // another user cannot enter the folder that `go test` builds into
	}
	cmd = osexec.CommandContext(t.Context(), self)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), asParent+"=1", "RECONCILER_SANDBOX_CACHE="+cache)
	cmd.Stderr = os.Stderr
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // mostly dead by then
		_ = cmd.Wait()
	})
	return cmd, out
}

// startParent returns when the program's server is up.
func startParent(t *testing.T, cache string, uid int) *osexec.Cmd {
	t.Helper()
	cmd, out := launchParent(t, cache, uid)
	var url string
	if err := json.NewDecoder(out).Decode(&url); err != nil {
		t.Fatal("the program did not start its server:", err)
	}
	connect(t, url)
	return cmd
}

// However a program dies, its server, its supervisor and its files go with it, also where it runs as an ordinary user.
func TestKilledParentLeavesNothing(t *testing.T) {
	needsProc(t)
	t.Parallel()
	for name, uid := range map[string]int{"as we are": 0, "as another user": daemon} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if uid != 0 && os.Geteuid() != 0 {
				missing(t, "only root can become another user")
			}
			cache := newCache(t, uid)
			cmd := startParent(t, cache, uid)
			family := descendants(t, cmd.Process.Pid)
			if len(family) < 5 { // supervisor, postmaster, its own
				t.Fatalf("expected a supervisor and a server, found %v", family)
			}
			if uid != 0 && owner(t, family[len(family)-1]) != uid {
				t.Errorf("the server does not run as user %d", uid)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "processes end", func() bool { return !anyAlive(family) })
			eventually(t, "folder goes", func() bool { return len(folders(t, cache)) == 0 })
		})
	}
}

// A program that dies while its server starts finds nobody to tell, and still nothing stays.
func TestKilledWhileStarting(t *testing.T) {
	needsProc(t)
	t.Parallel()
	cache := newCache(t, 0)
	cmd, _ := launchParent(t, cache, 0)
	var family []int
	eventually(t, "initdb begins", func() bool {
		family = descendants(t, cmd.Process.Pid)
		return len(family) >= 2 // the supervisor and initdb
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "folder goes", func() bool { return len(folders(t, cache)) == 0 })
	eventually(t, "processes end", func() bool { return !anyAlive(family) })
}

// Where the supervisor is killed as well the kernel ends the server, and the next start sweeps the folder away, but never one that is in use.
func TestKilledSupervisor(t *testing.T) {
	needsProc(t)
	t.Parallel()
	cache := newCache(t, 0)
	used := startParent(t, cache, 0)
	cmd := startParent(t, cache, 0)
	family := descendants(t, cmd.Process.Pid)
	for _, pid := range []int{cmd.Process.Pid, family[0]} { // the supervisor is the first child
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "processes end", func() bool { return !anyAlive(family) })
	if got := folders(t, cache); len(got) != 2 {
		t.Fatalf("folders %v, want the used one and the left one", got)
	}
	startParent(t, cache, 0)
	if got := folders(t, cache); len(got) != 2 {
		t.Errorf("folders %v, want the used one and the new one", got)
	}
	if !anyAlive(descendants(t, used.Process.Pid)) {
		t.Error("the sweep ended a server that was in use")
	}
}

// Not parallel: the cache is set in the environment.
func TestFailedStartLeavesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	soon, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // in the middle of initdb
	defer cancel()

	cache := newCache(t, 0)
	t.Setenv("RECONCILER_SANDBOX_CACHE", cache)
	for _, test := range []struct {
		name    string
		ctx     context.Context
		options sandbox.Options
		want    string
	}{
		{"setting", t.Context(), sandbox.Options{Settings: map[string]string{"wal_level": "nonsense"}}, `invalid value for parameter "wal_level"`},
		{"port", t.Context(), sandbox.Options{Port: taken.Addr().(*net.TCPAddr).Port}, "address already in use"},
		{"cancelled", cancelled, sandbox.Options{}, "context canceled"},
		{"deadline", soon, sandbox.Options{}, "deadline exceeded"},
		{"version", t.Context(), sandbox.Options{Version: "9"}, "want a major"},
	} {
		server, err := sandbox.Start(test.ctx, test.options)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v %v", test.name, server, err)
		}
		if got := folders(t, cache); len(got) != 0 {
			t.Errorf("%s: left %v", test.name, got)
		}
	}
	t.Setenv("RECONCILER_SANDBOX_SUPERVISOR", "1")
	if _, err := sandbox.Start(t.Context(), sandbox.Options{}); err == nil || !strings.Contains(err.Error(), "Supervise") {
		t.Errorf("a program without Supervise: %v", err)
	}
}

// newCache is an empty cache of this test alone, but for the binaries, which are linked from the real one.
func newCache(t *testing.T, uid int) string {
	t.Helper()
	var prefix string
	server := pgtest.Shared(t) // has fetched the binaries
	if err := connect(t, server.URL()).QueryRow(t.Context(), "SELECT setting FROM pg_config WHERE name = 'BINDIR'").Scan(&prefix); err != nil {
		t.Fatal(err)
	}
	cache, err := os.MkdirTemp("", "sandbox-test-*") // t.TempDir lies in a folder that other users cannot enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(cache) })
	prefix = filepath.Dir(prefix)
	for _, err := range []error{
		os.Chmod(cache, 0o755),
		os.Symlink(prefix, filepath.Join(cache, filepath.Base(prefix))),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if uid != 0 {
		if err := os.Chown(cache, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	return cache
}

func folders(t *testing.T, cache string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(cache, "run"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func needsProc(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		missing(t, "needs /proc to look at processes")
	}
}

// missing skips a test that cannot be made here, and fails it in CI.
func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// status reads a process's state and parent; a process that is gone is a zombie here, since that is as good.
func status(pid int) (state string, ppid int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "Z", 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])) // after the name, which may hold anything
	ppid, _ = strconv.Atoi(fields[1])
	return fields[0], ppid
}

// descendants are a process's children, then theirs, and so on.
func descendants(t *testing.T, pid int) (all []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	children := map[int][]int{}
	for _, entry := range entries {
		if child, err := strconv.Atoi(entry.Name()); err == nil {
			_, ppid := status(child)
			children[ppid] = append(children[ppid], child)
		}
	}
	all = append(all, children[pid]...)
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

func anyAlive(pids []int) bool {
	for _, pid := range pids {
		if state, _ := status(pid); state != "Z" {
			return true
		}
	}
	return false
}

func owner(t *testing.T, pid int) int {
	t.Helper()
	info, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

// eventually looks again and again: the end of somebody else's child sends no event.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(3 * time.Minute)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited in vain:", what)
		}
	}
}
