package sandbox

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
)

// accessLifetime is that of the real one's access tokens.
const accessLifetime = 5 * time.Minute

// grant is what an access token stands for.
type grant struct {
	user *user
	ends time.Time
}

func newUUID() string { return uuid.NewString() }

func newLegacyToken() string {
	b := make([]byte, 20)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func newPersonalToken() string {
	return newJWT("refresh", time.Now(), 200*365*24*time.Hour)
}

// newJWT makes something with the form of a JWT; its signature is chance, and known here.
func newJWT(kind string, from time.Time, lifetime time.Duration) string {
	part := base64.RawURLEncoding.EncodeToString
	payload := fmt.Sprintf(`{"token_type":%q,"exp":%d,"iat":%d,"jti":%q,"user_id":"1"}`, kind, from.Add(lifetime).Unix(), from.Unix(), newUUID())
	return part([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + part([]byte(payload)) + "." + part([]byte(newLegacyToken()))
}

func isJWT(token string) bool { return strings.Count(token, ".") == 2 }

// ExpireAccessTokens ends all access tokens that were given out, as a restart with another secret key does; personal access tokens go on.
func (s *StandIn) ExpireAccessTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.access)
}

// RevokeToken makes all tokens of a user unknown.
func (s *StandIn) RevokeToken(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.users[id]; u != nil {
		u.token, u.personal = newLegacyToken(), newPersonalToken()
		for access, g := range s.access {
			if g.user == u {
				delete(s.access, access)
			}
		}
	}
}

// authenticate finds the user of a request; the answer is the refusal where there is none.
func (s *StandIn) authenticate(r *http.Request) (*user, *answer) {
	kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch kind {
	case "Token":
		for _, u := range s.users {
			if u.token == token {
				return u, nil
			}
		}
		return nil, refuse(http.StatusUnauthorized, "Invalid token.")
	case "Bearer":
		if g, ok := s.access[token]; ok && time.Now().Before(g.ends) {
			return g.user, nil
		}
	}
	// Also for an access token that is no longer good.
	return nil, refuse(http.StatusUnauthorized, "Authentication credentials were not provided.")
}

func (s *StandIn) refreshToken(r *request) *answer {
	var in struct {
		Refresh string `json:"refresh"`
	}
	if refusal := r.decode(&in); refusal != nil {
		return refusal
	}
	for _, u := range s.users {
		if u.personal == in.Refresh {
			now := time.Now()
			access := newJWT("access", now, accessLifetime)
			s.access[access] = grant{u, now.Add(accessLifetime)}
			return ok(object{"access": access})
		}
	}
	return refuse(http.StatusUnauthorized, "Token is invalid")
}
