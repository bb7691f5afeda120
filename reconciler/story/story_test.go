package story

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// TestTell tells one of everything.
func TestTell(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.FixedZone("", 9*3600))
	plato, anna, task := "plato@example.com", "anna@example.com", int64(7)
	victory, defeat := "VICTORY", "DEFEAT"
	yes, no, meta, note, first := true, false, "meta", "annotation", "task"
	worked, refused, found := ledger.AnswerWorked, ledger.AnswerRefused+": status 400", ledger.AnswerFound
	record := func(reason string, change func(*ledger.Record)) ledger.Record {
		r := ledger.Record{At: at, Audit: ledger.Audit{Task: &task, Reason: reason, Source: ledger.FromWAL, Result: &defeat}}
		change(&r)
		return r
	}
	said := func(v *bool, by, who, wrote *string) func(*ledger.Record) {
		return func(r *ledger.Record) { r.Said, r.SaidBy, r.Who, r.Wrote = v, by, who, wrote }
	}
	patch := func(v *bool, answer *string) func(*ledger.Record) {
		return func(r *ledger.Record) { r.Intent, r.Answer = v, answer }
	}
	nothing := func(*ledger.Record) {}
	s := Tell(ledger.History{
		View: ledger.View{
			Key: "k", Hub: &ledger.Hub{D: &yes, N: 3}, Row: &aristotle.Face{Result: &victory, EvaluatedBy: &plato, EvaluatedAt: &at},
			Edges: []ledger.Edge{
				{Task: 1, Project: 9, S: &yes}, {Task: 2, Project: 9}, {Task: 3, Project: 9, S: &no, MissingSince: &at}, {Task: 4, Project: 9, S: &no, IntentValue: &yes},
				{Task: 5, Project: 9, Held: &ledger.Held{Since: at}}, {Task: 6, Project: 9, Held: &ledger.Held{Since: at, Stars: []int64{1}, Who: &anna, At: &at}},
			},
			Queued: &ledger.Queued{Dirty: true, Since: at, RunAfter: at, Attempts: 2, Error: &refused},
		},
		Records: []ledger.Record{
			record(ledger.ReasonRow, func(r *ledger.Record) { r.D = &yes }),
			record(ledger.ReasonRow, func(r *ledger.Record) { r.D = &no }),
			record("same", patch(&no, &worked)),
			record("same", patch(&yes, &refused)),
			record("meta replaced", patch(&yes, &found)),
			record("old copy", patch(&yes, nil)),
			record("did not happen", patch(&yes, &worked)),
			record("union: victory", patch(&yes, &worked)),
			record("a person decided both", func(r *ledger.Record) { r.Shown = &yes }),
			record("same", said(&yes, &note, &anna, &victory)),
			record("edit of meta", said(&no, &meta, nil, &defeat)),
			record("union: star", said(&yes, &first, nil, &victory)),
			record("the task is right", said(&no, &first, nil, &defeat)),
			record("same", said(&no, &note, nil, nil)),
			record(ledger.ReasonClick, said(&yes, nil, &plato, &victory)),
			record(ledger.ReasonClick, said(&no, nil, nil, nil)),
			record(ledger.ReasonSettled, nothing),
			record(ledger.ReasonRating, nothing),
			record(ledger.ReasonForget, nothing),
			record(ledger.ReasonRelink, nothing),
			record(ledger.ReasonMissing, nothing),
			record(ledger.ReasonBack, nothing),
		},
	})
	var told []string
	for _, e := range s.Story {
		told = append(told, e.Text)
	}
	want := `
The conquest is VICTORY, evaluated by plato@example.com at 2026-11-24 03:00:00.
Task 1 of project 9 shows the star.
Task 2 of project 9 had no first contact yet.
Task 3 of project 9 is missing since 2026-11-24 03:00:00; what it showed is remembered.
Task 4 of project 9 is being written: the star, and how that ended is not known yet.
Task 5 of project 9 waits for a person since 2026-11-24 03:00:00: it shows no star.
Task 6 of project 9 waits for a person since 2026-11-24 03:00:00: an annotation says star, of anna@example.com at 2026-11-24 03:00:00.
It waits for a turn since 2026-11-24 03:00:00, which is due at 2026-11-24 03:00:00, after 2 failures: refused: status 400.

The conquest was marked VICTORY in Aristotle.
VICTORY was taken away in Aristotle: the conquest is DEFEAT.
The conquest is DEFEAT, and task 7 did not show that. The star was taken from task 7.
The conquest is DEFEAT, and task 7 did not show that. The star was to be written to task 7: refused: status 400.
Somebody replaced the meta of task 7, and the star with it: no word on the star. The star was to be written to task 7: no answer, found to have worked.
Somebody saved an old copy of task 7 over what was written: no word on the star. The star was to be written to task 7; whether it was is not known.
What was to be written to task 7 had not been. The star was written to task 7.
First contact with task 7: the conquest is DEFEAT. The star was written to task 7.
First contact: task 7 came with a star, and the conquest is DEFEAT. Neither may win: it waits for a person.
A person starred task 7, by an annotation of anna@example.com: the conquest, DEFEAT until then, became VICTORY.
A person took the star from task 7, in its meta: the conquest, DEFEAT until then, became DEFEAT.
First contact: task 7 came with a star: the conquest, DEFEAT until then, became VICTORY.
First contact: task 7 came without a star, and by RECONCILER_INITIAL the task is right: the conquest, DEFEAT until then, became DEFEAT.
A person took the star from task 7, by an annotation. The conquest had that from elsewhere, or another word went over it.
plato@example.com said VICTORY: the conquest, DEFEAT until then, became VICTORY.
Somebody said not VICTORY: the conquest was DEFEAT already.
With that, task 7 waits no longer.
The rating did not say what the conquest says, and was put right.
The conquest is gone, or is another one under the same id: what was known of it is forgotten. Its tasks were left alone.
What was task 7 is another task now, or one of another conquest.
Label Studio has no task 7 any more. The conquest stays as it is.
Label Studio has task 7 again, and it goes on where it was.
`
	if diff := cmp.Diff(want, "\n"+strings.Join(s.Now, "\n")+"\n\n"+strings.Join(told, "\n")+"\n"); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !s.Known || !*s.Value || s.Count != 3 || len(s.Tasks) != 6 {
		t.Errorf("%+v", s)
	}
	if s := Tell(ledger.History{View: ledger.View{Key: "nobody"}}); s.Known || s.Now[0] != "There is no such conquest in Aristotle." {
		t.Errorf("a key that nobody knows: %+v", s)
	}
}
