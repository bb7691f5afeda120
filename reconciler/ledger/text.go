package ledger

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Text is what a task has that an example can be made of. An empty field is one that
// the task does not have; none of them holds a NUL, which PostgreSQL cannot store.
type Text struct {
	Task        int64
	Key         string
	Prompt      string
	Messages    string // in place of Prompt: JSON, a list of {"role", "content"}
	Response    string
	System      string
	Corrected   string // a person's response
	Annotation  int64  // that it is of
	AnnotatedAt time.Time
}

// ResponseControl is the control of the label configuration where a person writes a
// better response, and GoldChoice the choice that gives the star.
const (
	ResponseControl = "response"
	GoldChoice      = "gold_star"
)

// MaxText is above what a model takes in, in bytes. A text that is longer is no part of
// an example, and counts as none.
const MaxText = 8 << 20

// Storable returns a text as a [Text] has it: without NULs, and "" for one that is blank
// or too long.
func Storable(s string) string {
	if len(s) > MaxText || strings.TrimSpace(s) == "" {
		return ""
	}
	return strings.ReplaceAll(s, "\x00", "\uFFFD")
}

// Hash tells texts apart: nil where there is none at all.
func (t *Text) Hash() []byte {
	if *t == (Text{Task: t.Task, Key: t.Key}) {
		return nil
	}
	h := sha256.New()
	for _, s := range []string{t.Prompt, t.Messages, t.Response, t.System, t.Corrected} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	fmt.Fprint(h, t.Annotation, t.AnnotatedAt.UnixMicro())
	return h.Sum(nil)[:16]
}

// QueueTexts adds to a batch that texts are stored, in place of what was stored of
// their tasks. Their edges must be locked: they are what protects the texts.
func QueueTexts(b *pgx.Batch, texts []Text) {
	for _, t := range texts { // one by one: a text may have megabytes
		b.Queue(`INSERT INTO task_text AS t (task_id, key, hash, prompt, messages, response, system, corrected, annotation_id, annotated_at)
			VALUES ($1, $2, $3, NULLIF($4, ''), NULLIF($5, ''), NULLIF($6, ''), NULLIF($7, ''), NULLIF($8, ''), NULLIF($9::bigint, 0),
				CASE WHEN $9 <> 0 THEN $10::timestamptz END)
			ON CONFLICT (task_id) DO UPDATE SET key = EXCLUDED.key, hash = EXCLUDED.hash, prompt = EXCLUDED.prompt,
				messages = EXCLUDED.messages, response = EXCLUDED.response, system = EXCLUDED.system,
				corrected = EXCLUDED.corrected, annotation_id = EXCLUDED.annotation_id, annotated_at = EXCLUDED.annotated_at`,
			t.Task, t.Key, t.Hash(), t.Prompt, t.Messages, t.Response, t.System, t.Corrected, t.Annotation, t.AnnotatedAt)
	}
}
