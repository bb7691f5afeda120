package curation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/web"
)

// editPage is what the editor's template is given.
type editPage struct {
	Task     int64
	Project  int64
	Conquest Conquest
	URL      string // of the task in Label Studio
	Prompt   string
	Response string           // the model's
	Text     string           // what is in the editor
	Base     int64            // the correction that the text began from; 0: the model's response
	Newest   *note            // the newest correction that there is; nil: none
	Writer   labelstudio.User // whose annotation it becomes; none: Label Studio could not be asked
	Conflict bool             // somebody saved another one meanwhile
	Problem  string           // why it was not saved
	Changes  []piece
	Sent     bool // the text was sent, and is newer than any draft
}

// Unchanged tells whether there is no change to show.
func (p *editPage) Unchanged() bool {
	return !slices.ContainsFunc(p.Changes, func(c piece) bool { return c.Op != same })
}

// Borrowed tells whether the annotation will be another user's than the person who writes.
func (p *editPage) Borrowed(who *Person) bool {
	return p.Writer.ID != 0 && !strings.EqualFold(p.Writer.Email, who.Email)
}

// longText is above what a browser can be asked to find the direction of as it is
// written: Chromium takes minutes for a megabyte.
const longText = 100_000

// Dir is the direction of the editor: the browser finds it, or, for a long text, its
// first letter tells.
func (p *editPage) Dir() string {
	if len(p.Text) <= longText {
		return "auto"
	}
	first := strings.IndexFunc(p.Text, unicode.IsLetter)
	if r, _ := utf8.DecodeRuneInString(p.Text[max(first, 0):]); unicode.In(r, unicode.Hebrew, unicode.Arabic, unicode.Syriac, unicode.Thaana, unicode.Nko) {
		return "rtl"
	}
	return "ltr"
}

// maxResponse bounds what may be saved, in bytes: as much as a form may have.
const maxResponse = 4 << 20

// editTask reads what the editor shows. Where Label Studio is away it is what turns
// have kept of the task.
func (a *App) editTask(ctx context.Context, id int64, who Person) (*editPage, error) {
	link, err := a.linkOf(ctx, id)
	if err != nil {
		return nil, err
	}
	if link.Key == "" {
		return nil, web.Refuse(http.StatusNotFound, "This task names no conquest. Edit it in Label Studio.")
	}
	d, err := a.readConquest(ctx, link.Key, who)
	if err != nil {
		return nil, err
	}
	p := &editPage{Task: id, Project: link.Project, Conquest: d.Conquest, URL: a.taskLink(link.Project, id), Response: d.Texts.Response}
	var said []string
	for _, m := range d.Texts.Asked {
		said = append(said, m.Content)
	}
	p.Prompt = strings.Join(said, "\n\n")
	return p, nil
}

// saveLimit is how long a person waits who saves: longer than for a page, since there is
// nothing else to show.
const saveLimit = 20 * time.Second

// seeOthers reads what others have written on the task by now, and whose annotation comes to it.
func (a *App) seeOthers(ctx context.Context, p *editPage, who Person) error {
	t, err := a.Studio.Task(ctx, p.Task)
	if err != nil {
		return err
	}
	if p.Writer, err = a.people.writer(ctx, who.Email); err != nil {
		return err
	}
	for _, n := range a.notesOf(t, a.people.emails(ctx), "") {
		if n.Response != "" {
			p.Newest = &n
			break
		}
	}
	return nil
}

const studioAway = "Label Studio does not answer."

func (a *App) showEditor(w http.ResponseWriter, r *http.Request) error {
	id, err := taskOf(r)
	if err != nil {
		return err
	}
	who := personOf(r)
	p, err := a.editTask(r.Context(), id, who)
	if err != nil {
		return err
	}
	if err := a.studio.ask(r.Context(), func(ctx context.Context) error { return a.seeOthers(ctx, p, who) }); err != nil {
		if labelstudio.IsNotFound(err) {
			return notThere()
		}
		p.Problem = studioAway + " You can write all the same: your text is kept in this browser until it can be saved."
		if p.Newest, err = a.keptCorrection(r.Context(), id); err != nil {
			return err
		}
	}
	p.Text = p.Response
	if p.Newest != nil {
		p.Text, p.Base = p.Newest.Response, p.Newest.ID
	}
	p.Changes = compare(p.Response, p.Text)
	return a.render(w, r, http.StatusOK, "edit", "Correct the response", p)
}

