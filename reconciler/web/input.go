package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// ReadBody reads a body of at most limit bytes. A larger one is a 413, one that does
// not arrive whole a 400.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit { // why wait for what will be refused
		return nil, tooLarge(limit)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, tooLarge(limit)
	case err != nil:
		return nil, Refuse(http.StatusBadRequest, "The body did not arrive whole.")
	}
	return body, nil
}

func tooLarge(limit int64) error {
	if limit >= 1<<20 {
		return Refuse(http.StatusRequestEntityTooLarge, "The body may have %d MiB.", limit>>20)
	}
	return Refuse(http.StatusRequestEntityTooLarge, "The body may have %d KiB.", limit>>10)
}

// ReadJSON reads a body that is one JSON object into the struct that into points to.
// Its fields have json tags, and are texts, numbers, booleans or pointers to them:
// what is left out, or null, leaves the zero value. It is strict, and every refusal
// names the field: a key that is no field (also by its case), one that is there
// twice, another type, a text with NUL, which PostgreSQL cannot hold.
func ReadJSON(w http.ResponseWriter, r *http.Request, limit int64, into any) error {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return Refuse(http.StatusUnsupportedMediaType, "Send JSON, with Content-Type: application/json.")
	}
	if r.Header.Get("Content-Encoding") != "" {
		return Refuse(http.StatusUnsupportedMediaType, "Send the body as it is, without Content-Encoding.")
	}
	body, err := ReadBody(w, r, limit)
	if err != nil {
		return err
	}
	return parseObject(body, into)
}

// parseObject is ReadJSON once the body is there. encoding/json alone takes "ID" for
// "id", the last of two, and U+FFFD for what is no UTF-8.
func parseObject(body []byte, into any) error {
	if !utf8.Valid(body) {
		return Refuse(http.StatusBadRequest, "The body is not UTF-8.")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return notAnObject()
	}
	fields, names := fieldsOf(into)
	seen := map[string]bool{}
	for d.More() {
		key, err := d.Token()
		name, isText := key.(string)
		if err != nil || !isText {
			return notAnObject()
		}
		field, known := fields[name]
		switch {
		case !known:
			return Refuse(http.StatusBadRequest, "%s is no field: there are %s.", quote(name), strings.Join(names, ", "))
		case seen[name]:
			return Refuse(http.StatusBadRequest, "%s is there twice.", name)
		}
		seen[name] = true
		if err := decodeField(d, name, field); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil { // the brace at the end
		return notAnObject()
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Refuse(http.StatusBadRequest, "The body goes on after its JSON object.")
	}
	return nil
}

func notAnObject() error { return Refuse(http.StatusBadRequest, "The body must be one JSON object.") }

func decodeField(d *json.Decoder, name string, field reflect.Value) error {
	err := d.Decode(field.Addr().Interface())
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		return Refuse(http.StatusBadRequest, "%s must be %s, not %s.", name, kindOf(field.Type()), article(wrong.Value))
	case err != nil:
		return notAnObject()
	}
	if field.Kind() == reflect.Pointer {
		field = field.Elem() // the zero Value for nil
	}
	if field.Kind() == reflect.String && strings.ContainsRune(field.String(), 0) {
		return Refuse(http.StatusBadRequest, "%s holds a NUL character, which cannot be stored.", name)
	}
	return nil
}

// fieldsOf returns the fields of a struct by the names of their json tags.
func fieldsOf(into any) (fields map[string]reflect.Value, names []string) {
	v := reflect.ValueOf(into).Elem()
	fields = map[string]reflect.Value{}
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		fields[name], names = v.Field(i), append(names, name)
	}
	return fields, names
}

func kindOf(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.String:
		return "a text"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case reflect.Zero(t).CanInt():
		return "a whole number"
	}
	return "a " + t.Kind().String()
}

func article(value string) string {
	if word, _, _ := strings.Cut(value, " "); word == "object" || word == "array" {
		return "an " + word
	} else if word == "string" {
		return "a text"
	} else if word == "bool" {
		return "true or false"
	} else {
		return "a " + word
	}
}

// maxQuoted bounds what is shown to a caller of what it sent, in bytes.
const maxQuoted = 60

func quote(text string) string {
	if len(text) > maxQuoted {
		text = strings.ToValidUTF8(text[:maxQuoted], "") + "…"
	}
	return fmt.Sprintf("%q", text)
}

// Query reads the query of a request: each parameter one of those known, once, and a
// text that PostgreSQL can hold. The refusals name the parameter.
func Query(r *http.Request, known ...string) (url.Values, error) {
	all, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, Refuse(http.StatusBadRequest, "The query cannot be read: write special characters as %%XX.")
	}
	for name, values := range all {
		switch {
		case !slices.Contains(known, name) && len(known) == 0:
			return nil, Refuse(http.StatusBadRequest, "%s is no parameter: there are none.", quote(name))
		case !slices.Contains(known, name):
			return nil, Refuse(http.StatusBadRequest, "%s is no parameter: there are %s.", quote(name), strings.Join(known, ", "))
		case len(values) > 1:
			return nil, Refuse(http.StatusBadRequest, "%s is there twice.", name)
		case !utf8.ValidString(values[0]) || strings.ContainsRune(values[0], 0):
			return nil, Refuse(http.StatusBadRequest, "%s is no UTF-8 text, or holds a NUL character.", name)
		}
	}
	return all, nil
}
