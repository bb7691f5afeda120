package curation

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		from, to string
		want     []piece
	}{
		"the same":        {"one two", "one two", []piece{{"one two", same}}},
		"nothing at all":  {"", "", nil},
		"from nothing":    {"", "one", []piece{{"one", added}}},
		"to nothing":      {"one", "", []piece{{"one", removed}}},
		"a word replaced": {"The candidate is strong.", "The candidate is weak.", []piece{{"The candidate is ", same}, {"strong", removed}, {"weak", added}, {".", same}}},
		"a word more":     {"a c", "a b c", []piece{{"a ", same}, {"b ", added}, {"c", same}}},
		"two places":      {"a b c d e", "a x c y e", []piece{{"a ", same}, {"b", removed}, {"x", added}, {" c ", same}, {"d", removed}, {"y", added}, {" e", same}}},
		"right to left":   {"שלום עולם", "שלום לך", []piece{{"שלום ", same}, {"עולם", removed}, {"לך", added}}},
	} {
		if diff := cmp.Diff(test.want, compare(test.from, test.to)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Two texts of a megabyte without a word in common are no reason to compute for ever.
func TestCompareGivesUp(t *testing.T) {
	t.Parallel()
	from, to := strings.Repeat("a b ", 1<<18), strings.Repeat("c d ", 1<<18)
	checkPieces(t, from, to, compare(from, to))
}

func checkPieces(t *testing.T, from, to string, all []piece) {
	t.Helper()
	var a, b strings.Builder
	for _, p := range all {
		if p.Op != added {
			a.WriteString(p.Text)
		}
		if p.Op != removed {
			b.WriteString(p.Text)
		}
	}
	if a.String() != from || b.String() != to {
		t.Errorf("the pieces are not the two texts: %.80q and %.80q, of %.80q and %.80q", a.String(), b.String(), from, to)
	}
}

// Whatever two texts there are, the pieces put together are those texts.
func FuzzCompare(f *testing.F) {
	f.Add("The candidate is strong.", "The candidate isn't weak, is she?")
	f.Add("a b a b", "b a b a b b")
	f.Add("\xff x", "\x00 x y")
	f.Add("é́é", "e\u0301")
	f.Fuzz(func(t *testing.T, from, to string) {
		all := compare(from, to)
		checkPieces(t, from, to, all)
		for i := 1; i < len(all); i++ {
			if all[i].Op == all[i-1].Op {
				t.Errorf("two neighbours are both %s: %q", all[i].Op, all)
			}
		}
		for _, p := range all {
			if p.Text == "" || utf8.ValidString(from+to) && !utf8.ValidString(p.Text) {
				t.Errorf("a piece is no text: %q", p.Text)
			}
		}
	})
}
