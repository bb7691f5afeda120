package icl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// The times of an index's keeper.
const (
	// watchEvery is how soon the index notices that nobody reads the slot.
	watchEvery = 2 * time.Second
	// askedFor is how long after a request it is watched, and watchedFor how long that is believed.
	askedFor   = time.Minute
	watchedFor = 2 * watchEvery
	// againAfter is how long to wait after an error of the database, and tooLargeFor
	// before it is looked whether the examples fit now.
	againAfter  = 2 * time.Second
	tooLargeFor = 10 * time.Minute
)

// msgKeep is how the log tells that the index cannot be kept.
const msgKeep = "keep examples in memory: the database answers"

// Run keeps the index until ctx ends, and then returns nil. What fails is tried again:
// the source answers meanwhile.
func (x *Index) Run(ctx context.Context) error {
	if x.limit == 0 {
		return nil
	}
	for {
		err := x.keep(ctx)
		x.forget()
		if ctx.Err() != nil {
			return nil
		}
		x.failures.Log(ctx, x.log, slog.LevelWarn, msgKeep, "", err)
		wait := againAfter
		if errors.Is(err, errTooLarge) {
			wait = x.retry
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// keep fills the index and keeps it fresh, for as long as one session hears what is
// told. It listens first: what changes after that is told.
func (x *Index) keep(ctx context.Context) error {
	pooled, err := x.src.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("listen for changed examples: %w", err)
	}
	conn := pooled.Hijack() // it must not go back to the pool still listening
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "LISTEN "+channel(x.src.schema)); err != nil {
		return fmt.Errorf("listen for changed examples: %w", err)
	}
	in := newInbox()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return hear(ctx, conn, in) })
	g.Go(func() error { return x.tend(ctx, in) })
	return g.Wait()
}

// hear notes what is told.
func hear(ctx context.Context, conn *pgx.Conn, in *inbox) error {
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return fmt.Errorf("listen for changed examples: %w", err)
		}
		in.add(n.Payload)
	}
}

// tend loads the index, then reads what was told, and watches whether all is told.
func (x *Index) tend(ctx context.Context, in *inbox) error {
	var stream reader
	watch := time.NewTicker(watchEvery)
	defer watch.Stop()
	err := x.reload(ctx, &stream)
	for err == nil {
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-watch.C:
			if time.Since(time.Unix(x.asked.Load(), 0)) < askedFor {
				err = x.watch(ctx, &stream)
			}
		case <-in.ready:
			if n := in.take(atOnce); n.All || x.held.lacks(n) {
				err = x.reload(ctx, &stream)
			} else {
				err = x.refresh(ctx, n)
			}
			x.measure()
		}
	}
	return err
}

func (x *Index) reload(ctx context.Context, stream *reader) error {
	start := time.Now()
	if err := x.load(ctx); err != nil {
		return err
	}
	x.log.InfoContext(ctx, "examples are in memory", "examples", len(x.held.ratings)-x.held.leftOut, "left_out", x.held.leftOut,
		"bytes", x.held.bytes, "took", time.Since(start))
	if err := x.watch(ctx, stream); err != nil {
		return err
	}
	x.failures.Over(ctx, x.log, msgKeep, "")
	return nil
}

// reader is what is known of whoever reads the change stream.
type reader struct {
	absent bool
	since  time.Time // when it came back
	end    string    // the WAL's end then: "": it was never away, or has caught up since
	seen   time.Time // when it was last looked for; zero: never
}

// catchUp bounds how long the slot's position is waited for: what it has confirmed
// lags behind what was told where little happens.
const catchUp = 30 * time.Second

// watch lets the index answer only while somebody reads the stream, and has caught up
// with what happened while nobody did.
func (x *Index) watch(ctx context.Context, r *reader) error {
	if x.slot != "" {
		var active, reached bool
		var end string
		err := x.src.pool.QueryRow(ctx, `SELECT COALESCE(bool_or(active), false), COALESCE(bool_or(confirmed_flush_lsn >= NULLIF($2, '')::pg_lsn), false),
				pg_current_wal_lsn()::text
			FROM pg_replication_slots WHERE slot_name = $1`, x.slot, r.end).Scan(&active, &reached, &end)
		switch {
		case err != nil:
			return fmt.Errorf("look who reads the change stream: %w", err)
		case !active:
			*r = reader{absent: true}
		case r.absent || !r.seen.IsZero() && time.Since(r.seen) > watchedFor: // it may have been away meanwhile
			*r = reader{since: time.Now(), end: end}
		case reached || time.Since(r.since) > catchUp:
			r.end = ""
		}
	}
	r.seen = time.Now()
	x.setFresh(!r.absent && r.end == "")
	return nil
}
