package curation

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// withTokens makes the app one that asks who it is; each entry is a person of that name, whose token is their name.
func withTokens(t testing.TB, o *Options, entries ...string) {
	t.Helper()
	var b strings.Builder
	for _, e := range entries {
		name, more, _ := strings.Cut(e, " ")
		fmt.Fprintf(&b, "- {name: %[1]s, email: %[1]s@example.com, sha256: %[2]x, scopes: [curate]%[3]s}\n", name, sha256.Sum256([]byte(name)), more)
	}
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := auth.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	o.Guard = &auth.Guard{Tokens: tokens}
}

// send makes one request, and returns its answer and the answer's body. Redirects are not followed.
func send(t testing.TB, method, url, form string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// What is sent by nobody known is kept over the login for who was known lately. A stranger's is read up to a small limit alone: all
// of it would be in the page, for anybody, as often as they like.
func TestStrangersForm(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a := newApp(t, 1, func(o *Options) {
		withTokens(t, o, "ana")
		o.Now = func() time.Time { return now }
	})
	answer := func(path, form string, cookies ...*http.Cookie) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", path, strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for _, c := range cookies {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		a.routes().ServeHTTP(w, r)
		return w
	}
	begun := answer("/login", "token=ana").Result().Cookies()
	if len(begun) != 1 || time.Duration(begun[0].MaxAge)*time.Second < sessionFor+time.Hour {
		t.Fatalf("the cookie must outlive its session, else a browser forgets that somebody was known: %v", begun)
	}
	forged := *begun[0]
	forged.Value = strings.Replace(forged.Value, ".", ".A", 1)
	long := "text=" + strings.Repeat("a+line%0A", 1<<20/9)
	short := "text=" + strings.Repeat("a+line%0A", 100)
	for _, c := range []struct {
		what   string
		later  time.Duration
		cookie *http.Cookie
		form   string
		status int
	}{
		{"a stranger's long form", 0, nil, long, 413},
		{"a stranger's short form", 0, nil, short, 401},
		{"a long form after the session", sessionFor + time.Hour, begun[0], long, 401},
		{"a long form with a cookie that is not ours", sessionFor + time.Hour, &forged, long, 413},
		{"a long form long after the session", sessionFor + endedFor + time.Hour, begun[0], long, 413},
	} {
		now = now.Add(c.later)
		var cookies []*http.Cookie
		if c.cookie != nil {
			cookies = append(cookies, c.cookie)
		}
		for path, form := range map[string]string{"/tasks/1/edit": c.form, "/login": "token=x&resume=%2Ftasks%2F1%2Fedit&resume_body=" + url.QueryEscape(c.form)} {
			w := answer(path, form, cookies...)
			if w.Code != c.status || strings.Contains(w.Body.String(), "a&#43;line%0Aa&#43;line") != (c.status == 401) {
				t.Errorf("%s to %s: %d with %d bytes, want %d", c.what, path, w.Code, w.Body.Len(), c.status)
			}
		}
		now = now.Add(-c.later)
	}
}

// A text that cannot be saved is on the page that says so, whatever is away; and "Try again" leads to a page that there is.
func TestNothingAnswers(t *testing.T) {
	t.Parallel()
	a := newApp(t, 1, func(*Options) {})
	s := httptest.NewServer(a.routes())
	t.Cleanup(s.Close)
	a.reader.Close()
	a.Ledger.Close()
	resp, body := send(t, "POST", s.URL+"/tasks/1/edit", "do=save&base=7&text=line+one%0D%0A%3Cline+two%3E")
	if resp.StatusCode < 500 || !strings.Contains(body, "\nline one\n&lt;line two&gt;</textarea>") || !strings.Contains(body, `name="base" value="7"`) ||
		!strings.Contains(body, "Your text was not saved") {
		t.Errorf("the text is not there: %d\n%s", resp.StatusCode, body)
	}
	for _, c := range []struct{ method, path, from, link string }{
		{"GET", "/conquests/conquest_000000?back=%2F", "/", `href="/conquests/conquest_000000?back=%2F">Try again`},
		{"POST", "/held/conquest_000000", s.URL + "/held", `href="/held">Try again`},
		{"POST", "/conquests/conquest_000000/star", s.URL + "/?q=one&sort=title", `href="/?q=one&amp;sort=title">Try again`},
		{"POST", "/conquests/conquest_000000/star", "http://elsewhere.example/held", ""},
		{"POST", "/release", "", ""},
	} {
		resp, body := send(t, c.method, s.URL+c.path, "gold=true", "Referer", c.from)
		if resp.StatusCode < 500 || c.link != "" && !strings.Contains(body, c.link) || c.link == "" && strings.Contains(body, "Try again") {
			t.Errorf("%s %s from %q: %d, want %q\n%s", c.method, c.path, c.from, resp.StatusCode, c.link, body)
		}
	}
}

var (
	caseKey   = regexp.MustCompile(`<article class="case"[^>]* data-key="([^"]*)"`)
	heldTotal = regexp.MustCompile(`class="count">(\d+)<`)
)

