package main

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// scramIterations and scramSalt are PostgreSQL's own defaults (SCRAM_SHA_256_DEFAULT_ITERATIONS, SCRAM_DEFAULT_SALT_LEN).
const (
	scramIterations = 4096
	scramSalt       = 16
)

var errPasswordCharacters = errors.New("has characters outside printable ASCII, which clients normalise in different ways: choose another")

// scramVerifier is what PostgreSQL stores for a password (RFC 5803): from it nobody can log in, so it may stand in SQL that is
// printed, logged by the server or seen in pg_stat_activity. PostgreSQL takes a PASSWORD of this form as it is.
func scramVerifier(password string, salt []byte, iterations int) (string, error) {
	// For such characters SASLprep (RFC 4013) is the identity; elsewhere a client's idea of it would have to be ours.
	if strings.ContainsFunc(password, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", errPasswordCharacters
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("derive the key: %w", err)
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	storedKey := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(storedKey[:]), b64(mac("Server Key"))), nil
}

// scramMatches says whether a stored verifier is that of the password. One of another kind (md5, none) does not match.
func scramMatches(verifier, password string) bool {
	rest, ok := strings.CutPrefix(verifier, "SCRAM-SHA-256$")
	head, _, ok2 := strings.Cut(rest, "$")
	count, salt64, ok3 := strings.Cut(head, ":")
	iterations, err := strconv.Atoi(count)
	salt, err2 := base64.StdEncoding.DecodeString(salt64)
	if !ok || !ok2 || !ok3 || err != nil || err2 != nil {
		return false
	}
	want, err := scramVerifier(password, salt, iterations)
	return err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(verifier)) == 1
}
