package labelstudio

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// accessMargin is how long before its end an access token is no longer used: the longest a request may wait on its way.
	accessMargin = 30 * time.Second
	// accessLifetime is assumed of an access token that does not say: Django's simplejwt gives 5 minutes.
	accessLifetime = 5 * time.Minute
	maxToken       = 16 << 10
)

// auth holds the token. A legacy token is sent as it is. A personal access token is a JWT that is never sent with a request but buys
// access tokens of five minutes; one of these is kept, and fetched by one caller while the others wait for what it gets.
type auth struct {
	token    string
	personal bool

	flight  chan struct{} // held by the one who refreshes
	mu      sync.Mutex
	access  string
	expires time.Time
	tries   int   // how many refreshes have ended
	failure error // of the last one
}

func newAuth(token string) (*auth, error) {
	a := &auth{token: token, flight: make(chan struct{}, 1)}
	switch claims, isJWT := parseClaims(token); {
	case token == "":
		return nil, errors.New("it is empty; make one in Label Studio under Account & Settings")
	case len(token) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, errors.New("it holds characters that no token has")
	case isJWT && claims.Type == "access":
		return nil, errors.New("it is an access token, which ends in minutes; give the personal access token that it was made from")
	default:
		a.personal = isJWT
	}
	return a, nil
}

// claims are the parts of a JWT's payload that matter here; the signature is Label Studio's business.
type claims struct {
	Type     string  `json:"token_type"`
	Expires  float64 `json:"exp"`
	IssuedAt float64 `json:"iat"`
}

func parseClaims(token string) (c claims, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil || json.Unmarshal(payload, &c) != nil {
		return claims{}, false
	}
	return c, true
}

// lifetime is how long the token lives by its own account. It is a difference of two times of the server, so that a clock that goes wrong
// here or there does not matter.
func (c claims) lifetime() time.Duration {
	if c.Expires <= 0 || c.IssuedAt <= 0 || c.Expires-c.IssuedAt > accessLifetime.Seconds()*12 {
		return accessLifetime
	}
	return time.Duration((c.Expires - c.IssuedAt) * float64(time.Second))
}

// TokenInfo is what a token tells of itself.
type TokenInfo struct {
	Personal bool      // a personal access token; else a legacy token, which tells nothing more
	Issued   time.Time // on Label Studio's clock; zero where the token does not say
	Expires  time.Time // the same
}

// Token tells what is known of the client's token without asking Label Studio.
func (c *Client) Token() TokenInfo {
	a := c.auth.Load()
	claims, _ := parseClaims(a.token)
	return TokenInfo{Personal: a.personal, Issued: unix(claims.IssuedAt), Expires: unix(claims.Expires)}
}

func unix(seconds float64) time.Time {
	if seconds <= 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}

// SetToken replaces the token, of which requests under way know nothing. An error leaves the old one.
func (c *Client) SetToken(token string) error {
	a, err := newAuth(strings.TrimSpace(token))
	if err != nil {
		return fmt.Errorf("read Label Studio's token: %w", err)
	}
	c.auth.Store(a)
	return nil
}

// header returns the value of the Authorization header, with an access token that is good for a while yet.
func (a *auth) header(ctx context.Context, refresh func(ctx context.Context, token string) (string, error)) (string, error) {
	if !a.personal {
		return "Token " + a.token, nil
	}
	access, seen := a.current()
	if access != "" {
		return "Bearer " + access, nil
	}
	select {
	case a.flight <- struct{}{}:
		defer func() { <-a.flight }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if access, failure := a.since(seen); access != "" || failure != nil {
		return "Bearer " + access, failure // somebody else asked while we waited
	}
	asked := time.Now()
	access, err := refresh(ctx, a.token)
	a.remember(access, asked, err, ctx.Err() != nil)
	return "Bearer " + access, err
}

func (a *auth) current() (access string, tries int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Now().Before(a.expires) {
		access = a.access
	}
	return access, a.tries
}

// since returns what a refresh that ended after the given number of tries brought, if one did.
func (a *auth) since(tries int) (string, error) {
	access, now := a.current()
	a.mu.Lock()
	defer a.mu.Unlock()
	if now == tries {
		return "", nil
	}
	return access, a.failure
}

// remember keeps the outcome of a refresh. One that was given up by its caller is nobody else's failure.
func (a *auth) remember(access string, asked time.Time, err error, gaveUp bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if gaveUp && err != nil {
		return
	}
	claims, _ := parseClaims(access)
	a.access, a.expires = access, asked.Add(claims.lifetime()-accessMargin)
	a.failure, a.tries = err, a.tries+1
}

// expired drops the access token that was answered 401, and reports whether another one can be had.
func (a *auth) expired(header string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if header == "Bearer "+a.access {
		a.access, a.expires = "", time.Time{}
	}
	return a.personal
}

// redact takes the tokens out of an answer before any of it goes into an error.
func (a *auth) redact(answer []byte, authorization string) []byte {
	answer = bytes.ReplaceAll(answer, []byte(a.token), []byte("[token]"))
	if _, secret, ok := strings.Cut(authorization, " "); ok {
		answer = bytes.ReplaceAll(answer, []byte(secret), []byte("[token]"))
	}
	return answer
}

// refresh asks for an access token. It is a read: nothing changes there, and repeating it is harmless.
func (c *Client) refresh(ctx context.Context, token string) (string, error) {
	body, err := json.Marshal(map[string]string{"refresh": token})
	if err != nil {
		return "", fmt.Errorf("encode the token: %w", err)
	}
	answer, err := c.exchange(ctx, call{op: OpTokenRefresh, method: http.MethodPost, path: "/api/token/refresh/", body: body, maxBody: maxSmallBody}, "")
	if err != nil {
		return "", err
	}
	access, err := decodeAccess(answer)
	if err != nil {
		return "", &Error{Op: OpTokenRefresh, Status: http.StatusOK, Err: err}
	}
	return access, nil
}

func decodeAccess(body []byte) (string, error) {
	var answer struct {
		Access string `json:"access"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", fmt.Errorf("decode the access token: %w", withoutText(err))
	}
	if answer.Access == "" {
		return "", errors.New("the answer holds no access token")
	}
	return answer.Access, nil
}
