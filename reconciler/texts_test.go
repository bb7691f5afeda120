package reconciler_test

import (
	"testing"

	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// A turn keeps what its task says, also where it has nothing else to write; it writes
// it again only where it has changed, and it goes with the link.
func TestTurnKeepsTexts(t *testing.T) {
	r := newRig(t, 1, studio.Delays{})
	r.settled()
	turner := r.turner(r.client)
	turn := func() {
		t.Helper()
		if _, err := r.ledger.Enqueue(t.Context(), []string{"c0"}, ledger.FromAPI); err != nil {
			t.Fatal(err)
		}
		claims, err := r.ledger.Claim(t.Context(), 10, 10)
		if err != nil || len(claims) != 1 {
			t.Fatal(claims, err)
		}
		if err := turner.Turn(t.Context(), claims); err != nil {
			t.Fatal(err)
		}
	}
	want := func(sql string) {
		t.Helper()
		if !r.ask(`SELECT count(*) = 1 FROM reconciler.task_text WHERE key = 'c0' AND ` + sql) {
			t.Errorf("no text %s", sql)
		}
	}
	annotation := func(text string) labelstudio.AnnotationEdit {
		region, err := labelstudio.TextRegion("response", "model_response", text)
		if err != nil {
			t.Fatal(err)
		}
		return labelstudio.AnnotationEdit{Result: []labelstudio.Region{region}}
	}
	turn()
	want(`prompt = 'p' AND response = 'r' AND corrected IS NULL`)
	r.exec(`CREATE TABLE before AS SELECT xmin::text AS x FROM reconciler.task_text`)
	turn()
	want(`xmin::text = (SELECT x FROM before)`)
	a, err := r.client.CreateAnnotation(t.Context(), r.tasks[0], annotation("better"))
	if err != nil {
		t.Fatal(err)
	}
	turn()
	want(`corrected = 'better' AND annotated_at IS NOT NULL AND response = 'r'`)
	if _, err := r.client.UpdateAnnotation(t.Context(), a.ID, annotation("best")); err != nil {
		t.Fatal(err)
	}
	turn()
	want(`corrected = 'best'`)
	if err := r.client.DeleteAnnotation(t.Context(), a.ID); err != nil {
		t.Fatal(err)
	}
	turn()
	want(`corrected IS NULL AND annotation_id IS NULL`)
	r.exec(`DELETE FROM reconciler.edge`)
	if !r.ask(`SELECT count(*) = 0 FROM reconciler.task_text`) {
		t.Error("a text without a task")
	}
}
