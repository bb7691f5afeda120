package auth

import (
	"sync"
	"time"
)

// beforeFor is how long the secret before is still taken: whoever sends it learns of the new one within a minute.
const beforeFor = 10 * time.Minute

// Secret is a secret that can be replaced while it is in use. Nil is none. It is safe for concurrent use.
type Secret struct {
	mu          sync.Mutex
	now, before string
	until       time.Time // how long before is taken
}

// NewSecret returns a secret; nil for an empty text.
func NewSecret(text string) *Secret {
	if text == "" {
		return nil
	}
	return &Secret{now: text}
}

// Set replaces the secret. The one before is taken for some minutes more.
func (s *Secret) Set(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.now, s.until = s.now, text, time.Now().Add(beforeFor)
}

// Text is the secret, "" for none.
func (s *Secret) Text() string {
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Is tells whether a text is the secret, or the one before.
func (s *Secret) Is(given string) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	now, before, until := s.now, s.before, s.until
	s.mu.Unlock()
	old := before != "" && time.Now().Before(until) && Same(before, given)
	return Same(now, given) || old
}
