package curation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aristotle/reconciler/aristotle"
)

// The ids of a page, then its rows and what we remember of each, by key. The page is
// found before anything is looked up for it: of the whole table only what it is sorted
// by goes through the sort.
const listSQL = `
	WITH page AS MATERIALIZED (
		SELECT c.id, %[1]s AS sorted FROM public."Conquest" c%[2]s ORDER BY %[1]s %[3]s, c.id %[3]s LIMIT %[4]d
	)
	SELECT p.id, COALESCE(c.title, ''), COALESCE(c."conquestType"::text, ''), COALESCE(c.result::text, ''),
	       c.philosopher, c.domain, COALESCE(c.status::text, ''), %[5]s, p.sorted::text,
	       COALESCE(e.tasks, '{}'), COALESCE(e.starred, 0), COALESCE(e.held, false), COALESCE(q.want_gen > q.done_gen, false), COALESCE(q.attempts, 0)
	FROM page p
	JOIN public."Conquest" c ON c.id = p.id
	LEFT JOIN LATERAL (
		SELECT array_agg(task_id ORDER BY task_id) FILTER (WHERE missing_since IS NULL) AS tasks,
		       count(*) FILTER (WHERE s AND missing_since IS NULL) AS starred, bool_or(held IS NOT NULL AND missing_since IS NULL) AS held
		FROM edge WHERE key = p.id) e ON true
	LEFT JOIN queue q ON q.key = p.id
	ORDER BY p.sorted %[3]s, p.id %[3]s`

// list is a page of conquests.
type list struct {
	Query      Query
	Rows       []Conquest
	Next, Prev string // addresses; "" where there is nothing more
}

// conquests reads a page.
func (a *App) conquests(ctx context.Context, q Query, who Person) (list, error) {
	s := &sql{}
	q.filters(s, who)
	direction := q.window(s)
	text := fmt.Sprintf(listSQL, sorts()[q.Sort].expr, s.clause(), direction, pageSize+1, aristotle.Finite(`c."updatedAt"`)) // one more: is there another page?
	rows, err := a.reader.Query(ctx, text, s.args...)
	if err != nil {
		return list{}, fmt.Errorf("list conquests: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c Conquest, err error) {
		return c, row.Scan(&c.ID, &c.Title, &c.Type, &c.Result, &c.Philosopher, &c.Domain, &c.Status, &c.UpdatedAt, &c.sortedBy,
			&c.Tasks, &c.Starred, &c.Held, &c.Dirty, &c.Attempts)
	})
	var bad *pgconn.PgError
	if errors.As(err, &bad) && strings.HasPrefix(bad.Code, "22") && q.place != (place{}) { // the place's value is none of its column's
		q.place = place{}
		return a.conquests(ctx, q, who)
	}
	if err != nil {
		return list{}, fmt.Errorf("list conquests: %w", err)
	}
	return q.page(found), nil
}

// page makes a page of the rows that were found, one more than fit included.
func (q Query) page(found []Conquest) list {
	more := len(found) > pageSize
	found = found[:min(len(found), pageSize)]
	if q.place.Before {
		slices.Reverse(found)
	}
	l := list{Query: q, Rows: found}
	if len(found) == 0 {
		return l
	}
	first, last := found[0], found[len(found)-1]
	if more || q.place.Before {
		l.Next = q.at(place{Value: last.sortedBy, ID: last.ID})
	}
	if q.place.Before && more || !q.place.Before && q.place.ID != "" {
		l.Prev = q.at(place{Value: first.sortedBy, ID: first.ID, Before: true})
	}
	return l
}

// counts are how many conquests there are by result; Known is false while they are
// being counted for the first time.
type counts struct {
	Known    bool
	Total    int
	ByResult map[string]int
}

// whole counts a list that is all on one page, whatever the result: nobody else need.
func (l list) whole() counts {
	c := counts{Known: l.Query.Result == "" && l.Query.place == place{} && l.Next == "", Total: len(l.Rows), ByResult: map[string]int{}}
	for _, row := range l.Rows {
		c.ByResult[row.Result]++
	}
	return c
}

// counted is the query whose counts a list shows: for each result, and in any order.
func (q Query) counted() Query {
	q.Result, q.Sort, q.Asc, q.place = "", defaultSort, sorts()[defaultSort].asc, place{}
	return q
}

// countsSQL counts under the filters.
const countsSQL = `SELECT COALESCE(c.result::text, ''), count(*) FROM public."Conquest" c%s GROUP BY 1`

func (a *App) countResults(ctx context.Context, q Query, who Person) (counts, error) {
	s := &sql{}
	q.filters(s, who)
	rows, err := a.reader.Query(ctx, fmt.Sprintf(countsSQL, s.clause()), s.args...)
	if err != nil {
		return counts{}, fmt.Errorf("count conquests: %w", err)
	}
	c := counts{Known: true, ByResult: map[string]int{}}
	var result string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&result, &n}, func() error {
		c.ByResult[result] = n
		c.Total += n
		return nil
	})
	if err != nil {
		return counts{}, fmt.Errorf("count conquests: %w", err)
	}
	return c, nil
}

// facets are the values that there are to filter by. Known is false while they are
// being read for the first time.
type facets struct {
	Known                        bool
	Types, Philosophers, Domains []string
}

// maxFacet bounds a list of values to choose from. Whoever has more types them.
const maxFacet = 200

