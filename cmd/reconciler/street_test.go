package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aristotle/reconciler/aristotle/sandbox"
	"github.com/aristotle/reconciler/labelstudio"
	studio "github.com/aristotle/reconciler/labelstudio/sandbox"
)

// studioSide is a Label Studio, the real one or the stand-in, with two people in it: the one whose token the daemon has, and the
// annotator, who stars tasks.
type studioSide struct {
	url, token      string
	email           string // whose token that is
	password        string // of the same, where there are pages to log in to
	annotator       string // e-mail
	annotatorsToken string
	passes          string        // RECONCILER_DIFF_SCHEDULE
	database        *pgxpool.Pool // the real one's own: so slow is it that a test that waits asks there
}

// street is both systems with a daemon between them. A flow on it uses keys of its own, so that many share one daemon.
type street struct {
	*testing.T
	cfg      *Config
	db       *pgxpool.Pool // as the application: it owns the tables
	side     studioSide
	studio   *labelstudio.Client // as the annotator
	projects []int64
	env      []string // of a daemon that runs as a process
	program  string   // of such a daemon, "" for this test binary
}

const secret = "street-secret"

// patience is how long a change may take to arrive before a test gives up. It is no measure of speed: a busy machine must not
// fail a test.
const patience = 3 * time.Minute

// newStreet prepares both sides for a daemon, as `setup` and a person would: a database on the shared server, two projects.
func newStreet(t *testing.T, schema sandbox.Schema, side studioSide) *street {
	t.Helper()
	return pave(t, unprepared(t, schema), side)
}

func pave(t *testing.T, cfg *Config, side studioSide) *street {
	t.Helper()
	s := &street{T: t, cfg: cfg, side: side}
	admin := connect(t, cfg.AristotleAdminURL)
	var database string
	if err := admin.QueryRow(t.Context(), `SELECT current_database()`).Scan(&database); err != nil {
		t.Fatal(err)
	}
	// Whatever the server's zone is, the columns hold UTC.
	execAll(t, admin, `ALTER DATABASE `+ident(database)+` SET timezone = 'Asia/Tokyo'`)
	setUp(t, cfg, false)
	var err error
	if s.db, err = pgxpool.New(t.Context(), string(cfg.AristotleAdminURL)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.db.Close)
	if s.studio, err = labelstudio.New(labelstudio.Options{URL: side.url, Token: side.annotatorsToken, ReadTimeout: patience, WriteTimeout: patience}); err != nil {
		t.Fatal(err)
	}
	for _, title := range []string{"Conquests", "Conquests again"} {
		p, err := s.studio.CreateProject(t.Context(), labelstudio.NewProject{Title: title, LabelConfig: studio.LabelConfig})
		if err != nil {
			t.Fatal(err)
		}
		s.projects = append(s.projects, p.ID)
	}
	s.env = []string{
		"ARISTOTLE_DATABASE_URL=" + string(cfg.AristotleDatabaseURL), "ARISTOTLE_REPLICATION_URL=" + string(cfg.AristotleReplicationURL),
		"LABEL_STUDIO_URL=" + side.url, "LABEL_STUDIO_API_KEY=" + side.token,
		fmt.Sprintf("LABEL_STUDIO_PROJECTS=%d,%d", s.projects[0], s.projects[1]),
		"RECONCILER_LISTEN=127.0.0.1:0", "RECONCILER_CURATION_LISTEN=127.0.0.1:0", "RECONCILER_METRICS_LISTEN=127.0.0.1:0", "RECONCILER_WEBHOOK_SECRET=" + secret,
		// Slots are the server's, which the tests share.
		"RECONCILER_SLOT=" + database, "RECONCILER_DIFF_SCHEDULE=" + side.passes, "RECONCILER_LOG_LEVEL=debug",
	}
	return s
}

// in is the same street for a sub-test.
func (s *street) in(t *testing.T) *street {
	c := *s
	c.T = t
	return &c
}

// conquest makes a conquest without a task.
func (s *street) conquest(id, result string) {
	s.Helper()
	s.exec(`INSERT INTO "Conquest" (id, title, result, philosopher, domain, "resultNotes", "evaluatedBy", "updatedAt")
		VALUES ($1, 'A conquest', `+s.as("$2")+`, 'plato@example.com', 'ethics', 'well argued', 'earlier@example.com', '2020-02-29 12:00')`, id, result)
}

