package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// nobody is the user and the group that the server runs as when we are root.
const nobody = 65534

// cacheFolder finds (and makes) the folder for binaries and for the data of running servers. As root it must be a place that
// uid 65534 can traverse to, which root's home is not.
func cacheFolder() (string, error) {
	dir := os.Getenv("RECONCILER_SANDBOX_CACHE")
	switch {
	case dir != "":
	case os.Geteuid() == 0:
		dir = "/var/cache/reconciler"
	default:
		home, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find a cache folder (RECONCILER_SANDBOX_CACHE names one): %w", err)
		}
		dir = filepath.Join(home, "reconciler")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, passable(dir)
}

// passable makes a folder, if it is not there, that uid 65534 can pass through whatever the umask is.
func passable(dir string) error {
	if isDir(dir) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// newFolder makes the folder of one server, cache/run/N, and takes the lock in it, which the supervisor inherits and holds for its
// life. Folders without a holder are the rest of supervisors that were killed: they are swept here, under the same outer lock, so
// that a folder is never seen between its creation and its locking.
func newFolder(ctx context.Context, cache string, log func(string)) (dir string, lock *os.File, err error) {
	unlock, err := lockFile(ctx, filepath.Join(cache, "run.lock"))
	if err != nil {
		return "", nil, err
	}
	defer unlock()
	run := filepath.Join(cache, "run")
	if err := passable(run); err != nil {
		return "", nil, err
	}
	if err := sweep(run); err != nil {
		log(fmt.Sprintf("sweep left-over sandboxes: %v", err)) // in nobody's way but the disk's
	}
	if dir, err = os.MkdirTemp(run, "pg-*"); err != nil {
		return "", nil, err
	}
	lock, err = os.Create(filepath.Join(dir, "lock"))
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err = errors.Join(err, own(dir)); err != nil {
		return "", nil, errors.Join(fmt.Errorf("make the server's folder: %w", err), lock.Close(), os.RemoveAll(dir))
	}
	return dir, lock, nil
}

// sweep removes the folders that nobody holds. A server that still runs in one (possible only where the kernel cannot end it
// with its supervisor) notices that its postmaster.pid is gone and ends within a minute.
func sweep(run string) error {
	entries, err := os.ReadDir(run)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		dir := filepath.Join(run, entry.Name())
		lock, err := os.Open(filepath.Join(dir, "lock"))
		if err == nil {
			held := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil
			errs = append(errs, lock.Close())
			if held {
				continue
			}
		} else if !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// own hands a path to the user that the server runs as.
func own(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(path, nobody, nobody)
}

// lockFile waits for the exclusive lock on a file, across processes. The kernel frees it when the holder dies. The file stays:
// removing it would let two holders lock two files of one name.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
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
