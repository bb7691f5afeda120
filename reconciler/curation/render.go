package curation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/web"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed assets
var assetFiles embed.FS

// pages are the parsed templates, one set a page, and the assets.
type pages struct {
	sets   map[string]*template.Template
	assets map[string]asset
}

// asset is an embedded file, whose address changes with its contents.
type asset struct {
	content           []byte
	contentType, hash string
}

// parsePages parses all templates: a mistake in one stops the program at its start.
func parsePages() (*pages, error) {
	p := &pages{sets: map[string]*template.Template{}, assets: map[string]asset{}}
	types := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	err := fs.WalkDir(assetFiles, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := assetFiles.ReadFile(name)
		sum := sha256.Sum256(content)
		p.assets[path.Base(name)] = asset{content: content, contentType: types[path.Ext(name)], hash: hex.EncodeToString(sum[:6])}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the assets: %w", err)
	}
	base, err := template.New("").Funcs(p.funcs()).ParseFS(templateFiles, "templates/base.html", "templates/parts.html")
	if err != nil {
		return nil, fmt.Errorf("parse the templates: %w", err)
	}
	files, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		set, err := base.Clone()
		if err == nil {
			set, err = set.ParseFS(templateFiles, file)
		}
		if err != nil {
			return nil, fmt.Errorf("parse the templates: %w", err)
		}
		p.sets[strings.TrimSuffix(path.Base(file), ".html")] = set
	}
	return p, nil
}

func (p *pages) funcs() template.FuncMap {
	return template.FuncMap{
		"asset":       func(name string) string { return "/assets/" + name + "?v=" + p.assets[name].hash },
		"conquestURL": conquestURL,
		"taskURL":     taskURL,
		"heldURL":     func(id string) string { return "/held/" + url.PathEscape(id) },
		"when":        when,
		"iso":         func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"number":      number,
		"label":       label,
		"plural":      plural,
		"breakable":   breakable,
		"options":     options,
	}
}

// view is what every page's template is given.
type view struct {
	Title string
	Page  string // the template's name
	Who   *Person
	Here  string // the address of this page
	Flash *flash
	Held  int
	Body  any
}

// render answers with a page. The whole of it is made before anything is sent.
func (a *App) render(w http.ResponseWriter, r *http.Request, status int, name, title string, body any) error {
	v := view{Title: title, Page: name, Here: r.URL.RequestURI(), Body: body, Flash: takeFlash(w, r)}
	if who, known := r.Context().Value(personKey{}).(Person); known {
		v.Who = &who
		v.Held = a.heldCount(r.Context(), who)
	}
	out := &bytes.Buffer{}
	if err := a.pages.sets[name].ExecuteTemplate(out, "base", v); err != nil {
		return fmt.Errorf("draw the page %s: %w", name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes()) // a person who has gone needs no page
	return nil
}

// errorPage is what the error's template is given.
type errorPage struct {
	Status int
	Says   string // what happened
	Do     string // what to do about it
	Again  string // where it can be tried again; "" where that would not help
}

// fail answers a person with what went wrong and what to do.
func (a *App) fail(w http.ResponseWriter, r *http.Request, err error) {
	a.log(r, err)
	page := explain(err)
	var p *web.Problem
	if errors.As(err, &p) {
		p.RetryAfter(w.Header())
	}
	if page.Status >= http.StatusInternalServerError {
		page.Again = again(r)
	}
	if err := a.render(w, r, page.Status, "error", http.StatusText(page.Status), page); err != nil {
		a.log(r, err)
		http.Error(w, page.Says, page.Status)
	}
}

func explain(err error) errorPage {
	var p *web.Problem
	switch {
	case errors.As(err, &p):
		return errorPage{Status: p.Status, Says: p.Detail}
	case labelstudio.Away(err):
		return errorPage{Status: http.StatusServiceUnavailable, Says: "Label Studio does not answer.", Do: "Try again in a moment. Nothing was changed."}
	case isDatabaseAway(err):
		return errorPage{Status: http.StatusServiceUnavailable, Says: "Aristotle's database does not answer.",
			Do: "Try again in a moment. Nothing was changed; what was saved before is safe."}
	}
	return errorPage{Status: http.StatusInternalServerError, Says: "Something went wrong here.",
		Do: "It is in the daemon's log. Nothing that was saved before is lost."}
}

// again is where a person can try again: at the same address, or, where that takes a
// form, on the page that the form is on.
func again(r *http.Request) string {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return r.URL.RequestURI()
	}
	from, err := url.Parse(r.Referer())
	if err != nil || from.Host != r.Host || from.Host == "" {
		return ""
	}
	return local(from.RequestURI())
}

func badForm(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return web.Refuse(http.StatusRequestEntityTooLarge, "This is more text than fits: at most %d MB.", maxForm>>20)
	}
	return web.Refuse(http.StatusBadRequest, "What was sent did not arrive whole. Go back and send it again.")
}

// asset answers with an embedded file. With the hash in its address it never changes.
func (a *App) asset(w http.ResponseWriter, r *http.Request) {
	f, known := a.pages.assets[r.PathValue("name")]
	if !known {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", f.contentType)
	w.Header().Set("Cache-Control", "no-cache")
	if r.URL.Query().Get("v") == f.hash {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}

func withPerson(r *http.Request, p Person) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), personKey{}, p))
}

// IsAdmin is for templates.
func (p Person) IsAdmin() bool { return p.Has(auth.Admin) }
