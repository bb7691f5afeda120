package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// withStatus is an error with an exit status of its own.
type withStatus struct {
	error
	status int
}

func (e withStatus) ExitCode() int { return e.status }
func (e withStatus) Unwrap() error { return e.error }

// plain is an error's text without the noise of the driver's connection errors, which tell role and database, every address
// that was tried, and for each of them that TLS was tried first; and without Go's words for a time that is over.
func plain(err error) string {
	text := err.Error()
	var failed *pgconn.ConnectError
	if errors.As(err, &failed) {
		text = strings.Replace(text, failed.Error(), connectReason(failed), 1)
	}
	text = strings.ReplaceAll(text, context.DeadlineExceeded.Error(), "no answer in time")
	return text
}

// quiet is an error that tells itself plainly.
type quiet struct{ error }

func (e quiet) Error() string { return plain(e.error) }
func (e quiet) Unwrap() error { return e.error }

// connectReason is why a connection failed, in a sentence.
func connectReason(err *pgconn.ConnectError) string {
	at := net.JoinHostPort(err.Config.Host, fmt.Sprint(err.Config.Port))
	if n := len(err.Config.Fallbacks); n > 0 && err.Config.Fallbacks[n-1].Host != err.Config.Host {
		at += " and the others"
	}
	cause := errors.Unwrap(err)
	var pg *pgconn.PgError
	var lookup *net.DNSError
	var operation *net.OpError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(cause, &pg):
		return fmt.Sprintf("PostgreSQL at %s says: %s (SQLSTATE %s)", at, pg.Message, pg.Code)
	case errors.As(cause, &lookup) && lookup.IsNotFound:
		return fmt.Sprintf("nobody knows the host %s", lookup.Name)
	case errors.As(cause, &timeout) && timeout.Timeout() || errors.Is(cause, os.ErrDeadlineExceeded):
		return fmt.Sprintf("PostgreSQL at %s does not answer in time", at)
	case errors.As(cause, &operation):
		var call *os.SyscallError
		if errors.As(operation.Err, &call) {
			return fmt.Sprintf("PostgreSQL at %s does not answer: %v", at, call.Err)
		}
		return fmt.Sprintf("PostgreSQL at %s does not answer: %v", at, operation.Err)
	}
	last := cause.Error()
	return fmt.Sprintf("PostgreSQL at %s: %s", at, last[strings.LastIndex(last, "\n")+1:])
}
