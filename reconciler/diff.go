package reconciler

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/star"
)

// What is noted of a key and is no drift.
const (
	NotedLoneTask      = "task_without_conquest"
	NotedLoneConquest  = "conquest_without_task"
	NotedOverruled     = "overruled_annotation"
	NotedGoldNoVictory = "gold_rating_without_victory"
)

// The ways in which a turn would change a key, as the brake counts them.
const (
	changeSet   = "set"
	changeClear = "clear"
	changeLink  = "link"
	changeStray = "stray" // a link as well, of what may be another Label Studio
)

// compared is a key with what both sides show of it and what a turn would make of it:
// the same decision, on what was read so far. It is a forecast, for people and for the
// brakes; the turn reads again.
type compared struct {
	ledger.Finding
	pair  ledger.Pair
	tasks []shown
	noted []string
	// touch: it is to be looked at, if only to be remembered.
	touch bool
}

// shown is a task of a compared key.
type shown struct {
	task int64
	glimpse
	star bool // what it shows
}

// compare says what a turn would make of a key. glimpses are what was seen of its tasks
// where that is not as they are remembered; since is when the looking began.
func compare(p ledger.Pair, glimpses map[int64]*glimpse, ours ledger.Projects, since time.Time) compared {
	c := compared{pair: p, Finding: ledger.Finding{Key: p.Key}}
	edges, looks := c.see(glimpses, ours)
	if p.Row == nil {
		c.touch = p.Hub != nil || c.Class != ""
		if len(edges) > 0 {
			c.noted = append(c.noted, NotedLoneTask)
		}
		return c
	}
	hub := p.Hub
	if hub != nil && !hub.Of(&p.Row.Conquest) { // another row: first contact comes again
		hub, c.touch = nil, true
		for i := range looks {
			looks[i].Edge = looks[i].Edge.Forget()
		}
	}
	c.touch = c.touch || hub == nil || hub.D == nil || hub.Missed(&p.Row.Conquest)
	d := star.Decide(resultOf(&p.Row.Conquest), starHub(hub), looks)
	c.judge(hub, looks, d)
	if p.Working.Dirty || p.Working.Running || p.Working.TriedAt != nil && p.Working.TriedAt.After(since) {
		c.Explained = c.Class != "" && c.Class != string(metrics.DriftHeld)
	}
	return c
}

// see puts each edge of our projects together with what was seen of its task.
func (c *compared) see(glimpses map[int64]*glimpse, ours ledger.Projects) (edges []ledger.PairEdge, looks []star.Look) {
	for _, e := range c.pair.Edges {
		if !ours.Have(e.Project) {
			continue
		}
		edges = append(edges, e)
		g := glimpses[e.Task]
		if g != nil && outdated(e.Edge, g, c.pair.Working) {
			g = nil
		}
		look, known := star.Look{Edge: toStar(e.Edge)}, recall(e.Edge)
		switch {
		case g == nil && e.MissingSince != nil:
			look.Sight = star.Missing
		case g == nil && e.S == nil && e.Held == nil:
			look.Sight, c.touch = star.Unread, true
		case g == nil:
			g = &known
		case g.Absent:
			look.Sight = star.Missing
			c.stale(e.Edge, g, "its project does not list it")
		case g.Stray:
			look.Sight = star.Missing
			c.Finding, c.touch = strayed(e.Key, e.Task, e.Project), true
		case isOtherTask(e.Edge, g.CreatedAt) || g.Key != e.Key:
			look.Sight = star.Missing
			c.stale(e.Edge, g, either(g.Key == e.Key, "its number is another task's now", "it names another conquest"))
		default:
			c.touch = true
		}
		if g != nil && look.Sight == star.Seen {
			look.Meta, look.Stars = g.Meta, g.ids()
			if e.IntentValue != nil && e.IntentWait != nil && *e.IntentWait > 0 && string(g.Meta.Stamp) != *e.IntentAttempt {
				look.Sight = star.Waiting
			}
			c.tasks = append(c.tasks, shown{task: e.Task, glimpse: *g, star: look.Shown()})
		}
		looks = append(looks, look)
	}
	return edges, looks
}

