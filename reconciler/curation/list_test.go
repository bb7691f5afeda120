package curation

import (
	"context"
	"html"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	rowKey   = regexp.MustCompile(`<tr data-live="row [^"]*" data-key="([^"]*)"`)
	counted  = regexp.MustCompile(`data-live="lead">(\d+) conquests? found`)
	titleOf  = regexp.MustCompile(`<a class="title"[^>]*>([^<]*)</a>`)
	nextLink = regexp.MustCompile(`<a href="([^"]*)" rel="next"`)
	tag      = regexp.MustCompile(`<[^>]*>`)
	prevLink = regexp.MustCompile(`<a href="([^"]*)" rel="prev"`)
)

// Whatever a list is ordered by, also where many are equal there or have no value at all, its pages have every conquest once, and
// going back shows the same pages.
func TestPages(t *testing.T) {
	t.Parallel()
	const n = 3*pageSize + 7
	s := open(t, n)
	for sort := range sorts() {
		for _, dir := range []string{"asc", "desc"} {
			var pages [][]string
			seen := map[string]bool{}
			last := ""
			for at := "/?sort=" + sort + "&dir=" + dir; at != ""; {
				page := get(t, s.URL+at)
				keys := keysOf(page)
				for _, k := range keys {
					if seen[k] {
						t.Fatalf("%s %s: %s is there twice", sort, dir, k)
					}
					seen[k] = true
				}
				pages = append(pages, keys)
				last, at = page, link(nextLink, page)
			}
			if len(seen) != n {
				t.Fatalf("%s %s: the pages have %d of %d conquests", sort, dir, len(seen), n)
			}
			for i := len(pages) - 2; i >= 0; i-- {
				back := link(prevLink, last)
				if back == "" {
					t.Fatalf("%s %s: no way back to page %d", sort, dir, i)
				}
				if last = get(t, s.URL+back); !slices.Equal(keysOf(last), pages[i]) {
					t.Fatalf("%s %s: back to page %d shows %q", sort, dir, i, keysOf(last))
				}
			}
			if link(prevLink, last) != "" {
				t.Errorf("%s %s: there is something before the first page", sort, dir)
			}
		}
	}
}

// A search finds its words in whatever case they are written, and with all of them; titles are ordered without regard to it.
func TestSearch(t *testing.T) {
	t.Parallel()
	s := open(t, 60)
	for search, want := range map[string]int{"analysis": 40, "ANALYSIS": 40, "überblick": 20, "ÜBERBLICK": 20, "Interest überBlick": 20, "überblick analysis": 0,
		"C4CA4238A0B923820DCC509A6F75849B": 1, "Conquest_000007 USER7@example.com": 1, "domain3": 9} {
		if keys := keysOf(get(t, s.URL+"/?q="+url.QueryEscape(search))); len(keys) != want {
			t.Errorf("%q finds %d conquests, want %d", search, len(keys), want)
		}
	}
	var titles []string
	for _, m := range titleOf.FindAllStringSubmatch(get(t, s.URL+"/?q=analysis&sort=title"), -1) {
		titles = append(titles, strings.ToLower(m[1]))
	}
	if len(titles) != 40 || !slices.IsSorted(titles) {
		t.Errorf("by title: %q", titles)
	}
}

// Each filter leaves what it says, alone and with others, and the lead counts that.
func TestFilters(t *testing.T) {
	t.Parallel()
	s := open(t, 70, `UPDATE "Conquest" SET "conquestType" = 'INCIDENT' WHERE id <= 'conquest_000009'`,
		`UPDATE reconciler.edge SET held = '{"shown": true}' WHERE task_id IN (1, 2)`,
		`UPDATE reconciler.queue SET want_gen = 2 WHERE key IN ('conquest_000010', 'conquest_000011', 'conquest_000012')`,
		`UPDATE reconciler.queue SET attempts = 1000 WHERE key = 'conquest_000012'`,
		`UPDATE reconciler.edge SET missing_since = now() WHERE task_id = 31`, `DELETE FROM reconciler.edge WHERE task_id = 32`)
	for filter, want := range map[string]int{"result=VICTORY": 14, "type=INCIDENT": 10, "domain=domain3": 10, "philosopher=user7@example.com": 2, "star=yes": 14, "star=no": 56,
		"sync=held": 2, "sync=syncing": 2, "sync=stuck": 1, "sync=no-task": 2, "sync=synced": 70 - 2 - 3 - 2, "result=VICTORY&domain=domain2": 2, "type=INCIDENT&sync=held&q=analysis": 2} {
		page := get(t, s.URL+"/?"+filter)
		found := len(keysOf(page))
		for next := link(nextLink, page); next != ""; {
			after := get(t, s.URL+next)
			found += len(keysOf(after))
			next = link(nextLink, after)
		}
		if found != want {
			t.Errorf("%s leaves %d conquests, want %d", filter, found, want)
		}
		for !counted.MatchString(page) { // it comes when it is there
			page = get(t, s.URL+"/?"+filter)
		}
		if said := counted.FindStringSubmatch(page)[1]; said != strconv.Itoa(want) {
			t.Errorf("%s: the page says %s, want %d", filter, said, want)
		}
	}
}

// A row with times that Go has none for, as SQL by hand can leave them, is shown on every page, without them.
func TestTimelessRow(t *testing.T) {
	t.Parallel()
	s := open(t, 3, `UPDATE "Conquest" SET "createdAt" = '-infinity', "updatedAt" = 'infinity', "evaluatedAt" = 'infinity' WHERE id = 'conquest_000001'`,
		`UPDATE reconciler.edge SET held = '{"shown": true}' WHERE key = 'conquest_000001'`)
	for _, path := range []string{"/", "/?sort=created", "/conquests/conquest_000001", "/held"} {
		if page := get(t, s.URL+path); !strings.Contains(page, "/conquests/conquest_000001") || !strings.Contains(page, `<span class="none">–</span>`) {
			t.Errorf("%s does not show it:\n%s", path, page)
		}
	}
}

