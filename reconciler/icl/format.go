package icl

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"strings"
)

// Format is how an example is written. Each is one line of JSON.
type Format string

// The formats. ChatML and OpenAI are the same list of messages; Alpaca has neither a
// system prompt nor turns.
const (
	ChatML Format = "chatml"
	Alpaca Format = "alpaca"
	OpenAI Format = "openai"
)

// Valid tells whether the format is one of ours.
func (f Format) Valid() bool { return f == ChatML || f == Alpaca || f == OpenAI }

// Message is one message of a conversation.
type Message struct {
	Role    string `json:"role"` // system, user or assistant
	Content string `json:"content"`
}

// Example is one gold star as it is served: JSON already, so that serving it is
// copying. It never changes.
type Example struct {
	Rating
	chat        []byte // {"messages":[…]}; nil: left out, for it has no usable text
	instruction []byte // Alpaca's, a JSON text; a piece of chat where the prompt is one message
	output      []byte // a piece of chat
	sum         [16]byte
	bytes       int // of memory that are its own
}

// Usable tells whether there is a prompt and a response: others are left out.
func (e *Example) Usable() bool { return e.chat != nil }

// Sum changes with everything that any format shows of the example.
func (e *Example) Sum() [16]byte { return e.sum }

// Append adds the example in a format to b, without a line break. It must be usable.
func (e *Example) Append(b []byte, f Format) []byte {
	for _, piece := range e.pieces(f) {
		b = append(b, piece...)
	}
	return b
}

// Len is how many bytes Append adds.
func (e *Example) Len(f Format) (n int) {
	for _, piece := range e.pieces(f) {
		n += len(piece)
	}
	return n
}

// Write writes what Append adds, piece by piece: for an example that is too large to be copied.
func (e *Example) Write(w io.Writer, f Format) error {
	for _, piece := range e.pieces(f) {
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
	return nil
}

func (e *Example) pieces(f Format) [5][]byte {
	if f != Alpaca {
		return [5][]byte{e.chat}
	}
	return [5][]byte{[]byte(`{"instruction":`), e.instruction, []byte(`,"input":"","output":`), e.output, []byte(`}`)}
}

// size is what an example takes of memory, about.
func (e *Example) size() int64 {
	const fixed = 512 // itself, its places in two lists and two maps
	return fixed + int64(e.bytes+len(e.ID)+len(e.Key)+len(e.Philosopher)+len(e.Domain)+len(e.Type))
}

// encode writes the pieces of an example: what comes before the answer, and the answer.
func (e *Example) encode(before []Message, response string) {
	w := newWriter()
	w.WriteString(`{"messages":[`)
	var prompt [2]int
	for _, m := range before {
		prompt = w.message(m)
		w.WriteByte(',')
	}
	answer := w.message(Message{"assistant", response})
	w.WriteString(`]}`)
	e.chat = bytes.Clone(w.Bytes())
	e.output, e.bytes = e.chat[answer[0]:answer[1]], cap(e.chat)
	if len(before) == 2 { // system and user
		e.instruction = e.chat[prompt[0]:prompt[1]]
	} else {
		w.Reset()
		w.quote(transcript(before))
		e.instruction = bytes.Clone(w.Bytes())
		e.bytes += cap(e.instruction)
	}
	sum := sha256.Sum256(e.chat) // Alpaca follows from it
	e.sum = [16]byte(sum[:])
}

// writer writes JSON texts as short as they can be: nobody puts them into a page.
type writer struct {
	bytes.Buffer
	text *json.Encoder
}

func newWriter() *writer {
	w := new(writer)
	w.text = json.NewEncoder(&w.Buffer)
	w.text.SetEscapeHTML(false)
	return w
}

func (w *writer) quote(s string) {
	if err := w.text.Encode(s); err != nil {
		panic(err) // a text
	}
	w.Truncate(w.Len() - 1) // the line break
}

// message returns where the content stands.
func (w *writer) message(m Message) (content [2]int) {
	w.WriteString(`{"role":"` + m.Role + `","content":`)
	content[0] = w.Len()
	w.quote(m.Content)
	content[1] = w.Len()
	w.WriteByte('}')
	return content
}

// transcript is a conversation as one text, for the format that has no turns.
func transcript(messages []Message) string {
	var b strings.Builder
	for _, m := range messages {
		if m.Role == "system" {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("\n\n")
		}
		b.WriteString(strings.ToUpper(m.Role[:1]) + m.Role[1:] + ": " + m.Content)
	}
	return b.String()
}
