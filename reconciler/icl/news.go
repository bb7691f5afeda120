package icl

import (
	"context"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
)

// News says which rows were changed, by the keys of the tables that have them. What
// they hold now is to be looked up.
type News struct {
	All       bool     `json:"all,omitempty"` // any row of any table
	Ratings   []string `json:"rating,omitempty"`
	Conquests []string `json:"conquest,omitempty"`
	Prompts   []string `json:"prompt,omitempty"`
	Responses []string `json:"response,omitempty"`
	Texts     []string `json:"text,omitempty"` // conquests whose tasks have other texts; a trigger of ours tells them
}

// lists are the keys by table.
func (n *News) lists() [5]*[]string {
	return [5]*[]string{&n.Ratings, &n.Conquests, &n.Prompts, &n.Responses, &n.Texts}
}

func (n *News) empty() bool {
	for _, l := range n.lists() {
		if len(*l) > 0 {
			return false
		}
	}
	return !n.All
}

// channel is where the replicas of a schema tell each other. The migration that made
// the trigger knows the rule, too; a name of its own could be too long.
func channel(schema string) string { return fmt.Sprintf("icl_%x", md5.Sum([]byte(schema))) }

// maxPayload is below the 8,000 bytes that a notification may have.
const maxPayload = 7000

// payloads writes news as notifications.
func (n News) payloads() []string {
	var all []string
	var part News
	size := 0
	flush := func() {
		if size > 0 {
			text, err := json.Marshal(part)
			if err != nil {
				panic(err) // texts
			}
			all, part, size = append(all, string(text)), News{}, 0
		}
	}
	if n.All {
		return []string{`{"all":true}`}
	}
	for i, list := range n.lists() {
		keys := slices.Clone(*list)
		slices.Sort(keys)
		for _, key := range slices.Compact(keys) {
			text, err := json.Marshal(key)
			if err != nil {
				panic(err) // a text
			}
			if len(text) > maxPayload {
				return []string{`{"all":true}`}
			}
			if size+len(text) > maxPayload {
				flush()
			}
			into := part.lists()[i]
			*into = append(*into, key)
			size += len(text) + 1
		}
	}
	flush()
	return all
}

// The first and the longest wait for a commit that the stream has and others do not
// see yet: see the ledger's.
const (
	firstUnseen = time.Millisecond
	maxUnseen   = 100 * time.Millisecond
)

// Tell tells every replica's index, this one's too, what was changed by transactions
// that the change stream has. It waits until all of them can be seen, since who is
// told reads the rows at once, and only then returns nil.
func (s *Source) Tell(ctx context.Context, n News, by []uint32) error {
	if n.empty() {
		return nil
	}
	payloads, xids := n.payloads(), make([]int64, len(by))
	for i, x := range by {
		xids[i] = int64(x)
	}
	for wait := firstUnseen; ; wait = min(2*wait, maxUnseen) {
		var told bool
		err := s.tell.QueryRow(ctx, `SELECT CASE WHEN unseen($1) THEN false
				ELSE (SELECT count(pg_notify($2, p)::text) > 0 FROM unnest($3::text[]) p) END`, xids, channel(s.schema), payloads).Scan(&told)
		if err != nil {
			return fmt.Errorf("tell the replicas of changed examples: %w", err)
		}
		if told {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("wait to see a transaction that the stream has: %w", ctx.Err())
		}
	}
}

// maxPending bounds what is noted until it is read. More than that is everything.
const maxPending = 100_000

// inbox gathers news until somebody takes it: a key that is told again before it was
// read is read once.
type inbox struct {
	ready chan struct{} // has a token while there may be news

	mu   sync.Mutex
	all  bool
	keys [5]map[string]struct{} // as News.lists
	n    int
}

func newInbox() *inbox { return &inbox{ready: make(chan struct{}, 1)} }

// add takes a notification in. One that cannot be read may have said anything.
func (in *inbox) add(payload string) {
	var n News
	if json.Unmarshal([]byte(payload), &n) != nil || n.empty() {
		n.All = true
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.all = in.all || n.All
	for i, list := range n.lists() {
		for _, key := range *list {
			if in.keys[i] == nil {
				in.keys[i] = map[string]struct{}{}
			}
			in.keys[i][key] = struct{}{}
			in.n++ // also for one that is there: a bound, no count
		}
	}
	if in.n > maxPending {
		in.all = true
	}
	if in.all {
		in.keys, in.n = [5]map[string]struct{}{}, 0
	}
	in.signal()
}

func (in *inbox) signal() {
	select {
	case in.ready <- struct{}{}:
	default:
	}
}

// take gives out up to max keys of each table. What is left stays ready.
func (in *inbox) take(max int) News {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := News{All: in.all}
	in.all, in.n = false, 0
	for i, list := range n.lists() {
		for key := range in.keys[i] {
			if len(*list) == max {
				break
			}
			*list = append(*list, key)
			delete(in.keys[i], key)
		}
		in.n += len(in.keys[i])
	}
	if in.n > 0 {
		in.signal()
	}
	return n
}
