package web_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/web"
	"github.com/aristotle/reconciler/reconciler/web/webtest"
)

func options() web.Options {
	return web.Options{Listener: metrics.ListenAPI, Metrics: metrics.New(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler)}
}

// Whatever a handler does, the caller gets an answer of our form, with the headers.
func TestServer(t *testing.T) {
	t.Parallel()
	m := &web.Mux{}
	m.Handle("GET /panic", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("the inside of it") }))
	m.Handle("GET /half", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		panic("the inside of it")
	}))
	m.Handle("GET /fail", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { web.Fail(w, fmt.Errorf("the inside of it")) }))
	m.Handle("GET /flush", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
	}))
	m.Handle("GET /openapi.yaml", http.HandlerFunc(web.ServeOpenAPI))
	o := options()
	s := httptest.NewServer(o.Wrap(m))
	t.Cleanup(s.Close)
	for _, c := range []struct {
		method, path string
		status       int
		part, allow  string
	}{
		{"GET", "/panic", 500, "the daemon's log says what", ""},
		{"GET", "/fail", 500, "the daemon's log says what", ""},
		{"GET", "/nowhere", 404, "GET /openapi.yaml", ""},
		{"GET", "//openapi.yaml/../x", 404, "GET /openapi.yaml", ""},
		{"DELETE", "/openapi.yaml", 405, "GET, HEAD", "GET, HEAD"},
		{"OPTIONS", "/openapi.yaml", 405, "GET, HEAD", "GET, HEAD"},
		{"GET", "/openapi.yaml", 200, "openapi: 3", ""},
		{"HEAD", "/openapi.yaml", 200, "", ""},
		{"GET", "/openapi.yaml?x=1", 400, `\"x\" is no parameter`, ""},
		{"GET", "/flush", 200, "", ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if c.path != "/flush" {
			webtest.Check(t, req, resp)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != c.status || !strings.Contains(string(body), c.part) || strings.Contains(string(body), "inside") || resp.Header.Get("Allow") != c.allow {
			t.Errorf("%s %s: %d %s %s", c.method, c.path, resp.StatusCode, body, resp.Header)
		}
		if h := resp.Header; h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") == "" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s %s has the headers %v", c.method, c.path, h)
		}
	}
	// Half an answer must not look like a whole one.
	s.Client().CloseIdleConnections() // on one that was used before it would be asked again
	if resp, err := s.Client().Get(s.URL + "/half"); err == nil {
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("a handler that panicked in the middle was answered for: %s", body)
		}
	}
	if n := testutil.ToFloat64(o.Metrics.Panics); n != 2 {
		t.Errorf("%v panics are counted, want 2", n)
	}
	if n := testutil.ToFloat64(o.Metrics.HTTPRequests.With(metrics.ListenAPI, "404")); n != 2 {
		t.Errorf("%v requests with 404 are counted, want 2", n)
	}
}

type object struct {
	Text  string  `json:"text"`
	Maybe *string `json:"maybe"`
	Yes   *bool   `json:"yes"`
	N     int64   `json:"n"`
}

// What is no object of the right fields is refused with a word on the field.
func TestReadJSON(t *testing.T) {
	t.Parallel()
	const kind = "application/json"
	for _, c := range []struct {
		body, kind string
		status     int
		part       string // of the detail
	}{
		{`{"text": "a\"ä\u2028'", "maybe": null, "yes": true, "n": 5} `, kind + "; charset=utf-8", 200, ""},
		{`{}`, kind, 200, ""},
		{`{}`, "", 415, "Content-Type: application/json"},
		{`{}`, "text/plain", 415, "Content-Type: application/json"},
		{``, kind, 400, "one JSON object"},
		{`null`, kind, 400, "one JSON object"},
		{`[]`, kind, 400, "one JSON object"},
		{`{"text": "a"`, kind, 400, "one JSON object"},
		{`{"text": }`, kind, 400, "one JSON object"},
		{`{"text": "a",}`, kind, 400, "one JSON object"},
		{`{} {}`, kind, 400, "goes on"},
		{`{"Text": "a"}`, kind, 400, `"Text" is no field: there are text, maybe, yes, n`},
		{`{"` + strings.Repeat("ä", 500) + `": 1}`, kind, 400, `…" is no field`},
		{`{"text": "a", "text": "b"}`, kind, 400, "text is there twice"},
		{`{"text": 1}`, kind, 400, "text must be a text, not a number"},
		{`{"text": {}}`, kind, 400, "text must be a text, not an object"},
		{`{"maybe": []}`, kind, 400, "maybe must be a text, not an array"},
		{`{"yes": "true"}`, kind, 400, "yes must be true or false, not a text"},
		{`{"n": 1.5}`, kind, 400, "n must be a whole number, not a number"},
		{`{"n": 9223372036854775808}`, kind, 400, "n must be a whole number, not a number"},
		{`{"text": "a\u0000b"}`, kind, 400, "text holds a NUL"},
		{`{"maybe": "\u0000"}`, kind, 400, "maybe holds a NUL"},
		{"{\"text\": \"\xff\"}", kind, 400, "not UTF-8"},
		{`{"text": "` + strings.Repeat("x", 2000) + `"}`, kind, 413, "1 KiB"},
	} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(c.body))
		r.Header.Set("Content-Type", c.kind)
		w := httptest.NewRecorder()
		var o object
		if err := web.ReadJSON(w, r, 1<<10, &o); err != nil {
			web.Fail(w, err)
		}
		if w.Code != c.status || !strings.Contains(w.Body.String(), strings.ReplaceAll(c.part, `"`, `\"`)) {
			t.Errorf("%.80s: %d %s, want %d with %s", c.body, w.Code, w.Body, c.status, c.part)
		}
	}
}

// Whatever a body holds, it is read into the fields or refused with 400.
func FuzzReadJSON(f *testing.F) {
	for _, body := range []string{`{"text": "a", "maybe": "b", "yes": true, "n": 1}`, `{"text": null}`, `{"TEXT": 1}`, `{"text": "\ud800"}`, `[`, `{"n": 1e400}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		var o object
		err := web.ReadJSON(w, r, 1<<20, &o)
		if err != nil {
			web.Fail(w, err)
			if w.Code != 400 {
				t.Errorf("%q: %d %v", body, w.Code, err)
			}
		} else if strings.ContainsRune(o.Text, 0) || o.Maybe != nil && strings.ContainsRune(*o.Maybe, 0) {
			t.Errorf("%q: %+v", body, o)
		}
	})
}
