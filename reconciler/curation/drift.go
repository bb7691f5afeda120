package curation

import "context"

// drift is what the passes found different, by class.
type drift struct {
	Class string
	Keys  int
}

// plan is a pass that the brake stopped.
type plan struct{ Hash string }

func (a *App) readDrift(ctx context.Context, who Person) ([]drift, []plan, error) {
	return nil, nil, nil
}
