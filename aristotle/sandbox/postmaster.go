package sandbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startLimit = 60 * time.Second      // crash recovery on a loaded machine; a start takes 0.2 s
	stopLimit  = 20 * time.Second      // a fast shutdown writes a checkpoint
	look       = 10 * time.Millisecond // between two looks at postmaster.pid, which is how pg_ctl waits too
	portTries  = 5                     // a port that was free a moment ago can be lost to another process
)

// postmaster is the server as its supervisor sees it.
type postmaster struct {
	config
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended; nil before the first start
}

func (p *postmaster) do(req request) error {
	switch req.Verb {
	case verbInit:
		p.config = *req.Config
		return p.init()
	case verbStart:
		return errors.Join(p.stop(syscall.SIGINT), p.start())
	case verbHalt:
		return p.stop(syscall.SIGINT)
	case verbCrash:
		return p.stop(syscall.SIGKILL)
	}
	return fmt.Errorf("unknown verb %q", req.Verb)
}

func (p *postmaster) data() string { return filepath.Join(p.Dir, "data") }

// init makes the data folder and starts the server, on another port where a free one was asked for and is lost meanwhile.
func (p *postmaster) init() error {
	fixed := p.Port != 0
	if fixed {
		if err := portFree(p.Port); err != nil { // say so before the second that initdb takes
			return err
		}
	}
	fill := p.initdb
	if p.Primary != "" {
		fill = p.copyPrimary
	}
	if err := fill(); err != nil {
		return err
	}
	for try := 1; ; try++ {
		if !fixed {
			if err := p.choosePort(); err != nil {
				return err
			}
		}
		if err := p.configure(); err != nil {
			return err
		}
		err := p.start()
		if err == nil || fixed || try == portTries || !strings.Contains(err.Error(), "Address already in use") {
			return err
		}
	}
}

func (p *postmaster) initdb() error {
	secret := filepath.Join(p.Dir, "password")
	if err := os.WriteFile(secret, []byte(p.Password+"\n"), 0o600); err != nil {
		return err
	}
	if err := own(secret); err != nil {
		return err
	}
	cmd := p.command("initdb", "--pgdata", p.data(), "--username", superuser, "--pwfile", secret, "--auth", "scram-sha-256",
		"--encoding", "UTF8", "--locale", locale(), "--no-sync", "--no-instructions")
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "could not look up effective user ID") {
			return fmt.Errorf("user id %d has no name, and PostgreSQL refuses to run for it: add a line for it to /etc/passwd, "+
				"or run this as a user who has one, or as root, for whom PostgreSQL runs as nobody", os.Geteuid())
		}
		return fmt.Errorf("initdb: %w\n%s", err, tail(out))
	}
	return os.Remove(secret)
}

// copyPrimary makes the data folder of a standby. A server at rest is copied as it lies; its slots are its own.
func (p *postmaster) copyPrimary() error {
	copied := p.command("cp", "-Rp", filepath.Join(p.Primary, "data"), p.data())
	copied.Path = "/bin/cp"
	if out, err := copied.CombinedOutput(); err != nil {
		return fmt.Errorf("copy the primary: %w\n%s", err, tail(out))
	}
	slots, err := filepath.Glob(filepath.Join(p.data(), "pg_replslot", "*"))
	for _, slot := range slots {
		err = errors.Join(err, os.RemoveAll(slot))
	}
	signal := filepath.Join(p.data(), "standby.signal")
	return errors.Join(err, os.WriteFile(signal, nil, 0o600), own(signal))
}

// configure writes what differs from PostgreSQL's own defaults, instead of initdb's file with its guesses about the machine. A test's
// ALTER SYSTEM still overrides it.
func (p *postmaster) configure() error {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(p.Port),
		"unix_socket_directories": "",
		"wal_level":               "logical",
		"max_replication_slots":   "50", // a test has a database, and a slot or two, of its own
		"max_wal_senders":         "50",
		"max_connections":         "200",
		// A crash of the server loses nothing with these two off, only a crash of the machine would; synchronous_commit stays on,
		// since what is flushed, and when, is what the tests look at.
		"fsync":            "off",
		"full_page_writes": "off",
	}
	if p.Primary != "" {
		settings["primary_conninfo"] = p.PrimaryURL
		settings["wal_retrieve_retry_interval"] = "100ms" // the primary is halted when the standby first looks for it
	}
	for name, value := range p.Settings {
		settings[name] = value
	}
	var text strings.Builder
	for name, value := range settings {
		fmt.Fprintf(&text, "%s = '%s'\n", name, strings.ReplaceAll(value, "'", "''"))
	}
	// The file is there already, and stays the server's own.
	return os.WriteFile(filepath.Join(p.data(), "postgresql.conf"), []byte(text.String()), 0o600)
}