// as is a result in whatever type its column has.
func (s *street) as(text string) string {
	return `(jsonb_populate_record(NULL::"Conquest", jsonb_build_object('result', ` + text + `::text))).result`
}

// meta is what a task of the tests has in its meta beside the star.
const meta = `{"source": "import", "n": 12345678901, "deep": {"list": [1, "ä", null]}}`

// task imports a task of a conquest. more is added to its meta.
func (s *street) task(conquest string, project int64, more map[string]any) int64 {
	s.Helper()
	m := map[string]any{}
	if err := json.Unmarshal([]byte(meta), &m); err != nil {
		s.Fatal(err)
	}
	maps.Copy(m, more)
	ids, err := s.studio.ImportTasks(s.Context(), project, []labelstudio.NewTask{{
		Data: map[string]any{"conquest_id": conquest, "prompt": "p", "response": "r"}, Meta: m}})
	if err != nil {
		s.Fatal(err)
	}
	return ids[0]
}

// pair makes a conquest and a task of it.
func (s *street) pair(id, result string) int64 {
	s.Helper()
	s.conquest(id, result)
	return s.task(id, s.projects[0], nil)
}

func (s *street) exec(sql string, args ...any) {
	s.Helper()
	if _, err := s.db.Exec(s.Context(), sql, args...); err != nil {
		s.Fatal(err)
	}
}

// reshape changes what a daemon works with. That can take several locks, and of two who wait for each other PostgreSQL ends one.
func (s *street) reshape(sql string) {
	s.Helper()
	s.eventually(func() string {
		if _, err := s.db.Exec(s.Context(), sql); err != nil {
			return err.Error()
		}
		return ""
	})
}

// setResult sets the result of conquests in one transaction, as the application does.
func (s *street) setResult(result string, ids ...string) {
	s.Helper()
	s.exec(`UPDATE "Conquest" SET result = `+s.as("$2")+` WHERE id = ANY($1)`, ids, result)
}

// annotate submits an annotation, with the star or without.
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

// object is a JSON object whose values stay as they came.
type object map[string]any

// one reads the one JSON object that a query returns; nil where it returns none.
func (s *street) one(sql string, args ...any) object {
	s.Helper()
	var all []byte
	if err := s.db.QueryRow(s.Context(), `SELECT COALESCE(jsonb_agg(o), '[]') FROM (`+sql+`) AS q(o)`, args...).Scan(&all); err != nil {
		s.Fatal(err)
	}
	var rows []object
	s.decode(all, &rows)
	if len(rows) > 1 {
		s.Fatalf("%d rows where one is right: %s", len(rows), all)
	}
	if len(rows) == 0 {
		return nil
	}
	return rows[0]
}

func (s *street) decode(text []byte, into any) {
	s.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		s.Fatalf("%v: %s", err, text)
	}
}

// row is a conquest with all its columns.
func (s *street) row(id string) object {
	s.Helper()
	return s.one(`SELECT to_jsonb(c) FROM "Conquest" c WHERE id = $1`, id)
}

// rating is the one rating of a conquest with all its columns.
func (s *street) rating(id string) object {
	s.Helper()
	return s.one(`SELECT to_jsonb(r) FROM ml_analysis_rating r WHERE conquest_analysis_id = $1`, id)
}

// meta is the whole meta of a task.
func (s *street) meta(task int64) object {
	s.Helper()
	t, err := s.studio.Task(s.Context(), task)
	if err != nil {
		s.Fatal(err)
	}
	m := object{}
	s.decode(t.Meta, &m)
	return m
}

// peek is the same, asked as a test does that waits.
func (s *street) peek(task int64) object {
	s.Helper()
	if s.side.database == nil {
		return s.meta(task)
	}
	var text []byte
	if err := s.side.database.QueryRow(s.Context(), `SELECT meta FROM task WHERE id = $1`, task).Scan(&text); err != nil {
		s.Fatal(err)
	}
	m := object{}
	s.decode(text, &m)
	return m
}

