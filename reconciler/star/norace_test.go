//go:build !race

package star

const raceOn = false
