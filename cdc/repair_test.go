package cdc

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
)

// TestNewSlotIsTold: the caller is told before the slot has its name, so that a crash in between cannot hide the news; and from that moment
// on nothing is missing.
func TestNewSlotIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	look := rigAt(t, r.url)
	var calls atomic.Int32
	e := r.listen(func(cfg *Config) {
		cfg.OnSlotCreated = func(context.Context) error {
			if at := look.confirmedAt(r.slot); at != 0 {
				t.Errorf("the slot is there before the caller knows of it")
			}
			look.exec(`INSERT INTO "Thing" VALUES ($1)`, strconv.Itoa(int(calls.Load())))
			if calls.Add(1) < 3 {
				return errors.New("not written down")
			}
			return nil
		}
	})
	e.hears("I:Thing:2")
	if heard, _ := e.all(); heard != "I:Thing:2" || calls.Load() != 3 {
		t.Errorf("heard %q after %d calls", heard, calls.Load())
	}
	if left := r.query(`SELECT count(*)::text FROM pg_replication_slots WHERE slot_name LIKE $1`, r.slot+"\\_new%"); left != "0" {
		t.Errorf("%s temporary slots left", left)
	}
}

// TestSlotDropped while it is read.
func TestSlotDropped(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	e := r.listen(nil)
	e.streams()
	r.dropSlot()
	eventually(t, "told of the new slot", func() bool { return e.made.Load() == 2 && e.l.Stats().Connected })
	r.exec(`INSERT INTO "Thing" VALUES ('after')`)
	e.hears("I:Thing:after")
}

// TestSlotLost: the server removed WAL that the slot needs, while nobody listened.
func TestSlotLost(t *testing.T) {
	t.Parallel()
	for _, version := range pgtest.Versions() {
		t.Run("postgres="+version, func(t *testing.T) {
			t.Parallel()
			r, _ := ownRig(t, sandbox.Options{Version: version, Settings: map[string]string{
				"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB", "wal_keep_size": "0"}})
			e := r.listen(nil)
			e.streams()
			if err := e.stop(); err != nil {
				t.Fatal(err)
			}
			r.exec(`INSERT INTO "Thing" VALUES ('lost')`)
			eventually(t, "slot lost", func() bool {
				r.exec(`CREATE TABLE junk AS SELECT 1`)
				r.exec(`DROP TABLE junk`)
				r.query(`SELECT pg_switch_wal()::text`)
				r.exec(`CHECKPOINT`)
				return r.query(`SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1`, r.slot) == "lost"
			})
			e = r.listen(nil)
			e.streams()
			if e.made.Load() != 1 {
				t.Errorf("told %d times", e.made.Load())
			}
			r.exec(`INSERT INTO "Thing" VALUES ('after')`)
			e.hears("I:Thing:after")
		})
	}
}

// TestPublicationGap: a publication that is missing for a while leaves changes out, and no version can be asked for them later. It is found
// while streaming, and after a restart, for a publication made anew and for a table that was taken out and put back.
func TestPublicationGap(t *testing.T) {
	t.Parallel()
	for _, version := range pgtest.Versions() {
		for name, change := range map[string][2]string{
			"publication": {`DROP PUBLICATION "Things"`, `CREATE PUBLICATION "Things" FOR TABLE "Thing" (id)`},
			"table":       {`ALTER PUBLICATION "Things" DROP TABLE "Thing"`, `ALTER PUBLICATION "Things" ADD TABLE "Thing" (id)`},
		} {
			for _, live := range []bool{true, false} {
				mode := map[bool]string{true: "streaming", false: "stopped"}[live]
				t.Run("postgres="+version+"/"+name+"/"+mode, func(t *testing.T) {
					t.Parallel()
					r, _ := ownRig(t, sandbox.Options{Version: version})
					often := func(cfg *Config) { cfg.CheckEvery, cfg.Tables = 50*time.Millisecond, []string{"Thing"} }
					e := r.listen(often)
					e.streams()
					if !live {
						if err := e.stop(); err != nil {
							t.Fatal(err)
						}
						e.made.Store(0)
					}
					told := e.made.Load()
					r.exec(change[0])
					r.exec(`INSERT INTO "Thing" VALUES ('unseen')`)
					if live {
						eventually(t, "waits for a person", func() bool { return e.l.Stats().Class == ClassOperator })
					}
					r.exec(change[1])
					if !live {
						made := &e.made
						e = r.listen(func(cfg *Config) {
							often(cfg)
							cfg.OnSlotCreated = func(context.Context) error { made.Add(1); return nil }
						})
						eventually(t, "told", func() bool { return made.Load() == told+1 })
					} else {
						eventually(t, "told", func() bool { return e.made.Load() == told+1 })
					}
					e.streams()
					r.exec(`INSERT INTO "Thing" VALUES ('after')`)
					e.hears("I:Thing:after")
				})
			}
		}
	}
}

