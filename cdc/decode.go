package cdc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// event is one pgoutput message, version 1, cut down to what a hint needs. Key and Old point into the message and are gone with the next one.
type event struct {
	kind   byte // B begin, C commit, I insert, U update, D delete, T truncate; 0: nothing to do
	end    LSN  // C: the commit's end
	time   time.Time
	xid    uint32   // B: the transaction's number
	table  string   // I, U, D
	key    []byte   // I, U: the row's key; D: the key that went
	old    []byte   // U: the key before, where it changed; else nil
	tables []string // T
}

// decoder turns pgoutput messages into events. It keeps the relations of one connection, as each was last described; it is used by one
// goroutine and thrown away with the connection. Any error means that nothing more of the stream can be believed.
type decoder struct {
	keyColumn string
	relations map[uint32]relation
	final     LSN // commit LSN that the last Begin announced
}

// relation is what a Relation message said: columns are positions in exactly this description.
type relation struct {
	table   string
	columns int
	key     int // position of the key column
}

var errShort = errors.New("message ends early")

// decode reads one message whole; bytes left over are an error as much as bytes that lack.
func (d *decoder) decode(msg []byte) (event, error) {
	r := reader{rest: msg}
	kind := r.byte()
	ev, err := d.message(kind, &r)
	switch {
	case err != nil:
	case r.short:
		err = errShort
	case len(r.rest) != 0:
		err = fmt.Errorf("%d bytes too many", len(r.rest))
	}
	if err != nil {
		return event{}, fmt.Errorf("decode pgoutput message %q of %d bytes: %w", kind, len(msg), err)
	}
	return ev, nil
}

func (d *decoder) message(kind byte, r *reader) (event, error) {
	switch kind {
	case 'B':
		d.final = LSN(r.uint64())
		at := r.time()
		return event{kind: kind, time: at, xid: r.uint32()}, nil
	case 'C':
		return d.commit(r)
	case 'R':
		return event{}, d.relation(r)
	case 'I', 'U', 'D':
		return d.row(kind, r)
	case 'T':
		return d.truncate(r)
	case 'Y', 'O': // a type's or an origin's name: no use to us
		r.rest = nil
		return event{}, nil
	default: // streamed, prepared and logical messages were not asked for
		return event{}, errors.New("unknown kind")
	}
}

func (d *decoder) commit(r *reader) (event, error) {
	r.skip(1) // flags, unused
	at, end := LSN(r.uint64()), LSN(r.uint64())
	ev := event{kind: 'C', end: end, time: r.time()}
	if !r.short && (at != d.final || end <= at) {
		return event{}, fmt.Errorf("commit at %s, end %s, after a begin that announced %s", at, end, d.final)
	}
	return ev, nil
}

func (d *decoder) relation(r *reader) error {
	id := r.uint32()
	schema, name := r.string(), r.string()
	r.skip(1) // replica identity
	rel := relation{table: name, columns: int(r.uint16()), key: -1}
	if schema != "public" {
		rel.table = schema + "." + name
	}
	for i := 0; i < rel.columns && !r.short; i++ {
		r.skip(1) // flags: part of the identity or not
		if r.string() == d.keyColumn {
			rel.key = i
		}
		r.skip(8) // type, modifier
	}
	if r.short {
		return errShort
	}
	if rel.key < 0 {
		return &Error{Op: "read the stream", Class: ClassOperator, Err: fmt.Errorf("table %s is published without its column %q", rel.table, d.keyColumn),
			Hint: hintSetup}
	}
	d.relations[id] = rel
	return nil
}

// row reads an insert, update or delete. An update says its old key in a tuple of its own, but only where that changed or, as do values
// under REPLICA IDENTITY FULL, is told anyway; an unchanged key may be left out of the new tuple if it is stored out of line.
func (d *decoder) row(kind byte, r *reader) (event, error) {
	rel, err := d.known(r.uint32())
	if err != nil {
		return event{}, err
	}
	ev := event{kind: kind, table: rel.table}
	var old []byte
	tuple := r.byte()
	if kind != 'I' && (tuple == 'K' || tuple == 'O') {
		if old, err = rel.keyOf(r); err != nil {
			return event{}, err
		}
		if old == nil {
			return event{}, errors.New("the old tuple has no key")
		}
		if kind == 'D' {
			ev.key = old
			return ev, nil
		}
		tuple = r.byte()
	}
	if kind == 'D' || tuple != 'N' {
		return event{}, fmt.Errorf("unexpected tuple %q", tuple)
	}
	if ev.key, err = rel.keyOf(r); err != nil {
		return event{}, err
	}
	switch {
	case ev.key == nil && old == nil:
		return event{}, errors.New("the new tuple has no key")
	case ev.key == nil:
		ev.key = old
	case old != nil && !slices.Equal(old, ev.key):
		ev.old = old
	}
	return ev, nil
}

// known finds a relation. A server describes one before its first row on a connection.
func (d *decoder) known(id uint32) (relation, error) {
	rel, ok := d.relations[id]
	if !ok {
		return relation{}, fmt.Errorf("relation %d was not described", id)
	}
	return rel, nil
}

// keyOf reads a tuple and returns its key column; nil where that is unchanged and not told. A NULL key is an error.
func (rel relation) keyOf(r *reader) ([]byte, error) {
	// PostgreSQL 15.0 and 15.1 could send tuples wider than the description: positions then mean nothing.
	if n := int(r.uint16()); n != rel.columns && !r.short {
		return nil, fmt.Errorf("tuple of %d columns for %s, which has %d", n, rel.table, rel.columns)
	}
	var key []byte
	for i := 0; i < rel.columns && !r.short; i++ {
		switch format := r.byte(); format {
		case 't':
			value := r.next(int(r.uint32()))
			if i == rel.key {
				key = value
			}
		case 'n':
			if i == rel.key {
				return nil, fmt.Errorf("key of %s is NULL", rel.table)
			}
		case 'u': // unchanged, stored out of line
		default:
			return nil, fmt.Errorf("column format %q", format)
		}
	}
	if r.short {
		return nil, errShort
	}
	return key, nil
}

func (d *decoder) truncate(r *reader) (event, error) {
	n := int(r.uint32())
	r.skip(1) // CASCADE, RESTART IDENTITY
	ev := event{kind: 'T'}
	for i := 0; i < n && !r.short; i++ {
		id := r.uint32()
		if r.short {
			break
		}
		rel, err := d.known(id)
		if err != nil {
			return event{}, err
		}
		ev.tables = append(ev.tables, rel.table)
	}
	return ev, nil
}

// reader takes big-endian values off a message. Past the end it returns zeros and remembers that it was short.
type reader struct {
	rest  []byte
	short bool
}

// next returns n bytes, never nil, so that an empty value differs from none.
func (r *reader) next(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.rest, r.short = nil, true
		return []byte{}
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) skip(n int) { r.next(n) }

func (r *reader) byte() byte {
	if b := r.next(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.next(2); len(b) == 2 {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.next(4); len(b) == 4 {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.next(8); len(b) == 8 {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// string reads up to a zero byte.
func (r *reader) string() string {
	if i := slices.Index(r.rest, 0); i >= 0 {
		return string(r.next(i + 1)[:i])
	}
	r.rest, r.short = nil, true
	return ""
}

// time reads microseconds since 2000-01-01 UTC.
func (r *reader) time() time.Time {
	const y2k = 946_684_800_000_000
	return time.UnixMicro(int64(r.uint64()) + y2k).UTC()
}
