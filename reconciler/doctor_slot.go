package reconciler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aristotle/reconciler/reconciler/story"
)

// newSlotPatience bounds the wait of a new slot for the write transactions that are open.
const newSlotPatience = 5 * time.Second

// slotLook is what the catalog says of our slot. What a version does not have is read as JSON, where it is only missing.
type slotLook struct {
	active          bool
	reader          int32
	status          string
	retained        int64
	reason          string
	failover, known bool
}

func (v *visit) lookAtSlot(ctx context.Context, conn *pgx.Conn) (s slotLook, err error) {
	err = conn.QueryRow(ctx, `
		SELECT active, coalesce(active_pid, 0), coalesce(wal_status, 'lost'),
		       coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint,
		       coalesce(to_jsonb(s)->>'invalidation_reason', ''), coalesce((to_jsonb(s)->>'failover')::boolean, false)
		FROM pg_replication_slots s WHERE slot_name = $1`, v.Slot).
		Scan(&s.active, &s.reader, &s.status, &s.retained, &s.reason, &s.failover)
	if errors.Is(err, pgx.ErrNoRows) {
		return slotLook{}, nil
	}
	if err != nil {
		return slotLook{}, fmt.Errorf("look at slot %q: %w", v.Slot, err)
	}
	s.known = true
	return s, nil
}

// slot tells what is wrong with ours, and how many there may be. One of another kind or database is the replication check's.
func (v *visit) slot(ctx context.Context) (fact string, findings []Finding, err error) {
	s, err := v.lookAtSlot(ctx, v.db)
	if err != nil {
		return "", nil, err
	}
	var free int
	var keep, idle string
	if err := v.db.QueryRow(ctx, `SELECT current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots)::int,
			(SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'), coalesce(current_setting('idle_replication_slot_timeout', true), '0')`).
		Scan(&free, &keep, &idle); err != nil {
		return "", nil, fmt.Errorf("ask how many slots there may be: %w", err)
	}
	if f, ok := fewSlots(free, s.known); ok {
		findings = append(findings, f)
	}
	if keep == "-1" {
		findings = append(findings, Finding{Warning, "max_slot_wal_keep_size is unlimited", "While the daemon is away, PostgreSQL keeps all WAL for it, until the disk is full and Aristotle stops. A slot that is lost costs the daemon one comparison and no change.",
			"ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf();"})
	}
	if !s.known {
		return fmt.Sprintf("%s: not made yet; %d free", v.Slot, free), findings, nil
	}
	switch {
	case s.status == "lost":
		findings = append(findings, Finding{Warning, fmt.Sprintf("slot %q is lost%s", v.Slot, s.whyLost()),
			"It fell too far behind, or was invalidated. The daemon makes a new one by itself and compares every row.",
			"Start the daemon: reconciler run. Let it not be away so long, or raise max_slot_wal_keep_size."})
	case s.status == "unreserved":
		findings = append(findings, Finding{Warning, fmt.Sprintf("slot %q is about to be lost", v.Slot), "It is further behind than max_slot_wal_keep_size allows.", "Start the daemon: reconciler run. Else raise max_slot_wal_keep_size."})
	case !s.active && s.retained > muchWAL:
		findings = append(findings, Finding{Warning, fmt.Sprintf("slot %q is read by nobody and keeps %s of WAL", v.Slot, story.Size(float64(s.retained))), "The disk of Aristotle's PostgreSQL fills.",
			"Start the daemon: reconciler run. If it is never to run again: reconciler uninstall"})
	}
	reader, stranger, err := v.reader(ctx, s)
	return fmt.Sprintf("%s: %s, %s behind%s; %d free", v.Slot, s.status, story.Size(float64(s.retained)), reader, free), append(findings, stranger...), err
}

// whyLost is why a slot was lost, where the version tells.
func (s slotLook) whyLost() string {
	if s.reason == "" {
		return ""
	}
	return " (" + s.reason + ")"
}

func fewSlots(free int, ours bool) (Finding, bool) {
	const mend = "SELECT slot_name, active FROM pg_replication_slots; drop one that nobody needs by SELECT pg_drop_replication_slot('…'), or ALTER SYSTEM SET max_replication_slots = 20 and restart PostgreSQL."
	switch {
	case !ours && free < 2: // a temporary one, which gets its name last
		return Finding{Fatal, fmt.Sprintf("%d replication slots are free, and two are needed for a moment to make ours", free), "Without a slot there is no stream.", mend}, true
	case ours && free < 1:
		return Finding{Warning, "no replication slot is free", "If ours is lost, no new one can be made.", mend}, true
	}
	return Finding{}, false
}

