package icl

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/semaphore"

	"github.com/aristotle/reconciler/reconciler/ledger"
)

const (
	// statementTimeout bounds what reads whole tables: the warm-up, and an export.
	statementTimeout = 2 * time.Minute
	maxConns         = 6
	// tellers are the connections that tell what the stream has, which waits for it: no
	// reader, however many there are and however slow, takes one of them.
	tellers = 2
	// A page is read in chunks, since where none is usable there are none.
	firstChunk = 25
	maxChunk   = 1000
	// partBytes bounds the texts that are in memory before examples are made of them, but
	// for those of a single conquest: they may have megabytes each.
	partBytes = 16 << 20
)

// errPart says that texts are more than [partBytes].
var errPart = errors.New("too many texts at once")

// Source reads examples from Aristotle's database and our schema in it. It is safe
// for concurrent use.
type Source struct {
	pool   *pgxpool.Pool
	pages  *semaphore.Weighted // that are read at a time: each is in memory until it is whole
	tell   *pgxpool.Pool
	schema string
}

// Open connects as the ordinary role when first asked: it returns an error only where
// the URL cannot be read. The connections are its own, since these statements read many
// rows and are to be planned for what they find, unlike the ledger's. configure
// may add to how they are made.
func Open(ctx context.Context, url, schema string, configure ...func(*pgxpool.Config)) (*Source, error) {
	configure = append([]func(*pgxpool.Config){func(conf *pgxpool.Config) { conf.MaxConns = maxConns }}, configure...)
	pool, err := ledger.NewPool(ctx, url, schema, map[string]string{
		"application_name":  "reconciler examples",
		"statement_timeout": fmt.Sprint(statementTimeout.Milliseconds()),
		// What is written here is news for the other replicas, worth nothing after a crash.
		"synchronous_commit": "off",
	}, configure...)
	if err != nil {
		return nil, err
	}
	conf := pool.Config()
	conf.MaxConns = tellers
	tell, err := pgxpool.NewWithConfig(ctx, conf)
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("connect to Aristotle's database: %w", err)
	}
	return &Source{pool: pool, pages: semaphore.NewWeighted(maxConns), tell: tell, schema: schema}, nil
}

// Close waits for what is under way and closes all connections.
func (s *Source) Close() {
	s.pool.Close()
	s.tell.Close()
}

// atSQL is a rating's place in time as a number. Not every timestamp is one: what was
// left out is the oldest, and the infinities stand at the ends.
const atSQL = `COALESCE(LEAST(GREATEST(extract(epoch FROM r.created_at) * 1000000, -9e18), 9e18), -9.1e18)::bigint`

// goldSQL reads gold ratings with their conquests' types.
const goldSQL = `
	SELECT r.id, r.conquest_analysis_id, r.philosopher, r.domain, COALESCE(c."conquestType"::text, '') AS type, ` + atSQL + ` AS at,
	       COALESCE(r.label_studio_task_id, 0) AS task
	FROM public.ml_analysis_rating r LEFT JOIN public."Conquest" c ON c.id = r.conquest_analysis_id
	WHERE r.is_gold_star`

// toldSQL reads those of some ratings that are gold.
const toldSQL = goldSQL + ` AND r.id = ANY($1)`

// selectedSQL is where those of a selection are, its zero value all. See [Selection.args].
const selectedSQL = `
	FROM (` + goldSQL + ` AND ($1::text = '' OR r.philosopher = $1) AND ($2::text = '' OR r.domain = $2)
		AND ($4::timestamp IS NULL OR r.created_at >= $4) AND ($5::timestamp IS NULL OR r.created_at < $5)
	) g
	WHERE ($3::text = '' OR lower(type COLLATE "C") = $3)`

// ratingsSQL reads them in the order of examples, after a place and up to a limit; NULL is neither.
const ratingsSQL = `SELECT *` + selectedSQL + `
	  AND ($6::bigint IS NULL OR at < $6 OR at = $6 AND id COLLATE "C" > $7::text)
	ORDER BY at DESC, id COLLATE "C" LIMIT $8`

func (sel Selection) args() []any {
	return []any{sel.Philosopher, sel.Domain, fold(sel.Type), bound(sel.Since), bound(sel.Until)}
}

// Count tells how many gold stars a selection has, usable or not, whatever its limit.
func (s *Source) Count(ctx context.Context, sel Selection) (n int, err error) {
	if err := s.pool.QueryRow(ctx, `SELECT count(*)`+selectedSQL, sel.args()...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count gold stars: %w", err)
	}
	return n, nil
}

