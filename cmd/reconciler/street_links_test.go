package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// First contact, and the life of the links between conquests and tasks.

// A star meets a decision against it; a person ends that, both ways.
func heldFlow(s *street, key string) {
	for _, c := range []struct {
		key    string
		gold   bool
		result string
	}{{key, true, "VICTORY"}, {key + "_not", false, "DEFEAT"}} {
		s.conquest(c.key, "DEFEAT")
		task := s.task(c.key, s.projects[1], map[string]any{"gold_star": true})
		s.wantHolding(task)
		s.has("the row", s.row(c.key), object{"result": "DEFEAT"})
		s.settle(c.key, c.gold)
		s.wantStar(task, c.gold)
		s.wantRest(c.key)
		s.has("the row", s.row(c.key), object{"result": c.result})
	}
}

func (s *street) wantHolding(task int64) {
	s.Helper()
	s.zero(`SELECT count(*), 'not held' FROM (SELECT) one WHERE NOT EXISTS (SELECT FROM reconciler.edge WHERE task_id = $1 AND held IS NOT NULL)`, task)
}

// settle is `reconciler held settle`.
func (s *street) settle(key string, gold bool) {
	s.Helper()
	l, err := ledger.Open(s.Context(), string(s.cfg.AristotleDatabaseURL), string(s.cfg.Schema))
	if err != nil {
		s.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Click(s.Context(), ledger.Click{Key: key, Gold: gold, From: ledger.FromAPI, Held: true}); err != nil {
		s.Fatal(err)
	}
}

// A task is deleted and imported again: the VICTORY stays, and is given to the new one. An old export of it, star and all, does
// not undo what was decided since.
func importAgainFlow(s *street, key string) {
	first := s.pair(key, "PENDING")
	s.wantContact(first)
	s.setResult("VICTORY", key)
	s.wantStar(first, true)
	s.wantRest(key)
	if err := s.studio.DeleteTask(s.Context(), first); err != nil {
		s.Fatal(err)
	}
	s.wantMissing(first)
	s.has("the row", s.row(key), object{"result": "VICTORY"})

	second := s.task(key, s.projects[0], nil)
	s.wantStar(second, true)
	s.setResult("NEUTRAL", key)
	s.wantStar(second, false)
	s.wantRest(key)
	third := s.task(key, s.projects[1], map[string]any{"gold_star": true})
	s.wantHolding(third)
	s.has("the row", s.row(key), object{"result": "NEUTRAL"})
	s.settle(key, false)
	s.wantStar(third, false)
	s.wantRest(key)
}

// wantMissing waits until a task is known to be gone, and lets the time pass until that is believed.
func (s *street) wantMissing(task int64) {
	s.Helper()
	s.zero(`SELECT count(*), 'nobody misses it' FROM reconciler.edge WHERE task_id = $1 AND missing_since IS NULL`, task)
	s.exec(`UPDATE reconciler.edge SET missing_since = missing_since - interval '1 hour' WHERE task_id = $1`, task)
	s.exec(`UPDATE reconciler.queue q SET run_after = now() FROM reconciler.edge e WHERE e.key = q.key AND e.task_id = $1`, task)
}

// An importer's script gives a task to another conquest. The one that loses it stays as it is.
func renamedFlow(s *street, key string) {
	task := s.pair(key, "PENDING")
	s.conquest(key+"_heir", "PENDING")
	s.wantContact(task)
	s.setResult("VICTORY", key)
	s.wantStar(task, true)
	s.wantLooked(key)
	s.setData(task, object{"conquest_id": key + "_heir", "prompt": "p", "response": "r"})
	s.wantResult(key+"_heir", "VICTORY")
	s.wantRest(key, key+"_heir")
	s.has("the row", s.row(key), object{"result": "VICTORY"})
	s.setResult("NEUTRAL", key)
	s.wantRest(key)
	s.setResult("DEFEAT", key+"_heir")
	s.wantStar(task, false)
	s.wantRest(key, key+"_heir")
}

// setData replaces the data of a task.
func (s *street) setData(task int64, data object) {
	s.Helper()
	body, err := json.Marshal(object{"data": data})
	if err != nil {
		s.Fatal(err)
	}
	req, err := http.NewRequestWithContext(s.Context(), http.MethodPatch, fmt.Sprintf("%s/api/tasks/%d/", s.side.url, task), bytes.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Authorization", "Token "+s.side.annotatorsToken)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		s.Fatal(resp.Status)
	}
}

// TestInitialLabelStudio: the task is right, so a bare VICTORY becomes PENDING. What is bare is known when every task is linked,
// at the first start and in a project that is added later.
func TestInitialLabelStudio(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	s.env = append(s.env, "RECONCILER_INITIAL=labelstudio", "LABEL_STUDIO_PROJECTS=all")
	var unreadable atomic.Int64 // no listing of this project
	unreadable.Store(s.projects[1])
	ls.Faults(func(r *http.Request) studio.Fault {
		if r.URL.Path == "/api/tasks/" && r.URL.Query().Get("project") == fmt.Sprint(unreadable.Load()) {
			return studio.Fault{Kind: studio.FaultStatus, Status: http.StatusForbidden}
		}
		return studio.Fault{}
	})
	s.pair("bare", "VICTORY")
	half := s.pair("half", "VICTORY") // its star is in the other project
	whole := s.task("half", s.projects[1], map[string]any{"gold_star": true})
	starred := s.pair("starred", "DEFEAT")
	s.setMeta(starred, object{"gold_star": true})
	s.conquest("late", "VICTORY")

	p := s.start()
	s.hook(p)
	s.wantLog(p, "403")
	s.annotate(half, false) // wakes the daemon
	s.zero(`SELECT count(*), 'not linked' FROM (SELECT) one WHERE NOT EXISTS (SELECT FROM reconciler.edge WHERE task_id = $1)`, half)
	s.zero(`SELECT count(*), 'not dirty' FROM (SELECT) one WHERE NOT EXISTS (SELECT FROM reconciler.queue WHERE key = 'half')`)
	s.has("the row", s.row("half"), object{"result": "VICTORY"})
	s.has("the row", s.row("bare"), object{"result": "VICTORY"})
	unreadable.Store(0)
	s.wantStar(half, true)
	s.wantStar(whole, true)
	s.wantResult("bare", "PENDING")
	s.wantResult("starred", "VICTORY")
	s.wantRest()

	later, err := s.studio.CreateProject(t.Context(), labelstudio.NewProject{Title: "Added later", LabelConfig: studio.LabelConfig})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.studio.CreateWebhook(t.Context(), labelstudio.Webhook{Project: later.ID, URL: p.webhook(), SendPayload: true, IsActive: true,
		Headers: map[string]string{"Authorization": "Bearer " + secret}, Actions: []string{labelstudio.TasksCreated}}); err != nil {
		t.Fatal(err)
	}
	ls.Faults(func(r *http.Request) studio.Fault { // webhooks and turns work, and no pass
		if r.URL.Path == "/api/projects/" {
			return studio.Fault{Kind: studio.FaultStatus, Status: http.StatusForbidden}
		}
		return studio.Fault{}
	})
	first := s.task("late", later.ID, nil)
	s.zero(`SELECT count(*), 'nobody looked at late' FROM (SELECT) one
		WHERE NOT EXISTS (SELECT FROM reconciler.queue WHERE key = 'late' AND last_error LIKE '%first pass%')`)
	s.has("the row", s.row("late"), object{"result": "VICTORY"})
	second := s.task("late", later.ID, map[string]any{"gold_star": true})
	ls.Faults(nil)
	s.wantStar(first, true)
	s.wantStar(second, true)
	s.wantEqual()
	if out, _, _ := s.command("status", "half"); strings.Contains(out, "took the star") {
		t.Errorf("something took a star:\n%s", out)
	}
}

// TestForgotten: Aristotle's tables are dropped and made anew (prisma migrate reset), or our schema is dropped, while the daemon
// runs. It waits, and begins with first contact: no star is taken away, and no star that was overruled comes back.
func TestForgotten(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(s *street){"tables": loseTables, "schema": loseSchema} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, side := standIn(t)
			s := newStreet(t, sandbox.Schema{}, side)
			starred, overruled := s.pair("starred", "PENDING"), s.pair("overruled", "PENDING")
			p := s.start()
			s.hook(p)
			s.wantContact(starred, overruled)
			s.annotate(overruled, true)
			s.wantResult("overruled", "VICTORY")
			s.setResult("VICTORY", "starred")
			s.setResult("NEUTRAL", "overruled")
			s.wantStar(starred, true)
			s.wantStar(overruled, false)
			s.wantLooked()
			lose(s)
			s.wantReady(p)
			s.wantStar(starred, true)
			s.wantStar(overruled, false)
			s.wantResult("starred", "VICTORY")
			s.wantEqual()
		})
	}
}

