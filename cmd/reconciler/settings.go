package main

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// setting is one field of [Config].
type setting struct {
	env, help, group string
	// def is the default; shown describes one that is not a text.
	def, shown string
	value      reflect.Value
}

// settings lists the fields of c in their order.
func settings(c *Config) []setting {
	v := reflect.ValueOf(c).Elem()
	var all []setting
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		all = append(all, setting{env: tag.Get("env"), help: tag.Get("help"), group: tag.Get("group"),
			def: tag.Get("default"), shown: tag.Get("shown"), value: v.Field(i)})
	}
	return all
}

// secret says whether the setting must not be shown and may come from a file.
func (s setting) secret() bool {
	switch s.value.Interface().(type) {
	case Secret, DSN:
		return true
	}
	return false
}

// mayHoldPassword says whether a text that is no secret by its kind must not be quoted all the same: somebody wrote user:password@ into it.
func (s setting) mayHoldPassword(text string) bool {
	_, url := s.value.Interface().(BaseURL)
	return url && strings.Contains(text, "@")
}

func (s setting) bool() bool { return s.value.Kind() == reflect.Bool }

// names are the variables that set it.
func (s setting) names() []string {
	if s.secret() {
		return []string{s.env, s.env + "_FILE"}
	}
	return []string{s.env}
}

// flagOf and keyOf are the other two names of a variable.
func flagOf(env string) string { return strings.ReplaceAll(keyOf(env), "_", "-") }
func keyOf(env string) string  { return strings.ToLower(strings.TrimPrefix(env, "RECONCILER_")) }

// source is one place that settings come from: texts by the name of the variable.
type source struct {
	texts map[string]string
	// word is how the user wrote the name there.
	word func(env string) string
}

// loaded is the outcome of [load].
type loaded struct {
	config   Config
	warnings []string
	again    func() (loaded, []string) // reads everything once more; set by [parse]
}

// load gathers the settings of a command from flags (by variable name), environment and YAML file, and tells every problem,
// a sentence each. Without a command, as where the command line was wrong itself or a daemon looks again, nothing counts as missing.
func load(command string, flags map[string]string, environ []string) (loaded, []string) {
	var l loaded
	all := settings(&l.config)
	env, warnings := fromEnvironment(environ, all)
	l.warnings = warnings
	sources := []source{
		{flags, func(env string) string { return "--" + flagOf(env) }},
		{env, func(env string) string { return env }},
	}
	var problems []string
	if path, where, _ := (setting{env: "RECONCILER_CONFIG"}).resolve(sources); path != "" {
		file, more := fromFile(path, all)
		for _, p := range more {
			problems = append(problems, where+": "+p)
		}
		sources = append(sources, source{file, func(env string) string { return keyOf(env) + " in " + path }})
	}
	for _, s := range all {
		text, where, err := s.resolve(sources)
		if err == nil {
			err = s.set(text, where)
		}
		if err != nil {
			problems = append(problems, err.Error())
		}
	}
	// What holds between settings is only worth telling once each of them can be read.
	if len(problems) == 0 {
		l.config.fillIn()
		problems = append(problems, l.config.validate(command)...)
	}
	return l, problems
}

// resolve finds the text that counts, and the word by which the user set it ("" for the default).
func (s setting) resolve(sources []source) (text, where string, err error) {
	for _, src := range sources {
		text, direct := src.texts[s.env]
		path, byFile := src.texts[s.env+"_FILE"] // known for secrets alone
		switch {
		case direct && byFile:
			return "", "", fmt.Errorf("%s and %s are both set: keep one", src.word(s.env), src.word(s.env+"_FILE"))
		case direct:
			return text, src.word(s.env), nil
		case byFile:
			text, err := readSecret(path)
			if err != nil {
				return "", "", fmt.Errorf("%s: %w", src.word(s.env+"_FILE"), err)
			}
			return text, src.word(s.env + "_FILE"), nil
		}
	}
	return s.def, "", nil
}

// secretLimit is far above any key or DSN: a wrong path should not fill the memory.
const secretLimit = 64 << 10

// readSecret reads a secret's file; the line break that editors and `echo` put at its end is none of it.
func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("open the secret's file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, secretLimit))
	if err != nil {
		return "", fmt.Errorf("read the secret's file: %w", err)
	}
	text := strings.TrimRight(string(b), "\r\n")
	if text == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return text, nil
}

