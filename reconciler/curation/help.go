package curation

import "net/http"

// showHelp says what the star means, and which keys there are.
func (a *App) showHelp(w http.ResponseWriter, r *http.Request) error {
	return a.render(w, r, http.StatusOK, "help", "Help", syncStates())
}