// A held conquest is one case, the one that waits longest first, whenever each of its tasks came to be held. A task that is gone or of
// another project waits for nobody, and who is confined to a part hears of no other: not of how many, nor of when it changes.
func TestHeldCases(t *testing.T) {
	t.Parallel()
	hold := func(task int, since string) string {
		return fmt.Sprintf(`UPDATE reconciler.edge SET held = '{"shown": true, "stamp": "", "stars": null, "since": "%s"}' WHERE task_id = %d`, since, task)
	}
	a := newApp(t, 10, func(o *Options) {
		withTokens(t, o, "root", "ana , domain: domain0", "ben , domain: domain1", "cleo , domain: domain2")
		o.Projects = []int64{1}
	}, `INSERT INTO reconciler.edge (task_id, key, project, begun) VALUES (101, 'conquest_000001', 1, 'union'), (104, 'conquest_000004', 9, 'union')`,
		hold(1, "2026-01-02T00:00:00Z"), hold(2, "2026-01-01T00:00:00Z"), hold(101, "2026-01-03T00:00:00Z"),
		hold(4, "2026-01-01T00:00:00Z"), `UPDATE reconciler.edge SET missing_since = now() WHERE task_id = 4`, hold(104, "2026-01-01T00:00:00Z"))
	s := httptest.NewServer(a.routes())
	t.Cleanup(s.Close)
	for who, want := range map[string][]string{"root": {"conquest_000001", "conquest_000000"}, "ana": {"conquest_000000"}, "ben": {"conquest_000001"}, "cleo": nil} {
		_, page := send(t, "GET", s.URL+"/held", "", "Authorization", "Bearer "+who)
		var cases []string
		for _, m := range caseKey.FindAllStringSubmatch(page, -1) {
			cases = append(cases, m[1])
		}
		total := ""
		if m := heldTotal.FindStringSubmatch(page); m != nil {
			total = m[1]
		}
		if wantTotal := strings.TrimPrefix(fmt.Sprint(len(want)), "0"); !slices.Equal(cases, want) || total != wantTotal {
			t.Errorf("%s sees the cases %q and the number %q, want %q and %q", who, cases, total, want, wantTotal)
		}
		if who == "ben" && (!strings.Contains(page, ">task 2<") || !strings.Contains(page, ">task 101<")) {
			t.Errorf("a case without its tasks: %s", page)
		}
	}
	_, list := send(t, "GET", s.URL+"/?sync=held", "", "Authorization", "Bearer root")
	if slices.Contains(keysOf(list), "conquest_000003") {
		t.Error("the list calls a conquest held whose task is gone")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/live?key=conquest_000001&key=conquest_000007", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer ana")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); ; {
		if !lines.Scan() {
			t.Fatal("the stream ended: ", lines.Err())
		}
		switch line := lines.Text(); line {
		case "event: watching":
			if _, err := a.Ledger.Pool().Exec(ctx, `UPDATE public."Conquest" SET title = 'changed'`); err != nil {
				t.Fatal(err)
			}
		case "event: changed":
			lines.Scan()
			if got := lines.Text(); got != `data: ["conquest_000007"]` {
				t.Errorf("who is confined to domain0 hears %s", got)
			}
			return
		}
	}
}

// However many searches are under way, a star is given in the name of who clicked.
func TestStarWhileSearching(t *testing.T) {
	t.Parallel()
	a := newApp(t, 1, func(o *Options) { withTokens(t, o, "ana , domain: domain0") })
	s := httptest.NewServer(a.routes())
	t.Cleanup(s.Close)
	for range readers {
		c, err := a.reader.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Release()
	}
	resp, body := send(t, "POST", s.URL+"/api/tasks/1/gold-star", `{"is_gold_star": true}`, "Authorization", "Bearer ana", "Content-Type", "application/json")
	var by string
	if err := a.Ledger.Pool().QueryRow(t.Context(), `SELECT COALESCE("evaluatedBy", '') FROM public."Conquest" WHERE result = 'VICTORY'`).Scan(&by); err != nil {
		t.Error(err)
	}
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, `"aristotle_synced":true`) || by != "ana@example.com" {
		t.Errorf("%d %s by %q", resp.StatusCode, body, by)
	}
}

// An annotation's ground_truth is a gold star where the setting says so.
func TestGroundTruthShown(t *testing.T) {
	t.Parallel()
	task := &labelstudio.Task{Annotations: []labelstudio.Annotation{{ID: 1, GroundTruth: true}}}
	for _, counts := range []bool{false, true} {
		a := &App{Options: Options{GroundTruth: counts}}
		if got := a.notesOf(task, func(labelstudio.UserRef) string { return "" }, "")[0].Gold; got != counts {
			t.Errorf("where ground_truth counts: %v, it is shown as gold: %v", counts, got)
		}
	}
}

// A correction is one on the page where it is one to the examples: a blank text is none, and a NUL becomes what can be stored.
func TestBlankCorrection(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]string{" \n\t": "", "better": "better", "a\x00b": "a\uFFFDb", strings.Repeat("a", ledger.MaxText+1): ""} {
		region, err := labelstudio.TextRegion(ledger.ResponseControl, aboutControl, written)
		if err != nil {
			t.Fatal(err)
		}
		task := &labelstudio.Task{Annotations: []labelstudio.Annotation{{ID: 1, Result: []labelstudio.Region{region}}}}
		if got := (&App{}).notesOf(task, func(labelstudio.UserRef) string { return "" }, "")[0].Response; got != want {
			t.Errorf("%.20q is the correction %.20q, want %.20q", written, got, want)
		}
	}
}
