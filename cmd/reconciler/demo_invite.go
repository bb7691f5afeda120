package main

import (
	"fmt"
	"net/url"
	"os/exec"
	"strings"
)

// invite prints how to reach everything, and what to try.
func (d *demo) invite() {
	d.addresses()
	d.requests()
	d.tries()
	d.screen.line("\nRunning until Ctrl-C, which stops and removes all of it.")
}

func (d *demo) addresses() {
	say := func(name, format string, args ...any) {
		d.screen.line("  %-*s %s", nameWidth, name, fmt.Sprintf(format, args...))
	}
	d.screen.line("\nWhere everything is")
	if d.studio.password == "" {
		say("Label Studio", "%s (stand-in: no pages)", d.studio.url)
	} else {
		say("Label Studio", "%s/projects/%d", d.studio.url, d.project)
		say("  login", "%s", d.studio.email)
		say("  password", "%s", d.studio.password)
	}
	say("  token", "%s", d.studio.token)
	say("Curation", "http://%s", local(Address(d.daemon.curationListener.Addr().String())))
	say("PostgreSQL", "%s", string(d.cfg.AristotleAdminURL))
	say("API", "http://%s", local(Address(d.daemon.apiListener.Addr().String())))
	say("Metrics", "http://%s/metrics", d.metricsAddr())
}

func (d *demo) metricsAddr() string { return local(Address(d.daemon.metricsListener.Addr().String())) }

// requests has a curl for each endpoint that there is.
func (d *demo) requests() {
	d.screen.line("\nAsk the daemon")
	d.screen.line("  curl http://%s/readyz", d.metricsAddr())
	d.screen.line("  curl http://%s/healthz", d.metricsAddr())
	d.screen.line("  curl -s http://%s/metrics | grep ^reconciler_", d.metricsAddr())
	d.screen.line(`  curl -H 'Authorization: Bearer %s' -d '{"action": "ANNOTATION_UPDATED"}' %s`, string(d.cfg.WebhookSecret), d.webhook())
	api, gold := local(Address(d.daemon.apiListener.Addr().String())), d.find("VICTORY", 0)
	d.screen.line(`  curl -H 'Content-Type: application/json' -d '{"conquest_id": "%s", "philosopher": "%s", "domain": "%s"}' http://%s/v1/sync/victory-to-gold-star`,
		gold.ID, gold.Philosopher, gold.Domain, api)
	d.screen.line("  curl 'http://%s/v1/icl/examples?%s'", api, url.Values{"philosopher": {gold.Philosopher}, "domain": {gold.Domain}}.Encode())
	d.screen.line("  curl http://%s/openapi.yaml", api)
	d.screen.line(`  curl -H 'Content-Type: application/json' -d '{"is_gold_star": true}' http://%s/api/tasks/%d/gold-star`,
		local(Address(d.daemon.curationListener.Addr().String())), d.tasks[gold.ID])
}

// starJSON is an annotation that gives the star, as the label configuration has it.
const starJSON = `{"result": [{"id": "verdict", "type": "choices", "from_name": "verdict", "to_name": "model_response", "value": {"choices": ["gold_star"]}}]}`

// tries has an edit for each side, and how to see what it does on the other.
func (d *demo) tries() {
	row, task := d.find("NEUTRAL", 0), d.find("PENDING", 1) // none of those that the flows used
	psql := func(sql string) {
		d.screen.line(`    psql '%s' -c "%s"`, string(d.cfg.AristotleAdminURL), strings.ReplaceAll(sql, `"`, `\"`))
	}
	curl := func(options, path string) {
		d.screen.line("    curl -H 'Authorization: Token %s' %s%s%s", d.studio.token, options, d.studio.url, path)
	}
	d.screen.line("\nTry it")
	d.screen.line("  Make “%s” a VICTORY; then see the star on its task:", row.Title)
	psql(fmt.Sprintf(`UPDATE "Conquest" SET result = 'VICTORY' WHERE id = '%s'`, row.ID))
	curl("", fmt.Sprintf("/api/tasks/%d/", d.tasks[row.ID]))
	d.screen.line("  Give “%s” the star; then see the result of the conquest:", task.Title)
	if d.studio.password != "" {
		d.screen.line("    open %s/projects/%d/data?task=%d, tick gold_star, Submit;", d.studio.url, d.project, d.tasks[task.ID])
		d.screen.line("    to take it away, untick it, Update. Without a browser:")
	}
	curl("-H 'Content-Type: application/json' -d '"+starJSON+"' ", fmt.Sprintf("/api/tasks/%d/annotations/", d.tasks[task.ID]))
	psql(fmt.Sprintf(`SELECT result, "evaluatedBy" FROM "Conquest" WHERE id = '%s'`, task.ID))
	if _, err := exec.LookPath("psql"); err != nil {
		d.screen.line("  There is no psql on this machine: any other PostgreSQL client will do.")
	}
}
