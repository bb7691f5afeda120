package ledger

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzKeyOf: data of the plainest kind is read as any other: a space in front makes it that.
func FuzzKeyOf(f *testing.F) {
	for _, seed := range []string{`{"conquest_id":"c1"}`, `{"conquest_id":"Émile 1"}`, `{"conquest_id":""}`, `{"conquest_id":"a\u0041"}`, `{"conquest_id":"a\"}`, `{"conquest_id":"a","id":"b"}`,
		`{"conquest_id":"","id":"b"}`, "{\"conquest_id\":\"a\x01\"}", "{\"conquest_id\":\"a\xff\"}", `{"conquest_id":"a"`, `{"conquest_id":"` + strings.Repeat("x", maxKey+1) + `"}`, `{"conquest_id":1}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data string) {
		if plain, want := KeyOf(json.RawMessage(data)), KeyOf(json.RawMessage(" "+data)); plain != want {
			t.Errorf("%s names %q, want %q", data, plain, want)
		}
	})
}
