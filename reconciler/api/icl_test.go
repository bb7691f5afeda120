package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/icl"
	"github.com/aristotle/reconciler/reconciler/web/webtest"
)

// examplesOf serves examples that read finds. Package reconciler tests them with a database.
func examplesOf(tokens *auth.Tokens, read func(context.Context, icl.Query) (icl.Page, error)) http.Handler {
	a := &API{Metrics: metrics.New(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler), Guard: &auth.Guard{Tokens: tokens}, Examples: read, Version: func(icl.Query) uint64 { return 0 }}
	return a.Server().Handler
}

func none(context.Context, icl.Query) (icl.Page, error) { return icl.Page{}, nil }

func askFor(t testing.TB, h http.Handler, query, token string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://localhost/v1/icl/examples", nil)
	r.URL.RawQuery = query
	r.Header.Set("Authorization", "Bearer "+token)
	return webtest.Serve(t, h, r)
}

// What is wrong with a request is said by the parameter's name.
func TestExamplesRefused(t *testing.T) {
	t.Parallel()
	h := examplesOf(nil, none)
	const both = "philosopher=p&domain=d"
	for query, want := range map[string]string{
		"":                          "philosopher is missing",
		"philosopher=&domain=d":     "philosopher is missing",
		"philosopher=p":             "domain is missing",
		both + "&limit=0":           "limit must be a whole number from 1 to 100",
		both + "&limit=101":         "limit",
		both + "&limit=":            "limit",
		both + "&limit=1e1":         "limit",
		both + "&format=ChatML":     "format must be chatml, alpaca or openai",
		both + "&cursor=x":          "cursor cannot be used",
		both + "&Limit=1":           `"Limit" is no parameter`,
		both + "&limit=1&limit=2":   "limit is there twice",
		both + "&conquest_type=%00": "conquest_type is no UTF-8 text, or holds a NUL",
		both + "&cursor=%ff":        "cursor is no UTF-8",
		"philosopher=%zz":           "query cannot be read",
		"domain=d&philosopher=" + strings.Repeat("x", 1001): "philosopher may have 1000 bytes",
	} {
		h := h
		if strings.Contains(query, "cursor=x") {
			h = examplesOf(nil, func(context.Context, icl.Query) (icl.Page, error) { return icl.Page{}, icl.ErrCursor })
		}
		if resp, body := askFor(t, h, query, ""); resp.StatusCode != http.StatusBadRequest || !strings.Contains(problemDetail(t, body), want) {
			t.Errorf("%s: %d %s", query, resp.StatusCode, body)
		}
	}
	resp, body := askFor(t, h, both+"&conquest_type=&cursor=", "")
	if want := `{"philosopher":"p","domain":"d","conquest_type":null,"format":"chatml","count":0,"examples":[],"left_out":0,"next_cursor":null}` + "\n"; resp.StatusCode != 200 || body != want {
		t.Errorf("%d %s, want %s", resp.StatusCode, body, want)
	}
}

func problemDetail(t testing.TB, body string) string {
	t.Helper()
	var p struct{ Detail string }
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatal(err)
	}
	return p.Detail
}

// A database that is away, or lacks something, is a 503 that says nothing of the inside.
func TestExamplesWithoutDatabase(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{"does not answer": errors.New("password of plato"), "reconciler setup": &pgconn.PgError{Code: "42501", Message: "password of plato"}} {
		h := examplesOf(nil, func(context.Context, icl.Query) (icl.Page, error) { return icl.Page{}, err })
		resp, body := askFor(t, h, "philosopher=p&domain=d", "")
		if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, want) || strings.Contains(body, "password") || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%v: %d %s", err, resp.StatusCode, body)
		}
	}
}

// However often examples are asked for, an outage of the database is two lines.
func TestExamplesTellOutages(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	var away error
	a := &API{Log: slog.New(slog.NewTextHandler(&log, nil)), Examples: func(context.Context, icl.Query) (icl.Page, error) { return icl.Page{}, away }}
	for outages := range 2 {
		away = errors.New("away")
		for range 3 {
			if _, err := a.page(t.Context(), icl.Query{}); err == nil {
				t.Fatal("no error")
			}
		}
		away = nil
		for range 3 {
			if _, err := a.page(t.Context(), icl.Query{}); err != nil {
				t.Fatal(err)
			}
		}
		if begun, ended := strings.Count(log.String(), "level=WARN"), strings.Count(log.String(), "works again"); begun != outages+1 || ended != outages+1 {
			t.Errorf("of %d outages %d are told, of their ends %d:\n%s", outages+1, begun, ended, &log)
		}
	}
}

// A token that is confined to one philosopher or domain sees no other's examples.
func TestExamplesConfined(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	hash := func(token string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(token))) }
	file := "- {name: all, email: a@x, sha256: " + hash("all") + ", scopes: [icl]}\n" +
		"- {name: p, email: p@x, sha256: " + hash("of p") + ", scopes: [icl], philosopher: p}\n" +
		"- {name: d, email: d@x, sha256: " + hash("of d") + ", scopes: [icl], domain: d}\n" +
		"- {name: sync, email: s@x, sha256: " + hash("sync") + ", scopes: [sync]}\n"
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := auth.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	h := examplesOf(tokens, none)
	for _, c := range []struct {
		token, philosopher, domain string
		status                     int
	}{
		{"all", "p", "d", 200}, {"all", "q", "e", 200},
		{"of p", "p", "e", 200}, {"of p", "q", "d", 403}, {"of p", "P", "d", 403},
		{"of d", "q", "d", 200}, {"of d", "q", "e", 403},
		{"sync", "p", "d", 403}, {"none", "p", "d", 401}, {"", "p", "d", 401},
	} {
		query := url.Values{"philosopher": {c.philosopher}, "domain": {c.domain}}.Encode()
		if resp, body := askFor(t, h, query, c.token); resp.StatusCode != c.status {
			t.Errorf("%+v: %d %s", c, resp.StatusCode, body)
		}
	}
}

// Whatever is asked, it is answered as openapi.yaml says, and never by a 5xx.
func FuzzExamples(f *testing.F) {
	for _, query := range []string{"philosopher=p&domain=d", "philosopher=p&domain=d&cursor=AQ&limit=3&format=alpaca&conquest_type=%C3%9F", "%", "a=b;c", "philosopher=%00&domain=\xff", "limit=9999999999999999999"} {
		f.Add(query, "application/x-ndjson;q=0.5, application/json;q=x", "gzip;q=0", `W/"x", *`)
		f.Add(query, "application/x-ndjson", "gzip", "")
	}
	h := examplesOf(nil, none)
	f.Fuzz(func(t *testing.T, query, accept, encoding, match string) {
		r := httptest.NewRequest(http.MethodGet, "http://localhost/v1/icl/examples", nil)
		r.URL.RawQuery = query
		for name, value := range map[string]string{"Accept": accept, "Accept-Encoding": encoding, "If-None-Match": match} {
			r.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%q: %d %s", query, w.Code, w.Body)
		}
		if w.Header().Get("Content-Encoding") == "" {
			webtest.Check(t, r, w.Result())
		}
	})
}
