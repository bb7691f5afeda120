package sandbox

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// realVersion is the Label Studio that requirements.txt installs.
const realVersion = "1.23.2"

// uvVersion installs in half a minute what takes pip two and a half.
const uvVersion = "0.13.9"

// ErrNoPython means that this machine has no Python that can run Label Studio.
var ErrNoPython = errors.New("Label Studio needs Python 3.10 to 3.13 with venv in PATH (Debian: apt-get install python3-venv)")

//go:embed requirements.txt
var requirements string

// installation is a folder of the cache: venv/, template.sql, template.env, and last of all the file done.
type installation struct {
	dir string
	log func(string)
}

func (i installation) python() string   { return filepath.Join(i.dir, "venv", "bin", "python") }
func (i installation) template() string { return filepath.Join(i.dir, "template.sql") }
func (i installation) secrets() string  { return filepath.Join(i.dir, "template.env") }
func (i installation) done() string     { return filepath.Join(i.dir, "done") }

// complete also looks whether the Python that the venv points to is still there.
func (i installation) complete() bool {
	_, errDone := os.Stat(i.done())
	_, errPython := os.Stat(i.python())
	return errDone == nil && errPython == nil
}

// prepare finds Label Studio in the cache, or installs it and makes its template, which takes one to two minutes and is done once.
// Of processes that come at the same time one does it and the others wait.
func prepare(ctx context.Context, cache, postgres string, log func(string)) (installation, error) {
	sum := sha256.Sum256([]byte(requirements + dumpSQL + uvVersion))
	i := installation{dir: filepath.Join(cache, fmt.Sprintf("label-studio-%s-%x", realVersion, sum[:4])), log: log}
	if i.complete() {
		return i, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return i, err
	}
	unlock, err := lockInstall(ctx, i.dir+".lock", func() { log("Label Studio " + realVersion + ": another process is installing it, waiting") })
	if err != nil {
		return i, err
	}
	defer unlock()
	if i.complete() {
		return i, nil
	}
	python, err := findPython(ctx)
	if err != nil {
		return i, err
	}
	// What an earlier attempt left without its mark is not trusted. If this one dies, the next finds no mark either.
	if err := os.RemoveAll(i.dir); err != nil {
		return i, err
	}
	if err := os.Mkdir(i.dir, 0o755); err != nil {
		return i, err
	}
	err = i.install(ctx, python)
	if err == nil {
		err = i.makeTemplate(ctx, postgres)
	}
	if err == nil {
		err = os.WriteFile(i.done(), nil, 0o644)
	}
	if err != nil {
		return i, errors.Join(err, os.RemoveAll(i.dir))
	}
	return i, nil
}

// install fills the venv. Every package is named with its exact version in requirements.txt.
func (i installation) install(ctx context.Context, python string) error {
	i.log(fmt.Sprintf("Label Studio %s: installing into %s, once: 260 MB from the Python package index, 1 GB on disk, about a minute", realVersion, i.dir))
	list := filepath.Join(i.dir, "requirements.txt")
	if err := os.WriteFile(list, []byte(requirements), 0o644); err != nil {
		return err
	}
	downloads := filepath.Join(i.dir, "downloads") // on the same disk: uv links from there
	if err := os.Mkdir(downloads, 0o755); err != nil {
		return err
	}
	steps := [][]string{
		{python, "-m", "venv", filepath.Join(i.dir, "venv")},
		{i.python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv==" + uvVersion},
		// Without --compile-bytecode the first start would compile everything, and be slow by half a minute.
		{i.python(), "-m", "uv", "pip", "install", "--python", i.python(), "--cache-dir", downloads, "--compile-bytecode", "-r", list},
	}
	for _, step := range steps {
		if err := run(ctx, downloads, step[0], step[1:]...); err != nil {
			return fmt.Errorf("install Label Studio: %w", err)
		}
	}
	return os.RemoveAll(downloads)
}

// run runs a program to its end; its output goes into the error, its temporary files into temp.
func run(ctx context.Context, temp, name string, args ...string) error {
	// The kernel ends the child with the thread that started it, so the thread is kept until the child has ended.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	dieWithParent(cmd.SysProcAttr)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	cmd.WaitDelay = time.Second // after a cancel: not for a grandchild that holds the output
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, lastLines(string(out)))
	}
	return nil
}

// findPython takes the first Python of PATH that can make a venv and that all of requirements.txt has builds for.
func findPython(ctx context.Context) (string, error) {
	const probe = "import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 14))"
	for _, name := range []string{"python3", "python3.13", "python3.12", "python3.11", "python3.10", "python"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if exec.CommandContext(ctx, path, "-c", probe).Run() == nil {
			return path, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return "", ErrNoPython
}

// lockInstall takes the exclusive lock on a file, across processes; busy is called if that means to wait. The kernel frees the lock when
// its holder dies.
func lockInstall(ctx context.Context, path string, busy func()) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		return func() { f.Close() }, nil
	}
	busy()
	locked := make(chan error, 1)
	go func() {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		for errors.Is(err, syscall.EINTR) {
			err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		}
		locked <- err
	}()
	select {
	case err := <-locked:
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		return func() { f.Close() }, nil
	case <-ctx.Done():
		go func() { // flock cannot be interrupted: give the lock back once it comes
			<-locked
			f.Close()
		}()
		return nil, fmt.Errorf("wait for %s: %w", path, ctx.Err())
	}
}

func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}
