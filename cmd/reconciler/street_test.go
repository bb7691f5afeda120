package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
)

// street is both systems and the daemon between them: real PostgreSQL, and a Label
// Studio that is the real one or the stand-in.
type street struct {
	*testing.T
	cfg     *Config
	db      *pgx.Conn // as the application: it owns the tables
	url     string    // the application's
	studio  *labelstudio.Client
	project int64
	env     []string // of a daemon that runs as a process
	tasks   map[string]int64
}

const secret = "street-secret"

// patience is how long a change may take to arrive before a test gives up. It is no
// measure of speed: a busy machine must not fail a test.
const patience = 60 * time.Second

// newStreet prepares both sides for a daemon, as `setup` and a person would.
func newStreet(t *testing.T, schema sandbox.Schema, studioURL, token string) *street {
	t.Helper()
	cfg := unprepared(t, schema)
	setUp(t, cfg, false)
	s := &street{T: t, cfg: cfg, url: string(cfg.AristotleAdminURL), db: connect(t, cfg.AristotleAdminURL), tasks: map[string]int64{}}
	s.connectStudio(studioURL, token)
	return s
}

func (s *street) connectStudio(url, token string) {
	s.Helper()
	var err error
	if s.studio, err = labelstudio.New(labelstudio.Options{URL: url, Token: token}); err != nil {
		s.Fatal(err)
	}
	project, err := s.studio.CreateProject(s.Context(), labelstudio.NewProject{Title: "Conquests", LabelConfig: studio.LabelConfig})
	if err != nil {
		s.Fatal(err)
	}
	s.project = project.ID
	dsn := s.cfg
	s.env = []string{
		"ARISTOTLE_DATABASE_URL=" + string(dsn.AristotleDatabaseURL), "ARISTOTLE_REPLICATION_URL=" + string(dsn.AristotleReplicationURL),
		"LABEL_STUDIO_URL=" + url, "LABEL_STUDIO_API_KEY=" + token, fmt.Sprint("LABEL_STUDIO_PROJECTS=", s.project),
		"RECONCILER_LISTEN=127.0.0.1:0", "RECONCILER_METRICS_LISTEN=127.0.0.1:0", "RECONCILER_WEBHOOK_SECRET=" + secret,
		"RECONCILER_SLOT=" + uniqueName(s.T), "RECONCILER_DIFF_SCHEDULE=@every 1s", "RECONCILER_LOG_LEVEL=debug",
	}
}

func uniqueName(t *testing.T) string {
	return fmt.Sprintf("s%d_%d", os.Getpid(), time.Now().UnixNano())
}

// conquest makes a conquest and its task.
func (s *street) conquest(id, result string) int64 {
	s.Helper()
	s.exec(`INSERT INTO "Conquest" (id, title, result, philosopher, domain, "resultNotes")
		SELECT $1, $1, (jsonb_populate_record(NULL::"Conquest", jsonb_build_object('result', $2::text))).result, 'plato@example.com', 'ethics', 'well argued'`, id, result)
	return s.task(id, s.project)
}

func (s *street) task(conquest string, project int64) int64 {
	s.Helper()
	ids, err := s.studio.ImportTasks(s.Context(), project, []labelstudio.NewTask{{
		Data: json.RawMessage(fmt.Sprintf(`{"conquest_id": %q, "prompt": "p", "response": "r"}`, conquest)), Meta: json.RawMessage(`{"source": "import", "n": 12345678901234567890}`)}})
	if err != nil {
		s.Fatal(err)
	}
	s.tasks[conquest] = ids[0]
	return ids[0]
}

func (s *street) exec(sql string, args ...any) {
	s.Helper()
	if _, err := s.db.Exec(s.Context(), sql, args...); err != nil {
		s.Fatal(err)
	}
}

// result sets a conquest's result, as the application does.
func (s *street) setResult(id, result string) {
	s.Helper()
	s.exec(`UPDATE "Conquest" SET result = (jsonb_populate_record(NULL::"Conquest", jsonb_build_object('result', $2::text))).result WHERE id = $1`, id, result)
}

// annotate submits an annotation that gives the star, or an edit of it.
func (s *street) annotate(task int64, gold bool) int64 {
	s.Helper()
	a, err := s.studio.CreateAnnotation(s.Context(), task, labelstudio.AnnotationEdit{Result: verdictRegions(s.T, gold)})
	if err != nil {
		s.Fatal(err)
	}
	return a.ID
}

