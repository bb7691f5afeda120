package curation

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/icl"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/story"
)

// conquestSQL reads one conquest with what we remember of it.
var conquestSQL = `
	SELECT c.id, COALESCE(c.title, ''), COALESCE(c."conquestType"::text, ''), COALESCE(c.result::text, ''), c.philosopher, c.domain,
	       COALESCE(c.status::text, ''), ` + aristotle.Finite(`c."createdAt"`) + `, ` + aristotle.Finite(`c."updatedAt"`) + `,
	       COALESCE(c.description, ''), COALESCE(c."resultNotes", ''), COALESCE(c."evaluatedBy", ''), ` + aristotle.Finite(`c."evaluatedAt"`) + `,
	       COALESCE(c."aristotleId", ''), COALESCE(c."useAsExample", false),
	       COALESCE(q.want_gen > q.done_gen, false), COALESCE(q.attempts, 0), COALESCE(q.last_error, '')
	FROM public."Conquest" c LEFT JOIN queue q ON q.key = c.id WHERE c.id = $1`

// details are a conquest with all that its page shows.
type details struct {
	Conquest
	Description, Notes, EvaluatedBy, AristotleID string
	CreatedAt, EvaluatedAt                       *time.Time
	Example                                      bool
	LastError                                    string
	AristotleURL                                 string
	Tasks                                        []task
	Texts                                        icl.Texts
	History                                      []story.Event
	HistoryCut                                   bool
	// StudioAway says why the tasks' annotations are not shown; "" where they are.
	StudioAway string
}

// task is a task of a conquest.
type task struct {
	ID, Project                             int64
	Known                                   bool // looked at before
	Shown, Missing, Held, Patching, Stamped bool
	URL                                     string
	Notes                                   []note
	base                                    []int64
}

// Overruled tells whether an annotation says star while the task shows none.
func (t task) Overruled(n note) bool {
	return n.Gold && t.Known && !t.Shown && slices.Contains(t.base, n.ID)
}

// note is an annotation as a person reads it.
type note struct {
	ID              int64
	By              string
	As              string // whose annotation it is in Label Studio, where that is not the person's own
	At              time.Time
	Gold, Cancelled bool
	Response        string
	Changes         []piece // from the model's response
}

func (a *App) readConquest(ctx context.Context, id string, who Person) (*details, error) {
	d := &details{}
	err := a.reader.QueryRow(ctx, conquestSQL, id).Scan(&d.ID, &d.Title, &d.Type, &d.Result, &d.Philosopher, &d.Domain, &d.Status,
		&d.CreatedAt, &d.UpdatedAt, &d.Description, &d.Notes, &d.EvaluatedBy, &d.EvaluatedAt, &d.AristotleID, &d.Example,
		&d.Dirty, &d.Attempts, &d.LastError)
	switch {
	case errors.Is(err, pgx.ErrNoRows) || err == nil && !who.may(d.Philosopher, d.Domain):
		return nil, notThere()
	case err != nil:
		return nil, fmt.Errorf("read conquest %q: %w", id, err)
	}
	if d.Tasks, err = a.readTasks(ctx, id); err != nil {
		return nil, err
	}
	for _, t := range d.Tasks {
		if !t.Missing {
			d.Conquest.Tasks = append(d.Conquest.Tasks, t.ID)
			d.Held = d.Held || t.Held
			if t.Shown {
				d.Starred++
			}
		}
	}
	if a.AristotleURL != "" {
		// A URL that was parsed has its braces escaped.
		d.AristotleURL = strings.NewReplacer("{id}", url.PathEscape(id), "%7Bid%7D", url.PathEscape(id)).Replace(a.AristotleURL)
	}
	if d.Texts, err = icl.ReadTexts(ctx, a.reader, id); err != nil {
		return nil, err
	}
	return d, nil
}

