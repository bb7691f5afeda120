package api

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/reconciler/ledger"
)

// What arrives while others are committed shares a commit, one that is refused takes no other with it, and nobody waits longer than its context lets it.
func TestGather(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const second = time.Second / 10 // what a commit takes
		refused := errors.New("refused")
		var sizes []int
		g := &gather{commit: func(ctx context.Context, links []ledger.Link) error {
			sizes = append(sizes, len(links))
			for _, l := range links {
				if l.Key == "refused" {
					return refused
				}
			}
			select {
			case <-time.After(second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		add := func(key string, ended chan<- error) {
			go func() { ended <- g.add(t.Context(), []ledger.Link{{Task: 1, Key: key}}) }()
			synctest.Wait()
		}
		first, shared, bad := make(chan error), make(chan error), make(chan error)
		start := time.Now()
		add("a", first)
		add("b", first)
		for range 50 {
			add("k", shared)
		}
		for range 2 {
			if err := <-first; err != nil {
				t.Error(err)
			}
		}
		for range 50 {
			if err := <-shared; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took != 2*second {
			t.Errorf("it took %s, want two commits", took)
		}
		if diff := cmp.Diff([]int{1, 1, 50}, sizes); diff != "" {
			t.Errorf("commits (-want +got):\n%s", diff)
		}
		add("a", first)
		add("b", first)
		add("refused", bad)
		add("k", shared)
		for range 2 {
			<-first
		}
		if err := <-bad; !errors.Is(err, refused) {
			t.Errorf("what was refused: %v", err)
		}
		if err := <-shared; err != nil {
			t.Errorf("what was committed with it: %v", err)
		}
		soon, cancel := context.WithTimeout(t.Context(), second/2)
		defer cancel()
		if err := g.add(soon, []ledger.Link{{Task: 1, Key: "k"}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it waited longer than it could: %v", err)
		}
		<-time.After(second) // the commit goes on without it
	})
}

// A commit that panics is a panic of the request that it was for, and of no other.
func TestGatherPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gather{commit: func(_ context.Context, links []ledger.Link) error {
			time.Sleep(time.Second) // the bubble's clock
			for _, l := range links {
				if l.Key == "bad" {
					panic("poison")
				}
			}
			return nil
		}}
		ended := map[string]chan any{}
		for i, key := range []string{"a", "b", "bad", "good"} { // the last two share a commit
			done := make(chan any)
			ended[key] = done
			go func() {
				defer func() { done <- recover() }()
				if err := g.add(t.Context(), []ledger.Link{{Task: int64(i), Key: key}}); err != nil {
					panic(err)
				}
			}()
			synctest.Wait()
		}
		for key, c := range ended {
			got := <-c
			if p, is := got.(panicked); is != (key == "bad") || is && !strings.HasPrefix(string(p), "poison") || !is && got != nil {
				t.Errorf("%s: %v", key, got)
			}
		}
	})
}
