package icl

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// held is what an index knows beside the lists that it serves from.
type held struct {
	have      tables
	ratings   map[string]*Example // by their ids, the left out ones too
	of        map[string][]string // the ratings of a conquest
	prompts   owners
	responses owners
	leftOut   int
	bytes     int64
}

// owners says which rows of a text table belong to which conquest, of all of them: the
// tables may have no index on the conquest, and a row that is gone has only its id.
type owners struct {
	of   map[string]string   // the conquest of a row
	rows map[string][]string // the rows of a conquest
}

// ownerSize is what one row takes of memory in owners, about.
const ownerSize = 220

// set notes whose a row is, "" for nobody's any more. It returns whose it was, and by
// how much the memory has grown.
func (o *owners) set(id, conquest string) (was string, grown int64) {
	was = o.of[id]
	if was == conquest {
		return was, 0
	}
	if was != "" {
		o.rows[was] = slices.DeleteFunc(o.rows[was], func(r string) bool { return r == id })
		if len(o.rows[was]) == 0 {
			delete(o.rows, was)
		}
		delete(o.of, id)
		grown -= ownerSize
	}
	if conquest != "" {
		o.of[id] = conquest
		o.rows[conquest] = append(o.rows[conquest], id)
		grown += ownerSize
	}
	return was, grown
}

// atOnce is how many examples are made at once at most, or keys that were told.
const atOnce = 500

// load fills the index from nothing. What changes meanwhile is told, and read again.
func (x *Index) load(ctx context.Context) error {
	x.forget()
	h := held{ratings: map[string]*Example{}, of: map[string][]string{}}
	b := &pgx.Batch{}
	queueTables(b, &h.have)
	if err := x.src.pool.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("look for the tables of texts: %w", err)
	}
	for _, t := range []struct {
		there bool
		name  string
		into  *owners
	}{{h.have.prompts, "conquest_prompt", &h.prompts}, {h.have.responses, "conquest_response", &h.responses}} {
		*t.into = owners{map[string]string{}, map[string][]string{}}
		if !t.there {
			continue
		}
		if err := x.loadOwners(ctx, t.name, t.into, &h); err != nil {
			return fmt.Errorf("read whose the rows of %s are: %w", t.name, err)
		}
	}
	var ratings []Rating
	rows, err := x.src.pool.Query(ctx, ratingsSQL, append(Selection{}.args(), nil, "", nil)...)
	if err == nil {
		err = scanRatings(rows, func(r Rating) { ratings = append(ratings, r) })
	}
	if err != nil {
		return fmt.Errorf("read gold ratings: %w", err)
	}
	slices.Reverse(ratings) // oldest first: each is then put at the end of its lists
	groups := lists{}
	version := x.version + 1
	for e, err := range examples(ctx, x.src.pool, h.have, ratings, h.rowsOf) {
		if err != nil {
			return err
		}
		h.add(e)
		groups.put(e, version)
		if h.bytes > x.limit {
			return errTooLarge
		}
	}
	x.held = h
	x.mu.Lock()
	x.groups, x.version = groups, version
	x.mu.Unlock()
	x.measure()
	return nil
}

// lacks tells whether news are of a table that was not there when the index was loaded.
func (h *held) lacks(n News) bool {
	return len(n.Prompts) > 0 && !h.have.prompts || len(n.Responses) > 0 && !h.have.responses
}

func (x *Index) loadOwners(ctx context.Context, table string, into *owners, h *held) error {
	rows, err := x.src.pool.Query(ctx, `SELECT id, conquest_analysis_id FROM public.`+table)
	if err != nil {
		return err
	}
	var id, key string
	_, err = pgx.ForEachRow(rows, []any{&id, &key}, func() error {
		_, grown := into.set(id, key)
		if h.bytes += grown; h.bytes > x.limit {
			return errTooLarge
		}
		return nil
	})
	return err
}

// rowsOf says which rows of the text tables the examples of ratings are made of.
func (h *held) rowsOf(ratings []Rating) wanted {
	w := byConquest(ratings)
	w.byID, w.prompts, w.responses = true, nil, nil
	for _, key := range w.conquests {
		w.prompts = append(w.prompts, h.prompts.rows[key]...)
		w.responses = append(w.responses, h.responses.rows[key]...)
	}
	return w
}

func (h *held) add(e *Example) {
	h.ratings[e.ID] = e
	h.of[e.Key] = append(h.of[e.Key], e.ID)
	h.bytes += e.size()
	if !e.Usable() {
		h.leftOut++
	}
}

