package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// What Grafana gets is what the code says, and is a dashboard by Grafana's own schema.
func TestDashboard(t *testing.T) {
	t.Parallel()
	var made bytes.Buffer
	if err := write(&made); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile("../grafana/reconciler.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, made.Bytes()) {
		t.Error("deploy/grafana/reconciler.json is not what dashboard.go makes: (cd deploy/checks && go run . >../grafana/reconciler.json)")
	}
	runtime := cog.NewRuntime()
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	runtime.RegisterDataqueryVariant(prometheus.VariantConfig())
	var d dashboard.Dashboard
	if err := d.UnmarshalJSONStrict(kept); err != nil {
		t.Error(err)
	}
	if err := d.Validate(); err != nil {
		t.Error(err)
	}
}
