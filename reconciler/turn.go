package reconciler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/logs"
)

// The times of a turn. They follow from the protocol, and from how slow Label
// Studio was measured to be.
const (
	// margin is kept free before an intent's deadline, for pauses of this process.
	margin = 5 * time.Second
	// lookAgain is how long after a PATCH the task is read once more: a person's save
	// that overlapped it can have undone it, after it was answered with 200.
	lookAgain = 5 * time.Second
	// settleEvery bounds how long a turn keeps the end of a PATCH back to share a transaction.
	settleEvery = 250 * time.Millisecond
	// settleWith is how old it is when the next claim takes it along; younger, it waits for the turn
	// of what is claimed. What a person waits for is never kept back.
	settleWith = 25 * time.Millisecond
	// settleTimeout is for the transactions that must still be tried after a stop.
	settleTimeout = 5 * time.Second
)

// Options are what a Turner needs. Evaluator, Projects, Ready and Step may be nil.
type Options struct {
	Ledger  *ledger.Ledger
	Studio  *labelstudio.Client
	Metrics *metrics.Metrics
	Log     *slog.Logger

	Deadline    time.Duration   // LABEL_STUDIO_DEADLINE
	Initial     string          // RECONCILER_INITIAL
	GroundTruth bool            // RECONCILER_GROUND_TRUTH
	Evaluator   *string         // RECONCILER_UNKNOWN_EVALUATOR
	Projects    ledger.Projects // LABEL_STUDIO_PROJECTS, empty for all

	// Ready is closed when turns may begin. Where a bare VICTORY is to become PENDING
	// that is when every task is linked: one that is not would have no say.
	Ready <-chan struct{}

	// Step is called between the steps of a turn, with the name of the one that is
	// done. A test ends the process there. Nil: nothing.
	Step func(name string)
}

// Turner turns keys: it makes a conquest and its tasks equal. One turn at a time.
type Turner struct {
	Options

	rows    rowSide
	tasks   taskSide
	attempt func() string                           // a name that nothing had before
	jitter  func(below time.Duration) time.Duration // any time below it

	projects projects
	people   people
	pace     pace
	open     settling // what is known of the last PATCHes, and not yet committed
	wake     chan struct{}
	next     time.Time   // when a key will be due by itself, or the poll
	woken    time.Time   // when a trigger was told of last
	away     atomic.Bool // Label Studio is: all keys wait
	told     atomic.Bool // notifications of triggers arrive
	progress atomic.Int64
	trouble  atomic.Pointer[error]

	failures logs.Failures
	run      string // names this process in the ids of its turns
	turns    int
}

// NewTurner returns a Turner that is ready to turn.
func NewTurner(o Options) *Turner {
	if o.Step == nil {
		o.Step = func(string) {}
	}
	if o.Ready == nil {
		ready := make(chan struct{})
		close(ready)
		o.Ready = ready
	}
	return &Turner{
		Options: o, pace: newPace(),
		rows: database{o.Ledger, o.Initial}, tasks: o.Studio,
		attempt: uuid.NewString, jitter: rand.N[time.Duration],
		wake: make(chan struct{}, 1),
		run:  uuid.NewString()[:8],
	}
}

// errAway marks that Label Studio as a whole is of no use: one failure, not one per key.
var errAway = errors.New("Label Studio is away")

// errBusy is why a key waits whose row somebody keeps locked for longer than a moment.
var errBusy = errors.New("another transaction keeps its row locked")

// Turn takes claimed keys through S2 to S5 of the protocol; S1 was the claim, S6 is
// another claim a few seconds later. What it returns is errAway, or an error of our
// database; what concerns one key stands in the queue.
//
// A crash anywhere in it leaves the keys claimed and dirty. Before S3 has committed,
// nothing has happened. After it, the row and the hub are final, and an intent
// tells the next turn that a PATCH may be on its way.
func (t *Turner) Turn(ctx context.Context, claims []ledger.Claim) error {
	return errors.Join(t.turn(ctx, claims), t.settle(ctx))
}

// turn is Turn without its last S5: what is left to settle may go with the next claim.
func (t *Turner) turn(ctx context.Context, claims []ledger.Claim) error {
	t.turns++
	ctx = logs.WithTurn(ctx, fmt.Sprintf("%s-%d", t.run, t.turns))
	t.Step("S1")
	ratings := t.readRatings(ctx, claims) // meanwhile
	sights := t.look(ctx, claims, t.search(ctx, claims))
	var err error
	if sights.ratings, err = ratings(); err != nil {
		return err
	}
	t.Step("S2")
	all, undecided := t.decideAll(ctx, claims, sights)
	t.Step("S3")
	// What was committed is sent, also where other keys could not be settled.
	if err := t.patchAll(ctx, all); err != nil {
		return errors.Join(undecided, err)
	}
	return errors.Join(undecided, sights.away)
}

// readRatings begins to read the ratings of keys and returns what waits for them.
// There may be no index to find them by, so it takes long, and Aristotle must not
// wait for a lock meanwhile. What is changed until S3 is overwritten with what it
// asks for: whoever of us writes a rating has locked its conquest and left it dirty. A
// click meanwhile makes the turn begin again: nobody else would take its rating away.
func (t *Turner) readRatings(ctx context.Context, claims []ledger.Claim) (wait func() (map[string][]aristotle.Rating, error)) {
	keys := make([]string, len(claims))
	for i, c := range claims {
		keys[i] = c.Key
	}
	var ratings map[string][]aristotle.Rating
	var err error
	var panicked *panicError
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = panicOf(recover()) }() // it is the turn's, not the end of the process
		ratings, err = t.rows.Ratings(ctx, keys)
	}()
	return func() (map[string][]aristotle.Rating, error) {
		if <-done; panicked != nil {
			panic(panicked)
		}
		return ratings, err
	}
}

