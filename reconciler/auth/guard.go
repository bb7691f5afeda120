package auth

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/aristotle/reconciler/reconciler/web"
)

// Has tells whether a caller has a scope.
func (c Caller) Has(s Scope) bool {
	return slices.Contains(c.Scopes, s) || slices.Contains(c.Scopes, Admin)
}

// Confined returns why a caller may not see what belongs to a philosopher and a
// domain, a 403, and nil where it may. It asks nobody what there is.
func (c Caller) Confined(philosopher, domain string) error {
	switch {
	case c.Philosopher != "" && c.Philosopher != philosopher:
		return web.Refuse(http.StatusForbidden, "This token is confined to one philosopher, and this is another: use that one's token.")
	case c.Domain != "" && c.Domain != domain:
		return web.Refuse(http.StatusForbidden, "This token is confined to one domain, and this is another: use that one's token.")
	}
	return nil
}

// Guard stands before what only some may call.
type Guard struct {
	Tokens *Tokens // nil: none, so whoever is on this machine may do everything
	Local  string  // e-mail of who that is
}

type callerKey struct{}

// From returns who sent the request of a handler that stands behind a [Guard].
func From(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Require lets callers with a scope pass, with the [Caller] in the context, and
// answers all others with a problem: 401 without a known token, 403 without the scope.
func (g *Guard) Require(s Scope, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := g.Caller(r)
		if err == nil && !c.Has(s) {
			err = web.Refuse(http.StatusForbidden, "This token has not the scope %s: use one that has, or add it in the tokens file.", s)
		}
		if err != nil {
			web.Fail(w, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// Caller returns who sent a request, or a [web.Problem]. Every token that is not
// known is answered alike.
func (g *Guard) Caller(r *http.Request) (Caller, error) {
	if g.Tokens == nil {
		if err := OnlyLocal(r); err != nil {
			return Caller{}, err
		}
		return Caller{Email: g.Local, Scopes: []Scope{Admin}}, nil
	}
	if c, known := g.Tokens.Find(Bearer(r)); known {
		return c, nil
	}
	return Caller{}, web.Refuse(http.StatusUnauthorized, "Send a token of the tokens file, as Authorization: Bearer TOKEN.")
}

// Bearer returns the token that a request carries, "" for none.
func Bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return token
}

// OnlyLocal refuses what does not come from this machine: who is on it may call us,
// but a page from elsewhere that its browser shows may not, by whatever name it
// found us. The listener is on loopback; this is against names that lead there.
func OnlyLocal(r *http.Request) error {
	switch {
	case !isLoopback(r.Host):
		return web.Refuse(http.StatusForbidden, "Without tokens only this machine is answered: call a loopback name or address.")
	case !sameOrigin(r):
		return web.Refuse(http.StatusForbidden, "Without tokens no page from another origin is answered.")
	}
	return nil
}

// sameOrigin tells whether a request comes from no page, or from one of ours. Browsers
// tell the origin with what could change something, and with everything how far
// away the page is; following a link to us from elsewhere shows that page nothing.
func sameOrigin(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	return reads && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
