package reconciler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/logs"
)

// careEvery is how often the webhooks are looked after, and how long the delivery of a
// change may take: Label Studio sends it from within the annotator's request, or from a
// queue of its own.
const careEvery = time.Minute

// HookPath is where Label Studio sends what happens, below RECONCILER_PUBLIC_URL.
const HookPath = "/v1/webhooks/label-studio"

// Hooks looks after our webhooks in Label Studio: one a project, with our URL, our
// secret, the actions that concern us, switched on. A webhook is ours that has our
// URL; or, after somebody changed its URL, the one that we remember to have made, if
// it still carries our secret. Others' are never touched, and none is made where it may be
// another Label Studio.
//
// Label Studio sends once, and neither counts nor shows what failed. So the way is
// proved from its end: where a pass finds that an annotation was made or changed, and
// no delivery tells of its key, deliveries do not arrive.
type Hooks struct {
	Ledger   *ledger.Ledger
	Studio   *labelstudio.Client
	Metrics  *metrics.Metrics
	Log      *slog.Logger
	URL      string        // RECONCILER_PUBLIC_URL
	Secret   func() string // RECONCILER_WEBHOOK_SECRET of the day, empty for none
	Projects []int64       // LABEL_STUDIO_PROJECTS, empty for all
	Every    time.Duration // in place of a minute, for tests; 0: a minute

	failures logs.Failures
	warnings atomic.Pointer[[]string]
	known    map[int64]ledger.Webhook // as the ledger has it; nil: to be read
	mu       sync.Mutex
	expected []ledger.Announced
}

const (
	msgCare  = "look after the webhooks"
	msgHook  = "a project has no working webhook: stars there wait for a pass"
	msgQuiet = "Label Studio's webhooks do not arrive: stars there wait for a pass"
)

