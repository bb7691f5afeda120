package curation

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aristotle/reconciler/reconciler/auth"
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
