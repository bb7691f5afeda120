// Package story tells in plain words what the ledger knows of a key: where it stands and
// how it came there. `reconciler status KEY`, `reconciler held` and the curation page tell
// it in the same words. It is pure: what it tells of was read before.
package story

import (
	"time"

	"github.com/aristotle/reconciler/aristotle"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// Story is what is known of a key. Its JSON is what `reconciler status KEY --json` prints.
type Story struct {
	Key   string          `json:"key"`
	Known bool            `json:"known"` // there is a conquest, a task or a record of that name
	Now   []string        `json:"now"`   // sentences: where it stands
	Row   *aristotle.Face `json:"row"`
	Value *bool           `json:"value"`   // what both sides should have: is it VICTORY? nil: no turn has come yet
	Count int64           `json:"changes"` // how often that has changed
	Tasks []Task          `json:"tasks"`
	Queue *ledger.Queued  `json:"queue"` // nil: it was never dirty
	Story []Event         `json:"story"` // oldest first
	Cut   bool            `json:"cut"`   // there is more before it
}

// Task is a task of the key as of our last look.
type Task struct {
	Task         int64        `json:"task"`
	Project      int64        `json:"project"`
	Star         *bool        `json:"star"`          // nil: it had no first contact yet
	Writing      *bool        `json:"writing"`       // the star that a PATCH of unknown end is to write
	MissingSince *time.Time   `json:"missing_since"` // nil: it is there
	Held         *ledger.Held `json:"held"`          // nil: it waits for nobody
}

// Event is a decision in words.
type Event struct {
	At     time.Time     `json:"at"`
	Source ledger.Source `json:"trigger"`
	Task   *int64        `json:"task"` // nil: it concerns the key as a whole
	Reason string        `json:"reason"`
	Text   string        `json:"text"`
}

// Tell tells the story of a key.
func Tell(h ledger.History) Story {
	s := Story{Key: h.Key, Row: h.Row, Queue: h.Queued, Cut: h.Cut, Tasks: Tasks(h.Edges), Story: []Event{}}
	s.Known = h.Row != nil || len(h.Edges)+len(h.Records) > 0
	if h.Hub != nil && h.Hub.D != nil {
		s.Value, s.Count = h.Hub.D, h.Hub.N
	}
	for _, r := range h.Records {
		s.Story = append(s.Story, Event{At: r.At, Source: r.Source, Task: r.Task, Reason: r.Reason, Text: sentence(r)})
	}
	s.Now = now(h.View, s.Tasks)
	return s
}

// Tasks are the tasks of a key as of our last look.
func Tasks(edges []ledger.Edge) []Task {
	all := []Task{}
	for _, e := range edges {
		all = append(all, Task{Task: e.Task, Project: e.Project, Star: e.S, Writing: e.IntentValue, MissingSince: e.MissingSince, Held: e.Held})
	}
	return all
}
