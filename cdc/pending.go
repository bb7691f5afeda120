package cdc

import (
	"sync"
	"time"
)

// pending is the bounded batch between the goroutine that reads and the one that hands over. There is one: whatever
// has gathered while Handle was busy is the next batch, so batches grow with load and a lone change waits for nothing.
type pending struct {
	limit, limitBytes int

	ready chan struct{} // capacity 1: something can be taken
	room  chan struct{} // capacity 1: all was taken

	mu    sync.Mutex
	batch Batch
	bytes int // of keys and table names in batch
	end   LSN // end of the last commit in batch; 0 while it is only part of a transaction

	open    time.Time // commit time of the transaction whose rows are coming in; zero between transactions
	openXID uint32    // its number
}

func newPending(limit, limitBytes int) *pending {
	return &pending{limit: limit, limitBytes: limitBytes, ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// add appends one event. The batch is offered at a commit, and, for transactions that are larger than it, as soon as it is half full.
func (p *pending) add(ev event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch ev.kind {
	case 'B':
		p.open, p.openXID = ev.time, ev.xid
		p.stamp()
	case 'C':
		p.end, p.open = ev.end, time.Time{}
	case 'I', 'U', 'D':
		if ev.old != nil {
			p.append(ev.table, ev.old, 'D')
		}
		p.append(ev.table, ev.key, ev.kind)
	case 'T':
		p.batch.Truncated = append(p.batch.Truncated, ev.tables...)
		p.bytes += len(ev.tables) * changeSize
	}
	if ev.kind == 'C' || len(p.batch.Changes) >= p.limit/2 || p.bytes >= p.limitBytes/2 {
		signal(p.ready)
	}
}

// full tells whether nothing more may be read until there is room.
func (p *pending) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.batch.Changes) >= p.limit || p.bytes >= p.limitBytes
}

// stamp puts the open transaction's number and time into the batch.
func (p *pending) stamp() {
	if !p.open.IsZero() {
		p.batch.XIDs = append(p.batch.XIDs, p.openXID)
	}
	if p.batch.First.IsZero() {
		p.batch.First = p.open
	}
	p.batch.Last = p.open
}

// changeSize is what a change costs beside its key.
const changeSize = 48

func (p *pending) append(table string, key []byte, kind byte) {
	p.batch.Changes = append(p.batch.Changes, Change{Table: table, Key: string(key), Kind: kind})
	p.bytes += len(key) + changeSize
}

// take gives everything that has gathered, and the position that becomes durable with it (0: none). spare is an earlier batch whose
// memory may be used again.
func (p *pending) take(spare Batch) (Batch, LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	batch, end := p.batch, p.end
	p.batch = Batch{Changes: spare.Changes[:0], Truncated: spare.Truncated[:0], XIDs: spare.XIDs[:0]}
	p.bytes, p.end = 0, 0
	p.stamp() // an open transaction goes on in the next batch
	signal(p.room)
	return batch, end
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
