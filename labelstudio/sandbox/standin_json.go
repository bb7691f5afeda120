package sandbox

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// object is a JSON object to answer.
type object map[string]any

// encode is for bodies that are made here and always encode.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // the real one does not
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("stand-in: encode %T: %v", v, err))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func mustJSON(v any) json.RawMessage {
	raw, err := jsonb(encode(v))
	if err != nil {
		panic(fmt.Sprintf("stand-in: %v", err))
	}
	return raw
}

var errNUL = errors.New("unsupported Unicode escape sequence\nDETAIL:  \\u0000 cannot be converted to text.")

// jsonb returns JSON as a jsonb column gives it back: keys by length, then by bytes, the last of doubles kept, blanks gone. It refuses what the
// column refuses, a NUL in a text.
func jsonb(raw []byte) (json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("extra data")
	}
	if bytes.Contains(raw, []byte(`\u0000`)) && containsNUL(v) {
		return nil, errNUL
	}
	var b bytes.Buffer
	writeJSONB(&b, v)
	return b.Bytes(), nil
}

func writeJSONB(b *bytes.Buffer, v any) {
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, func(x, y string) int {
			return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y))
		})
		b.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(encode(k))
			b.WriteByte(':')
			writeJSONB(b, v[k])
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			writeJSONB(b, item)
		}
		b.WriteByte(']')
	default:
		b.Write(encode(v))
	}
}

func containsNUL(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.ContainsRune(v, 0)
	case []any:
		return slices.ContainsFunc(v, containsNUL)
	case map[string]any:
		for k, item := range v {
			if containsNUL(k) || containsNUL(item) {
				return true
			}
		}
	}
	return false
}

// clock writes a time as Django's REST framework does: six digits of a second, or none.
func clock(t time.Time) string {
	if t.Nanosecond() == 0 {
		return t.Format("2006-01-02T15:04:05Z")
	}
	return t.Format("2006-01-02T15:04:05.000000Z")
}

func idsOnly(ids ...int64) []object {
	list := make([]object, 0, len(ids))
	for _, id := range ids {
		list = append(list, object{"id": id})
	}
	return list
}

// userID is a user as a number, null for nobody.
func userID(id int64) any {
	if id == 0 {
		return nil
	}
	return id
}

// only keeps the named keys; no names keep all.
func (o object) only(names map[string]bool) object {
	if len(names) == 0 {
		return o
	}
	kept := object{}
	for k, v := range o {
		if names[k] {
			kept[k] = v
		}
	}
	return kept
}
