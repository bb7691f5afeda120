package curation

import (
	"context"
	"slices"

	"github.com/aristotle/reconciler/reconciler/story"
)

// historyLines is how much of a conquest's history its page tells.
const historyLines = 50

// history is how a conquest came to be as it is, newest first.
func (a *App) history(ctx context.Context, key string) (events []story.Event, cut bool, err error) {
	h, err := a.Ledger.History(ctx, key, historyLines)
	if err != nil {
		return nil, false, err
	}
	s := story.Tell(h)
	slices.Reverse(s.Story)
	return s.Story, s.Cut, nil
}
