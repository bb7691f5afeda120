package cdc

import "syscall"

// tcpUserTimeout is TCP_USER_TIMEOUT of linux/tcp.h, which package syscall does not name.
const tcpUserTimeout = 0x12

// setUserTimeout bounds how long a status may wait for a peer that is gone; TCP's own patience is a quarter of an hour.
// Sockets that are not TCP refuse the option, and need it not.
func setUserTimeout(network, _ string, raw syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return nil
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(peerTimeout.Milliseconds()))
	}); err != nil {
		return err
	}
	return set
}
