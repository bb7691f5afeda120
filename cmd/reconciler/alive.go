package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/aristotle/reconciler/reconciler/logs"
)

// stuckFor is when a part that does not move is taken for dead. A turn takes seconds; one in which every request to Label
// Studio runs into its time limit may take minutes.
const stuckFor = 5 * time.Minute

// notifyLimit is far more than a service manager that reads needs.
const notifyLimit = time.Second

// alive tells whether this process still moves; if not, only a new one helps. That a database or Label Studio is away is no
// reason: the parts wait for them, and move in doing so.
func (d *daemon) alive(now time.Time) error {
	if at := d.turner.Progress(); !at.IsZero() && now.Sub(at) > stuckFor {
		return fmt.Errorf("the worker has not moved for %v", now.Sub(at).Round(time.Second))
	}
	if s := d.stream.Stats(); s.Connected && now.Sub(s.LastMessage) > stuckFor {
		return fmt.Errorf("the stream says that it is connected, and was not read for %v", now.Sub(s.LastMessage).Round(time.Second))
	}
	return nil
}

// notifier speaks to the service manager that started us, as sd_notify(3) and sd_watchdog_enabled(3) describe it. Without
// one it says nothing.
type notifier struct {
	socket   string
	watchdog time.Duration // how often it must hear from us; 0: it does not listen
}

func newNotifier() notifier {
	n := notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	pid := os.Getenv("WATCHDOG_PID")
	if n.socket != "" && err == nil && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	return n
}

func (n notifier) send(state string) error {
	if n.socket == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", n.socket) // a name that begins with @ is an abstract one here, too
	if err != nil {
		return err
	}
	defer conn.Close()
	// A manager that does not read must not keep us from working, or from stopping.
	if err := conn.SetWriteDeadline(time.Now().Add(notifyLimit)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(state))
	return err
}

// run says that we are ready, then for as long as alive returns nil that we live, and when ctx ends that we are stopping.
// That the manager cannot be told is no reason to stop working: it will act by itself, and the log says why.
func (n notifier) run(ctx context.Context, log *slog.Logger, alive func(now time.Time) error) {
	var failures logs.Failures
	send := func(state string) {
		const what = "tell the service manager"
		if err := n.send(state); err != nil {
			failures.Log(ctx, log, slog.LevelWarn, what, "", err)
			return
		}
		failures.Over(ctx, log, what, "")
	}
	send("READY=1")
	defer send("STOPPING=1")
	if n.watchdog == 0 {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(n.watchdog / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if err := alive(now); err != nil {
				send("STATUS=" + err.Error())
			} else {
				send("WATCHDOG=1")
			}
		}
	}
}
