package curation

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/story"
)

const (
	// chartFor is how far back the charts go, chartStep what one bar of them covers.
	chartFor  = 30 * time.Minute
	chartStep = 30 * time.Second
	chartBars = int(chartFor / chartStep)
	// chartRows bounds what a chart reads of the audit: the newest records.
	chartRows = 50_000
)

// ratesSQL counts what turns carried, by direction and step. The audit has it for all
// replicas and over restarts, and is read from its newest record back.
const ratesSQL = `
	SELECT floor(extract(epoch FROM now() - at) / $1)::int AS ago, count(*) FILTER (WHERE wrote IS NOT NULL), count(*) FILTER (WHERE intent IS NOT NULL)
	FROM (SELECT at, wrote, intent FROM audit ORDER BY id DESC LIMIT $2) recent
	WHERE at > now() - $3::interval GROUP BY 1`

// statusPage is what the template is given.
type statusPage struct {
	Now                   time.Time
	ToAristotle, ToStudio chart
	Queue, Oldest         chart
	Stats                 ledger.Stats
	Slot                  ledger.Slot
	Studio                studioHealth
	Passes                []pass
	Braked                bool // a pass waits for a person
}

// studioHealth is what Label Studio answers when it is asked for the least.
type studioHealth struct {
	OK   bool
	Took time.Duration
	Who  string
	Is   string // in two words, where it is not well
	Says string // what is wrong
	URL  string
}

// pass is how far the passes have got in a project.
type pass struct {
	Project        int64
	Full, Newest   *time.Time
	Tasks, Starred int
}

func (a *App) showStatus(w http.ResponseWriter, r *http.Request) (err error) {
	ctx := r.Context()
	p := statusPage{Now: time.Now()}
	p.Studio = a.probe(ctx)
	if p.Stats, err = a.Ledger.Stats(ctx); err != nil {
		return err
	}
	if p.Slot, err = a.Ledger.Slot(ctx, a.Slot); err != nil {
		return err
	}
	if err := a.rates(ctx, &p); err != nil {
		return err
	}
	if p.Passes, err = a.passes(ctx); err != nil {
		return err
	}
	open, err := a.Ledger.OpenPasses(ctx)
	if err != nil {
		return err
	}
	p.Braked = !personOf(r).Limited() && slices.ContainsFunc(open, func(o ledger.Pass) bool { return o.State == ledger.PassBraked })
	queue, oldest := a.samples.taken()
	p.Queue = lineChart("Waiting in the queue", "keys", queue, p.Now)
	p.Oldest = lineChart("Oldest change not carried over", "seconds", oldest, p.Now)
	return a.render(w, r, http.StatusOK, "status", "Status", p)
}

func (a *App) rates(ctx context.Context, p *statusPage) error {
	rows, err := a.reader.Query(ctx, ratesSQL, chartStep.Seconds(), chartRows, chartFor)
	if err != nil {
		return fmt.Errorf("read the rates: %w", err)
	}
	row, task := make([]float64, chartBars), make([]float64, chartBars)
	var ago, wrote, intent int
	_, err = pgx.ForEachRow(rows, []any{&ago, &wrote, &intent}, func() error {
		if i := chartBars - 1 - ago; i >= 0 && i < chartBars {
			row[i], task[i] = float64(wrote), float64(intent)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the rates: %w", err)
	}
	p.ToAristotle = barChart("To Aristotle", row)
	p.ToStudio = barChart("To Label Studio", task)
	return nil
}

func (a *App) passes(ctx context.Context) ([]pass, error) {
	rows, err := a.reader.Query(ctx, `SELECT p.id, p.full_at, p.watermark, count(e.task_id), count(*) FILTER (WHERE e.s)
		FROM project p LEFT JOIN edge e ON e.project = p.id GROUP BY p.id ORDER BY p.id`)
	if err != nil {
		return nil, fmt.Errorf("read how far the passes have got: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p pass, err error) {
		return p, row.Scan(&p.Project, &p.Full, &p.Newest, &p.Tasks, &p.Starred)
	})
	if err != nil {
		return nil, fmt.Errorf("read how far the passes have got: %w", err)
	}
	return all, nil
}

// probe asks Label Studio for the least, so that the page tells of now, whichever
// replica it is.
func (a *App) probe(ctx context.Context) studioHealth {
	h := studioHealth{URL: a.StudioURL}
	start := time.Now()
	err := a.studio.ask(ctx, func(ctx context.Context) error {
		user, err := a.Studio.Whoami(ctx)
		h.Who = user.Email
		return err
	})
	h.Took = time.Since(start)
	switch {
	case err == nil:
		h.OK = true
	case labelstudio.IsAuth(err):
		h.Is, h.Says = "refuses us", "It refuses our token: make a new one in Label Studio and set LABEL_STUDIO_API_KEY."
	default:
		h.Is, h.Says = "is away", "It does not answer. What people do here is kept, and carried over when it does."
	}
	return h
}

// What the template asks of the status.

// Waits is how many keys are dirty.
func (p statusPage) Waits() int {
	return p.Stats.Ready + p.Stats.Waiting + p.Stats.Running + p.Stats.Stuck
}

// Behind tells whether something is not carried over yet.
func (p statusPage) Behind() bool { return p.Stats.OldestToStudio+p.Stats.OldestToAristotle > 0 }

// Age is the age of the oldest change that is not carried over.
func (p statusPage) Age() string { return age(max(p.Stats.OldestToStudio, p.Stats.OldestToAristotle)) }

// ToStudioAge and ToAristotleAge are the same for each direction.
func (p statusPage) ToStudioAge() string { return age(p.Stats.OldestToStudio) }

// ToAristotleAge is the other one.
func (p statusPage) ToAristotleAge() string { return age(p.Stats.OldestToAristotle) }

// LagSize is how far behind the stream is.
func (p statusPage) LagSize() string { return story.Size(p.Slot.Lag) }

// RetainedSize is what the server keeps for us.
func (p statusPage) RetainedSize() string { return story.Size(p.Slot.Retained) }

func age(seconds float64) string {
	if seconds <= 0 {
		return "nothing"
	}
	switch s := int(seconds); {
	case s < 60:
		return fmt.Sprintf("%.1f s", seconds)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	default:
		return fmt.Sprintf("%s h %d min", number(s/3600), s/60%60)
	}
}
