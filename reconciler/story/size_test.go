package story_test

import (
	"testing"

	"github.com/aristotle/reconciler/reconciler/story"
)

func TestSize(t *testing.T) {
	t.Parallel()
	for bytes, want := range map[float64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 kB", 1 << 14: "16 kB", 1 << 30: "1.0 GB", 1 << 40: "1.0 TB", 1 << 50: "1024 TB"} {
		if got := story.Size(bytes); got != want {
			t.Errorf("%.0f bytes are %q, want %q", bytes, got, want)
		}
	}
}