const facetsSQL = `SELECT "conquestType"::text, philosopher, domain FROM public."Conquest"
	WHERE ($1 = '' OR philosopher = $1) AND ($2 = '' OR domain = $2)
	GROUP BY GROUPING SETS (("conquestType"), (philosopher), (domain))`

func (a *App) readFacets(ctx context.Context, who Person) (facets, error) {
	rows, err := a.reader.Query(ctx, facetsSQL, who.Philosopher, who.Domain)
	if err != nil {
		return facets{}, fmt.Errorf("read what there is to filter by: %w", err)
	}
	f := facets{Known: true}
	var kind, philosopher, domain *string
	_, err = pgx.ForEachRow(rows, []any{&kind, &philosopher, &domain}, func() error {
		for _, column := range []struct {
			value *string
			into  *[]string
		}{{kind, &f.Types}, {philosopher, &f.Philosophers}, {domain, &f.Domains}} {
			if column.value != nil && *column.value != "" && len(*column.into) < maxFacet {
				*column.into = append(*column.into, *column.value)
			}
		}
		kind, philosopher, domain = nil, nil, nil
		return nil
	})
	if err != nil {
		return facets{}, fmt.Errorf("read what there is to filter by: %w", err)
	}
	for _, values := range [][]string{f.Types, f.Philosophers, f.Domains} {
		slices.Sort(values)
	}
	return f, nil
}

// countWait is for how long, from when it was asked for, a page of the list waits for its
// counts. They read the whole table as the list does, and after it: the list must not be
// late for them.
const countWait = 75 * time.Millisecond

// listPage is what the list's template is given.
type listPage struct {
	list
	Counts counts
	Facets facets
}

func (a *App) showList(w http.ResponseWriter, r *http.Request) error {
	q, who := parseQuery(r.URL.Query()), personOf(r)
	for _, values := range r.URL.Query() {
		if values[0] == "" { // a form sends its empty fields, too: an address that is shared has none
			http.Redirect(w, r, q.URL(), http.StatusSeeOther)
			return nil
		}
	}
	begun := time.Now()
	l, err := a.conquests(r.Context(), q, who)
	if err != nil {
		return err
	}
	page := listPage{list: l, Counts: l.whole()}
	known := a.facets.ask(r.Context(), confined{"", who.Philosopher, who.Domain}, func(ctx context.Context) (facets, error) {
		return a.readFacets(ctx, who)
	})
	if counting := q.counted(); !page.Counts.Known {
		page.Counts = a.counts.ask(r.Context(), confined{counting.URL(), who.Philosopher, who.Domain}, func(ctx context.Context) (counts, error) {
			return a.countResults(ctx, counting, who)
		})(countWait - time.Since(begun))
	}
	page.Facets = known(countWait - time.Since(begun))
	return a.render(w, r, http.StatusOK, "list", "Conquests", page)
}

// confined names what a memo holds: an address, for people of one confinement.
type confined struct{ address, philosopher, domain string }

// What the template asks of a page of the list.

// Narrowed tells whether a filter is on that is in the folded part.
func (p listPage) Narrowed() bool {
	q := p.Query
	return q.Type != "" || q.Philosopher != "" || q.Domain != "" || q.Star != "" || q.Sync != ""
}

// options are the values to choose from, the chosen one among them in any case.
func options(values []string, chosen string) []string {
	if chosen == "" || slices.Contains(values, chosen) {
		return values
	}
	return append(slices.Clone(values), chosen)
}

// States are the states to filter by.
func (p listPage) States() []syncState { return syncStates() }

// Sorts are the orders.
func (p listPage) Sorts() []string { return slices.Sorted(maps.Keys(sorts())) }

// Results are those that there is a tab for: the contract's, and whatever else there is.
func (p listPage) Results() []string {
	all := []string{aristotle.Pending, aristotle.Victory, "DEFEAT", "NEUTRAL"}
	for _, r := range slices.Sorted(maps.Keys(p.Counts.ByResult)) {
		if r != "" && !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
}

// Count is how many conquests have a result, under the filters.
func (p listPage) Count(result string) int { return p.Counts.ByResult[result] }

// Found is how many conquests the list has on all its pages.
func (p listPage) Found() int {
	if p.Query.Result != "" {
		return p.Count(p.Query.Result)
	}
	return p.Counts.Total
}

// With is the address of the list with another value of one filter.
func (p listPage) With(filter, value string) string {
	v := p.Query.values()
	v.Del(filter)
	if value != "" {
		v.Set(filter, value)
	}
	return listURL(v)
}

// column is a head of the table that sorts by it.
type column struct{ Sort, Name, URL, Sorted string }

// Columns are the heads. The one that is sorted by turns the order round.
func (p listPage) Columns() []column {
	var all []column
	for _, c := range []struct{ sort, name string }{{"title", "Title"}, {"type", "Type"}, {"philosopher", "Philosopher"}, {"domain", "Domain"},
		{"result", "Result"}, {"updated", "Changed"}} {
		q := p.Query
		q.Sort, q.Asc = c.sort, sorts()[c.sort].asc
		col := column{Sort: c.sort, Name: c.name}
		if c.sort == p.Query.Sort {
			q.Asc = !p.Query.Asc
			col.Sorted = map[bool]string{true: "ascending", false: "descending"}[p.Query.Asc]
		}
		col.URL = q.URL()
		all = append(all, col)
	}
	return all
}

// toggle is a row's star, and the address to come back to.
type toggle struct {
	Row  Conquest
	Back string
}

// Toggle makes it.
func (p listPage) Toggle(row Conquest, back string) toggle { return toggle{row, back} }
