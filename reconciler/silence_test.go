package reconciler

import (
	"testing"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
)

// TestHear: which annotations Label Studio must have announced since the pass before.
func TestHear(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	for name, c := range map[string]struct {
		task    float64   // when it was saved, after the newest annotation of the pass before
		notes   []float64 // when its annotations were
		changed bool
		newest  float64
	}{
		"made":                               {1.2, []float64{1}, true, 1},
		"one of two":                         {1, []float64{-500, 1}, true, 1},
		"seen before":                        {1, []float64{0}, false, 0},
		"the task alone":                     {50, []float64{-500}, false, 0},
		"copied, and the task changed later": {500, []float64{100}, false, 100},
		"none":                               {50, nil, false, 0},
	} {
		task := labelstudio.Task{UpdatedAt: at(c.task)}
		for _, s := range c.notes {
			task.Annotations = append(task.Annotations, labelstudio.Annotation{UpdatedAt: at(s)})
		}
		n := notes{newest: start}
		if changed := n.hear(&task, notes{newest: start}); changed != c.changed || !n.newest.Equal(at(c.newest)) {
			t.Errorf("%s: %v, newest %s", name, changed, n.newest.Sub(start))
		}
	}
}
