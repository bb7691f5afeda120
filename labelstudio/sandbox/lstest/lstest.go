// Package lstest gives tests a real Label Studio. A start takes some six seconds of a core: share one among the tests of a package, and
// give every test a project of its own.
package lstest

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/aristotle/reconciler/labelstudio/sandbox"
)

// Real starts a Label Studio on a database of its own in the given PostgreSQL (the URL of a superuser), and stops it when the test ends,
// so ask for it after the PostgreSQL. With -short the test is skipped; without Python it is skipped too, and fails where CI=true.
func Real(t testing.TB, postgres string) *sandbox.Real {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves the real Label Studio out")
	}
	real, err := sandbox.StartReal(t.Context(), sandbox.RealOptions{
		Postgres: postgres,
		Log:      func(line string) { fmt.Fprintln(os.Stderr, line) }, // at once: the first start installs it
	})
	switch {
	case err == nil:
	case errors.Is(err, sandbox.ErrNoPython) && os.Getenv("CI") != "true":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := real.Stop(); err != nil {
			t.Error(err)
		}
	})
	return real
}
