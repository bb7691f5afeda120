package star

import (
	"slices"
	"strings"
	"testing"
)

// feature is something that protocol.md says its search went through, or that it says it did not, and which of our models do. A bound is at least as
// large as the one that it names: 5 edits, 2 crashes, 2 time-outs, 2 tasks, 2 workers. Its "lost response" and "time-out" are lost here; its edits of the row,
// meta and annotations are edits and stars.
type feature struct {
	name string
	has  func(m *model) bool
}

func one(m *model) bool      { return m.tasks == 1 && m.workers == 1 }
func workers2(m *model) bool { return m.tasks == 1 && m.workers == 2 }
func tasks2(m *model) bool   { return m.tasks == 2 && m.workers == 1 }
func both2(m *model) bool    { return m.tasks == 2 && m.workers == 2 }

func features() []feature {
	all := []feature{
		// What it says of itself.
		{"5 edits, 2 crashes, 2 time-outs", func(m *model) bool { return m.left.edits >= 5 && m.left.crashes >= 2 && m.left.lost >= 2 }},
		{"5 edits of row, meta and annotations", func(m *model) bool { return m.left.edits >= 2 && m.left.stars >= 2 && m.left.edits+m.left.stars >= 5 }},
		{"two workers, 2 crashes, 2 time-outs", func(m *model) bool { return m.workers == 2 && m.left.crashes >= 2 && m.left.lost >= 2 }},
		{"two tasks, 2 crashes, 2 time-outs", func(m *model) bool { return m.tasks == 2 && m.left.crashes >= 2 && m.left.lost >= 2 }},
		{"two tasks, two workers, a crash, a time-out", func(m *model) bool { return both2(m) && m.left.crashes >= 1 && m.left.lost >= 1 && m.left.edits >= 2 }},
		{"4 edits: at most 4 PATCHes", func(m *model) bool { return m.patches == 4 && m.left == budget{edits: 4} }},
		{"with 2 time-outs 6", func(m *model) bool { return m.patches == 6 && m.left == budget{edits: 4, lost: 2} }},
		// A crash costs one more where the PATCH of a process that died is lost on the way, which protocol.md does not count.
		{"and with 2 crashes", func(m *model) bool { return m.patches == 8 && m.left == budget{edits: 4, crashes: 2, lost: 2} }},
		{"DEFEAT or NEUTRAL beside PENDING and VICTORY", func(m *model) bool { return m.known && len(m.rows) == 3 }},
		{"a row that is VICTORY at first", func(m *model) bool { return m.known && m.starred }},
		{"a refused PATCH", func(m *model) bool { return m.left.refusals > 0 && m.left.lost > 0 && m.left.crashes > 0 }},
		{"several PATCHes of a key, one of them refused", func(m *model) bool { return m.tasks == 2 && m.left.refusals > 0 }},
		{"a click, or held settle", func(m *model) bool { return m.left.clicks > 0 && m.begun == Hold }},
		{"a click, and an annotation after the look that was held", func(m *model) bool { return m.left.clicks > 0 && m.left.stars > 0 && m.begun == Hold }},
		{"a click before the first turn", func(m *model) bool { return m.left.early > 0 && m.starred }},
		{"a click before the first turn, labelstudio", func(m *model) bool { return m.left.early > 0 && m.begun == LabelStudio }},
		{"a click on another row than the hub's", func(m *model) bool { return m.left.early > 0 && m.left.rows > 0 }},
		{"labelstudio, one of two tasks starred", func(m *model) bool { return m.begun == LabelStudio && m.mixed }},
		{"labelstudio, an unread task leaves it open", func(m *model) bool { return m.begun == LabelStudio && m.tasks == 2 && m.left.unread > 0 }},
		{"labelstudio, a missing task does not", func(m *model) bool { return m.begun == LabelStudio && m.tasks == 2 && m.left.tasks > 0 }},
		{"a new task of a known conquest", func(m *model) bool { return m.late && m.left.edits >= 2 }},
		{"a star that comes back with an old export is held", func(m *model) bool { return m.late && m.left.clicks > 0 }},
		{"a task imported again while the old one is missing", func(m *model) bool { return m.late && m.left.tasks > 0 }},
		{"the star of a row that goes does not come back by an overruled annotation", func(m *model) bool { return m.left.rows > 0 && m.left.stars >= 2 }},
		{"a waiting edge beside one that is not", func(m *model) bool { return m.tasks == 2 && m.left.crashes > 0 && m.left.unread > 0 }},
		{"meta with another task's stamp", func(m *model) bool { return m.left.foreign > 0 }},
		{"meta replaced and an old copy saved", func(m *model) bool { return m.left.blobs > 0 && m.left.saves > 0 }},

		// What it says it did not search.
		{"the queue's generations, a trigger inside a turn", func(m *model) bool { return m.queued && m.left.stars > 0 && m.left.crashes > 0 }},
		{"leases that expire: two workers at a queued key", func(m *model) bool { return m.queued && m.workers == 2 && m.left.crashes > 0 && m.left.lost > 0 }},
		{"a queued key of two tasks and two workers", func(m *model) bool { return m.queued && both2(m) }},
		{"two star keys at once", func(m *model) bool { return m.older && m.known }},
		{"two star keys that differ at first", func(m *model) bool { return m.older && m.differ }},
		{"two star keys, meta replaced", func(m *model) bool { return m.older && m.left.blobs > 0 }},
		{"two star keys, an old copy", func(m *model) bool { return m.older && m.left.saves > 0 }},
		{"two star keys, two workers", func(m *model) bool { return m.older && m.workers == 2 }},
		{"a task that changes its conquest, twice", func(m *model) bool { return m.left.moves >= 2 }},
		{"our backup, one task", func(m *model) bool { return m.restores == ours && m.tasks == 1 }},
		{"our backup, two tasks", func(m *model) bool { return m.restores == ours && m.tasks == 2 }},
		{"our backup, two workers", func(m *model) bool { return m.restores == ours && m.workers == 2 }},
		{"their backup, one task", func(m *model) bool { return m.restores == theirs && m.tasks == 1 }},
		{"their backup, two tasks", func(m *model) bool { return m.restores == theirs && m.tasks == 2 }},
		{"a leader that changes in mid-turn", func(m *model) bool { return m.workers == 2 && m.left.crashes > 0 && m.queued }},
	}
	// And each thing that happens, each first contact, with one task and worker, with two workers, and with two tasks.
	for _, size := range []feature{{"one task, one worker", one}, {"two workers", workers2}, {"two tasks", tasks2}} {
		for _, what := range []feature{
			{"edits of row and meta", func(m *model) bool { return m.left.edits >= 2 }},
			{"annotations", func(m *model) bool { return m.left.stars > 0 }},
			{"crash at every step", func(m *model) bool { return m.left.crashes > 0 }},
			{"response lost, PATCH late or lost", func(m *model) bool { return m.left.lost > 0 }},
			{"PATCH refused", func(m *model) bool { return m.left.refusals > 0 }},
			{"meta replaced", func(m *model) bool { return m.left.blobs > 0 }},
			{"an old copy saved over ours", func(m *model) bool { return m.left.saves > 0 }},
			{"404, and back", func(m *model) bool { return m.left.tasks > 0 }},
			{"another task under the number", func(m *model) bool { return m.left.others > 0 }},
			{"another conquest's task", func(m *model) bool { return m.left.moves > 0 }},
			{"the row deleted, another comes", func(m *model) bool { return m.left.rows > 0 }},
			{"union", func(m *model) bool { return !m.known && m.begun == Union }},
			{"hold", func(m *model) bool { return !m.known && m.begun == Hold }},
			{"labelstudio", func(m *model) bool { return !m.known && m.begun == LabelStudio }},
		} {
			all = append(all, feature{size.name + ": " + what.name, func(m *model) bool { return size.has(m) && what.has(m) }})
		}
	}
	for _, size := range []feature{{"one task, one worker", one}, {"two tasks", tasks2}} {
		all = append(all, feature{size.name + ": aristotle", func(m *model) bool { return size.has(m) && !m.known && m.begun == Aristotle }})
	}
	return all
}

