package main

import (
	"context"
	"errors"
	"log/slog"
)

// DemoCmd is a placeholder: the lead writes this file.
type DemoCmd struct{}

// Run is the demonstration.
func (c *DemoCmd) Run(ctx context.Context, cfg *Config, log *slog.Logger) error {
	return errors.New("demo is not written yet")
}
