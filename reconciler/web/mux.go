package web

import (
	_ "embed"
	"net/http"
	"slices"
)

// Mux routes requests as [http.ServeMux] does. What it has no route for it answers
// with a problem, and it can list its routes. The zero value has none.
type Mux struct {
	mux      http.ServeMux
	patterns []string
}

// Handle adds a route. The pattern names its method.
func (m *Mux) Handle(pattern string, h http.Handler) {
	m.mux.Handle(pattern, h)
	m.patterns = append(m.patterns, pattern)
}

// Patterns returns the routes, in order.
func (m *Mux) Patterns() []string { return slices.Sorted(slices.Values(m.patterns)) }

// ServeHTTP hands the request to its route.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, pattern := m.mux.Handler(r)
	if pattern != "" {
		m.mux.ServeHTTP(w, r) // it sets the path's values, which h alone would not
		return
	}
	// The server's own answers are plain text: only what they say is used.
	said := &verdict{header: http.Header{}}
	h.ServeHTTP(said, r)
	if said.status == http.StatusMethodNotAllowed {
		allowed := said.header.Get("Allow")
		w.Header().Set("Allow", allowed)
		Fail(w, Refuse(http.StatusMethodNotAllowed, "This path takes %s.", allowed))
		return
	}
	Fail(w, Refuse(http.StatusNotFound, "There is no such path: GET /openapi.yaml lists those that there are."))
}

// verdict keeps what a handler answers, but for the body.
type verdict struct {
	header http.Header
	status int
}

func (v *verdict) Header() http.Header         { return v.header }
func (v *verdict) WriteHeader(status int)      { v.status = status }
func (v *verdict) Write(b []byte) (int, error) { return len(b), nil }

//go:embed openapi.yaml
var openAPI []byte

// ServeOpenAPI answers with the description of all routes of both servers.
func ServeOpenAPI(w http.ResponseWriter, r *http.Request) {
	if _, err := Query(r); err != nil {
		Fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/yaml")
	w.Header().Set("Cache-Control", "public, max-age=60")
	_, _ = w.Write(openAPI)
}
