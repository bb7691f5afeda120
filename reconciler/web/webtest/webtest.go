// Package webtest holds what the servers answer against openapi.yaml. Tests alone use
// it; it is a package of its own since those of three packages do.
package webtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"github.com/aristotle/reconciler/reconciler/web"
)

// described is openapi.yaml, read once.
var described = sync.OnceValues(func() (*description, error) {
	// Lines of JSON, pages: their schema is a text.
	openapi3filter.RegisterBodyDecoder("application/x-ndjson", openapi3filter.FileBodyDecoder)
	openapi3filter.RegisterBodyDecoder("text/html", openapi3filter.FileBodyDecoder)
	served := httptest.NewRecorder()
	web.ServeOpenAPI(served, httptest.NewRequest(http.MethodGet, "/openapi.yaml", nil))
	doc, err := openapi3.NewLoader().LoadFromData(served.Body.Bytes())
	if err != nil {
		return nil, err
	}
	// By any host: tests choose their own.
	doc.Servers = nil
	router, err := legacy.NewRouter(doc) // it validates the document, examples included
	return &description{doc, router}, err
})

type description struct {
	doc    *openapi3.T
	router routers.Router
}

func read(t testing.TB) *description {
	t.Helper()
	d, err := described()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	return d
}

// Routes checks that every pattern of a [web.Mux] is described.
func Routes(t testing.TB, m *web.Mux) {
	t.Helper()
	d := read(t)
	for _, pattern := range m.Patterns() {
		method, path, found := strings.Cut(pattern, " ")
		if !found {
			t.Errorf("the route %q names no method", pattern)
			continue
		}
		if item := d.doc.Paths.Value(path); item == nil || item.GetOperation(method) == nil {
			t.Errorf("%s is not in openapi.yaml", pattern)
		}
	}
}

// Paths returns the described paths, for a test that each of them is served.
func Paths(t testing.TB) []string { return read(t).doc.Paths.InMatchingOrder() }

// Check holds an answer against the description: its status, content type and body. What
// is not described must be a problem. The body of the answer can still be read.
func Check(t testing.TB, r *http.Request, resp *http.Response) {
	t.Helper()
	d := read(t)
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // it was read to its end
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		t.Errorf("%s %s: %v", r.Method, r.URL, err)
		return
	}
	if err := d.check(r, resp, body); err != nil {
		t.Errorf("%s %s is not answered as openapi.yaml says: %v\n%d %s", r.Method, r.URL.Path, err, resp.StatusCode, body)
	}
}

func (d *description) check(r *http.Request, resp *http.Response, body []byte) error {
	head := r.Method == http.MethodHead
	if head { // described as the GET that it stands for
		r = r.Clone(r.Context())
		r.Method = http.MethodGet
	}
	route, params, err := d.router.FindRoute(r)
	if err != nil {
		if resp.StatusCode < 400 {
			return err
		}
		return d.checkProblem(resp, body)
	}
	in := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route},
		Status:                 resp.StatusCode, Header: resp.Header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, ExcludeResponseBody: head || resp.StatusCode == http.StatusNotModified},
	}
	in.SetBodyBytes(body)
	if err := openapi3filter.ValidateResponse(context.Background(), in); err != nil {
		return err
	}
	if resp.StatusCode >= 400 && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") {
		return d.checkProblem(resp, body)
	}
	return nil
}

// checkProblem holds an error against RFC 9457: its status is the answer's own.
func (d *description) checkProblem(resp *http.Response, body []byte) error {
	if kind := resp.Header.Get("Content-Type"); kind != "application/problem+json" {
		return fmt.Errorf("an error of type %q", kind)
	}
	var problem map[string]any
	if err := json.Unmarshal(body, &problem); err != nil {
		return err
	}
	if problem["status"] != float64(resp.StatusCode) {
		return fmt.Errorf("status %v in the body of a %d", problem["status"], resp.StatusCode)
	}
	return d.doc.Components.Schemas["Problem"].Value.VisitJSON(problem)
}

// Client returns a client that holds every answer against the description.
func Client(t testing.TB) *http.Client {
	return &http.Client{Transport: checking{t}}
}

type checking struct{ t testing.TB }

func (c checking) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		Check(c.t, r, resp)
	}
	return resp, err
}

// Serve hands a request to a handler, holds the answer against the description and
// returns it with its body.
func Serve(t testing.TB, h http.Handler, r *http.Request) (*http.Response, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	resp := w.Result()
	Check(t, r, resp)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}
