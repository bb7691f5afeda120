//go:build !race

package reconciler

const raceOn = false
