package metrics

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Dashboards and alerts are written against these names: a change of the golden file is a change of the contract.
func TestNamesAndLabelsAreGolden(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	m := New(reg)
	BuildInfo(reg, "v1", "31700d8", "go1")
	stream().Register(reg)
	// One observation for those whose label values no list closes.
	m.LabelStudioRequests.With("get_task", CodeOf(200)).Inc()
	m.LabelStudioRequests.With("get_task", CodeOf(0)).Inc()
	m.LabelStudioDuration.With("get_task").Observe(0.12)
	m.HTTPRequests.With(ListenAPI, CodeOf(200)).Inc()
	m.ICLDuration.With(FormatOf("chatml"), CodeOf(200)).Observe(0.001)
	m.ICLDuration.With(FormatOf("x'y"), CodeOf(400)).Observe(0.001)

	want, err := os.ReadFile("testdata/series.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), series(t, reg)); diff != "" {
		t.Errorf("series differ from testdata/series.txt (-want +got):\n%s", diff)
	}
}

func stream() Stream {
	return Stream{Connected: func() bool { return true }, Reconnects: func() int { return 2 }, SlotsMade: func() int { return 1 }}
}

// A server that asks for native histograms gets them; everybody else gets the classic buckets of the same observations.
func TestHistogramsAreBothClassicAndNative(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := New(reg)
	m.SyncDuration.With(ToAristotle).Observe(.3)
	m.LabelStudioDuration.With("task").Observe(.3)
	m.ICLDuration.With(ChatML, "200").Observe(.3)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range families {
		for _, one := range f.GetMetric() {
			h := one.GetHistogram()
			if h == nil {
				continue
			}
			found++
			if h.Schema == nil || len(h.GetBucket()) == 0 {
				t.Errorf("%s is not both classic and native", f.GetName())
			}
		}
	}
	if found < 7 {
		t.Errorf("only %d histograms", found)
	}
}

// series lists what reg holds, a line each: type, name, labels.
func series(t *testing.T, reg prometheus.Gatherer) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s",
				strings.ToLower(f.GetType().String()), f.GetName(), strings.Join(labels, ","))))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

func TestLint(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := New(reg)
	m.LabelStudioRequests.With("get_task", "200").Inc()
	m.LabelStudioDuration.With("get_task").Observe(1)
	m.ICLDuration.With(ChatML, "200").Observe(1)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestWhatAStrangerSendsIsNoLabel(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Action{
		"ANNOTATION_CREATED": "ANNOTATION_CREATED", "annotation_created": OtherAction, "": OtherAction, "other": OtherAction,
	} {
		if got := ActionOf(name); got != want {
			t.Errorf("ActionOf(%q) = %q, want %q", name, got, want)
		}
	}
}
