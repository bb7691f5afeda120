package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/web"
)

const (
	// syncWait is how long a caller waits for both sides to be equal.
	syncWait = 5 * time.Second
	// queryTimeout bounds each question to the database beside that.
	queryTimeout = 2 * time.Second
	// maxSync is above the largest call that the limits of its fields allow, however it is escaped.
	maxSync = 1 << 20
	// Limits of the fields, in characters.
	maxID    = 1000
	maxNotes = 64 << 10
)

// syncCall is the body of a sync call.
type syncCall struct {
	ConquestID  string  `json:"conquest_id"`
	Philosopher string  `json:"philosopher"`
	Domain      string  `json:"domain"`
	ResultNotes *string `json:"result_notes"`
}

func (c syncCall) check() error {
	for _, f := range []struct {
		name, value string
	}{{"conquest_id", c.ConquestID}, {"philosopher", c.Philosopher}, {"domain", c.Domain}} {
		switch {
		case f.value == "":
			return web.Refuse(http.StatusBadRequest, "%s is missing, or empty.", f.name)
		case utf8.RuneCountInString(f.value) > maxID:
			return web.Refuse(http.StatusBadRequest, "%s may have %d characters.", f.name, maxID)
		}
	}
	if c.ResultNotes != nil && utf8.RuneCountInString(*c.ResultNotes) > maxNotes {
		return web.Refuse(http.StatusBadRequest, "result_notes may have %d characters.", maxNotes)
	}
	return nil
}

// syncAnswer is the answer of a sync call, where it is no problem.
type syncAnswer struct {
	Status     string `json:"status"`
	ConquestID string `json:"conquest_id"`
	TaskID     int64  `json:"task_id,omitempty"`
	Message    string `json:"message"`
}

// readCall reads a call that its sender may make. Its errors are problems.
func readCall(w http.ResponseWriter, r *http.Request) (c syncCall, err error) {
	if _, err := web.Query(r); err != nil {
		return c, err
	}
	if err := web.ReadJSON(w, r, maxSync, &c); err != nil {
		return c, err
	}
	if err := c.check(); err != nil {
		return c, err
	}
	return c, auth.From(r.Context()).Confined(c.Philosopher, c.Domain)
}

// sync takes Aristotle's word that a conquest was marked VICTORY for a hint like any
// other: the row decides. It only says how urgent it is, and waits for the turn.
func (a *API) sync(w http.ResponseWriter, r *http.Request) {
	c, err := readCall(w, r)
	var status int
	var answer syncAnswer
	if err == nil {
		status, answer, err = a.carry(r.Context(), c)
	}
	if err != nil {
		var p *web.Problem
		if !errors.As(err, &p) {
			a.failures.Log(r.Context(), a.Log, slog.LevelWarn, msgSync, "", err)
			err = &web.Problem{Status: http.StatusServiceUnavailable, After: time.Second, Err: err,
				Detail: "Aristotle's database does not answer. Nothing needs to be sent again: what was marked there is carried over once it does."}
		}
		web.Fail(w, err)
		return
	}
	a.failures.Over(r.Context(), a.Log, msgSync, "")
	answer.ConquestID = c.ConquestID
	web.Answer(w, status, answer)
}

// carry makes the key dirty, waits for its turn, and says what came of it.
func (a *API) carry(ctx context.Context, c syncCall) (int, syncAnswer, error) {
	gen, err := a.enqueueCall(ctx, c)
	switch {
	case errors.Is(err, ledger.ErrNoConquest):
		return http.StatusNotFound, syncAnswer{Status: "conquest_not_found",
			Message: "There is no such conquest of this philosopher and domain."}, nil
	case errors.Is(err, ledger.ErrNotVictory):
		return http.StatusConflict, notVictory(), nil
	case err != nil:
		return 0, syncAnswer{}, err
	}
	a.Metrics.Triggers.With(metrics.API).Inc()
	waiting, cancel := context.WithTimeout(ctx, syncWait)
	defer cancel()
	done, err := a.Ledger.Await(waiting, c.ConquestID, gen)
	if err != nil || !done { // also where the database went away meanwhile: the key is in the queue
		return http.StatusAccepted, accepted("The star follows: it is in the queue, and needs no other call."), nil
	}
	ctx, cancel = context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	s, err := a.Ledger.Standing(ctx, c.ConquestID)
	if err != nil {
		return http.StatusAccepted, accepted("The star follows: it is in the queue, and needs no other call."), nil
	}
	status, answer := a.verdict(s)
	return status, answer, nil
}

func (a *API) enqueueCall(ctx context.Context, c syncCall) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return a.Ledger.EnqueueCall(ctx, ledger.Call{Key: c.ConquestID, Philosopher: c.Philosopher, Domain: c.Domain, Notes: c.ResultNotes})
}

// verdict says how a key stands after a turn.
func (a *API) verdict(s ledger.Standing) (int, syncAnswer) {
	if !s.Victory { // somebody took it back meanwhile
		return http.StatusConflict, notVictory()
	}
	s.Tasks = slices.DeleteFunc(s.Tasks, func(t ledger.TaskStanding) bool { return t.Missing || !a.Projects.Have(t.Project) })
	if len(s.Tasks) == 0 {
		return http.StatusNotFound, syncAnswer{Status: "task_not_found",
			Message: "Label Studio has no task of this conquest. One that is imported later gets the star by itself."}
	}
	for _, t := range s.Tasks {
		switch {
		case t.Held:
			return http.StatusAccepted, accepted(fmt.Sprintf("Task %d is held: the sides differed at first contact, and a person decides (reconciler held).", t.Task))
		case !t.Settled || !t.Shown: // it changed again
			return http.StatusAccepted, accepted("The star follows: it is in the queue, and needs no other call.")
		}
	}
	return http.StatusOK, syncAnswer{Status: "success", TaskID: s.Tasks[0].Task, Message: "Successfully synced VICTORY to gold star"}
}

func accepted(message string) syncAnswer { return syncAnswer{Status: "accepted", Message: message} }

func notVictory() syncAnswer {
	return syncAnswer{Status: "not_victory", Message: "The conquest's result is not VICTORY: nothing is starred."}
}
