package api

import (
	"encoding/json"
	"net/http"
)

// problem answers with an error as RFC 9457 has it. detail says what to do.
func problem(w http.ResponseWriter, status int, detail string) {
	answer(w, "application/problem+json", status, map[string]any{
		"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail,
	})
}

func answer(w http.ResponseWriter, contentType string, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // our own texts and numbers
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // a caller who has gone needs no answer
}