// keptCorrection is the newest correction that a turn has seen.
func (a *App) keptCorrection(ctx context.Context, task int64) (*note, error) {
	n := &note{}
	err := a.reader.QueryRow(ctx, `SELECT COALESCE(max(annotation_id), 0), COALESCE(max(corrected), ''), COALESCE(max(annotated_at), now())
		FROM task_text WHERE task_id = $1 AND corrected IS NOT NULL`, task).Scan(&n.ID, &n.Response, &n.At)
	if err != nil {
		return nil, fmt.Errorf("read the correction of task %d: %w", task, err)
	}
	if n.ID == 0 {
		return nil, nil
	}
	return n, nil
}

// saveResponse makes an annotation of the person that holds the text, a new one each
// time. It never changes one, not even the person's own: an update in Label Studio saves
// the whole task, and could put an old meta back, with a star that somebody has just
// given; and it replaces what the annotation said, which somebody may have begun from.
// An annotation too many loses nothing: the newest correction is the one that counts.
func (a *App) saveResponse(w http.ResponseWriter, r *http.Request) error {
	id, err := taskOf(r)
	if err != nil {
		return err
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return badForm(err)
	}
	who := personOf(r)
	p, unread := a.editTask(r.Context(), id, who)
	if unread != nil {
		p = &editPage{Task: id}
	}
	// A form's line breaks are CR LF, whatever was typed.
	p.Text, p.Sent = strings.ReplaceAll(r.PostForm.Get("text"), "\r\n", "\n"), true
	p.Base, _ = strconv.ParseInt(r.PostForm.Get("base"), 10, 64) // 0 for none
	if unread != nil {                                           // a page without the text would be the end of it where there are no scripts
		a.log(r, unread)
		why := explain(unread)
		p.Problem = why.Says + " Your text was not saved, and is still here: save it again in a moment, or copy it before you leave this page."
		return a.render(w, r, why.Status, "edit", "Correct the response", p)
	}
	p.Changes = compare(p.Response, p.Text)
	if r.PostForm.Get("do") == "compare" {
		status := http.StatusOK
		if p.Conflict = r.PostForm.Has("conflict"); p.Conflict || !byScript(r) { // which takes nothing of the page but the changes
			status = a.compareAgain(r.Context(), p, who)
		}
		return a.render(w, r, status, "edit", "Correct the response", p)
	}
	status, err := a.save(r.Context(), p, who)
	if err != nil {
		return err
	}
	if status != http.StatusCreated {
		return a.render(w, r, status, "edit", "Correct the response", p)
	}
	says := "Saved as your annotation in Label Studio."
	if p.Borrowed(&who) {
		says = "Saved in Label Studio with your name, as an annotation of " + p.Writer.Email + ": you have no account there."
	}
	setFlash(w, r, flash{Says: says, Task: id})
	http.Redirect(w, r, conquestURL(p.Conquest.ID), http.StatusSeeOther)
	return nil
}

// compareAgain is for a page that saves nothing. In a conflict it shows what differs from
// the other's text, as the page did that told of it.
func (a *App) compareAgain(ctx context.Context, p *editPage, who Person) (status int) {
	err := a.studio.ask(ctx, func(ctx context.Context) error { return a.seeOthers(ctx, p, who) })
	switch {
	case !p.Conflict: // where nobody answers the page says so at the latest when it has saved
	case err != nil:
		p.Problem = studioAway + " Nothing is lost: your text is still here. Compare it with theirs in a moment."
		return http.StatusServiceUnavailable
	case p.Newest == nil: // it was taken away meanwhile
		p.Conflict = false
	default:
		p.differ()
	}
	return http.StatusOK
}

