package sandbox

import (
	"bytes"
	"encoding/json"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestJSONB(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		`{"bb": 1, "a": 2, "B": 3, "a": {"z": 1.50, "y": []}}`: `{"B":3,"a":{"y":[],"z":1.50},"bb":1}`,
		` null `:                  `null`,
		`"<é> \u2028"`:            `"<é> \u2028"`,
		`[1e3, -0, "\\u0000", 2]`: `[1e3,-0,"\\u0000",2]`,
		`{"a\u0000b": 1}`:         "",
		`["\u0000"]`:              "",
		`{`:                       "",
		`{} {}`:                   "",
	} {
		got, err := jsonb([]byte(given))
		if string(got) != want || (err != nil) != (want == "") {
			t.Errorf("%s became %s, %v; want %s", given, got, err, want)
		}
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 1, 2, 3, 0, time.UTC)
	if got := clock(at) + " " + clock(at.Add(120*time.Microsecond)); got != "2026-11-24T01:02:03Z 2026-11-24T01:02:03.000120Z" {
		t.Error(got)
	}
	s := new(StandIn)
	for range 1000 {
		before := s.last
		if now := s.now(); !now.After(before) {
			t.Fatalf("%s is not after %s", now, before)
		}
	}
}

func FuzzJSONB(f *testing.F) {
	f.Add([]byte(`{"b": [1.0, "\u0000x", {"a": null}], "a": "é<"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		once, err := jsonb(raw)
		if err != nil {
			return
		}
		twice, err := jsonb(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s became %s and then %s, %v", raw, once, twice, err)
		}
		var a, b any
		if json.Unmarshal(raw, &a) != nil {
			return // a number that no float holds
		}
		if err := json.Unmarshal(once, &b); err != nil || !reflect.DeepEqual(a, b) {
			t.Fatalf("%s became %s: another value", raw, once)
		}
	})
}

// FuzzUnquote: what is escaped comes back, whatever it holds; and nothing breaks it.
func FuzzUnquote(f *testing.F) {
	f.Add("50%41 off %")
	f.Fuzz(func(t *testing.T, text string) {
		if got := unquote(strings.ReplaceAll(text, "%", "%25")); got != text {
			t.Fatalf("%q came back as %q", text, got)
		}
		if plain, err := url.PathUnescape(text); err == nil && unquote(text) != plain {
			t.Fatalf("%q became %q, not %q", text, unquote(text), plain)
		}
	})
}

// FuzzListQuery: any query is answered or refused.
func FuzzListQuery(f *testing.F) {
	f.Add(`{"ordering":["tasks:id"],"filters":{"conjunction":"and","items":[{"filter":"filter:tasks:id","operator":"in_list","type":"List","value":[1,"2"]}]}}`)
	f.Add(`{"filters":{"conjunction":"and","items":[{"filter":"filter:tasks:updated_at","operator":"greater","type":"Datetime","value":"2026-01-01T00:00:00.5Z"}]}}`)
	f.Add(`{"filters":{"conjunction":"and","items":[{"filter":"filter:tasks:data.x","operator":"in_list","type":"List","value":["a",1,null]}]}}`)
	p := &project{id: 1}
	for id := range int64(3) {
		one := &task{id: id + 1, project: 1, meta: json.RawMessage(`{}`), updated: time.Unix(id, 0)}
		one.setData(json.RawMessage(`{"x":"a"}`))
		p.tasks = append(p.tasks, one)
	}
	f.Fuzz(func(t *testing.T, text string) {
		listingOp(text)
		q, err := parseListQuery(text)
		if err != nil {
			return
		}
		if matches, refusal := p.filter(q); len(matches) > len(p.tasks) || refusal != nil && refusal.status < 400 {
			t.Fatalf("%d matches, %+v", len(matches), refusal)
		}
	})
}
