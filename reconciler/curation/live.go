package curation

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aristotle/reconciler/reconciler/web"
)

const (
	// lookEvery is how soon a page hears of a change. One look serves all pages.
	lookEvery = 300 * time.Millisecond
	// beatEvery keeps proxies from cutting a quiet stream, and finds pages that have gone.
	beatEvery = 15 * time.Second
	// liveFor ends a stream, so that a session that has ended does not watch for ever;
	// the browser asks again by itself.
	liveFor = 10 * time.Minute
	// maxWatched is above what a page shows.
	maxWatched = 2 * pageSize
	// maxStreams bounds how many pages are watched for.
	maxStreams = 500
)

// printSQL tells one state of a key from another: each part of it changes with every
// change of what a page shows. Rows are told apart by the transaction that wrote them.
const printSQL = `
	SELECT k, concat_ws(' ', c.xmin, h.xmin, q.want_gen, q.done_gen, q.attempts,
	       (SELECT string_agg(concat(e.task_id, ':', e.xmin), ',' ORDER BY e.task_id) FROM edge e WHERE e.key = k))
	FROM unnest($1::text[]) AS k
	LEFT JOIN public."Conquest" c ON c.id = k
	LEFT JOIN hub h ON h.key = k
	LEFT JOIN queue q ON q.key = k`

// watcher looks, for as long as there are pages that want to know, whether their keys
// have changed: by looking and not by listening, since the row changes without us, and
// the tasks by a replica that may be another one.
type watcher struct {
	reader *pgxpool.Pool
	log    *slog.Logger
	closed chan struct{}

	mu      sync.Mutex
	pages   map[*watched]bool
	running bool
	done    sync.WaitGroup
	close   func()
}

// watched is a page: its keys, and where it is told which of them have changed.
type watched struct {
	keys    []string
	prints  map[string]string // as the page was told last
	changed chan []string
}

func newWatcher(reader *pgxpool.Pool, log *slog.Logger) *watcher {
	w := &watcher{reader: reader, log: log, closed: make(chan struct{}), pages: map[*watched]bool{}}
	w.close = sync.OnceFunc(func() {
		close(w.closed)
		w.done.Wait()
	})
	return w
}

// add begins to watch for a page; false where too many are watched for already.
func (w *watcher) add(p *watched) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pages) >= maxStreams {
		return false
	}
	w.pages[p] = true
	if !w.running {
		w.running = true
		w.done.Add(1)
		go w.run()
	}
	return true
}

func (w *watcher) remove(p *watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pages, p)
}

// run looks until there is no page left.
func (w *watcher) run() {
	defer w.done.Done()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-w.closed:
			return
		}
		keys := w.wanted()
		if keys == nil {
			return
		}
		prints, err := w.look(ctx, keys)
		if err != nil { // the pages say so themselves when they are asked for anew
			w.log.DebugContext(ctx, "look whether keys have changed", "error", err)
			continue
		}
		w.tell(prints)
	}
}

// wanted returns the keys that are watched for; nil ends run, under the same lock
// under which add begins it.
func (w *watcher) wanted() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pages) == 0 {
		w.running = false
		return nil
	}
	keys := []string{}
	for p := range w.pages {
		keys = append(keys, p.keys...)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func (w *watcher) look(ctx context.Context, keys []string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	rows, err := w.reader.Query(ctx, printSQL, keys)
	if err != nil {
		return nil, err
	}
	prints := make(map[string]string, len(keys))
	var key, print string
	_, err = pgx.ForEachRow(rows, []any{&key, &print}, func() error {
		prints[key] = print
		return nil
	})
	return prints, err
}

// tell tells each page which of its keys have changed since it was told last. A page
// that has not taken the last news yet is told the next time.
func (w *watcher) tell(prints map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for p := range w.pages {
		var changed []string
		for _, key := range p.keys {
			now, looked := prints[key]
			if was, known := p.prints[key]; looked && known && was != now {
				changed = append(changed, key)
			}
		}
		if changed != nil {
			select {
			case p.changed <- changed:
			default:
				continue
			}
		}
		for _, key := range p.keys {
			if now, looked := prints[key]; looked {
				p.prints[key] = now
			}
		}
	}
}

// live is GET /live?key=…: server-sent events that say which keys have changed. What
// they look like now is in a fresh copy of the page.
func (a *App) live(w http.ResponseWriter, r *http.Request) error {
	keys := r.URL.Query()["key"]
	if len(keys) > maxWatched {
		return web.Refuse(http.StatusBadRequest, "At most %d keys can be watched.", maxWatched)
	}
	keys, err := a.visibleOf(r.Context(), personOf(r), slices.DeleteFunc(keys, func(k string) bool { return !isText(k) }))
	if err != nil {
		return err
	}
	// What the keys look like is read before the page is told that it is watched for:
	// it then asks for a copy of itself, and misses nothing.
	prints, err := a.watcher.look(r.Context(), keys)
	if err != nil {
		return err
	}
	p := &watched{keys: keys, prints: prints, changed: make(chan []string, 1)}
	if !a.watcher.add(p) {
		return &web.Problem{Status: http.StatusServiceUnavailable, Detail: "Too many pages are open. This one shows changes when it is loaded again.", After: time.Minute}
	}
	defer a.watcher.remove(p)
	return a.stream(w, r, p)
}

// visibleOf returns those of some keys that a person may see.
func (a *App) visibleOf(ctx context.Context, who Person, keys []string) ([]string, error) {
	if !who.Limited() {
		return keys, nil
	}
	rows, err := a.reader.Query(ctx, `SELECT id FROM public."Conquest" WHERE id = ANY($1) AND ($2 = '' OR philosopher = $2) AND ($3 = '' OR domain = $3)`,
		keys, who.Philosopher, who.Domain)
	if err != nil {
		return nil, fmt.Errorf("look whose keys these are: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func (a *App) stream(w http.ResponseWriter, r *http.Request, p *watched) error {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep the events for itself
	out := http.NewResponseController(w)
	if err := out.SetReadDeadline(time.Time{}); err != nil { // the server's would end the request's context
		return fmt.Errorf("begin a stream: %w", err)
	}
	send := func(format string, args ...any) bool {
		if out.SetWriteDeadline(time.Now().Add(beatEvery)) != nil {
			return false
		}
		if _, err := fmt.Fprintf(w, format, args...); err != nil {
			return false
		}
		return out.Flush() == nil
	}
	beat, end := time.NewTicker(beatEvery), time.NewTimer(liveFor)
	defer beat.Stop()
	defer end.Stop()
	ok := send("retry: 2000\nevent: watching\ndata: {}\n\n")
	for ok {
		select {
		case keys := <-p.changed:
			text, err := json.Marshal(keys)
			if err != nil {
				return err
			}
			ok = send("event: changed\ndata: %s\n\n", text)
		case <-beat.C:
			ok = send("event: beat\ndata: {}\n\n")
		case <-end.C:
			return nil
		case <-a.watcher.closed:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
	return nil // who does not listen any more needs no answer
}
