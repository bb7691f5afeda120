package cdc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// slotPatience bounds how long making a slot waits for the write transactions that are open, before it says whose they are.
const slotPatience = 30 * time.Second

// oldest is the first major version that has column lists.
const oldest = 15

// slotState is what the catalog says of our slot.
type slotState struct {
	plugin, kind, database string
	readerPID              int32 // 0: nobody reads it
	lost                   bool
	failover               bool // standbys keep a copy (PostgreSQL 17)
	confirmed              LSN
}

// history is what we know of the slot from the last connection that read it, or made it; zero where there was none. It only serves to find
// out what happened to the slot since. The position to go on from is always the slot's own.
type history struct {
	system    string // identifier of the server
	print     string // publicationPrint
	confirmed LSN    // the highest position ever confirmed: the slot may stand before it, not after it
	broken    string // why the slot cannot be read on from where it stands; empty: it can
}

// prepare checks the server, the publication and the slot, makes the slot where it must, and returns how things are; confirmed is the
// place to start from. It decides by the catalog, and every connection begins with it, whatever happened before, a failover included.
func (l *Listener) prepare(ctx context.Context, conn *pgx.Conn) (now history, err error) {
	if err := checkServer(ctx, conn); err != nil {
		return now, err
	}
	// First of all: also where the publication is missing, and a person is waited for, the disk must not fill.
	if err := l.giveUp(ctx, conn); err != nil {
		return now, err
	}
	// Before the check: what changes from here on is found by watch.
	if now.print, err = publicationPrint(ctx, conn, l.cfg.Publication); err != nil {
		return now, err
	}
	if err := CheckPublication(ctx, conn, l.cfg.Publication, l.cfg.KeyColumn, l.cfg.Tables...); err != nil {
		return now, err
	}
	system, err := pglogrepl.IdentifySystem(ctx, conn.PgConn())
	if err != nil {
		return now, wrap("identify the server", err)
	}
	now.system = system.SystemID
	slot, err := findSlot(ctx, conn, l.cfg.Slot)
	if err != nil {
		return now, err
	}
	reason, err := l.unusable(ctx, conn, slot, now)
	if err != nil {
		return now, err
	}
	if reason != "" {
		if slot, err = l.makeSlot(ctx, conn, slot, reason); err != nil {
			return now, err
		}
	}
	now.confirmed = slot.confirmed
	if reason != "" {
		l.known = now
	}
	return now, nil
}

func checkServer(ctx context.Context, conn *pgx.Conn) error {
	var level string
	var version int
	var standby bool
	if err := conn.QueryRow(ctx, `SELECT current_setting('wal_level'), current_setting('server_version_num')::int, pg_is_in_recovery()`).
		Scan(&level, &version, &standby); err != nil {
		return wrap("look at the server", err)
	}
	switch {
	case version < oldest*10000:
		return &Error{Op: "check the server", Class: ClassOperator, Err: fmt.Errorf("it is PostgreSQL %d", version/10000),
			Hint: fmt.Sprintf("use PostgreSQL %d or newer: older ones cannot publish a key alone", oldest)}
	case standby:
		return &Error{Op: "check the server", Class: ClassWrongServer, Err: errors.New("it is a standby"), Hint: "the replication URL must lead to the primary"}
	case level != "logical":
		return &Error{Op: "check the server", Class: ClassOperator, Err: fmt.Errorf("wal_level is %s", level),
			Hint: "set wal_level=logical (on RDS rds.logical_replication=1) and restart PostgreSQL"}
	}
	return nil
}

// findSlot returns nil where there is none, and refuses one that is not ours by its kind.
func findSlot(ctx context.Context, conn *pgx.Conn, name string) (*slotState, error) {
	var s slotState
	var here bool
	var confirmed string
	err := conn.QueryRow(ctx, `
		SELECT coalesce(plugin, ''), slot_type, coalesce(database, ''), coalesce(database = current_database(), false), coalesce(active_pid, 0),
		       coalesce(wal_status = 'lost', false) OR restart_lsn IS NULL, coalesce(confirmed_flush_lsn, '0/0')::text,
		       coalesce((to_jsonb(s)->>'failover')::boolean, false)
		FROM pg_replication_slots s WHERE slot_name = $1`, name).
		Scan(&s.plugin, &s.kind, &s.database, &here, &s.readerPID, &s.lost, &confirmed, &s.failover)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap("look for the slot", err)
	}
	if s.kind != "logical" || s.plugin != "pgoutput" || !here {
		return nil, &Error{Op: fmt.Sprintf("check slot %q", name), Class: ClassOperator,
			Err:  fmt.Errorf("it is a %s slot of plugin %q and database %q", s.kind, s.plugin, s.database),
			Hint: "choose another slot name: they are shared by all databases of a server"}
	}
	if s.confirmed, err = pglogrepl.ParseLSN(confirmed); err != nil {
		return nil, wrap("read the slot's position", err)
	}
	return &s, nil
}

// unusable says why the slot cannot be read on from where it stands; empty: it can.
func (l *Listener) unusable(ctx context.Context, conn *pgx.Conn, slot *slotState, now history) (string, error) {
	switch last := l.known; {
	case slot == nil && last.broken != "":
		return last.broken, nil
	case slot == nil:
		return "there is none", nil
	case slot.lost:
		return "it is lost: the server has removed WAL that it needs (see max_slot_wal_keep_size)", nil
	case last.broken != "":
		return last.broken, nil
	case last.system != "" && last.system != now.system:
		return "the server is another one", nil
	case last.system != "" && slot.confirmed > last.confirmed:
		return fmt.Sprintf("it stands at %s, and we confirmed no more than %s: somebody else made or read it", slot.confirmed, last.confirmed), nil
	case last.print == now.print:
		return "", nil
	case last.print != "":
		// Wherever the slot stands: while a table was out of the publication the server sent nothing of it, and we confirmed that.
		return "the publication was changed while it was read", nil
	}
	younger, err := publicationYounger(ctx, conn, l.cfg.Publication, l.cfg.Slot)
	if younger {
		return "the publication is younger than the slot's place", err
	}
	return "", err
}

