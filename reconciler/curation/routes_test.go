package curation

import (
	"testing"

	"github.com/aristotle/reconciler/reconciler/web/webtest"
)

// What programs may call is described.
func TestCallsAreDescribed(t *testing.T) {
	t.Parallel()
	webtest.Routes(t, new(App).programs())
}
