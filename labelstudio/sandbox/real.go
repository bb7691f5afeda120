package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	random "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// RealOptions say how to start the real Label Studio.
type RealOptions struct {
	// Postgres is the URL of a superuser, of any database of the server. Label Studio gets a new database there.
	Postgres string
	// Port on 127.0.0.1. 0 takes any free one; a port that is taken is an error that names this setting.
	Port int
	// CacheDir has the installation. Default: RECONCILER_SANDBOX_CACHE, else "reconciler" in the user's cache folder, as root
	// /var/cache/reconciler.
	CacheDir string
	// Log is given a line for whatever takes long: the first start on a machine installs Label Studio. May be nil.
	Log func(string)
}

// Real is a running Label Studio Community with one user, who is its administrator, and nothing in it. Its methods may be called
// concurrently.
type Real struct {
	options         RealOptions
	install         installation
	database        string
	port            int
	token, password string

	data string // its data folder

	mu      sync.Mutex // guards what follows: one start or stop at a time
	process *process
	stopped bool
}

// portTries: a port that was free a moment ago can be lost to another process.
const portTries = 5

// StartReal starts Label Studio on a fresh copy of its migrated database: five to ten seconds, most of it Label Studio's own. The first
// time on a machine it installs Label Studio and makes that database, in one to two minutes. An error that wraps [ErrNoPython] means
// that this machine cannot run it. ctx bounds the start alone; after an error nothing is left but the cache.
func StartReal(ctx context.Context, o RealOptions) (*Real, error) {
	if o.Log == nil {
		o.Log = func(string) {}
	}
	if o.Port != 0 { // before the minute that an installation may take
		if err := checkFree(o.Port); err != nil {
			return nil, err
		}
	}
	cache, err := cacheDir(o.CacheDir)
	if err != nil {
		return nil, err
	}
	install, err := prepare(ctx, cache, o.Postgres, o.Log)
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 20)
	rand.Read(secret) // never fails
	r := &Real{options: o, install: install, port: o.Port, token: hex.EncodeToString(secret), password: rand.Text()}
	if r.database, err = createDatabase(ctx, o.Postgres); err != nil {
		return nil, err
	}
	if err := r.startFirst(ctx); err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}

func (r *Real) startFirst(ctx context.Context) (err error) {
	if err := r.install.restore(ctx, r.database, r.token, r.password); err != nil {
		return err
	}
	if r.data, err = os.MkdirTemp("", "label-studio-*"); err != nil {
		return err
	}
	secrets, err := os.ReadFile(r.install.secrets())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.data, ".env"), secrets, 0o600); err != nil {
		return err
	}
	if r.port != 0 {
		return r.start(ctx, r.port)
	}
	for try := 1; ; try++ {
		port, err := freePort()
		if err != nil {
			return err
		}
		if err = r.start(ctx, port); err == nil {
			r.port = port
			return nil
		}
		if !errors.Is(err, errPortLost) || try == portTries {
			return err
		}
	}
}

// errPortLost: between our look and Label Studio's, another process took the port.
var errPortLost = errors.New("the port was taken meanwhile")

// start runs the server and returns when it answers our token, which no other server knows.
func (r *Real) start(ctx context.Context, port int) error {
	if err := checkFree(port); err != nil {
		return err
	}
	env, err := environment(r.data, r.database)
	if err != nil {
		return err
	}
	p, err := r.install.spawn(r.data, env, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", strconv.Itoa(port))
	if err != nil {
		return err
	}
	fail := func(err error) error {
		return errors.Join(fmt.Errorf("start Label Studio: %w\n%s", err, p.output), p.kill())
	}
	select {
	case bound := <-p.output.serving:
		if bound != port { // it must not serve where nobody asked it to
			return fail(errPortLost)
		}
	case <-p.exited:
		if strings.Contains(p.output.String(), "port is already in use") {
			return fail(errPortLost)
		}
		return fail(fmt.Errorf("it ended: %v", p.err))
	case <-ctx.Done():
		return fail(ctx.Err())
	}
	if err := r.whoami(ctx, port); err != nil {
		return fail(err)
	}
	r.process = p
	return nil
}

// whoami makes sure of the database and the token. It also has Label Studio import what it needs for its first answer.
func (r *Real) whoami(ctx context.Context, port int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address(port)+"/api/current-user/whoami", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Token "+r.token)
	req.Close = true // on a kept connection its answers take 40 ms more
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var user struct{ Email string }
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("whoami answers %s", resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&user); err != nil {
		return fmt.Errorf("whoami: %w", err)
	}
	if user.Email != Email {
		return fmt.Errorf("whoami answers %q", user.Email)
	}
	return nil
}

// URL is the base URL, without a final slash.
func (r *Real) URL() string { return address(r.port) }

// Token is a legacy token ("Authorization: Token …"), another one at every StartReal.
func (r *Real) Token() string { return r.token }

// Email and [Real.Password] log the user in.
func (r *Real) Email() string { return Email }

// Password is the user's, another one at every StartReal.
func (r *Real) Password() string { return r.password }

// DatabaseURL is Label Studio's own database, as the superuser.
func (r *Real) DatabaseURL() string { return r.database }

// Kill ends the server with SIGKILL. Its database stays for [Real.Restart].
func (r *Real) Kill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return nil
	}
	return r.process.kill()
}

// Restart brings the server up again on the same database and port, after a Kill or while it runs.
func (r *Real) Restart(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return errors.New("restart Label Studio: it was stopped")
	}
	if err := r.process.kill(); err != nil {
		return err
	}
	return r.start(ctx, r.port)
}

// Stop ends the server for good, and removes its database and its files. Stop it before its PostgreSQL. Stopping again does nothing.
func (r *Real) Stop() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return nil
	}
	r.stopped = true
	if r.process != nil { // the first start may not have come so far
		r.process.stop()
	}
	return errors.Join(os.RemoveAll(r.data), dropDatabase(context.Background(), r.options.Postgres, r.database))
}

func address(port int) string {
	return "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// checkFree refuses a port that is taken. Label Studio itself would move on to the next one in silence.
func checkFree(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("Label Studio's port (RealOptions.Port): %w", err)
	}
	return l.Close()
}

// freePort is lower than those that systems give to whoever asks for any: nobody gets it while Label Studio is down.
func freePort() (port int, err error) {
	for range portTries {
		port = 20_000 + random.IntN(10_000)
		if err = checkFree(port); err == nil {
			return port, nil
		}
	}
	return 0, err
}

func cacheDir(dir string) (string, error) {
	if dir == "" {
		dir = os.Getenv("RECONCILER_SANDBOX_CACHE")
	}
	if dir == "" && os.Geteuid() == 0 {
		dir = "/var/cache/reconciler"
	}
	if dir == "" {
		home, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find a cache folder (RECONCILER_SANDBOX_CACHE names one): %w", err)
		}
		dir = filepath.Join(home, "reconciler")
	}
	return filepath.Abs(dir)
}
