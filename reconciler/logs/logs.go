// Package logs is how the daemon speaks: one line for each change of state. What fails is told once, until it fails otherwise or
// works again, and then with how often it came. Of very many that fail at a time the first are told each, the others are counted
// together: the log must show what else there is. Every line of a turn carries the turn's id.
package logs

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// The keys of the attributes that are added here.
const (
	keyTurn   = "turn"
	keyError  = "error"
	keyTimes  = "times"
	keyBefore = "times_before" // how often it had failed otherwise
	keyLasted = "lasted"
	keyBeside = "beside" // how many are told each, where a line is of all the others
)

const (
	// remindAfter is when a failure that goes on is told again: a log is kept for days, and read from its end.
	remindAfter = time.Hour
	// maxSubjects bounds what is remembered and told each.
	maxSubjects = 100
)

// Failures remembers what fails. The zero value is ready; it is safe for concurrent use.
type Failures struct {
	mu    sync.Mutex
	known map[subject]*failure
}

// subject is what fails: a message, and of what, such as a key; or all of a message that there was no room for.
type subject struct {
	message, of string
	others      bool
}

type failure struct {
	text              string
	times             int
	first, told, last time.Time
}

// Log tells a failure, unless it was told in the same words and has not ended since. Another error of the same subject says how
// often the one before came.
func (f *Failures) Log(ctx context.Context, log *slog.Logger, level slog.Level, message, of string, err error, attrs ...slog.Attr) {
	more, tell := f.note(subject{message: message, of: of}, err.Error(), time.Now())
	if tell {
		log.LogAttrs(ctx, level, message, append(append([]slog.Attr{slog.Any(keyError, err)}, attrs...), more...)...)
	}
}

func (f *Failures) note(at subject, text string, now time.Time) (more []slog.Attr, tell bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known[at] == nil && at.of != "" && f.full(now) {
		at, text = subject{message: at.message, others: true}, "" // each has an error of its own
		more = append(more, slog.Int(keyBeside, maxSubjects))
	}
	known := f.known[at]
	if known != nil && known.text == text {
		known.times, known.last = known.times+1, now
		if now.Sub(known.told) < remindAfter {
			return nil, false
		}
		known.told = now
		return append(more, slog.Int(keyTimes, known.times), slog.Duration(keyLasted, now.Sub(known.first))), true
	}
	if known != nil {
		more = append(more, slog.Int(keyBefore, known.times))
	}
	if f.known == nil {
		f.known = map[subject]*failure{}
	}
	f.known[at] = &failure{text: text, times: 1, first: now, told: now, last: now}
	return more, true
}

// full tells whether there is no room for one more. What has not failed for long is made room of: it is over, and nobody said so.
func (f *Failures) full(now time.Time) bool {
	if len(f.known) >= maxSubjects {
		maps.DeleteFunc(f.known, func(_ subject, known *failure) bool { return now.Sub(known.last) > remindAfter })
	}
	return len(f.known) >= maxSubjects
}

// Over tells that what failed works again, once, with how often it had failed. Where nothing had, it does nothing.
func (f *Failures) Over(ctx context.Context, log *slog.Logger, message, of string, attrs ...slog.Attr) {
	tell := func(known *failure, attrs []slog.Attr) {
		if known != nil {
			log.LogAttrs(ctx, slog.LevelInfo, "works again: "+message,
				append([]slog.Attr{slog.Int(keyTimes, known.times), slog.Duration(keyLasted, time.Since(known.first))}, attrs...)...)
		}
	}
	known, others := f.end(subject{message: message, of: of})
	tell(known, attrs)
	tell(others, []slog.Attr{slog.Int(keyBeside, maxSubjects)})
}

// end forgets a failure, and with the last of its message all the others: one of them that failed again had room.
func (f *Failures) end(at subject) (known, others *failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known = f.known[at]; known == nil {
		return nil, nil
	}
	delete(f.known, at)
	for left := range f.known {
		if left.message == at.message && !left.others {
			return known, nil
		}
	}
	rest := subject{message: at.message, others: true}
	others = f.known[rest]
	delete(f.known, rest)
	return known, others
}

type turnKey struct{}

// WithTurn makes every line of ctx carry the turn's id.
func WithTurn(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, turnKey{}, id)
}

// Handler adds the turn's id to each record, and lets text say how an error reads; nil: as it is.
type Handler struct {
	slog.Handler
	Text func(error) string
}

// Handle is slog's.
func (h Handler) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	if id, ok := ctx.Value(turnKey{}).(string); ok {
		out.AddAttrs(slog.String(keyTurn, id))
	}
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok && h.Text != nil {
			a.Value = slog.StringValue(h.Text(err))
		}
		out.AddAttrs(a)
		return true
	})
	return h.Handler.Handle(ctx, out)
}

// WithAttrs is slog's.
func (h Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return Handler{h.Handler.WithAttrs(attrs), h.Text}
}

// WithGroup is slog's.
func (h Handler) WithGroup(name string) slog.Handler {
	return Handler{h.Handler.WithGroup(name), h.Text}
}
