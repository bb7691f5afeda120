package main

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	"github.com/aristotle/reconciler/labelstudio/sandbox/lstest"
)

// flows are the ways that a star goes. Each has conquests of its own, named after it.
var flows = map[string]func(s *street, key string){
	"victory":       victoryFlow,
	"star":          starFlow,
	"deletion":      deletionFlow,
	"overruled":     overruledFlow,
	"meta":          metaFlow,
	"import":        importFlow,
	"import_later":  importLaterFlow,
	"import_before": importBeforeFlow,
	"held":          heldFlow,
	"import_again":  importAgainFlow,
	"renamed":       renamedFlow,
}

// TestStreet goes both ways and both ways back, with the stand-in.
func TestStreet(t *testing.T) {
	t.Parallel()
	for name, schema := range map[string]sandbox.Schema{"varchar": {}, "enum": {Enums: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, side := standIn(t)
			allFlows(newStreet(t, schema, side), slices.Sorted(maps.Keys(flows))...)
		})
	}
}

// TestRealStreet does the same with the real Label Studio: one for all that leave it running, as it takes seconds to start.
func TestRealStreet(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short leaves the real Label Studio out")
	}
	real := lstest.Real(t, pgtest.Shared(t).URL())
	side := hire(t, real)
	// First and alone, since it takes Label Studio away.
	t.Run("outage", func(t *testing.T) { testRealOutage(newStreet(t, sandbox.Schema{}, side), real, openBrowser(t)) })
	t.Run("varchar", func(t *testing.T) {
		t.Parallel()
		allFlows(newStreet(t, sandbox.Schema{}, side), slices.Sorted(maps.Keys(flows))...)
	})
	t.Run("curation", func(t *testing.T) {
		t.Parallel()
		curationFlows(newStreet(t, sandbox.Schema{Texts: true}, side), openBrowser(t))
	})
	t.Run("brake", func(t *testing.T) {
		t.Parallel()
		brakeFlow(newStreet(t, sandbox.Schema{}, side), openBrowser(t))
	})
	t.Run("enum", func(t *testing.T) {
		t.Parallel()
		allFlows(newStreet(t, sandbox.Schema{Enums: true}, side), "victory", "star")
	})
	t.Run("hooks", func(t *testing.T) {
		t.Parallel()
		realHooks(newStreet(t, sandbox.Schema{}, side))
	})
}

func allFlows(s *street, names ...string) {
	bystander := s.pair("bystander", "NEUTRAL")
	row, meta := s.row("bystander"), s.meta(bystander)
	p := s.start()
	s.hook(p)
	s.wantContact(bystander)
	s.Run("flows", func(t *testing.T) {
		for _, name := range names {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				flows[name](s.in(t), name)
			})
		}
	})
	s.wantEqual()
	s.same("the bystander's row", row, s.row("bystander"))
	s.same("the bystander's meta", meta, s.meta(bystander))
	if status := p.stop(); status != 0 {
		s.Errorf("exit status %d after SIGTERM, want 0", status)
	}
}

// A person marks a VICTORY and takes it back. The conquest's own columns are left alone.
func victoryFlow(s *street, key string) {
	task := s.pair(key, "PENDING")
	second := s.task(key, s.projects[1], nil)
	s.exec(`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, rating, feedback, philosopher, domain)
		VALUES ($1, $1, 'conquest_analysis', 3, 'not bad', 'plato@example.com', 'ethics')`, key)
	s.wantContact(task, second)
	meta, rating := s.meta(task), s.rating(key)

	s.setResult("VICTORY", key)
	row := s.row(key)
	s.wantStar(task, true)
	s.wantStar(second, true)
	s.wantRest(key)
	s.same("the row", row, s.row(key))
	now := s.meta(task)
	s.same("meta", meta, now, metaKeys...)
	s.has("meta", now, object{"gold_star": true, "synced_from_aristotle": true, "result_notes": "well argued"})
	s.same("the rating", rating, s.rating(key), ratingColumns...)
	s.has("the rating", s.rating(key), object{"is_gold_star": true, "use_as_sample_response": true, "rating": int64(5),
		"label_studio_task_id": task, "label_studio_annotation_id": nil})

	s.setResult("NEUTRAL", key)
	row = s.row(key)
	s.wantStar(task, false)
	s.wantStar(second, false)
	s.wantRest(key)
	s.same("the row", row, s.row(key))
	s.same("meta", meta, s.meta(task), metaKeys...)
	s.same("the rating", rating, s.rating(key), ratingColumns...)
	s.has("the rating", s.rating(key), object{"is_gold_star": false, "use_as_sample_response": false, "label_studio_task_id": task})
}

