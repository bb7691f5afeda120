package main

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// flagSource makes kong read the settings as flags. Kong finds the text of each and prints the help; what a text means, and
// what environment and file say, is [load]'s business: kong stops at the first problem, and quotes the values of variables
// in its errors, secrets among them.
type flagSource struct {
	flags map[string]*kong.Flag // by variable name
	order []*kong.Flag
}

// newFlagSource makes a flag for every setting of c and every file of a secret.
func newFlagSource(c *Config) *flagSource {
	fs := &flagSource{flags: map[string]*kong.Flag{}}
	for _, s := range settings(c) {
		for _, name := range s.names() {
			f := s.flag(name)
			fs.flags[name] = f
			fs.order = append(fs.order, f)
		}
	}
	return fs
}

func (s setting) flag(name string) *kong.Flag {
	f := &kong.Flag{
		Value: &kong.Value{
			Name:   flagOf(name),
			Help:   s.describe(),
			Tag:    &kong.Tag{},
			Target: reflect.ValueOf(new(string)).Elem(),
			Mapper: flagText{s.bool()},
		},
		Group:       &kong.Group{Key: s.group, Title: s.group + ":"},
		PlaceHolder: "TEXT",
		Hidden:      name != s.env, // the help of the setting mentions its _FILE
	}
	f.Value.Flag = f
	return f
}

// describe is the help of a setting: what it is, its variable and its default.
func (s setting) describe() string {
	text := s.help + " [" + s.env
	if s.secret() {
		text += " or " + s.env + "_FILE"
	}
	switch {
	case s.shown != "":
		text += "; default: " + s.shown
	case s.def != "":
		text += "; default: " + s.def
	}
	return text + "]"
}

// addTo is for [kong.PostBuild].
func (fs *flagSource) addTo(k *kong.Kong) error {
	k.Model.Flags = append(k.Model.Flags, fs.order...)
	return nil
}

// help is for [kong.Help]. It shows the settings that the command uses; without a command none, behind which the commands would be lost.
func (fs *flagSource) help(options kong.HelpOptions, ctx *kong.Context) error {
	command, _, _ := strings.Cut(ctx.Command(), " ")
	for name, f := range fs.flags {
		f.Hidden = f.Hidden || ctx.Selected() == nil || !uses(command, name)
	}
	return kong.DefaultHelpPrinter(options, ctx)
}

// given are the texts of the flags that were on the command line, by variable name.
func (fs *flagSource) given() map[string]string {
	texts := map[string]string{}
	for name, f := range fs.flags {
		if f.Set {
			texts[name] = f.Target.String()
		}
	}
	return texts
}

// flagText reads the text after a flag; a switch may stand alone.
type flagText struct{ alone bool }

// IsBool tells kong that the flag needs no text.
func (m flagText) IsBool() bool { return m.alone }

// Decode is kong's Mapper.
func (m flagText) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	if m.alone && ctx.Scan.Peek().Type != kong.FlagValueToken {
		target.SetString("true")
		return nil
	}
	token, err := ctx.Scan.PopValue("text")
	if err != nil {
		return errors.New("a text must follow")
	}
	target.SetString(token.String())
	return nil
}

// withoutUnknownFlags takes the long flags that no command has out of args, with a problem for each, since kong would stop at
// the first. The word after such a flag is taken for its value unless it is a flag or a command itself.
func withoutUnknownFlags(app *kong.Application, args []string) (rest, problems []string) {
	known, command := map[string]bool{}, map[string]bool{}
	_ = kong.Visit(app, func(node kong.Visitable, next kong.Next) error {
		switch n := node.(type) {
		case *kong.Flag:
			known["--"+n.Name] = true
		case *kong.Node:
			command[n.Name] = true
		}
		return next(nil)
	})
	for i := 0; i < len(args); i++ {
		name, _, hasText := strings.Cut(args[i], "=")
		switch {
		case args[i] == "--":
			return append(rest, args[i:]...), problems
		case !strings.HasPrefix(name, "--") || known[name]:
			rest = append(rest, args[i])
			continue
		}
		problems = append(problems, fmt.Sprintf("%s is no flag%s", name, didYouMean(name, known)))
		if i+1 < len(args) && !hasText && !strings.HasPrefix(args[i+1], "-") && !command[args[i+1]] {
			i++
		}
	}
	return rest, problems
}

// didYouMean names the known word that is nearest to word, where one is near enough to be a slip of the finger.
func didYouMean(word string, known map[string]bool) string {
	best, nearest := "", len(word)/4+1 // a letter in four may be wrong
	for _, k := range slices.Sorted(maps.Keys(known)) {
		if d := distance(word, k); d < nearest {
			best, nearest = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance is Levenshtein's: how many letters must be added, dropped or changed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
