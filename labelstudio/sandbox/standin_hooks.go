package sandbox

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
)

const (
	// hookPatience is the real one's WEBHOOK_TIMEOUT: for the connection, and for the answer once the body has been sent.
	hookPatience = time.Second
	// hookBatch is how many tasks one TASKS_CREATED holds.
	hookBatch = 5000
)

var hookActions = []string{
	labelstudio.AnnotationCreated, labelstudio.AnnotationsCreated, labelstudio.AnnotationUpdated, labelstudio.AnnotationsDeleted,
	labelstudio.TasksCreated, labelstudio.TasksDeleted, labelstudio.ProjectUpdated, "LABEL_LINK_CREATED", "LABEL_LINK_UPDATED", "LABEL_LINK_DELETED",
}

// newSender follows redirects as python-requests does (301 to 303 become a GET, 307 and 308 repeat the body) and opens a connection for each delivery.
func newSender() *http.Client {
	return &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: hookPatience}).DialContext,
			ResponseHeaderTimeout: hookPatience,
			MaxIdleConnsPerHost:   -1,
			DisableCompression:    true,
		},
	}
}

// announce prepares the deliveries of one action, one body for each payload, and returns what sends them, to be called without the lock. As in the
// real one the bodies are made from what is stored now, and are sent one after another inside the request that caused them.
func (s *StandIn) announce(projectID int64, action string, payloads ...object) (send func(context.Context)) {
	var targets []labelstudio.Webhook
	for _, h := range s.hooks {
		if h.Project == projectID && h.IsActive && (h.SendForAllActions || slices.Contains(h.Actions, action)) {
			targets = append(targets, *h)
		}
	}
	p := s.projects[projectID]
	if len(targets) == 0 || p == nil {
		return func(context.Context) {}
	}
	slices.SortFunc(targets, func(a, b labelstudio.Webhook) int { return int(a.ID - b.ID) })
	bare, full := encode(object{"action": action}), make([][]byte, 0, len(payloads))
	for _, payload := range payloads {
		payload["action"], payload["project"] = action, s.hookProject(p)
		full = append(full, encode(payload))
	}
	return func(ctx context.Context) {
		ctx = context.WithoutCancel(ctx) // the annotator may be gone; the real one sends all the same
		for _, body := range full {
			for _, h := range targets {
				if !h.SendPayload {
					body = bare
				}
				s.deliver(ctx, h, body)
			}
		}
	}
}

// deliver sends once. Like the real one it drops the error: a delivery that failed is told to nobody and never repeated.
func (s *StandIn) deliver(ctx context.Context, h labelstudio.Webhook, body []byte) {
	if u, err := url.Parse(h.URL); err != nil || strings.HasPrefix(u.Host, "[") {
		return // IPv6 literals do not resolve there
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return
	}
	req.Header = http.Header{
		"User-Agent": {"python-requests/2.34.2"}, "Accept-Encoding": {"gzip, deflate"}, "Accept": {"*/*"},
		"Connection": {"keep-alive"}, "Content-Type": {"application/json"},
	}
	for name, value := range h.Headers {
		req.Header.Set(name, value)
	}
	resp, err := s.sender.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // read and dropped, whatever it says
}

// createdPayloads are the bodies that announce new tasks.
func (s *StandIn) createdPayloads(p *project, made []*task) (payloads []object) {
	for batch := range slices.Chunk(made, hookBatch) {
		list := make([]object, 0, len(batch))
		for _, t := range batch {
			list = append(list, s.taskBody(t, hook))
		}
		payloads = append(payloads, object{"tasks": list})
	}
	return payloads
}

// notePayload is the body that announces an annotation.
func (s *StandIn) notePayload(a *annotation) object {
	return object{"annotation": s.noteBody(a, hook), "task": s.taskBody(s.tasks[a.task], hook)}
}

var headerName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// checkHook returns the validation errors by field.
func checkHook(h *labelstudio.Webhook) object {
	wrong := object{}
	if !deliverable(h.URL) {
		wrong["url"] = []string{"Enter a valid URL."}
	}
	if len(h.Headers) > 10 {
		wrong["headers"] = []string{"Max number of headers is 10."}
	}
	for name := range h.Headers {
		if !headerName.MatchString(name) {
			wrong["headers"] = []string{"Wrong headers format."}
		}
	}
	for _, action := range h.Actions {
		if !slices.Contains(hookActions, action) {
			wrong["actions"] = []string{"\"" + action + "\" is not a valid choice."}
		}
	}
	return wrong
}

// deliverable is Django's idea of a URL: names need a dot, and no underscore; any IP address will do.
func deliverable(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return false
	}
	host := u.Hostname()
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
		return true
	}
	return strings.Contains(host, ".") && !strings.Contains(host, "_")
}