// An annotator stars a task of a conquest that was a DEFEAT, and takes it back. The conquest's other task follows.
func starFlow(s *street, key string) {
	task := s.pair(key, "DEFEAT")
	second := s.task(key, s.projects[1], nil)
	s.wantContact(task, second)
	row, meta := s.row(key), s.meta(task)

	note := s.annotate(task, true)
	s.wantResult(key, "VICTORY")
	s.wantStar(task, true)
	s.wantStar(second, true)
	s.wantRest(key)
	s.same("the row", row, s.row(key), starColumns...)
	s.has("the row", s.row(key), object{"useAsExample": true, "evaluatedBy": s.side.annotator})
	s.isNow("evaluatedAt", key)
	s.isNow("updatedAt", key)
	s.same("meta", meta, s.meta(task), metaKeys...)
	rating := s.rating(key)
	s.has("the rating", rating, object{"is_gold_star": true, "use_as_sample_response": true, "rating": int64(5), "analysis_type": "conquest_analysis",
		"philosopher": "plato@example.com", "domain": "ethics", "label_studio_task_id": task, "label_studio_annotation_id": note})

	s.reannotate(note, false)
	s.wantResult(key, "DEFEAT")
	s.wantStar(task, false)
	s.wantStar(second, false)
	s.wantRest(key)
	s.same("the row", row, s.row(key), starColumns...)
	s.has("the row", s.row(key), object{"useAsExample": false, "evaluatedBy": s.side.annotator})
	s.same("meta", meta, s.meta(task), metaKeys...)
	s.same("the rating", rating, s.rating(key), "is_gold_star", "use_as_sample_response", "updated_at")
	s.has("the rating", s.rating(key), object{"is_gold_star": false, "use_as_sample_response": false})
}

// isNow checks that a column without a zone holds the present in UTC.
func (s *street) isNow(column, key string) {
	s.Helper()
	var age float64
	err := s.db.QueryRow(s.Context(), `SELECT extract(epoch FROM now() - `+ident(column)+` AT TIME ZONE 'UTC')::float8 FROM "Conquest" WHERE id = $1`, key).Scan(&age)
	if err != nil || age < -1 || age > patience.Seconds() {
		s.Errorf("%s of %s is %v s ago, %v", column, key, age, err)
	}
}

// The star goes with the annotation that gave it.
func deletionFlow(s *street, key string) {
	task := s.pair(key, "NEUTRAL")
	s.wantContact(task)
	note := s.annotate(task, true)
	s.wantResult(key, "VICTORY")
	s.wantRest(key)
	if err := s.studio.DeleteAnnotation(s.Context(), note); err != nil {
		s.Fatal(err)
	}
	s.wantResult(key, "NEUTRAL")
	s.wantStar(task, false)
	s.wantRest(key)
	s.has("the rating", s.rating(key), object{"is_gold_star": false, "label_studio_task_id": task, "label_studio_annotation_id": note})
}