// scanRatings hands over the ratings that a statement returns.
func scanRatings(rows pgx.Rows, each func(Rating)) error {
	var r Rating
	_, err := pgx.ForEachRow(rows, []any{&r.ID, &r.Key, &r.Philosopher, &r.Domain, &r.Type, &r.At, &r.Task}, func() error {
		each(r)
		return nil
	})
	return err
}

// tables says which of the tables are there that only some installations have.
type tables struct{ prompts, responses, texts bool }

// queueTables adds to a batch that t is filled in.
func queueTables(b *pgx.Batch, t *tables) {
	b.Queue(`SELECT to_regclass('public.conquest_prompt') IS NOT NULL, to_regclass('public.conquest_response') IS NOT NULL,
			to_regclass('task_text') IS NOT NULL`).
		QueryRow(func(row pgx.Row) error { return row.Scan(&t.prompts, &t.responses, &t.texts) })
}

// Examples answers a query. Its errors are ErrCursor and ErrOtherCursor, and the
// database's.
func (s *Source) Examples(ctx context.Context, q Query) (Page, error) {
	after, err := q.after()
	if err != nil {
		return Page{}, err
	}
	if err := s.pages.Acquire(ctx, 1); err != nil {
		return Page{}, fmt.Errorf("wait for other pages: %w", err)
	}
	defer s.pages.Release(1)
	var page Page
	// Usable or not is known when the texts are read: a few more until the page is full,
	// and one, to know whether it goes on.
	for chunk := min(q.Limit+1, firstChunk); ; {
		ratings, have, err := readRatings(ctx, s.pool, Selection{Philosopher: q.Philosopher, Domain: q.Domain, Type: q.Type}, after, chunk)
		if err != nil {
			return Page{}, fmt.Errorf("read gold ratings: %w", err)
		}
		before := len(page.Examples)
		for e, err := range examples(ctx, s.pool, have, ratings, byConquest) {
			switch {
			case err != nil:
				return Page{}, err
			case !e.Usable():
				page.gap++
			case !page.add(q, e):
				return page, nil
			}
		}
		if len(ratings) < chunk {
			return page.end(), nil
		}
		if len(page.Examples) == before {
			chunk = min(2*chunk, maxChunk)
		}
		end := ratings[len(ratings)-1]
		after = &place{end.At, end.ID}
	}
}

// readRatings reads the next ratings of a selection, and which tables of texts there are.
func readRatings(ctx context.Context, db sender, sel Selection, after *place, limit int) (ratings []Rating, have tables, err error) {
	var at *int64
	var id string
	if after != nil {
		at, id = &after.at, after.id
	}
	b := &pgx.Batch{}
	queueTables(b, &have)
	b.Queue(ratingsSQL, append(sel.args(), at, id, limit)...).Query(func(rows pgx.Rows) error {
		return scanRatings(rows, func(r Rating) { ratings = append(ratings, r) })
	})
	return ratings, have, db.SendBatch(ctx, b).Close()
}

