package reconciler_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// audited takes the records of the audit, a line each.
func (r *rig) audited() []string {
	r.Helper()
	rows, err := r.db.Query(r.Context(), `WITH told AS (DELETE FROM reconciler.audit RETURNING *)
		SELECT concat_ws(', ', source || ': ' || reason, 'task ' || (SELECT ordinality FROM unnest($1::bigint[]) WITH ORDINALITY t(id) WHERE t.id = task_id),
			'said ' || said || ' by ' || said_by, who, result, 'shows ' || shown, cardinality(stars) || ' stars', d || '@' || n, 'wrote ' || wrote,
			'PATCH ' || intent || ' ' || COALESCE(answer, 'open'))
		FROM told ORDER BY id`, r.tasks)
	if err != nil {
		r.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		r.Fatal(err)
	}
	return lines
}

// TestAudit: every decision that wrote something or held back has its record, and the
// record of a PATCH learns what became of it. At rest nothing is recorded.
func TestAudit(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, studio.Delays{})
	turner := r.turner(r.client)
	r.linked("union")
	r.turnAll(turner)
	step := func(what string, from ledger.Source, want ...string) {
		t.Helper()
		if _, err := r.ledger.Enqueue(t.Context(), []string{"c0"}, from); err != nil {
			t.Fatal(err)
		}
		r.turnAll(turner)
		if diff := cmp.Diff(append([]string{}, want...), r.audited()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	result := func(to string) { r.exec(`UPDATE "Conquest" SET result = $1`, to) }
	// once lets one PATCH of a task fail.
	once := func(f studio.Fault) {
		done := false
		r.studio.Faults(func(q *http.Request) studio.Fault {
			if q.Method != http.MethodPatch || !strings.HasPrefix(q.URL.Path, "/api/tasks/") || done {
				return studio.Fault{}
			}
			done = true
			return f
		})
	}
	step("at rest", ledger.FromDiff)

	result("VICTORY")
	step("a VICTORY", ledger.FromWAL,
		"wal: edit of the row, VICTORY, true@1",
		"wal: same, task 1, VICTORY, shows false, true@1, PATCH true worked")
	r.exec(`UPDATE ml_analysis_rating SET is_gold_star = false`)
	step("a rating that somebody changed", ledger.FromDiff, "diff: rating, VICTORY, true@1")

	once(studio.Fault{Kind: studio.FaultStatus, Status: http.StatusBadRequest})
	result("DEFEAT")
	step("a PATCH that is refused", ledger.FromWAL,
		"wal: edit of the row, DEFEAT, false@2",
		"wal: same, task 1, DEFEAT, shows true, false@2, PATCH false refused: patch task 1: status 400: Bad Request",
		"wal: same, task 1, DEFEAT, shows true, false@2, PATCH false worked")
	once(studio.Fault{Kind: studio.FaultLost})
	result("VICTORY")
	step("an answer that is lost", ledger.FromWAL,
		"wal: edit of the row, VICTORY, true@3",
		"wal: same, task 1, VICTORY, shows false, true@3, PATCH true no answer, found to have worked")
	once(studio.Fault{Kind: studio.FaultCut})
	result("DEFEAT")
	step("a PATCH that is lost", ledger.FromWAL,
		"wal: edit of the row, DEFEAT, false@4",
		"wal: same, task 1, DEFEAT, shows true, false@4, PATCH false no answer, found to have had no effect",
		"wal: did not happen, task 1, DEFEAT, shows true, false@4, PATCH false worked")

	const person = "annotator@example.com"
	gold, err := labelstudio.ChoicesRegion("verdict", "model_response", "gold_star")
	if err != nil {
		t.Fatal(err)
	}
	note, err := r.studio.Annotate(r.studio.AddUser(person), r.tasks[0], labelstudio.AnnotationEdit{Result: []labelstudio.Region{gold}})
	if err != nil {
		t.Fatal(err)
	}
	step("a star", ledger.FromWebhook,
		"webhook: same, task 1, said true by annotation, annotator@example.com, DEFEAT, shows false, 1 stars, true@5, wrote VICTORY, PATCH true worked")
	result("NEUTRAL")
	if err := r.studio.DeleteAnnotation(note); err != nil {
		t.Fatal(err)
	}
	step("both sides at once", ledger.FromWebhook,
		"webhook: edit of the row, NEUTRAL, false@6",
		"webhook: same, task 1, said false by annotation, NEUTRAL, shows true, false@6, PATCH false worked")

	r.exec(`UPDATE "Conquest" SET "createdAt" = now() + interval '1 day', result = 'VICTORY'`)
	step("another row", ledger.FromDiff,
		"diff: the row is gone or another one, false@6",
		"diff: union: victory, task 1, VICTORY, shows false, true@0, PATCH true worked")
}