// An annotation that still says star after its VICTORY was taken away stays at rest; another star counts.
func overruledFlow(s *street, key string) {
	task := s.pair(key, "PENDING")
	s.wantContact(task)
	note := s.annotate(task, true)
	s.wantResult(key, "VICTORY")
	s.wantStar(task, true)
	s.wantRest(key)
	s.setResult("DEFEAT", key)
	s.wantStar(task, false)
	s.wantLooked(key)
	before := s.claim(key)
	s.reannotate(note, true) // saved again, and looked at again
	s.zero(`SELECT count(*), 'nobody looked at ' || min(key) FROM reconciler.queue WHERE key = $1 AND (want_gen > done_gen OR claim = $2)`, key, before)
	s.has("the row", s.row(key), object{"result": "DEFEAT"})
	s.has("meta", s.meta(task), object{"gold_star": false})
	second := s.annotate(task, true)
	s.wantResult(key, "VICTORY")
	s.wantStar(task, true)
	s.wantRest(key)
	s.has("the rating", s.rating(key), object{"is_gold_star": true, "label_studio_annotation_id": second})
}

// claim is how often a key was taken by a worker.
func (s *street) claim(key string) (n int64) {
	s.Helper()
	if err := s.db.QueryRow(s.Context(), `SELECT claim FROM reconciler.queue WHERE key = $1`, key).Scan(&n); err != nil {
		s.Fatal(err)
	}
	return n
}

// A star that somebody writes into meta: Label Studio announces nothing, and does not say who.
func metaFlow(s *street, key string) {
	task := s.pair(key, "NEUTRAL")
	s.wantContact(task)
	row, meta := s.row(key), s.meta(task)
	s.setMeta(task, object{"gold_star": true})
	s.wantResult(key, "VICTORY")
	s.wantRest(key)
	s.same("the row", row, s.row(key), starColumns...)
	s.has("the row", s.row(key), object{"evaluatedBy": nil, "useAsExample": true})
	s.has("the rating", s.rating(key), object{"is_gold_star": true, "label_studio_task_id": task, "label_studio_annotation_id": nil})
	if got := s.one(`SELECT jsonb_build_object('source', source) FROM reconciler.audit WHERE key = $1 AND said`, key); got["source"] != "diff" {
		s.Errorf("it was found by %v, want the pass", got)
	}
	s.setMeta(task, object{"gold_star": false})
	s.wantResult(key, "NEUTRAL")
	s.wantRest(key)
	s.same("meta", meta, s.meta(task), metaKeys...)
}

// A task arrives with a star, by the key of older writers.
func importFlow(s *street, key string) {
	s.conquest(key, "PENDING")
	task := s.task(key, s.projects[0], map[string]any{"is_gold_star": true})
	s.wantResult(key, "VICTORY")
	s.wantRest(key)
	s.has("the rating", s.rating(key), object{"is_gold_star": true, "label_studio_task_id": task})
}

// A VICTORY has its rating before it has a task.
func importLaterFlow(s *street, key string) {
	s.conquest(key, "VICTORY")
	s.eventually(func() string {
		if r := s.rating(key); r["is_gold_star"] != true || r["label_studio_task_id"] != nil {
			return fmt.Sprintf("the rating of a conquest without a task is %v", r)
		}
		return ""
	})
	task := s.task(key, s.projects[0], nil)
	s.wantStar(task, true)
	s.wantRest(key)
	s.has("the rating", s.rating(key), object{"is_gold_star": true, "label_studio_task_id": task})
}

// A task is there before its conquest.
func importBeforeFlow(s *street, key string) {
	task := s.task(key, s.projects[0], nil)
	s.zero(`SELECT count(*), 'nobody knows the task' FROM (SELECT) one WHERE NOT EXISTS (SELECT FROM reconciler.edge WHERE task_id = $1)`, task)
	s.wantRest(key)
	s.conquest(key, "VICTORY")
	s.wantStar(task, true)
	s.wantRest(key)
	s.has("the rating", s.rating(key), object{"is_gold_star": true, "label_studio_task_id": task})
}
