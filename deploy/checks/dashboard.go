package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// newBoard is the dashboard, top to bottom in the order in which somebody who was woken up asks: is it well, does it carry,
// what waits, what differs, and which of the systems around it is to blame.
func newBoard() *dashboard.DashboardBuilder {
	b := dashboard.NewDashboardBuilder("Reconciler").
		Uid("reconciler").
		Description("VICTORY in Aristotle and the gold star in Label Studio, kept equal.").
		Tags([]string{"reconciler"}).
		Editable().Refresh("30s").Time("now-6h", "now").Timezone(common.TimeZoneBrowser).
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Annotations(nil).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Prometheus").Type("prometheus")).
		WithVariable(dashboard.NewQueryVariableBuilder("job").Label("Installation").
			Query(dashboard.StringOrMap{String: cog.ToPtr("label_values(reconciler_leader, job)")}).
			Datasource(source()).Refresh(dashboard.VariableRefreshOnTimeRangeChanged))
	for _, r := range rows() {
		b.WithRow(dashboard.NewRowBuilder(r.title))
		for _, p := range r.panels {
			b.WithPanel(p)
		}
	}
	return b
}

type row struct {
	title  string
	panels []cog.Builder[dashboard.Panel]
}

func rows() []row {
	type panels = []cog.Builder[dashboard.Panel]
	return []row{
		{"Is it well?", panels{
			number("Oldest change not carried", "s", 60, 300, `max(reconciler_oldest_unsynced_seconds{job="$job"})`),
			number("Failures, last hour", "percentunit", .02, .1,
				`sum(increase(reconciler_sync_total{job="$job", outcome="failure"}[1h])) / (sum(increase(reconciler_sync_total{job="$job"}[1h])) > 0)`),
			number("Stuck keys", "short", 1, 10, `max(reconciler_queue_keys{job="$job", state="stuck"})`),
			number("Held keys", "short", 1, 20, `max(reconciler_queue_keys{job="$job", state="held"})`),
			number("Brake", "short", 1, 1, `max(reconciler_diff_braked{job="$job"})`),
			number("Without a leader", "short", 1, 1, `sum(reconciler_leader{job="$job"}) == bool 0`),
			number("Label Studio away", "short", 1, 1, `1 - max(reconciler_label_studio_up{job="$job"})`),
			number("Database away", "short", 1, 1, `1 - max(reconciler_database_up{job="$job"})`),
		}},
		{"Sync", panels{
			graph("Turns that carried a change", "ops", "by where it went and how it ended",
				query("{{direction}} {{outcome}}", `sum by (direction, outcome) (rate(reconciler_sync_total{job="$job"}[$__rate_interval]))`)),
			graph("Failure ratio", "percentunit", "of all turns that ended",
				query("{{direction}}", `sum by (direction) (rate(reconciler_sync_total{job="$job", outcome="failure"}[$__rate_interval]))`+
					` / sum by (direction) (rate(reconciler_sync_total{job="$job"}[$__rate_interval]))`)),
			graph("Oldest change not carried", "s", "the objective is 60 s, 99 % of the time",
				query("{{direction}}", `max by (direction) (reconciler_oldest_unsynced_seconds{job="$job"})`)),
			graph("From the trigger to both sides equal", "s", "quantiles",
				quantile(".5", "sync_duration", "direction"), quantile(".95", "sync_duration", "direction"), quantile(".99", "sync_duration", "direction")),
		}},
		{"Queue", panels{
			graph("Keys by state", "short", "ready: next; waiting: for a time; stuck: failed eight times; held: for a person",
				query("{{state}}", `max by (state) (reconciler_queue_keys{job="$job"})`)),
			graph("Triggers", "ops", "what made keys dirty",
				query("{{source}}", `sum by (source) (rate(reconciler_triggers_total{job="$job"}[$__rate_interval]))`)),
		}},
		{"Drift and passes", panels{
			graph("Drift", "short", "keys that the last pass found different, by class",
				query("{{class}}", `max by (class) (reconciler_diff_drift_keys{job="$job"})`)),
			graph("Oldest drift", "s", "since when the oldest difference is known that no turn has settled",
				query("oldest", `max(reconciler_diff_oldest_drift_seconds{job="$job"})`)),
			graph("Since the last pass that ended well", "s", "",
				query("{{pass}}", `time() - max by (pass) (reconciler_diff_last_success_timestamp_seconds{job="$job"} > 0)`)),
			graph("Duration of a pass", "s", "mean",
				query("{{pass}}", `sum by (pass) (rate(reconciler_diff_duration_seconds_sum{job="$job"}[$__rate_interval]))`+
					` / sum by (pass) (rate(reconciler_diff_duration_seconds_count{job="$job"}[$__rate_interval]))`)),
			graph("Tasks that the full pass has read", "short", "of the one under way, or the last one",
				query("{{instance}}", `reconciler_diff_full_tasks_read{job="$job"}`)),
			graph("Brake", "short", "1: a pass would change too much and waits for a person",
				query("{{pass}}", `max by (pass) (reconciler_diff_braked{job="$job"})`)),
		}},
		{"Aristotle's PostgreSQL", panels{
			graph("WAL kept for our slot", "bytes", "what it keeps, what we have not confirmed, what may still come before the slot is lost",
				query("kept", `max(reconciler_slot_retained_wal_bytes{job="$job"})`),
				query("not confirmed", `max(reconciler_slot_lag_bytes{job="$job"})`),
				query("until it is lost", `min(reconciler_slot_safe_wal_bytes{job="$job"} < Inf)`),
				query("given up at", `min(reconciler_slot_wal_limit_bytes{job="$job"} < Inf)`)),
			graph("Stream", "short", "connected, and what went wrong in five minutes",
				query("connected", `max(reconciler_cdc_connected{job="$job"})`),
				query("reconnects", `sum(increase(reconciler_cdc_reconnects_total{job="$job"}[5m]))`),
				query("slots made", `sum(increase(reconciler_cdc_slots_made_total{job="$job"}[5m]))`)),
		}},
		{"Label Studio", panels{
			graph("Requests", "reqps", "by operation",
				query("{{operation}}", `sum by (operation) (rate(reconciler_label_studio_requests_total{job="$job"}[$__rate_interval]))`)),
			graph("Requests that failed", "reqps", "by status; none: without an answer",
				query("{{operation}} {{code}}", `sum by (operation, code) (rate(reconciler_label_studio_requests_total{job="$job", code!~"2.."}[$__rate_interval]))`)),
			graph("95 % of requests within", "s", "by operation", quantile(".95", "label_studio_request_duration", "operation")),
		}},
		{"Webhooks", panels{
			graph("Deliveries", "ops", "by action",
				query("{{action}}", `sum by (action) (rate(reconciler_webhooks_total{job="$job"}[$__rate_interval])) > 0`)),
			graph("What became of them", "ops", "",
				query("{{outcome}}", `sum by (outcome) (rate(reconciler_webhooks_total{job="$job"}[$__rate_interval]))`)),
			graph("Answered within", "s", "a person waits for Submit", quantile(".5", "webhook_duration", ""), quantile(".99", "webhook_duration", "")),
			graph("Care", "short", "projects without a working webhook; in five minutes: webhooks mended, changes that none had announced",
				query("broken", `max(reconciler_webhooks_broken{job="$job"})`),
				query("mended", `sum(increase(reconciler_webhook_repairs_total{job="$job"}[5m]))`),
				query("missed", `sum(increase(reconciler_webhooks_missed_total{job="$job"}[5m]))`)),
		}},
		{"Examples for in-context learning", panels{
			graph("Requests", "reqps", "by format and status",
				query("{{format}} {{code}}", `sum by (format, code) (rate(reconciler_icl_request_duration_seconds_count{job="$job"}[$__rate_interval]))`)),
			graph("Answered within", "s", "by format", quantile(".5", "icl_request_duration", "format"), quantile(".99", "icl_request_duration", "format")),
			graph("Examples in memory", "short", "served, and left out as they have no usable text",
				query("{{state}}", `max by (state) (reconciler_icl_examples{job="$job"})`)),
			graph("Memory of the examples", "bytes", "", query("{{instance}}", `reconciler_icl_index_bytes{job="$job"}`)),
			graph("From memory", "short", "1: examples are served from memory; 0: the database is asked",
				query("{{instance}}", `reconciler_icl_index_fresh{job="$job"}`)),
		}},
		{"Who calls", panels{
			graph("Requests", "reqps", "by server and status",
				query("{{listener}} {{code}}", `sum by (listener, code) (rate(reconciler_http_requests_total{job="$job"}[$__rate_interval]))`)),
			graph("Tokens file", "short", "0: it has a mistake, and the tokens from before count",
				query("{{instance}}", `reconciler_tokens_file_ok{job="$job"}`)),
		}},
		{"Process", panels{
			graph("CPU", "percentunit", "of one core", query("{{instance}}", `rate(process_cpu_seconds_total{job="$job"}[$__rate_interval])`)),
			graph("Memory", "bytes", "resident", query("{{instance}}", `process_resident_memory_bytes{job="$job"}`)),
			graph("Goroutines", "short", "", query("{{instance}}", `go_goroutines{job="$job"}`)),
			graph("Version", "short", "", query("{{instance}} {{version}} {{goversion}}", `reconciler_build_info{job="$job"}`)),
			graph("Panics", "short", "mistakes in the program that were caught",
				query("{{instance}}", `increase(reconciler_panics_total{job="$job"}[5m])`)),
		}},
	}
}

