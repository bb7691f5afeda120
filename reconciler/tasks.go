package reconciler

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/star"
)

// The keys of a task's meta that mean the star, and our stamp's.
const (
	metaGold   = "gold_star"
	metaIsGold = "is_gold_star" // older writers
	metaStamp  = "reconciler"
)

// stamp is what we put into a task's meta with every star that we write: a meta
// that carries another task's is a copy of that task's.
type stamp struct {
	Task    int64  `json:"task"`
	Attempt string `json:"attempt"`
}

// readMeta reads what a task's meta says of the star. JSON true is the star, any
// other value is none; a meta that is no object says nothing.
func readMeta(task int64, meta json.RawMessage) star.Meta {
	if !mentions(meta) {
		return star.Meta{}
	}
	m := object(meta)
	read := star.Meta{Gold: value(m[metaGold]), IsGold: value(m[metaIsGold])}
	var s stamp
	if json.Unmarshal(m[metaStamp], &s) == nil && s.Task == task && !strings.ContainsRune(s.Attempt, 0) { // none of ours has a NUL, and PostgreSQL takes none
		read.Stamp = star.Stamp(s.Attempt)
	}
	return read
}

// mentions tells whether a meta may have one of our keys: most have none, and need not
// be taken apart. A backslash may hide one.
func mentions(meta json.RawMessage) bool {
	return bytes.Contains(meta, []byte(metaGold)) || bytes.Contains(meta, []byte(metaStamp)) || bytes.IndexByte(meta, '\\') >= 0
}

func value(raw json.RawMessage) star.Value {
	if raw == nil {
		return star.Absent
	}
	return star.Of(string(bytes.TrimSpace(raw)) == "true")
}

// object reads a JSON object, and nil where it is something else.
func object(raw json.RawMessage) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil {
		return nil
	}
	return m
}

// writeMeta returns the meta to PATCH: the star and our stamp over the rest of what
// was just read, which travels as raw JSON. A meta that is no object is kept under
// "previous_meta", since Label Studio replaces meta whole.
func writeMeta(read json.RawMessage, gold bool, s stamp, notes *string, now time.Time) (json.RawMessage, error) {
	m := object(read)
	if m == nil {
		m = map[string]json.RawMessage{}
		if len(read) > 0 && string(bytes.TrimSpace(read)) != "null" {
			m["previous_meta"] = read
		}
	}
	delete(m, metaIsGold)
	set := map[string]any{
		metaGold:                gold,
		"gold_star_updated_at":  now.UTC().Format(time.RFC3339),
		"synced_from_aristotle": true,
		metaStamp:               s,
	}
	if gold && notes != nil {
		set["result_notes"] = *notes
	}
	for key, v := range set {
		raw, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("write meta of task %d: %w", s.Task, err)
		}
		m[key] = raw
	}
	return json.Marshal(m)
}

// stars returns the annotations of a task that say gold star and are not cancelled.
func stars(t *labelstudio.Task, groundTruth bool) star.IDs {
	var ids []int64
	for i := range t.Annotations {
		if a := &t.Annotations[i]; !a.WasCancelled && (a.Chose(ledger.GoldChoice) || groundTruth && a.GroundTruth) {
			ids = append(ids, a.ID)
		}
	}
	return star.Set(ids...)
}
