package star

// anyRow are all results that a person sets.
var anyRow = []Result{Pending, Victory, Other}

// models is the table of what is searched.
func models() []model {
	return []model{
		// One task, one worker: people and faults.
		{name: "edits", tasks: 1, workers: 1, known: true, left: budget{edits: 4}},
		{name: "annotations", tasks: 1, workers: 1, known: true, left: budget{edits: 2, stars: 3}},
		{name: "annotations, starred", tasks: 1, workers: 1, known: true, starred: true, left: budget{edits: 2, stars: 3}},
		{name: "faults", tasks: 1, workers: 1, known: true, left: budget{edits: 3, crashes: 1, lost: 1, refusals: 1}},
		{name: "edits, a refusal", tasks: 1, workers: 1, known: true, left: budget{edits: 4, refusals: 1}},
		{name: "faults, starred", tasks: 1, workers: 1, known: true, starred: true, left: budget{edits: 2, stars: 1, crashes: 1, lost: 1, unread: 1}},
		{name: "blob", size: medium, tasks: 1, workers: 1, known: true, left: budget{edits: 2, stars: 1, blobs: 1, crashes: 1, lost: 1}},
		{name: "old copy", size: medium, tasks: 1, workers: 1, known: true, left: budget{edits: 3, saves: 1, crashes: 1, lost: 1}},
		{name: "blob and old copy", size: medium, tasks: 1, workers: 1, known: true, left: budget{edits: 3, saves: 1, blobs: 1, lost: 1}},
		{name: "404", size: medium, tasks: 1, workers: 1, known: true, left: budget{edits: 2, stars: 1, tasks: 1, crashes: 1, lost: 1}},
		{name: "another task", tasks: 1, workers: 1, known: true, left: budget{edits: 2, stars: 1, others: 1, lost: 1}},
		{name: "row goes", size: medium, tasks: 1, workers: 1, known: true, rows: anyRow, left: budget{edits: 2, stars: 1, rows: 1, lost: 1}},
		{name: "row goes, annotations", size: medium, tasks: 1, workers: 1, known: true, left: budget{edits: 1, stars: 2, rows: 2}},
		{name: "two star keys", older: true, tasks: 1, workers: 1, known: true, left: budget{edits: 3, lost: 1, crashes: 1, refusals: 1}},
		{name: "union", tasks: 1, workers: 1, begin: anyRow, rows: anyRow, left: budget{edits: 2, stars: 1, lost: 1}},
		{name: "union, starred", size: medium, tasks: 1, workers: 1, starred: true, begin: anyRow, rows: anyRow, left: budget{edits: 2, stars: 1, lost: 1, clicks: 1}},
		{name: "aristotle", size: medium, tasks: 1, workers: 1, begun: Aristotle, starred: true, begin: anyRow, left: budget{edits: 2, stars: 1, lost: 1}},
		{name: "hold", size: medium, tasks: 1, workers: 1, begun: Hold, starred: true, begin: anyRow, left: budget{edits: 2, stars: 1, clicks: 1, lost: 1}},
		{name: "labelstudio", tasks: 1, workers: 1, begun: LabelStudio, begin: anyRow, left: budget{edits: 2, stars: 1, lost: 1}},
		{name: "bounded PATCHes", size: medium, tasks: 1, workers: 1, known: true, patches: 8, left: budget{edits: 4, crashes: 2, lost: 2}},
		{name: "bounded PATCHes, no faults", tasks: 1, workers: 1, known: true, patches: 4, left: budget{edits: 2, stars: 2}},

		{name: "two star keys that differ at first", older: true, differ: true, tasks: 1, workers: 1, begin: anyRow, left: budget{edits: 2, lost: 1, clicks: 1}},
		{name: "another conquest", size: medium, tasks: 1, workers: 1, known: true, left: budget{edits: 2, stars: 1, moves: 2, lost: 1}},
		{name: "our backup", size: medium, tasks: 1, workers: 1, restores: ours, known: true, left: budget{edits: 3, backups: 1, lost: 1}},
		{name: "our backup, annotations", size: medium, tasks: 1, workers: 1, restores: ours, known: true, left: budget{edits: 1, stars: 2, backups: 1}},
		{name: "their backup", size: medium, tasks: 1, workers: 1, restores: theirs, known: true, left: budget{edits: 2, stars: 1, backups: 1, lost: 1}},

		// Two workers that nothing keeps apart but claim and deadline.
		{name: "two workers", tasks: 1, workers: 2, known: true, left: budget{edits: 2, crashes: 1, lost: 1}},
		{name: "two workers, annotations", size: medium, tasks: 1, workers: 2, known: true, left: budget{edits: 1, stars: 2, lost: 1}},
		{name: "two workers, refusals", tasks: 1, workers: 2, known: true, left: budget{edits: 2, refusals: 1, lost: 1}},
		{name: "two workers, row goes", size: medium, tasks: 1, workers: 2, known: true, left: budget{edits: 2, rows: 1, lost: 1}},
		{name: "two workers, another conquest", size: medium, tasks: 1, workers: 2, known: true, left: budget{edits: 1, moves: 1, lost: 1}},
		{name: "two workers, old copy", size: medium, tasks: 1, workers: 2, known: true, left: budget{edits: 2, saves: 1, lost: 1}},
		{name: "two workers, many faults", size: medium, tasks: 1, workers: 2, known: true, left: budget{edits: 3, crashes: 1, lost: 2, refusals: 1}},

		// The queue's own generations: a pass begins where the key is dirty.
		{name: "queue", size: medium, tasks: 1, workers: 1, queued: true, known: true, left: budget{edits: 3, stars: 1, crashes: 1, lost: 1, refusals: 1}},
		{name: "queue, two workers", size: medium, tasks: 1, workers: 2, queued: true, known: true, left: budget{edits: 2, crashes: 1, lost: 1}},
		{name: "queue, two tasks", size: medium, tasks: 2, workers: 1, queued: true, known: true, left: budget{edits: 2, unread: 1, lost: 1}},

		// Two tasks of one conquest.
		{name: "two tasks", tasks: 2, workers: 1, known: true, left: budget{edits: 2, lost: 1}},
		{name: "two tasks, annotations", tasks: 2, workers: 1, known: true, left: budget{edits: 1, stars: 2}},
		{name: "two tasks, unread", size: medium, tasks: 2, workers: 1, known: true, left: budget{edits: 2, unread: 1, crashes: 1}},
		{name: "two tasks, union", size: medium, tasks: 2, workers: 1, begin: anyRow, left: budget{edits: 1, stars: 1, unread: 1}},
		{name: "two tasks, labelstudio", size: medium, tasks: 2, workers: 1, begun: LabelStudio, begin: anyRow, left: budget{edits: 1, unread: 1, tasks: 1}},
		{name: "two tasks, labelstudio, one starred", size: medium, tasks: 2, workers: 1, begun: LabelStudio, mixed: true, begin: []Result{Victory}, left: budget{edits: 1, unread: 2}},
		{name: "two tasks, row goes", tasks: 2, workers: 1, known: true, size: large, left: budget{edits: 2, rows: 1, lost: 1}},
		{name: "two tasks, 404", size: medium, tasks: 2, workers: 1, known: true, left: budget{edits: 2, tasks: 1, lost: 1}},
		{name: "two tasks, copied meta", size: medium, tasks: 2, workers: 1, known: true, left: budget{edits: 2, foreign: 1, lost: 1}},
		{name: "two tasks, two workers", tasks: 2, workers: 2, known: true, size: large, left: budget{edits: 2, lost: 1}},

		// More of everything.
		{name: "everything, one worker", tasks: 1, workers: 1, known: true, size: medium, left: budget{edits: 3, stars: 2, crashes: 1, lost: 1, saves: 1, blobs: 1}},
		{name: "five edits", tasks: 1, workers: 1, known: true, size: medium, left: budget{edits: 4, stars: 1, crashes: 2, lost: 2}},
		{name: "two workers, more", tasks: 1, workers: 2, known: true, size: large, left: budget{edits: 2, stars: 1, crashes: 1, lost: 1, blobs: 1}},
		{name: "queue, two workers, more", tasks: 1, workers: 2, queued: true, known: true, size: large, left: budget{edits: 2, stars: 1, crashes: 1, lost: 1, refusals: 1}},
		{name: "two tasks, faults", tasks: 2, workers: 1, known: true, size: medium, left: budget{edits: 2, stars: 1, crashes: 1, lost: 1, unread: 1}},
		{name: "two tasks, union, faults", tasks: 2, workers: 1, begin: anyRow, size: large, left: budget{edits: 2, stars: 1, lost: 1, unread: 1}},
		{name: "two tasks, hold", tasks: 2, workers: 1, begun: Hold, starred: true, begin: anyRow, size: large, left: budget{edits: 1, stars: 1, clicks: 1, unread: 1}},
	}
}