// outdated tells whether a turn has read a task later than it was seen. A task that is
// older than its edge and that no turn can have been at since was put back: somebody
// restored Label Studio.
func outdated(e ledger.Edge, g *glimpse, q ledger.Working) bool {
	if g.Absent {
		return e.MissingSince != nil || q.TriedAt != nil && q.TriedAt.After(g.At)
	}
	return e.TaskUpdatedAt != nil && e.TaskUpdatedAt.After(g.UpdatedAt) &&
		q.TriedAt != nil && q.TriedAt.Add(ledger.Lease).After(g.At)
}

// stale notes that a link does not hold.
func (c *compared) stale(e ledger.Edge, g *glimpse, why string) {
	if c.touch = true; c.Change == changeStray {
		return
	}
	c.Class, c.Change = string(metrics.LinkStale), changeLink
	c.Decision, c.Reason = fmt.Sprintf("ask for task %d by itself", e.Task), why
	if g.Distrusted {
		c.Change, c.Leave, c.Decision = "", true, "nothing: it may be another Label Studio, or one that was restored"
		c.Reason = strangeReason(e.Project)
	}
}

// strayed is the finding of a key that a task names which nothing is linked to before a person has
// said so.
func strayed(key string, task, project int64) ledger.Finding {
	return ledger.Finding{Key: key, Class: string(metrics.LinkStale), Change: changeStray, Decision: fmt.Sprintf("begin with task %d", task),
		Reason: strangeReason(project)}
}

func strangeReason(project int64) string {
	return fmt.Sprintf("project %d may be another one: neither the first nor the last of the tasks that were known is there", project)
}

// judge gives the key its class, by what is most wrong with it: row and star first,
// then what waits for a person, then the rating, then links.
func (c *compared) judge(hub *ledger.Hub, looks []star.Look, d star.Decision) {
	row, victory := c.pair.Row, d.Hub.D
	met := starHub(hub).Known // what follows is no star of a first contact
	var does, why []string
	held, first := false, true
	for i, o := range d.Edges {
		held = held || o.Held
		if o.Write || i == d.Speaker {
			first = first && looks[i].New
			why = append(why, string(o.Reason))
		}
		if o.Write {
			does = append(does, fmt.Sprint(either(victory, "star task ", "take the star from task "), o.Task))
		}
		if looks[i].Sight == star.Seen && len(looks[i].Stars) > 0 && !looks[i].Shown() && o.Said == star.Absent && !o.Held {
			c.noted = append(c.noted, NotedOverruled)
		}
	}
	if victory != row.IsVictory() {
		does = slices.Insert(does, 0, "the row becomes "+either(victory, aristotle.Victory, hub.GiveBack()))
	} else if met && victory != starHub(hub).D {
		why = append(why, "edit of the row")
	}
	switch {
	case len(does) > 0:
		c.Class, c.Leave = string(classOf(row.IsVictory())), false
		c.Change = either(victory, changeSet, changeClear)
		if victory && (first || !met) {
			c.Change = "" // the star of a first contact
		}
		c.Decision, c.Reason = strings.Join(does, ", "), strings.Join(slices.Compact(why), ", ")
	case held:
		c.Class, c.Change, c.Leave = string(metrics.DriftHeld), "", !c.touch
		c.Decision, c.Reason = "a person decides", string(star.BothDecided)
	case victory && !c.rated(len(looks) > 0):
		c.Class, c.Change, c.Leave = string(metrics.RatingWrong), "", false
		c.Decision, c.Reason = "write the rating", fmt.Sprintf("%d gold ratings, one that fits is wanted", c.pair.Rating.Gold)
	}
	switch {
	case !victory && c.pair.Rating.Gold > 0 && !row.IsVictory() && !starHub(hub).D:
		c.noted = append(c.noted, NotedGoldNoVictory)
	case len(looks) == 0:
		c.noted = append(c.noted, NotedLoneConquest)
	}
	if met && starHub(hub).D != d.Hub.D || c.Class != "" && c.Class != string(metrics.DriftHeld) {
		c.touch = true
	}
}

// rated tells whether the ratings of a VICTORY are as they should be: they name a task
// where there is one.
func (c *compared) rated(linked bool) bool {
	return c.pair.Rating.Gold == 1 && c.pair.Rating.Fit && (c.pair.Rating.Placed || !linked)
}

func either(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

// classOf names what a person sees: a VICTORY whose star is missing, or a star whose
// VICTORY is. Which of the two is to follow is the decision's.
func classOf(isVictory bool) metrics.Drift {
	if isVictory {
		return metrics.StarMissing
	}
	return metrics.VictoryMissing
}
