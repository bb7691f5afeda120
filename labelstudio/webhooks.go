package labelstudio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// The actions that announce a change of tasks and annotations. There is none for a change of a task's data or meta.
const (
	AnnotationCreated  = "ANNOTATION_CREATED"
	AnnotationsCreated = "ANNOTATIONS_CREATED"
	AnnotationUpdated  = "ANNOTATION_UPDATED"
	AnnotationsDeleted = "ANNOTATIONS_DELETED"
	TasksCreated       = "TASKS_CREATED"
	TasksDeleted       = "TASKS_DELETED"
)

// ProjectUpdated announces that a project was saved.
const ProjectUpdated = "PROJECT_UPDATED"

// Webhook is one registration: where Label Studio sends what happens in a project.
type Webhook struct {
	ID                int64             `json:"id,omitempty"`
	Project           int64             `json:"project"` // cannot be changed
	URL               string            `json:"url"`
	SendPayload       bool              `json:"send_payload"`         // false: the body is the action and nothing else
	SendForAllActions bool              `json:"send_for_all_actions"` // true: Actions does not matter
	Headers           map[string]string `json:"headers"`              // sent with each delivery; every member can read them
	IsActive          bool              `json:"is_active"`
	Actions           []string          `json:"actions"`
}

// Webhooks returns the registrations of a project, or with project 0 those of all projects, in any order.
func (c *Client) Webhooks(ctx context.Context, project int64) ([]Webhook, error) {
	var all []Webhook
	r := call{op: OpWebhooks, method: http.MethodGet, path: "/api/webhooks/"}
	if project != 0 {
		r.query = url.Values{"project": {strconv.FormatInt(project, 10)}}
	}
	if err := c.doJSON(ctx, r, &all); err != nil {
		if project == 0 {
			return nil, fmt.Errorf("list all webhooks: %w", err)
		}
		return nil, fmt.Errorf("list webhooks of project %d: %w", project, err)
	}
	return all, nil
}

// WebhookActions are the actions that announce a change of tasks and annotations, in order.
func WebhookActions() []string {
	return []string{AnnotationsCreated, AnnotationsDeleted, AnnotationCreated, AnnotationUpdated, TasksCreated, TasksDeleted}
}

// CreateWebhook registers a webhook. Label Studio takes the same URL twice and then sends twice: look first.
func (c *Client) CreateWebhook(ctx context.Context, w Webhook) (Webhook, error) {
	out, err := c.sendWebhook(ctx, OpWebhookCreate, http.MethodPost, "/api/webhooks/", w)
	if err != nil {
		return Webhook{}, fmt.Errorf("create a webhook of project %d: %w", w.Project, err)
	}
	return out, nil
}

// UpdateWebhook makes the webhook with w.ID what w says, all of it but the project. The actions are always sent: Label Studio takes their absence
// for "none", and the webhook would be deaf.
func (c *Client) UpdateWebhook(ctx context.Context, w Webhook) (Webhook, error) {
	out, err := c.sendWebhook(ctx, OpWebhookUpdate, http.MethodPatch, webhookPath(w.ID), w)
	if err != nil {
		return Webhook{}, fmt.Errorf("update webhook %d: %w", w.ID, err)
	}
	return out, nil
}

// DeleteWebhook removes a registration.
func (c *Client) DeleteWebhook(ctx context.Context, id int64) error {
	_, err := c.do(ctx, call{op: OpWebhookDelete, method: http.MethodDelete, path: webhookPath(id), maxBody: maxSmallBody})
	if err != nil {
		return fmt.Errorf("delete webhook %d: %w", id, err)
	}
	return nil
}

func (c *Client) sendWebhook(ctx context.Context, op Operation, method, path string, w Webhook) (Webhook, error) {
	if err := CheckWebhookURL(w.URL); err != nil {
		return Webhook{}, notSent(op, err)
	}
	w.ID = 0
	if w.Actions == nil {
		w.Actions = []string{}
	}
	if w.Headers == nil {
		w.Headers = map[string]string{}
	}
	body, err := json.Marshal(w)
	if err != nil {
		return Webhook{}, notSent(op, err)
	}
	var out Webhook
	err = c.doJSON(ctx, call{op: op, method: method, path: path, body: body}, &out)
	return out, err
}

func webhookPath(id int64) string { return "/api/webhooks/" + strconv.FormatInt(id, 10) + "/" }

// CheckWebhookURL says why Label Studio would refuse a URL, or, worse, accept it and never send there.
func CheckWebhookURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return errors.New("a webhook's URL must begin with http:// or https:// and a host")
	}
	host := u.Hostname()
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Is6() {
			return fmt.Errorf("the IPv6 address [%s] is accepted by Label Studio and never sent to: use a name or an IPv4 address", host)
		}
		return nil
	}
	if host != "localhost" && !strings.Contains(strings.TrimSuffix(host, "."), ".") {
		return fmt.Errorf("the host %q has one label, which Label Studio refuses: use a name with a dot or an IPv4 address", host)
	}
	if strings.Contains(host, "_") {
		return fmt.Errorf("the host %q has an underscore, which Label Studio refuses: use another name or an IPv4 address", host)
	}
	return nil
}