// setMeta changes keys of a task's meta by API, as a person's script does, and leaves the others as they are.
func (s *street) setMeta(task int64, change object) {
	s.Helper()
	m := s.meta(task)
	maps.Copy(m, change)
	text, err := json.Marshal(m)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := s.studio.PatchMeta(s.Context(), task, text); err != nil {
		s.Fatal(err)
	}
}

// without is the object without the keys that may change.
func (o object) without(keys ...string) object {
	c := maps.Clone(o)
	maps.DeleteFunc(c, func(k string, _ any) bool { return slices.Contains(keys, k) })
	return c
}

// gold tells whether a meta shows the star, under its name or that of older writers.
func (o object) gold() bool {
	return o["gold_star"] == true || o["gold_star"] == nil && o["is_gold_star"] == true
}

// What the contract lets a star change, and nothing else.
var (
	starColumns   = []string{"result", "useAsExample", "evaluatedBy", "evaluatedAt", "updatedAt"}
	ratingColumns = []string{"is_gold_star", "use_as_sample_response", "rating", "label_studio_task_id", "label_studio_annotation_id", "updated_at"}
	metaKeys      = []string{"gold_star", "is_gold_star", "gold_star_updated_at", "synced_from_aristotle", "result_notes", "reconciler"}
)

// same compares what must not have changed.
func (s *street) same(what string, before, after object, but ...string) {
	s.Helper()
	if diff := cmp.Diff(before.without(but...), after.without(but...)); diff != "" {
		s.Errorf("%s was changed (-before +after):\n%s", what, diff)
	}
}

// has compares some keys of an object.
func (s *street) has(what string, o object, want object) {
	s.Helper()
	got := object{}
	for k := range want {
		got[k] = o[k]
		if n, isNumber := o[k].(json.Number); isNumber {
			got[k] = n.String()
		}
	}
	for k, v := range want {
		if n, isInt := v.(int64); isInt {
			want[k] = fmt.Sprint(n)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// hook registers the daemon's webhook in both projects, as an operator does.
func (s *street) hook(p *process) {
	s.Helper()
	for _, project := range s.projects {
		_, err := s.studio.CreateWebhook(s.Context(), labelstudio.Webhook{Project: project, URL: p.webhook(),
			SendPayload: true, IsActive: true, Headers: map[string]string{"Authorization": "Bearer " + secret},
			Actions: []string{labelstudio.AnnotationCreated, labelstudio.AnnotationsCreated, labelstudio.AnnotationUpdated,
				labelstudio.AnnotationsDeleted, labelstudio.TasksCreated, labelstudio.TasksDeleted}})
		if err != nil {
			s.Fatal(err)
		}
	}
}

// standIn starts a stand-in with its two people.
func standIn(t *testing.T) (*studio.StandIn, studioSide) {
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
	const email = "annotator@example.com"
	return s, studioSide{url: s.URL(), token: s.Token(), email: "sync@example.com", annotator: email, annotatorsToken: s.UserToken(s.AddUser(email)), passes: "@every 1s"}
}

// hire makes a second person in the real Label Studio: a member of the organization with a token.
func hire(t *testing.T, real *studio.Real) studioSide {
	t.Helper()
	const email, token = "second.annotator@example.com", "0123456789abcdef0123456789abcdef01234567"
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, real.URL()+"/api/users/",
		strings.NewReader(`{"email": "`+email+`", "username": "second"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Token "+real.Token())
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var made struct{ ID int64 }
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("make a user: %s %v", resp.Status, err)
	}
	// What signing up does beyond that, and a token, which a person would copy from the account page.
	db, err := pgxpool.New(t.Context(), real.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	execAll(t, connect(t, DSN(real.DatabaseURL())), fmt.Sprintf(`UPDATE htx_user SET active_organization_id = o.id FROM organization o WHERE htx_user.id = %d`, made.ID),
		fmt.Sprintf(`DELETE FROM authtoken_token WHERE user_id = %d`, made.ID),
		fmt.Sprintf(`INSERT INTO authtoken_token (key, created, user_id) VALUES ('%s', now(), %d)`, token, made.ID))
	return studioSide{url: real.URL(), token: real.Token(), email: real.Email(), password: real.Password(), annotator: email, annotatorsToken: token, passes: "@every 3s", database: db}
}

// cleanContext is for what must be done after a test's own context has ended.
func cleanContext(t *testing.T) context.Context { return context.WithoutCancel(t.Context()) }
