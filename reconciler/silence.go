package reconciler

import (
	"context"
	"errors"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// atOnce is how close to its annotation a task is saved. What moves a task's time
// alone, a PATCH by API and ours, is announced to nobody.
const atOnce = 10 * time.Second

// notes is what an incremental pass knows of a project's annotations. What the next
// one finds newer was changed since it began: that takes no two clocks.
type notes struct {
	newest time.Time // when the newest was saved, by Label Studio's clock
	began  time.Time
}

// hear takes a task in, and tells whether an annotation of it was made or changed since
// the pass before, in a way that Label Studio announces: the annotations of imported
// tasks come with these, and an action that copies some leaves the task's time alone.
// One that is gone leaves no time behind, and may have been moved to another task, which
// nobody announces: it shows nothing.
func (n *notes) hear(t *labelstudio.Task, before notes) (changed bool) {
	for _, a := range t.Annotations {
		if a.UpdatedAt.After(n.newest) {
			n.newest = a.UpdatedAt
		}
		if a.UpdatedAt.After(before.newest) && t.UpdatedAt.Sub(a.UpdatedAt) < atOnce {
			changed = true
		}
	}
	return changed
}

// expect notes what deliveries must have told by and by. A nil h expects nothing.
func (h *Hooks) expect(changes []ledger.Announced) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expected = append(h.expected, changes...)
}

// overdue takes what was found at a time or before, and should have been told by now.
func (h *Hooks) overdue(limit time.Time) (late []ledger.Announced) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var rest []ledger.Announced
	for _, e := range h.expected {
		if e.Found.After(limit) {
			rest = append(rest, e)
		} else {
			late = append(late, e)
		}
	}
	h.expected = rest
	return late
}

// count counts what passes have found and no delivery told in time.
func (h *Hooks) count(ctx context.Context) error {
	late := h.overdue(time.Now().Add(-h.every()))
	if len(late) > 0 {
		h.known = nil // the webhooks may note it
	}
	n, err := h.Ledger.CountMissed(ctx, late)
	if err != nil {
		h.expect(late) // the next time
		return err
	}
	h.Metrics.WebhooksMissed.Add(float64(n))
	return nil
}

// silence says what to look at when deliveries do not arrive.
func silence(w ledger.Webhook, url string) error {
	last := "nothing ever arrived"
	if w.DeliveredAt != nil {
		last = "the last delivery arrived at " + w.DeliveredAt.UTC().Format(time.RFC3339)
	}
	return errors.New(last + ", and a pass found an annotation that none had told of: see that Label Studio's machine reaches " + url +
		"; where that is a private address, Label Studio needs SSRF_PROTECTION_ENABLED=false or USE_DEFAULT_BANNED_SUBNETS=false")
}
