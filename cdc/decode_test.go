package cdc

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"
)

// message puts a pgoutput message together: strings end in zero, integers are big-endian of their own width.
func message(kind byte, parts ...any) []byte {
	b := []byte{kind}
	for _, part := range parts {
		switch v := part.(type) {
		case string:
			b = append(append(b, v...), 0)
		case []byte:
			b = append(b, v...)
		case byte:
			b = append(b, v)
		case uint16:
			b = binary.BigEndian.AppendUint16(b, v)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, v)
		}
	}
	return b
}

// tuple has a column for each value; nil is NULL, "\x00" is unchanged and not told.
func tuple(kind byte, values ...any) []byte {
	b := binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(values)))
	for _, v := range values {
		switch {
		case v == nil:
			b = append(b, 'n')
		case v == "\x00":
			b = append(b, 'u')
		default:
			b = append(binary.BigEndian.AppendUint32(append(b, 't'), uint32(len(v.(string)))), v.(string)...)
		}
	}
	return b
}

func columns(names ...string) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(names)))
	for _, name := range names {
		b = append(b, message(1, name, uint32(25), uint32(0xffffffff))...)
	}
	return b
}

const thing = uint32(16385)

var (
	relationThing = message('R', thing, "public", "Thing", byte('d'), columns("note", "id"))
	beginMessage  = message('B', uint64(0x100), uint64(1_000_000), uint32(700))
	commitMessage = message('C', byte(0), uint64(0x100), uint64(0x130), uint64(1_000_000))
)

func newDecoder() *decoder { return &decoder{keyColumn: "id", relations: map[uint32]relation{}} }

func TestDecode(t *testing.T) {
	t.Parallel()
	at := time.Date(2000, 1, 1, 0, 0, 1, 0, time.UTC)
	row := func(kind byte, key, old string) event {
		ev := event{kind: kind, table: "Thing", key: []byte(key)}
		if old != "" {
			ev.old = []byte(old)
		}
		return ev
	}
	for name, test := range map[string]struct {
		msg  []byte
		want event
	}{
		"begin":                          {beginMessage, event{kind: 'B', time: at, xid: 700}},
		"commit":                         {commitMessage, event{kind: 'C', end: 0x130, time: at}},
		"relation":                       {relationThing, event{}},
		"type":                           {message('Y', uint32(1), "public", "mood"), event{}},
		"origin":                         {message('O', uint64(1), "other"), event{}},
		"insert":                         {message('I', thing, tuple('N', "x", "a")), row('I', "a", "")},
		"insert of an empty key":         {message('I', thing, tuple('N', "x", "")), row('I', "", "")},
		"update":                         {message('U', thing, tuple('N', "\x00", "a")), row('U', "a", "")},
		"update of the key":              {message('U', thing, tuple('K', nil, "a"), tuple('N', "x", "b")), row('U', "b", "a")},
		"update, full identity":          {message('U', thing, tuple('O', "y", "a"), tuple('N', "x", "a")), row('U', "a", "")},
		"update, long key not told":      {message('U', thing, tuple('K', nil, "a"), tuple('N', "x", "\x00")), row('U', "a", "")},
		"delete":                         {message('D', thing, tuple('K', nil, "a")), row('D', "a", "")},
		"delete, full identity":          {message('D', thing, tuple('O', "x", "a")), row('D', "a", "")},
		"truncate":                       {message('T', uint32(1), byte(0), thing), event{kind: 'T', tables: []string{"Thing"}}},
		"relation of another schema too": {message('R', thing+1, "s", "u", byte('d'), columns("id")), event{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := prepared(t)
			got, err := d.decode(test.msg)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(event{})); diff != "" {
				t.Error(diff)
			}
			// A message that ends early, or goes on, is never taken for a whole one.
			for n := range test.msg {
				if kind := test.msg[0]; n == 0 || kind != 'Y' && kind != 'O' {
					if _, err := prepared(t).decode(test.msg[:n]); err == nil {
						t.Errorf("the first %d of %d bytes pass", n, len(test.msg))
					}
				}
			}
			if kind := test.msg[0]; kind != 'Y' && kind != 'O' {
				if _, err := prepared(t).decode(append(bytes.Clone(test.msg), 0)); err == nil {
					t.Error("a byte too many passes")
				}
			}
		})
	}
}

