package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// What a test waits for, and what holds at rest.

// eventually waits until what says "": asking again is all there is, on systems that tell nobody when they are done.
func (s *street) eventually(what func() string) {
	s.Helper()
	for begin := time.Now(); ; askAgain(begin) {
		why := what()
		if why == "" {
			return
		}
		if time.Since(begin) > patience {
			s.Fatalf("after %s: %s", patience, why)
		}
	}
}

// askAgain lets a tenth of the time pass that was waited since begin: many wait at once, and what they wait for needs the machine.
func askAgain(begin time.Time) {
	<-time.After(min(max(time.Since(begin)/10, 10*time.Millisecond), 250*time.Millisecond))
}

// zero waits until a query counts nothing; the query's second column says what it counts.
func (s *street) zero(sql string, args ...any) {
	s.Helper()
	s.eventually(func() string {
		var n int
		var text *string
		if err := s.db.QueryRow(s.Context(), sql, args...).Scan(&n, &text); err != nil {
			return err.Error() // the server may be restarting
		}
		if n > 0 {
			return fmt.Sprintf("%d: %s", n, *text)
		}
		return ""
	})
}

// wantStar waits until a task shows the star, or does not.
func (s *street) wantStar(task int64, gold bool) {
	s.Helper()
	s.eventually(func() string {
		if m := s.peek(task); m.gold() != gold {
			return fmt.Sprintf("task %d shows %v, want gold_star %v", task, m, gold)
		}
		return ""
	})
}

func (s *street) wantResult(id, result string) {
	s.Helper()
	s.zero(`SELECT count(*), min(id || ' is ' || COALESCE(result::text, 'NULL') || ', want ' || $2) FROM "Conquest" WHERE id = $1 AND result::text IS DISTINCT FROM $2`, id, result)
}

// wantContact waits until the daemon has met tasks whose conquests are there: what people do from then on counts.
func (s *street) wantContact(tasks ...int64) {
	s.Helper()
	s.zero(`SELECT count(*), 'not met yet: task ' || min(t) FROM unnest($1::bigint[]) AS t LEFT JOIN reconciler.edge e ON e.task_id = t WHERE e.s IS NULL`, tasks)
	s.wantRest()
}

// wantRest waits until none of the keys is dirty: of all where none is named.
func (s *street) wantRest(keys ...string) {
	s.Helper()
	s.zero(`SELECT count(*), 'dirty: ' || min(key || ', last error ' || COALESCE(last_error, 'none') || ', due ' || run_after)
		FROM reconciler.queue WHERE want_gen > done_gen AND (cardinality($1::text[]) = 0 OR key = ANY($1))`, append([]string{}, keys...))
}

// wantLooked waits until also the looks after the PATCHes were taken.
func (s *street) wantLooked(keys ...string) {
	s.Helper()
	s.zero(`SELECT count(*), 'to be looked at: ' || min(key) FROM reconciler.queue
		WHERE (want_gen > done_gen OR look_at IS NOT NULL) AND (cardinality($1::text[]) = 0 OR key = ANY($1))`, append([]string{}, keys...))
}

// wantEqual checks what holds at rest: row, hub and every task say the same, no intent is left, ratings follow, and the audit
// tells how each hub came to be what it is.
func (s *street) wantEqual() {
	s.Helper()
	s.wantLooked()
	s.zero(`SELECT count(*), min(concat_ws(' ', 'drift of', h.key, c.result, 'd', h.d, 'n', h.n, 's', e.s, 'intent', e.intent_attempt))
		FROM reconciler.hub h JOIN "Conquest" c ON c.id = h.key LEFT JOIN reconciler.edge e ON e.key = h.key AND e.missing_since IS NULL
		WHERE h.d <> (c.result::text = 'VICTORY') OR e.task_id IS NOT NULL AND e.s IS DISTINCT FROM h.d OR e.intent_attempt IS NOT NULL
		   OR h.d <> EXISTS (SELECT FROM ml_analysis_rating WHERE conquest_analysis_id = c.id AND is_gold_star AND use_as_sample_response AND rating = 5)`)
	s.zero(`SELECT count(*), min('the audit does not tell how ' || h.key || ' became ' || h.d || '@' || h.n) FROM reconciler.hub h
		WHERE h.n > 0 AND NOT EXISTS (SELECT FROM reconciler.audit a WHERE a.key = h.key AND a.n = h.n AND a.d = h.d)`)
	rows, err := s.db.Query(s.Context(), `SELECT e.task_id, e.s FROM reconciler.edge e JOIN reconciler.hub h USING (key) WHERE e.missing_since IS NULL`)
	if err != nil {
		s.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var task int64
		var gold bool
		if err := rows.Scan(&task, &gold); err != nil {
			s.Fatal(err)
		}
		if m := s.meta(task); m.gold() != gold {
			s.Errorf("task %d shows %v, and the edge says %v", task, m, gold)
		}
	}
	if err := rows.Err(); err != nil {
		s.Fatal(err)
	}
}

// wantConfirmed waits until all that was written so far is confirmed to the server: no WAL is held back.
func (s *street) wantConfirmed() {
	s.Helper()
	var at, slot string
	if err := s.db.QueryRow(s.Context(), `SELECT pg_current_wal_insert_lsn()::text`).Scan(&at); err != nil {
		s.Fatal(err)
	}
	for _, e := range s.env {
		if name, found := strings.CutPrefix(e, "RECONCILER_SLOT="); found {
			slot = name
		}
	}
	s.zero(`SELECT count(*), min('confirmed ' || confirmed_flush_lsn || ' of ' || $2) FROM pg_replication_slots
		WHERE slot_name = $1 AND confirmed_flush_lsn < $2::text::pg_lsn`, slot, at)
}

// wantNobody waits until PostgreSQL has seen that the daemon has ended.
func (s *street) wantNobody() {
	s.Helper()
	s.zero(`SELECT count(*), 'the slot is read' FROM pg_replication_slots WHERE active AND database = current_database()`)
	s.zero(`SELECT count(*), 'a session leads' FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
}

// wantPassed waits until no full pass is wanted or under way. A new slot wants one, which a start can come to late.
func (s *street) wantPassed() {
	s.Helper()
	s.zero(`SELECT count(*), min(state) FROM reconciler.pass WHERE state NOT IN ('done', 'replaced')`)
}

// wantUnready waits until /readyz gives a reason.
func (s *street) wantUnready(p *process, reason string) {
	s.Helper()
	s.eventually(func() string {
		if status, body := p.get(s.T, "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, reason) {
			return fmt.Sprintf("/readyz answers %d %s, want 503 with %q", status, body, reason)
		}
		return ""
	})
}

func (s *street) wantReady(p *process) {
	s.Helper()
	s.eventually(func() string {
		if status, body := p.get(s.T, "/readyz"); status != http.StatusOK {
			return fmt.Sprintf("/readyz answers %d %s", status, body)
		}
		return ""
	})
}
