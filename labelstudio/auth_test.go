package labelstudio_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/labelstudio/sandbox"
)

func TestPersonalToken(t *testing.T) {
	t.Parallel()
	s := standIn(t, sandbox.StandInOptions{})
	c := client(t, labelstudio.Options{URL: s.URL(), Token: s.PersonalToken(1)})
	task := s.AddTask(s.AddProject("x"), map[string]any{}, nil)
	// Many at once fetch one access token.
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := c.Task(t.Context(), task); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := s.Requests()[labelstudio.OpTokenRefresh]; n != 1 {
		t.Errorf("%d refreshes", n)
	}
	// A read survives that it ends before its time; a write is refused, and works when it is repeated.
	s.ExpireAccessTokens()
	if _, err := c.Task(t.Context(), task); err != nil {
		t.Error(err)
	}
	s.ExpireAccessTokens()
	patched := s.Requests()[labelstudio.OpTaskPatch]
	if _, err := c.PatchMeta(t.Context(), task, json.RawMessage(`1`)); !labelstudio.NotDone(err) || !labelstudio.IsAuth(err) {
		t.Errorf("PATCH with an expired access token: %v", err)
	}
	if n := s.Requests()[labelstudio.OpTaskPatch] - patched; n != 1 {
		t.Errorf("it was sent %d times", n)
	}
	if _, err := c.PatchMeta(t.Context(), task, json.RawMessage(`1`)); err != nil {
		t.Error(err)
	}
	if n := s.Requests()[labelstudio.OpTokenRefresh]; n != 3 {
		t.Errorf("%d refreshes", n)
	}
	// A token that is gone for good says what to do, and a write that could not get one was not sent.
	s.RevokeToken(1)
	if _, err := c.Task(t.Context(), task); !labelstudio.IsAuth(err) || !labelstudio.Away(err) || !strings.Contains(err.Error(), "make a new token") {
		t.Errorf("with a dead token: %v", err)
	}
	_, err := c.PatchMeta(t.Context(), task, json.RawMessage(`1`))
	var e *labelstudio.Error
	if !errors.As(err, &e) || !e.NotSent || !labelstudio.NotDone(err) || e.Op != labelstudio.OpTokenRefresh {
		t.Errorf("PATCH with a dead token: %v", err)
	}
}

// TestRefreshAway: a PATCH whose access token could not be had was certainly not done, whatever the refresh met.
func TestRefreshAway(t *testing.T) {
	t.Parallel()
	s := standIn(t, sandbox.StandInOptions{})
	c := client(t, labelstudio.Options{URL: s.URL(), Token: s.PersonalToken(1)})
	for _, fault := range []sandbox.Fault{{Kind: sandbox.FaultCut}, {Kind: sandbox.FaultStatus, Status: 502}, {Kind: sandbox.FaultLost}} {
		s.Faults(func(*http.Request) sandbox.Fault { return fault })
		if _, err := c.PatchMeta(t.Context(), 1, json.RawMessage(`1`)); !labelstudio.NotDone(err) || !labelstudio.Away(err) {
			t.Errorf("%+v: %v", fault, err)
		}
	}
	if n := s.Requests()[labelstudio.OpTaskPatch]; n != 0 {
		t.Errorf("%d PATCHes", n)
	}
}

// TestAccessLifetime: an access token is used until 30 s before its end, by the server's own account of its length, whatever its clock says.
func TestAccessLifetime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		payload   string
		refreshes int32
	}{
		{`{"exp": 1000300, "iat": 1000000}`, 1}, // a server in 1970
		{`{"exp": 1000010, "iat": 1000000}`, 3}, // shorter than the margin: once
		{`{"exp": 9000000000, "iat": 1}`, 1},    // not believed
		{`{}`, 1},
	} {
		var refreshes atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/api/token/refresh/" {
				refreshes.Add(1)
				fmt.Fprintf(w, `{"access": "e30.%s.c2ln"}`, base64.RawURLEncoding.EncodeToString([]byte(c.payload)))
				return
			}
			fmt.Fprint(w, `{"id": 1}`)
		}))
		defer server.Close()
		c2 := client(t, labelstudio.Options{URL: server.URL, Token: personal})
		for range 3 {
			if _, err := c2.Whoami(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if n := refreshes.Load(); n != c.refreshes {
			t.Errorf("%s: %d refreshes, want %d", c.payload, n, c.refreshes)
		}
	}
}

const personal = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCIsImV4cCI6ODAwMDAwMDAwMH0.c2VjcmV0c2lnbmF0dXJl"

// TestErrorsLeakNoSecret: a server that says the token back, in every way an answer can, gets it into no error.
func TestErrorsLeakNoSecret(t *testing.T) {
	t.Parallel()
	const access = "e30.e30.YWNjZXNzc2VjcmV0"
	var how atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind := how.Load().(string)
		said := strings.Repeat("x", 370) + r.Header.Get("Authorization") + " " + legacy + " " + personal // around where a detail is cut off
		if r.URL.Path == "/api/token/refresh/" && kind != "refresh" {
			fmt.Fprintf(w, `{"access": %q}`, access)
			return
		}
		switch kind {
		case "cut":
			panic(http.ErrAbortHandler)
		case "redirect":
			w.Header().Set("Location", "http://"+legacy+":"+personal+"@h/"+legacy+"?"+access)
			w.WriteHeader(http.StatusFound)
		case "no JSON":
			fmt.Fprint(w, said)
		case "wrong type":
			fmt.Fprintf(w, `{"id": %q, "created_at": %q}`, said, said)
		default:
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"detail": %q, "validation_errors": {"x": [%q]}}`, said, said)
		}
	}))
	defer server.Close()
	for _, token := range []string{legacy, personal} {
		c := client(t, labelstudio.Options{URL: server.URL, Token: token})
		for _, kind := range []string{"cut", "redirect", "no JSON", "wrong type", "refused", "refresh"} {
			how.Store(kind)
			_, read := c.Task(t.Context(), 1)
			_, wrote := c.PatchMeta(t.Context(), 1, json.RawMessage(`{}`))
			_, listed := c.TasksByID(t.Context(), 1, []int64{1})
			_, who := c.Whoami(t.Context())
			for _, err := range []error{read, wrote, listed, who} {
				text := fmt.Sprintf("%v %+v %#v", err, err, err)
				if err == nil || strings.Contains(text, token) || strings.Contains(text, "YWNjZXNzc2VjcmV0") && token == personal {
					t.Errorf("%s: %s", kind, text)
				}
			}
		}
	}
}
