package ledger

import (
	"context"
	"crypto/rand"
	"fmt"
)

// secretBytes is as much as a signing key can use.
const secretBytes = 32

// Secret returns a random key that all replicas share, and that is made when it is
// asked for first. Who drops our schema ends everything that it signed.
func (l *Ledger) Secret(ctx context.Context, name string) ([]byte, error) {
	fresh := make([]byte, secretBytes)
	_, _ = rand.Read(fresh) // it cannot fail
	var key []byte
	err := l.pool.QueryRow(ctx, `INSERT INTO secret AS s (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = s.value RETURNING value`, name, fresh).Scan(&key)
	if err != nil {
		return nil, fmt.Errorf("read the secret %q: %w", name, err)
	}
	return key, nil
}
