package curation

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/aristotle/reconciler/reconciler/ledger"
)

// pageSize is how many conquests a page of the list has.
const pageSize = 50

// Query is what a list shows and how: the filters, the order and the place in it. It
// is read from a URL and written into one, so that a list can be shared.
type Query struct {
	Text        string // every word of it is somewhere in title, id, philosopher or domain
	Result      string
	Type        string
	Philosopher string
	Domain      string
	Star        string // "yes" or "no": what the tasks show
	Sync        string // one of the states' names
	Sort        string // one of the keys of sorts
	Asc         bool
	place       place
}

// place is where a page begins: after a row, or before one for a page that ends there.
type place struct {
	Value  string
	ID     string
	Before bool
}

// sorted is a column that lists can be ordered by: an expression that is never NULL,
// its type, and whether the natural first look is ascending.
type sorted struct {
	expr, kind string
	asc        bool
}

// sorts are the orders. id breaks ties, so that every row has one place. A title's letters
// are made small in the way of C, those of ASCII: the locale's way takes longer for 100,000
// titles than all the rest, and its collation, which orders them, knows the others' case.
func sorts() map[string]sorted {
	return map[string]sorted{
		"updated":     {`COALESCE(c."updatedAt", '-infinity')`, "timestamp", false},
		"created":     {`COALESCE(c."createdAt", '-infinity')`, "timestamp", false},
		"title":       {`lower(COALESCE(c.title, '') COLLATE "C") COLLATE "default"`, "text", true},
		"result":      {`COALESCE(c.result::text, '')`, "text", true},
		"type":        {`COALESCE(c."conquestType"::text, '')`, "text", true},
		"philosopher": {`c.philosopher`, "text", true},
		"domain":      {`c.domain`, "text", true},
	}
}

const defaultSort = "updated"

// parseQuery reads a list's URL. What it does not know it leaves out: a link that
// was cut by a mail program still shows a list.
func parseQuery(v url.Values) Query {
	get := func(name string) string {
		return strings.TrimSpace(strings.ReplaceAll(strings.ToValidUTF8(v.Get(name), ""), "\x00", ""))
	}
	q := Query{Text: get("q"), Result: get("result"), Type: get("type"), Philosopher: get("philosopher"), Domain: get("domain"),
		Star: get("star"), Sync: get("sync"), Sort: get("sort")}
	if q.Star != "yes" && q.Star != "no" {
		q.Star = ""
	}
	if !slices.Contains(syncStates(), syncState(q.Sync)) {
		q.Sync = ""
	}
	s, known := sorts()[q.Sort]
	if !known {
		q.Sort, s = defaultSort, sorts()[defaultSort]
	}
	q.Asc = s.asc
	if dir := get("dir"); dir != "" {
		q.Asc = dir == "asc"
	}
	for name, before := range map[string]bool{"after": false, "before": true} {
		if at, err := readPlace(v.Get(name)); err == nil {
			q.place = at
			q.place.Before = before
		}
	}
	return q
}

// values is the URL's query without the place, and without what is the default.
func (q Query) values() url.Values {
	v := url.Values{}
	for name, value := range map[string]string{"q": q.Text, "result": q.Result, "type": q.Type, "philosopher": q.Philosopher,
		"domain": q.Domain, "star": q.Star, "sync": q.Sync} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if q.Sort != defaultSort {
		v.Set("sort", q.Sort)
	}
	if q.Asc != sorts()[q.Sort].asc {
		v.Set("dir", map[bool]string{true: "asc", false: "desc"}[q.Asc])
	}
	return v
}

// URL is the address of the list, from its beginning.
func (q Query) URL() string { return listURL(q.values()) }

func listURL(v url.Values) string {
	if len(v) == 0 {
		return "/"
	}
	return "/?" + v.Encode()
}

// at is the address of the page that begins after a row, or ends before it.
func (q Query) at(p place) string {
	v := q.values()
	v.Set(map[bool]string{true: "before", false: "after"}[p.Before], p.String())
	return listURL(v)
}

