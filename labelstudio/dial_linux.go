package labelstudio

import (
	"context"
	"net"
	"syscall"
)

// acksAtOnce says that [dial] makes connections that may be used again, whatever the server.
const acksAtOnce = true

// dial connects to a server that may send head and body of an answer apart, each waiting for the other's acknowledgement, as
// Django's development server does: a connection that acknowledges at its leisure would cost 40 ms a request.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, network, address)
	tcp, ok := conn.(*net.TCPConn)
	if err != nil || !ok {
		return conn, err
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, err // not of a connection that is open
	}
	return quick{tcp, raw}, nil
}

// quick is a connection that acknowledges at once. The kernel forgets that it is to whenever both sides have spoken.
type quick struct {
	*net.TCPConn
	raw syscall.RawConn
}

func (c quick) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.acknowledge()
	return n, err
}

func (c quick) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.acknowledge()
	return n, err
}

// acknowledge is a matter of speed alone: where it is refused, an acknowledgement comes later.
func (c quick) acknowledge() {
	_ = c.raw.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1) })
}
