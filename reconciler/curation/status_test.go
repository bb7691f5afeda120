package curation

import "testing"

// TestAge: an age is told in the units that a person thinks in.
func TestAge(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[float64]string{0: "nothing", 1.26: "1.3 s", 96.7: "1 min 36 s", 3600: "1 h 0 min", 3725: "1 h 2 min"} {
		if got := age(seconds); got != want {
			t.Errorf("%v s: %q, want %q", seconds, got, want)
		}
	}
}
