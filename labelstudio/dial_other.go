//go:build !linux

package labelstudio

import (
	"context"
	"net"
)

// acksAtOnce says that Django's development server needs a new connection for every request.
const acksAtOnce = false

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	return d.DialContext(ctx, network, address)
}
