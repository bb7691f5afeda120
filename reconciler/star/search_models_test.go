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
		{name: "faults, starred", tasks: 1, workers: 1, known: true, starred: true, left: budget{edits: 2, stars: 1, crashes: 1, lost: 1, unread: 1}},
		{name: "blob", tasks: 1, workers: 1, known: true, left: budget{edits: 2, stars: 1, blobs: 1, crashes: 1, lost: 1}},
		{name: "old copy", tasks: 1, workers: 1, known: true, left: budget{edits: 3, saves: 1, crashes: 1, lost: 1}},
		{name: "blob and old copy", tasks: 1, workers: 1, known: true, left: budget{edits: 3, saves: 1, blobs: 1, lost: 1}},
		{name: "404", tasks: 1, workers: 1, known: true, left: budget{edits: 2, stars: 1, tasks: 1, crashes: 1, lost: 1}},
		{name: "another task", tasks: 1, workers: 1, known: true, left: budget{edits: 2, stars: 1, others: 1, lost: 1}},
		{name: "row goes", tasks: 1, workers: 1, known: true, rows: anyRow, left: budget{edits: 2, stars: 1, rows: 1, lost: 1}},
		{name: "row goes, annotations", tasks: 1, workers: 1, known: true, left: budget{edits: 1, stars: 2, rows: 2}},
		{name: "two star keys", tasks: 1, workers: 1, known: true, left: budget{edits: 3, copies: 2, lost: 1, crashes: 1}},
		{name: "union", tasks: 1, workers: 1, begin: anyRow, rows: anyRow, left: budget{edits: 2, stars: 1, lost: 1}},
		{name: "union, starred", tasks: 1, workers: 1, starred: true, begin: anyRow, rows: anyRow, left: budget{edits: 2, stars: 1, lost: 1, clicks: 1}},
		{name: "aristotle", tasks: 1, workers: 1, begun: Aristotle, starred: true, begin: anyRow, left: budget{edits: 2, stars: 1, lost: 1}},
		{name: "hold", tasks: 1, workers: 1, begun: Hold, starred: true, begin: anyRow, left: budget{edits: 2, stars: 1, clicks: 1, lost: 1}},
		{name: "labelstudio", tasks: 1, workers: 1, begun: LabelStudio, begin: anyRow, left: budget{edits: 2, stars: 1, lost: 1}},
		{name: "bounded PATCHes", tasks: 1, workers: 1, known: true, patches: 8, left: budget{edits: 4, crashes: 2, lost: 2}},
		{name: "bounded PATCHes, no faults", tasks: 1, workers: 1, known: true, patches: 4, left: budget{edits: 2, stars: 2}},

		// Two workers that nothing keeps apart but claim and deadline.
		{name: "two workers", tasks: 1, workers: 2, known: true, left: budget{edits: 2, crashes: 1, lost: 1}},
		{name: "two workers, annotations", tasks: 1, workers: 2, known: true, left: budget{edits: 1, stars: 2, lost: 1}},
		{name: "two workers, refusals", tasks: 1, workers: 2, known: true, left: budget{edits: 2, refusals: 1, lost: 1}},
		{name: "two workers, row goes", tasks: 1, workers: 2, known: true, left: budget{edits: 2, rows: 1, lost: 1}},
		{name: "two workers, old copy", tasks: 1, workers: 2, known: true, left: budget{edits: 2, saves: 1, lost: 1}},
		{name: "two workers, many faults", tasks: 1, workers: 2, known: true, large: true, left: budget{edits: 3, crashes: 1, lost: 2, refusals: 1}},

		// The queue's own generations: a pass begins where the key is dirty.
		{name: "queue", tasks: 1, workers: 1, queued: true, known: true, left: budget{edits: 3, stars: 1, crashes: 1, lost: 1, refusals: 1}},
		{name: "queue, two workers", tasks: 1, workers: 2, queued: true, known: true, left: budget{edits: 2, crashes: 1, lost: 1}},
		{name: "queue, two tasks", tasks: 2, workers: 1, queued: true, known: true, left: budget{edits: 2, unread: 1, lost: 1}},

		// Two tasks of one conquest.
		{name: "two tasks", tasks: 2, workers: 1, known: true, left: budget{edits: 2, lost: 1}},
		{name: "two tasks, annotations", tasks: 2, workers: 1, known: true, left: budget{edits: 1, stars: 2}},
		{name: "two tasks, unread", tasks: 2, workers: 1, known: true, left: budget{edits: 2, unread: 1, crashes: 1}},
		{name: "two tasks, union", tasks: 2, workers: 1, begin: anyRow, left: budget{edits: 1, stars: 1, unread: 1}},
		{name: "two tasks, labelstudio", tasks: 2, workers: 1, begun: LabelStudio, begin: anyRow, left: budget{edits: 1, unread: 1, tasks: 1}},
		{name: "two tasks, row goes", tasks: 2, workers: 1, known: true, large: true, left: budget{edits: 2, rows: 1, lost: 1}},
		{name: "two tasks, 404", tasks: 2, workers: 1, known: true, left: budget{edits: 2, tasks: 1, lost: 1}},
		{name: "two tasks, two workers", tasks: 2, workers: 2, known: true, large: true, left: budget{edits: 2, lost: 1}},
	}
}
