package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle/sandbox"
)

// idleFor in the environment is how long TestGoodGuest measures a daemon with its own settings: a minute in CI. After six it is at rest, and
// asks less.
//
//	STREET_IDLE=8m go test -run TestGoodGuest/costs -v ./cmd/reconciler
const idleFor = "STREET_IDLE"

// mostAsked is "a handful": statements a minute at rest, and more than that in the first minutes after a change.
const mostAsked, mostAskedBefore = 6, 12

// serversOwn is what PostgreSQL itself may write meanwhile, in bytes of WAL: a checkpoint and who is connected. One change of a row is more.
const serversOwn = 400

// While nobody does anything, a daemon writes nothing to Aristotle's database and asks it next to nothing.
func TestGoodGuest(t *testing.T) {
	t.Parallel()
	t.Run("writes", func(t *testing.T) {
		t.Parallel()
		g := newGuest(t, "")
		before := g.xids()
		const passes = `reconciler_diff_duration_seconds_count{pass="incremental"}`
		until := g.p.metric(t, passes) + 6
		g.eventually(func() string {
			g.wantReady(g.p) // being asked costs no write either
			if g.p.metric(t, passes) < until {
				return "six passes have not been round"
			}
			return ""
		})
		asked := g.statements()
		if took := g.xids() - before; took != 0 {
			t.Errorf("an idle daemon made %d transactions that write:\n%s", took, strings.Join(asked, "\n"))
		}
		for _, s := range asked { // what only we change is not asked again
			if strings.Contains(s, " FROM pass ") || strings.Contains(s, " FROM project") || strings.Contains(s, " FROM edge") || strings.Contains(s, " FROM finding") {
				t.Errorf("a pass that finds nothing asks: %s", s)
			}
		}
	})
	t.Run("costs", func(t *testing.T) {
		t.Parallel()
		text := os.Getenv(idleFor)
		if text == "" && os.Getenv("CI") == "true" {
			text = "1m"
		}
		if text == "" {
			t.Skip("a measurement of minutes: set " + idleFor + "=8m")
		}
		span, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		newGuest(t, shipped(t), "RECONCILER_DIFF_SCHEDULE=@every 30s", "RECONCILER_PUBLIC_URL=http://127.0.0.1:9", "RECONCILER_LOG_LEVEL=info").costs(span)
	})
}

// guest is a daemon at rest, alone on a server that notes every statement.
type guest struct {
	*street
	p      *process
	server *pgx.Conn // the superuser's, in another database
	read   int64     // of the server's log
}

func newGuest(t *testing.T, program string, env ...string) *guest {
	t.Helper()
	server, cfg := ownServer(t, sandbox.Options{Settings: map[string]string{
		"autovacuum":        "off", // it is the server's own, and would take transaction numbers
		"logging_collector": "on", "log_filename": "statements", "log_file_mode": "0600", "log_rotation_age": "0", "log_rotation_size": "0",
		"log_statement": "all", "log_line_prefix": "%u|"}})
	_, side := standIn(t)
	g := &guest{street: pave(t, cfg, side), server: connect(t, DSN(server.URL()))}
	g.program = program
	tasks := map[string]int64{"row": g.pair("row", "DEFEAT"), "note": g.pair("note", "NEUTRAL")}
	g.p = g.start(env...)
	g.wantContact(tasks["row"], tasks["note"])
	g.setResult("VICTORY", "row")
	g.annotate(tasks["note"], true)
	g.wantEach(tasks, map[string]bool{"row": true, "note": true})
	g.wantEqual()
	g.wantPassed()
	g.wantConfirmed()
	g.wantAtRest()
	g.statements()
	return g
}

// shipped is the daemon as deploy/build makes it: what tests bring along, and -race, is no cost of it.
func shipped(t *testing.T) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "shipped")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// wantAtRest waits until the passes have seen what was done, and have written that down.
func (g *guest) wantAtRest() {
	g.Helper()
	const passes = `reconciler_diff_duration_seconds_count{pass="incremental"}`
	until := g.p.metric(g.T, passes) + 2
	g.eventually(func() string {
		if g.p.metric(g.T, passes) < until {
			return "the passes have not been round twice"
		}
		return ""
	})
}