// String packs a place for a URL.
func (p place) String() string {
	text, err := json.Marshal([]string{p.Value, p.ID})
	if err != nil {
		panic(err) // texts
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func readPlace(text string) (place, error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return place{}, err
	}
	var parts []string
	if err := json.Unmarshal(raw, &parts); err != nil || len(parts) != 2 || strings.ContainsRune(parts[0]+parts[1], 0) {
		return place{}, fmt.Errorf("%q is no place in a list", text)
	}
	return place{Value: parts[0], ID: parts[1]}, nil
}

// Filtered tells whether anything is left out.
func (q Query) Filtered() bool {
	v := q.values()
	v.Del("sort")
	v.Del("dir")
	return len(v) > 0
}

// sql collects conditions and their arguments.
type sql struct {
	conditions []string
	args       []any
}

// arg adds an argument, and returns how a statement names it.
func (s *sql) arg(v any) string {
	s.args = append(s.args, v)
	return "$" + strconv.Itoa(len(s.args))
}

func (s *sql) where(format string, args ...any) {
	names := make([]any, len(args))
	for i, a := range args {
		names[i] = s.arg(a)
	}
	s.conditions = append(s.conditions, fmt.Sprintf(format, names...))
}

func (s *sql) clause() string {
	if len(s.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(s.conditions, " AND ")
}

// searched is where the words of a search are looked for.
const searched = `(COALESCE(c.title, '') || ' ' || c.id || ' ' || c.philosopher || ' ' || c.domain)`

// filters adds the conditions of the query, and those that confine who asks.
func (q Query) filters(s *sql, who Person) {
	for _, equal := range []struct{ column, value string }{
		{`c.result::text`, q.Result}, {`c."conquestType"::text`, q.Type}, {`c.philosopher`, q.Philosopher}, {`c.domain`, q.Domain},
		{`c.philosopher`, who.Philosopher}, {`c.domain`, who.Domain},
	} {
		if equal.value != "" {
			s.where(equal.column+` = %s`, equal.value)
		}
	}
	for _, word := range strings.Fields(q.Text) {
		in := searched
		if !strings.ContainsFunc(word, func(r rune) bool { return r > unicode.MaxASCII }) {
			in += ` COLLATE "C"` // what the locale does to other letters finds no more, and takes thrice as long
		}
		s.where(`strpos(lower(`+in+`), lower(%s)) > 0`, word)
	}
	const starred = `EXISTS (SELECT FROM edge e WHERE e.key = c.id AND e.s AND e.missing_since IS NULL)`
	switch q.Star {
	case "yes":
		s.where(starred)
	case "no":
		s.where(`NOT ` + starred)
	}
	switch syncState(q.Sync) {
	case syncHeld:
		s.where(`c.id IN (SELECT key FROM edge WHERE held IS NOT NULL AND missing_since IS NULL)`)
	case syncStuck:
		s.where(`c.id IN (SELECT key FROM queue WHERE want_gen > done_gen AND attempts >= %s)`, ledger.StuckAfter)
	case syncUnderWay:
		s.where(`c.id IN (SELECT key FROM queue WHERE want_gen > done_gen AND attempts < %s)`, ledger.StuckAfter)
	case syncNoTask:
		s.where(`NOT EXISTS (SELECT FROM edge e WHERE e.key = c.id AND e.missing_since IS NULL)`)
	case syncDone:
		s.where(`EXISTS (SELECT FROM edge e WHERE e.key = c.id AND e.missing_since IS NULL AND e.held IS NULL)`)
		s.where(`NOT EXISTS (SELECT FROM queue k WHERE k.key = c.id AND k.want_gen > k.done_gen)`)
	}
}

// window adds the condition of the place and returns the direction that the page is
// read in: backwards for one that ends before a row.
func (q Query) window(s *sql) (direction string) {
	by := sorts()[q.Sort]
	forward := q.Asc != q.place.Before
	if q.place.ID != "" {
		value, id := s.arg(q.place.Value), s.arg(q.place.ID)
		s.conditions = append(s.conditions, fmt.Sprintf(`(%s, c.id) %s (%s::text::%s, %s)`, by.expr,
			map[bool]string{true: ">", false: "<"}[forward], value, by.kind, id))
	}
	return map[bool]string{true: "ASC", false: "DESC"}[forward]
}