func (h *held) remove(e *Example) {
	delete(h.ratings, e.ID)
	h.of[e.Key] = slices.DeleteFunc(h.of[e.Key], func(id string) bool { return id == e.ID })
	if len(h.of[e.Key]) == 0 {
		delete(h.of, e.Key)
	}
	h.bytes -= e.size()
	if !e.Usable() {
		h.leftOut--
	}
}

// refresh reads anew what was told, and changes the index by what is different. It
// is done by one goroutine: a later read is never overtaken by an earlier one.
func (x *Index) refresh(ctx context.Context, n News) error {
	again, gone, err := x.lookUp(ctx, n)
	if err != nil {
		return fmt.Errorf("read what was told: %w", err)
	}
	for _, id := range gone {
		x.replace(id, nil)
	}
	for e, err := range examples(ctx, x.src.pool, x.held.have, again, x.held.rowsOf) {
		if err != nil {
			return err
		}
		if x.replace(e.ID, e); x.held.bytes > x.limit {
			return errTooLarge
		}
	}
	if x.held.bytes > x.limit { // by whose the texts' rows are
		return errTooLarge
	}
	return nil
}

// replace puts what a rating's example is now in the place of what it was; nil is none.
func (x *Index) replace(id string, e *Example) {
	was := x.held.ratings[id]
	if was == nil && e == nil || was != nil && e != nil && was.Rating == e.Rating && was.sum == e.sum && was.Usable() == e.Usable() {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.version++
	if was != nil {
		x.groups.drop(was, x.version)
		x.held.remove(was)
	}
	if e != nil {
		x.groups.put(e, x.version)
		x.held.add(e)
	}
}

// lookUp finds the ratings whose examples are touched by news, as they are now, and those
// that have no star any more.
func (x *Index) lookUp(ctx context.Context, n News) (again []Rating, gone []string, err error) {
	h := &x.held
	again, touched, err := x.lookUpRatings(ctx, n)
	if err != nil {
		return nil, nil, err
	}
	told := map[string]bool{}
	for _, r := range again {
		told[r.ID] = true
	}
	for _, id := range n.Ratings {
		if !told[id] {
			told[id] = true
			gone = append(gone, id)
		}
	}
	for _, key := range append(slices.Clone(n.Conquests), n.Texts...) {
		touched[key] = true
	}
	for key := range touched {
		for _, id := range h.of[key] {
			if !told[id] {
				again = append(again, h.ratings[id].Rating)
			}
		}
	}
	if len(again) == 0 { // stars that went
		return nil, gone, nil
	}
	types := map[string]string{}
	b := &pgx.Batch{}
	b.Queue(`SELECT id, COALESCE("conquestType"::text, '') FROM public."Conquest" WHERE id = ANY($1)`, byConquest(again).conquests).
		Query(scanPairs(func(id, conquestType string) { types[id] = conquestType }))
	if err := x.src.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, nil, err
	}
	for i := range again {
		again[i].Type = types[again[i].Key]
	}
	return again, gone, nil
}

// lookUpRatings reads the ratings that were told, as far as they are gold, and whose
// the rows of the text tables are that were. touched are the conquests of those.
func (x *Index) lookUpRatings(ctx context.Context, n News) (ratings []Rating, touched map[string]bool, err error) {
	h := &x.held
	b := &pgx.Batch{}
	if len(n.Ratings) > 0 {
		b.Queue(toldSQL, n.Ratings).Query(func(rows pgx.Rows) error {
			return scanRatings(rows, func(r Rating) { ratings = append(ratings, r) })
		})
	}
	touched = map[string]bool{}
	for _, t := range []struct {
		there bool
		table string
		ids   []string
		of    *owners
	}{{h.have.prompts, "conquest_prompt", n.Prompts, &h.prompts}, {h.have.responses, "conquest_response", n.Responses, &h.responses}} {
		if !t.there || len(t.ids) == 0 {
			continue
		}
		gone := map[string]bool{}
		for _, id := range t.ids {
			gone[id] = true
		}
		own := func(id, key string) {
			was, grown := t.of.set(id, key)
			h.bytes += grown
			touched[was], touched[key] = true, true
		}
		b.Queue(`SELECT id, conquest_analysis_id FROM public.`+t.table+` WHERE id = ANY($1)`, t.ids).Query(func(rows pgx.Rows) error {
			err := scanPairs(func(id, key string) {
				own(id, key)
				delete(gone, id)
			})(rows)
			for id := range gone {
				own(id, "")
			}
			return err
		})
	}
	return ratings, touched, x.src.pool.SendBatch(ctx, b).Close()
}

// scanPairs reads rows of two texts.
func scanPairs(each func(a, b string)) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		var a, b string
		_, err := pgx.ForEachRow(rows, []any{&a, &b}, func() error {
			each(a, b)
			return nil
		})
		return err
	}
}
