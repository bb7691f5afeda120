package story

import (
	"fmt"

	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/star"
)

// sentence tells one record: what happened, what was made of it, how its PATCH ended.
func sentence(r ledger.Record) string {
	text := happened(r)
	if r.Intent != nil {
		text += " " + written(r)
	}
	return text
}

// happened is the first half: what led to the record.
func happened(r ledger.Record) string {
	task, result := "", Result(r.Result)
	if r.Task != nil {
		task = fmt.Sprintf("task %d", *r.Task)
	}
	switch r.Reason {
	case ledger.ReasonRow:
		if r.D != nil && *r.D {
			return "The conquest was marked VICTORY in Aristotle."
		}
		return "VICTORY was taken away in Aristotle: the conquest is " + result + "."
	case ledger.ReasonClick:
		return clicked(r)
	case ledger.ReasonSettled:
		return "With that, " + task + " waits no longer."
	case ledger.ReasonRating:
		return "The rating did not say what the conquest says, and was put right."
	case ledger.ReasonForget:
		return "The conquest is gone, or is another one under the same id: what was known of it is forgotten. Its tasks were left alone."
	case ledger.ReasonRelink:
		return "What was " + task + " is another task now, or one of another conquest."
	case ledger.ReasonMissing:
		return "Label Studio has no " + task + " any more. The conquest stays as it is."
	case ledger.ReasonBack:
		return "Label Studio has " + task + " again, and it goes on where it was."
	}
	if r.Said != nil {
		return said(r, task)
	}
	return taken(r, task, result)
}

// clicked is a person's word that was said to us.
func clicked(r ledger.Record) string {
	word := "VICTORY"
	if r.Said != nil && !*r.Said {
		word = "not VICTORY"
	}
	text := fmt.Sprintf("%s said %s", person(r.Who, "Somebody"), word)
	if r.Wrote != nil {
		return fmt.Sprintf("%s: the conquest, %s until then, became %s.", text, Result(r.Result), *r.Wrote)
	}
	return fmt.Sprintf("%s: the conquest was %s already.", text, Result(r.Result))
}

// said is a person's word that was found on a task.
func said(r ledger.Record, task string) string {
	text := "A person starred " + task
	if !*r.Said {
		text = "A person took the star from " + task
	}
	by := ""
	if r.SaidBy != nil {
		by = *r.SaidBy
	}
	switch {
	case by == string(star.ByTask) && *r.Said:
		text = "First contact: " + task + " came with a star"
	case by == string(star.ByTask):
		text = "First contact: " + task + " came without a star, and by RECONCILER_INITIAL the task is right"
	case by == string(star.ByAnnotation) && r.Who != nil:
		text += ", by an annotation of " + *r.Who
	case by == string(star.ByAnnotation):
		text += ", by an annotation"
	case by == string(star.ByMeta):
		text += ", in its meta"
	}
	if r.Wrote != nil {
		return fmt.Sprintf("%s: the conquest, %s until then, became %s.", text, Result(r.Result), *r.Wrote)
	}
	return text + ". The conquest had that from elsewhere, or another word went over it."
}

// taken is what a task's meta was taken for where nobody said anything.
func taken(r ledger.Record, task, result string) string {
	switch star.Reason(r.Reason) {
	case star.BothDecided:
		shows := "no star"
		if r.Shown != nil && *r.Shown || len(r.Stars) > 0 {
			shows = "a star"
		}
		return fmt.Sprintf("First contact: %s came with %s, and the conquest is %s. Neither may win: it waits for a person.", task, shows, result)
	case star.MetaReplaced:
		return "Somebody replaced the meta of " + task + ", and the star with it: no word on the star."
	case star.OldCopy:
		return "Somebody saved an old copy of " + task + " over what was written: no word on the star."
	case star.DidNotHappen:
		return "What was to be written to " + task + " had not been."
	case star.UnionVictory, star.Adopted:
		return fmt.Sprintf("First contact with %s: the conquest is %s.", task, result)
	default:
		return fmt.Sprintf("The conquest is %s, and %s did not show that.", result, task)
	}
}

// written is the PATCH of a record and its end.
func written(r ledger.Record) string {
	what := map[bool]string{true: "The star %s written to task %d", false: "The star %s taken from task %d"}[*r.Intent]
	switch {
	case r.Answer == nil:
		return fmt.Sprintf(what, "was to be", *r.Task) + "; whether it was is not known."
	case *r.Answer == ledger.AnswerWorked:
		return fmt.Sprintf(what, "was", *r.Task) + "."
	default:
		return fmt.Sprintf(what, "was to be", *r.Task) + ": " + *r.Answer + "."
	}
}

func person(who *string, nobody string) string {
	if who == nil {
		return nobody
	}
	return *who
}
