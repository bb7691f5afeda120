package api

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/web"
)

// Whatever a sync call's body is, it is a call that the database can be asked about, or a refusal with a 4xx.
func FuzzSyncCall(f *testing.F) {
	for _, body := range []string{`{"conquest_id": "a", "philosopher": "b", "domain": "c", "result_notes": "d"}`, `{"conquest_id": "\u0000", "philosopher": "b", "domain": "c"}`,
		`{"conquest_id": "' OR 1=1 --", "philosopher": "\ud800", "domain": "😀", "result_notes": null}`, `{}`, `[]`, ``, `{"conquest_id": {"$ne": 1}}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest(http.MethodPost, "/v1/sync/victory-to-gold-star", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		c, err := readCall(httptest.NewRecorder(), r)
		var p *web.Problem
		switch {
		case err != nil && (!errors.As(err, &p) || p.Status < 400 || p.Status >= 500):
			t.Errorf("%q is refused by %v", body, err)
		case err == nil:
			for _, text := range []string{c.ConquestID, c.Philosopher, c.Domain} {
				if text == "" || utf8.RuneCountInString(text) > maxID || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
					t.Errorf("%q is taken for %+v", body, c)
				}
			}
		}
	})
}

// What is said to a caller follows from how the key stands after its turn.
func TestVerdict(t *testing.T) {
	t.Parallel()
	a := &API{Projects: []int64{1}}
	shows := ledger.TaskStanding{Task: 7, Project: 1, Shown: true, Settled: true}
	with := func(change func(*ledger.TaskStanding)) ledger.TaskStanding {
		c := shows
		change(&c)
		return c
	}
	missing, foreign := with(func(s *ledger.TaskStanding) { s.Missing = true }), with(func(s *ledger.TaskStanding) { s.Project, s.Shown = 2, false })
	type said struct {
		Status int
		Text   string
		Task   int64
	}
	for name, c := range map[string]struct {
		stands ledger.Standing
		want   said
	}{
		"shown":               {ledger.Standing{Row: true, Victory: true, Tasks: []ledger.TaskStanding{missing, foreign, shows}}, said{200, "success", 7}},
		"taken back":          {ledger.Standing{Row: true, Tasks: []ledger.TaskStanding{shows}}, said{409, "not_victory", 0}},
		"the row went":        {ledger.Standing{}, said{409, "not_victory", 0}},
		"no task":             {ledger.Standing{Row: true, Victory: true}, said{404, "task_not_found", 0}},
		"none of ours":        {ledger.Standing{Row: true, Victory: true, Tasks: []ledger.TaskStanding{missing, foreign}}, said{404, "task_not_found", 0}},
		"held":                {ledger.Standing{Row: true, Victory: true, Tasks: []ledger.TaskStanding{with(func(s *ledger.TaskStanding) { s.Held = true })}}, said{202, "accepted", 0}},
		"of unknown end":      {ledger.Standing{Row: true, Victory: true, Tasks: []ledger.TaskStanding{with(func(s *ledger.TaskStanding) { s.Settled = false })}}, said{202, "accepted", 0}},
		"one of two shows it": {ledger.Standing{Row: true, Victory: true, Tasks: []ledger.TaskStanding{shows, with(func(s *ledger.TaskStanding) { s.Shown = false })}}, said{202, "accepted", 0}},
	} {
		status, answer := a.verdict(c.stands)
		if diff := cmp.Diff(c.want, said{status, answer.Status, answer.TaskID}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
