package logs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/reconciler/logs"
)

// A failure is told once, again after an hour, when it changes and when it is over, with how often it came.
func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		log := slog.New(logs.Handler{Handler: slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}), Text: func(err error) string { return "plain " + err.Error() }})
		ctx := logs.WithTurn(t.Context(), "t-1")
		var f logs.Failures
		fail := func(ctx context.Context, text string, times int) {
			for range times {
				f.Log(ctx, log, slog.LevelWarn, "turn", "k", errors.New(text), slog.String("key", "k"))
			}
		}
		f.Over(ctx, log, "turn", "k") // nothing had failed
		fail(ctx, "a", 3)
		fail(t.Context(), "b", 2)
		time.Sleep(time.Hour) // the bubble's clock
		fail(ctx, "b", 5)
		f.Log(ctx, log, slog.LevelError, "turn", "other", errors.New("b"))
		f.Over(ctx, log, "turn", "k", slog.String("key", "k"))
		fail(ctx, "b", 1)
		want := `level=WARN msg=turn turn=t-1 error="plain a" key=k
level=WARN msg=turn error="plain b" key=k times_before=3
level=WARN msg=turn turn=t-1 error="plain b" key=k times=3 lasted=1h0m0s
level=ERROR msg=turn turn=t-1 error="plain b"
level=INFO msg="works again: turn" turn=t-1 times=7 lasted=1h0m0s key=k
level=WARN msg=turn turn=t-1 error="plain b" key=k
`
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Of very many that fail some are told each, the others are counted together: at first, after an hour, and when it is over. Nothing else is lost among them.
func TestManyFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys, rounds = 400, 14
		var out strings.Builder
		log := slog.New(slog.NewTextHandler(&out, nil))
		var f logs.Failures
		told := func(what string, warnings, over int, last string) {
			t.Helper()
			text := out.String()
			if w, o := strings.Count(text, "level=WARN"), strings.Count(text, "level=INFO"); w != warnings || o != over || !strings.Contains(text, last) {
				t.Errorf("%s: %d failures and %d ends were told, want %d and %d with %q", what, w, o, warnings, over, last)
			}
			out.Reset()
		}
		fail := func() {
			for k := range keys {
				f.Log(t.Context(), log, slog.LevelWarn, "turn", fmt.Sprint(k), fmt.Errorf("of %d", k))
			}
		}
		fail()
		told("at first", 101, 0, `error="of 100" beside=100`)
		for range rounds - 1 { // the last is an hour later
			time.Sleep(time.Hour/(rounds-1) + 1)
			fail()
		}
		told("after an hour", 101, 0, fmt.Sprintf("beside=100 times=%d", (rounds-1)*(keys-100)+1))
		f.Log(t.Context(), log, slog.LevelWarn, "listen", "", errors.New("what else"))
		f.Over(t.Context(), log, "listen", "")
		told("something else", 1, 1, "what else")
		for k := range keys {
			f.Over(t.Context(), log, "turn", fmt.Sprint(k))
		}
		told("over", 0, 101, fmt.Sprintf("times=%d", rounds*(keys-100)))
		fail()
		told("again", 101, 0, "")
		time.Sleep(time.Hour + 1) // nobody says that it is over, and nothing of it fails
		f.Log(t.Context(), log, slog.LevelWarn, "turn", "another", errors.New("by itself"))
		told("another", 1, 0, "by itself\"\n")
	})
}