// TestNobodyIsAskedAtRest: what could have changed has written WAL, and the stream tells of that. So the publication is looked at only then.
func TestNobodyIsAskedAtRest(t *testing.T) {
	t.Parallel()
	r, _ := ownRig(t, sandbox.Options{Settings: map[string]string{"autovacuum": "off", "wal_sender_timeout": "3s"}})
	var connections atomic.Int64
	e := r.listen(func(cfg *Config) {
		cfg.CheckEvery = 10 * time.Millisecond
		cfg.Password = func() string { connections.Add(1); return r.db.Config().Password }
	})
	e.streams()
	eventually(t, "rest", func() bool {
		before, looks := e.l.Stats(), connections.Load()
		for range 2 { // in this time there would be a hundred looks
			last := e.l.Stats().LastMessage
			eventually(t, "a keepalive", func() bool { return e.l.Stats().LastMessage.After(last) })
		}
		return e.l.Stats().Received == before.Received && connections.Load() <= looks+1
	})
	for range 2 {
		looks := connections.Load()
		r.exec(`INSERT INTO "Thing" VALUES (gen_random_uuid())`)
		eventually(t, "a look after something was written", func() bool { return connections.Load() > looks })
	}
}

// TestServerRestarts cleanly and by a crash: the listener comes back by itself, everything committed arrives, and the slot is the same.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	for _, version := range pgtest.Versions() {
		for name, end := range map[string]func(*sandbox.Server) error{"halt": (*sandbox.Server).Halt, "crash": (*sandbox.Server).Crash} {
			t.Run("postgres="+version+"/"+name, func(t *testing.T) {
				t.Parallel()
				r, server := ownRig(t, sandbox.Options{Version: version})
				e := r.listen(nil)
				e.streams()
				r.exec(`INSERT INTO "Thing" VALUES ('before')`)
				e.hears("I:Thing:before")
				if err := end(server); err != nil { // it was killed in the end where somebody did not let go
					t.Fatal(err)
				}
				eventually(t, "noticed", func() bool { return e.l.Stats().Class == ClassTransient })
				if err := server.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
				r.reconnect(server.URL())
				r.exec(`INSERT INTO "Thing" VALUES ('after')`)
				e.hears("I:Thing:after")
				if e.made.Load() != 1 {
					t.Errorf("told %d times of a new slot", e.made.Load())
				}
			})
		}
	}
}

// TestShutdownDoesNotWaitForHandle: a server that stops waits for its logical readers to confirm everything. One that cannot lets go.
func TestShutdownDoesNotWaitForHandle(t *testing.T) {
	t.Parallel()
	r, server := ownRig(t, sandbox.Options{})
	called := make(chan struct{}, 100)
	e := r.listen(func(cfg *Config) {
		cfg.Handle = func(ctx context.Context, _ Batch) error {
			called <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
	})
	e.streams()
	r.exec(`INSERT INTO "Thing" VALUES ('stuck')`)
	<-called
	if err := server.Halt(); err != nil { // it would wait for ever, and be killed
		t.Fatal(err)
	}
	eventually(t, "a reason", func() bool { return errors.Is(e.l.Stats().LastError, errShutdown) })
}

// TestStartRefuses what only a person can change, and says what to do.
func TestStartRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		prepare func(*rig)
		change  func(*rig, *Config)
	}{
		"no publication":           {func(r *rig) { r.exec(`DROP PUBLICATION "Things"`) }, nil},
		"publication of nothing":   {func(r *rig) { r.exec(`ALTER PUBLICATION "Things" DROP TABLE "Thing"`) }, nil},
		"publication of inserts":   {func(r *rig) { r.exec(`ALTER PUBLICATION "Things" SET (publish = 'insert')`) }, nil},
		"publication with filter":  {func(r *rig) { r.exec(`ALTER PUBLICATION "Things" SET TABLE "Thing" (id) WHERE (id > 'a')`) }, nil},
		"publication without key":  {nil, func(_ *rig, c *Config) { c.KeyColumn = "note" }},
		"publication lacks tables": {nil, func(_ *rig, c *Config) { c.Tables = []string{"Thing", "other"} }},
		"wrong password":           {nil, func(r *rig, c *Config) { c.URL = r.as("postgres", "wrong") }},
		"no such database":         {nil, func(r *rig, c *Config) { c.URL = r.in("nowhere") }},
		"role without REPLICATION": {
			func(r *rig) { r.exec(`CREATE ROLE ` + r.slot + ` LOGIN PASSWORD 'p'`) },
			func(r *rig, c *Config) { c.URL = r.as(r.slot, "p") },
		},
		"physical slot": {func(r *rig) { r.exec(`SELECT pg_create_physical_replication_slot($1)`, r.slot) }, nil},
		"slot of another database": {func(r *rig) {
			other := rigAt(r.t, pgtest.Database(r.t, sandbox.Schema{Bare: true}))
			other.exec(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, r.slot)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if test.prepare != nil {
				test.prepare(r)
			}
			r.refuses(func(cfg *Config) {
				if test.change != nil {
					test.change(r, cfg)
				}
			})
			r.exec(`DROP ROLE IF EXISTS ` + r.slot)
			r.exec(`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND slot_type = 'physical'`, r.slot)
		})
	}
	t.Run("old version", func(t *testing.T) {
		t.Parallel()
		if len(pgtest.Versions()) == 1 && os.Getenv("CI") != "true" {
			t.Skip("fetches one more PostgreSQL: only in CI, and where RECONCILER_SANDBOX_VERSIONS=all")
		}
		rigAt(t, pgtest.Server(t, sandbox.Options{Version: "14.18.0"}).URL()).refuses(nil)
	})
	t.Run("wal_level", func(t *testing.T) {
		t.Parallel()
		r := rigAt(t, pgtest.Server(t, sandbox.Options{Settings: map[string]string{"wal_level": "replica"}}).URL())
		r.refuses(nil)
	})
}

