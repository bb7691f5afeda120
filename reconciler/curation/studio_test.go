package curation

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
)

// While Label Studio takes its time to say who is who, a page waits for that no longer than it means to, shows the names that were
// known, and asks nothing that is being asked already.
func TestPeopleSlow(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	begun, answer := make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/users/" {
			_, _ = w.Write([]byte(`[{"id": 1, "email": "us@example.com"}, {"id": 2, "email": "Ana@example.com"}]`))
			return
		}
		if asked.Add(1) == 1 {
			close(begun)
		}
		<-answer
		_, _ = w.Write([]byte(`{"id": 1, "email": "us@example.com"}`))
	}))
	t.Cleanup(s.Close)
	once := sync.OnceFunc(func() { close(answer) })
	t.Cleanup(once)
	client, err := labelstudio.New(labelstudio.Options{URL: s.URL, Token: "x"})
	if err != nil {
		t.Fatal(err)
	}
	p := people{studio: client}
	p.known.Store(&directory{email: map[int64]string{2: "old@example.com"}, at: time.Now().Add(-peopleFor)})
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if u, err := p.writer(t.Context(), "ana@EXAMPLE.com"); err != nil || u.ID != 2 {
				t.Errorf("%+v %v", u, err)
			}
		})
	}
	<-begun
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if name := p.emails(gone)(labelstudio.UserRef{ID: 2}); name != "old@example.com" {
		t.Errorf("it shows %q", name)
	}
	if _, err := p.writer(gone, "ana@example.com"); !errors.Is(err, context.Canceled) {
		t.Errorf("who has gone is told %v", err)
	}
	once()
	all.Wait()
	if name := p.emails(t.Context())(labelstudio.UserRef{ID: 2}); name != "Ana@example.com" || asked.Load() != 1 {
		t.Errorf("it shows %q, asked %d times", name, asked.Load())
	}
	if u, err := p.writer(t.Context(), "nobody@example.com"); err != nil || u.ID != 1 {
		t.Errorf("who has no account writes as %+v %v", u, err)
	}
}
