// Package curation is the web app on port 8001, where people read conquests, give
// and take the gold star, correct responses, settle what waits for them and export.
//
// # What it may do
//
// It has the ledger and read-only queries, and nothing to run a turn with. A star on
// the page is one ledger call, an edit of the row as "A click" of the protocol has it:
// safe at once, and carried over by a turn like every edit. Only corrected responses
// go to Label Studio from here, each as a new annotation of the person who wrote it,
// which leaves the task's meta alone; then the key is dirty.
//
// # How a page is made
//
// Every page is whole as the server sends it and works without scripts: links, forms,
// a redirect after each POST. The one script makes it better in three ways: a form is
// sent without leaving the page, the parts that are marked data-live are replaced by
// those of a fresh copy of the same page whenever a key on it has changed (told by
// server-sent events), and there are keyboard shortcuts. So there is one way to draw
// each thing, and it is a template. Nothing is inline: the Content-Security-Policy
// allows no script and no style but the embedded files.
//
// # Who it is
//
// A token of the tokens file, shown once on the login page and then kept as a signed
// cookie; or the header of a trusted proxy; or, without a tokens file, the local user.
// See who.go.
package curation