// loseTables has the application reset its database, and seed it again: everything is PENDING.
func loseTables(s *street) {
	tables := []string{`"Conquest"`, "ml_analysis_rating"}
	for _, table := range tables {
		s.exec(`CREATE TABLE anew (LIKE ` + table + ` INCLUDING ALL)`)
		s.exec(`DROP TABLE ` + table)
		s.exec(`ALTER TABLE anew RENAME TO ` + table)
	}
	setUp(s.T, s.cfg, false)
	s.zero(`SELECT count(*), 'not forgotten: ' || min(key) FROM reconciler.hub`)
	s.has("meta", s.meta(1), object{"gold_star": true})
	s.conquest("starred", "PENDING")
	s.conquest("overruled", "PENDING")
	s.zero(`SELECT 2 - count(*), 'not met' FROM reconciler.hub WHERE d IS NOT NULL`)
}

// loseSchema drops what we remember. An annotation that was overruled is new then, and meets a decision: a person is asked.
func loseSchema(s *street) {
	s.reshape(`DROP SCHEMA reconciler CASCADE`)
	setUp(s.T, s.cfg, false)
	s.eventually(func() string {
		var there bool
		err := s.db.QueryRow(s.Context(), `SELECT to_regclass('reconciler.edge') IS NOT NULL`).Scan(&there)
		if err != nil || !there {
			return fmt.Sprint("the daemon has not made its tables anew ", err)
		}
		return ""
	})
	s.wantHeld(1)
	s.has("the row", s.row("overruled"), object{"result": "NEUTRAL"})
	s.settle("overruled", false)
}
