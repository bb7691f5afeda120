package reconciler

import (
	"slices"
	"time"

	"github.com/aristotle/reconciler/reconciler/ledger"
	"github.com/aristotle/reconciler/reconciler/star"
)

// settled is called after each S3 that committed: it keeps the account of words, and
// refuses what was not to be decided.
func (r *replica) settled(claims []ledger.Claim, states map[string]*state, done change) {
	stored := map[int64]ledger.Edge{}
	for _, e := range done.edges {
		stored[e.Task] = e
		if e.IntentFor != nil {
			r.deadlines[*e.IntentAttempt] = after(time.Now(), *e.IntentFor)
			r.logf("        intent of %d: %v as %s", e.Task, *e.IntentValue, *e.IntentAttempt)
		}
	}
	for _, v := range done.verdict {
		r.logf("        the row of %s becomes %s", v.ID, v.Result)
		r.wal = append(r.wal, v.ID)
	}
	for _, h := range done.hubs {
		r.logf("        the hub of %s: %v@%d", h.Key, *h.D, h.N)
	}
	for _, a := range done.ratings {
		r.logf("        a rating of %s: %v", a.Key, a.Gold)
	}
	for _, a := range done.audit {
		r.logf("        audit of %s: %s", a.Key, a.Reason)
	}
	for _, c := range claims {
		st := states[c.Key]
		if st.claim != c.Claim {
			r.logf("        %s is somebody else's", c.Key)
			continue
		}
		if st.busy {
			r.logf("        the row of %s is locked by somebody else", c.Key)
			continue
		}
		forgot := slices.Contains(done.forget, c.Key)
		waits := st.hub != nil && !forgot && (st.row == nil || !st.hub.Of(st.row)) || clicked(c, st)
		var all []heard
		for _, e := range st.edges {
			after, written := stored[e.Task]
			if !written {
				after = e
			}
			read, unlinked := r.reads[e.Task], slices.Contains(done.unlink, e.Task)
			if read != nil && read.strange {
				r.policeStrange(e, after, unlinked, forgot)
				continue
			}
			if unlinked {
				continue
			}
			if read != nil && !written && (e.TaskCreatedAt == nil || isOtherTask(e, read.task.CreatedAt)) {
				read = nil // it was doubted
			}
			awaits := (e.S == nil || forgot) && e.Begun == "labelstudio" && !r.rows.projects[e.Project]
			seen := read != nil && !waits && !awaits && decidable(r.claims[c.Key], e, readMeta(e.Task, read.task.Meta).Stamp)
			r.policeEdge(e, after, read, seen, forgot, st.row != nil)
			if seen && st.row != nil {
				all = append(all, r.hear(after, read))
			}
		}
		r.accounts[c.Key].settled(all)
	}
}

func (r *replica) hear(after ledger.Edge, read *sighting) heard {
	h := heard{task: after.Task, read: *read, decided: after.S != nil, held: after.Held != nil}
	if after.IntentFor != nil {
		h.attempt, h.value = *after.IntentAttempt, *after.IntentValue
	}
	t := r.tasks.tasks[after.Task]
	h.unchanged = t != nil && t.version == read.version
	return h
}

// decidable tells whether what was read of a task may be decided on: it is the rule
// of the deadline once more, so that a turn that breaks it is found at once.
func decidable(c ledger.Claim, e ledger.Edge, read star.Stamp) bool {
	attempt, alive := "", false
	for _, k := range c.Edges {
		if k.Task == e.Task {
			attempt, alive = k.Attempt, k.Alive
		}
	}
	now := ""
	if e.IntentAttempt != nil {
		now = *e.IntentAttempt
	}
	if now != "" && now == attempt && alive {
		return string(read) == now
	}
	return !alive && (now == "" || now == attempt)
}

// over tells whether the PATCH of an edge was over when the key was claimed, or was read.
func (r *replica) over(e ledger.Edge, read *sighting) bool {
	stamp := star.Stamp("")
	if read != nil {
		stamp = readMeta(e.Task, read.task.Meta).Stamp
	}
	return decidable(r.claims[e.Key], e, stamp)
}

// policeEdge compares what S3 remembers of a task with what was read of it.
func (r *replica) policeEdge(was, e ledger.Edge, read *sighting, seen, forgot, row bool) {
	if e.MissingSince != nil && was.MissingSince == nil && !r.missed[e.Task] {
		r.breach("%s: task %d is called missing, and no 404 said so", r.name, e.Task)
	}
	switch {
	case !seen && forgot && was.IntentAttempt != nil && !r.over(was, read):
		r.breach("%s: the row of %s is forgotten while %s may live", r.name, was.Key, *was.IntentAttempt)
	case !seen && e.IntentFor != nil:
		r.breach("%s: PATCH of %d, whose state is not known", r.name, e.Task)
	case !seen && !forgot && !(equalText(e.Last, was.Last) && equalBool(e.S, was.S) && slices.Equal(e.Base, was.Base)):
		r.breach("%s: the shadow of %d changes without a look", r.name, e.Task)
	case !seen || !row || e.S == nil:
		return
	}
	look := star.Look{Edge: toStar(was), Meta: readMeta(e.Task, read.task.Meta)}
	if forgot {
		look.Edge = look.Forget()
	}
	last := ""
	if e.Last != nil {
		last = *e.Last
	}
	if *e.S != look.Shown() || last != string(look.Meta.Stamp) || !slices.Equal(e.Base, stars(&read.task, false)) {
		r.breach("%s: the shadow of %d is not what was read", r.name, e.Task)
	}
	if p := r.tasks.tasks[e.Task].Project; e.Project != p {
		r.breach("%s: task %d is remembered in project %d, and is in %d", r.name, e.Task, e.Project, p)
	}
}

func equalText(a, b *string) bool { return (a == nil) == (b == nil) && (a == nil || *a == *b) }
func equalBool(a, b *bool) bool   { return (a == nil) == (b == nil) && (a == nil || *a == *b) }
