// Command checks writes the Grafana dashboard; its tests check what stands in the folder deploy that a library knows better
// than we do: the dashboard, the compose file, the Kubernetes manifests.
//
// It is a module of its own so that none of these libraries becomes a dependency of the daemon.
//
//	go run . >../grafana/reconciler.json
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := write(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "checks:", err)
		os.Exit(1)
	}
}

func write(w io.Writer) error {
	board, err := newBoard().Build()
	if err != nil {
		return fmt.Errorf("build the dashboard: %w", err)
	}
	for i := range board.Panels { // a link to a panel is its number
		id := uint32(i + 1)
		if p := board.Panels[i]; p.Panel != nil {
			p.Panel.Id = &id
		} else {
			p.RowPanel.Id = id
		}
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // expressions are full of < and >
	e.SetIndent("", "  ")
	return e.Encode(board)
}
