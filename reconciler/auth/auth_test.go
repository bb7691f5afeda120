package auth_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/auth"
)

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func file(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	write(t, path, text)
	return path
}

// write puts a text in the file's place at once: who watches it sees no empty one in between.
func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func token(name, secret, more string) string {
	return fmt.Sprintf("- name: %s\n  sha256: %s\n  %s\n", name, hashOf(secret), more)
}

// A mistake in the file is told with its line, and without the token that somebody may have put there.
func TestMistakes(t *testing.T) {
	t.Parallel()
	good := token("eidos", "t", "scopes: [icl]")
	for _, c := range []struct{ text, want string }{
		{"name: x", "line 1: it must be a list"},
		{"- x", "line 1: a token must be a mapping"},
		{"- name: [", "line 1"},
		{good + "---\n" + good, "one YAML document"},
		{"- name: x\n  sha256: " + hashOf("t"), "line 1: scopes is missing"},
		{"- sha256: " + hashOf("t") + "\n  scopes: [icl]", "line 1: name is missing"},
		{"- name: x\n  scopes: [icl]", "line 1: sha256 is missing"},
		{good + token("web", "u", "scopes: [curate]"), "line 4: email is missing"},
		{"- name: x\n  sha256: " + strings.ToUpper(hashOf("t")), "line 2: sha256 must be the SHA-256 of the token as 64 digits of lower-case hex"},
		{"- name: x\n  sha256: my-token", "line 2: sha256 must be"},
		{"- name: x\n  sha256: " + hashOf(""), "line 2: sha256 is that of no text at all"},
		{token("x", "t", "scopes: []"), "line 3: scopes must be a list"},
		{token("x", "t", "scopes: icl"), "line 3: scopes must be a list"},
		{token("x", "t", "scopes: [icl, root]"), `line 3: "root" is no scope: there are icl, sync, curate, admin`},
		{token("x", "t", "scopes: [icl, icl]"), "line 3: icl is there twice"},
		{token("x", "t", "scope: [icl]"), `line 3: "scope" is no key`},
		{token("x", "t", "name: y"), "line 3: name is there twice"},
		{token("x", "t", "scopes: [icl]\n  philosopher:"), "line 4: philosopher must be a text that is not empty"},
		{token("x", "t", "scopes: [icl]\n  domain: ''"), "line 4: domain must be a text that is not empty"},
		{good + token("eidos", "u", "scopes: [icl]"), `line 4: the name "eidos" is there twice`},
		{good + token("other", "t", "scopes: [icl]"), "line 4: eidos and other have the same sha256"},
	} {
		_, err := auth.Load(file(t, c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "my-token") {
			t.Errorf("%s\n%v, want %s", c.text, err, c.want)
		}
	}
	if _, err := auth.Load("../../deploy/tokens.example.yaml"); err != nil {
		t.Errorf("the example: %v", err)
	}
	for _, text := range []string{"", "# nobody yet\n", "---\n", "[]"} {
		if _, err := auth.Load(file(t, text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestRequire: who may pass, as the contract has it.
func TestRequire(t *testing.T) {
	t.Parallel()
	tokens, err := auth.Load(file(t, token("eidos", "e", "scopes: [icl]\n  philosopher: plato@example.com")+
		token("aristotle", "a", "scopes: [sync, icl]")+token("root", "r", "scopes: [admin]\n  email: root@example.com")))
	if err != nil {
		t.Fatal(err)
	}
	with, without := &auth.Guard{Tokens: tokens}, &auth.Guard{Local: "me@localhost"}
	for _, c := range []struct {
		name   string
		guard  *auth.Guard
		header string // Authorization
		change func(*http.Request)
		status int
		who    string
	}{
		{"the scope", with, "Bearer a", nil, 200, "aristotle"},
		{"admin", with, "bearer r", nil, 200, "root"},
		{"another scope", with, "Bearer e", nil, 403, ""},
		{"unknown", with, "Bearer x", nil, 401, ""},
		{"none", with, "", nil, 401, ""},
		{"empty", with, "Bearer ", nil, 401, ""},
		{"another scheme", with, "Basic a", nil, 401, ""},
		{"the hash", with, "Bearer " + hashOf("a"), nil, 401, ""},
		{"a token from elsewhere", with, "Bearer a", func(r *http.Request) { r.Host = "sync.example.com" }, 200, "aristotle"},
		{"this machine", without, "", nil, 200, ""},
		{"by IPv6", without, "", func(r *http.Request) { r.Host = "[::1]:4080" }, 200, ""},
		{"by name", without, "", func(r *http.Request) { r.Host = "LOCALHOST" }, 200, ""},
		{"by another name", without, "", func(r *http.Request) { r.Host = "rebound.example.com:4080" }, 403, ""},
		{"by a name that looks like one", without, "", func(r *http.Request) { r.Host = "localhost.example.com" }, 403, ""},
		{"without a name", without, "", func(r *http.Request) { r.Host = "" }, 403, ""},
		{"its own page", without, "", func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:4080") }, 200, ""},
		{"another's page", without, "", func(r *http.Request) { r.Header.Set("Origin", "http://example.com") }, 403, ""},
		{"another port's page", without, "", func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:3000") }, 403, ""},
		{"a page of no origin", without, "", func(r *http.Request) { r.Header.Set("Origin", "null") }, 403, ""},
		{"an image of another's page", without, "", func(r *http.Request) { r.Method = "GET"; r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403, ""},
		{"a link on another's page", without, "", func(r *http.Request) {
			r.Method = "GET"
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Sec-Fetch-Mode", "navigate")
			r.Header.Set("Sec-Fetch-Dest", "document")
		}, 200, ""},
	} {
		var caller auth.Caller
		h := c.guard.Require(auth.Sync, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { caller = auth.From(r.Context()) }))
		r := httptest.NewRequest("POST", "/", nil)
		r.Host = "127.0.0.1:4080"
		r.Header.Set("Authorization", c.header)
		if c.change != nil {
			c.change(r)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status || caller.Name != c.who || (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
			t.Errorf("%s: %d %s as %q, want %d as %q", c.name, w.Code, w.Body, caller.Name, c.status, c.who)
		}
		if c.guard == without && w.Code == 200 && caller.Email != "me@localhost" {
			t.Errorf("%s: it is %q", c.name, caller.Email)
		}
	}
	eidos, _ := tokens.Find("e")
	want := auth.Caller{Name: "eidos", Scopes: []auth.Scope{auth.ICL}, Philosopher: "plato@example.com"}
	if diff := cmp.Diff(want, eidos); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := eidos.Confined("plato@example.com", "anything"); err != nil {
		t.Error(err)
	}
	if err := eidos.Confined("socrates@example.com", "anything"); err == nil {
		t.Error("one philosopher's token reads another's")
	}
}

// TestWatch: a change counts without a restart, and a slip locks nobody out.
func TestWatch(t *testing.T) {
	t.Parallel()
	path := file(t, token("x", "old", "scopes: [icl]"))
	tokens, err := auth.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	m, log := metrics.New(prometheus.NewRegistry()), &lines{got: make(chan string, 10)}
	watched := make(chan error)
	go func() { watched <- tokens.Watch(ctx, m, slog.New(slog.NewTextHandler(log, nil))) }()
	has := func(token string, want bool) {
		t.Helper()
		if _, got := tokens.Find(token); got != want {
			t.Errorf("%q is known: %v, want %v", token, got, want)
		}
	}
	write(t, path, "- name: [")
	log.wait(t, "level=ERROR")
	has("old", true)
	if testutil.ToFloat64(m.TokensOK) != 0 {
		t.Error("the metric says that the file is right")
	}
	write(t, path, token("x", "new", "scopes: [icl]"))
	log.wait(t, "times=")
	has("old", false)
	has("new", true)
	write(t, path, "\n") // by somebody who has not written the rest yet
	log.wait(t, "write [] into it")
	has("new", true)
	if testutil.ToFloat64(m.TokensOK) != 0 {
		t.Error("the metric says that the file is right")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	log.wait(t, "level=ERROR")
	has("new", true)
	write(t, path, token("x", "new", "scopes: [icl]")) // the very same again
	log.wait(t, "tokens=1")
	if testutil.ToFloat64(m.TokensOK) != 1 {
		t.Error("the metric says that the file is wrong")
	}
	write(t, path, "[]")
	log.wait(t, "tokens=0")
	has("new", false)
	cancel()
	if err := <-watched; err != nil {
		t.Error(err)
	}
}

// lines hands over what is logged.
type lines struct{ got chan string }

func (l *lines) Write(b []byte) (int, error) {
	l.got <- string(bytes.TrimSpace(b))
	return len(b), nil
}

func (l *lines) wait(t *testing.T, part string) {
	t.Helper()
	select {
	case line := <-l.got:
		if !strings.Contains(line, part) {
			t.Errorf("logged %q, want %s", line, part)
		}
	case <-time.After(3 * time.Minute):
		t.Fatalf("nothing was logged, want %s", part)
	}
}

// Whatever a file holds, it is read or refused, and no token of it is known by its hash.
func FuzzTokens(f *testing.F) {
	f.Add(token("x", "t", "scopes: [icl, sync]\n  email: a@example.com\n  philosopher: p\n  domain: d"))
	for _, text := range []string{"", "[]", "- &a {name: x}\n- *a", "- <<: {name: x}", "- name: !!binary aGk=", "? [a]\n: b", "- {name: x, sha256: 1, scopes: [1]}", "\xff", "%YAML 3\n---"} {
		f.Add(text)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "tokens.yaml")
		write(t, path, text)
		tokens, err := auth.Load(path)
		if err != nil {
			return
		}
		if _, known := tokens.Find(""); known {
			t.Errorf("%q lets everybody in", text)
		}
	})
}
