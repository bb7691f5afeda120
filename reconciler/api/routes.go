// Package api is what programs call on port 4080. A handler has nothing to run a
// turn with: it makes keys dirty and answers.
package api

import (
	"context"
	"log/slog"
	"net/http"

	"golang.org/x/sync/semaphore"

	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/auth"
	"github.com/aristotle/reconciler/reconciler/icl"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/logs"
	"github.com/aristotle/reconciler/reconciler/web"
)

// API answers on port 4080. All fields but Secret and Projects are required.
type API struct {
	Ledger   *ledger.Ledger
	Metrics  *metrics.Metrics
	Log      *slog.Logger
	Guard    *auth.Guard     // who may call what; not the webhook, which has Secret
	Secret   *auth.Secret    // RECONCILER_WEBHOOK_SECRET, nil for none
	Initial  string          // RECONCILER_INITIAL
	Projects ledger.Projects // LABEL_STUDIO_PROJECTS, empty for all
	// Examples and Version are those of [icl.Index].
	Examples func(context.Context, icl.Query) (icl.Page, error)
	Version  func(icl.Query) uint64

	answers iclAnswers
	sending *semaphore.Weighted // bytes of large answers that are in memory for their callers alone

	bodies   *semaphore.Weighted // bytes of large deliveries that may be in memory
	links    gather
	seen     sightings
	failures logs.Failures
}

// Server returns the server, ready to serve. It is called once.
func (a *API) Server() *http.Server {
	a.bodies, a.sending = semaphore.NewWeighted(maxBodies), semaphore.NewWeighted(maxSending)
	a.links.commit = a.commitLinks
	return web.NewServer(web.Options{Listener: metrics.ListenAPI, Metrics: a.Metrics, Log: a.Log}, a.routes())
}

// routes are all that there is on port 4080; openapi.yaml in package web describes them.
func (a *API) routes() *web.Mux {
	m := &web.Mux{}
	m.Handle("POST /v1/webhooks/label-studio", http.HandlerFunc(a.webhook))
	m.Handle("POST /v1/sync/victory-to-gold-star", a.Guard.Require(auth.Sync, http.HandlerFunc(a.sync)))
	m.Handle("GET /v1/icl/examples", a.examples())
	m.Handle("GET /openapi.yaml", http.HandlerFunc(web.ServeOpenAPI))
	return m
}
