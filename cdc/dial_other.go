//go:build !linux

package cdc

import "syscall"

// setUserTimeout does nothing here: a dead peer is found by TCP keepalive and by its silence.
func setUserTimeout(string, string, syscall.RawConn) error { return nil }
