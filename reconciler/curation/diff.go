package curation

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// piece is a run of text that two versions share, or that only one of them has.
type piece struct {
	Text string
	Op   op
}

// op says which version has a piece.
type op string

// The kinds of pieces.
const (
	same    op = "same"
	removed op = "removed"
	added   op = "added"
)

// maxEdits bounds the work of a comparison: two texts that have less in common are
// shown as one replaced by the other. It grows with the square of this.
const maxEdits = 1500

// compare returns what changed from one text to another, word by word. Put together,
// the pieces that are not added are the first text, those that are not removed the second.
func compare(from, to string) []piece {
	a, b := words(from), words(to)
	start := 0
	for start < len(a) && start < len(b) && a[start] == b[start] {
		start++
	}
	end := 0
	for end < len(a)-start && end < len(b)-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	var p pieces
	p.add(same, a[:start])
	middleA, middleB := a[start:len(a)-end], b[start:len(b)-end]
	if path, ok := shortest(middleA, middleB); ok {
		p.walk(middleA, middleB, path)
	} else {
		p.add(removed, middleA)
		p.add(added, middleB)
	}
	p.add(same, a[len(a)-end:])
	return p.done()
}

// words splits a text into words, runs of space, and single other signs. Put together
// they are the text.
func words(text string) []string {
	kind := func(r rune) int {
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) || r == '\'' || r == '’':
			return 1
		case unicode.IsSpace(r):
			return 2
		}
		return 0
	}
	var all []string
	for text != "" {
		first, n := utf8.DecodeRuneInString(text)
		if k := kind(first); k != 0 {
			if end := strings.IndexFunc(text, func(r rune) bool { return kind(r) != k }); end >= 0 {
				n = end
			} else {
				n = len(text)
			}
		}
		all = append(all, text[:n])
		text = text[n:]
	}
	return all
}

// shortest finds the fewest words to remove and add, as Myers has it ("An O(ND)
// difference algorithm"): for each number of edits how far each diagonal gets. It
// gives up above maxEdits.
func shortest(a, b []string) (trace [][]int32, ok bool) {
	limit := min(len(a)+len(b), maxEdits)
	v := make([]int32, 2*limit+2)
	for d := 0; d <= limit; d++ {
		for k := -d; k <= d; k += 2 {
			var x int
			if k == -d || k != d && v[limit+k-1] < v[limit+k+1] {
				x = int(v[limit+k+1])
			} else {
				x = int(v[limit+k-1]) + 1
			}
			y := x - k
			for x < len(a) && y < len(b) && a[x] == b[y] {
				x, y = x+1, y+1
			}
			v[limit+k] = int32(x)
			if x >= len(a) && y >= len(b) {
				return append(trace, slice(v, limit, d)), true
			}
		}
		trace = append(trace, slice(v, limit, d))
	}
	return nil, false
}

// slice keeps what one round of shortest has found: diagonals -d to d.
func slice(v []int32, middle, d int) []int32 {
	return append([]int32(nil), v[middle-d:middle+d+1]...)
}

// pieces are put together from words.
type pieces struct{ all []piece }

func (p *pieces) add(o op, words []string) {
	if len(words) == 0 {
		return
	}
	p.all = append(p.all, piece{strings.Join(words, ""), o})
}

// walk turns what shortest has found into pieces: backwards from the end, and then
// turned round.
func (p *pieces) walk(a, b []string, trace [][]int32) {
	type step struct {
		o    op
		word string
	}
	var steps []step
	x, y := len(a), len(b)
	for d := len(trace) - 1; d > 0; d-- {
		before := trace[d-1] // diagonals -(d-1) to d-1
		at := func(k int) int32 {
			if i := k + d - 1; i >= 0 && i < len(before) {
				return before[i]
			}
			return -1
		}
		k := x - y
		down := k == -d || k != d && at(k-1) < at(k+1)
		fromK := k - 1
		if down {
			fromK = k + 1
		}
		fromX := int(at(fromK))
		fromY := fromX - fromK
		for x > fromX && y > fromY && (down && y > fromY+1 || !down && x > fromX+1) {
			x, y = x-1, y-1
			steps = append(steps, step{same, a[x]})
		}
		if down {
			y--
			steps = append(steps, step{added, b[y]})
		} else {
			x--
			steps = append(steps, step{removed, a[x]})
		}
	}
	for x > 0 {
		x--
		steps = append(steps, step{same, a[x]})
	}
	for i := len(steps) - 1; i >= 0; i-- {
		p.add(steps[i].o, []string{steps[i].word})
	}
}

// done joins neighbours, what was removed before what took its place.
func (p *pieces) done() []piece {
	var out []piece
	var gone, come string
	flush := func() {
		for _, e := range []piece{{gone, removed}, {come, added}} {
			if e.Text != "" {
				out = append(out, e)
			}
		}
		gone, come = "", ""
	}
	var text strings.Builder
	settle := func() {
		if text.Len() > 0 {
			out = append(out, piece{text.String(), same})
			text.Reset()
		}
	}
	for _, e := range p.all {
		switch e.Op {
		case same:
			flush()
			text.WriteString(e.Text)
		case removed:
			settle()
			gone += e.Text
		case added:
			settle()
			come += e.Text
		}
	}
	flush()
	settle()
	return out
}
