package curation

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/web"
)

// loginPage is what the login's template is given.
type loginPage struct {
	Next    string
	Problem string
	// What a person had sent when nobody knew them any more; it is sent again after the
	// login, so that no text is lost to a session that ended.
	Resume     string // an address; "" for none
	ResumeBody string // a form, encoded
}

// maxForm is above any response: they were seen with a megabyte, and percent signs
// treble that.
const maxForm = 16 << 20

// maxStranger bounds the form of somebody who was never known here: it is read, and
// drawn into a page, for anybody who asks.
const maxStranger = 64 << 10

// fromStranger reads a form that nobody has to be known for. Only who was known here
// lately may have written more than maxStranger.
func (a *App) fromStranger(w http.ResponseWriter, r *http.Request, limit int64) error {
	known, err := a.sessions.told(r, endedFor)
	if err != nil {
		return err
	}
	if known == nil {
		limit = maxStranger
	}
	r.Body = http.MaxBytesReader(w, r.Body, limit)
	err = r.ParseForm()
	var large *http.MaxBytesError
	switch {
	case known == nil && errors.As(err, &large):
		return web.Refuse(http.StatusRequestEntityTooLarge, "Nobody is signed in here, and this is too long to be kept until somebody is. Sign in in another tab, then go back and send it again.")
	case err != nil:
		return badForm(err)
	}
	return nil
}

// askWho answers a request of nobody known: with the login page, which leads on to
// what was asked for.
func (a *App) askWho(w http.ResponseWriter, r *http.Request) error {
	page := loginPage{Next: r.URL.RequestURI()}
	if r.Method != http.MethodGet {
		if err := a.fromStranger(w, r, maxForm); err != nil {
			return err
		}
		page = loginPage{Next: "/", Resume: r.URL.Path, ResumeBody: r.PostForm.Encode(),
			Problem: "You are not signed in any more. Sign in, and what you have just sent is taken up again; nothing is lost."}
	}
	return a.render(w, r, http.StatusUnauthorized, "login", "Who is it?", page)
}

func (a *App) showLogin(w http.ResponseWriter, r *http.Request) error {
	next := local(r.URL.Query().Get("next"))
	if _, err := a.identify(r); err == nil {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return nil
	}
	return a.render(w, r, http.StatusOK, "login", "Who is it?", loginPage{Next: next})
}

// resumePage is a form that is sent again.
type resumePage struct {
	Action string
	Fields []field
}

type field struct{ Name, Value string }

func (a *App) login(w http.ResponseWriter, r *http.Request) error {
	if err := a.fromStranger(w, r, 2*maxForm); err != nil {
		return err
	}
	page := loginPage{Next: local(r.PostForm.Get("next")), ResumeBody: r.PostForm.Get("resume_body")}
	if to := r.PostForm.Get("resume"); to != "" {
		page.Resume = local(to)
	}
	if a.Guard.Tokens == nil {
		http.Redirect(w, r, page.Next, http.StatusSeeOther)
		return nil
	}
	c, known := a.Guard.Tokens.Find(strings.TrimSpace(r.PostForm.Get("token")))
	switch {
	case !known:
		page.Problem = "This token is not known. Check that all of it was copied, or ask whoever runs the reconciler for one."
	case !c.Has(auth.Curate):
		page.Problem = "This token is known, but it has not the scope curate. Ask whoever runs the reconciler for that scope."
	}
	if page.Problem != "" {
		return a.render(w, r, http.StatusUnauthorized, "login", "Who is it?", page)
	}
	_, mark, _ := a.Guard.Tokens.Named(c.Name)
	if err := a.sessions.begin(w, r, c.Name, mark); err != nil {
		return err
	}
	if page.Resume == "" {
		http.Redirect(w, r, page.Next, http.StatusSeeOther)
		return nil
	}
	return a.resume(w, withPerson(r, Person{Caller: c, Session: true}), page)
}

// resume offers to send again what was sent before the login. It takes one more
// click: whoever signs in may be another person than the one who wrote it.
func (a *App) resume(w http.ResponseWriter, r *http.Request, page loginPage) error {
	form, err := url.ParseQuery(page.ResumeBody)
	if err != nil {
		return badForm(err)
	}
	again := resumePage{Action: page.Resume}
	for name, values := range form {
		for _, v := range values {
			again.Fields = append(again.Fields, field{name, v})
		}
	}
	return a.render(w, r, http.StatusOK, "resume", "Go on", again)
}

func (a *App) logout(w http.ResponseWriter, r *http.Request) error {
	http.SetCookie(w, cookie(r, sessionCookie, "", 0))
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}

// local is an address of ours: where a form or a link leads to must not be up to
// whoever made the link.
func local(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(address, "/") ||
		strings.HasPrefix(address, "//") || strings.ContainsAny(address, "\\\r\n\t") {
		return "/"
	}
	return address
}
