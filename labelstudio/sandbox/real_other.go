//go:build !linux

package sandbox

import "syscall"

// dieWithParent is a wish that only Linux grants: elsewhere an orphaned installer runs to its end, a minute at most.
func dieWithParent(*syscall.SysProcAttr) {}