// differ makes it a conflict with the newest correction: the page compares with it, and
// what is saved next began from it.
func (p *editPage) differ() {
	p.Conflict, p.Base, p.Changes = true, p.Newest.ID, compare(p.Newest.Response, p.Text)
}

// save tries to save what is in the editor. Where it does not the page says why, and
// the text stays in it.
func (a *App) save(ctx context.Context, p *editPage, who Person) (status int, err error) {
	switch {
	case strings.TrimSpace(p.Text) == "":
		p.Problem = "There is nothing to save yet: write the response as it should have been."
		return http.StatusUnprocessableEntity, nil
	case len(p.Text) > maxResponse || !isText(p.Text):
		p.Problem = fmt.Sprintf("The text cannot be saved: it may have %d MB and no NUL characters.", maxResponse>>20)
		return http.StatusUnprocessableEntity, nil
	}
	ctx, cancel := context.WithTimeout(ctx, saveLimit)
	defer cancel()
	switch err := a.seeOthers(ctx, p, who); {
	case labelstudio.IsNotFound(err):
		p.Problem = "This task is not in Label Studio any more. Copy your text before you leave this page."
		return http.StatusConflict, nil
	case err != nil:
		p.Problem = studioAway + " Nothing is lost: your text is still here. Save it again in a moment."
		return http.StatusServiceUnavailable, nil
	}
	if n := p.Newest; n != nil && n.ID != p.Base {
		if n.Response == p.Text && strings.EqualFold(n.By, who.Email) { // saved before, its answer was lost
			return http.StatusCreated, a.edited(ctx, p)
		}
		p.differ()
		return http.StatusConflict, nil
	}
	if p.Newest != nil && p.Newest.Response == p.Text || p.Newest == nil && p.Response == p.Text {
		p.Problem = "Nothing has changed, so there is nothing to save."
		return http.StatusUnprocessableEntity, nil
	}
	return a.create(ctx, p, who)
}

func (a *App) create(ctx context.Context, p *editPage, who Person) (status int, err error) {
	region, err := labelstudio.TextRegion(ledger.ResponseControl, aboutControl, p.Text)
	if err == nil && p.Borrowed(&who) {
		region.Meta, err = json.Marshal(author{who.Email})
	}
	if err != nil {
		return 0, err
	}
	_, err = a.Studio.CreateAnnotation(ctx, p.Task, labelstudio.AnnotationEdit{Result: []labelstudio.Region{region}, CompletedBy: p.Writer.ID})
	var e *labelstudio.Error
	switch {
	case err == nil:
		return http.StatusCreated, a.edited(ctx, p)
	case labelstudio.NotDone(err) && errors.As(err, &e) && e.Status == http.StatusBadRequest:
		p.Problem = "Label Studio refuses it: " + e.Detail
		return http.StatusUnprocessableEntity, nil
	case labelstudio.NotDone(err):
		p.Problem = studioAway + " Nothing is lost: your text is still here. Save it again in a moment."
	default:
		p.Problem = "Label Studio did not say whether it was saved. Your text is still here: save it again, it will not be there twice."
	}
	a.Log.WarnContext(ctx, "save a response", "task", p.Task, "error", err)
	return http.StatusServiceUnavailable, nil
}

// edited makes the key dirty, so that its texts are read anew. Label Studio tells it
// by webhook, too, where there is one.
func (a *App) edited(ctx context.Context, p *editPage) error {
	ctx, cancel := context.WithTimeout(ctx, clickLimit)
	defer cancel()
	if _, err := a.Ledger.Enqueue(ctx, []string{p.Conquest.ID}, ledger.FromCuration); err != nil {
		a.Log.WarnContext(ctx, "a response was saved, and its key is not dirty: a pass finds it", "key", p.Conquest.ID, "error", err)
		return nil
	}
	a.Metrics.Triggers.With(metrics.Curation).Inc()
	return nil
}
