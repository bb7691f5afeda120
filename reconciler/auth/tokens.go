// Package auth says who calls, and what they may: by the tokens file, or, without
// one, since they are on this machine.
//
// The file holds hashes, never tokens. It is read again when it changes; while it
// cannot be read the tokens from before count, since a slip in an editor should not
// lock everybody out, and the log and a metric say so.
package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/logs"
)

// Scope is what a token may be used for.
type Scope string

// The scopes. Admin includes all others.
const (
	ICL    Scope = "icl"    // read examples
	Sync   Scope = "sync"   // say that a conquest was marked
	Curate Scope = "curate" // the curation app
	Admin  Scope = "admin"
)

// Caller is who sent a request.
type Caller struct {
	Name   string // of the token; "" without tokens
	Email  string // who it is on the curation page
	Scopes []Scope
	// What the caller is confined to; "" for no limit.
	Philosopher, Domain string
}

// watchEvery is how often the file is read again. It is small, and a comparison of
// its bytes misses no change, as its time and size may.
const watchEvery = time.Second

// maxFile is far above any tokens file: a wrong path should not fill the memory.
const maxFile = 4 << 20

// Tokens are the tokens of a file. They are safe for concurrent use.
type Tokens struct {
	path    string
	entries atomic.Pointer[[]entry]
	text    []byte // as it was read last, right or wrong; for Watch alone
}

// entry is one token.
type entry struct {
	hash   [sha256.Size]byte
	caller Caller
}

// Load reads a tokens file. Every mistake in it is an error that names its line.
func Load(path string) (*Tokens, error) {
	t := &Tokens{path: path}
	text, err := t.read()
	if err != nil {
		return nil, err
	}
	return t, t.take(text)
}

func (t *Tokens) read() ([]byte, error) {
	f, err := os.Open(t.path)
	if err != nil {
		return nil, err // it names the file
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d MiB", t.path, maxFile>>20)
	}
	return text, nil
}

// take makes the tokens of a text those that count. None at all in the place of some is how
// a file looks that is being written: whoever means it says so.
func (t *Tokens) take(text []byte) error {
	t.text = text
	if before := t.entries.Load(); before != nil && len(*before) > 0 && len(bytes.TrimSpace(text)) == 0 {
		return fmt.Errorf("%s is empty: write [] into it where nobody is to have a token", t.path)
	}
	entries, err := parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", t.path, err)
	}
	t.entries.Store(&entries)
	return nil
}

// Watch reads the file again when it changes, until ctx ends.
func (t *Tokens) Watch(ctx context.Context, m *metrics.Metrics, log *slog.Logger) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	const what = "read the tokens file: going on with those before"
	var failures logs.Failures
	broken := false
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		text, err := t.read()
		switch {
		case err == nil && bytes.Equal(text, t.text) && !broken:
			continue
		case err == nil:
			err = t.take(text)
		}
		if err != nil {
			broken = true
			m.TokensOK.Set(0)
			failures.Log(ctx, log, slog.LevelError, what, "", err)
			continue
		}
		m.TokensOK.Set(1)
		attrs := []slog.Attr{slog.String("file", t.path), slog.Int("tokens", len(*t.entries.Load()))}
		if broken {
			failures.Over(ctx, log, what, "", attrs...)
		} else {
			log.LogAttrs(ctx, slog.LevelInfo, "tokens were read", attrs...)
		}
		broken = false
	}
}

// Find returns whose token it is. The time that it takes tells nothing of the tokens
// that there are, but for their number.
func (t *Tokens) Find(token string) (Caller, bool) {
	hash := sha256.Sum256([]byte(token))
	found := -1
	entries := *t.entries.Load()
	for i := range entries {
		if subtle.ConstantTimeCompare(hash[:], entries[i].hash[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return Caller{}, false
	}
	return entries[found].caller, true
}

// Named returns the token of a name, and a mark that another token of that name would
// not have: for who has shown it before, and is remembered by the two.
func (t *Tokens) Named(name string) (c Caller, mark string, known bool) {
	for _, e := range *t.entries.Load() {
		if e.caller.Name == name {
			sum := sha256.Sum256(e.hash[:]) // the hash itself stays in the file
			return e.caller, hex.EncodeToString(sum[:8]), true
		}
	}
	return Caller{}, "", false
}

// Same compares a secret with what was given, in a time that tells nothing of it, also
// not its length.
func Same(secret, given string) bool {
	want, got := sha256.Sum256([]byte(secret)), sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1
}
