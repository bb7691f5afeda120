package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
)

// The compose file is one by the compose library's schema, all it mounts is there, and nothing but loopback is opened.
func TestCompose(t *testing.T) {
	t.Parallel()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	var env []string
	for _, name := range []string{"ARISTOTLE_ADMIN_PASSWORD", "RECONCILER_DB_PASSWORD", "RECONCILER_STREAM_PASSWORD", "LABEL_STUDIO_DB_PASSWORD",
		"LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_API_KEY", "RECONCILER_WEBHOOK_SECRET", "GRAFANA_PASSWORD"} {
		env = append(env, name+"=secret")
	}
	options, err := cli.NewProjectOptions([]string{filepath.Join(dir, "compose.yaml")}, cli.WithWorkingDirectory(dir), cli.WithEnv(env))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range project.Services {
		for _, v := range s.Volumes {
			if v.Type == "bind" {
				if _, err := os.Stat(v.Source); err != nil {
					t.Errorf("%s mounts %s: %v", s.Name, v.Target, err)
				}
			}
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s opens %s on %q", s.Name, p.Published, p.HostIP)
			}
		}
	}
	if len(project.Services) != 7 {
		t.Errorf("%d services", len(project.Services))
	}
}
