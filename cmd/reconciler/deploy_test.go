package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Each way to deploy starts the program with a command line and settings that it takes: no word is unknown, and no door is open without a lock.
func TestDeployedSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"aristotle_database_url": "postgres://reconciler:p@h/d", "aristotle_replication_url": "postgres://reconciler_stream:p@h/d",
		"label_studio_api_key": "key", "webhook_secret": "hook", "tokens": "[]\n"} {
		write(t, filepath.Join(dir, name), text)
	}
	read := func(path string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join("..", "..", "deploy", path))
		if err != nil {
			t.Fatal(err)
		}
		return strings.NewReplacer("/run/secrets/reconciler/", dir+"/", "/run/secrets/", dir+"/", "%d/", dir+"/",
			"/etc/reconciler/reconciler.yaml", filepath.Join(dir, "reconciler.yaml")).Replace(string(text))
	}
	known := knownNames(settings(new(Config)))
	takes := func(what string, args, environ []string) {
		t.Helper()
		if _, _, err := parse(&commands{}, args, environ); err != nil {
			t.Errorf("%s: reconciler %s: %v", what, strings.Join(args, " "), err)
		}
		for _, pair := range environ {
			if name, _, _ := strings.Cut(pair, "="); !known[name] && name != "GOMEMLIMIT" {
				t.Errorf("%s: %s is no setting", what, name)
			}
		}
	}
	_, after, _ := strings.Cut(read("Dockerfile"), "\nENV ")
	text, _, _ := strings.Cut(after, "\nEXPOSE")
	image := strings.Fields(strings.ReplaceAll(text, `\`, ""))

	var compose struct {
		Services map[string]struct {
			Image       string
			Command     []string
			Environment map[string]string
		}
	}
	if err := yaml.Unmarshal([]byte(regexp.MustCompile(`\$\{[^}]*\}`).ReplaceAllString(read("compose.yaml"), "word")), &compose); err != nil {
		t.Fatal(err)
	}
	found := 0
	for name, s := range compose.Services {
		if s.Image != "reconciler" {
			continue
		}
		found++
		env := image[:len(image):len(image)]
		for name, value := range s.Environment {
			env = append(env, name+"="+value)
		}
		if s.Command == nil {
			s.Command = []string{"run"} // the image's
		}
		takes("compose, "+name, s.Command, env)
	}

	for _, doc := range strings.Split(read("kubernetes/reconciler.yaml"), "\n---\n") {
		var object struct {
			Kind string
			Data map[string]string
			Spec struct {
				Template struct {
					Spec struct{ Containers []struct{ Args []string } }
				}
			}
		}
		if err := yaml.Unmarshal([]byte(doc), &object); err != nil {
			t.Fatal(err)
		}
		switch object.Kind {
		case "ConfigMap": // stands before the deployment
			write(t, filepath.Join(dir, "reconciler.yaml"), object.Data["reconciler.yaml"])
		case "Deployment":
			found++
			takes("kubernetes", object.Spec.Template.Spec.Containers[0].Args, image)
		}
	}

	write(t, filepath.Join(dir, "reconciler.yaml"), read("reconciler.example.yaml"))
	unit := read("reconciler.service")
	var env []string
	for _, m := range regexp.MustCompile(`(?m)^Environment=(.*)$`).FindAllStringSubmatch(unit, -1) {
		env = append(env, strings.Fields(m[1])...)
	}
	if m := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/reconciler (.*)$`).FindStringSubmatch(unit); m != nil {
		found++
		takes("systemd", strings.Fields(m[1]), env)
	}
	if found != 4 {
		t.Errorf("found %d command lines, want those of two services, a deployment and a unit", found)
	}
}