// prepared is a decoder that knows the table and stands in a transaction.
func prepared(t testing.TB) *decoder {
	d := newDecoder()
	for _, msg := range [][]byte{beginMessage, relationThing} {
		if _, err := d.decode(msg); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for name, msg := range map[string][]byte{
		"a row of a table that was not described": message('I', thing+1, tuple('N', "x", "a")),
		"a truncate of such a table":              message('T', uint32(1), byte(0), thing+1),
		"a tuple that is too wide":                message('I', thing, tuple('N', "x", "a", "b")),
		"a tuple that is too narrow":              message('I', thing, tuple('N', "a")),
		"a NULL key":                              message('I', thing, tuple('N', "x", nil)),
		"an insert without its key":               message('I', thing, tuple('N', "x", "\x00")),
		"an update without its key":               message('U', thing, tuple('N', "x", "\x00")),
		"a delete without its key":                message('D', thing, tuple('K', "x", "\x00")),
		"a delete with a new tuple":               message('D', thing, tuple('N', "x", "a")),
		"an insert with an old tuple":             message('I', thing, tuple('K', nil, "a"), tuple('N', "x", "a")),
		"a binary value":                          message('I', thing, byte('N'), uint16(2), byte('n'), byte('b'), uint32(1), byte('a')),
		"a commit that no begin announced":        message('C', byte(0), uint64(0x101), uint64(0x130), uint64(0)),
		"a commit that ends before it begins":     message('C', byte(0), uint64(0x100), uint64(0x100), uint64(0)),
		"a streamed transaction":                  message('S', uint32(1), byte(1)),
		"a logical message":                       message('M', byte(0), uint64(1), "prefix", uint32(0)),
		"nothing":                                 {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if ev, err := prepared(t).decode(msg); err == nil {
				t.Errorf("decoded as %+v", ev)
			}
		})
	}
	_, err := newDecoder().decode(message('R', thing, "public", "Thing", byte('d'), columns("note")))
	if ErrorClass(err) != ClassOperator {
		t.Errorf("a table without the key column: %v", err)
	}
}

// TestDecodeFollowsRelation: columns are positions in the last description, whatever an earlier one said.
func TestDecodeFollowsRelation(t *testing.T) {
	t.Parallel()
	d := prepared(t)
	for _, step := range []struct {
		relation []byte
		row      []byte
		want     string
	}{
		{relationThing, tuple('N', "x", "a"), "Thing a"},
		{message('R', thing, "public", "Thing", byte('d'), columns("id", "more", "note")), tuple('N', "b", "x", "y"), "Thing b"},
		{message('R', thing, "public", "Renamed", byte('d'), columns("id")), tuple('N', "c"), "Renamed c"},
		{message('R', thing, "Other", "Renamed", byte('d'), columns("id")), tuple('N', "d"), "Other.Renamed d"},
	} {
		if _, err := d.decode(step.relation); err != nil {
			t.Fatal(err)
		}
		ev, err := d.decode(message('I', thing, step.row))
		if got := ev.table + " " + string(ev.key); err != nil || got != step.want {
			t.Errorf("got %q, %v; want %q", got, err, step.want)
		}
	}
}

// FuzzDecode: no input panics, and what is decoded at all is what pglogrepl reads in it.
func FuzzDecode(f *testing.F) {
	for _, msg := range [][]byte{
		beginMessage, commitMessage, relationThing, message('T', uint32(1), byte(0), thing), message('I', thing, tuple('N', "x", "a")),
		message('U', thing, tuple('K', nil, "a"), tuple('N', "\x00", "b")), message('D', thing, tuple('O', "x", "a")),
	} {
		f.Add(relationThing, msg)
	}
	f.Fuzz(func(t *testing.T, relation, msg []byte) {
		d := newDecoder()
		d.final = 0x100
		if _, err := d.decode(relation); err != nil {
			return
		}
		ev, err := d.decode(msg)
		if err != nil || ev.kind == 0 {
			return
		}
		other, err := pglogrepl.Parse(msg)
		if err != nil {
			t.Fatalf("decoded %+v, but pglogrepl: %v", ev, err)
		}
		switch m := other.(type) {
		case *pglogrepl.InsertMessage:
			same(t, d, m.RelationID, m.Tuple, ev.key)
		case *pglogrepl.UpdateMessage:
			if col := m.NewTuple.Columns[d.relations[m.RelationID].key]; col.DataType == 't' {
				same(t, d, m.RelationID, m.NewTuple, ev.key)
			}
			if ev.old != nil {
				same(t, d, m.RelationID, m.OldTuple, ev.old)
			}
		case *pglogrepl.DeleteMessage:
			same(t, d, m.RelationID, m.OldTuple, ev.key)
		case *pglogrepl.CommitMessage:
			if m.TransactionEndLSN != ev.end {
				t.Errorf("end %s, pglogrepl %s", ev.end, m.TransactionEndLSN)
			}
		case *pglogrepl.TruncateMessage:
			if len(m.RelationIDs) != len(ev.tables) {
				t.Errorf("%d tables, pglogrepl %d", len(ev.tables), len(m.RelationIDs))
			}
		}
	})
}

func same(t *testing.T, d *decoder, id uint32, tuple *pglogrepl.TupleData, key []byte) {
	t.Helper()
	if want := tuple.Columns[d.relations[id].key].Data; !bytes.Equal(want, key) {
		t.Errorf("key %q, pglogrepl %q", key, want)
	}
}
