package aristotle

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Rating is a row of ml_analysis_rating, as far as we read and write it.
type Rating struct {
	ID          string `json:"id"`
	Key         string `json:"key"` // "Conquest".id
	Philosopher string `json:"philosopher"`
	Domain      string `json:"domain"`
	Gold        bool   `json:"gold"`   // is_gold_star
	Sample      bool   `json:"sample"` // use_as_sample_response
	Stars       *int   `json:"-"`      // rating, 1..5
	Task        *int64 `json:"task"`
	Annotation  *int64 `json:"annotation"`
	createdAt   time.Time
}

// Place is where a star stands: the task and, where one says it, its annotation.
type Place struct {
	Task       int64
	Annotation int64 // 0: none
	Fill       bool  // nobody has just given it there: note it only where nothing is noted
}

// QueueRatings adds to a batch that the ratings of conquests are handed over. They
// need no lock: whoever writes them has locked the conquest. There may be no index on
// the column, so this may read the whole table: once, looking each row up in the
// keys of a JSON object, which are sorted. One whose time is not [Finite] counts as the oldest.
func QueueRatings(b *pgx.Batch, keys []string, each func(Rating)) {
	b.Queue(`SELECT id, conquest_analysis_id, philosopher, domain, COALESCE(is_gold_star, false), COALESCE(use_as_sample_response, false),
			rating, label_studio_task_id, label_studio_annotation_id, `+Finite(`created_at`)+`
		FROM public.ml_analysis_rating WHERE $1::jsonb ? conquest_analysis_id`, set(keys)).
		Query(func(rows pgx.Rows) error {
			var r Rating
			var created *time.Time
			_, err := pgx.ForEachRow(rows, []any{&r.ID, &r.Key, &r.Philosopher, &r.Domain, &r.Gold, &r.Sample, &r.Stars,
				&r.Task, &r.Annotation, &created}, func() error {
				r.createdAt = utc(created)
				each(r)
				r = Rating{}
				return nil
			})
			return err
		})
}

func set(keys []string) map[string]bool {
	m := make(map[string]bool, len(keys))
	for _, k := range keys {
		m[k] = true
	}
	return m
}

// Rate returns what must be written so that exactly one rating of the conquest's
// triple is gold where it is starred, and none where it is not. Nothing, where that
// is so already. An existing rating of the triple is used, else one is made with an
// id that follows from the triple, so that two writers make the same.
func Rate(c Conquest, gold bool, at *Place, all []Rating) []Rating {
	var mine []Rating
	for _, r := range all {
		if r.Key == c.ID && r.Philosopher == c.Philosopher && r.Domain == c.Domain {
			mine = append(mine, r)
		}
	}
	slices.SortFunc(mine, func(a, b Rating) int {
		return cmp.Or(-cmp.Compare(bit(a.Gold), bit(b.Gold)), a.createdAt.Compare(b.createdAt), cmp.Compare(a.ID, b.ID))
	})
	var write []Rating
	if gold && len(mine) == 0 {
		r := Rating{ID: ratingID(c), Key: c.ID, Philosopher: c.Philosopher, Domain: c.Domain, Gold: true, Sample: true}
		r.place(at)
		return []Rating{r}
	}
	for i, r := range mine {
		want := gold && i == 0
		placed := want && r.place(at)
		wrong := r.Gold != want || r.Sample != want && (want || r.Gold) || want && (r.Stars == nil || *r.Stars != 5)
		if wrong || placed {
			r.Gold, r.Sample = want, want
			write = append(write, r)
		}
	}
	return write
}

// place notes where the star was given, and tells whether that is news.
func (r *Rating) place(at *Place) (news bool) {
	if at == nil {
		return false
	}
	if at.Fill && r.Task != nil {
		return false
	}
	if r.Task == nil || *r.Task != at.Task {
		r.Task, r.Annotation, news = &at.Task, nil, true // an annotation belongs to its task
	}
	if at.Annotation != 0 && (r.Annotation == nil || *r.Annotation != at.Annotation) {
		r.Annotation, news = &at.Annotation, true
	}
	return news
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// ratingID follows from the triple alone. The parts are kept apart by a byte that
// no text in PostgreSQL can hold.
func ratingID(c Conquest) string {
	sum := sha256.Sum256([]byte(c.ID + "\x00" + c.Philosopher + "\x00" + c.Domain))
	return "gold_" + hex.EncodeToString(sum[:12])
}

// QueueWriteRatings adds to a batch that ratings are stored as they are: gold ones
// with five stars, others with the stars they had.
func QueueWriteRatings(b *pgx.Batch, ratings []Rating) {
	if len(ratings) == 0 {
		return
	}
	b.Queue(`INSERT INTO public.ml_analysis_rating AS r (id, conquest_analysis_id, analysis_type, rating, is_gold_star, use_as_sample_response,
			philosopher, domain, label_studio_task_id, label_studio_annotation_id, created_at, updated_at)
		SELECT id, key, 'conquest_analysis', 5, gold, sample, philosopher, domain, task, annotation,
			now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC'
		FROM jsonb_to_recordset($1) AS x(id text, key text, gold boolean, sample boolean, philosopher text, domain text, task integer, annotation integer)
		ORDER BY id
		ON CONFLICT (id) DO UPDATE SET
			is_gold_star = EXCLUDED.is_gold_star, use_as_sample_response = EXCLUDED.use_as_sample_response,
			rating = CASE WHEN EXCLUDED.is_gold_star THEN 5 ELSE r.rating END,
			label_studio_task_id = EXCLUDED.label_studio_task_id, label_studio_annotation_id = EXCLUDED.label_studio_annotation_id,
			updated_at = EXCLUDED.updated_at`, ratings)
}
