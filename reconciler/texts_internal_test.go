package reconciler

import (
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

func TestTextOf(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	const notes = `[
		{"id": 1, "created_at": "2026-11-24T12:00:00Z", "result": [{"type": "textarea", "from_name": "response", "value": {"text": ["better"]}}]},
		{"id": 2, "created_at": "2026-11-24T13:00:00Z", "result": [{"type": "textarea", "from_name": "response", "value": {"text": [" \n"]}}]},
		{"id": 3, "created_at": "2026-11-24T14:00:00Z", "result": [{"type": "textarea", "from_name": "why", "value": {"text": ["a reason"]}}]},
		{"id": 4, "created_at": "2026-11-24T15:00:00Z", "was_cancelled": true, "result": [{"type": "textarea", "from_name": "response", "value": {"text": ["skipped"]}}]},
		{"id": 5, "created_at": "2026-11-24T11:00:00Z", "result": [{"type": "textarea", "from_name": "response", "value": {"text": ["older"]}}]}]`
	for name, c := range map[string]struct {
		data, annotations string
		want              ledger.Text
	}{
		"the first names": {`{"prompt": "p", "user_prompt": "q", "response": "r", "llm_response": "s", "system_prompt": "sys"}`, `[]`,
			ledger.Text{Prompt: "p", Response: "r", System: "sys"}},
		"the next where one is blank or no text": {`{"prompt": " ", "user_prompt": "q", "response": 7, "llm_response": "s"}`, `[]`,
			ledger.Text{Prompt: "q", Response: "s"}},
		"a conversation": {`{"input_messages": [{"role": "system", "content": "S <"}, {"role": "human", "content": [{"type": "text", "text": "a"}]},
			{"role": "assistant", "content": "b"}, {"role": "user", "content": null}], "text": "no"}`, `[]`,
			ledger.Text{Messages: `[{"role":"system","content":"S <"},{"role":"user","content":"a"},{"role":"assistant","content":"b"}]`}},
		"no user in it":              {`{"input_messages": [{"role": "system", "content": "S"}], "text": "t"}`, `[]`, ledger.Text{Prompt: "t"}},
		"a NUL":                      {`{"prompt": "a\u0000b"}`, `[]`, ledger.Text{Prompt: "a\uFFFDb"}},
		"no object":                  {`["prompt"]`, `[]`, ledger.Text{}},
		"the newest with a response": {`{"response": "r"}`, notes, ledger.Text{Response: "r", Corrected: "better", Annotation: 1, AnnotatedAt: at}},
	} {
		task := labelstudio.Task{ID: 7, Data: json.RawMessage(c.data)}
		if err := json.Unmarshal([]byte(c.annotations), &task.Annotations); err != nil {
			t.Fatal(err)
		}
		c.want.Task, c.want.Key = 7, "k"
		got := textOf("k", &task)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if nothing := c.want == (ledger.Text{Task: 7, Key: "k"}); nothing != (got.Hash() == nil) {
			t.Errorf("%s: its hash is %x", name, got.Hash())
		}
	}
}

// Whatever a task's data holds, PostgreSQL can keep what is read of it.
func FuzzTextOf(f *testing.F) {
	f.Add(`{"prompt": "\u0000", "input_messages": [{"role": "user", "content": "\ud800"}]}`)
	f.Add(`{"input_messages": [{"role": 1}, null, {"content": [[]]}], "text": null}`)
	f.Fuzz(func(t *testing.T, data string) {
		text := textOf("k", &labelstudio.Task{ID: 1, Data: json.RawMessage(data)})
		for _, s := range []string{text.Prompt, text.Messages, text.Response, text.System} {
			if !utf8.ValidString(s) || s != "" && s != ledger.Storable(s) {
				t.Errorf("%q", s)
			}
		}
		if text.Prompt != "" && text.Messages != "" || text.Messages != "" && !json.Valid([]byte(text.Messages)) {
			t.Errorf("%+v", text)
		}
	})
}
