package sandbox

import (
	"bytes"
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"syscall"

	"github.com/jackc/pgx/v5"
)

//go:embed bootstrap.py
var bootstrap string

// process is a running Label Studio.
type process struct {
	cmd    *exec.Cmd
	in     io.Closer // closing it ends the process
	output *output
	exited chan struct{}
	err    error // once exited is closed
}

// spawn runs a Label Studio command. The process, and its data folder, end with its standard input, that is with us.
func (i installation) spawn(data string, environment []string, args ...string) (*process, error) {
	p := &process{output: &output{serving: make(chan int, 1)}, exited: make(chan struct{})}
	p.cmd = exec.Command(i.python(), append([]string{"-c", bootstrap, data}, args...)...)
	p.cmd.Dir = data
	p.cmd.Env = environment
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a ^C at the terminal is for us
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.in = in
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start Label Studio: %w", err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// finish waits for a command that ends by itself.
func (p *process) finish(ctx context.Context) error {
	select {
	case <-p.exited:
		if p.err != nil {
			return fmt.Errorf("%w\n%s", p.err, p.output)
		}
		return nil
	case <-ctx.Done():
		return errors.Join(ctx.Err(), p.kill())
	}
}

// kill ends the process with SIGKILL and returns when it is gone.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill Label Studio: %w", err)
	}
	<-p.exited
	return nil
}

// stop ends the process by closing its standard input, upon which it also removes its data folder.
func (p *process) stop() {
	p.in.Close()
	<-p.exited
}

// output is the process's standard output and error: it keeps the end of it and waits for the line that tells the port.
type output struct {
	mu      sync.Mutex
	text    []byte
	told    bool
	serving chan int // the port, once the socket is bound
}

// Django says this after it has bound its socket, and Label Studio takes another port than the one it was told when that one is busy.
var servingAt = regexp.MustCompile(`Starting development server at http://[^\s]*:(\d+)/`)

const keepOutput = 64 << 10

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	if !o.told {
		if m := servingAt.FindSubmatch(o.text); m != nil {
			port, err := strconv.Atoi(string(m[1]))
			if err != nil {
				return 0, err
			}
			o.told = true
			o.serving <- port
		}
	}
	if len(o.text) > 2*keepOutput {
		o.text = bytes.Clone(o.text[len(o.text)-keepOutput:])
	}
	return len(p), nil
}

// String is the last lines.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return lastLines(string(o.text))
}

// environment is what Label Studio is told: its database, and to ask nothing of the outside world. SSRF protection is off, since
// the receiver of its webhooks is on loopback. Of our own environment it gets only what finds programs and libraries.
func environment(data, database string) ([]string, error) {
	db, err := pgx.ParseConfig(database)
	if err != nil {
		return nil, err
	}
	var env []string
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return append(env,
		"HOME="+data,
		"LANG=C.UTF-8",
		"TZ=UTC",
		"PYTHONUNBUFFERED=1",
		"LABEL_STUDIO_BASE_DATA_DIR="+data,
		"LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK=true",
		"COLLECT_ANALYTICS=false",
		"SENTRY_DSN=",
		"FRONTEND_SENTRY_DSN=",
		"LATEST_VERSION_CHECK=false",
		"SSRF_PROTECTION_ENABLED=false",
		"DJANGO_DB=default",
		"POSTGRE_HOST="+db.Host,
		"POSTGRE_PORT="+strconv.Itoa(int(db.Port)),
		"POSTGRE_NAME="+db.Database,
		"POSTGRE_USER="+db.User,
		"POSTGRE_PASSWORD="+db.Password,
	), nil
}

// djangoHash is a password in the form that Django stores. One iteration is enough for a password of 130 random bits; at the first
// login Django makes it as many as it likes.
func djangoHash(password string) (string, error) {
	salt := rand.Text()
	key, err := pbkdf2.Key(sha256.New, password, []byte(salt), 1, sha256.Size)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("pbkdf2_sha256$1$%s$%s", salt, base64.StdEncoding.EncodeToString(key)), nil
}