// errRetained ends a connection whose slot keeps too much WAL.
var errRetained = &Error{Op: "watch the slot", Class: ClassSlotGone, Err: errors.New("it keeps more WAL than it may")}

// retainedSQL is retained as a query, with the slot as a parameter.
func retainedSQL(slot string) string {
	return `SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0)::bigint FROM pg_replication_slots
		WHERE slot_name = ` + slot + ` AND database = current_database() AND plugin = 'pgoutput'`
}

// retained is how many bytes of WAL the server keeps for the slot, 0 where there is none, or none of ours.
func (l *Listener) retained(ctx context.Context, conn *pgx.Conn) (n int64, err error) {
	err = conn.QueryRow(ctx, retainedSQL("$1"), l.cfg.Slot).Scan(&n)
	if err != nil {
		return 0, wrap("look at what the slot keeps", err)
	}
	return n, nil
}

// giveUp drops a slot that keeps too much WAL. What it would have told is unknown from then on, as with a slot that is lost.
func (l *Listener) giveUp(ctx context.Context, conn *pgx.Conn) error {
	if l.cfg.MaxRetained == 0 {
		return nil
	}
	n, err := l.retained(ctx, conn)
	if err != nil || n <= l.cfg.MaxRetained {
		return err
	}
	if _, err := conn.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, l.cfg.Slot); err != nil {
		return wrap("give up the slot", err)
	}
	l.known.broken = fmt.Sprintf("it was given up: it kept %d MiB of WAL, more than the limit of %d MiB", n>>20, l.cfg.MaxRetained>>20)
	return nil
}

// makeSlot replaces the slot. The new one begins as a temporary one under another name, which fixes the place; then the caller
// is told; only then is it copied to its own name. A crash before that leaves nothing behind, and the next start
// begins anew; so a slot with our name is one that the caller knows of.
func (l *Listener) makeSlot(ctx context.Context, conn *pgx.Conn, old *slotState, reason string) (*slotState, error) {
	name := l.cfg.Slot
	l.cfg.Log.InfoContext(ctx, "making a new slot: nothing is known of the time before it", logSlot, name, logReason, reason)
	if old != nil {
		if _, err := conn.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, name); err != nil {
			return nil, wrap("drop the unusable slot", err)
		}
	}
	temporary := fmt.Sprintf("%.40s_new_%d", name, conn.PgConn().PID())
	if err := createSlot(ctx, conn, temporary); err != nil {
		return nil, err
	}
	if err := l.cfg.OnSlotCreated(ctx); err != nil {
		return nil, &Error{Op: "tell of the new slot", Class: ClassHandle, Err: err}
	}
	if _, err := conn.Exec(ctx, `SELECT pg_copy_logical_replication_slot($1, $2, false)`, temporary, name); err != nil {
		return nil, wrap("name the new slot", err)
	}
	l.slotsMade.Add(1)
	if old != nil && old.failover { // a person made it one; a copy is none
		if err := conn.PgConn().Exec(ctx, `ALTER_REPLICATION_SLOT "`+name+`" (FAILOVER)`).Close(); err != nil {
			return nil, wrap("make the new slot a failover slot, as the old one was", err)
		}
	}
	if _, err := conn.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, temporary); err != nil {
		return nil, wrap("drop the temporary slot", err)
	}
	slot, err := findSlot(ctx, conn, name)
	if err == nil && slot == nil {
		err = &Error{Op: "make the slot", Class: ClassSlotGone, Err: errors.New("somebody dropped it at once")}
	}
	return slot, err
}

// createSlot makes a temporary slot. The server waits for all write transactions that are open; who they are is
// asked when that takes too long.
func createSlot(ctx context.Context, conn *pgx.Conn, name string) error {
	if _, err := conn.Exec(ctx, `SELECT set_config('statement_timeout', $1, false)`, fmt.Sprint(slotPatience.Milliseconds())); err != nil {
		return wrap("limit the wait for the slot", err)
	}
	_, err := conn.Exec(ctx, `SELECT pg_create_logical_replication_slot($1, 'pgoutput', true)`, name)
	if err != nil {
		e := wrap("create the slot", err).(*Error)
		if sqlState(err) == "57014" {
			e.Hint = openTransactions(ctx, conn)
		}
		return e
	}
	if _, err := conn.Exec(ctx, `SELECT set_config('statement_timeout', '0', false)`); err != nil {
		return wrap("lift the limit", err)
	}
	return nil
}

// openTransactions names the sessions whose open write transactions a new slot waits for.
func openTransactions(ctx context.Context, conn *pgx.Conn) string {
	var who string
	err := conn.QueryRow(ctx, `
		SELECT coalesce(string_agg(format('pid %s (%s, %s)', l.pid, a.usename, a.application_name), ', '), '')
		FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
		WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()`).Scan(&who)
	if err != nil || who == "" {
		return "a new slot waits for every open write transaction"
	}
	return "a new slot waits for these open write transactions: " + who
}
