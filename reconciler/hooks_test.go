package reconciler_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/reconciler"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

const hookURL = "http://127.0.0.1:1"

// logged keeps what is logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) times(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

func (r *rig) hooks(log *logged) *reconciler.Hooks {
	return &reconciler.Hooks{Ledger: r.ledger, Studio: r.client, Metrics: r.metrics, Log: slog.New(slog.NewTextHandler(log, nil)), URL: hookURL, Secret: func() string { return "our-secret" }}
}

func (r *rig) care(h *reconciler.Hooks) {
	r.Helper()
	if err := h.Care(r.Context()); err != nil {
		r.Fatal(err)
	}
}

// registered returns the webhooks of a project without their numbers, which of ours is first.
func (r *rig) registered(project int64) []labelstudio.Webhook {
	r.Helper()
	all, err := r.client.Webhooks(r.Context(), project)
	if err != nil {
		r.Fatal(err)
	}
	for i := range all {
		slices.Sort(all[i].Actions)
	}
	slices.SortFunc(all, func(a, b labelstudio.Webhook) int { return int(a.ID - b.ID) })
	return all
}

func (r *rig) hook(w labelstudio.Webhook) labelstudio.Webhook {
	r.Helper()
	made, err := r.client.CreateWebhook(r.Context(), w)
	if err != nil {
		r.Fatal(err)
	}
	return made
}

// TestNoHooksElsewhere: another Label Studio gets no webhook of ours, and that is told. The right one has its own.
func TestNoHooksElsewhere(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, studio.Delays{})
	r.contacted()
	right := r.client
	other := r.elsewhere(0).AddProject("of a number that we never knew")
	h := r.hooks(&logged{})
	r.care(h)
	for _, project := range []int64{r.project, other} {
		if got := r.registered(project); len(got) > 0 {
			t.Errorf("project %d has %+v", project, got)
		}
	}
	if got := strings.Join(h.Warnings(), ", "); strings.Count(got, "another Label Studio") != 2 {
		t.Errorf("it tells %q", got)
	}
	r.client, h.Studio = right, right
	r.care(h)
	if got := r.registered(r.project); len(got) != 1 {
		t.Errorf("the right one has %+v", got)
	}
	if got := h.Warnings(); len(got) > 0 {
		t.Errorf("it tells %q", got)
	}
}

