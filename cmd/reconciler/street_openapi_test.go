package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/aristotle/reconciler/aristotle/sandbox"
)

// schemathesisConfig allows one refusal of what its schema allows: no schema can say which cursors were given out.
const schemathesisConfig = `
[[operations]]
include-path = "/v1/icl/examples"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "400", "404"]
`

// TestSchemathesis lets schemathesis call the running program by its own description: whatever it sends, right and wrong, the answers are as
// described, right calls are not refused, wrong ones are, and nothing ends in a 5xx.
func TestSchemathesis(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short leaves schemathesis out")
	}
	program, err := exec.LookPath("schemathesis")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("schemathesis is missing: .ci/run installs it: %v", err)
		}
		t.Skip("schemathesis is missing: pip install schemathesis==4.32.5")
	}
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	// One text for both, as the caller has one header for all.
	tokens := tokensFile(t, map[string]string{secret: "scopes: [admin], email: schemathesis@example.com"})
	s.env = append(s.env, "RECONCILER_TOKENS_FILE="+tokens)
	task := s.pair("conquest_abc123", "VICTORY") // as the example of the description has it
	s.exec(`UPDATE "Conquest" SET philosopher = 'user@example.com', domain = 'software_engineering'`)
	p := s.start()
	s.wantContact(task)
	config := filepath.Join(t.TempDir(), "schemathesis.toml")
	if err := os.WriteFile(config, []byte(schemathesisConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "--config-file", config, "run", "http://"+p.listen+"/openapi.yaml",
		"--exclude-path-regex", "^/api/", "--header", "Authorization: Bearer "+secret,
		"--phases", "examples,coverage,fuzzing", "--max-examples", "30", "--seed", "1", "--no-color", "--continue-on-failure",
		"--request-timeout", "30")
	cmd.Dir = t.TempDir() // it leaves a folder
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	for _, code := range []string{"500", "503"} {
		if n, found := p.series(t, fmt.Sprintf(`reconciler_http_requests_total{code="%s",listener="api"}`, code)); found {
			t.Errorf("%v requests ended in a %s", n, code)
		}
	}
	if n := p.metric(t, "reconciler_panics_total"); n != 0 {
		t.Errorf("%v panics", n)
	}
}
