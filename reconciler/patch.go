package reconciler

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/star"
)

// writes are the PATCHes of one key, each with an intent that S3 has committed.
type writes struct {
	claim   ledger.Claim
	end     ledger.End // how the turn ends if they all work
	before  time.Time  // before S3
	patches []patch
}

// patch is one PATCH.
type patch struct {
	task    sight
	value   bool
	attempt string
	notes   *string
}

// The ends of a PATCH, as errors. Both are "refused": it certainly had no effect.
var (
	errStale   = errors.New("what was read is too old to be written back")
	errStopped = errors.New("the turn was stopped before it was sent")
)

// patchAll is S4 and S5 for the keys of a turn: each PATCH once, then what is known
// of its end. A crash between the two leaves the intent: the next turn recognises
// the stamp, or waits for the deadline. The last S5 is left open.
func (t *Turner) patchAll(ctx context.Context, all []writes) error {
	b := &t.open
	if b.any = false; b.empty() {
		b.since = time.Now()
	}
	var away error
	for _, w := range all {
		end := w.end
		for _, p := range w.patches {
			err := away
			var answer *labelstudio.Task
			if err == nil {
				answer, err = t.patch(ctx, w, p)
			}
			end = t.patched(ctx, b, w, p, answer, err, end)
			if err = asAway(ctx, t.tasks, err); errors.Is(err, errAway) {
				away = err
			}
		}
		b.ends = append(b.ends, end)
		b.waited = b.waited || w.claim.Source == ledger.FromAPI || w.claim.Source == ledger.FromCuration
		if time.Since(b.since) > settleEvery {
			if err := t.settle(ctx); err != nil {
				return err
			}
		}
	}
	return away
}

// patch sends one PATCH, or does not: what was read must be fresh, since everybody's
// other keys are put back as we saw them, and its end must be known before the
// deadline. A stop lets one that was begun come to its end.
func (t *Turner) patch(ctx context.Context, w writes, p patch) (*labelstudio.Task, error) {
	if ctx.Err() != nil {
		return nil, errStopped
	}
	if time.Since(p.task.at) > labelstudio.MaxAge || t.Deadline-margin-time.Since(w.before) < labelstudio.DefaultWriteTimeout {
		return nil, errStale
	}
	meta, err := writeMeta(p.task.Meta, p.value, stamp{Task: p.task.ID, Attempt: p.attempt}, p.notes, time.Now())
	if err != nil {
		return nil, err
	}
	start := time.Now()
	ctx = labelstudio.SentBy(context.WithoutCancel(ctx), p.task.at.Add(labelstudio.MaxAge)) // it may have to wait for another write
	answer, err := t.tasks.PatchMeta(ctx, p.task.ID, meta)
	if errors.Is(err, labelstudio.ErrLate) {
		return nil, errStale
	}
	t.Step("S4")
	if err == nil {
		follow(&t.pace.write, time.Since(start))
	}
	if err == nil && !carries(answer, p) {
		err = errors.New("the answer does not carry what was written")
	}
	return answer, err
}

// carries tells whether an answer proves that a PATCH worked, and on the task that was read.
func carries(answer *labelstudio.Task, p patch) bool {
	m := readMeta(p.task.ID, answer.Meta)
	return answer.CreatedAt.Equal(p.task.CreatedAt) && m.Gold == star.Of(p.value) && m.Stamp == star.Stamp(p.attempt)
}

