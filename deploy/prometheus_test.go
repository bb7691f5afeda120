package deploy

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"

	"github.com/aristotle/reconciler/metrics"
)

// registry is everything that the daemon serves.
func registry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	m := metrics.New(reg)
	metrics.BuildInfo(reg, "v1", "31700d8", "go1")
	count := func() int { return 1 }
	metrics.Stream{Connected: func() bool { return true }, Reconnects: count, SlotsMade: count}.Register(reg)
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.LabelStudioRequests.With("task", "200").Inc()
	m.LabelStudioDuration.With("task").Observe(1)
	m.ICLDuration.With(metrics.ChatML, "200").Observe(1)
	m.HTTPRequests.With(metrics.ListenAPI, "200").Inc()
	return reg
}

func TestMetricsAreWellFormed(t *testing.T) {
	t.Parallel()
	scraped := httptest.NewRecorder()
	promhttp.HandlerFor(registry(), promhttp.HandlerOpts{}).ServeHTTP(scraped, httptest.NewRequest("GET", "/metrics", nil))
	promtool(t, scraped.Body.String(), "check", "metrics")
}

// families is the same by name.
func families(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	gathered, err := registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*dto.MetricFamily{}
	for _, f := range gathered {
		all[f.GetName()] = f
	}
	return all
}

// rules is a file of alerts.
type rules struct {
	Groups []struct {
		Rules []struct {
			Record, Alert, Expr string
			Labels, Annotations map[string]string
		}
	}
}

func readRules(t *testing.T) rules {
	t.Helper()
	var r rules
	if err := yaml.Unmarshal([]byte(read(t, "prometheus/alerts.yml")), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAlerts(t *testing.T) {
	t.Parallel()
	promtool(t, "", "check", "config", "prometheus/prometheus.yml")
	cases, err := filepath.Glob("prometheus/*_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, "", append([]string{"test", "rules"}, cases...)...)

	fires, quiet := map[string]bool{}, map[string]bool{}
	named := regexp.MustCompile(`alertname="(\w+)", alertstate="firing"`)
	for _, path := range cases {
		var file struct {
			Tests []struct {
				Checks []struct {
					Expr    string
					Samples []any `yaml:"exp_samples"`
				} `yaml:"promql_expr_test"`
			}
		}
		if err := yaml.Unmarshal([]byte(read(t, path)), &file); err != nil {
			t.Fatal(err)
		}
		for _, test := range file.Tests {
			for _, c := range test.Checks {
				if name := named.FindStringSubmatch(c.Expr); name != nil {
					fires[name[1]] = fires[name[1]] || len(c.Samples) > 0
					quiet[name[1]] = quiet[name[1]] || len(c.Samples) == 0
				}
			}
		}
	}
	headings := anchors(read(t, "../README.md"))
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			if !fires[r.Alert] || !quiet[r.Alert] {
				t.Errorf("%s has no test in which it fires, or none in which it does not", r.Alert)
			}
			if s := r.Labels["severity"]; s != "page" && s != "ticket" {
				t.Errorf("%s has severity %q", r.Alert, s)
			}
			place, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "#")
			if place != "https://github.com/aristotle/reconciler/blob/main/README.md" || !slices.Contains(headings, anchor) {
				t.Errorf("%s: %q is no section of README.md", r.Alert, r.Annotations["runbook_url"])
			}
			if r.Annotations["summary"] == "" {
				t.Errorf("%s does not say what is wrong", r.Alert)
			}
		}
	}
}

// anchors are the headings of a Markdown text, as links to them are written.
func anchors(markdown string) []string {
	var all []string
	odd := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for line := range strings.Lines(markdown) {
		if heading, ok := strings.CutPrefix(line, "##"); ok {
			text := odd.ReplaceAllString(strings.ToLower(strings.TrimSpace(strings.TrimLeft(heading, "#"))), "")
			all = append(all, strings.ReplaceAll(text, " ", "-"))
		}
	}
	return all
}

// expressions is every query of the dashboard, as it would be with its variables filled in.
func expressions(t *testing.T) []string {
	t.Helper()
	var board struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "grafana/reconciler.json")), &board); err != nil {
		t.Fatal(err)
	}
	var all []string
	fill := strings.NewReplacer("$job", "reconciler", "$__rate_interval", "1m")
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			all = append(all, fill.Replace(target.Expr))
		}
	}
	if len(all) < 20 {
		t.Fatalf("only %d queries in the dashboard", len(all))
	}
	return all
}

func TestDashboardQueriesParse(t *testing.T) {
	t.Parallel()
	var file strings.Builder
	file.WriteString("groups: [{name: dashboard, rules: [")
	for i, expr := range expressions(t) {
		fmt.Fprintf(&file, "{record: 'q%d', expr: %q},", i, expr)
	}
	file.WriteString("]}]\n")
	path := filepath.Join(t.TempDir(), "queries.yml")
	if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "check", "rules", path)
}

// What is drawn and what alarms is what the program serves: names, labels and their values.
func TestEveryNameExists(t *testing.T) {
	t.Parallel()
	served := families(t)
	queries := expressions(t)
	recorded := map[string]bool{"up": true}
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			queries = append(queries, r.Expr)
			recorded[r.Record] = true
		}
	}
	selector := regexp.MustCompile(`\b(reconciler[\w:]*|process_\w+|go_\w+|up)\b(?:\{([^}]*)\})?`)
	found := 0
	for _, q := range queries {
		for _, m := range selector.FindAllStringSubmatch(strings.ReplaceAll(q, `"reconciler`, `"`), -1) {
			found++
			f := served[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(m[1], "")]
			if f == nil {
				f = served[m[1]]
			}
			switch {
			case recorded[m[1]]:
			case f == nil:
				t.Errorf("%s is served by nobody: %s", m[1], q)
			default:
				checkMatchers(t, f, m[2], q)
			}
		}
	}
	if found < 60 {
		t.Errorf("found only %d names", found)
	}
}

// What is measured is drawn: a metric that nobody looks at need not be kept.
func TestEveryMetricIsOnTheDashboard(t *testing.T) {
	t.Parallel()
	drawn := strings.Join(expressions(t), "\n")
	for name := range families(t) {
		if strings.HasPrefix(name, "reconciler_") && !regexp.MustCompile(`\b`+name+`(_bucket|_sum|_count)?\b`).MatchString(drawn) {
			t.Errorf("%s is not on the dashboard", name)
		}
	}
}

func checkMatchers(t *testing.T, f *dto.MetricFamily, matchers, query string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"`).FindAllStringSubmatch(matchers, -1) {
		name, values := m[1], strings.Split(m[3], "|")
		if name == "job" || name == "instance" { // the scraper's
			continue
		}
		for _, value := range values {
			if !slices.ContainsFunc(f.GetMetric(), func(one *dto.Metric) bool {
				return slices.ContainsFunc(one.GetLabel(), func(l *dto.LabelPair) bool {
					return l.GetName() == name && (l.GetValue() == value || strings.Contains(m[2], "~") && regexp.MustCompile("^(?:"+value+")$").MatchString(l.GetValue()))
				})
			}) {
				t.Errorf("%s has no series with %s %q: %s", f.GetName(), name, value, query)
			}
		}
	}
}
