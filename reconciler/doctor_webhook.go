package reconciler

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// ProbeKey is the query by which a webhook of the doctor names itself. Whoever of us takes such a delivery tells it by
// [ledger.Ledger.TellProbe], so that the doctor hears of it wherever it runs.
const ProbeKey = "probe"

// probePatience is how long a delivery may take after Label Studio has answered: usually it is sent before, but a queue may be in between.
const probePatience = 5 * time.Second

// webhooks proves the whole way from Label Studio to us by a real delivery: a webhook that is there for this moment alone, on our URL with
// our secret, and a project that is saved with the title that it has.
func (v *visit) webhooks(ctx context.Context) (fact string, findings []Finding, err error) {
	switch {
	case v.PublicURL == "":
		return "not tried: RECONCILER_PUBLIC_URL is not set, so nobody looks after them", nil, nil
	case len(v.synced) == 0:
		return "not tried: there is no project", nil, nil
	}
	project, nonce := v.synced[0], rand.Text()
	arrived, stop, daemon, err := v.awaitProbe(ctx, nonce)
	if err != nil {
		return "", nil, err
	}
	defer stop()
	hook, err := v.probeHook(ctx, project.ID, nonce)
	if err != nil {
		return v.noHook(err)
	}
	defer func() { // a crash leaves it: the next doctor removes it
		err = errors.Join(err, v.Studio.DeleteWebhook(context.WithoutCancel(ctx), hook.ID))
	}()
	begin := time.Now()
	if err := v.Studio.TouchProject(ctx, project); err != nil {
		return "", nil, err
	}
	select {
	case <-arrived:
		return fmt.Sprintf("a delivery arrived at %s in %v, %s", v.PublicURL, time.Since(begin).Round(time.Millisecond), daemon), nil, nil
	case <-time.After(probePatience):
		return "", []Finding{v.nothingArrived(daemon)}, nil
	case <-ctx.Done():
		return "", nil, ctx.Err()
	}
}

func (v *visit) nothingArrived(daemon string) Finding {
	return Finding{Warning, fmt.Sprintf("Label Studio sent a webhook to %s, and it did not arrive (%s)", v.PublicURL, daemon), "A star waits for the next pass, half a minute, instead of a moment.",
		"On Label Studio's machine: curl -i -d '{}' " + v.PublicURL + HookPath + " — without an answer of ours look at name, port, firewall and proxy; a 401 is ours: then the daemon has another RECONCILER_WEBHOOK_SECRET than doctor. " +
			"To private addresses Label Studio 1.23.1 and later sends only with SSRF_PROTECTION_ENABLED=false or USE_DEFAULT_BANNED_SUBNETS=false."}
}

func (v *visit) noHook(err error) (string, []Finding, error) {
	var refused *labelstudio.Error
	if !labelstudio.NotDone(err) || !errors.As(err, &refused) || labelstudio.Away(err) && !labelstudio.IsAuth(err) {
		return "", nil, err
	}
	mend := refused.Hint
	if mend == "" {
		mend = "Set RECONCILER_PUBLIC_URL to a URL that Label Studio takes."
	}
	return "", []Finding{{Warning, fmt.Sprintf("Label Studio takes no webhook to %s: %v", v.PublicURL, err), "A star waits for the next pass, half a minute, instead of a moment.", mend}}, nil
}

// probeHook makes the webhook, and removes those of doctors that were interrupted.
func (v *visit) probeHook(ctx context.Context, project int64, nonce string) (labelstudio.Webhook, error) {
	there, err := v.Studio.Webhooks(ctx, project)
	if err != nil {
		return labelstudio.Webhook{}, err
	}
	ours := v.PublicURL + HookPath + "?" + ProbeKey + "="
	for _, h := range there {
		if strings.HasPrefix(h.URL, ours) {
			if err := v.Studio.DeleteWebhook(ctx, h.ID); err != nil && !labelstudio.IsNotFound(err) {
				return labelstudio.Webhook{}, err
			}
		}
	}
	headers := map[string]string{}
	if v.Secret != "" {
		headers["Authorization"] = "Bearer " + v.Secret
	}
	return v.Studio.CreateWebhook(ctx, labelstudio.Webhook{Project: project, URL: ours + nonce, IsActive: true, Headers: headers,
		Actions: []string{labelstudio.ProjectUpdated}})
}

// awaitProbe returns what is closed when the delivery has arrived: at a daemon, which tells it through the database, or, where none
// listens on this machine, at a server of our own in its place. stop ends both.
func (v *visit) awaitProbe(ctx context.Context, nonce string) (arrived <-chan struct{}, stop func(), daemon string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	conn, err := plainConnection(ctx, v.Database)
	if err == nil {
		_, err = conn.Exec(ctx, "LISTEN "+pgx.Identifier{ledger.ProbeChannel(v.Schema)}.Sanitize())
	}
	if err != nil {
		cancel()
		return nil, nil, "", fmt.Errorf("listen for the delivery: %w", err)
	}
	heard := make(chan struct{}, 2)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for {
			n, err := conn.WaitForNotification(ctx)
			if err != nil {
				return
			}
			if n.Payload == nonce {
				heard <- struct{}{}
				return
			}
		}
	}()
	server := &http.Server{ReadHeaderTimeout: probePatience, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get(ProbeKey) == nonce {
			heard <- struct{}{}
		}
	})}
	daemon = "by the daemon"
	if l, err := net.Listen("tcp", v.Listen); err == nil {
		daemon = "by doctor itself, as no daemon listens on " + v.Listen
		go func() { _ = server.Serve(l) }() // ended by Close
	}
	return heard, func() {
		_ = server.Close()
		cancel()
		<-told
		_ = conn.Close(context.WithoutCancel(ctx))
	}, daemon, nil
}