func (s *street) reannotate(annotation int64, gold bool) {
	s.Helper()
	if _, err := s.studio.UpdateAnnotation(s.Context(), annotation, labelstudio.AnnotationEdit{Result: verdictRegions(s.T, gold)}); err != nil {
		s.Fatal(err)
	}
}

func verdictRegions(t *testing.T, gold bool) []labelstudio.Region {
	t.Helper()
	if !gold {
		return []labelstudio.Region{}
	}
	r, err := labelstudio.ChoicesRegion("verdict", "model_response", "gold_star")
	if err != nil {
		t.Fatal(err)
	}
	return []labelstudio.Region{r}
}

// row is a conquest with its gold rating.
type row struct {
	Result, By *string
	Example    bool
	Gold       int
	Task, Note *int64
}

func (s *street) row(id string) row {
	s.Helper()
	var r row
	err := s.db.QueryRow(s.Context(), `SELECT result::text, "evaluatedBy", "useAsExample",
			(SELECT count(*) FROM ml_analysis_rating WHERE conquest_analysis_id = c.id AND is_gold_star AND use_as_sample_response AND rating = 5),
			(SELECT max(label_studio_task_id) FROM ml_analysis_rating WHERE conquest_analysis_id = c.id),
			(SELECT max(label_studio_annotation_id) FROM ml_analysis_rating WHERE conquest_analysis_id = c.id)
		FROM "Conquest" c WHERE id = $1`, id).Scan(&r.Result, &r.By, &r.Example, &r.Gold, &r.Task, &r.Note)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

func (s *street) meta(task int64) map[string]any {
	s.Helper()
	t, err := s.studio.Task(s.Context(), task)
	if err != nil {
		s.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(t.Meta, &m); err != nil {
		s.Fatal(err)
	}
	return m
}

// eventually waits until what says "": asking again is all there is, on a system
// that tells nobody when it is done.
func (s *street) eventually(what func() string) {
	s.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(patience)
	for {
		why := what()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("after %s: %s", patience, why)
		}
		<-tick.C
	}
}

func (s *street) wantStar(task int64, gold bool) {
	s.Helper()
	s.eventually(func() string {
		if m := s.meta(task); m["gold_star"] == gold || !gold && m["gold_star"] == nil {
			return ""
		} else {
			return fmt.Sprintf("task %d shows %v, want gold_star %v", task, m, gold)
		}
	})
}

func (s *street) wantResult(id, result string) {
	s.Helper()
	s.eventually(func() string {
		if r := s.row(id); r.Result != nil && *r.Result == result {
			return ""
		} else {
			return fmt.Sprintf("%s is %v, want %s", id, show(r.Result), result)
		}
	})
}

// wantRest waits until nothing is dirty.
func (s *street) wantRest() {
	s.Helper()
	s.eventually(func() string {
		var n int
		var text *string
		err := s.db.QueryRow(s.Context(), `SELECT count(*), min(key || ': ' || COALESCE(last_error, 'no error') || ', due ' || run_after) FROM reconciler.queue WHERE want_gen > done_gen`).Scan(&n, &text)
		if err != nil {
			return err.Error()
		}
		if n > 0 {
			return fmt.Sprintf("%d keys are dirty: %s", n, show(text))
		}
		return ""
	})
}

func show[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

// daemon is a reconciler that runs as a process of its own.
type process struct {
	cmd  *exec.Cmd
	out  *output
	gone chan struct{}
	API  string
}

// output keeps what a process writes, and tells of each line.
type output struct {
	mu    sync.Mutex
	text  strings.Builder
	lines chan struct{}
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.lines <- struct{}{}:
	default:
	}
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs the daemon as a process, and waits until it is running.
func (s *street) start(env ...string) *process {
	s.Helper()
	p := s.spawn(env...)
	s.eventually(func() string {
		text := p.out.String()
		if _, after, found := strings.Cut(text, "msg=running listen="); found {
			p.API, _, _ = strings.Cut(after, " ")
			return ""
		}
		if p.ended() {
			s.Fatalf("the daemon ended:\n%s", text)
		}
		return "the daemon is not running:\n" + text
	})
	return p
}

// spawn runs the daemon, and waits for nothing.
func (s *street) spawn(env ...string) *process {
	s.Helper()
	self, err := os.Executable()
	if err != nil {
		s.Fatal(err)
	}
	link := filepath.Join(s.TempDir(), "reconciler")
	if err := os.Symlink(self, link); err != nil {
		s.Fatal(err)
	}
	p := &process{cmd: exec.Command(link, "run"), out: &output{lines: make(chan struct{}, 1)}, gone: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), s.env...), env...)
	p.cmd.Stderr = p.out
	if err := p.cmd.Start(); err != nil {
		s.Fatal(err)
	}
	go func() {
		defer close(p.gone)
		_ = p.cmd.Wait() // how it ended is in ProcessState
	}()
	s.Cleanup(func() {
		p.kill()
		if s.Failed() {
			s.Logf("the daemon said:\n%s", p.out)
		}
	})
	return p
}

