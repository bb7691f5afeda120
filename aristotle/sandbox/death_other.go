//go:build !linux

package sandbox

import (
	"os"
	"syscall"
)

// dieWithParent is a wish that only Linux grants. Elsewhere a server whose supervisor was killed ends after the next sweep.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}

func selfPath() (string, error) { return os.Executable() }
