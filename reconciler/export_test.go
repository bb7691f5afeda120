package reconciler

import "context"

// Care is one look at the webhooks, for tests that do not wait a minute.
func (h *Hooks) Care(ctx context.Context) error { return h.care(ctx) }
