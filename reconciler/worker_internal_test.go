package reconciler

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/metrics"
)

// who is a Label Studio that can only be asked who we are.
type who struct {
	taskSide
	ask func() error
}

func (w who) Whoami(context.Context) (labelstudio.User, error) { return labelstudio.User{}, w.ask() }

// A Label Studio that is away for more than an hour is told when that begins, when it is put otherwise, after an hour, and when it is over:
// not once for each question.
func TestAwayIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		turner := NewTurner(Options{Metrics: metrics.New(prometheus.NewRegistry()), Log: slog.New(slog.NewTextHandler(&log, nil))})
		begin := time.Now()
		turner.tasks = who{ask: func() error {
			if time.Since(begin) < 90*time.Minute {
				return errors.New("refused")
			}
			return nil
		}}
		turner.probe(t.Context(), errAway)
		if told, over := strings.Count(log.String(), "level=WARN"), strings.Count(log.String(), "works again"); told != 3 || over != 1 {
			t.Errorf("it was told %d times and its end %d times, want 3 and 1:\n%s", told, over, &log)
		}
	})
}
