package cdc

import (
	"context"
	"errors"
)

// Check connects as the stream would, and tells everything that keeps it from running. Each is an *Error: one of ClassOperator or
// ClassWrongServer is for a person to mend, any other means that it could not look. It makes nothing and takes no slot.
func (l *Listener) Check(ctx context.Context) (found []error) {
	conn, err := l.connect(ctx, true)
	if err != nil {
		return []error{err}
	}
	defer hangUp(ctx, conn)
	if err := checkServer(ctx, conn); err != nil {
		found = append(found, err)
	}
	if err := CheckPublication(ctx, conn, l.cfg.Publication, l.cfg.KeyColumn, l.cfg.Tables...); err != nil {
		found = append(found, err)
	}
	if _, err := findSlot(ctx, conn, l.cfg.Slot); err != nil {
		found = append(found, err)
	}
	return found
}

// Mendable tells whether an error is for a person to mend, and hands it over as one.
func Mendable(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e) && (e.Class == ClassOperator || e.Class == ClassWrongServer)
	return e, ok
}