// TestHooks: whatever becomes of our webhooks, there is one a project as it should be, and those of others are left alone.
func TestHooks(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, studio.Delays{})
	log := &logged{}
	h := r.hooks(log)
	others := r.hook(labelstudio.Webhook{Project: r.project, URL: "http://127.0.0.1:2" + reconciler.HookPath, Headers: map[string]string{"Authorization": "Bearer another"}, IsActive: false, Actions: []string{}})
	want := labelstudio.Webhook{Project: r.project, URL: hookURL + reconciler.HookPath, SendPayload: true, IsActive: true,
		Headers: map[string]string{"Authorization": "Bearer our-secret"}, Actions: []string{"ANNOTATIONS_CREATED", "ANNOTATIONS_DELETED",
			"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "TASKS_CREATED", "TASKS_DELETED"}}
	check := func(what string) {
		t.Helper()
		r.care(h)
		before := testutil.ToFloat64(r.metrics.WebhookRepairs)
		r.care(h) // at rest it changes nothing
		got := r.registered(r.project)
		if diff := cmp.Diff([]labelstudio.Webhook{others, want}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		if n := testutil.ToFloat64(r.metrics.WebhookRepairs) - before; n != 0 {
			t.Errorf("%s: mended again, %v times", what, n)
		}
		if n := testutil.ToFloat64(r.metrics.WebhooksBroken); n != 0 || len(h.Warnings()) != 0 {
			t.Errorf("%s: %v are broken: %v", what, n, h.Warnings())
		}
	}
	r.care(h)
	want.ID = r.registered(r.project)[1].ID
	check("made")
	for what, damage := range map[string]func(*labelstudio.Webhook){
		"switched off":      func(w *labelstudio.Webhook) { w.IsActive = false },
		"deaf":              func(w *labelstudio.Webhook) { w.Actions = []string{} },
		"another action":    func(w *labelstudio.Webhook) { w.Actions = append(w.Actions[1:], "PROJECT_UPDATED") },
		"all actions":       func(w *labelstudio.Webhook) { w.SendForAllActions = true },
		"without payload":   func(w *labelstudio.Webhook) { w.SendPayload = false },
		"another secret":    func(w *labelstudio.Webhook) { w.Headers = map[string]string{"Authorization": "Bearer old"} },
		"no secret":         func(w *labelstudio.Webhook) { w.Headers = map[string]string{} },
		"sent to elsewhere": func(w *labelstudio.Webhook) { w.URL = "http://127.0.0.1:3/elsewhere" },
	} {
		w := want
		w.Actions = slices.Clone(want.Actions)
		damage(&w)
		if _, err := r.client.UpdateWebhook(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		check(what)
	}
	r.hook(want)
	r.hook(labelstudio.Webhook{Project: r.project, URL: want.URL, IsActive: true, SendForAllActions: true})
	check("made twice by somebody else")
	if log.times("our-secret") != 0 {
		t.Error("the log shows the secret")
	}

	second := r.studio.AddProject("made later")
	check("another project")
	got := r.registered(second)
	want.Project = second
	if len(got) == 1 {
		want.ID = got[0].ID
	}
	if diff := cmp.Diff([]labelstudio.Webhook{want}, got); diff != "" {
		t.Errorf("in a new project (-want +got):\n%s", diff)
	}
	r.studio.RemoveProject(second)
	r.care(h)
	if !r.ask(`SELECT count(*) = 1 FROM reconciler.webhook`) {
		t.Error("a project that is gone is remembered")
	}

	// Our memory is lost: what has our URL is ours all the same.
	r.exec(`TRUNCATE reconciler.webhook`)
	want.Project, want.ID = r.project, r.registered(r.project)[1].ID
	check("with nothing remembered")
}

// TestHookRefused: what Label Studio refuses is told once, keeps no other project from its webhook, and is mended when it can be. It
// answers 500 where it cannot find out our host's address.
func TestHookRefused(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusForbidden, http.StatusInternalServerError} {
		r := newRig(t, 1, studio.Delays{})
		log := &logged{}
		h := r.hooks(log)
		other := r.studio.AddProject("not refused")
		refused := fmt.Sprintf(`"project":%d`, r.project)
		r.studio.Faults(func(q *http.Request) studio.Fault {
			if q.Method == http.MethodPost && strings.HasPrefix(q.URL.Path, "/api/webhooks/") {
				body, err := io.ReadAll(q.Body)
				q.Body = io.NopCloser(bytes.NewReader(body))
				if err != nil || bytes.Contains(body, []byte(refused)) {
					return studio.Fault{Kind: studio.FaultStatus, Status: status}
				}
			}
			return studio.Fault{}
		})
		for range 3 {
			r.care(h)
		}
		if log.times("level=WARN") != 1 || testutil.ToFloat64(r.metrics.WebhooksBroken) != 1 || len(h.Warnings()) != 1 {
			t.Errorf("%d: %v are broken, %v:\n%s", status, testutil.ToFloat64(r.metrics.WebhooksBroken), h.Warnings(), &log.text)
		}
		if refused, made := r.registered(r.project), r.registered(other); len(refused) != 0 || len(made) != 1 {
			t.Errorf("%d: %d where it is refused, %d where not", status, len(refused), len(made))
		}
		r.studio.Faults(nil)
		r.care(h)
		if log.times("works again") != 1 || testutil.ToFloat64(r.metrics.WebhooksBroken) != 0 || len(r.registered(r.project)) != 1 {
			t.Errorf("%d: %v are broken after it was allowed:\n%s", status, h.Warnings(), &log.text)
		}
	}
}

// TestHooksSilent: an annotation that a pass found and no delivery told of shows that deliveries do not arrive, until one does. What nobody announces, or
// nobody was there to be told, shows nothing.
func TestHooksSilent(t *testing.T) {
	t.Parallel()
	r := newRig(t, 8, studio.Delays{})
	log := &logged{}
	h := r.hooks(log)
	p := r.passes(func(p *reconciler.Passes) { p.Hooks = h })
	r.settled()
	person := r.studio.AddUser("person@example.com")
	submit := func(task int64, region labelstudio.Region) int64 {
		t.Helper()
		id, err := r.studio.Annotate(person, task, labelstudio.AnnotationEdit{Result: []labelstudio.Region{region}})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	annotate := func(task int64) { // by a text, which is no star
		t.Helper()
		submit(task, labelstudio.Region{Type: "textarea", FromName: "response", ToName: "prompt", Value: json.RawMessage(`{"text": ["better"]}`)})
	}
	told := func(i int) {
		t.Helper()
		if _, err := r.ledger.Linked(t.Context(), []ledger.Link{{Task: r.tasks[i], Project: r.project, Key: fmt.Sprint("c", i)}}, "union", ledger.FromWebhook); err != nil {
			t.Fatal(err)
		}
	}
	pass := func() {
		t.Helper()
		if err := p.Changes(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	silent := func(what string, want bool, missed float64) {
		t.Helper()
		pass()
		h.PassGrace()
		r.care(h)
		if got := len(h.Warnings()) == 1; got != want || testutil.ToFloat64(r.metrics.WebhooksMissed) != missed {
			t.Errorf("%s: %v, %v missed", what, h.Warnings(), testutil.ToFloat64(r.metrics.WebhooksMissed))
		}
	}
	annotate(r.tasks[0])
	pass()
	annotate(r.tasks[1])
	silent("what was done before there was a webhook", false, 0)
	silent("nothing", false, 0)
	r.exec(`UPDATE reconciler.webhook SET since = since - interval '1 hour'`) // ages are no more exact than the way to the database
	annotate(r.tasks[2])
	pass()
	told(2) // after the pass has found it
	annotate(r.tasks[3])
	told(3) // before
	r.exec(`UPDATE reconciler.queue SET done_gen = want_gen`)
	if _, err := r.ledger.Enqueue(t.Context(), []string{"c3"}, ledger.FromAPI); err != nil { // what else made it dirty takes nothing back
		t.Fatal(err)
	}
	r.studio.SetMeta(r.tasks[4], map[string]any{"gold_star": true})
	annotate(r.studio.AddTask(r.project, map[string]any{"prompt": "p"}, nil))
	star, err := labelstudio.ChoicesRegion("verdict", "model_response", "gold_star")
	if err != nil {
		t.Fatal(err)
	}
	starred := submit(r.tasks[6], star)
	told(6)
	silent("what was told, or concerns nobody", false, 0)
	if err := r.studio.DeleteAnnotation(starred); err != nil {
		t.Fatal(err)
	}
	silent("a star that is gone, and may have been moved", false, 0)
	r.studio.Faults(func(*http.Request) studio.Fault { return studio.Fault{Kind: studio.FaultCut} })
	if err := p.Changes(t.Context()); err == nil {
		t.Error("a pass over a Label Studio that is away did not fail")
	}
	r.studio.Faults(nil)
	annotate(r.tasks[5])
	silent("what was done while passes failed", false, 0)
	annotate(r.tasks[2]) // of which one told before
	r.exec(`UPDATE reconciler.queue SET told_at = told_at - interval '1 hour' WHERE key = 'c2'`)
	pass()
	r.care(h)
	if len(h.Warnings()) != 0 {
		t.Errorf("at once it says %v", h.Warnings())
	}
	annotate(r.tasks[7])
	told(7) // another's delivery tells nothing of this one
	pass()
	h.PassGrace()
	r.exec(`ALTER TABLE reconciler.webhook RENAME TO away`)
	if err := h.Care(t.Context()); err == nil {
		t.Error("a count that could not be stored did not fail")
	}
	r.exec(`ALTER TABLE reconciler.away RENAME TO webhook`)
	silent("what was not told", true, 1)
	silent("the same as before", true, 1)
	if log.times("level=WARN") != 1 || !strings.Contains(h.Warnings()[0], "SSRF_PROTECTION_ENABLED=false") {
		t.Errorf("it says:\n%s\n%s", h.Warnings(), &log.text)
	}
	if err := r.ledger.Delivered(t.Context(), r.project); err != nil {
		t.Fatal(err)
	}
	silent("something arrived", false, 1)
	if log.times("works again") != 1 {
		t.Errorf("it says:\n%s", &log.text)
	}
	r.studio.Faults(func(q *http.Request) studio.Fault {
		if strings.HasPrefix(q.URL.Path, "/api/webhooks/") {
			return studio.Fault{Kind: studio.FaultStatus, Status: http.StatusForbidden}
		}
		return studio.Fault{}
	})
	annotate(r.tasks[6])
	pass()
	h.PassGrace()
	r.exec(`UPDATE reconciler.webhook SET delivered_at = now() - interval '1 hour'`)
	if err := h.Care(t.Context()); err == nil || len(h.Warnings()) != 1 || testutil.ToFloat64(r.metrics.WebhooksMissed) != 2 {
		t.Errorf("where webhooks cannot be looked at: %v, %v, %v missed", err, h.Warnings(), testutil.ToFloat64(r.metrics.WebhooksMissed))
	}
}
