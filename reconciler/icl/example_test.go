package icl

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// TestExample: which texts count, in each format; the words are the contract's.
func TestExample(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	one := taskText{task: 1, prompt: "task's <p>", response: "task's r"}
	two := taskText{task: 2, prompt: "other p", response: "other r", system: "other s", corrected: "new", annotation: 5, annotatedAt: at}
	talk := taskText{task: 3, messages: `[{"role":"system","content":"S"},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]`, response: "d"}
	for name, c := range map[string]struct {
		rating       Rating
		texts        texts
		chat, alpaca string // "": left out
	}{
		"the tables first": {Rating{Type: "DESIGN_Review"}, texts{[]prompt{{" ", "no"}, {"p", ""}}, []string{"", "r"}, []taskText{one}},
			`{"messages":[{"role":"system","content":"You are an expert design_review analyst."},{"role":"user","content":"p"},{"role":"assistant","content":"r"}]}`,
			`{"instruction":"p","input":"","output":"r"}`},
		"the task's": {Rating{}, texts{tasks: []taskText{one}},
			`{"messages":[{"role":"system","content":"You are an expert analyst."},{"role":"user","content":"task's <p>"},{"role":"assistant","content":"task's r"}]}`,
			`{"instruction":"task's <p>","input":"","output":"task's r"}`},
		"the starred task first, a correction before all": {Rating{Task: 2}, texts{responses: []string{"r"}, tasks: []taskText{one, two}},
			`{"messages":[{"role":"system","content":"other s"},{"role":"user","content":"other p"},{"role":"assistant","content":"new"}]}`,
			`{"instruction":"other p","input":"","output":"new"}`},
		"the newest correction": {Rating{}, texts{tasks: []taskText{two, {task: 1, prompt: "p", corrected: "newer", annotation: 6, annotatedAt: at}}},
			`{"messages":[{"role":"system","content":"other s"},{"role":"user","content":"p"},{"role":"assistant","content":"newer"}]}`,
			`{"instruction":"p","input":"","output":"newer"}`},
		"a conversation": {Rating{}, texts{tasks: []taskText{talk}},
			`{"messages":[{"role":"system","content":"S"},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"},{"role":"assistant","content":"d"}]}`,
			`{"instruction":"User: a\n\nAssistant: b\n\nUser: c","input":"","output":"d"}`},
		"a stored system prompt": {Rating{}, texts{[]prompt{{"p", "sys"}}, []string{"r"}, []taskText{two}},
			`{"messages":[{"role":"system","content":"sys"},{"role":"user","content":"p"},{"role":"assistant","content":"new"}]}`,
			`{"instruction":"p","input":"","output":"new"}`},
		"no prompt":   {Rating{}, texts{responses: []string{"r"}}, "", ""},
		"no response": {Rating{}, texts{prompts: []prompt{{"p", ""}}, responses: []string{" \n"}}, "", ""},
		"nothing":     {Rating{}, texts{}, "", ""},
	} {
		e := example(c.rating, c.texts)
		if e.Usable() != (c.chat != "") {
			t.Errorf("%s: usable is %v", name, e.Usable())
		}
		if !e.Usable() {
			continue
		}
		for f, want := range map[Format]string{ChatML: c.chat, OpenAI: c.chat, Alpaca: c.alpaca} {
			if diff := cmp.Diff(want, string(e.Append(nil, f))); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", name, f, diff)
			}
		}
	}
}