// reader tells who reads our slot. Only the role itself, or one that may see all sessions, sees the application's name.
func (v *visit) reader(ctx context.Context, s slotLook) (who string, findings []Finding, err error) {
	if !s.active {
		return ", read by nobody", nil, nil
	}
	conn := v.stream
	if conn == nil {
		conn = v.db
	}
	var user, application, address string
	err = conn.QueryRow(ctx, `SELECT coalesce(usename::text, ''), coalesce(application_name, ''), coalesce(host(client_addr), 'this machine') FROM pg_stat_activity WHERE pid = $1`, s.reader).
		Scan(&user, &application, &address)
	if errors.Is(err, pgx.ErrNoRows) {
		return ", read by nobody", nil, nil // gone meanwhile
	}
	if err != nil {
		return "", nil, fmt.Errorf("ask who reads slot %q: %w", v.Slot, err)
	}
	if v.stream != nil && (user != role(v.stream) || application != "reconciler") {
		findings = append(findings, Finding{Warning, fmt.Sprintf("slot %q is read by somebody else: process %d, role %q, application %q, from %s", v.Slot, s.reader, user, application, address),
			"What it reads, the daemon does not get.", fmt.Sprintf("Where it is the daemon, give doctor the daemon's ARISTOTLE_REPLICATION_URL. Else stop it, or choose another RECONCILER_SLOT. To end its session: SELECT pg_terminate_backend(%d)", s.reader)})
	}
	return fmt.Sprintf(", read by process %d from %s", s.reader, address), findings, nil
}

// newSlot makes a slot that ends with its session: what an attribute promises, a server may refuse, and open transactions may delay.
func (v *visit) newSlot(ctx context.Context) (fact string, findings []Finding, err error) {
	begin := time.Now()
	name := fmt.Sprintf("%.40s_doctor_%d", v.Slot, v.stream.PgConn().PID())
	if _, err := v.stream.Exec(ctx, fmt.Sprintf(`SET statement_timeout = %d`, newSlotPatience.Milliseconds())); err != nil {
		return "", nil, fmt.Errorf("limit the wait: %w", err)
	}
	_, err = v.stream.Exec(ctx, `SELECT pg_create_logical_replication_slot($1, 'pgoutput', true)`, name)
	took := time.Since(begin).Round(time.Millisecond)
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		findings = v.noSlot(ctx, pg)
		return "", findings, nil
	}
	if err == nil {
		_, err = v.stream.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, name)
	}
	if err != nil {
		return "", nil, fmt.Errorf("make a temporary slot: %w", err)
	}
	return fmt.Sprintf("can be made, in %v", took), nil, nil
}

func (v *visit) noSlot(ctx context.Context, pg *pgconn.PgError) []Finding {
	const what = "no replication slot can be made: "
	name := pgx.Identifier{role(v.stream)}.Sanitize()
	switch pg.Code {
	case "42501":
		return []Finding{{Fatal, fmt.Sprintf("role %q lacks REPLICATION", role(v.stream)), "Without a slot there is no stream.",
			"ALTER ROLE " + name + " REPLICATION, on RDS GRANT rds_replication TO " + name + " (`reconciler setup` does it)."}}
	case "57014":
		return []Finding{{Warning, "a new replication slot has to wait for transactions that are open for longer than " + newSlotPatience.String(),
			"The first start, and a start after a lost slot, wait for them too.", "SELECT pid, usename, application_name, xact_start FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start; then end the oldest."}}
	case "53400":
		return []Finding{{Warning, what + pg.Message, "If ours is lost, no new one can be made.", "Drop a slot that nobody needs, or raise max_replication_slots and restart PostgreSQL."}}
	}
	return []Finding{{Warning, what + pg.Message, "If ours is lost, no new one can be made.", "Look into the server's log."}}
}