// Run looks after the webhooks until ctx ends: at once, and then every minute. What
// fails is tried again the next time.
func (h *Hooks) Run(ctx context.Context) error {
	defer h.warnings.Store(nil)
	h.known = nil
	tick := time.NewTicker(h.every())
	defer tick.Stop()
	for {
		err := h.care(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			h.failures.Log(ctx, h.Log, slog.LevelWarn, msgCare, "", err)
		default:
			h.failures.Over(ctx, h.Log, msgCare, "")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (h *Hooks) every() time.Duration { return cmp.Or(h.Every, careEvery) }

// Warnings are what a person should know of the webhooks, a sentence each. Without
// them all arrives later, and nothing is lost.
func (h *Hooks) Warnings() []string {
	if w := h.warnings.Load(); w != nil {
		return *w
	}
	return nil
}

// care looks once at the webhooks of all projects, and whether deliveries arrive: that
// takes no word of Label Studio. Its error is one that concerns all.
func (h *Hooks) care(ctx context.Context) error {
	return errors.Join(h.keepAll(ctx), h.count(ctx), h.tell(ctx))
}

func (h *Hooks) keepAll(ctx context.Context) error {
	ids, err := (&projects{}).list(ctx, h.Studio, h.Projects)
	if err != nil {
		return err
	}
	there, err := h.Studio.Webhooks(ctx, 0)
	if err != nil {
		return err
	}
	known, err := h.recall(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := h.keep(ctx, id, there, known[id]); err != nil {
			return err
		}
	}
	for id := range known {
		if !slices.Contains(ids, id) {
			h.known = nil
			return h.Ledger.KeepWebhooks(ctx, ids)
		}
	}
	return nil
}

// recall is what the ledger knows of our webhooks. It changes by us alone, but for the
// time of a delivery, and by a new leader.
func (h *Hooks) recall(ctx context.Context) (map[int64]ledger.Webhook, error) {
	if h.known == nil {
		known, err := h.Ledger.Webhooks(ctx)
		if err != nil {
			return nil, err
		}
		h.known = known
	}
	return h.known, nil
}

// keep makes sure that a project has one webhook of ours, as it should be, and notes
// what came of it. Its error is one of our database, or says that Label Studio is away.
func (h *Hooks) keep(ctx context.Context, project int64, there []labelstudio.Webhook, known ledger.Webhook) error {
	ours := slices.DeleteFunc(slices.Clone(there), func(w labelstudio.Webhook) bool { return w.Project != project || !h.isOurs(w, known) })
	slices.SortFunc(ours, func(a, b labelstudio.Webhook) int { return cmp.Compare(a.ID, b.ID) })
	if i := slices.IndexFunc(ours, func(w labelstudio.Webhook) bool { return w.ID == known.ID }); i > 0 {
		ours[0], ours[i] = ours[i], ours[0]
	}
	id, mended, err := h.mend(ctx, project, ours)
	if err = asAway(ctx, h.Studio, err); ctx.Err() != nil || errors.Is(err, errAway) {
		return err
	}
	problem := ""
	if err != nil {
		problem = err.Error()
		h.failures.Log(ctx, h.Log, slog.LevelWarn, msgHook, fmt.Sprint(project), err, slog.Int64("project", project))
	} else {
		h.failures.Over(ctx, h.Log, msgHook, fmt.Sprint(project), slog.Int64("project", project))
	}
	if !mended && known.Project == project && known.ID == id && known.Problem == problem {
		return nil // a look that finds nothing new writes nothing
	}
	h.known = nil
	return h.Ledger.SetWebhook(ctx, project, id, problem, mended)
}

// mend makes the first of our webhooks of a project what it should be, or a new one
// where there is none, and removes the others. It returns its number.
func (h *Hooks) mend(ctx context.Context, project int64, ours []labelstudio.Webhook) (id int64, mended bool, err error) {
	want := h.wanted(project)
	if len(ours) == 0 {
		// What another Label Studio tells would be taken for people's word, one by one.
		if err := recognise(ctx, database{Ledger: h.Ledger}, h.Studio, project); err != nil {
			return 0, false, err
		}
		made, err := h.Studio.CreateWebhook(ctx, want)
		if err != nil {
			return 0, false, err
		}
		h.Metrics.WebhookRepairs.Inc()
		h.Log.InfoContext(ctx, "webhook made", "project", project, "webhook", made.ID, "url", want.URL)
		return made.ID, true, nil
	}
	first := ours[0]
	want.ID = first.ID
	want.Headers = h.headers(first.Headers)
	if wrong := differences(first, want); len(wrong) > 0 {
		if _, err := h.Studio.UpdateWebhook(ctx, want); err != nil {
			return first.ID, false, err
		}
		mended = true
		h.Metrics.WebhookRepairs.Inc()
		h.Log.InfoContext(ctx, "webhook mended", "project", project, "webhook", first.ID, "changed", strings.Join(wrong, ", "))
	}
	for _, twin := range ours[1:] { // each would cost every annotator one more delivery
		if err := h.Studio.DeleteWebhook(ctx, twin.ID); err != nil && !labelstudio.IsNotFound(err) {
			return first.ID, mended, err
		}
		h.Log.InfoContext(ctx, "webhook removed: there were two of ours", "project", project, "webhook", twin.ID)
	}
	return first.ID, mended, nil
}

func (h *Hooks) isOurs(w labelstudio.Webhook, known ledger.Webhook) bool {
	return w.URL == h.URL+HookPath || w.ID == known.ID && h.Secret() != "" && w.Headers["Authorization"] == "Bearer "+h.Secret()
}

func (h *Hooks) wanted(project int64) labelstudio.Webhook {
	return labelstudio.Webhook{Project: project, URL: h.URL + HookPath, SendPayload: true, IsActive: true,
		Headers: h.headers(nil), Actions: labelstudio.WebhookActions()}
}

// headers are those that are there, with our secret. A proxy may need the others.
func (h *Hooks) headers(there map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, there)
	if secret := h.Secret(); secret != "" {
		all["Authorization"] = "Bearer " + secret
	}
	return all
}

// differences names what is not as it should be. It shows no header.
func differences(got, want labelstudio.Webhook) (wrong []string) {
	for name, same := range map[string]bool{
		"url":     got.URL == want.URL,
		"secret":  got.Headers["Authorization"] == want.Headers["Authorization"],
		"actions": !got.SendForAllActions && slices.Equal(slices.Sorted(slices.Values(got.Actions)), slices.Sorted(slices.Values(want.Actions))),
		"payload": got.SendPayload,
		"active":  got.IsActive,
	} {
		if !same {
			wrong = append(wrong, name)
		}
	}
	slices.Sort(wrong)
	return wrong
}

// tell shows how the webhooks stand: log, metric, /readyz.
func (h *Hooks) tell(ctx context.Context) error {
	all, err := h.recall(ctx)
	if err != nil {
		return err
	}
	warnings := []string{}
	for _, project := range slices.Sorted(maps.Keys(all)) {
		w, of := all[project], fmt.Sprint(project)
		switch {
		case w.Problem != "":
			warnings = append(warnings, fmt.Sprintf("project %d has no working webhook: %s", project, w.Problem))
		case w.Silent():
			err := silence(w, h.URL)
			h.failures.Log(ctx, h.Log, slog.LevelWarn, msgQuiet, of, err, slog.Int64("project", project))
			warnings = append(warnings, fmt.Sprintf("project %d: %v", project, err))
			h.known = nil // a delivery may end it
		default:
			h.failures.Over(ctx, h.Log, msgQuiet, of, slog.Int64("project", project))
		}
	}
	h.warnings.Store(&warnings)
	h.Metrics.WebhooksBroken.Set(float64(len(warnings)))
	return nil
}
