package curation

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/icl"
)

// Who is confined gets what both limits say and nothing else, whatever the two are called and whatever is asked for.
func TestExportIsConfined(t *testing.T) {
	t.Parallel()
	for _, own := range []auth.Caller{{}, {Philosopher: "acme"}, {Domain: "acme"}, {Philosopher: "p", Domain: "d"}, {Philosopher: "acme", Domain: "acme"}} {
		for _, asked := range []string{"", "other"} {
			c, err := readChoice(url.Values{"philosopher": {asked}, "domain": {asked}}, Person{Caller: own})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range []struct{ own, got string }{{own.Philosopher, c.Philosopher}, {own.Domain, c.Domain}} {
				want := asked
				if f.own != "" {
					want = f.own
				}
				if f.got != want {
					t.Errorf("%+v asks for %q and gets %+v", own, asked, c)
				}
			}
		}
	}
}

// The page counts what the file has, also of a type that a locale folds and an example does not.
func TestExportCounts(t *testing.T) {
	t.Parallel()
	s := open(t, 0, `INSERT INTO "Conquest" (id, philosopher, domain, "conquestType") VALUES ('a', 'p', 'd', 'Über'), ('b', 'p', 'd', 'über'), ('c', 'p', 'd', 'ÜBER')`,
		`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, is_gold_star, philosopher, domain) SELECT id, id, 'conquest_analysis', true, 'p', 'd' FROM "Conquest"`,
		`INSERT INTO conquest_prompt SELECT id, id, '{"prompt": "p"}' FROM "Conquest"`,
		`INSERT INTO conquest_response SELECT id, id, '{"response": "r"}' FROM "Conquest"`)
	for kind, want := range map[string]int{"": 3, "ÜBer": 2, "über": 1, "other": 0} {
		lines := strings.Count(get(t, s.URL+"/export.jsonl?type="+url.QueryEscape(kind)), "\n")
		says := goldStars.FindStringSubmatch(get(t, s.URL+"/export?type="+url.QueryEscape(kind)))
		if lines != want || (says == nil) != (want == 0) || says != nil && says[1] != strconv.Itoa(want) {
			t.Errorf("%q: %d lines and %q, want %d", kind, lines, says, want)
		}
	}
}

var goldStars = regexp.MustCompile(`<p class="big">(\d+) gold stars?</p>`)

// Downloads that nobody reads keep neither the change stream nor the pages waiting: there are few, the next is told when to try
// again, and each has an end, which nobody takes for that of the file.
func TestSlowExports(t *testing.T) {
	t.Parallel()
	a := newApp(t, 0, func(*Options) {},
		`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, is_gold_star, philosopher, domain, created_at)
			SELECT i, i, 'conquest_analysis', true, 'p', 'd', now() FROM generate_series(1, 300) i`,
		`INSERT INTO conquest_prompt SELECT i, i, jsonb_build_object('prompt', repeat('p', 100000)) FROM generate_series(1, 300) i`,
		`INSERT INTO conquest_response SELECT i, i, jsonb_build_object('response', 'r') FROM generate_series(1, 300) i`)
	s := httptest.NewServer(a.routes())
	t.Cleanup(s.Close)
	download := func() *http.Response {
		t.Helper()
		resp, err := http.Get(s.URL + "/export.jsonl")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	var begun []*http.Response
	for range maxExports {
		resp := download()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("a download is answered with %d", resp.StatusCode)
		}
		begun = append(begun, resp)
	}
	for range 8 {
		resp := download()
		if page, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" ||
			!strings.Contains(string(page), "Try again when one has ended") {
			t.Fatalf("one more: %d %v %v %.300s", resp.StatusCode, resp.Header, err, page)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := a.Examples.Tell(ctx, icl.News{Ratings: []string{"1"}}, nil); err != nil {
		t.Errorf("the stream: %v", err)
	}
	if !strings.Contains(get(t, s.URL+"/export"), "300") {
		t.Error("the page of exports does not count them")
	}
	begun[0].Body.Close()
	whole := download()
	for ; whole.StatusCode == http.StatusServiceUnavailable && ctx.Err() == nil; whole = download() {
		whole.Body.Close()
	}
	text, err := io.ReadAll(whole.Body)
	if n := strings.Count(string(text), "\n"); err != nil || n != 300 {
		t.Errorf("a download that is read has %d lines, %v", n, err)
	}
}

// A download that takes too long is cut, and whoever reads it sees that.
func TestExportEnds(t *testing.T) {
	t.Parallel()
	a := newApp(t, 0, func(*Options) {},
		`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, is_gold_star, philosopher, domain, created_at)
			SELECT i, i, 'conquest_analysis', true, 'p', 'd', now() FROM generate_series(1, 600) i`,
		`INSERT INTO conquest_prompt SELECT i, i, jsonb_build_object('prompt', repeat('p', 50000)) FROM generate_series(1, 600) i`,
		`INSERT INTO conquest_response SELECT i, i, jsonb_build_object('response', 'r') FROM generate_series(1, 600) i`)
	a.exportLimit = 5 * time.Second
	s := httptest.NewServer(a.routes())
	t.Cleanup(s.Close)
	resp, err := http.Get(s.URL + "/export.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	<-time.After(a.exportLimit) // it began before the answer did: now it is over
	if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("status %d, and it ends with %v", resp.StatusCode, err)
	}
}
