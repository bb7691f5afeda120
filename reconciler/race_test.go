//go:build race

package reconciler

// raceOn: the race detector finds what it can in few schedules; all of them are run
// without it.
const raceOn = true
