package star

import (
	"encoding/csv"
	"os"
	"strconv"
	"strings"
	"testing"
)

// line is one row of testdata/decide.csv: every input that one edge can bring,
// and what must come of it. The table was made by a program that shares no code
// with this package.
type line map[string]string

// The stamps that the words of the table stand for.
var stamps = map[string]Stamp{"none": "", "last": "L", "attempt": "A", "other": "O"}

var results = map[string]Result{"VICTORY": Victory, "PENDING": Pending, "OTHER": Other}

func (r line) is(col string) bool { return r[col] == "1" }

func (r line) look() Look {
	l := Look{Edge: Edge{Task: 42, New: r["edge"] == "new", S: r.is("s")}, Meta: Meta{Stamp: stamps[r["stamp"]]}}
	if r.is("had") {
		l.Last = stamps["last"]
	}
	if r["intent"] != "none" {
		l.Intent = &Intent{Value: r.is("intent"), Attempt: stamps["attempt"]}
	}
	if r["v"] != "absent" {
		l.Meta.Gold = Of(r.is("v"))
	}
	if r.is("base") {
		l.Base = Set(1)
	}
	if r.is("stars") && (r.is("base") || !r.is("new")) {
		l.Stars = Set(1)
	}
	if r.is("new") {
		l.Stars = Set(append(l.Stars, 2)...)
	}
	return l
}

func (r line) hub() Hub {
	h := Hub{Known: r["d"] != "-", D: r.is("d")}
	if r.is("changed") {
		h.N = 7
	}
	return h
}

// outcome puts a decision into the words of the table.
func outcome(in line, got Decision) line {
	o, bit := got.Edges[0], map[bool]string{false: "0", true: "1"}
	out := line{
		"said": "none", "by": "-", "d2": bit[got.Hub.D], "bumps": strconv.FormatInt(got.Hub.N-in.hub().N, 10),
		"write_row": "none", "s2": bit[o.S], "stamp2": "?", "base2": bit[len(o.Base) > 0], "intent2": "none",
		"reason": string(o.Reason),
	}
	if o.Said != Absent {
		out["said"], out["by"] = o.Said.String(), string(o.By)
	}
	if a := results[in["row"]] == Victory; a != got.Hub.D {
		out["write_row"] = map[bool]string{true: "victory", false: "restore"}[got.Hub.D]
	}
	for word, s := range stamps {
		if s == o.Last {
			out["stamp2"] = word
		}
	}
	if o.Write {
		out["intent2"] = bit[o.Intent.Value]
	}
	if o.Held {
		out["s2"], out["stamp2"] = "-", "-"
	}
	return out
}

func TestDecideTable(t *testing.T) {
	f, err := os.Open("testdata/decide.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	head, bad := rows[0], 0
	for n, row := range rows[1:] {
		in := line{}
		for i, col := range head {
			in[col] = row[i]
		}
		d := Decide(results[in["row"]], in.hub(), []Look{in.look()})
		for col, got := range outcome(in, d) {
			if got != in[col] {
				t.Errorf("line %d: %s: %s = %s, want %s", n+2, strings.Join(row, ","), col, got, in[col])
				bad++
			}
		}
		if bad > 20 {
			t.Fatal("and more")
		}
	}
	if len(rows) != 5656 {
		t.Errorf("the table has %d lines, want 5656: is it whole?", len(rows))
	}
}