// A row shows what the conquest is, how it stands between the two sides, and when it changed.
func TestRow(t *testing.T) {
	t.Parallel()
	page := get(t, open(t, 10, `UPDATE reconciler.edge SET held = '{"shown": true}' WHERE task_id = 2`, `DELETE FROM reconciler.edge WHERE task_id = 4`,
		`UPDATE reconciler.queue SET want_gen = 2, attempts = CASE WHEN key = 'conquest_000005' THEN 1000 ELSE 0 END WHERE key IN ('conquest_000004', 'conquest_000005')`).URL+"/")
	for key, want := range map[string]string{
		"conquest_000001": "ANALYSIS c4ca4238a0b923820dcc509a6f75849b of something of interest Candidate evaluation user1@example.com domain1 Pending 3 Jan 2025, 00:39 Held",
		"conquest_000002": "Überblick c81e728d9d4c2f636f067f89cc14862c of something of interest Candidate evaluation user2@example.com domain2 Victory 1 Jan 2025, 13:58 In sync",
		"conquest_000003": "Analysis eccbc87e4b5ce2fe28308fd9f2a7baf3 of something of interest Candidate evaluation user3@example.com domain3 Defeat 3 Jan 2025, 14:37 No task",
		"conquest_000004": "ANALYSIS a87ff679a2f3e71d9181a67b7542122c of something of interest Candidate evaluation user4@example.com domain4 Neutral 2 Jan 2025, 03:56 Syncing",
		"conquest_000005": "Überblick e4da3b7fbbce2345d7772b0674a318d5 of something of interest Candidate evaluation user5@example.com domain5 Pending 4 Jan 2025, 04:35 Stuck",
	} {
		_, row, _ := strings.Cut(page, `data-key="`+key+`">`)
		row, _, _ = strings.Cut(row, "</tr>")
		if got := strings.Join(strings.Fields(strings.ReplaceAll(tag.ReplaceAllString(row, " "), " @", "@")), " "); got != want {
			t.Errorf("%s shows %q, want %q", key, got, want)
		}
		if got, want := strings.Contains(row, `aria-pressed="true"`), strings.Contains(want, "Victory"); got != want {
			t.Errorf("%s shows the star %v", key, got)
		}
	}
}

// A list is not late for its counts, and needs none where it is all there.
func TestListBeforeCounts(t *testing.T) {
	t.Parallel()
	a := newApp(t, 3*pageSize, func(*Options) {})
	s := httptest.NewServer(a.routes())
	defer s.Close()
	counting := make(chan struct{})
	for _, at := range []string{"/?q=analysis", "/?q=c4ca4238"} {
		a.counts.ask(t.Context(), confined{address: at}, func(context.Context) (counts, error) {
			<-counting
			return counts{Known: true, Total: 100}, nil
		})
	}
	late := get(t, s.URL+"/?q=analysis")
	if len(keysOf(late)) != pageSize || !strings.Contains(late, `data-live="lead" data-again>More than 50 conquests found.`) {
		t.Errorf("before it is counted:\n%s", late)
	}
	if found := counted.FindStringSubmatch(get(t, s.URL+"/?q=c4ca4238")); found == nil || found[1] != "1" {
		t.Errorf("all on one page: %q", found)
	}
	close(counting)
	for found := []string(nil); found == nil; { // the next who asks is told
		if found = counted.FindStringSubmatch(get(t, s.URL+"/?q=analysis")); found != nil && found[1] != "100" {
			t.Errorf("counted: %q", found)
		}
	}
}

// A place that is none is left out, as all that an address says and nobody knows.
func TestNoPlace(t *testing.T) {
	t.Parallel()
	s := open(t, pageSize+1)
	first := keysOf(get(t, s.URL+"/"))
	for _, at := range []string{"after=x", "after=" + place{Value: "a", ID: "b"}.String(), "before=" + place{Value: "2025-13-45 99:00:00", ID: "b"}.String(),
		"after=" + place{Value: "9999999-01-01 00:00:00", ID: "b"}.String()} {
		if keys := keysOf(get(t, s.URL+"/?"+at)); !slices.Equal(keys, first) {
			t.Errorf("%s shows %q", at, keys)
		}
	}
}

func keysOf(page string) (keys []string) {
	for _, m := range rowKey.FindAllStringSubmatch(page, -1) {
		keys = append(keys, m[1])
	}
	return keys
}

func link(which *regexp.Regexp, page string) string {
	if m := which.FindStringSubmatch(page); m != nil {
		return html.UnescapeString(m[1])
	}
	return ""
}

// Whatever an address says, it is a list; and the address that the list gives itself is that list.
func FuzzQuery(f *testing.F) {
	f.Add("q=a+b&result=VICTORY&sort=title&dir=desc&after=WyJhIiwiYiJd")
	f.Add("before=x&sync=held&star=yes&type=%00%ff")
	f.Fuzz(func(t *testing.T, raw string) {
		v, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		q := parseQuery(v)
		again := parseQuery(q.values())
		q.place = place{}
		if q != again {
			t.Errorf("%q is %+v, and its own address %+v", raw, q, again)
		}
		s := &sql{}
		q.filters(s, Person{})
		q.window(s)
		for _, a := range s.args {
			if text, is := a.(string); is && !isText(text) {
				t.Errorf("%q asks the database for %q", raw, text)
			}
		}
	})
}
