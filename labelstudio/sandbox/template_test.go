package sandbox

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
)

// A copy of Label Studio's database, copied again, is the same: nothing that dump.sql knows how to see was lost on the way.
func TestTemplateRoundTrip(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves the real Label Studio out")
	}
	postgres := pgtest.Shared(t).URL()
	cache, err := cacheDir("")
	if err != nil {
		t.Fatal(err)
	}
	i, err := prepare(t.Context(), cache, postgres, func(line string) { t.Log(line) })
	if err != nil {
		t.Fatal(err)
	}
	database, err := createDatabase(t.Context(), postgres)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dropDatabase(context.WithoutCancel(t.Context()), postgres, database); err != nil {
			t.Error(err)
		}
	})
	if err := i.restore(t.Context(), database, "token", "password"); err != nil {
		t.Fatal(err)
	}
	got, err := dump(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(i.template())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(settled(string(want)), settled(got)); diff != "" {
		t.Error(diff)
	}
}

// settled leaves out the two rows that restore changes, and the order of rows.
func settled(statements string) []string {
	lines := slices.DeleteFunc(strings.Split(statements, ";\n"), func(line string) bool {
		return strings.HasPrefix(line, "INSERT INTO authtoken_token ") || strings.HasPrefix(line, "INSERT INTO htx_user ")
	})
	slices.Sort(lines)
	return lines
}
