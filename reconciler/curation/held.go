package curation

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// maxHeld bounds what the page shows at once: the first ones settled make room.
const maxHeld = 100

const (
	// heldTasks wait for a person: those of our projects ($1) that are there.
	heldTasks = `e.held IS NOT NULL AND e.missing_since IS NULL AND (COALESCE(cardinality($1::bigint[]), 0) = 0 OR e.project = ANY($1))`
	// theirs are the conquests that a person may see ($2, $3).
	theirs = `($2 = '' OR c.philosopher = $2) AND ($3 = '' OR c.domain = $3)`
)

// heldSQL reads the tasks with their conquests, the one that waits longest first.
var heldSQL = `
	SELECT e.key, e.task_id, e.project, e.held, COALESCE(c.title, ''), COALESCE(c.result::text, ''), COALESCE(c."conquestType"::text, ''),
	       c.philosopher, c.domain, COALESCE(c."evaluatedBy", ''), ` + aristotle.Finite(`c."evaluatedAt"`) + `, ` + aristotle.Finite(`c."updatedAt"`) + `,
	       COALESCE(c."resultNotes", '')
	FROM edge e JOIN public."Conquest" c ON c.id = e.key
	WHERE ` + heldTasks + ` AND ` + theirs + `
	ORDER BY min((e.held->>'since')::timestamptz) OVER (PARTITION BY e.key), e.key, e.task_id LIMIT $4`

// heldKey is a conquest whose two sides differed when they first met.
type heldKey struct {
	Conquest
	EvaluatedBy, Notes string
	EvaluatedAt        *time.Time
	Sides              []heldTask
}

// heldTask is a task of it, as it was seen.
type heldTask struct {
	ID, Project int64
	URL         string
	ledger.Held
}

// heldPage is what the template is given.
type heldPage struct {
	Keys  []heldKey
	More  bool // than are shown
	Drift []drift
	Plans []plan
}

func (a *App) readHeld(ctx context.Context, who Person) (keys []heldKey, more bool, err error) {
	rows, err := a.reader.Query(ctx, heldSQL, a.Projects, who.Philosopher, who.Domain, maxHeld+1)
	if err != nil {
		return nil, false, fmt.Errorf("read what is held: %w", err)
	}
	n := 0
	var k heldKey
	var t heldTask
	_, err = pgx.ForEachRow(rows, []any{&k.ID, &t.ID, &t.Project, &t.Held, &k.Title, &k.Result, &k.Type, &k.Philosopher, &k.Domain,
		&k.EvaluatedBy, &k.EvaluatedAt, &k.UpdatedAt, &k.Notes}, func() error {
		if n++; n > maxHeld {
			more = true
			return nil
		}
		if last := len(keys) - 1; last < 0 || keys[last].ID != k.ID {
			keys = append(keys, k)
		}
		last := &keys[len(keys)-1]
		t.URL = a.taskLink(t.Project, t.ID)
		last.Sides = append(last.Sides, t)
		t.Held = ledger.Held{}
		k.EvaluatedAt, k.UpdatedAt = nil, nil
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("read what is held: %w", err)
	}
	return keys, more, nil
}

// heldCountSQL counts those that wait. For a person who may see all it reads none of them: of very many that takes longer than the page.
const heldCountSQL = `SELECT count(DISTINCT e.key) FROM edge e WHERE ` + heldTasks + `
	AND ($2 = '' AND $3 = '' OR EXISTS (SELECT FROM public."Conquest" c WHERE c.id = e.key AND ` + theirs + `))`

// heldCount is for the navigation of every page: people should see that something
// waits for them. An error shows none, as it is told where it matters.
func (a *App) heldCount(ctx context.Context, who Person) (n int) {
	if err := a.reader.QueryRow(ctx, heldCountSQL, a.Projects, who.Philosopher, who.Domain).Scan(&n); err != nil {
		return 0
	}
	return n
}

func (a *App) showHeld(w http.ResponseWriter, r *http.Request) (err error) {
	page := heldPage{}
	if page.Keys, page.More, err = a.readHeld(r.Context(), personOf(r)); err != nil {
		return err
	}
	if page.Drift, page.Plans, err = a.readDrift(r.Context(), personOf(r)); err != nil {
		return err
	}
	return a.render(w, r, http.StatusOK, "held", "Held and drift", page)
}

// settle is a person's word on a held conquest.
func (a *App) settle(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return badForm(err)
	}
	key, gold := r.PathValue("id"), r.PostForm.Get("gold") == "true"
	done, err := a.click(r.Context(), personOf(r), ledger.Click{Key: key, Gold: gold})
	if errors.Is(err, ledger.ErrNoConquest) {
		return notThere()
	}
	if err != nil {
		return err
	}
	f := clicked(key, gold, done)
	f.Says = "Settled: it is no VICTORY, and the star goes."
	if gold {
		f.Says = "Settled: it is a VICTORY, and its task is starred."
	}
	setFlash(w, r, f)
	http.Redirect(w, r, "/held", http.StatusSeeOther)
	return nil
}
