package curation

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/aristotle/reconciler/reconciler/web/webtest"
)

// What programs may call is described.
func TestCallsAreDescribed(t *testing.T) {
	t.Parallel()
	webtest.Routes(t, new(App).programs())
}

// What a page from elsewhere sends in somebody's name is refused: to a program as programs are answered, to a person as a page.
func TestFromElsewhere(t *testing.T) {
	t.Parallel()
	h := newApp(t, 0, func(*Options) {}).routes()
	for path, want := range map[string]string{"/api/tasks/1/gold-star": "application/problem+json", "/conquests/x/star": "text/html; charset=utf-8"} {
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8001"+path, nil)
		r.Header.Set("Origin", "http://example.com")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := w.Header().Get("Content-Type"); w.Code != http.StatusForbidden || got != want {
			t.Errorf("%s: %d %s", path, w.Code, got)
		}
	}
}
