package cdc

import (
	"testing"

	"pgregory.net/rapid"
)

func TestPositionRefusesZero(t *testing.T) {
	t.Parallel()
	if _, err := NewPosition(0); err == nil {
		t.Error("started from 0")
	}
	p := start(t, 100)
	if err := p.Commit(200); err == nil {
		t.Error("a commit outside a transaction passed")
	}
	begin(t, p)
	if err := p.Begin(); err == nil {
		t.Error("a begin inside a transaction passed")
	}
	if err := p.Commit(0); err == nil {
		t.Error("a commit at 0 passed")
	}
}

func TestPositionWaitsForDurable(t *testing.T) {
	t.Parallel()
	p := start(t, 100)
	p.Keepalive(110) // at rest: progress
	at(t, p, 110)
	begin(t, p)
	p.Keepalive(150) // inside a transaction
	at(t, p, 110)
	commit(t, p, 200)
	p.Keepalive(300) // read, not durable
	at(t, p, 110)
	if err := p.Durable(300); err == nil {
		t.Error("confirmed beyond the last commit that was read")
	}
	durable(t, p, 200)
	at(t, p, 200) // not the 300, which came too early
	p.Keepalive(250)
	at(t, p, 250)
	durable(t, p, 200) // late news: no way back
	at(t, p, 250)
	p.Keepalive(240)
	at(t, p, 250)
}

// TestPositionProperty runs any order of messages and confirmations against a model that knows, for every commit, whether it is durable.
// What is confirmed must have been sent, must not pass the start of a commit that is not durable, must not go back, and must catch up at rest.
func TestPositionProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		wal := LSN(rapid.Uint64Range(1, 1000).Draw(t, "start"))
		p := start(t, wal)
		var (
			sent    = wal // the highest place the server named
			commits []LSN // read and not durable, in order
			begun   LSN   // where the open transaction commits; 0: none is open
			last    = wal // what was confirmed last
			step    = func() { wal += LSN(rapid.Uint64Range(0, 50).Draw(t, "wal")) }
		)
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				if begun != 0 {
					t.Skip()
				}
				step()
				begun = wal + 1
				begin(t, p)
			},
			"commit": func(t *rapid.T) {
				if begun == 0 {
					t.Skip()
				}
				wal = max(wal, begun) + 1
				commit(t, p, wal)
				commits, begun, sent = append(commits, wal), 0, max(sent, wal)
			},
			"keepalive": func(*rapid.T) { step(); p.Keepalive(wal); sent = max(sent, wal) },
			"an old keepalive": func(t *rapid.T) {
				p.Keepalive(LSN(rapid.Uint64Range(0, uint64(wal)).Draw(t, "old")))
			},
			"handled": func(t *rapid.T) {
				if len(commits) == 0 {
					t.Skip()
				}
				n := rapid.IntRange(1, len(commits)).Draw(t, "n")
				durable(t, p, commits[n-1])
				commits = commits[n:]
			},
			"too far": func(t *rapid.T) {
				if p.Durable(wal+1) == nil {
					t.Fatal("confirmed what was not sent")
				}
			},
			"": func(t *rapid.T) {
				got := p.Confirmed()
				if got < last || got > sent || got == 0 {
					t.Fatalf("confirmed %d after %d, server at %d", got, last, sent)
				}
				if len(commits) > 0 && got >= commits[0] {
					t.Fatalf("confirmed %d, but the commit that ends at %d is not durable", got, commits[0])
				}
				if begun != 0 && got >= begun {
					t.Fatalf("confirmed %d inside the transaction that commits at %d", got, begun)
				}
				last = got
			},
		})
		if begun == 0 && len(commits) == 0 {
			p.Keepalive(wal)
			at(t, p, wal)
		}
	})
}

// testing is what these helpers need of either kind of test.
type tester interface {
	Helper()
	Errorf(string, ...any)
	Fatal(...any)
}

func start(t tester, at LSN) *Position {
	t.Helper()
	p, err := NewPosition(at)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func begin(t tester, p *Position) {
	t.Helper()
	if err := p.Begin(); err != nil {
		t.Fatal(err)
	}
}

func commit(t tester, p *Position, end LSN) {
	t.Helper()
	if err := p.Commit(end); err != nil {
		t.Fatal(err)
	}
}

func durable(t tester, p *Position, end LSN) {
	t.Helper()
	if err := p.Durable(end); err != nil {
		t.Fatal(err)
	}
}

func at(t tester, p *Position, want LSN) {
	t.Helper()
	if got := p.Confirmed(); got != want {
		t.Errorf("confirmed %d, want %d", got, want)
	}
}