func (p *process) ended() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

func (p *process) kill() {
	if !p.ended() {
		_ = p.cmd.Process.Kill()
		<-p.gone
	}
}

// stop ends the daemon as an operator does, and returns its exit status.
func (p *process) stop() int {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.gone
	return p.cmd.ProcessState.ExitCode()
}

// hook registers the daemon's webhook, as an operator does.
func (s *street) hook(p *process) {
	s.Helper()
	_, err := s.studio.CreateWebhook(s.Context(), labelstudio.Webhook{Project: s.project, URL: "http://" + p.API + "/v1/webhooks/label-studio",
		SendPayload: true, IsActive: true, Headers: map[string]string{"Authorization": "Bearer " + secret},
		Actions: []string{labelstudio.AnnotationCreated, labelstudio.AnnotationsCreated, labelstudio.AnnotationUpdated,
			labelstudio.AnnotationsDeleted, labelstudio.TasksCreated, labelstudio.TasksDeleted}})
	if err != nil {
		s.Fatal(err)
	}
}

func standIn(t *testing.T) *studio.StandIn {
	t.Helper()
	s, err := studio.StartStandIn(studio.StandInOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStreet(t *testing.T) {
	t.Parallel()
	t.Run("stand-in", func(t *testing.T) {
		t.Parallel()
		ls := standIn(t)
		testStreet(newStreet(t, sandbox.Schema{}, ls.URL(), ls.Token()), ls.Token())
	})
}

// testStreet goes both ways and both ways back.
func testStreet(s *street, _ string) {
	a, b := s.conquest("conquest_a", "PENDING"), s.conquest("conquest_b", "DEFEAT")
	p := s.start()
	s.hook(p)

	s.setResult("conquest_a", "VICTORY")
	s.wantStar(a, true)
	s.wantRest()
	if m := s.meta(a); m["source"] != "import" || m["result_notes"] != "well argued" || m["synced_from_aristotle"] != true {
		s.Errorf("meta of a starred task: %v", m)
	}
	if r := s.row("conquest_a"); r.Gold != 1 || r.Task == nil || *r.Task != a || r.By != nil {
		s.Errorf("row and rating after VICTORY: %+v", r)
	}
	s.setResult("conquest_a", "NEUTRAL")
	s.wantStar(a, false)
	s.wantRest()
	if r := s.row("conquest_a"); r.Gold != 0 || *r.Result != "NEUTRAL" {
		s.Errorf("row and rating after NEUTRAL: %+v", r)
	}

	// The person's star on a DEFEAT that we have seen before is a word of its own.
	note := s.annotate(b, true)
	s.wantResult("conquest_b", "VICTORY")
	s.wantRest()
	me, err := s.studio.Whoami(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	if r := s.row("conquest_b"); r.Gold != 1 || !r.Example || show(r.By) != me.Email || show(r.Task) != b || show(r.Note) != note {
		s.Errorf("row and rating after a star: by %v task %v note %v %+v", show(r.By), show(r.Task), show(r.Note), r)
	}
	s.wantStar(b, true)
	s.reannotate(note, false)
	s.wantResult("conquest_b", "DEFEAT")
	s.wantStar(b, false)
	s.wantRest()
	if r := s.row("conquest_b"); r.Gold != 0 || r.Example || show(r.Task) != b || show(r.Note) != note {
		s.Errorf("row and rating after the star was taken away: %+v", r)
	}
	if status := p.stop(); status != 0 {
		s.Errorf("exit status %d after SIGTERM, want 0", status)
	}
}

var _ = []any{context.Background, io.Discard, slog.LevelInfo}
