package reconciler

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// maxText is above what a model takes in. A text that is longer is no part of an
// example, and counts as none.
const maxText = 8 << 20

// correctedResponse is the control of the label configuration where a person writes
// a better response.
const correctedResponse = "response"

// textOf reads what a task has that an example can be made of: the contract names
// where importers have put it.
func textOf(key string, t *labelstudio.Task) ledger.Text {
	data := object(t.Data)
	text := ledger.Text{Task: t.ID, Key: key, System: first(data, "system_prompt"), Response: first(data, "response", "llm_response")}
	if text.Prompt = first(data, "prompt", "user_prompt"); text.Prompt == "" {
		if text.Messages = conversation(data["input_messages"]); text.Messages == "" {
			text.Prompt = first(data, "text")
		}
	}
	for i := range t.Annotations {
		a := &t.Annotations[i]
		older := a.CreatedAt.Before(text.AnnotatedAt) || a.CreatedAt.Equal(text.AnnotatedAt) && a.ID < text.Annotation
		if s := corrected(a); s != "" && !older {
			text.Corrected, text.Annotation, text.AnnotatedAt = s, a.ID, a.CreatedAt
		}
	}
	return text
}

// first returns the first of some fields that has a text.
func first(data map[string]json.RawMessage, names ...string) string {
	for _, name := range names {
		var s string
		if json.Unmarshal(data[name], &s) == nil && usable(s) {
			return storable(s)
		}
	}
	return ""
}

func usable(s string) bool { return len(s) <= maxText && strings.TrimSpace(s) != "" }

// storable is the text without what PostgreSQL cannot hold.
func storable(s string) string { return strings.ReplaceAll(s, "\x00", "\uFFFD") }

// conversation reads a list of role/content messages, and writes it as examples want
// it; "" where nobody says anything in it. Whoever is no system and no assistant is
// the user.
func conversation(raw json.RawMessage) string {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	var given []struct {
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
	}
	if json.Unmarshal(raw, &given) != nil {
		return ""
	}
	var all []message
	said := false
	for _, m := range given {
		content := contentOf(m.Content)
		if strings.TrimSpace(content) == "" {
			continue
		}
		role := "user"
		switch m.Role {
		case "system", "developer":
			role = "system"
		case "assistant":
			role = "assistant"
		}
		said = said || role == "user"
		all = append(all, message{role, storable(content)})
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(all); err != nil || !said || b.Len() > maxText {
		return ""
	}
	return strings.TrimSpace(b.String())
}

// contentOf reads what a message says: a text, or the texts among its parts.
func contentOf(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(raw, &parts) != nil {
		return ""
	}
	var all []string
	for _, p := range parts {
		all = append(all, p.Text)
	}
	return strings.Join(all, "\n")
}

// corrected is the response that a person wrote into an annotation, "" where there is none.
func corrected(a *labelstudio.Annotation) string {
	if a.WasCancelled {
		return ""
	}
	var all []string
	for _, r := range a.Result {
		if r.FromName == correctedResponse {
			all = append(all, r.Text()...)
		}
	}
	if s := strings.Join(all, "\n"); usable(s) {
		return storable(s)
	}
	return ""
}