// xids is the number that the next transaction that writes will get.
func (g *guest) xids() (n int64) {
	g.Helper()
	if err := g.server.QueryRow(g.Context(), `SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint`).Scan(&n); err != nil {
		g.Fatal(err)
	}
	return n
}

// statements are what the daemon's two roles have asked since the last call, a line each.
func (g *guest) statements() (all []string) {
	g.Helper()
	var text string
	if err := g.server.QueryRow(g.Context(), `SELECT pg_read_file('log/statements', $1, 1 << 29)`, g.read).Scan(&text); err != nil {
		g.Fatal(err)
	}
	g.read += int64(len(text))
	ordinary, stream := roleOf(g.T, g.cfg.AristotleDatabaseURL), roleOf(g.T, g.cfg.AristotleReplicationURL)
	for line := range strings.Lines(text) {
		user, said, _ := strings.Cut(strings.TrimSpace(line), "|")
		if (user == ordinary || user == stream) && (strings.HasPrefix(said, "LOG:  statement: ") || strings.HasPrefix(said, "LOG:  execute ")) {
			all = append(all, user+": "+said)
		}
	}
	return all
}

// costs lets a span of whole minutes pass, and compares what the daemon cost with the goals.
func (g *guest) costs(span time.Duration) {
	g.Helper()
	cpu := g.p.metric(g.T, "process_cpu_seconds_total")
	g.wantReady(g.p)
	g.statements()
	xids := g.xids()
	var wal string
	if err := g.server.QueryRow(g.Context(), `SELECT pg_current_wal_insert_lsn()::text`).Scan(&wal); err != nil {
		g.Fatal(err)
	}
	var asked []string // in the last minute
	pings := 0
	for until := time.Now().Add(span); time.Now().Before(until); {
		<-time.After(time.Minute)
		asked, pings = g.statements(), 0
		asked = slices.DeleteFunc(asked, func(s string) bool { // the pool's look whether a connection lives: no statement
			ping := strings.HasSuffix(s, "-- ping")
			if ping {
				pings++
			}
			return ping
		})
		g.Logf("%d statements and %d pings in this minute", len(asked), pings)
	}
	xids = g.xids() - xids
	var bytes int64
	if err := g.server.QueryRow(g.Context(), `SELECT (pg_current_wal_insert_lsn() - $1::text::pg_lsn)::bigint`, wal).Scan(&bytes); err != nil {
		g.Fatal(err)
	}
	cpu = g.p.metric(g.T, "process_cpu_seconds_total") - cpu
	memory := g.p.metric(g.T, "process_resident_memory_bytes")
	byText := map[string]int{}
	for _, s := range asked {
		byText[s]++
	}
	for s, n := range byText {
		g.Logf("%3d x %s", n, s)
	}
	g.Logf("in %v: %d writing transactions, %d bytes of WAL (the server's own included), %.2f %% of a core, %.0f MB",
		span, xids, bytes, 100*cpu/span.Seconds(), memory/1e6)
	g.statements()
	g.p.metric(g.T, "reconciler_database_up")
	g.Logf("a scrape: %d statements", len(g.statements()))
	g.wantReady(g.p)
	g.Logf("a probe: %d statements", len(g.statements()))
	most := mostAskedBefore
	if span >= 6*time.Minute {
		most = mostAsked
	}
	if len(asked) > most {
		g.Errorf("%d statements in the last minute, want at most %d", len(asked), most)
	}
	if xids != 0 || bytes > serversOwn {
		g.Errorf("%d transactions have written, and %d bytes of WAL", xids, bytes)
	}
	if share := cpu / span.Seconds(); share > 0.005 {
		g.Errorf("%.2f %% of a core, want less than half of one", 100*share)
	}
	if memory > 40e6 {
		g.Errorf("%.0f MB, want less than 40", memory/1e6)
	}
}
