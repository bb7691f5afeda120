package reconciler_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler/api"
	"github.com/aristotle/reconciler/reconciler/auth"
)

// deliveries are those of [BenchmarkWebhookSustained], which sends them from a process of its own: what it costs to send is
// Label Studio's, and must not be taken for the daemon's.
type deliveries struct {
	Address string
	Project int64
	Tasks   []int64
}

// deliver in the environment of this binary makes it send what stands on its standard input.
const deliver = "RECONCILER_TEST_DELIVER"

// How many are sent, and over how many connections: what waits for one that is free is late, and counted as that.
const (
	deliveriesRate    = 2000 // a second
	deliveriesSeconds = 5
	deliveriesWires   = 100
)

// sender is the program that sends.
func sender() error {
	var d deliveries
	if err := json.NewDecoder(os.Stdin).Decode(&d); err != nil {
		return err
	}
	took, err := d.send()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(took)
}

// send sends each delivery when it is due, whether those before were answered or not, and returns how long after that it was answered.
func (d deliveries) send() ([]time.Duration, error) {
	requests := make([][]byte, len(d.Tasks))
	for i, task := range d.Tasks {
		body := fmt.Sprintf(`{"action": "ANNOTATION_CREATED", "annotation": {"id": 1}, "task": {"id": %d, "project": %d, "data": {"conquest_id": "c%d", "prompt": %q}}, "project": {"id": 1}}`,
			task, d.Project, i, strings.Repeat("x", 3000))
		requests[i] = fmt.Appendf(nil, "POST /v1/webhooks/label-studio HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", d.Address, len(body), body)
	}
	took := make([]time.Duration, deliveriesRate*deliveriesSeconds)
	var next atomic.Int64
	var g errgroup.Group
	start := time.Now()
	for range deliveriesWires {
		g.Go(func() error {
			conn, err := net.Dial("tcp", d.Address)
			if err != nil {
				return err
			}
			defer conn.Close()
			answers := bufio.NewReader(conn)
			for {
				i := int(next.Add(1)) - 1
				if i >= len(took) {
					return nil
				}
				due := time.Duration(i) * time.Second / deliveriesRate
				<-time.After(due - time.Since(start))
				if _, err := conn.Write(requests[i%len(requests)]); err != nil {
					return err
				}
				answer, err := http.ReadResponse(answers, nil)
				if err != nil {
					return err
				}
				took[i] = time.Since(start) - due
				said, err := io.ReadAll(answer.Body)
				if err != nil || answer.StatusCode != http.StatusOK {
					return fmt.Errorf("%s %s %w", answer.Status, said, err)
				}
			}
		})
	}
	return took, g.Wait()
}

// BenchmarkWebhookSustained takes 2,000 deliveries a second over the loopback for five seconds. A latency counts from when a
// delivery was to be sent: what waits behind a slow one is as late.
func BenchmarkWebhookSustained(b *testing.B) {
	r := newRig(b, 1000, studio.Delays{})
	r.settled()
	a := &api.API{Ledger: r.ledger, Metrics: r.metrics, Log: slog.New(slog.DiscardHandler), Guard: &auth.Guard{}, Secret: auth.NewSecret("s"), Initial: "union"}
	s := httptest.NewUnstartedServer(nil)
	s.Config = a.Server()
	s.Start()
	b.Cleanup(s.Close)
	all, err := json.Marshal(deliveries{Address: s.Listener.Addr().String(), Project: r.project, Tasks: r.tasks})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		cmd := exec.CommandContext(b.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), deliver+"=1")
		cmd.Stdin, cmd.Stderr = strings.NewReader(string(all)), os.Stderr
		start := time.Now()
		out, err := cmd.Output()
		if err != nil {
			b.Fatal(err)
		}
		var took []time.Duration
		if err := json.Unmarshal(out, &took); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(took))/time.Since(start).Seconds(), "deliveries/s")
		b.ReportMetric(quantile(took, .5), "p50-ms")
		b.ReportMetric(quantile(took, .99), "p99-ms")
	}
}
