package auth

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parse reads a tokens file: a YAML list of mappings. An empty file has no tokens.
func parse(text []byte) ([]entry, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err // it names the line, and quotes no value
	}
	var more yaml.Node
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("it must be one YAML document")
	}
	list := doc.Content[0]
	if list.Kind == yaml.ScalarNode && list.Tag == "!!null" {
		return nil, nil
	}
	if list.Kind != yaml.SequenceNode {
		return nil, at(list, "it must be a list, each item with name, email, sha256 and scopes")
	}
	var entries []entry
	for _, item := range list.Content {
		e, err := parseEntry(item)
		if err != nil {
			return nil, err
		}
		for _, other := range entries {
			if other.caller.Name == e.caller.Name {
				return nil, at(item, "the name %q is there twice", e.caller.Name)
			}
			if other.hash == e.hash {
				return nil, at(item, "%s and %s have the same sha256: give each a token of its own", other.caller.Name, e.caller.Name)
			}
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func at(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("line %d: "+format, append([]any{n.Line}, args...)...)
}

func parseEntry(item *yaml.Node) (e entry, err error) {
	if item.Kind != yaml.MappingNode {
		return entry{}, at(item, "a token must be a mapping with name, email, sha256 and scopes")
	}
	seen := map[string]bool{}
	for i := 0; i < len(item.Content); i += 2 {
		key, value := item.Content[i], item.Content[i+1]
		if seen[key.Value] {
			return entry{}, at(key, "%s is there twice", key.Value)
		}
		seen[key.Value] = true
		if err := e.set(key, value); err != nil {
			return entry{}, err
		}
	}
	for _, name := range []string{"name", "sha256", "scopes"} {
		if !seen[name] {
			return entry{}, at(item, "%s is missing", name)
		}
	}
	if e.caller.Email == "" && (e.caller.Has(Curate) || e.caller.Has(Admin)) {
		return entry{}, at(item, "email is missing: on the curation page it says who did something")
	}
	return e, nil
}

// set reads one key of a token.
func (e *entry) set(key, value *yaml.Node) (err error) {
	switch key.Value {
	case "name":
		e.caller.Name, err = text(key, value)
	case "email":
		e.caller.Email, err = text(key, value)
	case "philosopher":
		e.caller.Philosopher, err = text(key, value)
	case "domain":
		e.caller.Domain, err = text(key, value)
	case "sha256":
		return e.setHash(key, value)
	case "scopes":
		e.caller.Scopes, err = scopes(value)
	default:
		return at(key, "%q is no key: there are name, email, sha256, scopes, philosopher, domain", key.Value)
	}
	return err
}

// text is a value that is one. An empty one would be no limit where a limit was meant.
func text(key, value *yaml.Node) (string, error) {
	if value.Kind != yaml.ScalarNode || value.Tag != "!!str" || value.Value == "" || strings.ContainsRune(value.Value, 0) {
		return "", at(value, "%s must be a text that is not empty", key.Value)
	}
	return value.Value, nil
}

func (e *entry) setHash(key, value *yaml.Node) error {
	// The value is not quoted: somebody may have put the token itself there. Digits
	// alone are no text for YAML.
	raw, err := hex.DecodeString(value.Value)
	if value.Kind != yaml.ScalarNode || err != nil || len(raw) != len(e.hash) || strings.ToLower(value.Value) != value.Value {
		return at(value, "%s must be the SHA-256 of the token as 64 digits of lower-case hex: printf %%s TOKEN | sha256sum", key.Value)
	}
	if sha256.Sum256(nil) == [sha256.Size]byte(raw) {
		return at(value, "%s is that of no text at all: everybody would have this token", key.Value)
	}
	e.hash = [sha256.Size]byte(raw)
	return nil
}

func scopes(value *yaml.Node) ([]Scope, error) {
	if value.Kind != yaml.SequenceNode || len(value.Content) == 0 {
		return nil, at(value, "scopes must be a list of some of icl, sync, curate, admin")
	}
	var all []Scope
	for _, item := range value.Content {
		s := Scope(item.Value)
		if item.Kind != yaml.ScalarNode || !slices.Contains([]Scope{ICL, Sync, Curate, Admin}, s) {
			return nil, at(item, "%q is no scope: there are icl, sync, curate, admin", item.Value)
		}
		if slices.Contains(all, s) {
			return nil, at(item, "%s is there twice", s)
		}
		all = append(all, s)
	}
	return all, nil
}
