package ledger

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/aristotle/sandbox"
)

// told is what a click leaves behind, as far as a test of it asks.
type told struct {
	Result, By string
	Example    bool
	Fresh      bool // evaluatedAt and updatedAt are now
	Gold       int  // ratings that are gold
	D          string
	N          int64
	Audit      []string
}

func (l *Ledger) told(t *testing.T, key string) told {
	t.Helper()
	var got told
	err := l.pool.QueryRow(t.Context(), `SELECT c.result::text, COALESCE(c."evaluatedBy", ''), c."useAsExample",
			COALESCE(c."evaluatedAt" > now() AT TIME ZONE 'UTC' - interval '1 min' AND c."evaluatedAt" = c."updatedAt", false),
			(SELECT count(*) FROM public.ml_analysis_rating r WHERE r.conquest_analysis_id = c.id AND r.is_gold_star AND r.use_as_sample_response AND r.rating = 5),
			COALESCE(h.d::text, 'none'), COALESCE(h.n, 0),
			COALESCE((SELECT array_agg(concat_ws(' ', a.source, a.reason, a.task_id, a.who, a.said, a.result, a.wrote, a.d::text, a.n) ORDER BY a.id) FROM audit a WHERE a.key = c.id), '{}')
		FROM public."Conquest" c LEFT JOIN hub h ON h.key = c.id WHERE c.id = $1`, key).
		Scan(&got.Result, &got.By, &got.Example, &got.Fresh, &got.Gold, &got.D, &got.N, &got.Audit)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (l *Ledger) clicked(t *testing.T, c Click) Clicked {
	t.Helper()
	done, err := l.Click(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func wantTold(t *testing.T, what string, got, want told) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// TestClick: a star on the page and its way back, on a result that is a text or an enum.
func TestClick(t *testing.T) {
	t.Parallel()
	for name, schema := range map[string]sandbox.Schema{"text": {}, "enum": {Enums: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := openWith(t, schema)
			l.exec(t, `INSERT INTO public."Conquest" (id, result, philosopher, domain) VALUES ('k', 'DEFEAT', 'p', 'd')`)
			l.exec(t, `INSERT INTO hub (key, d, created_at, before) SELECT 'k', false, "createdAt", 'PENDING' FROM public."Conquest"`) // the stream is slow
			me := "me@example.com"

			done := l.clicked(t, Click{Key: "k", Gold: true, Who: &me, From: FromCuration, Task: 7})
			wantTold(t, "a star", l.told(t, "k"), told{Result: "VICTORY", By: me, Example: true, Fresh: true, Gold: 1, D: "true", N: 1,
				Audit: []string{"curation click 7 me@example.com t DEFEAT VICTORY true 1"}})
			if !done.Row.IsVictory() || done.Gen != 1 || done.Row.Philosopher != "p" {
				t.Errorf("the click tells %+v", done)
			}
			claims, keys := claimed(t, l)
			want(t, "the key is dirty", keys, "k")
			if claims[0].Gen != done.Gen || claims[0].Source != FromCuration {
				t.Errorf("the turn that carries it is %+v", claims[0])
			}

			// During that turn, which then is not the one that carries this.
			done = l.clicked(t, Click{Key: "k", Gold: false, From: FromAPI})
			got := l.told(t, "k")
			got.Audit = got.Audit[1:]
			wantTold(t, "taken back by nobody known", got, told{Result: "DEFEAT", Fresh: true, D: "false", N: 2, Audit: []string{"api click f VICTORY DEFEAT false 2"}})
			finish(t, l, claims[0], nil)
			if claims, _ = claimed(t, l); len(claims) != 1 || claims[0].Gen != done.Gen {
				t.Errorf("after the turn that was under way %+v is due, want generation %d", claims, done.Gen)
			}

			l.clicked(t, Click{Key: "k", Gold: false, Who: &me, From: FromAPI})
			got = l.told(t, "k")
			got.Audit = got.Audit[2:]
			wantTold(t, "nothing to take back: counted", got, told{Result: "DEFEAT", Fresh: true, D: "false", N: 3, Audit: []string{"api click me@example.com f DEFEAT false 3"}})
		})
	}
}

// TestTimeless: a rating whose time is none, as SQL by hand can leave it, is the one that is used, like any other.
func TestTimeless(t *testing.T) {
	t.Parallel()
	l := open(t)
	l.exec(t, `INSERT INTO public."Conquest" (id, result, philosopher, domain) VALUES ('k', 'PENDING', 'p', 'd')`)
	l.exec(t, `INSERT INTO public.ml_analysis_rating (id, conquest_analysis_id, analysis_type, philosopher, domain, created_at) VALUES ('r', 'k', 'conquest_analysis', 'p', 'd', 'infinity')`)
	l.clicked(t, Click{Key: "k", Gold: true, From: FromCuration})
	if got := l.told(t, "k"); got.Gold != 1 {
		t.Errorf("%+v", got)
	}
}

// TestClickWithoutHub: before the first turn the hub begins with the click, and notes
// the result before VICTORY. That of an earlier row is this one's from then on.
func TestClickWithoutHub(t *testing.T) {
	t.Parallel()
	l := open(t)
	if _, err := l.Click(t.Context(), Click{Key: "nobody", Gold: true, From: FromCuration}); !errors.Is(err, ErrNoConquest) {
		t.Errorf("no conquest: %v", err)
	}
	if _, err := l.Click(t.Context(), Click{Key: "nobody", Gold: true, From: FromCuration, Held: true}); !errors.Is(err, ErrNoConquest) {
		t.Errorf("no conquest to settle: %v", err)
	}
	l.exec(t, `INSERT INTO public."Conquest" (id, result, philosopher, domain) VALUES ('first', 'NEUTRAL', 'p', 'd'), ('again', 'NEUTRAL', 'p', 'd')`)
	l.exec(t, `INSERT INTO hub (key, d, n, created_at, before) VALUES ('again', false, 4, '2001-01-01', 'DEFEAT')`)
	l.exec(t, `INSERT INTO edge (task_id, key, project, begun, held) VALUES (1, 'again', 1, 'union', '{"shown": true, "stamp": "", "stars": null}')`)
	for key, hub := range map[string]told{"first": {N: 1, Audit: []string{"curation click t NEUTRAL VICTORY true 1"}},
		"again": {N: 5, Audit: []string{"curation click t NEUTRAL VICTORY true 5", "curation hold settled by a click 1 NEUTRAL true 5"}}} {
		done := l.clicked(t, Click{Key: key, Gold: true, From: FromCuration})
		wantTold(t, key, l.told(t, key), told{Result: "VICTORY", Example: true, Fresh: true, Gold: 1, D: "true", N: hub.N, Audit: hub.Audit})
		if want := len(hub.Audit) - 1; done.Settled != want {
			t.Errorf("%s: %d holds were settled, want %d", key, done.Settled, want)
		}
	}
	var own int
	if err := l.pool.QueryRow(t.Context(), `SELECT count(*) FROM hub JOIN public."Conquest" c ON c.id = key AND "createdAt" = created_at WHERE before = 'NEUTRAL'`).Scan(&own); err != nil || own != 2 {
		t.Errorf("%d hubs are their row's and know what it was before VICTORY, want 2: %v", own, err)
	}
	_, keys := claimed(t, l)
	want(t, "both are dirty", keys, "again", "first")
}

// TestClickSettlesHolds: every held edge takes what its hold noted, whatever the value; others stay.
func TestClickSettlesHolds(t *testing.T) {
	t.Parallel()
	for _, gold := range []bool{true, false} {
		l := open(t)
		l.exec(t, `INSERT INTO public."Conquest" (id, result, philosopher, domain) VALUES ('k', 'DEFEAT', 'p', 'd')`)
		l.exec(t, `INSERT INTO hub (key, d, created_at) SELECT 'k', false, "createdAt" FROM public."Conquest"`)
		l.exec(t, `INSERT INTO edge (task_id, key, project, begun, base, held) VALUES
			(1, 'k', 1, 'union', '{}', '{"shown": true, "older": false, "stamp": "x", "stars": [3, 4]}'),
			(2, 'k', 1, 'hold', '{9}', '{"shown": false, "stamp": "", "stars": null}'),
			(3, 'k', 1, 'hold', '{8}', NULL)`)
		done := l.clicked(t, Click{Key: "k", Gold: gold, From: FromAPI})
		var edges []string
		if err := l.pool.QueryRow(t.Context(), `SELECT array_agg(concat_ws(' ', task_id, 's', s, 'older', older, 'last', last, 'base', base, held) ORDER BY task_id) FROM edge`).Scan(&edges); err != nil {
			t.Fatal(err)
		}
		want(t, "the edges", edges, "1 s t older f last x base {3,4}", "2 s f older last base {}", "3 s older last base {8}")
		if _, err := l.Click(t.Context(), Click{Key: "k", Gold: gold, From: FromAPI, Held: true}); !errors.Is(err, ErrNotHeld) {
			t.Errorf("settled a second time: %v", err)
		}
		if done.Settled != 2 {
			t.Errorf("%d holds are settled, want 2", done.Settled)
		}
		if got := l.told(t, "k"); got.N != 1 || len(got.Audit) != 3 {
			t.Errorf("gold %v: %+v", gold, got)
		}
	}
}

// TestClickWaits for a row that the application holds, and for no longer than it may.
func TestClickWaits(t *testing.T) {
	t.Parallel()
	l := open(t)
	l.exec(t, `INSERT INTO public."Conquest" (id, result, philosopher, domain) VALUES ('k', 'PENDING', 'p', 'd')`)
	tx, err := l.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context())) // or the pool never closes
	if _, err := tx.Exec(t.Context(), `UPDATE public."Conquest" SET result = 'NEUTRAL'`); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := l.Click(short, Click{Key: "k", Gold: true, From: FromCuration}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it waited no longer than it may: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := l.Click(t.Context(), Click{Key: "k", Gold: true, From: FromCuration})
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(2 * lockTimeout): // longer than one statement waits
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := l.told(t, "k"); got.Result != "VICTORY" || got.Audit[0] != "curation click t NEUTRAL VICTORY true 1" {
		t.Errorf("%+v", got)
	}
}
