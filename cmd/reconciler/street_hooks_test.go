package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/labelstudio"
)

// reachable makes daemons of the street listen where their webhooks are to lead, which must be known before they start.
func (s *street) reachable() {
	s.Helper()
	at := freeAddress(s.T)
	s.env = append(s.env, "RECONCILER_LISTEN="+at, "RECONCILER_PUBLIC_URL=http://"+at)
}

// freeAddress is one that nobody listens at, nor will before who asks for its port: systems give no port as low as that to whoever asks for any.
func freeAddress(t *testing.T) string {
	t.Helper()
	for {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 20_000+rand.IntN(10_000))); err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return l.Addr().String()
		}
	}
}

// TestOwnHooks: a daemon that knows its URL needs nobody to register its webhooks, and they bring what people do.
func TestOwnHooks(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	s.env = append(s.env, "RECONCILER_DIFF_SCHEDULE=@every 1h") // webhooks alone
	s.reachable()
	task := s.pair("starred", "NEUTRAL")
	p := s.start()
	s.wantContact(task)
	s.wantHooked()
	s.annotate(task, true)
	s.wantResult("starred", "VICTORY")
	s.pair("imported", "VICTORY")
	s.wantEqual()
	if _, body := p.get(t, "/readyz"); !strings.Contains(body, `"warnings":[]`) {
		t.Errorf("/readyz says %s", body)
	}
	if n := p.metric(t, "reconciler_webhook_repairs_total"); n != 2 {
		t.Errorf("%v webhooks were made, want one for each of two projects", n)
	}
}

// TestSwallowedDeliveries: where deliveries get lost on the way, which Label Studio neither notices nor tells, the daemon says so from what its passes find,
// and takes it back when they arrive.
func TestSwallowedDeliveries(t *testing.T) {
	t.Parallel()
	_, side := standIn(t)
	s := newStreet(t, sandbox.Schema{}, side)
	var swallow atomic.Bool
	var daemon atomic.Pointer[url.URL]
	way := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if at := daemon.Load(); at != nil && !swallow.Load() {
			httputil.NewSingleHostReverseProxy(at).ServeHTTP(w, r)
		}
	}))
	t.Cleanup(way.Close)
	s.env = append(s.env, "RECONCILER_PUBLIC_URL="+way.URL, careEvery+"=3s")
	swallow.Store(true)
	first, second := s.pair("first", "NEUTRAL"), s.pair("second", "NEUTRAL")
	p := s.start()
	daemon.Store(&url.URL{Scheme: "http", Host: p.listen})
	s.wantContact(first, second)
	s.wantHooked()
	says := func(broken bool) {
		t.Helper()
		s.eventually(func() string {
			_, ready := p.get(t, "/readyz")
			if n := p.metric(t, "reconciler_webhooks_broken"); (n == 1) != broken || strings.Contains(ready, "a pass found an annotation that none had told of") != broken {
				return fmt.Sprintf("%v webhooks are broken; /readyz says %s", n, ready)
			}
			return ""
		})
	}
	says(false)
	// What was annotated before a pass had seen the project shows nothing, so it may take another one.
	var last time.Time
	s.eventually(func() string {
		if time.Since(last) > 10*time.Second {
			s.annotate(first, true)
			last = time.Now()
		}
		if p.metric(t, "reconciler_webhooks_missed_total") == 0 {
			return "nothing was missed"
		}
		return ""
	})
	s.wantResult("first", "VICTORY")
	says(true)
	s.wantLog(p, "nothing ever arrived, and a pass found")
	public := func(c *Config) { c.PublicURL, c.WebhookSecret, c.Listen = BaseURL(way.URL), secret, Address(p.listen) }
	if e := s.doctor(public); !strings.Contains(e.text, "and it did not arrive") {
		t.Errorf("doctor says:\n%s", e.text)
	}

	swallow.Store(false)
	s.annotate(second, true)
	s.wantResult("second", "VICTORY")
	says(false)
	s.wantLog(p, "works again: Label Studio's webhooks do not arrive")
	if e := s.doctor(public); !strings.Contains(e.text, "a delivery arrived at "+way.URL) {
		t.Errorf("doctor says:\n%s", e.text)
	}
}

// wantHooked waits until each project has a webhook of the daemon's.
func (s *street) wantHooked() {
	s.Helper()
	s.zero(`SELECT count(*), 'no webhook yet in project ' || min(p) FROM unnest($1::bigint[]) AS p
		LEFT JOIN reconciler.webhook w ON w.project = p AND w.problem IS NULL WHERE w.project IS NULL`, s.projects)
}

// realHooks: the real Label Studio tells the webhooks that the daemon made of all six actions, and each wakes what it concerns.
func realHooks(s *street) {
	s.env = append(s.env, "RECONCILER_DIFF_SCHEDULE=@every 1h")
	s.reachable()
	s.conquest("told", "NEUTRAL")
	s.conquest("predicted", "NEUTRAL")
	p := s.start()
	s.wantLog(p, "msg=leading")
	s.wantHooked()

	told, predicted := s.task("told", s.projects[0], nil), s.task("predicted", s.projects[0], nil)
	s.wantContact(told, predicted)
	note := s.annotate(told, true)
	s.wantResult("told", "VICTORY")
	s.reannotate(note, false)
	s.wantResult("told", "NEUTRAL")
	s.reannotate(note, true)
	s.wantResult("told", "VICTORY")
	if err := s.studio.DeleteAnnotation(s.Context(), note); err != nil {
		s.Fatal(err)
	}
	s.wantResult("told", "NEUTRAL")

	// Many annotations in one delivery, under singular keys.
	s.asAnnotator("/api/predictions/", map[string]any{"task": predicted, "model_version": "m", "result": verdictRegions(s.T, true)})
	s.asAnnotator(fmt.Sprintf("/api/dm/actions/?id=predictions_to_annotations&project=%d", s.projects[0]),
		map[string]any{"selectedItems": map[string]any{"all": false, "included": []int64{predicted}}, "model_version": "m"})
	s.wantResult("predicted", "VICTORY")
	s.wantEqual()

	if err := s.studio.DeleteTask(s.Context(), told); err != nil {
		s.Fatal(err)
	}
	s.eventually(func() string {
		for _, action := range labelstudio.WebhookActions() {
			if p.metric(s.T, `reconciler_webhooks_total{action="`+action+`",outcome="accepted"}`) == 0 {
				return "no delivery of " + action
			}
		}
		return ""
	})
	s.zero(`SELECT count(*), 'nothing was noted to have arrived' FROM reconciler.webhook WHERE project = $1 AND delivered_at IS NULL`, s.projects[0])
	for _, outcome := range []string{"refused", "failed"} {
		for _, action := range labelstudio.WebhookActions() {
			if n := p.metric(s.T, `reconciler_webhooks_total{action="`+action+`",outcome="`+outcome+`"}`); n != 0 {
				s.Errorf("%v deliveries of %s were %s", n, action, outcome)
			}
		}
	}
}

// asAnnotator calls what the client of this program has no use for.
func (s *street) asAnnotator(path string, body any) {
	s.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		s.Fatal(err)
	}
	req, err := http.NewRequestWithContext(s.Context(), http.MethodPost, s.side.url+path, bytes.NewReader(text))
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Authorization", "Token "+s.side.annotatorsToken)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		var said bytes.Buffer
		_, _ = said.ReadFrom(resp.Body) // it only explains the failure
		s.Fatalf("%s: %s %s", path, resp.Status, &said)
	}
}
