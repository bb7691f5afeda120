package sandbox_test

import (
	"os"
	"testing"

	pg "github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
)

func TestMain(m *testing.M) {
	pg.Supervise()
	if postgres := os.Getenv(asParent); postgres != "" {
		parent(postgres) // never returns
	}
	pgtest.Main(m)
}
