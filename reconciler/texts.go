package reconciler

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

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
		if s := ledger.Storable(a.Entered(ledger.ResponseControl)); s != "" && !older {
			text.Corrected, text.Annotation, text.AnnotatedAt = s, a.ID, a.CreatedAt
		}
	}
	return text
}

// first returns the first of some fields that has a text.
func first(data map[string]json.RawMessage, names ...string) string {
	for _, name := range names {
		var s string
		if json.Unmarshal(data[name], &s) == nil {
			if s = ledger.Storable(s); s != "" {
				return s
			}
		}
	}
	return ""
}

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
		if len(content) > ledger.MaxText {
			return ""
		}
		if content = ledger.Storable(content); content == "" {
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
		all = append(all, message{role, content})
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(all); err != nil || !said || b.Len() > ledger.MaxText {
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