// patched notes the end of one PATCH, and what that makes of the end of its turn.
// What is not known to be over stays as it is: the key is looked at again at once.
func (t *Turner) patched(ctx context.Context, b *settling, w writes, p patch, answer *labelstudio.Task, err error, end ledger.End) ledger.End {
	if err == nil {
		b.any = true
		b.patched = append(b.patched, ledger.Patched{Task: p.task.ID, Attempt: p.attempt, Worked: true, UpdatedAt: &answer.UpdatedAt, Answer: ledger.AnswerWorked})
		took := time.Since(w.claim.Since)
		b.after = append(b.after, func() { t.carried(ctx, w.claim, metrics.ToLabelStudio, took) })
		look := lookAgain.Seconds()
		end.Look = &look
		return end
	}
	unsent := errors.Is(err, errStale) || errors.Is(err, errStopped) || errors.Is(err, errAway)
	if unsent || labelstudio.NotDone(err) {
		b.patched = append(b.patched, ledger.Patched{Task: p.task.ID, Attempt: p.attempt, Answer: ledger.AnswerRefused + ": " + shorten(err.Error())})
	}
	again := later(w.claim, 0)
	if errors.Is(err, errStale) && !b.any {
		again = t.failed(w.claim, err) // reading alone took too long: at once would be no better
		again.To = string(metrics.ToLabelStudio)
	}
	if !unsent {
		b.after = append(b.after, func() { t.Metrics.Sync.With(metrics.ToLabelStudio, metrics.Failure).Inc() })
		if labelstudio.NotDone(err) {
			again = t.failed(w.claim, err)
			again.To = "" // each PATCH that failed is counted, above
		} else {
			t.failures.Log(ctx, t.Log, slog.LevelWarn, msgPatch, w.claim.Key, err, slog.String(logKey, w.claim.Key), slog.Int64(logTask, p.task.ID))
		}
		text := shorten(err.Error())
		again.Error = &text
	}
	again.Look = end.Look
	return sooner(end, again)
}

// settling gathers the ends of PATCHes for one transaction.
type settling struct {
	patched []ledger.Patched
	ends    []ledger.End
	after   []func()
	since   time.Time
	any     bool // PATCH of this turn was sent in time
	blind   bool // keys were claimed meanwhile: not these, though they may be dirty again
	waited  bool // a person waits for one of them
}

func (b *settling) empty() bool { return len(b.patched)+len(b.ends) == 0 }

// settle is S5 of what is open. It is tried also after a stop: what is known saves the
// next turn a wait for the deadline.
func (t *Turner) settle(ctx context.Context) error {
	b := t.open
	t.open = settling{since: time.Now(), any: b.any}
	if b.empty() {
		return nil
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if err := t.rows.Settle(limited, b.patched, b.ends); err != nil {
		return err
	}
	t.settled(ctx, b)
	if b.blind {
		t.Wake()
	}
	return nil
}

// claim is S1, now and then with the S5 that is open in the same transaction, ends first: many turns share
// one, and the more there is to do the less S1 should wait for it.
func (t *Turner) claim(ctx context.Context, limit int) ([]ledger.Claim, error) {
	b := t.open
	later := !b.empty() && !b.waited && time.Since(b.since) < settleWith
	if later {
		b = settling{}
	}
	claims, err := t.rows.SettleAndClaim(ctx, b.patched, b.ends, limit, looksPerTurn)
	switch {
	case err != nil:
		return nil, errors.Join(err, t.settle(ctx))
	case later:
		t.open.blind = true
	default:
		t.open = settling{}
		t.settled(ctx, b)
	}
	return claims, nil
}

func (t *Turner) settled(ctx context.Context, b settling) {
	t.ended(ctx, b.ends)
	for _, f := range b.after {
		f()
	}
	if len(b.ends) > 0 {
		t.Step("S5")
	}
}

// pace is how long reading and writing take these days, and so how many PATCHes can
// be sent before what was read for them is too old.
type pace struct{ read, write time.Duration }

// firstPace is that of a Label Studio that was measured; a fast one is soon found out.
const firstPace = 120 * time.Millisecond

func newPace() pace { return pace{read: firstPace, write: firstPace} }

// follow moves a mean towards what was just measured.
func follow(mean *time.Duration, took time.Duration) { *mean += (took - *mean) / 8 }

// The bounds of a turn's keys: one, so that it goes on with a Label Studio however
// slow, and as many as one transaction should lock.
const (
	minKeys = 1
	maxKeys = 256
)

// keys is how many keys a turn should take: their PATCHes fit into labelstudio.MaxAge, with a
// sixth of it to spare.
func (p pace) keys() int {
	return min(maxKeys, max(minKeys, int((labelstudio.MaxAge*5/6-p.read)/max(p.write, time.Microsecond))))
}
