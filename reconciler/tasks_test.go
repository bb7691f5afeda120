package reconciler

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/star"
)

func TestMeta(t *testing.T) {
	now, notes := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), "why"
	for name, c := range map[string]struct {
		read  string
		gold  bool
		notes *string
		want  string
	}{
		"the rest travels as it is": {`{"n": 12345678901234567890, "f": 1.10, "is_gold_star": true}`, true, &notes,
			`{"f":1.10,"gold_star":true,"gold_star_updated_at":"2026-11-24T12:00:00Z","n":12345678901234567890,"reconciler":{"task":7,"attempt":"a"},"result_notes":"why","synced_from_aristotle":true}`},
		"a meta that is no object is kept": {`["x"]`, true, nil,
			`{"gold_star":true,"gold_star_updated_at":"2026-11-24T12:00:00Z","previous_meta":["x"],"reconciler":{"task":7,"attempt":"a"},"synced_from_aristotle":true}`},
		"notes are left when the star goes": {`{"result_notes": "old"}`, false, &notes,
			`{"gold_star":false,"gold_star_updated_at":"2026-11-24T12:00:00Z","reconciler":{"task":7,"attempt":"a"},"result_notes":"old","synced_from_aristotle":true}`},
		"null": {`null`, false, nil,
			`{"gold_star":false,"gold_star_updated_at":"2026-11-24T12:00:00Z","reconciler":{"task":7,"attempt":"a"},"synced_from_aristotle":true}`},
	} {
		got, err := writeMeta(json.RawMessage(c.read), c.gold, stamp{Task: 7, Attempt: "a"}, c.notes, now)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		read := readMeta(7, got)
		if want := (star.Meta{Gold: star.Of(c.gold), Stamp: "a"}); read != want {
			t.Errorf("%s: reads back as %+v, want %+v", name, read, want)
		}
		if read := readMeta(8, got); read.Stamp != "" {
			t.Errorf("%s: the stamp of task 7 counts for task 8", name)
		}
	}
}

// TestStrangeStamp: Label Studio on SQLite takes a text that PostgreSQL cannot keep. It is no stamp of ours.
func TestStrangeStamp(t *testing.T) {
	t.Parallel()
	read := readMeta(7, json.RawMessage(`{"gold_star": true, "reconciler": {"task": 7, "attempt": "a\u0000"}}`))
	if want := (star.Meta{Gold: star.Yes}); read != want {
		t.Errorf("%+v, want %+v", read, want)
	}
}

// FuzzMeta: whatever a meta holds, what we write over it reads back as ours and
// keeps every other key.
func FuzzMeta(f *testing.F) {
	for _, seed := range []string{`{}`, `null`, `{"gold_star": 1, "reconciler": 3}`, `[1]`, `{"reconciler": {"task": 7, "attempt": "b"}, "x": {"y": []}}`} {
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, read string, gold bool) {
		before := object(json.RawMessage(read))
		if !json.Valid([]byte(read)) {
			return
		}
		got, err := writeMeta(json.RawMessage(read), gold, stamp{Task: 7, Attempt: "a"}, nil, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if m := readMeta(7, got); m != (star.Meta{Gold: star.Of(gold), Stamp: "a"}) {
			t.Fatalf("%s reads back as %+v", got, m)
		}
		after := object(got)
		for key, value := range before {
			switch key {
			case metaGold, metaIsGold, metaStamp, "gold_star_updated_at", "synced_from_aristotle":
			default:
				var x, y any
				if json.Unmarshal(value, &x) != nil || json.Unmarshal(after[key], &y) != nil || !cmp.Equal(x, y) {
					t.Errorf("%q was %s and is %s", key, value, after[key])
				}
			}
		}
	})
}

func TestStars(t *testing.T) {
	var task labelstudio.Task
	err := json.Unmarshal([]byte(`{"id": 1, "annotations": [
		{"id": 5, "result": [{"type": "choices", "value": {"choices": ["gold_star"]}}]},
		{"id": 4, "was_cancelled": true, "result": [{"type": "choices", "value": {"choices": ["gold_star"]}}]},
		{"id": 3, "ground_truth": true, "result": []},
		{"id": 2, "result": [{"type": "choices", "value": {"choices": []}}, {"type": "textarea", "value": {"text": ["gold_star"]}}]},
		{"id": 1, "result": null}]}`), &task)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(star.Set(5), stars(&task, false)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(star.Set(3, 5), stars(&task, true)); diff != "" {
		t.Errorf("with ground_truth (-want +got):\n%s", diff)
	}
}
