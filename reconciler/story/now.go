package story

import (
	"fmt"
	"strings"
	"time"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// now says where a key stands, a sentence each.
func now(s ledger.Standing) []string {
	all := []string{row(s.Row)}
	for _, e := range s.Edges {
		all = append(all, task(e))
	}
	if len(s.Edges) == 0 {
		all = append(all, "No task of it is known.")
	}
	return append(all, queue(s.Queued))
}

func row(r *aristotle.Face) string {
	if r == nil {
		return "There is no such conquest in Aristotle."
	}
	text := "The conquest is " + Result(r.Result)
	if r.EvaluatedBy != nil {
		text += ", evaluated by " + *r.EvaluatedBy
		if r.EvaluatedAt != nil {
			text += " at " + When(*r.EvaluatedAt)
		}
	}
	return text + "."
}

func task(e ledger.Edge) string {
	text := fmt.Sprintf("Task %d of project %d", e.Task, e.Project)
	switch {
	case e.Held != nil:
		return fmt.Sprintf("%s waits for a person since %s: %s.", text, When(e.Held.Since), Showing(e.Held))
	case e.MissingSince != nil:
		return fmt.Sprintf("%s is missing since %s; what it showed is remembered.", text, When(*e.MissingSince))
	case e.IntentValue != nil:
		return fmt.Sprintf("%s is being written: %s, and how that ended is not known yet.", text, map[bool]string{true: "the star", false: "no star"}[*e.IntentValue])
	case e.S == nil:
		return text + " had no first contact yet."
	default:
		return fmt.Sprintf("%s shows %s.", text, shows(*e.S))
	}
}

// Showing says what a held task showed, and who gave the star where that is known.
func Showing(h *ledger.Held) string {
	if len(h.Stars) == 0 {
		return "it shows " + shows(h.Shown)
	}
	text := "an annotation says star"
	if h.Who != nil {
		text += ", of " + *h.Who
	}
	if h.At != nil {
		text += " at " + When(*h.At)
	}
	return text
}

func queue(q *ledger.Queued) string {
	switch {
	case q == nil || !q.Dirty && q.LookAt == nil:
		return "Nothing is to be done."
	case !q.Dirty:
		return "It was written, and is looked at once more at " + When(*q.LookAt) + "."
	case q.Running:
		return "A turn of it is under way."
	}
	text := fmt.Sprintf("It waits for a turn since %s, which is due at %s", When(q.Since), When(q.RunAfter))
	if q.Attempts > 0 {
		text += fmt.Sprintf(", after %d failures", q.Attempts)
	}
	if q.Error != nil {
		text += ": " + strings.TrimSuffix(*q.Error, ".")
	}
	return text + "."
}

func shows(shown bool) string {
	if shown {
		return "the star"
	}
	return "no star"
}

// Result is a row's result in words.
func Result(r *string) string {
	if r == nil {
		return "without a result"
	}
	return *r
}

// When is a moment as a person reads it: UTC, to the second.
func When(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }
