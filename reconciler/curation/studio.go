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
	us    labelstudio.User // whose token we have
	email map[int64]string
	known map[string]labelstudio.User // by e-mail in lower case
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
	us, err := p.studio.Whoami(ctx)
	var users []labelstudio.User
	if err == nil {
		users, err = p.studio.Users(ctx)
	}
	if err != nil {
		return fmt.Errorf("learn who is who in Label Studio: %w", err)
	}
	p.us, p.email, p.known, p.at = us, map[int64]string{}, map[string]labelstudio.User{}, time.Now()
	for _, u := range users {
		p.email[u.ID], p.known[strings.ToLower(u.Email)] = u.Email, u
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

// writer is the user whose annotations a person's are: the person, or, for one who has
// no account there, the user whose token we have.
func (p *people) writer(ctx context.Context, email string) (labelstudio.User, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, atLeast := range []time.Duration{peopleFor, peopleAgain} {
		if err := p.learn(ctx, atLeast); err != nil {
			return labelstudio.User{}, err
		}
		if u, known := p.known[strings.ToLower(email)]; known {
			return u, nil
		}
	}
	return p.us, nil
}
