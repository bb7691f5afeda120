package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

const superuser = "postgres"

// Options say what server to start. The zero value is a good one.
type Options struct {
	// Version is a major ("15") or exact ("15.18.0"). Default: RECONCILER_SANDBOX_VERSION, else [DefaultVersion].
	Version string
	// Port on 127.0.0.1. 0 takes any free one; a port that is taken is an error.
	Port int
	// Settings are additional lines of postgresql.conf, such as {"wal_level": "replica"}.
	Settings map[string]string
	// StandbyOf makes it a streaming standby of another server, of the same version, instead of a fresh one. That one must be
	// halted until Start returns. SELECT pg_promote() makes the standby a primary.
	StandbyOf *Server
	// Log is given a line for whatever takes long, such as a download. May be nil.
	Log func(string)
}

// Server is a running PostgreSQL of our own. Its methods may be called concurrently.
type Server struct {
	port     int
	password string
	dir      string

	mu      sync.Mutex // one request at a time
	cmd     *exec.Cmd  // the supervisor
	in      io.WriteCloser
	out     *json.Decoder
	stopped bool
}

// Start brings up a fresh server with an empty data folder, which takes one to two seconds, and about five more the first time,
// when the binaries must be downloaded. ctx bounds the start alone. An error that wraps [ErrUnavailable] means that this
// machine has no PostgreSQL to offer; after any error nothing is left running or on disk.
func Start(ctx context.Context, o Options) (*Server, error) {
	if os.Getenv(supervisorMark) != "" {
		// A child that reached this line skipped Supervise: without the check it would start itself for ever.
		return nil, errors.New("sandbox.Supervise must be the first line of main and of TestMain")
	}
	log := o.Log
	if log == nil {
		log = func(string) {}
	}
	cache, err := cacheFolder()
	if err != nil {
		return nil, err
	}
	prefix, err := binaries(ctx, o.Version, cache, log)
	if err != nil {
		return nil, err
	}
	dir, lock, err := newFolder(ctx, cache, log)
	if err != nil {
		return nil, err
	}
	s := &Server{password: rand.Text(), dir: dir}
	conf := &config{Dir: dir, Prefix: prefix, Port: o.Port, Settings: o.Settings}
	if o.StandbyOf != nil {
		s.password, conf.Primary, conf.PrimaryURL = o.StandbyOf.password, o.StandbyOf.dir, o.StandbyOf.URL()
	}
	conf.Password = s.password
	err = s.launch(lock)
	if err = errors.Join(err, lock.Close()); err != nil { // the supervisor holds it now
		return nil, errors.Join(fmt.Errorf("start the supervisor: %w", err), s.Stop())
	}
	s.port, err = s.call(ctx, request{Verb: verbInit, Config: conf})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), s.Stop())
	}
	return s, nil
}

// launch re-executes this program as the supervisor.
func (s *Server) launch(lock *os.File) error {
	self, err := selfPath()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Dir = "/"
	cmd.Env = []string{supervisorMark + "=1"}
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a ^C at the terminal is for the program, which then stops us
	// Not our own stderr: `go test` waits for all who hold it, and a killed test must not wait for the clean-up.
	stderr, err := os.Create(filepath.Join(s.dir, "supervisor.log"))
	if err != nil {
		return err
	}
	defer stderr.Close()
	cmd.Stderr = stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.in, s.out = cmd, in, json.NewDecoder(out)
	return nil
}

// call sends one request and waits for its reply, which tells the server's port. When ctx ends first the conversation is broken
// off, and the server with it.
func (s *Server) call(ctx context.Context, req request) (port int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return 0, errors.New("the server was stopped")
	}
	type answer struct {
		reply
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		var a answer
		if a.err = json.NewEncoder(s.in).Encode(req); a.err == nil {
			a.err = s.out.Decode(&a.reply)
		}
		answered <- a
	}()
	select {
	case a := <-answered:
		if a.err != nil {
			log, _ := os.ReadFile(filepath.Join(s.dir, "supervisor.log")) // adds to the error where it can
			return 0, fmt.Errorf("supervisor: %w\n%s", a.err, tail(log))
		}
		if a.Err != "" {
			return 0, errors.New(a.Err)
		}
		return a.Port, nil
	case <-ctx.Done():
		err := s.stop()
		<-answered
		return 0, errors.Join(ctx.Err(), err)
	}
}

// Port is the server's TCP port on 127.0.0.1, the same for its whole life.
func (s *Server) Port() int { return s.port }

// URL is the superuser's connection URL of the database postgres.
func (s *Server) URL() string { return s.url("postgres") }

func (s *Server) url(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, s.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Halt shuts the server down in an orderly way (fast: clients are cut off, a checkpoint is written) and keeps its data for
// [Server.Restart].
func (s *Server) Halt() error {
	_, err := s.call(context.Background(), request{Verb: verbHalt})
	return err
}

// Crash kills the postmaster with SIGKILL, as an out-of-memory killer would. The data stays for [Server.Restart].
func (s *Server) Crash() error {
	_, err := s.call(context.Background(), request{Verb: verbCrash})
	return err
}

// Restart brings the server up again on the same data and port, after a Halt, a Crash, or (an orderly restart) while it
// runs. If ctx ends before that is done, the server is stopped for good.
func (s *Server) Restart(ctx context.Context) error {
	_, err := s.call(ctx, request{Verb: verbStart})
	return err
}

// Stop ends the server for good and removes all that it had on disk. Stopping again does nothing.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stop()
}

func (s *Server) stop() error {
	if s.stopped {
		return nil
	}
	s.stopped = true
	var err error
	if s.cmd != nil {
		s.in.Close() // this tells the supervisor; a pipe that is broken already tells it too
		if err = s.cmd.Wait(); err != nil {
			log, _ := os.ReadFile(filepath.Join(s.dir, "supervisor.log"))
			err = fmt.Errorf("supervisor: %w\n%s", err, tail(log))
		}
	}
	// The supervisor has done it already, unless it was never started or was killed.
	if rest := os.RemoveAll(s.dir); rest != nil {
		err = errors.Join(err, fmt.Errorf("remove the server's folder: %w", rest))
	}
	return err
}
