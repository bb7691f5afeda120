package curation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/web"
)

const (
	// clickLimit is how long a click may wait for the row. Then the database counts as away.
	clickLimit = 5 * time.Second
	// followLimit is how long a program waits for the task to follow, as a sync call does.
	followLimit = 5 * time.Second
	// pageFollow is how long a page waits for it that has no script to tell it later.
	pageFollow = time.Second
	// maxCall is far above the body of a call.
	maxCall = 4 << 10
)

// starred is the answer of the gold-star call.
type starred struct {
	Task     int64     `json:"task_id"`
	Gold     bool      `json:"gold_star"`
	At       time.Time `json:"updated_at"`
	Row      bool      `json:"aristotle_synced"`
	Followed bool      `json:"label_studio_synced"`
}

// goldStar is POST /api/tasks/{task}/gold-star, for programs.
func (a *App) goldStar(w http.ResponseWriter, r *http.Request) error {
	task, err := taskOf(r)
	if err != nil {
		return err
	}
	var body struct {
		Gold *bool `json:"is_gold_star"`
	}
	if err := web.ReadJSON(w, r, maxCall, &body); err != nil {
		return err
	}
	if body.Gold == nil {
		return web.Refuse(http.StatusBadRequest, "is_gold_star is missing: send true or false.")
	}
	answer, err := a.star(r.Context(), personOf(r), task, *body.Gold)
	if err != nil {
		return err
	}
	web.Answer(w, http.StatusOK, answer)
	return nil
}

func taskOf(r *http.Request) (int64, error) {
	task, err := strconv.ParseInt(r.PathValue("task"), 10, 64)
	if err != nil || task <= 0 {
		return 0, notThere()
	}
	return task, nil
}

// notThere is one answer for what there is not and for what a person is not to see: nobody
// learns from it which conquests and tasks others have.
func notThere() error {
	return web.Refuse(http.StatusNotFound, "There is no such conquest or task in the projects that are synced, or it is not one of yours.")
}

// star gives or takes the star of a task: an edit of the row of its conquest, or, where
// that cannot be made, of the task itself.
func (a *App) star(ctx context.Context, who Person, task int64, gold bool) (starred, error) {
	link, err := a.linkOf(ctx, task)
	var p *web.Problem
	switch {
	case errors.As(err, &p):
		return starred{}, err
	case err != nil: // our database does not answer: nobody can tell whose conquest it is
		return a.starTask(ctx, who, task, gold, err)
	case link.Key == "":
		return a.starTask(ctx, who, task, gold, nil)
	}
	done, err := a.click(ctx, who, ledger.Click{Key: link.Key, Gold: gold, Task: task})
	switch {
	case errors.As(err, &p):
		return starred{}, err
	case errors.Is(err, ledger.ErrNoConquest):
		return a.starTask(ctx, who, task, gold, nil)
	case err != nil:
		return a.starTask(ctx, who, task, gold, err)
	}
	answer := starred{Task: task, Gold: gold, At: time.Now().UTC().Truncate(time.Millisecond), Row: true}
	answer.Followed = a.followed(ctx, link.Key, done.Gen, followLimit) && a.shows(ctx, task, gold)
	return answer, nil
}

// linkOf says which conquest a task belongs to: as we remember it, else as Label
// Studio has it now. Its Key is "" for a task of no conquest. A task that is not in our
// projects is a problem, and one that we do not know while Label Studio is away.
func (a *App) linkOf(ctx context.Context, task int64) (ledger.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, clickLimit)
	defer cancel()
	link := ledger.Link{Task: task}
	var missing bool
	// Not by the pages' connections, here and below: all of them may be busy with searches, and
	// a database that has none left would count as away.
	err := a.Ledger.Pool().QueryRow(ctx, `SELECT key, project, missing_since IS NOT NULL FROM edge WHERE task_id = $1`, task).Scan(&link.Key, &link.Project, &missing)
	known := err == nil && !missing
	if known && !a.Projects.Have(link.Project) {
		return ledger.Link{}, notThere()
	}
	if known || err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return link, err
	}
	t, err := a.task(ctx, task)
	if err != nil {
		return ledger.Link{}, err
	}
	link = ledger.Link{Task: task, Project: t.Project, Key: ledger.KeyOf(t.Data)}
	if link.Key == "" {
		return link, nil
	}
	_, err = a.Ledger.Linked(ctx, []ledger.Link{link}, a.Initial, ledger.FromCuration)
	return link, err
}

// task reads a task of our projects. What it returns instead are problems.
func (a *App) task(ctx context.Context, id int64) (*labelstudio.Task, error) {
	t, err := a.Studio.Task(ctx, id)
	switch {
	case labelstudio.IsNotFound(err):
		return nil, notThere()
	case err != nil:
		return nil, &web.Problem{Status: http.StatusServiceUnavailable, After: 5 * time.Second, Err: err,
			Detail: "Label Studio does not answer, and this task is not known here yet. Nothing was changed; try again in a moment."}
	case !a.Projects.Have(t.Project):
		return nil, notThere()
	}
	return t, nil
}

// click is a person's word on a conquest that they may see.
func (a *App) click(ctx context.Context, who Person, c ledger.Click) (ledger.Clicked, error) {
	ctx, cancel := context.WithTimeout(ctx, clickLimit)
	defer cancel()
	if err := a.visible(ctx, who, c.Key); err != nil {
		return ledger.Clicked{}, err
	}
	c.From = ledger.FromCuration
	if who.Email != "" {
		c.Who = &who.Email
	}
	done, err := a.Ledger.Click(ctx, c)
	if err != nil {
		return ledger.Clicked{}, err
	}
	a.Metrics.Triggers.With(metrics.Curation).Inc()
	a.counts.forget()
	return done, nil
}

