package curation

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/web"
)

// Person is who uses the app.
type Person struct {
	auth.Caller
	Session bool // signed in on the login page, and can sign out
}

type personKey struct{}

func personOf(r *http.Request) Person {
	p, _ := r.Context().Value(personKey{}).(Person)
	return p
}

// Limited tells whether a person sees a part of it all only.
func (p Person) Limited() bool { return p.Philosopher != "" || p.Domain != "" }

// may tells whether a person may see a conquest.
func (p Person) may(philosopher, domain string) bool { return p.Confined(philosopher, domain) == nil }

// forwardedUser is where a trusted proxy says who it is.
const forwardedUser = "X-Forwarded-User"

// maxEmail is above any e-mail's length.
const maxEmail = 320

// identify says who sent a request: a trusted proxy's word first, then a token, then
// a session; without a tokens file whoever is on this machine is the local user. Its
// errors are problems: 401 where nobody is known, 403 where they may not be here.
func (a *App) identify(r *http.Request) (Person, error) {
	if a.Guard.Tokens == nil {
		// Before the proxy's word: a name that leads here would make any page on this
		// machine one of a proxy's network.
		if err := auth.OnlyLocal(r); err != nil {
			return Person{}, err
		}
	}
	if user := strings.TrimSpace(r.Header.Get(forwardedUser)); user != "" && a.trusts(r) {
		if len(user) > maxEmail || !utf8.ValidString(user) {
			return Person{}, web.Refuse(http.StatusForbidden, "The proxy's %s header is no user's name.", forwardedUser)
		}
		return Person{Caller: auth.Caller{Email: user, Scopes: []auth.Scope{auth.Curate}}}, nil
	}
	if a.Guard.Tokens != nil && auth.Bearer(r) == "" {
		if c, known, err := a.sessions.caller(r, a.Guard.Tokens); known || err != nil {
			return Person{Caller: c, Session: true}, errors.Join(err, curates(c, known))
		}
	}
	c, err := a.Guard.Caller(r)
	return Person{Caller: c}, errors.Join(err, curates(c, err == nil))
}

func curates(c auth.Caller, known bool) error {
	if !known || c.Has(auth.Curate) {
		return nil
	}
	return web.Refuse(http.StatusForbidden, "This token has not the scope curate: use one that has, or ask for it in the tokens file.")
}

// trusts tells whether a request comes from a trusted proxy.
func (a *App) trusts(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	for _, network := range a.TrustedProxies {
		if network.Contains(ip.Unmap().WithZone("")) {
			return true
		}
	}
	return false
}

const (
	// sessionCookie is told apart from those of other programs on the same host: to a
	// browser all ports are one site.
	sessionCookie = "reconciler_curation"
	// sessionFor is a working day.
	sessionFor = 12 * time.Hour
	// endedFor is for how long a session that has ended still tells that somebody was
	// known here: an editor may stay open over a weekend.
	endedFor = 7 * 24 * time.Hour
)

// sessions are signed cookies: nothing of them is stored. A cookie names a token of the
// tokens file, and ends when that does; the key that signs is in our schema, so that
// replicas and restarts share it.
type sessions struct {
	key func(context.Context) ([]byte, error)
	now func() time.Time

	mu    sync.Mutex
	known []byte
}

// session is what a cookie holds.
type session struct {
	Name    string `json:"n"` // of the token
	Mark    string `json:"m"` // which token of that name
	Expires int64  `json:"e"` // Unix time in seconds
}

func (s *sessions) sign(ctx context.Context, payload string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		key, err := s.key(ctx)
		if err != nil {
			return "", err
		}
		s.known = key
	}
	mac := hmac.New(sha256.New, s.known)
	mac.Write([]byte(payload))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), nil
}

// begin gives a token's holder a session.
func (s *sessions) begin(w http.ResponseWriter, r *http.Request, name, mark string) error {
	text, err := json.Marshal(session{Name: name, Mark: mark, Expires: s.now().Add(sessionFor).Unix()})
	if err != nil {
		return err
	}
	payload := base64.RawURLEncoding.EncodeToString(text)
	signature, err := s.sign(r.Context(), payload)
	if err != nil {
		return err
	}
	http.SetCookie(w, cookie(r, sessionCookie, payload+"."+signature, sessionFor+endedFor))
	return nil
}

// told returns the session that a request carries, one that we have begun: nil where
// there is none, and for one that ended longer than after ago. An error means that
// nobody can tell at the moment.
func (s *sessions) told(r *http.Request, after time.Duration) (*session, error) {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil, nil
	}
	payload, given, _ := strings.Cut(c.Value, ".")
	signature, err := s.sign(r.Context(), payload)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal([]byte(given), []byte(signature)) {
		return nil, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(payload)
	told := &session{}
	if err != nil || json.Unmarshal(text, told) != nil || s.now().Add(-after).Unix() >= told.Expires {
		return nil, nil
	}
	return told, nil
}

// caller returns whose session a request carries. An error is that of told.
func (s *sessions) caller(r *http.Request, tokens *auth.Tokens) (auth.Caller, bool, error) {
	told, err := s.told(r, 0)
	if told == nil {
		return auth.Caller{}, false, err
	}
	caller, mark, known := tokens.Named(told.Name)
	if !known || mark != told.Mark {
		return auth.Caller{}, false, nil
	}
	return caller, true, nil
}

// cookie makes a cookie that no script sees and no other site sends.
func cookie(r *http.Request, name, value string, lasts time.Duration) *http.Cookie {
	c := &http.Cookie{Name: name, Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https"}
	if c.MaxAge = int(lasts.Seconds()); c.MaxAge <= 0 {
		c.MaxAge = -1
	}
	return c
}
