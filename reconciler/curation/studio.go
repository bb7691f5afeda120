package curation

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
)

const (
	// studioLimit is how long a page waits for Label Studio. It shows what is stored
	// here in any case.
	studioLimit = 3 * time.Second
	// studioRest is for how long a Label Studio that did not answer is not asked again:
	// else each page would wait its whole limit.
	studioRest = 5 * time.Second
)

// prober reads from Label Studio for pages, and remembers whether it is there.
type prober struct {
	client *labelstudio.Client

	mu   sync.Mutex
	away error
	at   time.Time
}

// ask calls read unless Label Studio has just not answered, and remembers whether it did.
func (p *prober) ask(ctx context.Context, read func(context.Context) error) error {
	p.mu.Lock()
	away := p.away
	resting := away != nil && time.Since(p.at) < studioRest
	p.mu.Unlock()
	if resting {
		return away
	}
	limited, cancel := context.WithTimeout(ctx, studioLimit)
	defer cancel()
	err := read(limited)
	if ctx.Err() != nil {
		return ctx.Err() // the person has gone: that says nothing of Label Studio
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.away = time.Now(), nil
	if labelstudio.Away(err) || limited.Err() != nil {
		p.away = err
	}
	return err
}

// people knows who is who in Label Studio.
type people struct {
	studio *labelstudio.Client

	mu    sync.Mutex
	email map[int64]string
	id    map[string]int64 // by e-mail in lower case
	at    time.Time
}

// peopleFor is how long the list of users is believed. Someone who is not on it makes
// it be read again, but not more often than every peopleAgain.
const (
	peopleFor   = 10 * time.Minute
	peopleAgain = 10 * time.Second
)

// learn makes sure that the list was read, and not too long ago.
func (p *people) learn(ctx context.Context, atLeast time.Duration) error {
	if p.email != nil && time.Since(p.at) < atLeast {
		return nil
	}
	users, err := p.studio.Users(ctx)
	if err != nil {
		return fmt.Errorf("learn who is who in Label Studio: %w", err)
	}
	p.email, p.id, p.at = map[int64]string{}, map[string]int64{}, time.Now()
	for _, u := range users {
		p.email[u.ID], p.id[strings.ToLower(u.Email)] = u.Email, u.ID
	}
	return nil
}

// emails returns a function from a user to their e-mail, "" where it is not known.
func (p *people) emails(ctx context.Context) func(labelstudio.UserRef) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.learn(ctx, peopleFor) // without names a page is poorer, and no more
	known := p.email
	return func(u labelstudio.UserRef) string {
		if u.Email != "" {
			return u.Email
		}
		return known[u.ID]
	}
}

// userID returns a person's number in Label Studio; 0 for one who has no account there.
func (p *people) userID(ctx context.Context, email string) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.learn(ctx, peopleFor); err != nil {
		return 0, err
	}
	if id, known := p.id[strings.ToLower(email)]; known {
		return id, nil
	}
	if err := p.learn(ctx, peopleAgain); err != nil {
		return 0, err
	}
	return p.id[strings.ToLower(email)], nil
}
