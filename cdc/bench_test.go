package cdc

import (
	"bytes"
	"context"
	"io"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkStream reads 100,000 one-row changes into a Handle that only counts, in one transaction and in a thousand. The yardstick is
// pg_recvlogical, reading the same changes from a slot of its own into a pipe that is counted: "ratio" is how much of its speed is reached.
func BenchmarkStream(b *testing.B) {
	for name, transactions := range map[string]int{"transactions=1": 1, "transactions=1000": 1000} {
		b.Run(name, func(b *testing.B) { benchmarkStream(b, transactions) })
	}
}

const benchRows = 100_000

func benchmarkStream(b *testing.B, transactions int) {
	tool, err := exec.LookPath("pg_recvlogical")
	if err != nil {
		b.Skip("pg_recvlogical, of PostgreSQL's client programs, is not on the PATH")
	}
	r := newRig(b)
	var theirs, ours time.Duration
	var peak uint64
	for b.Loop() {
		b.StopTimer()
		r.exec(`TRUNCATE "Thing"`)
		yardstick := r.slot + "_yardstick"
		for _, slot := range []string{yardstick, r.slot} {
			r.exec(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, slot)
		}
		for range transactions {
			r.exec(`INSERT INTO "Thing" SELECT gen_random_uuid(), 'x' FROM generate_series(1, $1)`, benchRows/transactions)
		}
		theirs += recvlogical(b, tool, r, yardstick)
		b.StartTimer()
		took, heap := streamAll(b, r)
		b.StopTimer()
		ours, peak = ours+took, max(peak, heap)
		for _, slot := range []string{yardstick, r.slot} {
			r.exec(`SELECT pg_drop_replication_slot($1)`, slot)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N)*benchRows/ours.Seconds(), "rows/s")
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "ratio")
	b.ReportMetric(float64(peak)/(1<<20), "peak-heap-MB")
}

// recvlogical reads a slot to the present end of the WAL and counts the lines.
func recvlogical(b *testing.B, tool string, r *rig, slot string) time.Duration {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), tool, "-d", r.url, "--slot", slot, "--start", "--no-loop", "-f", "-", "-F", "0",
		"--endpos", r.walEnd().String(), "-o", "proto_version=1", "-o", `publication_names="Things"`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	var lines int
	buf := make([]byte, 64<<10)
	for {
		n, err := out.Read(buf)
		lines += bytes.Count(buf[:n], []byte{'\n'})
		if err == io.EOF {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	took := time.Since(began)
	if err := cmd.Wait(); err != nil || lines < benchRows {
		b.Fatalf("pg_recvlogical gave %d lines: %v", lines, err)
	}
	return took
}

// streamAll runs a listener from its start until it has handed over all rows, and tells the most that was on the heap.
func streamAll(b *testing.B, r *rig) (time.Duration, uint64) {
	b.Helper()
	var rows atomic.Int64
	var peak atomic.Uint64
	all := make(chan struct{})
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	runtime.GC()
	began := time.Now()
	e := r.listen(func(cfg *Config) {
		cfg.Handle = func(_ context.Context, batch Batch) error {
			metrics.Read(sample)
			peak.Store(max(peak.Load(), sample[0].Value.Uint64()))
			if rows.Add(int64(len(batch.Changes))) == benchRows {
				close(all)
			}
			return nil
		}
	})
	select {
	case <-all:
	case <-e.done:
		b.Fatal(e.result)
	}
	took := time.Since(began)
	if err := e.stop(); err != nil {
		b.Fatal(err)
	}
	return took, peak.Load()
}