func source() common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}
}

func query(legend, expr string) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().Datasource(source()).Expr(expr).LegendFormat(legend)
}

// quantile is a quantile of one of our histograms of seconds, by a label or, with "", over all.
func quantile(q, name, by string) *prometheus.DataqueryBuilder {
	labels, legend := "le", q
	if by != "" {
		labels, legend = "le, "+by, "{{"+by+"}} "+q
	}
	return query(legend, "histogram_quantile("+q+", sum by ("+labels+") (rate(reconciler_"+name+`_seconds_bucket{job="$job"}[$__rate_interval])))`)
}

// graph is a third of a row.
func graph(title, unit, description string, queries ...*prometheus.DataqueryBuilder) *timeseries.PanelBuilder {
	p := timeseries.NewPanelBuilder().Title(title).Unit(unit).Description(description).Datasource(source()).
		Span(8).Height(8).Min(0).FillOpacity(10).ShowPoints(common.VisibilityModeNever)
	for i, q := range queries {
		p.WithTarget(q.RefId(string(rune('A' + i))))
	}
	return p
}

// number is one figure that turns yellow at warn and red at bad.
func number(title, unit string, warn, bad float64, expr string) *stat.PanelBuilder {
	return stat.NewPanelBuilder().Title(title).Unit(unit).Datasource(source()).
		Span(3).Height(4).NoValue("0").GraphMode(common.BigValueGraphModeNone).
		Thresholds(dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps([]dashboard.Threshold{
			{Color: "green"}, {Value: &warn, Color: "yellow"}, {Value: &bad, Color: "red"},
		})).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})).
		WithTarget(query(title, expr).Instant().RefId("A"))
}
