package icl

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	// MaxLimit is how many examples a page may have.
	MaxLimit = 100
	// maxPage is how many bytes of messages: a page ends with the example that reaches it.
	maxPage = 16 << 20
)

// Query asks for the newest gold stars of one philosopher and domain.
type Query struct {
	Philosopher string
	Domain      string
	Type        string // compared without regard to the case of ASCII letters; "": any
	Limit       int    // 1 to MaxLimit
	Cursor      string // Page.Next of the page before; "": from the newest
}

// Page is what a query found.
type Page struct {
	Examples []*Example // usable ones, newest first
	LeftOut  int        // ratings between them without a usable text
	Next     string     // the cursor that goes on; "": that was all
	Version  uint64     // see [Index.Version]

	bytes int
	gap   int // left out since the last example
}

// add adds the next example. It returns false where the page was full before: then
// the example is the next page's first.
func (p *Page) add(q Query, e *Example) bool {
	if len(p.Examples) == q.Limit || p.bytes >= maxPage {
		p.Next = q.cursor(&p.Examples[len(p.Examples)-1].Rating)
		return false
	}
	p.Examples = append(p.Examples, e)
	p.bytes += len(e.chat)
	p.LeftOut, p.gap = p.LeftOut+p.gap, 0
	return true
}

// end ends a page that nothing comes after.
func (p *Page) end() Page {
	p.LeftOut += p.gap
	return *p
}

// The reasons to refuse a cursor.
var (
	ErrCursor      = errors.New("it is no cursor that was given out here")
	ErrOtherCursor = errors.New("it was given out for another philosopher, domain or conquest_type")
)

// place is where a page ends: the order's key of its last rating.
type place struct {
	at int64
	id string
}

// cursorVersion is the first byte of every cursor.
const cursorVersion = 1

// print tells queries apart whose cursors must not be mixed up.
func (q Query) print() [8]byte {
	h := sha256.New()
	for _, s := range []string{q.Philosopher, q.Domain, fold(q.Type)} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return [8]byte(h.Sum(nil))
}

// cursor makes the cursor that goes on after a rating.
func (q Query) cursor(after *Rating) string {
	print := q.print()
	b := append([]byte{cursorVersion}, print[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(after.At))
	return base64.RawURLEncoding.EncodeToString(append(b, after.ID...))
}

// after reads the query's cursor; nil where it has none. A cursor of a version that
// is no more is refused like one that never was.
func (q Query) after() (*place, error) {
	if q.Cursor == "" {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(q.Cursor)
	print := q.print()
	switch {
	case err != nil || len(b) < 17 || b[0] != cursorVersion || !utf8.Valid(b[17:]) || strings.ContainsRune(string(b[17:]), 0):
		return nil, ErrCursor
	case string(b[1:9]) != string(print[:]):
		return nil, ErrOtherCursor
	}
	return &place{int64(binary.BigEndian.Uint64(b[9:17])), string(b[17:])}, nil
}

// fold is a text without regard to the case of ASCII letters, as PostgreSQL's lower
// does it under the collation "C", whatever the database's locale.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}
