// Package pgtest gives tests their PostgreSQL: one server for each test process, started by the first test that asks, and one
// database for each test.
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
//	func TestThing(t *testing.T) {
//		url := pgtest.Database(t, sandbox.Schema{})
//		…
//	}
//
// On a machine that cannot get a PostgreSQL such a test is skipped, and the skip says what to do; where CI=true it fails.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle/sandbox"
)

// cleanLimit bounds clean-up, which runs when the test's own context has ended.
const cleanLimit = 3 * time.Minute

// shared is the server of this process. A package variable, since nothing else outlives a test and is known to all of them.
var shared struct {
	sync.Mutex
	server *sandbox.Server
	err    error // of the one attempt
}

// Main is the whole of a TestMain: it runs the tests, stops the shared server and exits with the tests' status.
func Main(m *testing.M) {
	sandbox.Supervise()
	status := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		if err := shared.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the shared PostgreSQL:", err)
			status = max(status, 1)
		}
	}
	os.Exit(status)
}

// Database makes a database with Aristotle's tables in the process's server, for this test alone, and returns the superuser's
// URL. It is dropped, with its connections and slots, when the test ends.
func Database(t testing.TB, schema sandbox.Schema) string {
	t.Helper()
	server := Shared(t)
	url, err := server.CreateDatabase(t.Context(), schema)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), cleanLimit)
		defer cancel()
		if err := server.DropDatabase(ctx, url); err != nil {
			t.Error(err)
		}
	})
	return url
}

// Shared is the process's server itself. Whoever restarts it or changes its settings disturbs all other tests: take [Server]
// for that.
func Shared(t testing.TB) *sandbox.Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		// Not the test's context: the server outlives it.
		shared.server, shared.err = sandbox.Start(context.WithoutCancel(t.Context()), sandbox.Options{Log: stderr})
	}
	check(t, shared.err)
	return shared.server
}

// Server starts a server for this test alone, for those that crash it, halt it or need other settings. It costs one to two
// seconds, and is stopped when the test ends.
func Server(t testing.TB, o sandbox.Options) *sandbox.Server {
	t.Helper()
	if o.Log == nil {
		o.Log = stderr
	}
	server, err := sandbox.Start(t.Context(), o)
	check(t, err)
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// Versions are the PostgreSQL versions that a test of every major runs with: the default one alone, or, where
// RECONCILER_SANDBOX_VERSIONS=all, all of [sandbox.Versions].
func Versions() []string {
	if os.Getenv("RECONCILER_SANDBOX_VERSIONS") == "all" {
		return sandbox.Versions()
	}
	return []string{""}
}

func check(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, sandbox.ErrUnavailable) && os.Getenv("CI") != "true":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

// stderr shows progress at once: a log of the test would come after the download.
func stderr(line string) { fmt.Fprintln(os.Stderr, line) }
