package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// HealthcheckCmd is `reconciler healthcheck`: status 0 where the daemon on this machine is alive, or with --ready where it
// does its job, else 1 and why.
type HealthcheckCmd struct {
	Ready bool `help:"Ask whether it does its job, not only whether it is alive."`
}

// healthcheckLimit is below the three seconds that orchestrators usually give a probe.
const healthcheckLimit = 2500 * time.Millisecond

// Run asks the metrics listener of the same settings.
func (c *HealthcheckCmd) Run(ctx context.Context, cfg *Config) error {
	ctx, cancel := context.WithTimeout(ctx, healthcheckLimit)
	defer cancel()
	path := "/healthz"
	if c.Ready {
		path = "/readyz"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+local(cfg.MetricsListen)+path, nil)
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	defer resp.Body.Close()
	why, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the daemon says %s: %s", resp.Status, strings.TrimSpace(string(why)))
	}
	return nil
}

// local is where to reach a listener from this machine: one on all addresses is on loopback, too.
func local(a Address) string {
	host, port, err := net.SplitHostPort(string(a))
	if err != nil {
		return string(a)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1" // by number: an image from scratch has no hosts file of its own
	}
	return net.JoinHostPort(host, port)
}
