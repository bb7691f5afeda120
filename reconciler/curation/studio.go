package curation

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

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
	asking singleflight.Group
	known  atomic.Pointer[directory] // nil: it was never read
}

// directory is the list of users as it was read once.
type directory struct {
	us      labelstudio.User // whose token we have
	email   map[int64]string
	byEmail map[string]labelstudio.User // in lower case
	at      time.Time
}

// peopleFor is how long the list of users is believed. Someone who is not on it makes
// it be read again, but not more often than every peopleAgain.
const (
	peopleFor   = 10 * time.Minute
	peopleAgain = 10 * time.Second
)

// learn returns the list, read not too long ago. Who asks while it is being read waits for the
// same answer, and no longer than ctx.
func (p *people) learn(ctx context.Context, atMost time.Duration) (*directory, error) {
	d := p.known.Load()
	if d != nil && time.Since(d.at) < atMost {
		return d, nil
	}
	read := p.asking.DoChan("", func() (any, error) {
		if p.known.Load() != d {
			return nil, nil // it was read just now
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveLimit)
		defer cancel()
		return nil, p.read(ctx)
	})
	select {
	case r := <-read:
		if r.Err != nil {
			return nil, fmt.Errorf("learn who is who in Label Studio: %w", r.Err)
		}
		return p.known.Load(), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("learn who is who in Label Studio: %w", ctx.Err())
	}
}

func (p *people) read(ctx context.Context) error {
	us, err := p.studio.Whoami(ctx)
	if err != nil {
		return err
	}
	users, err := p.studio.Users(ctx)
	if err != nil {
		return err
	}
	d := &directory{us: us, email: map[int64]string{}, byEmail: map[string]labelstudio.User{}, at: time.Now()}
	for _, u := range users {
		d.email[u.ID], d.byEmail[strings.ToLower(u.Email)] = u.Email, u
	}
	p.known.Store(d)
	return nil
}

// emails returns a function from a user to their e-mail, "" where it is not known.
func (p *people) emails(ctx context.Context) func(labelstudio.UserRef) string {
	d, err := p.learn(ctx, peopleFor)
	if err != nil { // without names a page is poorer, and no more; old ones are better than none
		d = p.known.Load()
	}
	return func(u labelstudio.UserRef) string {
		if u.Email != "" || d == nil {
			return u.Email
		}
		return d.email[u.ID]
	}
}

// writer is the user whose annotations a person's are: the person, or, for one who has
// no account there, the user whose token we have.
func (p *people) writer(ctx context.Context, email string) (us labelstudio.User, err error) {
	for _, atMost := range []time.Duration{peopleFor, peopleAgain} {
		d, err := p.learn(ctx, atMost)
		if err != nil {
			return labelstudio.User{}, err
		}
		if u, known := d.byEmail[strings.ToLower(email)]; known {
			return u, nil
		}
		us = d.us
	}
	return us, nil
}
