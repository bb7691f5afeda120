package curation

import (
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// when is a time as a page shows it, in UTC: the script rewrites it to where the
// reader is.
func when(v any) template.HTML {
	t, _ := v.(time.Time)
	if p, ok := v.(*time.Time); ok && p != nil {
		t = *p
	}
	if t.IsZero() {
		return `<span class="none">–</span>`
	}
	u := t.UTC()
	return template.HTML(`<time datetime="` + u.Format(time.RFC3339Nano) + `" title="` + u.Format("Monday, 2 January 2006, 15:04:05") + ` UTC">` +
		u.Format("2 Jan 2006, 15:04") + `</time>`)
}

// number groups digits by thin spaces, which no line breaks at.
func number(n int) string {
	digits := strconv.Itoa(n)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteRune('\u202f')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// label makes a word of the database one to read: CANDIDATE_EVALUATION is "Candidate
// evaluation".
func label(word string) string {
	word = strings.ToLower(strings.ReplaceAll(word, "_", " "))
	if word == "" {
		return "–"
	}
	first := []rune(word)
	return strings.ToUpper(string(first[0])) + string(first[1:])
}

// breakable lets a line break where an address has a joint.
func breakable(text string) template.HTML {
	text = template.HTMLEscapeString(text)
	return template.HTML(strings.NewReplacer("@", "<wbr>@", "_", "_<wbr>").Replace(text))
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// flash is what a page says of what was just done. It travels to the next page in a
// cookie, once.
type flash struct {
	Says string `json:"s"`
	Task int64  `json:"t,omitempty"` // whose response was saved
	// The star that would undo it.
	Key  string `json:"k,omitempty"`
	Gold bool   `json:"g,omitempty"`
}

const (
	flashCookie = "reconciler_flash"
	flashFor    = time.Minute
)

func setFlash(w http.ResponseWriter, r *http.Request, f flash) {
	text, err := json.Marshal(f)
	if err != nil {
		panic(err) // texts
	}
	http.SetCookie(w, cookie(r, flashCookie, base64.RawURLEncoding.EncodeToString(text), flashFor))
}

func takeFlash(w http.ResponseWriter, r *http.Request) *flash {
	c, err := r.Cookie(flashCookie)
	if err != nil {
		return nil
	}
	http.SetCookie(w, cookie(r, flashCookie, "", 0))
	text, err := base64.RawURLEncoding.DecodeString(c.Value)
	f := &flash{}
	if err != nil || json.Unmarshal(text, f) != nil {
		return nil
	}
	return f
}
