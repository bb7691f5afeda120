package main

import (
	"runtime/debug"
	"time"
)

// buildInfo says what is running. Everything in it was stamped by the go command from the checkout that it built, so that the
// same checkout gives the same bytes; a build from anything else has empty fields.
type buildInfo struct {
	Version  string // the tag, or a version made of the time and the commit; "(devel)" where there was no checkout
	Revision string // the whole commit
	Time     string // of the commit, RFC 3339
	Modified bool   // the checkout had changes that were not committed
	Go       string // "go1.26.8"
}

// readBuild returns what is running.
func readBuild() buildInfo {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return buildInfo{Version: "(devel)"}
	}
	b := buildInfo{Version: info.Main.Version, Go: info.GoVersion}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// String is one line for people: "v1.2.3 (31700d8, 2026-11-24, go1.26.8)".
func (b buildInfo) String() string {
	commit := "no commit"
	if len(b.Revision) >= 7 {
		commit = b.Revision[:7]
	}
	if b.Modified {
		commit += " and changes"
	}
	if at, err := time.Parse(time.RFC3339, b.Time); err == nil {
		commit += ", " + at.Format(time.DateOnly)
	}
	return b.Version + " (" + commit + ", " + b.Go + ")"
}
