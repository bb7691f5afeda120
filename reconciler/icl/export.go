package icl

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
)

// Selection says which gold stars an export has. The zero value is all, of everybody.
type Selection struct {
	Philosopher string
	Domain      string
	Type        string    // compared as [Query.Type]
	Since       time.Time // the star's row was made then or later; zero: no bound
	Until       time.Time // and before this
	Limit       int       // the newest so many; 0: all
}

// Exported counts what an export has written.
type Exported struct {
	Examples int
	LeftOut  int // gold stars without a usable text
}

// exportRatings are read at once: each time all of them are sorted.
const exportRatings = 10_000

// Export writes the examples of a selection as JSON Lines, newest first, as they all
// were at one moment. It holds a few of them in memory at a time. progress, if there
// is one, is told after each how far it is.
func (s *Source) Export(ctx context.Context, w io.Writer, sel Selection, f Format, progress func(Exported)) (n Exported, err error) {
	out := bufio.NewWriterSize(w, 64<<10)
	moment := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, s.pool, moment, func(tx pgx.Tx) error {
		var after *place
		for {
			ratings, have, err := readRatings(ctx, tx, sel, after, exportRatings)
			if err != nil {
				return fmt.Errorf("read gold ratings: %w", err)
			}
			for e, err := range examples(ctx, tx, have, ratings, byConquest) {
				if err != nil {
					return err
				}
				if sel.Limit > 0 && n.Examples == sel.Limit {
					return nil
				}
				if err := n.write(out, e, f); err != nil {
					return err
				}
				if progress != nil {
					progress(n)
				}
			}
			if len(ratings) < exportRatings {
				return nil
			}
			last := ratings[len(ratings)-1]
			after = &place{last.At, last.ID}
		}
	})
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return n, fmt.Errorf("export examples: %w", err)
	}
	return n, nil
}

func (n *Exported) write(out *bufio.Writer, e *Example, f Format) error {
	if !e.Usable() {
		n.LeftOut++
		return nil
	}
	n.Examples++
	if err := e.Write(out, f); err != nil {
		return err
	}
	return out.WriteByte('\n')
}