// visible refuses a conquest that a person is not to see, as if it were not there.
func (a *App) visible(ctx context.Context, who Person, key string) error {
	if !who.Limited() {
		return nil
	}
	var philosopher, domain string
	err := a.Ledger.Pool().QueryRow(ctx, `SELECT philosopher, domain FROM public."Conquest" WHERE id = $1`, key).Scan(&philosopher, &domain)
	switch {
	case errors.Is(err, pgx.ErrNoRows) || err == nil && !who.may(philosopher, domain):
		return notThere()
	case err != nil: // who is confined must not get past that because nobody can look
		return &web.Problem{Status: http.StatusServiceUnavailable, Detail: "Aristotle's database does not answer. Nothing was changed; try again in a moment.", Err: err}
	}
	return nil
}

// starTask sets the star on the task itself, as any person's edit: the star's keys
// change, the rest of meta stays as it was read, an old stamp included. why is what
// kept the row from being written; nil where there is none.
func (a *App) starTask(ctx context.Context, who Person, id int64, gold bool, why error) (starred, error) {
	if who.Limited() {
		if why == nil {
			return starred{}, notThere()
		}
		return starred{}, &web.Problem{Status: http.StatusServiceUnavailable, Detail: "Aristotle's database does not answer. Nothing was changed; try again in a moment.", Err: why}
	}
	if why != nil {
		a.Log.WarnContext(ctx, "the row cannot be written: the star is set on its task", "task", id, "error", why)
	}
	read := time.Now()
	t, err := a.task(ctx, id)
	if err != nil {
		return starred{}, err
	}
	meta, err := withStar(t.Meta, gold)
	if err != nil {
		return starred{}, err
	}
	if _, err := a.Studio.PatchMeta(labelstudio.SentBy(ctx, read.Add(labelstudio.MaxAge)), id, meta); err != nil {
		return starred{}, &web.Problem{Status: http.StatusServiceUnavailable, Err: err,
			Detail: "Neither Aristotle's database nor Label Studio took the star. Try again in a moment."}
	}
	return starred{Task: id, Gold: gold, At: time.Now().UTC().Truncate(time.Millisecond), Followed: true}, nil
}

// withStar is a meta with the star set or taken away, under both names where the older
// one is there. A meta that is no object says nothing of a star and is kept beside it.
func withStar(meta json.RawMessage, gold bool) (json.RawMessage, error) {
	m := map[string]json.RawMessage{}
	if json.Unmarshal(meta, &m) != nil || m == nil {
		m = map[string]json.RawMessage{}
		if len(meta) > 0 && string(meta) != "null" {
			m["previous_meta"] = meta
		}
	}
	value := json.RawMessage(strconv.FormatBool(gold))
	m["gold_star"] = value
	if _, older := m["is_gold_star"]; older {
		m["is_gold_star"] = value
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write meta: %w", err)
	}
	return text, nil
}

// followed waits until the turn that a click asked for has ended well.
func (a *App) followed(ctx context.Context, key string, gen int64, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done, err := a.Ledger.Await(ctx, key, gen)
	if err != nil { // the click is safe: what is not known is only whether the task has followed
		a.Log.DebugContext(ctx, "wait for a turn", "key", key, "error", err)
	}
	return done
}

// shows tells whether we know that a task shows what it is to show.
func (a *App) shows(ctx context.Context, task int64, gold bool) (yes bool) {
	err := a.Ledger.Pool().QueryRow(ctx, `SELECT COALESCE(s = $2, false) AND intent_value IS NULL AND missing_since IS NULL FROM edge WHERE task_id = $1`, task, gold).Scan(&yes)
	return err == nil && yes
}

// clickStar is the star's button on a page. Its form says what the person wants, not
// "the other one": two people who click at once want the same.
func (a *App) clickStar(w http.ResponseWriter, r *http.Request) error {
	key, who := r.PathValue("id"), personOf(r)
	if err := r.ParseForm(); err != nil {
		return badForm(err)
	}
	gold := r.PostForm.Get("gold") == "true"
	done, err := a.click(r.Context(), who, ledger.Click{Key: key, Gold: gold})
	var p *web.Problem
	switch {
	case errors.Is(err, ledger.ErrNoConquest):
		return notThere()
	case errors.As(err, &p):
		return err
	case err != nil:
		if err := a.starKnown(r.Context(), who, r.PostForm.Get("task"), gold, err); err != nil {
			return err
		}
		setFlash(w, r, flash{Says: "Aristotle's database does not answer, so the star was set in Label Studio. Aristotle follows by itself."})
	default:
		setFlash(w, r, clicked(key, gold, done))
		if !byScript(r) {
			a.followed(r.Context(), key, done.Gen, pageFollow)
		}
	}
	http.Redirect(w, r, local(r.PostForm.Get("back")), http.StatusSeeOther)
	return nil
}

// starKnown is what is left when the database is away: the task that the page knew of.
func (a *App) starKnown(ctx context.Context, who Person, task string, gold bool, why error) error {
	id, err := strconv.ParseInt(task, 10, 64)
	if err != nil {
		return why
	}
	_, err = a.starTask(ctx, who, id, gold, why)
	return err
}

func clicked(key string, gold bool, done ledger.Clicked) flash {
	f := flash{Says: "The star was taken away."}
	if done.Changed { // else there was nothing to go back to: the other answer would be a new one
		f.Key, f.Gold = key, !gold
	}
	if gold {
		f.Says = "Marked as gold star."
	}
	if done.Settled > 0 {
		f.Says += " What was held is settled."
	}
	return f
}

// byScript tells whether a form was sent by the page's script, which hears later what
// comes of it.
func byScript(r *http.Request) bool { return r.Header.Get("X-Requested-With") == "curation" }
