package aristotle

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestRate: one gold rating of a triple where the conquest is starred, none where it
// is not, and nothing written where that is so.
func TestRate(t *testing.T) {
	c := Conquest{ID: "c", Philosopher: "p", Domain: "d"}
	five, two, task, note := 5, 2, int64(7), int64(9)
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	rating := func(id string, gold bool, stars *int, day time.Time) Rating {
		return Rating{ID: id, Key: "c", Philosopher: "p", Domain: "d", Gold: gold, Sample: gold, Stars: stars, createdAt: day}
	}
	placed := func(r Rating, task, note *int64) Rating {
		r.Task, r.Annotation = task, note
		return r
	}
	foreign := rating("foreign", true, &five, day(1))
	foreign.Domain = "another"
	for name, test := range map[string]struct {
		gold bool
		at   *Place
		all  []Rating
		want []Rating
	}{
		"none yet":                {true, &Place{Task: 7, Annotation: 9}, []Rating{foreign}, []Rating{placed(rating(ratingID(c), true, nil, time.Time{}), &task, &note)}},
		"none, and no star":       {false, nil, nil, nil},
		"right already":           {true, nil, []Rating{rating("a", true, &five, day(1))}, nil},
		"the oldest is used":      {true, nil, []Rating{rating("b", false, &two, day(2)), rating("a", false, &two, day(1))}, []Rating{rating("a", true, &two, day(1))}},
		"two gold ones":           {true, nil, []Rating{rating("b", true, &five, day(2)), rating("a", true, &five, day(1))}, []Rating{rating("b", false, &five, day(2))}},
		"gold with too few stars": {true, nil, []Rating{rating("a", true, &two, day(1))}, []Rating{rating("a", true, &two, day(1))}},
		"taken away, ids stay":    {false, &Place{Task: 1}, []Rating{placed(rating("a", true, &five, day(1)), &task, &note)}, []Rating{placed(rating("a", false, &five, day(1)), &task, &note)}},
		"a task to fill in":       {true, &Place{Task: 7, Fill: true}, []Rating{rating("a", true, &five, day(1))}, []Rating{placed(rating("a", true, &five, day(1)), &task, nil)}},
		"a task that stays":       {true, &Place{Task: 8, Fill: true}, []Rating{placed(rating("a", true, &five, day(1)), &task, nil)}, nil},
		"starred on another task": {true, &Place{Task: 7}, []Rating{placed(rating("a", true, &five, day(1)), &note, &note)}, []Rating{placed(rating("a", true, &five, day(1)), &task, nil)}},
	} {
		got := Rate(c, test.gold, test.at, test.all)
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(Rating{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
