package cdc

import (
	"errors"
	"fmt"

	"github.com/jackc/pglogrepl"
)

// LSN is a place in the server's write-ahead log, in bytes. Its String is PostgreSQL's own form, "16/B374D848".
type LSN = pglogrepl.LSN

// Position is what one connection may confirm: the end of the last transaction of which everything is durable on our side,
// or, while nothing is on its way, the place up to which the server says it has looked.
//
// Only two things move it: Durable after a Commit that was read before, and Keepalive at rest. So it can pass neither what the server sent
// nor what is durable; it never goes back; and as it starts from the slot's own position it is never 0, which pglogrepl would
// take for "as much as was written" and which would so acknowledge everything.
//
// A transaction in the middle of its rows, or read in full and not yet durable, holds it where it is, whatever keepalives say meanwhile: they
// count what was sent. That includes a keepalive that is older than the moment all became durable; the next one moves it.
//
// A Position belongs to one goroutine. A new connection needs a new one: a slot may go back by itself (PostgreSQL before 17 saves it
// lazily), and what is then sent again is new to this connection.
type Position struct {
	received  LSN  // the highest place the server has named
	committed LSN  // end of the last transaction that was read in full
	durable   LSN  // what may be confirmed
	open      bool // between Begin and Commit
}

// NewPosition starts from the slot's confirmed_flush_lsn. It refuses 0: a slot without one cannot be read.
func NewPosition(confirmed LSN) (*Position, error) {
	if confirmed == 0 {
		return nil, errors.New("start from an unset position")
	}
	return &Position{received: confirmed, committed: confirmed, durable: confirmed}, nil
}

// Begin notes that a transaction's rows follow.
func (p *Position) Begin() error {
	if p.open {
		return errors.New("begin inside a transaction")
	}
	p.open = true
	return nil
}

// Commit notes that the open transaction was read to its end, which is what Durable may name from now on.
func (p *Position) Commit(end LSN) error {
	if !p.open {
		return errors.New("commit outside a transaction")
	}
	if end == 0 {
		return errors.New("commit at an unset position")
	}
	p.open = false
	p.committed = max(p.committed, end)
	p.received = max(p.received, end)
	return nil
}

// Keepalive notes the place that a keepalive names. At rest that is progress: the server sends nothing for transactions which touch no
// published table, and without this their WAL would be kept for ever.
func (p *Position) Keepalive(end LSN) {
	p.received = max(p.received, end)
	if p.Idle() {
		p.durable = max(p.durable, end)
	}
}

// Durable notes that all transactions up to the one that ends at end are durable. It refuses an end that was not read.
func (p *Position) Durable(end LSN) error {
	if end > p.committed {
		return fmt.Errorf("confirm %s, of which only %s was read", end, p.committed)
	}
	p.durable = max(p.durable, end)
	return nil
}

// Idle tells whether everything that was read is durable and no transaction is open.
func (p *Position) Idle() bool { return !p.open && p.durable >= p.committed }

// Open tells whether the stream stands between a Begin and its Commit.
func (p *Position) Open() bool { return p.open }

// Confirmed is the position to report as written, flushed and applied. It is never 0 and never lower than the last time.
func (p *Position) Confirmed() LSN { return p.durable }

// Received is the highest place the server has named.
func (p *Position) Received() LSN { return p.received }