// failover looks at each host that the URL names and that is a standby: a slot survives there only if it was synchronised for good. One that is
// still temporary is lost at the promotion (seen on 17 and 18).
func (v *visit) failover(ctx context.Context) (fact string, findings []Finding, err error) {
	s, err := v.lookAtSlot(ctx, v.db)
	if err != nil {
		return "", nil, err
	}
	conf := v.db.Config()
	standbys, seen := 0, map[string]bool{}
	for _, host := range append([]*pgconn.FallbackConfig{{Host: conf.Host, Port: conf.Port, TLSConfig: conf.TLSConfig}}, conf.Fallbacks...) {
		at := fmt.Sprintf("%s:%d", host.Host, host.Port)
		if seen[at] { // once with TLS and once without
			continue
		}
		seen[at] = true
		found, standby, err := v.standby(ctx, s, at, host)
		var nobody *pgconn.ConnectError
		if errors.As(err, &nobody) && ctx.Err() == nil {
			found = []Finding{{Warning, at + " cannot be reached: " + serverWords(err), "Nothing can fail over to it, and each connection that tries it first loses time.",
				"Start it as a standby, or take it out of ARISTOTLE_DATABASE_URL and ARISTOTLE_REPLICATION_URL."}}
		} else if err != nil {
			return "", findings, fmt.Errorf("look at %s: %w", at, err)
		}
		if standby {
			standbys++
		}
		findings = append(findings, found...)
	}
	return fmt.Sprintf("%d standbys in the URL", standbys), findings, nil
}

func (v *visit) standby(ctx context.Context, primary slotLook, at string, where *pgconn.FallbackConfig) (findings []Finding, standby bool, err error) {
	conf := v.db.Config().Copy()
	conf.Host, conf.Port, conf.TLSConfig, conf.Fallbacks, conf.ValidateConnect = where.Host, where.Port, where.TLSConfig, nil, nil
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		return nil, false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var version int
	if err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, pg_is_in_recovery()`).Scan(&version, &standby); err != nil || !standby {
		return nil, standby, err
	}
	const why = "After a failover to it the daemon makes a new slot and compares every row; nothing is lost, but until then nothing is noticed."
	if version < 170000 || !primary.failover {
		return []Finding{{Note, "standby " + at + " has no copy of slot " + v.Slot, why, "Nothing; or from PostgreSQL 17 on a failover slot, which the daemon takes as it finds it."}}, true, nil
	}
	var good bool
	err = conn.QueryRow(ctx, `SELECT coalesce(bool_or((to_jsonb(s)->>'synced')::boolean AND NOT temporary AND to_jsonb(s)->>'invalidation_reason' IS NULL), false)
		FROM pg_replication_slots s WHERE slot_name = $1`, v.Slot).Scan(&good)
	if err != nil || good {
		return nil, true, err
	}
	return []Finding{{Warning, "standby " + at + " has no lasting copy of failover slot " + v.Slot, why,
		"On the standby: sync_replication_slots = on, hot_standby_feedback = on, dbname in primary_conninfo; on the primary: synchronized_standby_slots. A new copy lasts once the daemon has confirmed twice."}}, true, nil
}

// muchWAL is what a slot may keep that nobody reads, without a word of ours.
const muchWAL = 1 << 30

// disk tells what of the server's disk is kept for slots. How much is left no ordinary role can see.
func (v *visit) disk(ctx context.Context) (fact string, findings []Finding, err error) {
	rows, err := v.db.Query(ctx, `SELECT slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
		FROM pg_replication_slots WHERE NOT active AND slot_name <> $1 AND pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > $2`, v.Slot, int64(muchWAL))
	if err != nil {
		return "", nil, fmt.Errorf("look at the slots of others: %w", err)
	}
	var name string
	var kept int64
	if _, err = pgx.ForEachRow(rows, []any{&name, &kept}, func() error {
		findings = append(findings, Finding{Warning, fmt.Sprintf("slot %q, which is not ours, is read by nobody and keeps %s of WAL", name, story.Size(float64(kept))),
			"The disk of Aristotle's PostgreSQL fills, and with it the daemon stops.", "Ask whose it is. If nobody's: SELECT pg_drop_replication_slot('" + name + "')"})
		return nil
	}); err != nil {
		return "", nil, fmt.Errorf("look at the slots of others: %w", err)
	}
	var ours int64
	err = v.db.QueryRow(ctx, `SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relkind = 'r'`, v.Schema).Scan(&ours)
	if err != nil {
		return "", nil, fmt.Errorf("measure our tables: %w", err)
	}
	return "our tables have " + story.Size(float64(ours)), findings, nil
}