// protocolModels is how many models the search behind protocol.md had.
const protocolModels = 61

// TestFeatures: what protocol.md names each has its models (-v tells which), there are more models than it had, and no two of them are the same.
func TestFeatures(t *testing.T) {
	all := models()
	for _, f := range features() {
		var has []string
		for i := range all {
			if f.has(&all[i]) {
				has = append(has, all[i].name)
			}
		}
		if len(has) == 0 {
			t.Errorf("no model has: %s", f.name)
		}
		t.Logf("%s: %s", f.name, strings.Join(has, "; "))
	}
	if len(all) < protocolModels {
		t.Errorf("%d models, fewer than %d", len(all), protocolModels)
	}
	for i, m := range all {
		for _, o := range all[:i] {
			if m.name == o.name || same(m, o) {
				t.Errorf("%q is %q once more", m.name, o.name)
			}
		}
	}
}

// same tells whether two models differ in nothing that is searched.
func same(a, b model) bool {
	rows := slices.Equal(a.rows, b.rows) && slices.Equal(a.begin, b.begin)
	for _, m := range []*model{&a, &b} {
		m.name, m.size, m.rows, m.begin, m.patches = "", 0, nil, nil, 0
	}
	return rows && a.tasks == b.tasks && a.workers == b.workers && a.queued == b.queued && a.begun == b.begun && a.older == b.older && a.mixed == b.mixed &&
		a.late == b.late && a.looked == b.looked && a.differ == b.differ && a.restores == b.restores && a.known == b.known && a.starred == b.starred && a.left == b.left
}