// decideAll is S3. One key that cannot be settled, since a trigger of the
// application refuses it, must not keep the others from it: then they are settled one
// by one.
func (t *Turner) decideAll(ctx context.Context, claims []ledger.Claim, s *sights) ([]writes, error) {
	all, err := t.decideBatch(ctx, claims, s)
	if err == nil || ctx.Err() != nil || t.gone(ctx, err) {
		return all, err
	}
	if len(claims) > 1 {
		if s.ratings, err = t.readRatings(ctx, claims)(); err != nil {
			return nil, err
		}
		half := len(claims) / 2
		first, err := t.decideAll(ctx, claims[:half], s)
		if err != nil {
			return first, err
		}
		second, err := t.decideAll(ctx, claims[half:], s)
		return append(first, second...), err
	}
	return nil, t.finish(ctx, t.failed(claims[0], err))
}

// gone tells whether S3 failed since tables or rights were taken away. The server has the same words
// for what a policy or a trigger of the application refuses of one row.
func (t *Turner) gone(ctx context.Context, err error) bool {
	return ledger.IsSchemaGone(err) && t.Ledger.Check(ctx) != nil
}

func (t *Turner) decideBatch(ctx context.Context, claims []ledger.Claim, s *sights) ([]writes, error) {
	before := time.Now() // S4 measures from here: the deadline is counted from later
	var all []writes
	var count []func(context.Context)
	var ends []ledger.End
	err := t.rows.Decide(ctx, claims, func(states map[string]*state) (change, error) {
		var sum change
		for _, c := range claims {
			st := states[c.Key]
			st.ratings = s.ratings[c.Key]
			if st.claim != c.Claim {
				continue // somebody else has it now
			}
			if st.busy {
				sum.ends = append(sum.ends, t.failed(c, errBusy))
				continue
			}
			d := t.decide(c, st, s)
			sum.add(d.change)
			count = append(count, d.count...)
			if len(d.write.patches) > 0 {
				d.write.before = before
				all = append(all, d.write)
			}
		}
		ends = sum.ends
		return sum, nil
	})
	if err != nil {
		return nil, err
	}
	t.ended(ctx, ends)
	for _, c := range count {
		c(ctx)
	}
	return all, nil
}

// finish ends a turn that has nothing else to commit.
func (t *Turner) finish(ctx context.Context, e ledger.End) error {
	if err := t.rows.Settle(ctx, nil, []ledger.End{e}); err != nil {
		return err
	}
	t.ended(ctx, []ledger.End{e})
	return nil
}

// failed is the end of a turn that has to be tried again.
func (t *Turner) failed(c ledger.Claim, err error) ledger.End {
	wait, text := t.backoff(c.Attempts).Seconds(), shorten(err.Error())
	return ledger.End{Key: c.Key, Claim: c.Claim, Gen: c.Gen, Wait: &wait, Failed: true, Error: &text, To: string(towards(c.Source))}
}

// towards is where what made a key dirty is to be carried, as far as that is known before both sides were looked at.
func towards(s ledger.Source) metrics.Direction {
	if s == ledger.FromWebhook || s == ledger.FromDiff {
		return metrics.ToAristotle
	}
	return metrics.ToLabelStudio
}

// later is the end of a turn that waits for a time, through no failure.
func later(c ledger.Claim, wait time.Duration) ledger.End {
	seconds := max(0, wait).Seconds()
	return ledger.End{Key: c.Key, Claim: c.Claim, Gen: c.Gen, Wait: &seconds}
}

// success is the end of a turn after which both sides are equal.
func success(c ledger.Claim) ledger.End {
	return ledger.End{Key: c.Key, Claim: c.Claim, Gen: c.Gen}
}

// maxErrorText bounds what is stored of an error.
const maxErrorText = 500

func shorten(text string) string {
	if len(text) > maxErrorText {
		return text[:maxErrorText] + "…"
	}
	return text
}

// people remembers who is behind a user's number. Numbers are never reused. It is its
// owner's alone.
type people struct{ emails map[int64]string }

// learn makes sure that the numbers are known, with one request where one is not.
func (p *people) learn(ctx context.Context, studio taskSide, refs []labelstudio.UserRef) error {
	if p.emails == nil {
		p.emails = map[int64]string{}
	}
	ask := false
	for _, r := range refs {
		if r.Email != "" {
			p.emails[r.ID] = r.Email
		}
		if _, known := p.emails[r.ID]; !known && r.ID != 0 {
			ask = true
		}
	}
	if !ask {
		return nil
	}
	users, err := studio.Users(ctx)
	if err != nil {
		return fmt.Errorf("learn who annotated: %w", err)
	}
	for _, u := range users {
		p.emails[u.ID] = u.Email
	}
	for _, r := range refs { // one who has left stays unknown, and is not asked for again
		if _, known := p.emails[r.ID]; !known {
			p.emails[r.ID] = ""
		}
	}
	return nil
}

// email of a user, nil where nobody knows it.
func (p *people) email(r labelstudio.UserRef) *string {
	if e := p.emails[r.ID]; e != "" {
		return &e
	}
	return nil
}
