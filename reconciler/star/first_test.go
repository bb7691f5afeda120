package star

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// task is a look at a new task of a key that is begun under a choice.
func task(id int64, begun Initial, gold Value, s Sight) Look {
	return Look{Edge: Edge{Task: id, New: true, Begun: begun}, Sight: s, Meta: Meta{Gold: gold}}
}

// known is a look at a task that showed s, and shows gold now.
func known(id int64, s bool, gold Value) Look {
	return Look{Edge: Edge{Task: id, S: s}, Meta: Meta{Gold: gold}}
}

// verdict is what a decision comes to: the hub, and of each edge what is to happen.
type verdict struct {
	D     bool
	N     int64
	Edges []string
}

func of(d Decision) verdict {
	v := verdict{D: d.Hub.D, N: d.Hub.N}
	for _, o := range d.Edges {
		what := "same"
		switch {
		case o.Held:
			what = "held"
		case o.Open:
			what = "open"
		case o.Write && o.Intent.Value:
			what = "star"
		case o.Write:
			what = "unstar"
		}
		v.Edges = append(v.Edges, what)
	}
	return v
}

// TestFirstContact is what decide.csv leaves out: the other choices, and several
// tasks of one key.
func TestFirstContact(t *testing.T) {
	fresh, changed := Hub{}, Hub{Known: true, N: 3}
	for name, c := range map[string]struct {
		row   Result
		hub   Hub
		looks []Look
		want  verdict
	}{
		"aristotle: a star is taken away":                  {Pending, fresh, []Look{task(1, Aristotle, Yes, Seen)}, verdict{false, 0, []string{"unstar"}}},
		"aristotle: a VICTORY is starred":                  {Victory, fresh, []Look{task(1, Aristotle, No, Seen)}, verdict{true, 0, []string{"star"}}},
		"hold: a star waits":                               {Pending, fresh, []Look{task(1, Hold, Yes, Seen)}, verdict{false, 0, []string{"held"}}},
		"hold: a VICTORY waits":                            {Victory, fresh, []Look{task(1, Hold, No, Seen)}, verdict{true, 0, []string{"held"}}},
		"hold: both agree":                                 {Victory, fresh, []Look{task(1, Hold, Yes, Seen)}, verdict{true, 0, []string{"same"}}},
		"labelstudio: a bare VICTORY is none":              {Victory, fresh, []Look{task(1, LabelStudio, No, Seen)}, verdict{false, 1, []string{"same"}}},
		"labelstudio: a star on a DEFEAT counts":           {Other, fresh, []Look{task(1, LabelStudio, Yes, Seen)}, verdict{true, 1, []string{"same"}}},
		"labelstudio: one of two stars":                    {Victory, fresh, []Look{task(1, LabelStudio, No, Seen), task(2, LabelStudio, Yes, Seen)}, verdict{true, 0, []string{"star", "same"}}},
		"labelstudio: none of two":                         {Victory, fresh, []Look{task(1, LabelStudio, No, Seen), task(2, LabelStudio, No, Seen)}, verdict{false, 1, []string{"same", "same"}}},
		"labelstudio: the other is not read yet":           {Victory, fresh, []Look{task(1, LabelStudio, No, Seen), task(2, LabelStudio, No, Unread)}, verdict{true, 0, []string{"open", "same"}}},
		"labelstudio: the other is missing":                {Victory, fresh, []Look{task(1, LabelStudio, No, Seen), task(2, LabelStudio, No, Missing)}, verdict{true, 0, []string{"star", "same"}}},
		"labelstudio: the other is known":                  {Victory, Hub{Known: true, D: true}, []Look{task(1, LabelStudio, No, Seen), known(2, true, Yes)}, verdict{true, 0, []string{"star", "same"}}},
		"labelstudio: the hub has changed":                 {Other, changed, []Look{task(1, LabelStudio, Yes, Seen)}, verdict{false, 3, []string{"held"}}},
		"union: the second star of two is on a new word":   {Pending, fresh, []Look{task(1, Union, No, Seen), task(2, Union, Yes, Seen)}, verdict{true, 1, []string{"star", "same"}}},
		"an unread task stops no other":                    {Victory, Hub{Known: true}, []Look{known(1, false, No), {Edge: Edge{Task: 2}, Sight: Unread}}, verdict{true, 1, []string{"star", "same"}}},
		"a missing task is left out":                       {Victory, Hub{Known: true}, []Look{{Edge: Edge{Task: 1}, Sight: Missing}}, verdict{true, 1, []string{"same"}}},
		"a star on one task stars the other":               {Pending, Hub{Known: true}, []Look{known(1, false, Yes), known(2, false, No)}, verdict{true, 1, []string{"same", "star"}}},
		"no task at all: the hub follows the row":          {Victory, Hub{Known: true}, nil, verdict{true, 1, nil}},
		"a person's later word on the other task prevails": {Pending, Hub{Known: true, D: true, N: 1}, []Look{known(1, false, Yes), known(2, true, Yes)}, verdict{true, 3, []string{"same", "same"}}},
	} {
		if diff := cmp.Diff(c.want, of(Decide(c.row, c.hub, c.looks))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestTwoStarKeys: where gold_star and is_gold_star differ, the one that differs
// from what we last saw is the one that somebody changed.
func TestTwoStarKeys(t *testing.T) {
	for _, c := range []struct {
		meta Meta
		edge Edge
		want Value
	}{
		{Meta{Gold: Yes, IsGold: No}, Edge{S: true}, No},
		{Meta{Gold: Yes, IsGold: No}, Edge{S: false}, Yes},
		{Meta{Gold: No, IsGold: Yes}, Edge{S: false}, Yes},
		{Meta{Gold: No, IsGold: Yes}, Edge{New: true}, Yes},
		{Meta{Gold: Yes, IsGold: No}, Edge{S: false, Older: No}, No},                                              // as it was at the last look
		{Meta{Gold: Yes, IsGold: No}, Edge{S: true, Older: No}, Yes},                                              // the same
		{Meta{Gold: No, IsGold: Yes}, Edge{S: false, Older: No}, Yes},                                             // both were changed
		{Meta{Gold: Yes, IsGold: No, Stamp: "a"}, Edge{S: false, Intent: &Intent{Value: true, Attempt: "a"}}, No}, // after our PATCH
		{Meta{IsGold: Yes}, Edge{S: false}, Yes},
		{Meta{Stamp: "a"}, Edge{S: true}, No},
		{Meta{}, Edge{S: true}, Absent},
	} {
		if got := c.meta.value(c.edge); got != c.want {
			t.Errorf("%+v at %+v says %v, want %v", c.meta, c.edge, got, c.want)
		}
	}
}

// TestTwoStarKeysComeToRest: keys that differ are somebody's word once, and are put
// in order, however often the PATCH that does it is refused.
func TestTwoStarKeysComeToRest(t *testing.T) {
	hub, edge := Hub{Known: true, D: true, N: 1}, Edge{Task: 1, S: true}
	torn := Meta{Gold: Yes, IsGold: No}
	for look := range 4 {
		row := map[bool]Result{true: Victory, false: Pending}[hub.D]
		d := Decide(row, hub, []Look{{Edge: edge, Meta: torn}})
		if o := d.Edges[0]; d.Hub.D || d.Hub.N != 2 || !o.Write || o.Intent.Value {
			t.Fatalf("look %d: hub %+v, edge %+v: want one word for no star, and a PATCH for it", look, d.Hub, o)
		}
		hub, edge = d.Hub, d.Edges[0].Edge
		edge.Intent = nil // refused
	}
	d := Decide(Pending, hub, []Look{{Edge: edge, Meta: Meta{Gold: No, Stamp: "a"}}})
	if d.Edges[0].Write || d.Hub != hub {
		t.Errorf("not at rest once it is written: %+v", d)
	}
}
