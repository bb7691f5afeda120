package sandbox

import "syscall"

// dieWithParent lets the kernel send sig to the child when the thread that started it ends, however that happens. The caller
// locks that thread.
func dieWithParent(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }

// selfPath works where the file's own path does not: `go test` builds into a folder that only its owner may enter.
func selfPath() (string, error) { return "/proc/self/exe", nil }
