// Package icl makes examples for in-context learning of the gold stars: prompt
// messages that Eidos puts before its own question, and lines of a data set.
//
// There is one definition of an example, in example.go: which of the texts that a
// conquest has count, and what is left out. Two readers use it and answer alike:
//
//   - [Source] asks the database, and keeps nothing.
//   - [Index] has all examples in memory, in pieces that are JSON already. It is kept
//     fresh by key: whoever owns the slot reads the change stream and tells the keys
//     that changed by NOTIFY ([Source.Tell]), a turn that stores a task's texts does
//     so by a trigger, and each replica reads what it was told of anew. What it was
//     told is never believed, only looked up.
//
// An index that cannot be fresh is not used: while it warms up, while nobody reads
// the slot, when its own session was lost, and when the examples do not fit into
// the memory it may take. Then the source answers, more slowly and the same.
package icl