// set parses text into the field. The error names the setting as the user wrote it, and shows no secret.
func (s setting) set(text, where string) error {
	if text == "" {
		if s.def != "" {
			return fmt.Errorf("%s: must not be empty (default: %s)", where, s.def)
		}
		return nil
	}
	err := parseText(s.value.Addr().Interface(), text)
	switch {
	case err == nil:
		return nil
	case s.secret() || s.mayHoldPassword(text):
		return fmt.Errorf("%s: %w", where, err)
	}
	return fmt.Errorf("%s: %q %w", where, text, err)
}

func parseText(into any, text string) (err error) {
	switch v := into.(type) {
	case *string:
		*v = text
	case *bool:
		if *v, err = strconv.ParseBool(text); err != nil {
			return errors.New("must be true or false")
		}
	case *time.Duration:
		if *v, err = time.ParseDuration(text); err != nil {
			return errors.New("is no duration as in 60s or 1m30s")
		}
	case *slog.Level:
		if err := v.UnmarshalText([]byte(text)); err != nil {
			return errors.New("must be one of debug, info, warn, error")
		}
	case encoding.TextUnmarshaler:
		return v.UnmarshalText([]byte(text))
	default:
		return fmt.Errorf("cannot be set: no rule for %T", into)
	}
	return nil
}

// fromEnvironment picks out our variables. One that begins like ours and is none is worth a warning, no more: orchestrators
// inject such names. What begins with RECONCILER_SANDBOX_ belongs to the sandboxes, which read it themselves.
func fromEnvironment(environ []string, all []setting) (texts map[string]string, warnings []string) {
	known := knownNames(all)
	texts = map[string]string{}
	for _, pair := range environ {
		name, text, _ := strings.Cut(pair, "=")
		switch {
		case known[name]:
			if text != "" {
				texts[name] = text
			}
		case strings.HasPrefix(name, "RECONCILER_") && !strings.HasPrefix(name, "RECONCILER_SANDBOX_"):
			warnings = append(warnings, fmt.Sprintf("%s in the environment is no setting%s", name, didYouMean(name, known)))
		}
	}
	return texts, warnings
}

func knownNames(all []setting) map[string]bool {
	known := map[string]bool{}
	for _, s := range all {
		for _, name := range s.names() {
			known[name] = true
		}
	}
	return known
}

// fromFile reads the YAML file: one mapping from names to scalars, or to lists of scalars where a list is meant.
func fromFile(path string, all []setting) (texts map[string]string, problems []string) {
	f, err := os.Open(path)
	if err != nil {
		return nil, []string{err.Error()}
	}
	defer f.Close()
	var doc yaml.Node
	switch err := yaml.NewDecoder(f).Decode(&doc); {
	case errors.Is(err, io.EOF): // an empty file
		return nil, nil
	case err != nil:
		return nil, []string{fmt.Sprintf("read %s: %v", path, err)}
	case len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode:
		return nil, []string{path + " is no list of settings, each `name: value`"}
	}
	byKey, known := map[string]string{}, map[string]bool{}
	for name := range knownNames(all) {
		if name != "RECONCILER_CONFIG" {
			byKey[keyOf(name)], known[keyOf(name)] = name, true
		}
	}
	texts = map[string]string{}
	pairs := doc.Content[0].Content
	for i := 0; i < len(pairs); i += 2 {
		key, place := pairs[i].Value, fmt.Sprintf("%s:%d", path, pairs[i].Line)
		name, ok := byKey[key]
		if !ok {
			problems = append(problems, fmt.Sprintf("%s: %q is no setting%s", place, key, didYouMean(key, known)))
			continue
		}
		text, err := scalar(pairs[i+1])
		if _, twice := texts[name]; twice {
			err = errors.New("is set twice")
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %s %v", place, key, err))
			continue
		}
		texts[name] = text
	}
	return texts, problems
}

// scalar is the text of a value; a list of scalars is joined by commas.
func scalar(n *yaml.Node) (string, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return "", nil
	case n.Kind == yaml.ScalarNode:
		return n.Value, nil
	case n.Kind != yaml.SequenceNode:
		return "", errors.New("must be a text, a number or a list of them")
	}
	var items []string
	for _, item := range n.Content {
		if item.Kind != yaml.ScalarNode {
			return "", errors.New("must be a list of texts or numbers")
		}
		items = append(items, item.Value)
	}
	return strings.Join(items, ","), nil
}
