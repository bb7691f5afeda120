package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
)

// TestMain makes the test binary the program itself where it is called by the program's name, as the scripts do.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "reconciler" {
		program()
		os.Exit(0)
	}
	// These tests wait more than they compute: for deadlines, for looks after a PATCH, for a slow Label Studio.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	pgtest.Main(m)
}

// TestScripts runs testdata/script: one behaviour of the command line, one file. Those named setup_* get a database of their
// own, in $ADMIN_URL, and the variables that name two roles to make.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			vars := map[string]string{"HOME": t.TempDir()}
			if ok, _ := filepath.Match("setup_*", filepath.Base(file)); ok {
				cfg := unprepared(t, sandbox.Schema{})
				for name, dsn := range map[string]DSN{"ADMIN_URL": cfg.AristotleAdminURL,
					"ARISTOTLE_DATABASE_URL": cfg.AristotleDatabaseURL, "ARISTOTLE_REPLICATION_URL": cfg.AristotleReplicationURL} {
					vars[name] = string(dsn)
				}
			}
			testscript.Run(t, testscript.Params{Files: []string{file}, Setup: func(env *testscript.Env) error {
				for name, value := range vars {
					env.Setenv(name, value)
				}
				return putProgram(env)
			}})
		})
	}
}

// putProgram makes the program callable as `reconciler`.
func putProgram(env *testscript.Env) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	bin := filepath.Join(env.WorkDir, ".bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
	return os.Symlink(self, filepath.Join(bin, "reconciler"))
}
