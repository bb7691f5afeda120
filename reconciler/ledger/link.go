package ledger

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// Projects are the projects that were configured, LABEL_STUDIO_PROJECTS; none for all.
type Projects []int64

// Have tells whether a project is one of them.
func (p Projects) Have(project int64) bool { return len(p) == 0 || slices.Contains(p, project) }

// KeyFields are the fields of a task's data that name its conquest. Older importers
// left it in the second, which counts where the first has none.
func KeyFields() [2]string { return [...]string{"conquest_id", "id"} }

// KeyOf reads the conquest that a task belongs to from the task's data, see
// [KeyFields]. "" where it names none.
func KeyOf(data json.RawMessage) string {
	if id, plain := plainKey(data); plain {
		return id
	}
	var d map[string]json.RawMessage // a struct would take "ID" for "id"
	if json.Unmarshal(data, &d) != nil {
		return "" // data that is no object names no conquest
	}
	fields := KeyFields()
	id := cmp.Or(idText(d[fields[0]]), idText(d[fields[1]]))
	if len(id) > maxKey || strings.ContainsRune(id, 0) {
		return "" // no row of PostgreSQL has such an id
	}
	return id
}

// plainKey reads data that is nothing but a conquest_id without escapes, as it comes
// from Label Studio's database: a pass reads a million of them.
func plainKey(data json.RawMessage) (id string, plain bool) {
	rest, found := bytes.CutPrefix(data, []byte(`{"conquest_id":"`))
	raw, end, _ := bytes.Cut(rest, []byte{'"'})
	if !found || len(raw) == 0 || len(raw) > maxKey || string(end) != "}" || bytes.ContainsFunc(raw, escaped) {
		return "", false
	}
	return string(raw), true
}

// escaped tells whether a text with this rune may be another one than it looks, or none.
func escaped(r rune) bool { return r == '\\' || r < ' ' || r == utf8.RuneError }

// maxKey is far above any id, and below what an index can hold.
const maxKey = 1000

// idText reads an id that is a text or, from some importers, a whole number.
func idText(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var n int64
	if json.Unmarshal(raw, &n) == nil && !bytes.Equal(raw, []byte("null")) {
		return strconv.FormatInt(n, 10)
	}
	return ""
}

// Link says that a task belongs to a key.
type Link struct {
	Task    int64  `json:"task_id"`
	Project int64  `json:"project"`
	Key     string `json:"key"`
}

// linkSQL adds the links that are not there: $1 links, $2 the choice for a first
// contact before the project's first full pass has finished. A task that is linked
// to another key stays so until that key's turn has read it: it may have a PATCH
// under way.
const linkSQL = `
	INSERT INTO edge (task_id, key, project, begun)
	SELECT DISTINCT ON (x.task_id) x.task_id, x.key, x.project, CASE WHEN p.full_at IS NULL THEN $2 ELSE 'union' END
	FROM jsonb_to_recordset($1) AS x(task_id bigint, key text, project bigint)
	LEFT JOIN project p ON p.id = x.project
	ORDER BY x.task_id
	ON CONFLICT (task_id) DO NOTHING`

// QueueLinks adds new links to a batch.
func QueueLinks(b *pgx.Batch, links []Link, initial string) {
	if len(links) > 0 {
		b.Queue(linkSQL, links, initial)
	}
}

// Linked commits links and makes their keys dirty, in one round trip: it is what a
// webhook or a pass does with the tasks that it was told of. Keys that these tasks
// were linked to before become dirty too, since they may have lost one. For what others
// have locked it waits as long as ctx lets it.
func (l *Ledger) Linked(ctx context.Context, links []Link, initial string, from Source) (int, error) {
	if len(links) == 0 {
		return 0, nil
	}
	var n int
	err := untilFree(ctx, func() error {
		b := &pgx.Batch{}
		QueueLinks(b, links, initial)
		b.Queue(`SELECT mark_dirty(array_agg(key), $2, $3, $4) FROM (
				SELECT key FROM jsonb_to_recordset($1) AS x(key text)
				UNION
				SELECT e.key FROM jsonb_to_recordset($1) AS x(task_id bigint) JOIN edge e USING (task_id)) k`,
			links, from.priority(), string(from), minGap).QueryRow(func(r pgx.Row) error { return r.Scan(&n) })
		return l.pool.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return 0, fmt.Errorf("link %d tasks: %w", len(links), err)
	}
	return n, nil
}

// Link adds links and makes nothing dirty: it is for the turn of their own key.
func (l *Ledger) Link(ctx context.Context, links []Link, initial string) error {
	if len(links) == 0 {
		return nil
	}
	if _, err := l.pool.Exec(ctx, linkSQL, links, initial); err != nil {
		return fmt.Errorf("link %d tasks: %w", len(links), err)
	}
	return nil
}
