package cdc

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Class says what an error asks for. The list is closed: it can label a metric.
type Class string

// The classes of errors. All but ClassOperator pass by themselves, or are repaired by the listener.
const (
	ClassTransient   Class = "transient"    // connection lost, server starting or stopping: try again
	ClassSlotBusy    Class = "slot_busy"    // somebody reads the slot: our own old connection, or another replica. Wait
	ClassSlotGone    Class = "slot_gone"    // the slot or the publication's past is lost: the slot is made anew
	ClassWrongServer Class = "wrong_server" // a standby answered: try again, the name may lead elsewhere by then
	ClassHandle      Class = "handle"       // Handle or OnSlotCreated failed: the same changes come again
	ClassMalformed   Class = "malformed"    // the stream could not be read: nothing of it is confirmed
	ClassOperator    Class = "operator"     // a person has to do something: see Hint
)

// Error is a failure of the listener.
type Error struct {
	Op    string // what was being done, as "connect"
	Class Class
	Hint  string // what a person can do about it, one sentence; may be empty
	Err   error
}

// Error has the hint at its end, so that it is not lost where only text survives.
func (e *Error) Error() string {
	if e.Hint == "" {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("%s: %v (%s)", e.Op, e.Err, e.Hint)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrorClass classifies any error that came from this package; one that it does not know is transient.
func ErrorClass(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	class, _ := judge(err)
	return class
}

const (
	hintSetup = "run `reconciler setup`"
	hintRole  = "the role needs LOGIN and REPLICATION, on RDS membership in rds_replication: run `reconciler setup`"
	hintLogin = "check user and password of the replication URL and pg_hba.conf, where logical replication matches the database's name, not the word replication"
)

// wrap says what was being done. What is an Error already keeps its class and hint.
func wrap(op string, err error) error {
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	class, hint := judge(err)
	return &Error{Op: op, Class: class, Hint: hint, Err: err}
}

// judge decides by SQLSTATE alone: texts differ between versions and languages.
func judge(err error) (class Class, hint string) {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return ClassTransient, ""
	}
	switch code := pg.Code; {
	case strings.HasPrefix(code, "28"):
		return ClassOperator, hintLogin
	case code == "3D000":
		return ClassOperator, "check the database's name in the replication URL"
	case code == "42501":
		return ClassOperator, hintRole
	case code == "08P01": // what a pooler says to the start-up parameter "replication"
		return ClassOperator, "the replication URL must lead to PostgreSQL itself, not to a pooler"
	case code == "53400":
		return ClassOperator, "raise max_replication_slots and restart PostgreSQL, or drop a slot that nobody needs"
	case code == "55006":
		return ClassSlotBusy, ""
	case code == "42704", code == "55000":
		return ClassSlotGone, ""
	case code == "25006", code == "0A000":
		return ClassWrongServer, ""
	default:
		return ClassTransient, ""
	}
}

// sqlState is the server's code for an error, empty where it did not come from a server.
func sqlState(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}
