package logs_test

import (
	"context"
	"errors"
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