// TestLeastPrivilege: LOGIN and REPLICATION are enough.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(`CREATE ROLE ` + r.slot + ` LOGIN REPLICATION PASSWORD 'p'`)
	e := r.listen(func(cfg *Config) { cfg.URL, cfg.CheckEvery = r.as(r.slot, "p"), 10*time.Millisecond })
	e.streams()
	r.exec(`INSERT INTO "Thing" VALUES ('a')`)
	e.hears("I:Thing:a")
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	if e.l.Stats().Reconnects != 0 {
		t.Errorf("%+v", e.l.Stats())
	}
	r.exec(`DROP ROLE ` + r.slot)
}

// TestSlotOfAnotherPast: what stands further than we ever confirmed was made or read by somebody else.
func TestSlotOfAnotherPast(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		system    string
		confirmed LSN
		slot      *slotState
		usable    bool
	}{
		"as we left it":  {"1", 100, &slotState{confirmed: 100}, true},
		"gone back":      {"1", 100, &slotState{confirmed: 50}, true},
		"first look":     {"", 0, &slotState{confirmed: 100}, true},
		"further":        {"1", 100, &slotState{confirmed: 101}, false},
		"another server": {"2", 100, &slotState{confirmed: 100}, false},
		"lost":           {"1", 100, &slotState{confirmed: 100, lost: true}, false},
		"none":           {"1", 100, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &Listener{known: history{system: test.system, confirmed: test.confirmed, print: "same"}}
			reason, err := l.unusable(t.Context(), nil, test.slot, history{system: "1", print: "same"})
			if err != nil || (reason == "") != test.usable {
				t.Errorf("%q, %v", reason, err)
			}
		})
	}
}

// refuses wants a finding for a person, with a hint, and a listener that waits for that person and says so.
func (r *rig) refuses(change func(*Config)) {
	r.t.Helper()
	e := r.listen(change)
	found := e.l.Check(r.t.Context())
	if len(found) == 0 {
		r.t.Fatal("Check found nothing")
	}
	for _, err := range found {
		if e, ok := Mendable(err); !ok || e.Hint == "" {
			r.t.Errorf("Check found %v, want an error for a person with a hint", err)
		}
	}
	eventually(r.t, "waits for a person", func() bool { return e.l.Stats().Class == ClassOperator })
	if err := e.stop(); err != nil {
		r.t.Error(err)
	}
}

// dropSlot takes the slot from whoever reads it.
func (r *rig) dropSlot() {
	r.t.Helper()
	eventually(r.t, "slot dropped", func() bool {
		r.query(`SELECT bool_or(pg_terminate_backend(active_pid))::text FROM pg_replication_slots WHERE slot_name = $1`, r.slot)
		_, err := r.db.Exec(r.t.Context(), `SELECT pg_drop_replication_slot($1)`, r.slot)
		return err == nil
	})
}

func (r *rig) reconnect(url string) {
	r.t.Helper()
	db, err := pgx.Connect(r.t.Context(), url)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = db.Close(context.Background()) })
	r.db = db
}
