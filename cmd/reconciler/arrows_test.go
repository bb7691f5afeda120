package main

import (
	"go/build"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/aristotle/reconciler"

// arrows is the map of the code: who may import whom, all of it pointing down. A package that is not here is a room that
// nobody drew: draw it, or move its contents.
func arrows() map[string][]string {
	leaves := []string{"cdc", "labelstudio", "aristotle", "metrics"}
	return map[string][]string{
		"cmd/reconciler": append([]string{"reconciler", "reconciler/api", "reconciler/auth", "reconciler/curation", "reconciler/icl", "reconciler/ledger",
			"reconciler/logs", "reconciler/star", "reconciler/story", "reconciler/web", "labelstudio/sandbox", "aristotle/sandbox"}, leaves...),
		"reconciler":          append([]string{"reconciler/icl", "reconciler/ledger", "reconciler/logs", "reconciler/star", "reconciler/story"}, leaves...),
		"reconciler/api":      {"reconciler/auth", "reconciler/icl", "reconciler/ledger", "reconciler/logs", "reconciler/web", "labelstudio", "aristotle", "metrics"},
		"reconciler/curation": {"reconciler/auth", "reconciler/icl", "reconciler/ledger", "reconciler/logs", "reconciler/story", "reconciler/web", "labelstudio", "aristotle", "metrics"},
		// What both servers share.
		"reconciler/auth":        {"reconciler/logs", "reconciler/web", "metrics"},
		"reconciler/web":         {"metrics"},
		"reconciler/web/webtest": {"reconciler/web"},
		"reconciler/story":       {"reconciler/ledger", "reconciler/star", "aristotle"},
		"reconciler/icl":         {"reconciler/ledger", "reconciler/logs", "aristotle", "metrics"},
		"reconciler/ledger":      {"reconciler/logs", "reconciler/star", "aristotle", "metrics"},
		"reconciler/star":        {},
		"reconciler/logs":        {},
		// Three leaves, none of which imports another.
		"cdc":         {"metrics"},
		"labelstudio": {"metrics"},
		"aristotle":   {"metrics"},
		"metrics":     {},
		// Servers for the demo and for tests; each knows only the side that it stands for.
		"aristotle/sandbox":          {"aristotle"},
		"aristotle/sandbox/pgtest":   {"aristotle/sandbox"},
		"labelstudio/sandbox":        {"labelstudio"},
		"labelstudio/sandbox/lstest": {"labelstudio/sandbox"},
	}
}

// TestArrows compares the imports of the code, tests apart, with the map.
func TestArrows(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	allowed := arrows()
	found := 0
	err := filepath.WalkDir(root, func(dir string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(dir, root+string(filepath.Separator)))
		if base := d.Name(); base == "testdata" || name == "deploy" || strings.HasPrefix(base, ".") && base != ".." {
			return filepath.SkipDir
		}
		pkg, err := build.Default.ImportDir(dir, 0)
		if _, none := err.(*build.NoGoError); none {
			return nil
		} else if err != nil {
			return err
		}
		found++
		may, drawn := allowed[name]
		if !drawn {
			t.Errorf("%s is not on the map", name)
			return nil
		}
		for _, imported := range pkg.Imports {
			checkImport(t, name, imported, may)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 4 {
		t.Fatalf("found only %d packages below %s: nothing was checked", found, root)
	}
}

func checkImport(t *testing.T, name, imported string, may []string) {
	t.Helper()
	inside, ours := strings.CutPrefix(imported, module+"/")
	switch {
	case ours && !slices.Contains(may, inside):
		t.Errorf("%s imports %s: no arrow on the map", name, inside)
	case name == "reconciler/star" && strings.Contains(strings.Split(imported, "/")[0], "."):
		t.Errorf("%s imports %s: it is to be the standard library's alone", name, imported)
	case path.Base(name) == "sandbox" && imported == "testing":
		t.Errorf("%s imports testing: the demo ships it", name)
	}
}

// The visible top level is fixed.
func TestTopLevel(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	fixed := []string{"cmd", "reconciler", "cdc", "labelstudio", "aristotle", "metrics", "deploy", "go.mod", "go.sum", "README.md"}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(fixed, e.Name()) && e.Name() != "reconciler.yaml" {
			t.Errorf("%s stands at the top, where only %s may", e.Name(), strings.Join(fixed, ", "))
		}
	}
}