func (a *App) readTasks(ctx context.Context, key string) ([]task, error) {
	rows, err := a.reader.Query(ctx, `SELECT task_id, project, s IS NOT NULL, COALESCE(s, (held->>'shown')::boolean, false), missing_since IS NOT NULL,
			held IS NOT NULL, intent_value IS NOT NULL, last IS NOT NULL, base
		FROM edge WHERE key = $1 ORDER BY task_id`, key)
	if err != nil {
		return nil, fmt.Errorf("read the tasks of %q: %w", key, err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t task, err error) {
		err = row.Scan(&t.ID, &t.Project, &t.Known, &t.Shown, &t.Missing, &t.Held, &t.Patching, &t.Stamped, &t.base)
		t.URL = a.taskLink(t.Project, t.ID)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the tasks of %q: %w", key, err)
	}
	return slices.DeleteFunc(all, func(t task) bool { return !a.Projects.Have(t.Project) }), nil
}

// taskLink is where a person finds a task in Label Studio.
func (a *App) taskLink(project, task int64) string {
	return fmt.Sprintf("%s/projects/%d/data?task=%d", strings.TrimRight(a.StudioURL, "/"), project, task)
}

// annotate adds what people wrote on the tasks. Label Studio may be away: the page
// is then poorer, and says so.
func (a *App) annotate(ctx context.Context, d *details) {
	byProject := map[int64][]int64{}
	for _, t := range d.Tasks {
		if !t.Missing {
			byProject[t.Project] = append(byProject[t.Project], t.ID)
		}
	}
	if len(byProject) == 0 {
		return
	}
	notes := map[int64][]note{}
	err := a.studio.ask(ctx, func(ctx context.Context) error {
		emails := a.people.emails(ctx)
		for project, ids := range byProject {
			found, err := a.Studio.TasksByID(ctx, project, ids)
			if err != nil {
				return err
			}
			for i := range found {
				notes[found[i].ID] = a.notesOf(&found[i], emails, d.Texts.Response)
			}
		}
		return nil
	})
	if err != nil {
		d.StudioAway = "Label Studio does not answer, so what people wrote there is not shown. Everything else is as it was seen last."
		return
	}
	for i := range d.Tasks {
		d.Tasks[i].Notes = notes[d.Tasks[i].ID]
	}
}

// notesOf are the annotations of a task, newest first.
func (a *App) notesOf(t *labelstudio.Task, email func(labelstudio.UserRef) string, response string) []note {
	var all []note
	for i := range t.Annotations {
		an := &t.Annotations[i]
		n := note{ID: an.ID, By: email(an.CompletedBy), At: an.CreatedAt, Gold: an.Chose(ledger.GoldChoice) || a.GroundTruth && an.GroundTruth, Cancelled: an.WasCancelled, Response: ledger.Storable(an.Entered(ledger.ResponseControl))}
		if who := authorOf(an); who != "" && !strings.EqualFold(who, n.By) {
			n.By, n.As = who, n.By
		}
		if n.Response != "" && response != "" {
			n.Changes = compare(response, n.Response)
		}
		all = append(all, n)
	}
	slices.SortFunc(all, func(x, y note) int { return cmp.Or(y.At.Compare(x.At), cmp.Compare(y.ID, x.ID)) })
	return all
}

// aboutControl is what a correction is about in the label configuration.
const aboutControl = "model_response"

// author is what a correction says of who wrote it where its annotation cannot: that
// of a person without an account in Label Studio is our user's.
type author struct {
	Email string `json:"author"`
}

// authorOf returns who wrote a correction, as the correction says, "" where it does not.
// Anybody could have put that there, so the page names the annotation's user with it.
func authorOf(an *labelstudio.Annotation) string {
	for _, r := range an.Result {
		var a author
		if r.FromName == ledger.ResponseControl && len(r.Meta) > 0 && json.Unmarshal(r.Meta, &a) == nil && a.Email != "" {
			return a.Email
		}
	}
	return ""
}

// conquestPage is what the template of a conquest is given.
type conquestPage struct {
	*details
	Back string
}

func (a *App) showConquest(w http.ResponseWriter, r *http.Request) error {
	d, err := a.readConquest(r.Context(), r.PathValue("id"), personOf(r))
	if err != nil {
		return err
	}
	a.annotate(r.Context(), d)
	if d.History, d.HistoryCut, err = a.history(r.Context(), d.ID); err != nil {
		return err
	}
	return a.render(w, r, http.StatusOK, "conquest", d.Heading(), conquestPage{details: d, Back: local(r.URL.Query().Get("back"))})
}