// bound is a time as a column without a zone has it; nil for none.
func bound(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// wanted are the rows of the text tables to be read: by conquest, or, where it is
// known which they are, by their own ids. There may be no index on the former.
type wanted struct {
	conquests          []string
	byID               bool
	prompts, responses []string
}

func byConquest(ratings []Rating) wanted {
	seen := map[string]bool{}
	var w wanted
	for _, r := range ratings {
		if !seen[r.Key] {
			seen[r.Key] = true
			w.conquests = append(w.conquests, r.Key)
		}
	}
	w.prompts, w.responses = w.conquests, w.conquests
	return w
}

// sender is a pool or a transaction.
type sender interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// examples makes the examples of ratings, in their order. It holds the texts of a part of
// them at a time: one that turns out to have too many bytes is read again, as halves.
func examples(ctx context.Context, db sender, have tables, ratings []Rating, rowsOf func([]Rating) wanted) iter.Seq2[*Example, error] {
	return func(yield func(*Example, error) bool) {
		for n := atOnce; len(ratings) > 0; {
			part := ratings[:min(n, len(ratings))]
			limit := partBytes
			if len(part) == 1 {
				limit = math.MaxInt
			}
			b := &pgx.Batch{}
			all := queueTexts(b, have, rowsOf(part), &limit)
			switch err := db.SendBatch(ctx, b).Close(); {
			case errors.Is(err, errPart):
				n = len(part) / 2
				continue
			case err != nil:
				yield(nil, fmt.Errorf("read the texts of examples: %w", err))
				return
			}
			for _, r := range part {
				if !yield(example(r, all[r.Key]), nil) {
					return
				}
			}
			ratings = ratings[len(part):]
			if limit > partBytes*3/4 {
				n = min(2*n, atOnce)
			}
		}
	}
}

// queueTexts adds to a batch that texts are read into the map that it returns, of which limit
// is how many bytes they may have; what they have is taken from it. Of Aristotle's own rows the
// first that is not blank counts: others are not kept.
func queueTexts(b *pgx.Batch, have tables, w wanted, limit *int) map[string]texts {
	all := make(map[string]texts, len(w.conquests))
	keep := func(key string, t texts, kept ...string) error {
		for _, text := range kept {
			*limit -= len(text)
		}
		if *limit < 0 {
			return errPart
		}
		all[key] = t
		return nil
	}
	column := "conquest_analysis_id"
	if w.byID {
		column = "id"
	}
	if have.prompts && len(w.prompts) > 0 {
		b.Queue(`SELECT conquest_analysis_id, `+short("data->>'prompt'")+`, `+short("data->>'system_prompt'")+`
			FROM public.conquest_prompt WHERE `+column+` = ANY($1) ORDER BY id COLLATE "C"`, w.prompts).Query(func(rows pgx.Rows) error {
			var key string
			var p prompt
			_, err := pgx.ForEachRow(rows, []any{&key, &p.text, &p.system}, func() error {
				t := all[key]
				if blank(p.text) || len(t.prompts) > 0 {
					return nil
				}
				t.prompts = append(t.prompts, p)
				return keep(key, t, p.text, p.system)
			})
			return err
		})
	}
	if have.responses && len(w.responses) > 0 {
		b.Queue(`SELECT conquest_analysis_id, `+short("data->>'response'")+`
			FROM public.conquest_response WHERE `+column+` = ANY($1) ORDER BY id COLLATE "C"`, w.responses).Query(func(rows pgx.Rows) error {
			var key, text string
			_, err := pgx.ForEachRow(rows, []any{&key, &text}, func() error {
				t := all[key]
				if blank(text) || len(t.responses) > 0 {
					return nil
				}
				t.responses = append(t.responses, text)
				return keep(key, t, text)
			})
			return err
		})
	}
	if have.texts && len(w.conquests) > 0 {
		queueTaskTexts(b, w.conquests, func(key string, t taskText) error {
			of := all[key]
			of.tasks = append(of.tasks, t)
			return keep(key, of, t.prompt, t.messages, t.response, t.system, t.corrected)
		})
	}
	return all
}

// ReadTexts reads the texts of a conquest for a person who looks at it: those of its newest
// star, where it has one. Where Aristotle's own may not be read it does without them, which no
// example does. db has our schema first in its search path.
func ReadTexts(ctx context.Context, db sender, key string) (Texts, error) {
	var have tables
	var task int64
	b := &pgx.Batch{}
	b.Queue(`SELECT COALESCE(has_table_privilege(to_regclass('public.conquest_prompt'), 'SELECT'), false),
			COALESCE(has_table_privilege(to_regclass('public.conquest_response'), 'SELECT'), false), to_regclass('task_text') IS NOT NULL,
			COALESCE((SELECT task FROM (`+goldSQL+` AND r.conquest_analysis_id = $1) g ORDER BY at DESC, id COLLATE "C" LIMIT 1), 0)`, key).
		QueryRow(func(row pgx.Row) error { return row.Scan(&have.prompts, &have.responses, &have.texts, &task) })
	if err := db.SendBatch(ctx, b).Close(); err != nil {
		return Texts{}, fmt.Errorf("look for the texts of %q: %w", key, err)
	}
	b, limit := &pgx.Batch{}, math.MaxInt
	all := queueTexts(b, have, byConquest([]Rating{{Key: key}}), &limit)
	if err := db.SendBatch(ctx, b).Close(); err != nil {
		return Texts{}, fmt.Errorf("read the texts of %q: %w", key, err)
	}
	return textsOf(all[key], task), nil
}

// short is a text, empty where there is none or it is too long.
func short(text string) string {
	return fmt.Sprintf(`CASE WHEN octet_length(%s) <= %d THEN %[1]s ELSE '' END`, text, ledger.MaxText)
}

func queueTaskTexts(b *pgx.Batch, keys []string, each func(string, taskText) error) {
	b.Queue(`SELECT key, task_id, COALESCE(prompt, ''), COALESCE(messages, ''), COALESCE(response, ''), COALESCE(system, ''),
			COALESCE(corrected, ''), COALESCE(annotation_id, 0), COALESCE(annotated_at, 'epoch')
		FROM task_text WHERE key = ANY($1)`, keys).Query(func(rows pgx.Rows) error {
		var key string
		var t taskText
		_, err := pgx.ForEachRow(rows, []any{&key, &t.task, &t.prompt, &t.messages, &t.response, &t.system, &t.corrected,
			&t.annotation, &t.annotatedAt}, func() error {
			return each(key, t)
		})
		return err
	})
}
