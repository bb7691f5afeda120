package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler/web/webtest"
)

// call sends a sync call as Aristotle does, and returns how it was answered. Every answer is held against openapi.yaml.
func (s *street) call(p *process, token string, body any) (status int, answer object) {
	s.Helper()
	text, isText := body.(string)
	if !isText {
		raw, err := json.Marshal(body)
		if err != nil {
			s.Fatal(err)
		}
		text = string(raw)
	}
	req, err := http.NewRequestWithContext(s.Context(), http.MethodPost, "http://"+p.listen+"/v1/sync/victory-to-gold-star", strings.NewReader(text))
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := webtest.Client(s.T).Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	s.decode(raw, &answer)
	return resp.StatusCode, answer
}

// tokens writes a tokens file with a token for each, whose text is its name.
func tokensFile(t *testing.T, each map[string]string) string {
	t.Helper()
	text := ""
	for name, rest := range each {
		text += fmt.Sprintf("- {name: %s, sha256: '%x', %s}\n", name, sha256.Sum256([]byte(name)), rest)
	}
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// callFor is a sync call about a conquest of the tests.
func callFor(key string) object {
	return object{"conquest_id": key, "philosopher": "plato@example.com", "domain": "ethics"}
}

// TestSync: the sync endpoint of a replica that does not lead, as the contract has it.
func TestSync(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	tokens := tokensFile(t, map[string]string{"aristotle": "scopes: [sync]", "eidos": "scopes: [icl]",
		"confined": "scopes: [sync], philosopher: socrates@example.com", "other": "scopes: [sync], domain: logic"})
	s.env = append(s.env, "RECONCILER_DIFF_SCHEDULE=@every 1h", "RECONCILER_TOKENS_FILE="+tokens)
	odd := `conquest "ä" 'x' \ %00 ` + "\u2028\U0001F600"
	tasks := map[string]int64{}
	for _, key := range []string{"marked", "noted", "slow", "defeat", odd} {
		tasks[key] = s.pair(key, "DEFEAT")
	}
	s.conquest("lone", "DEFEAT")
	s.exec(`UPDATE "Conquest" SET "resultNotes" = NULL WHERE id = 'noted'`)
	sent := countPatches(ls)
	leader := s.start()
	s.wantLog(leader, "msg=leading")
	s.wantContact(tasks["marked"], tasks["noted"], tasks["slow"], tasks["defeat"], tasks[odd])
	p := s.start()

	want := func(what string, status int, answer object, wantStatus int, wantText string) {
		t.Helper()
		if status != wantStatus || wantText != "" && answer["status"] != wantText {
			t.Errorf("%s: %d %v, want %d %s", what, status, answer, wantStatus, wantText)
		}
	}
	// The notes of a call that comes while the turn is under way reach its PATCH, since the row has none.
	looking, look := make(chan bool, 100), make(chan bool)
	ls.Faults(func(r *http.Request) studio.Fault {
		if r.URL.Path == "/api/tasks/" {
			looking <- true
			<-look
		}
		return studio.Fault{}
	})
	s.setResult("VICTORY", "noted")
	<-looking
	type answered struct {
		status int
		answer object
	}
	got := make(chan answered)
	go func() {
		defer close(got) // where the call fails, too
		body := callFor("noted")
		body["result_notes"] = "said by the call"
		status, answer := s.call(p, "aristotle", body)
		got <- answered{status, answer}
	}()
	s.zero(`SELECT count(*), 'no notes yet' FROM reconciler.queue WHERE key = 'noted' AND notes IS NULL`)
	close(look)
	a := <-got
	ls.Faults(nil)
	want("notes", a.status, a.answer, 200, "success")
	s.has("the answer", a.answer, object{"conquest_id": "noted", "task_id": tasks["noted"], "message": "Successfully synced VICTORY to gold star"})
	s.has("meta", s.meta(tasks["noted"]), object{"gold_star": true, "result_notes": "said by the call"})

	for _, key := range []string{"marked", odd} {
		s.setResult("VICTORY", key)
		for range 2 { // twice is once
			body := callFor(key)
			body["result_notes"] = "the row's own notes count"
			status, answer := s.call(p, "aristotle", body)
			want(key, status, answer, 200, "success")
			s.has("the answer", answer, object{"conquest_id": key, "task_id": tasks[key]})
		}
		s.has("meta", s.meta(tasks[key]), object{"gold_star": true, "result_notes": "well argued"})
		if n := sent(tasks[key]); n != 1 {
			t.Errorf("%s: %d PATCHes, want 1", key, n)
		}
	}

	s.setResult("VICTORY", "lone")
	status, answer := s.call(p, "aristotle", callFor("lone"))
	want("no task", status, answer, 404, "task_not_found")
	status, answer = s.call(p, "aristotle", callFor("defeat"))
	want("a row that says otherwise", status, answer, 409, "not_victory")
	status, answer = s.call(p, "aristotle", callFor("nobody's"))
	want("no conquest", status, answer, 404, "conquest_not_found")
	other := callFor("marked")
	other["domain"] = "logic"
	status, answer = s.call(p, "aristotle", other)
	want("another domain", status, answer, 404, "conquest_not_found")

	ls.Faults(func(*http.Request) studio.Fault { return studio.Fault{Kind: studio.FaultStatus, Status: 503} })
	s.setResult("VICTORY", "slow")
	status, answer = s.call(p, "aristotle", callFor("slow"))
	want("Label Studio is away", status, answer, 202, "accepted")
	ls.Faults(nil)

	for _, c := range []struct {
		token  string
		body   any
		status int
		part   string
	}{
		{"", callFor("marked"), 401, "Authorization: Bearer"},
		{"guess", callFor("marked"), 401, "Authorization: Bearer"},
		{"eidos", callFor("marked"), 403, "scope sync"},
		{"confined", callFor("marked"), 403, "another"},
		{"other", callFor("nobody's"), 403, "another"},
		{"aristotle", object{"conquest_id": "marked", "philosopher": "p"}, 400, "domain is missing"},
		{"aristotle", object{"conquest_id": "", "philosopher": "p", "domain": "d"}, 400, "conquest_id is missing"},
		{"aristotle", object{"conquest_id": strings.Repeat("ä", 1001), "philosopher": "p", "domain": "d"}, 400, "conquest_id may have 1000"},
		{"aristotle", object{"conquest_id": 7, "philosopher": "p", "domain": "d"}, 400, "conquest_id must be a text"},
		{"aristotle", object{"conquest_id": "a\x00b", "philosopher": "p", "domain": "d"}, 400, "NUL"},
		{"aristotle", `{"conquest_id": "x", "results_notes": ""}`, 400, "results_notes"},
		{"aristotle", `nonsense`, 400, "JSON object"},
		{"aristotle", object{"conquest_id": "x", "philosopher": "p", "domain": "d", "result_notes": strings.Repeat("x", 1<<16+1)}, 400, "result_notes may have"},
		{"aristotle", strings.Repeat(" ", 1<<20+1), 413, "1 MiB"},
	} {
		status, answer := s.call(p, c.token, c.body)
		if text := fmt.Sprint(answer["detail"]); status != c.status || !strings.Contains(text, c.part) {
			t.Errorf("%.100v: %d %v, want %d with %s", c.body, status, answer, c.status, c.part)
		}
	}
	s.wantStar(tasks["slow"], true)
	s.wantLooked()
}
