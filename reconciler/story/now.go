package story

import (
	"fmt"
	"strings"
	"time"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// now says where a key stands, a sentence each.
func now(s ledger.View, tasks []Task) []string {
	all := []string{"There is no such conquest in Aristotle."}
	if s.Row != nil {
		all[0] = "The conquest is " + Row(s.Row) + "."
	}
	for _, t := range tasks {
		all = append(all, t.String()+".")
	}
	if len(tasks) == 0 {
		all = append(all, "No task of it is known.")
	}
	return append(all, queue(s.Queued))
}

// Row says what a row is and who made it that, as far as it is known.
func Row(r *aristotle.Face) string {
	if r == nil {
		return "no such conquest"
	}
	text := Result(r.Result)
	if r.EvaluatedBy != nil {
		text += ", evaluated by " + *r.EvaluatedBy
	}
	if r.EvaluatedAt != nil {
		text += " at " + When(*r.EvaluatedAt)
	}
	return text
}

// String says where a task stands.
func (t Task) String() string {
	text := fmt.Sprintf("Task %d of project %d", t.Task, t.Project)
	switch {
	case t.Held != nil:
		return fmt.Sprintf("%s waits for a person since %s: %s", text, When(t.Held.Since), showing(t.Held))
	case t.MissingSince != nil:
		return fmt.Sprintf("%s is missing since %s; what it showed is remembered", text, When(*t.MissingSince))
	case t.Writing != nil:
		return fmt.Sprintf("%s is being written: %s, and how that ended is not known yet", text, shows(*t.Writing))
	case t.Star == nil:
		return text + " had no first contact yet"
	default:
		return fmt.Sprintf("%s shows %s", text, shows(*t.Star))
	}
}

// showing says what a held task showed, and who gave the star where that is known.
func showing(h *ledger.Held) string {
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
