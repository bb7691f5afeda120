package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/aristotle/sandbox"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
)

// followed is how long /readyz may take to follow a change (contract).
const followed = 30 * time.Second

// wantUnreadySoon is wantUnready with the contract's limit, and half of it again for a busy machine.
func (s *street) wantUnreadySoon(p *process, reason string) {
	s.Helper()
	begin := time.Now()
	s.wantUnready(p, reason)
	if took := time.Since(begin); took > followed*3/2 {
		s.Errorf("/readyz said %q after %v, want %v", reason, took, followed)
	}
}

// Readiness follows what really happens: a Label Studio that hangs while nobody has work, a right that is lost, a queue that a lock
// keeps from moving, a stream whose connection somebody keeps busy, and each is told with its reason, and ends.
func TestReadinessFollows(t *testing.T) {
	t.Parallel()
	ls, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	s.env = append(s.env, "RECONCILER_DIFF_SCHEDULE=@every 1h")
	task := s.pair("row", "PENDING")
	p := s.start()
	s.wantContact(task)
	s.wantReady(p)

	// Nobody asks Label Studio anything, so nobody but readiness can notice.
	ls.Faults(func(*http.Request) studio.Fault { return studio.Fault{Kind: studio.FaultHang} })
	s.wantUnreadySoon(p, "Label Studio is away")
	ls.Faults(nil)
	s.wantReady(p)

	role := ident(roleOf(t, s.cfg.AristotleDatabaseURL))
	for _, r := range []aristotle.Right{{Table: "Conquest", Verb: "UPDATE", Column: "evaluatedBy"}, {Table: "ml_analysis_rating", Verb: "INSERT"}} {
		give := r.Grant(roleOf(t, s.cfg.AristotleDatabaseURL))
		s.exec(strings.Replace(strings.Replace(give, "GRANT ", "REVOKE ", 1), " TO "+role, " FROM "+role, 1))
		s.wantUnreadySoon(p, strings.ReplaceAll(r.String(), `"`, `\"`))
		s.exec(give)
		s.wantReady(p)
	}

	// Somebody holds our queue: neither the stream's keys nor the worker's claims get in.
	held, err := s.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Rollback(cleanContext(t))
	if _, err := held.Exec(t.Context(), `LOCK TABLE reconciler.queue IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	s.wantUnreadySoon(p, "database: ")
	if err := held.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantReady(p)

	// Writing alone is refused: reading is well, and yet no key gets in.
	s.exec(`CREATE FUNCTION reconciler.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no room''; END'`)
	s.exec(`CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON reconciler.queue EXECUTE FUNCTION reconciler.refuse()`)
	s.setResult("VICTORY", "row")
	s.wantUnreadySoon(p, "no room")
	s.exec(`DROP FUNCTION reconciler.refuse CASCADE`)
	s.wantStar(task, true)
	s.wantReady(p)
	for line, most := range map[string]int{"stream interrupted": 3, "msg=streaming": 3, "no room": 3} {
		if n := strings.Count(p.out.String(), line); n > most {
			t.Errorf("%q is told %d times", line, n)
		}
	}
}

// A configured project that does not exist is told, and so is its coming.
func TestReadinessTellsMissingProject(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	task := s.pair("row", "VICTORY")
	s.env = append(s.env, "LABEL_STUDIO_PROJECTS=4711,"+strings.TrimPrefix(s.env[4], "LABEL_STUDIO_PROJECTS="))
	p := s.start()
	s.wantStar(task, true)
	s.wantUnreadySoon(p, "project 4711 of LABEL_STUDIO_PROJECTS does not exist")
}

// TestPlain: a person is not told Go's words for a time that is over.
func TestPlain(t *testing.T) {
	t.Parallel()
	if got := plain(fmt.Errorf("count the queue: %w", context.DeadlineExceeded)); got != "count the queue: no answer in time" {
		t.Error(got)
	}
}
