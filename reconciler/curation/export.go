package curation

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aristotle/reconciler/reconciler/icl"
	"github.com/aristotle/reconciler/reconciler/web"
)

// choice is what a person wants to export. The examples and their order are those of
// `reconciler export` and of the API: one definition, package icl's.
type choice struct {
	Philosopher, Domain, Type string
	Format                    icl.Format
}

// readChoice reads it from a URL. Who is confined gets their own, whatever they ask for.
func readChoice(v url.Values, who Person) (choice, error) {
	c := choice{Philosopher: v.Get("philosopher"), Domain: v.Get("domain"), Type: v.Get("type"), Format: icl.Format(v.Get("format"))}
	if c.Format == "" {
		c.Format = icl.ChatML
	}
	c.Philosopher, c.Domain = cmp.Or(who.Philosopher, c.Philosopher), cmp.Or(who.Domain, c.Domain)
	switch {
	case !c.Format.Valid():
		return choice{}, web.Refuse(http.StatusBadRequest, "There is no such format: choose chatml, alpaca or openai.")
	case !isText(c.Philosopher + c.Domain + c.Type):
		return choice{}, web.Refuse(http.StatusBadRequest, "This address cannot be read. Choose again what to export.")
	}
	return c, nil
}

// URL is where the choice is downloaded.
func (c choice) URL() string {
	v := url.Values{"format": {string(c.Format)}}
	for name, value := range map[string]string{"philosopher": c.Philosopher, "domain": c.Domain, "type": c.Type} {
		if value != "" {
			v.Set(name, value)
		}
	}
	return "/export.jsonl?" + v.Encode()
}

func (c choice) query(limit int, cursor string) icl.Query {
	return icl.Query{Philosopher: c.Philosopher, Domain: c.Domain, Type: c.Type, Limit: limit, Cursor: cursor}
}

func (c choice) selection() icl.Selection {
	return icl.Selection{Philosopher: c.Philosopher, Domain: c.Domain, Type: c.Type}
}

// exportPage is what the template is given.
type exportPage struct {
	Choice  choice
	Facets  facets
	Gold    int // ratings with the star
	First   []string
	Formats []icl.Format
}

// firstExamples is how many the page shows.
const firstExamples = 3

// maxSnippet bounds what it shows of each, in bytes.
const maxSnippet = 4000

func (a *App) showExport(w http.ResponseWriter, r *http.Request) error {
	who := personOf(r)
	c, err := readChoice(r.URL.Query(), who)
	if err != nil {
		return err
	}
	p := exportPage{Choice: c, Formats: []icl.Format{icl.ChatML, icl.Alpaca, icl.OpenAI}}
	p.Facets = a.facets.ask(r.Context(), confined{"", who.Philosopher, who.Domain}, func(ctx context.Context) (facets, error) {
		return a.readFacets(ctx, who)
	})(readLimit)
	ctx, cancel := context.WithTimeout(r.Context(), readLimit)
	defer cancel()
	if p.Gold, err = a.Examples.Count(ctx, c.selection()); err != nil {
		return err
	}
	first, err := a.Examples.Examples(ctx, c.query(firstExamples, ""))
	if err != nil {
		return fmt.Errorf("read the first examples: %w", err)
	}
	for _, e := range first.Examples {
		p.First = append(p.First, snippet(e.Append(nil, c.Format)))
	}
	return a.render(w, r, http.StatusOK, "export", "Export", p)
}

// snippet is an example as a person reads it.
func snippet(line []byte) string {
	var b bytes.Buffer
	if err := json.Indent(&b, line, "", "  "); err != nil {
		b.Write(line)
	}
	if b.Len() > maxSnippet {
		b.Truncate(maxSnippet)
		return strings.ToValidUTF8(b.String(), "") + " …"
	}
	return b.String()
}

// A download is read at one moment, and the database keeps what that moment shows until its
// end: so there are few at a time, and none is for ever.
const (
	maxExports  = 2
	exportLimit = 15 * time.Minute
	// writeLimit is how long a reader may take for one piece of it.
	writeLimit = 20 * time.Second
)

// download writes what `reconciler export` writes, as it is read. A failure cuts the
// connection, so that nobody takes half of it for the whole.
func (a *App) download(w http.ResponseWriter, r *http.Request) error {
	c, err := readChoice(r.URL.Query(), personOf(r))
	if err != nil {
		return err
	}
	if !a.exports.TryAcquire(1) {
		return &web.Problem{Status: http.StatusServiceUnavailable, After: 10 * time.Second,
			Detail: fmt.Sprintf("%d downloads are under way, and more at a time would keep the database from its work. Try again when one has ended.", maxExports)}
	}
	defer a.exports.Release(1)
	ctx, cancel := context.WithTimeout(r.Context(), a.exportLimit)
	defer cancel()
	out := &attachment{ResponseWriter: w, name: "gold-stars-" + string(c.Format) + ".jsonl"}
	_, err = a.Examples.Export(ctx, out, c.selection(), c.Format, nil)
	switch {
	case err == nil:
		out.begin() // also of nothing
		return nil
	case !out.begun:
		return err
	case r.Context().Err() == nil:
		a.log(r, err)
	}
	panic(http.ErrAbortHandler)
}

// attachment is an answer that becomes a file once there is something to write.
type attachment struct {
	http.ResponseWriter
	name  string
	begun bool
}

func (a *attachment) begin() {
	if !a.begun {
		a.begun = true
		a.Header().Set("Content-Type", "application/x-ndjson")
		a.Header().Set("Content-Disposition", `attachment; filename="`+a.name+`"`)
	}
}

func (a *attachment) Write(b []byte) (int, error) {
	a.begin()
	if err := http.NewResponseController(a.ResponseWriter).SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return 0, err
	}
	return a.ResponseWriter.Write(b)
}
