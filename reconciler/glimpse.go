package reconciler

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/star"
)

// glimpse is what a listing showed of a task, as far as a decision depends on it. It
// is never decided upon: a turn reads the task again. The zero value of Meta and Stars
// is a task that says nothing.
type glimpse struct {
	Key       string    `json:"key,omitempty"` // the conquest that it names; "": none
	Project   int64     `json:"project"`
	Meta      star.Meta `json:"meta"`
	Stars     []said    `json:"stars,omitempty"` // its annotations that say star, ascending
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	At        time.Time `json:"at"`                // before it was asked for, on our clock
	Was       string    `json:"was,omitempty"`     // the conquest that we know it by, where that is another
	Absent    bool      `json:"absent,omitempty"`  // the listing of its project did not show it
	Strange   bool      `json:"strange,omitempty"` // its project is not the one that we know
	Stray     bool      `json:"stray,omitempty"`   // its project is Strange, and it is no task that we know
	// Distrusted: it is absent, and so is the rest of what we knew of its project.
	Distrusted bool `json:"distrusted,omitempty"`
}

// said is an annotation that says star.
type said struct {
	ID int64               `json:"id"`
	By labelstudio.UserRef `json:"by"`
	At time.Time           `json:"at"`
}

// glimpseOf takes from a listed task what counts.
func glimpseOf(t *labelstudio.Task, groundTruth bool, at time.Time) glimpse {
	g := glimpse{Key: ledger.KeyOf(t.Data), Project: t.Project, Meta: readMeta(t.ID, t.Meta), CreatedAt: t.CreatedAt, UpdatedAt: t.UpdatedAt, At: at}
	for _, id := range stars(t, groundTruth) {
		a := t.Annotations[slices.IndexFunc(t.Annotations, func(a labelstudio.Annotation) bool { return a.ID == id })]
		g.Stars = append(g.Stars, said{ID: id, By: lastHand(a), At: a.UpdatedAt})
	}
	return g
}

// ids are the stars as a decision takes them.
func (g *glimpse) ids() star.IDs {
	ids := make([]int64, len(g.Stars))
	for i, s := range g.Stars {
		ids[i] = s.ID
	}
	return star.Set(ids...)
}

// unlike tells whether a task that a listing showed is not as its edge remembers it.
func (g *glimpse) unlike(e ledger.Edge) bool {
	switch {
	case e.Key != g.Key, e.Project != g.Project, e.MissingSince != nil, e.IntentValue != nil, isOtherTask(e, g.CreatedAt):
		return true
	case e.Held != nil:
		return !g.sameAs(star.Edge{New: true}, e.Held.Shown, e.Held.Older, e.Held.Stamp, e.Held.Stars)
	case e.S == nil:
		return true
	}
	last := ""
	if e.Last != nil {
		last = *e.Last
	}
	return !g.sameAs(toStar(e), *e.S, e.Older, last, e.Base)
}

// sameAs tells whether it would be remembered like that.
func (g *glimpse) sameAs(e star.Edge, shown bool, older *bool, stamp string, base []int64) bool {
	now, was := star.Look{Edge: e, Meta: g.Meta, Stars: g.ids()}.Remembered(), star.Absent
	if older != nil {
		was = star.Of(*older)
	}
	return now.S == shown && now.Older == was && string(g.Meta.Stamp) == stamp && slices.Equal(now.Base, base)
}

// isOtherTask tells whether a task is not the one that its edge remembers: its number
// was used again.
func isOtherTask(e ledger.Edge, createdAt time.Time) bool {
	return e.TaskCreatedAt != nil && !createdAt.IsZero() && !e.TaskCreatedAt.Equal(createdAt)
}

// recall is what an edge's task showed when we last looked: a glimpse that is not
// unlike it. A held edge remembers what it was held for.
func recall(e ledger.Edge) glimpse {
	g := glimpse{Key: e.Key, Project: e.Project}
	shown, older, last, base := e.S, e.Older, e.Last, e.Base
	if h := e.Held; h != nil {
		shown, older, last, base = &h.Shown, h.Older, &h.Stamp, h.Stars
	}
	if shown != nil {
		g.Meta.Gold = star.Of(*shown)
	}
	if older != nil { // the two keys differ in the way that they did
		g.Meta.Gold, g.Meta.IsGold = star.Of(!*older), star.Of(*older)
	}
	if last != nil {
		g.Meta.Stamp = star.Stamp(*last)
	}
	for _, id := range base {
		g.Stars = append(g.Stars, said{ID: id})
	}
	if e.TaskCreatedAt != nil {
		g.CreatedAt = *e.TaskCreatedAt
	}
	if e.TaskUpdatedAt != nil {
		g.UpdatedAt = *e.TaskUpdatedAt
	}
	return g
}

// glimpsed reads a stored glimpse; nil where there is none.
func glimpsed(raw json.RawMessage) (*glimpse, error) {
	if raw == nil {
		return nil, nil
	}
	g := new(glimpse)
	return g, json.Unmarshal(raw, g)
}
