package icl

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Rating is a row of ml_analysis_rating with a gold star, as far as an example needs it.
type Rating struct {
	ID          string
	Key         string // the conquest's
	Philosopher string
	Domain      string
	Type        string // the conquest's; "": none is stored
	At          int64  // created_at in microseconds since 1970, its order; see atSQL for what is no time
	Task        int64  // where the star was given, 0: not known
}

// compare orders oldest first; of those that were made at the same time the lowest
// id is the newest.
func (r *Rating) compare(o *Rating) int {
	return cmp.Or(cmp.Compare(r.At, o.At), -strings.Compare(r.ID, o.ID))
}

// texts is all that is stored of a conquest that an example can be made of.
type texts struct {
	prompts   []prompt
	responses []string
	tasks     []taskText
}

// prompt is a row of conquest_prompt.
type prompt struct{ text, system string }

// taskText is what a turn kept of a task.
type taskText struct {
	task                                          int64
	prompt, messages, response, system, corrected string
	annotation                                    int64
	annotatedAt                                   time.Time
}

// example makes the example of a rating: the one definition. The prompt is
// conquest_prompt's, else the task's; the response a person's newest correction, else
// conquest_response's, else the task's. A blank text counts as none. Of several tasks
// the one that was starred comes first. Where prompt or response lack, it is left out.
func example(r Rating, t texts) *Example {
	e := &Example{Rating: r}
	of := textsOf(t, r.Task)
	response := cmp.Or(corrected(t.tasks), of.Response)
	if len(of.Asked) == 0 || response == "" {
		return e
	}
	e.encode(append([]Message{{"system", cmp.Or(of.System, defaultSystem(r.Type))}}, of.Asked...), response)
	return e
}

// Texts are what the example of a conquest is made of where nobody has corrected it. What
// is not stored is empty.
type Texts struct {
	System   string    // the system prompt
	Asked    []Message // one message of the user, or a conversation
	Response string    // the model's
}

// textsOf chooses among what is stored; task is the one that was starred.
func textsOf(t texts, task int64) (of Texts) {
	tasks := slices.Clone(t.tasks)
	slices.SortFunc(tasks, func(a, b taskText) int {
		if (a.task == task) != (b.task == task) {
			return map[bool]int{true: -1, false: 1}[a.task == task]
		}
		return cmp.Compare(a.task, b.task)
	})
	of.Asked, of.System = asked(t.prompts, tasks)
	of.Response = answered(t.responses, tasks)
	return of
}

// defaultSystem is the system prompt where none is stored.
func defaultSystem(conquestType string) string {
	if conquestType == "" {
		return "You are an expert analyst."
	}
	return fmt.Sprintf("You are an expert %s analyst.", strings.ToLower(conquestType))
}

// asked is what was asked, and the system prompt that is stored.
func asked(prompts []prompt, tasks []taskText) (before []Message, system string) {
	for _, p := range prompts {
		if !blank(p.text) {
			before, system = []Message{{"user", p.text}}, p.system
			break
		}
	}
	for _, t := range tasks {
		if blank(system) {
			system = t.system
		}
		if len(before) == 0 && !blank(t.prompt) {
			before = []Message{{"user", t.prompt}}
		}
		if len(before) == 0 && t.messages != "" {
			said, own := split(t.messages)
			before = said
			if blank(system) {
				system = own
			}
		}
	}
	if blank(system) {
		system = ""
	}
	return before, system
}

// split takes a stored conversation apart into what was said and its system prompt.
func split(stored string) (said []Message, system string) {
	var all []Message
	if json.Unmarshal([]byte(stored), &all) != nil {
		return nil, "" // not one that a turn has stored
	}
	var systems []string
	for _, m := range all {
		if m.Role == "system" {
			systems = append(systems, m.Content)
		} else {
			said = append(said, m)
		}
	}
	return said, strings.Join(systems, "\n\n")
}

// corrected is a person's newest correction, "" where there is none.
func corrected(tasks []taskText) string {
	var newest *taskText
	for i := range tasks {
		t := &tasks[i]
		if !blank(t.corrected) && (newest == nil || cmp.Or(t.annotatedAt.Compare(newest.annotatedAt), cmp.Compare(t.annotation, newest.annotation)) > 0) {
			newest = t
		}
	}
	if newest == nil {
		return ""
	}
	return newest.corrected
}

// answered is the model's response.
func answered(responses []string, tasks []taskText) string {
	for _, s := range responses {
		if !blank(s) {
			return s
		}
	}
	for _, t := range tasks {
		if !blank(t.response) {
			return t.response
		}
	}
	return ""
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }
