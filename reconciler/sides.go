package reconciler

import (
	"context"
	"encoding/json"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// rowSide is the row side of a turn: Aristotle's rows and what we remember of their
// tasks, in one database. Each method is one transaction. An error says that it did
// not commit, or that nobody knows: the caller goes on as if it had not, and the
// claims, attempts and generations keep it from doing a thing twice.
//
// It has two implementations: [database], and the memory of the simulation, which
// refuses what the protocol forbids. One conformance suite holds for both.
type rowSide interface {
	// SettleAndClaim is S5 of what ended before, as [rowSide.Settle], then S1: it takes up
	// to dirty keys that are dirty and due and up to looks keys whose look after a PATCH is
	// due, none of them leased, and makes each claim one that no earlier worker holds. It
	// notes generations and living intents before it returns.
	SettleAndClaim(ctx context.Context, patched []ledger.Patched, ends []ledger.End, dirty, looks int) ([]ledger.Claim, error)
	// Link adds links that are not there. It changes none that is, and dirties nothing.
	Link(ctx context.Context, links []ledger.Link, initial string) error
	// Known returns the tasks by which a project is known again: see [ledger.Ledger.Known].
	Known(ctx context.Context, project int64) (edges []ledger.Edge, own bool, err error)
	// Landmarks returns tasks by which a project is known again, where we know more of it
	// than so many: see [ledger.Ledger.Landmarks].
	Landmarks(ctx context.Context, project int64, than int) (edges []ledger.Edge, many bool, err error)
	// Ratings reads the ratings of keys, without a lock.
	Ratings(ctx context.Context, keys []string) (map[string][]aristotle.Rating, error)
	// Decide is S3: it locks the keys and reads them, calls decide once with what they
	// are now, and commits all of the change that it returns, or nothing. decide must not
	// wait for anything: Aristotle waits for these locks. Its map has every claimed key,
	// also where another worker has claimed it since: nothing may be written of that one.
	// Where somebody else keeps a row locked it is called without it, and told so.
	Decide(ctx context.Context, claims []ledger.Claim, decide func(map[string]*state) (change, error)) error
	// Settle is S5: it clears the intents whose end is known, each only where it is
	// still the same attempt's, whoever has the claim; and ends turns, each only where
	// the claim is still its own.
	Settle(ctx context.Context, patched []ledger.Patched, ends []ledger.End) error
	// Listen calls wake at first and whenever keys became dirty, until ctx or the
	// session ends. Calls may be lost with the session, none is needed.
	Listen(ctx context.Context, wake func()) error
}

// taskSide is the task side of a turn: Label Studio. It has no transactions, and an
// answer is as old as its request. Its errors are those of the package labelstudio,
// which tell whether a write is certainly not done and whether other requests would
// fare better.
//
// It has two implementations: [labelstudio.Client], and the memory of the simulation.
type taskSide interface {
	// TasksByID reads tasks with their annotations. A task that is not in the answer is
	// unknown, not gone. One that was not asked for is not in it.
	TasksByID(ctx context.Context, project int64, ids []int64) ([]labelstudio.Task, error)
	// Task reads one task with its annotations. It is gone where [labelstudio.IsNotFound].
	Task(ctx context.Context, id int64) (*labelstudio.Task, error)
	// FindTasks returns the tasks of a project whose data has one of the values.
	FindTasks(ctx context.Context, project int64, field string, values []string) ([]labelstudio.Task, error)
	// PatchMeta replaces a task's meta, once. Where the error is not [labelstudio.NotDone]
	// it may have taken effect, or still may until LABEL_STUDIO_DEADLINE.
	PatchMeta(ctx context.Context, id int64, meta json.RawMessage) (*labelstudio.Task, error)
	Projects(ctx context.Context) ([]labelstudio.Project, error)
	Users(ctx context.Context) ([]labelstudio.User, error)
	// Whoami asks for the least there is: whether Label Studio is of any use.
	Whoami(ctx context.Context) (labelstudio.User, error)
}

// database is the real row side: the ledger, and Aristotle's tables beside it.
type database struct {
	*ledger.Ledger
	initial string // RECONCILER_INITIAL, for tasks that a turn gives to another key
}
