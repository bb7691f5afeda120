// Package deploy has no code: what stands beside it is how the daemon is run and watched, and its tests check that all of it
// is true of the program, with the tools that will read it. What a library checks better is in the module in the folder checks.
package deploy