// start returns when the server takes connections. After a crash the old backends may need a moment to end; until then the
// new postmaster refuses their shared memory, so it is started again.
func (p *postmaster) start() error {
	deadline := time.After(startLimit)
	for {
		err := p.startOnce(deadline)
		if err == nil || !strings.Contains(err.Error(), "pre-existing shared memory block") {
			return err
		}
		select {
		case <-time.After(look):
		case <-deadline:
			return err
		}
	}
}

func (p *postmaster) startOnce(deadline <-chan time.Time) error {
	path := filepath.Join(p.Dir, "postgres.log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	cmd := p.command("postgres", "-D", p.data())
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the reason is in the log
		close(exited)
	}()
	p.cmd, p.exited = cmd, exited

	tick := time.NewTicker(look)
	defer tick.Stop()
	for !p.ready() {
		select {
		case <-tick.C:
		case <-exited:
			text, err := os.ReadFile(path)
			return errors.Join(fmt.Errorf("postgres ended while starting:\n%s", tail(text)), err)
		case <-deadline:
			return errors.Join(fmt.Errorf("postgres is not ready after %v", startLimit), p.stop(syscall.SIGKILL))
		}
	}
	return nil
}

// ready reads postmaster.pid: line 1 is the pid (an old file can lie there after a crash), line 8 the state.
func (p *postmaster) ready() bool {
	text, err := os.ReadFile(filepath.Join(p.data(), "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(text), "\n")
	return len(lines) >= 8 && lines[0] == strconv.Itoa(p.cmd.Process.Pid) && strings.TrimSpace(lines[7]) == "ready"
}

// stop ends the server by a signal and returns when it is gone; a server that is not running is fine.
func (p *postmaster) stop(sig syscall.Signal) error {
	if p.exited == nil {
		return nil
	}
	select {
	case <-p.exited:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal postgres: %w", err)
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopLimit):
		return errors.Join(fmt.Errorf("postgres had to be killed: it did not stop within %v", stopLimit), p.stop(syscall.SIGKILL))
	}
}

// end stops the server for good and removes its folder.
func (p *postmaster) end() error {
	if p.exited == nil { // never started
		return os.RemoveAll(p.Dir)
	}
	var err error
	if p.killed() {
		// Its shared memory outlives a postmaster that was killed, and is cleaned up by the next one on the same data.
		err = p.start()
	}
	// No checkpoint: the data goes next.
	return errors.Join(err, p.stop(syscall.SIGQUIT), os.RemoveAll(p.Dir))
}

// killed tells whether the server has ended by a signal, ours or another's.
func (p *postmaster) killed() bool {
	select {
	case <-p.exited:
		status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
		return ok && status.Signaled()
	default:
		return false
	}
}

// command runs a program of the installation, not as root, and in a fixed environment: a stray PG… variable, locale or time
// zone of the user's must not change what a test sees.
func (p *postmaster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.Prefix, "bin", name), args...)
	cmd.Dir = p.Dir
	cmd.Env = []string{"HOME=" + p.Dir, "LC_ALL=" + locale(), "TZ=UTC", "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	dieWithParent(cmd.SysProcAttr, syscall.SIGQUIT) // to postgres: immediate shutdown
	return cmd
}

// choosePort takes one that is lower than those that systems give to whoever asks for any: nobody gets it while the server is down.
func (p *postmaster) choosePort() (err error) {
	for range portTries {
		p.Port = 20_000 + rand.IntN(10_000)
		if err = portFree(p.Port); err == nil {
			return nil
		}
	}
	return err
}

func portFree(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("PostgreSQL's port: %w", err)
	}
	return l.Close()
}

// locale is UTF-8 without any language's rules, under the name that it has here.
func locale() string {
	if runtime.GOOS == "linux" {
		return "C.UTF-8"
	}
	return "C"
}

// tail keeps the end of a log that is to go into an error.
func tail(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}
