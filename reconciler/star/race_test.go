//go:build race

package star

// raceOn: under the race detector, which has nothing to find in a search, only
// the small models are run.
const raceOn = true