// What is counted of an example is all of it, also what only one format shows.
func TestSize(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 10_000)
	turns, err := json.Marshal([]Message{{"user", long}, {"assistant", "a"}, {"user", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		rating Rating
		texts  texts
		want   int64
	}{
		"a prompt":       {Rating{}, texts{prompts: []prompt{{long, ""}}, responses: []string{"r"}}, 10_000},
		"a conversation": {Rating{}, texts{tasks: []taskText{{messages: string(turns), response: "r"}}}, 20_000},
		"its names":      {Rating{Philosopher: long, Domain: long, Type: long}, texts{}, 30_000},
	} {
		if got := example(c.rating, c.texts).size(); got < c.want || got > c.want+3000 {
			t.Errorf("%s: %d bytes, want %d and little more", name, got, c.want)
		}
	}
}

// Whatever the texts hold, every format is one line of JSON that gives them back.
func FuzzExample(f *testing.F) {
	f.Add("p", "r", "s")
	f.Add("a\x00\xff\"\\\n\u2028 <&>", strings.Repeat("größe ", 1000), "\U0001F3DB")
	f.Fuzz(func(t *testing.T, ask, answer, system string) {
		e := example(Rating{}, texts{prompts: []prompt{{ask, system}}, responses: []string{answer}})
		if e.Usable() == (blank(ask) || blank(answer)) {
			t.Fatalf("%q and %q: usable is %v", ask, answer, e.Usable())
		}
		if !e.Usable() {
			return
		}
		var chat struct{ Messages []Message }
		var alpaca struct{ Instruction, Input, Output string }
		for f, into := range map[Format]any{ChatML: &chat, Alpaca: &alpaca} {
			line := e.Append(nil, f)
			if err := json.Unmarshal(line, into); err != nil || strings.ContainsRune(string(line), '\n') {
				t.Fatalf("%v: %q", err, line)
			}
		}
		if len(chat.Messages) != 3 || chat.Messages[1].Content != alpaca.Instruction || chat.Messages[2].Content != alpaca.Output {
			t.Fatalf("%+v and %+v", chat, alpaca)
		}
		if utf8.ValidString(ask) && alpaca.Instruction != ask || utf8.ValidString(answer) && alpaca.Output != answer {
			t.Fatalf("%q and %q became %+v", ask, answer, alpaca)
		}
	})
}

// A cursor goes on in the query that it was given out for, and in no other. What else
// there is in its place is refused.
func FuzzCursor(f *testing.F) {
	q := Query{Philosopher: "p", Domain: "d", Type: "T"}
	f.Add(q.cursor(&Rating{At: -5, ID: "it's"}), int64(1), "id")
	f.Add("", int64(-1<<63), "")
	f.Add("AQ==", int64(0), "\xff")
	f.Fuzz(func(t *testing.T, given string, at int64, id string) {
		q := q
		q.Cursor = given
		if after, err := q.after(); err == nil && given != "" && q.cursor(&Rating{At: after.at, ID: after.id}) != strings.NewReplacer("\r", "", "\n", "").Replace(given) {
			t.Errorf("%q is taken for %+v", given, after)
		} else if err != nil && !errors.Is(err, ErrCursor) && !errors.Is(err, ErrOtherCursor) {
			t.Errorf("%q: %v", given, err)
		}
		if id != strings.ToValidUTF8(strings.ReplaceAll(id, "\x00", ""), "") {
			return // no id of a database
		}
		q.Cursor = q.cursor(&Rating{At: at, ID: id})
		q.Type = "t" // is the same
		if after, err := q.after(); err != nil || *after != (place{at, id}) {
			t.Errorf("%d %q comes back as %+v, %v", at, id, after, err)
		}
		for _, other := range []Query{{Philosopher: "p", Domain: "d"}, {Philosopher: "p1", Domain: "d", Type: "T"}, {Philosopher: "d", Domain: "p", Type: "T"}} {
			other.Cursor = q.Cursor
			if _, err := other.after(); !errors.Is(err, ErrOtherCursor) {
				t.Errorf("%+v: %v", other, err)
			}
		}
	})
}

// News arrives whole, in notifications that are short enough, whatever the keys are.
func TestPayloads(t *testing.T) {
	t.Parallel()
	in := newInbox()
	var n News
	for i := range 5000 {
		n.Ratings = append(n.Ratings, strings.Repeat("\x01\"é", i%40)+string(rune('a'+i%7)))
		n.Texts = append(n.Texts, strings.Repeat("x", i%1000))
	}
	for _, p := range n.payloads() {
		if len(p) >= 8000 {
			t.Fatalf("a notification of %d bytes", len(p))
		}
		in.add(p)
	}
	ratings, textsOf := map[string]bool{}, map[string]bool{}
	for {
		got := in.take(300)
		if got.empty() {
			break
		}
		for _, k := range got.Ratings {
			ratings[k] = true
		}
		for _, k := range got.Texts {
			textsOf[k] = true
		}
	}
	for i := range n.Ratings {
		if !ratings[n.Ratings[i]] || !textsOf[n.Texts[i]] {
			t.Fatalf("%q or %q is lost", n.Ratings[i], n.Texts[i])
		}
	}
	for _, p := range []string{`{"all":true}`, `nonsense`, `{}`, News{Ratings: []string{strings.Repeat("x", 9000)}}.payloads()[0]} {
		if in.add(p); !in.take(1).All {
			t.Errorf("%s says less than everything", p)
		}
	}
}
