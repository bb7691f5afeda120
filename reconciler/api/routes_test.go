package api

import (
	"slices"
	"strings"
	"testing"

	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/web/webtest"
)

// openapi.yaml has every route of this server, and none that is not there. Those under /api are the curation app's.
func TestRoutes(t *testing.T) {
	t.Parallel()
	m := (&API{Guard: &auth.Guard{}}).routes()
	webtest.Routes(t, m)
	for _, path := range webtest.Paths(t) {
		here := slices.ContainsFunc(m.Patterns(), func(p string) bool { return strings.HasSuffix(p, " "+path) })
		if !here && !strings.HasPrefix(path, "/api/") {
			t.Errorf("openapi.yaml has %s, which is not served", path)
		}
	}
}
