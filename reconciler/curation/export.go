package curation

import "net/http"

func (a *App) showExport(w http.ResponseWriter, r *http.Request) error { return nil }
func (a *App) download(w http.ResponseWriter, r *http.Request) error   { return nil }
