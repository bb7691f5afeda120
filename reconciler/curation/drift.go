package curation

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/web"
)

// maxFindings bounds what is shown of a plan or of a class of drift.
const maxFindings = 30

// finding is a conquest that a pass found different.
type finding struct{ Key, Title, Change, Decision, Reason string }

// Heading is the title, or the key where there is none.
func (f finding) Heading() string { return Conquest{ID: f.Key, Title: f.Title}.Heading() }

// drift is what the passes found different and no turn has settled yet, by class.
type drift struct {
	ledger.Drift
	First []finding
}

// Says explains a class.
func (d drift) Says() string {
	switch d.Class {
	case "star_missing":
		return "VICTORY in Aristotle, without the star in Label Studio"
	case "victory_missing":
		return "starred in Label Studio, and no VICTORY in Aristotle"
	case "rating_wrong":
		return "the rating does not say what the conquest does"
	case "link_stale":
		return "the task is gone, or belongs to another conquest now"
	}
	return d.Class
}

// plan is a pass that the brake stopped, and what it would change.
type plan struct {
	ledger.Pass
	Hash, Why string
	First     []finding
	Keys      int
}

const findingsSQL = `SELECT f.key, COALESCE(c.title, ''), f.change, f.decision, f.reason
	FROM finding f LEFT JOIN public."Conquest" c ON c.id = f.key WHERE `

// readDrift reads what concerns the whole installation: who is confined to a part
// of it is shown none.
func (a *App) readDrift(ctx context.Context, who Person) (drifts []drift, plans []plan, err error) {
	if who.Limited() {
		return nil, nil, nil
	}
	all, err := a.Ledger.Drift(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range all {
		first, err := a.findings(ctx, `f.class = $1 AND NOT f.explained ORDER BY f.since, f.key LIMIT $2`, d.Class)
		if err != nil {
			return nil, nil, err
		}
		drifts = append(drifts, drift{d, first})
	}
	passes, err := a.Ledger.OpenPasses(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range passes {
		if p.State != ledger.PassBraked || p.Plan == nil {
			continue
		}
		first, err := a.findings(ctx, `f.pass = $1 AND f.marked_at IS NULL ORDER BY f.key LIMIT $2`, p.ID)
		if err != nil {
			return nil, nil, err
		}
		stopped := plan{Pass: p, Hash: *p.Plan, First: first, Keys: p.Sets + p.Clears + p.Links}
		if p.Brake != nil {
			stopped.Why = *p.Brake
		}
		plans = append(plans, stopped)
	}
	return drifts, plans, nil
}

func (a *App) findings(ctx context.Context, where string, of any) ([]finding, error) {
	rows, err := a.reader.Query(ctx, findingsSQL+where, of, maxFindings)
	if err != nil {
		return nil, fmt.Errorf("read what passes found: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[finding])
	if err != nil {
		return nil, fmt.Errorf("read what passes found: %w", err)
	}
	return found, nil
}

// release lets a braked pass go on with exactly the plan that the page showed. It
// changes many conquests at once, which takes an administrator.
func (a *App) release(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return badForm(err)
	}
	who := personOf(r)
	if !who.IsAdmin() {
		return web.Refuse(http.StatusForbidden, "Releasing a plan takes the scope admin: use a token that has it.")
	}
	n, err := a.Ledger.Release(r.Context(), r.PostForm.Get("plan"), who.Email)
	switch {
	case errors.Is(err, ledger.ErrNoPlan):
		setFlash(w, r, flash{Says: "This plan is not there any more: a later pass has replaced it, or somebody has released it."})
	case err != nil:
		return err
	default:
		setFlash(w, r, flash{Says: fmt.Sprintf("Released: %d %s are carried over now.", n, plural(n, "conquest", "conquests"))})
	}
	http.Redirect(w, r, "/held", http.StatusSeeOther)
	return nil
}
