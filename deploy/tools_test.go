package deploy

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// tool finds a program that the machine may not have: then the test is skipped, and fails where CI=true.
func tool(t *testing.T, name, from string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%s is not installed (%s): .ci/run installs it", name, from)
	default:
		t.Skipf("%s is not installed: %s", name, from)
	}
	return path
}

// promtool runs Debian's, which stands for the oldest Prometheus that the rules are for.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool(t, "promtool", "apt-get install prometheus"), args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
