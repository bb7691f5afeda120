package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
)

// The times of the flows.
const (
	// flowLimit is when a flow, or the first sync, has not happened. It is no measure of speed: a busy machine must not fail
	// the demo, nor may a PATCH whose answer came too late, of which LABEL_STUDIO_DEADLINE is waited for.
	flowLimit = 3 * time.Minute
	// lookEvery is how often the other side is looked at, and so how exact a latency is.
	lookEvery = 2 * time.Millisecond
	// restEvery is the same where no time is measured.
	restEvery = 20 * time.Millisecond
)

// flow is one edit on one side and what it brings about on the other.
type flow struct {
	edit, effect string
	do           func(context.Context) error         // returns when the edit is committed, or answered
	seen         func(context.Context) (bool, error) // whether the effect is there
}

// firstSync waits until nothing is left to do, and then looks whether that is right.
func (d *demo) firstSync(ctx context.Context) error {
	return d.screen.during("First sync", func() (string, error) {
		wanted := d.having("VICTORY")
		err := until(ctx, restEvery, func(ctx context.Context) (bool, error) {
			read, err := d.daemon.ledger.Projects(ctx)
			if err != nil || read[d.project].FullAt == nil || !d.daemon.stream.Stats().Connected {
				return false, err
			}
			for _, c := range wanted {
				if gold, err := d.studio.starred(ctx, d.tasks[c.ID]); err != nil || !gold {
					return false, err
				}
			}
			return d.atRest(ctx)
		})
		if err != nil {
			return "", fmt.Errorf("first sync: %w", err)
		}
		return fmt.Sprintf("%d conquests were VICTORY already: their tasks have the star", len(wanted)), nil
	})
}

// atRest says whether no key is dirty.
func (d *demo) atRest(ctx context.Context) (bool, error) {
	s, err := d.daemon.ledger.Stats(ctx)
	return s.Ready+s.Waiting+s.Running+s.Stuck == 0, err
}

// showFlows shows both ways and both ways back, each on a conquest whose result before is worth seeing again.
func (d *demo) showFlows(ctx context.Context) error {
	pending, defeat := d.find("PENDING", 0), d.find("DEFEAT", 0)
	d.screen.line("\nBoth ways, and both ways back")
	d.screen.line("  %s (task %d)", pending.Title, d.tasks[pending.ID])
	for _, f := range d.fromAristotle(pending.ID) {
		if err := d.show(ctx, f); err != nil {
			return err
		}
	}
	d.screen.line("  %s (task %d)", defeat.Title, d.tasks[defeat.ID])
	for _, f := range d.fromStudio(defeat.ID) {
		if err := d.show(ctx, f); err != nil {
			return err
		}
	}
	d.screen.line("  Times are from the commit, or Label Studio's answer, until the other side shows it.")
	return nil
}

// show waits for rest before the edit, so that it measures this flow and not the end of another.
func (d *demo) show(ctx context.Context, f flow) error {
	if err := until(ctx, restEvery, d.atRest); err != nil {
		return fmt.Errorf("wait for the queue to be empty: %w", err)
	}
	if err := f.do(ctx); err != nil {
		return fmt.Errorf("%s: %w", f.edit, err)
	}
	start := time.Now()
	if err := until(ctx, lookEvery, f.seen); err != nil {
		d.flowLine(f, "FAILED")
		return hinted{fmt.Errorf("%s, but not on the other side: %s (%w)", f.edit, f.effect, err), "With --log-level=debug you see what the daemon does."}
	}
	d.flowLine(f, latency(time.Since(start)))
	return nil
}

func (d *demo) flowLine(f flow, took string) {
	d.screen.line("    %-22s -> %-*s %7s", f.edit, nameWidth+factWidth-27, f.effect, took)
}

// latency is for people: what is shorter than the looks are apart was there at the first look.
func latency(took time.Duration) string {
	if took < lookEvery {
		return "< 2 ms"
	}
	return fmt.Sprintf("%d ms", took.Milliseconds())
}

// until asks again and again, since neither side tells a stranger of its changes. It gives up after [flowLimit].
func until(ctx context.Context, every time.Duration, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, flowLimit, fmt.Errorf("not within %v", flowLimit))
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		ok, err := done(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil || ok:
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// fromAristotle are the flows of a person who changes a result there.
func (d *demo) fromAristotle(id string) []flow {
	set := func(result string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := d.app.Exec(ctx, `UPDATE "Conquest" SET result = $2, "updatedAt" = now() AT TIME ZONE 'UTC' WHERE id = $1`, id, result)
			return err
		}
	}
	star := func(want bool) func(context.Context) (bool, error) {
		return func(ctx context.Context) (bool, error) {
			gold, err := d.studio.starred(ctx, d.tasks[id])
			return gold == want, err
		}
	}
	return []flow{
		{"VICTORY in Aristotle", "gold star on the task", set("VICTORY"), star(true)},
		{"VICTORY is taken away", "no star on the task", set("NEUTRAL"), star(false)},
	}
}

// fromStudio are the flows of a person who submits an annotation there, and then takes the star out of it.
func (d *demo) fromStudio(id string) []flow {
	var annotation int64
	give := func(ctx context.Context) error {
		star, err := labelstudio.ChoicesRegion("verdict", "model_response", "gold_star")
		if err != nil {
			return err
		}
		a, err := d.client.CreateAnnotation(ctx, d.tasks[id], labelstudio.AnnotationEdit{Result: []labelstudio.Region{star}})
		if err == nil {
			annotation = a.ID
		}
		return err
	}
	take := func(ctx context.Context) error {
		_, err := d.client.UpdateAnnotation(ctx, annotation, labelstudio.AnnotationEdit{})
		return err
	}
	row := func(result string, gold bool) func(context.Context) (bool, error) {
		return func(ctx context.Context) (ok bool, err error) {
			err = d.app.QueryRow(ctx, `SELECT count(*) = 1 FROM "Conquest" c JOIN ml_analysis_rating r ON r.conquest_analysis_id = c.id
				WHERE c.id = $1 AND c.result = $2 AND c."useAsExample" = $3 AND c."evaluatedBy" = $4 AND r.rating = 5
				AND r.is_gold_star = $3 AND r.label_studio_task_id = $5 AND r.label_studio_annotation_id = $6`,
				id, result, gold, d.me, d.tasks[id], annotation).Scan(&ok)
			return ok, err
		}
	}
	return []flow{
		{"gold_star is submitted", "VICTORY + rating by " + d.me, give, row("VICTORY", true)},
		{"the star is taken away", "DEFEAT, as it was before", take, row("DEFEAT", false)},
	}
}

// metaStar reads the star from a task's meta.
func metaStar(t labelstudio.Task) (bool, error) {
	var meta struct {
		Gold bool `json:"gold_star"`
	}
	if len(t.Meta) == 0 {
		return false, nil
	}
	if err := json.Unmarshal(t.Meta, &meta); err != nil {
		return false, errors.Join(fmt.Errorf("read the meta of task %d", t.ID), err)
	}
	return meta.Gold, nil
}
