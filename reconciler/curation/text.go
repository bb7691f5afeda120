package curation

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
)

// isText tells whether PostgreSQL can hold a text.
func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// isDatabaseAway tells that a statement failed since the database did not answer, and
// not by what it said.
func isDatabaseAway(err error) bool {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case errors.As(err, &connect):
		return true
	case errors.As(err, &pg):
		// shutting down, starting, out of connections, cut off by an administrator
		return strings.HasPrefix(pg.Code, "57P") || strings.HasPrefix(pg.Code, "53") || strings.HasPrefix(pg.Code, "08")
	}
	return pgconn.Timeout(err) || pgconn.SafeToRetry(err)
}
