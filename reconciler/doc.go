// Package reconciler keeps one thing true: a conquest is VICTORY in Aristotle
// exactly when its task carries the gold star in Label Studio, whoever changed it,
// whichever side, whatever broke in between.
//
// # The path
//
//	WAL -------.
//	webhook ---+--> queue (Postgres) --> worker --> look at both sides --> Decide --> write --> settle
//	pass ------+        ^                                                                        |
//	API, page -'        '----------------------------- dirty again ------------------------------'
//
// Whatever happens becomes the same thing: this key is dirty. One worker then takes
// the key, looks at both sides as they are now, decides, writes, settles. There is
// no second way in and no second way out. An event's content is never used to
// decide, so events that are lost, doubled, late or out of order cost time, never an
// edit.
//
// # Words
//
//   - key: a conquest's id. row: the conquest in Aristotle's PostgreSQL. task: a
//     Label Studio task of it. link: which tasks belong to which key.
//   - hub: the value both sides should have, and how often it has changed. After
//     every commit of ours it equals the row.
//   - edge: one task of a key, and its shadow: what it showed when we last looked.
//   - intent: a PATCH that may be under way, committed before it is sent. attempt:
//     its random name. stamp: task and attempt, written into meta with the star.
//   - dirty: to be looked at. turn: one reconcile of one key. settle: the transaction
//     that ends it. held: waits for a person. drift: the sides differ and nothing
//     explains it yet.
//
// # One turn
//
// Turner.Turn takes many keys at once through the steps of the protocol. Nothing is
// held across a request to Label Studio, which has no transactions:
//
//	S1  ledger.Claim   take the keys; is an intent alive?
//	S2  look           read the tasks afresh, after S1
//	S3  settle         lock row, hub, edge; Decide; write; commit: here the row is final
//	S4  patch          write the star and the stamp, once, if the read is still fresh
//	S5  Ledger.Settle  what is known of the PATCH's end; with one of the next S1 where keys wait
//	S6  a claim later  one more look a few seconds after, for what an overlap undid
//
// # What happens on each failure
//
//   - The daemon dies between any two steps: the key is still claimed and dirty. An
//     intent that S3 has left is recognised by the stamp that the task carries, or
//     waited out until its deadline. No recovery code: the next turn is the recovery.
//   - Label Studio is away: one failure, not one per key. The queue grows, the
//     stream goes on (it is confirmed once the keys are committed), and a single
//     probe waits for it.
//   - Our database is away: nothing is confirmed, nothing is lost; everything waits.
//   - The slot is lost: it is made anew and every row is compared with its hub.
//   - A pass dies: it goes on from the page, or the key, where it was.
//   - A side was restored from a backup, or is another one: the pass that finds it is
//     braked before its first write, and a person says whether it is right.
//   - A webhook is lost: the incremental pass finds the task by its updated_at.
//   - Two daemons at work: the claim refuses the slower one's S3, and the deadline
//     keeps the other from acting while the first one's PATCH may live.
//
// What cannot be closed from outside is listed in the package star.
package reconciler
