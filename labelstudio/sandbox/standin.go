package sandbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
)

// StandIn is a Label Studio in memory behind a real HTTP server: the calls that package labelstudio makes, and webhooks. It refuses what
// the real one (1.23.2) refuses, with the same statuses and texts, and takes silently what the real one takes silently.
//
// Where it differs from the real thing:
//   - It holds nothing on disk: closing it loses everything.
//   - Saves are atomic. The real one reads a whole row and writes it back, so that overlapping saves lose one another; to test against that,
//     put an old meta back with [StandIn.SetMeta].
//   - Numbers keep their text (the real one passes them through Python's float); object keys come back in the order of Postgres' jsonb, as there.
//   - An annotation's result that is JSON inside a text is refused like any text; the real one takes it.
//   - Tasks, projects and users have the columns that a client can need, not all; there are no predictions, drafts, views or comments.
//   - Filters know the columns id, updated_at, meta and data.*, joined by "and"; anything else is a 500, of which the real one has its own, fewer.
//   - Every user may do everything, as in the Community edition. There are no sessions.
//   - Webhooks are not kept from private addresses (the real one as [StartReal] starts it is not either), and a receiver that drips its
//     answer is left after 30 s.
//   - Without [StandInOptions.Delays] it is some hundred times faster, and it serves requests in parallel.
type StandIn struct {
	listener net.Listener
	server   *http.Server
	sender   *http.Client  // of webhooks
	closed   chan struct{} // ends what hangs or waits
	served   chan error    // the server's end
	close    sync.Once

	token  string
	delays Delays
	core   chan struct{} // held by the request that computes, where delays are on

	faults atomicFunc[func(*http.Request) Fault]
	patch  atomicFunc[func(int64, json.RawMessage)]

	mu       sync.Mutex // guards all below
	ids      sequence
	users    map[int64]*user
	projects map[int64]*project
	tasks    map[int64]*task
	notes    map[int64]*annotation
	hooks    map[int64]*labelstudio.Webhook
	access   map[string]grant // access tokens that were given out
	counts   map[labelstudio.Operation]int
	last     time.Time // of the clock, which never says the same twice
}

// StandInOptions are the settings of [StartStandIn]; all are optional.
type StandInOptions struct {
	Token  string // of the first user; one is made where it is empty. A JWT is taken as a personal access token
	Delays Delays // how long the work of each kind takes; zero: no delays
	Addr   string // host and port to listen on; "" is a free port of 127.0.0.1
}

type sequence struct{ user, project, task, annotation, webhook int64 }

type user struct {
	id       int64
	email    string
	token    string // legacy
	personal string // a JWT that buys access tokens
}

type project struct {
	id          int64
	title       string
	description string
	config      string
	required    []string // keys of data that the label configuration shows
	created     time.Time
	tasks       []*task // by id
	made        int64   // tasks ever made in it, for inner_id
}

type task struct {
	id, project, inner int64
	data, meta         json.RawMessage // as jsonb keeps them
	fields             map[string]json.RawMessage
	created, updated   time.Time
	updatedBy          int64 // the last annotator; 0 is nobody
	notes              []*annotation
}

type annotation struct {
	id, task               int64
	result                 json.RawMessage
	cancelled, groundTruth bool
	completedBy, updatedBy int64
	created, updated       time.Time
	leadTime               *float64
}

// StartStandIn starts one, with one user. Close ends it.
func StartStandIn(o StandInOptions) (*StandIn, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for the stand-in Label Studio: %w", err)
	}
	s := &StandIn{
		listener: listener, sender: newSender(), closed: make(chan struct{}), served: make(chan error, 1),
		delays: o.Delays, core: make(chan struct{}, 1),
		users: map[int64]*user{}, projects: map[int64]*project{}, tasks: map[int64]*task{}, notes: map[int64]*annotation{},
		hooks: map[int64]*labelstudio.Webhook{}, access: map[string]grant{}, counts: map[labelstudio.Operation]int{},
	}
	first := s.users[s.AddUser("sync@example.com")]
	if isJWT(o.Token) {
		first.personal = o.Token
	} else if o.Token != "" {
		first.token = o.Token
	}
	s.token = o.Token
	if s.token == "" {
		s.token = first.token
	}
	s.server = &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	go func() { s.served <- s.server.Serve(listener) }()
	return s, nil
}

// URL is the base address.
func (s *StandIn) URL() string { return "http://" + s.listener.Addr().String() }

// Token is the first user's token.
func (s *StandIn) Token() string { return s.token }

// Close ends the server at once, requests under way included, as killing the process would. It may be called again.
func (s *StandIn) Close() error {
	var err error
	s.close.Do(func() {
		close(s.closed)
		err = s.server.Close()
		if ended := <-s.served; !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
		s.sender.CloseIdleConnections()
	})
	return err
}

// now is later than every time it returned before, by whole microseconds as Postgres keeps them.
func (s *StandIn) now() time.Time {
	t := time.Now().UTC().Truncate(time.Microsecond)
	if !t.After(s.last) {
		t = s.last.Add(time.Microsecond)
	}
	s.last = t
	return t
}

// AddProject creates a project without a label configuration, which accepts tasks with any data. It returns its id.
func (s *StandIn) AddProject(title string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addProject(title, "", "", nil).id
}

func (s *StandIn) addProject(title, description, config string, required []string) *project {
	s.ids.project++
	p := &project{id: s.ids.project, title: title, description: description, config: config, required: required, created: s.now()}
	s.projects[p.id] = p
	return p
}

// RemoveProject deletes a project with its tasks and webhooks, silently as the real one does.
func (s *StandIn) RemoveProject(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeProject(id)
}

func (s *StandIn) removeProject(id int64) {
	if p := s.projects[id]; p != nil {
		for _, t := range slices.Clone(p.tasks) {
			s.removeTask(t)
		}
	}
	for _, h := range s.hooks {
		if h.Project == id {
			delete(s.hooks, h.ID)
		}
	}
	delete(s.projects, id)
}

// AddUser adds a member with a token of its own and returns its id.
func (s *StandIn) AddUser(email string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids.user++
	s.users[s.ids.user] = &user{id: s.ids.user, email: email, token: newLegacyToken(), personal: newPersonalToken()}
	return s.ids.user
}

// UserToken returns a user's legacy token, "" where there is no such user.
func (s *StandIn) UserToken(id int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.users[id]; u != nil {
		return u.token
	}
	return ""
}

// PersonalToken returns a user's personal access token, "" where there is no such user.
func (s *StandIn) PersonalToken(id int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.users[id]; u != nil {
		return u.personal
	}
	return ""
}

// AddTask creates a task, announces it and returns its id. Data and meta are anything that encodes as JSON, meta nil is {}; it panics where one does
// not, or where there is no such project, for both are in the caller's source.
func (s *StandIn) AddTask(projectID int64, data, meta any) int64 {
	if meta == nil {
		meta = struct{}{}
	}
	s.mu.Lock()
	p := s.projects[projectID]
	if p == nil {
		s.mu.Unlock()
		panic(fmt.Sprintf("stand-in: no project %d", projectID))
	}
	t := s.addTask(p, mustJSON(data), mustJSON(meta))
	send := s.announce(p.id, labelstudio.TasksCreated, s.createdPayloads(p, []*task{t})...)
	s.mu.Unlock()
	send(context.Background())
	return t.id
}

func (s *StandIn) addTask(p *project, data, meta json.RawMessage) *task {
	s.ids.task++
	p.made++
	now := s.now()
	t := &task{id: s.ids.task, project: p.id, inner: p.made, meta: meta, created: now, updated: now}
	t.setData(data)
	s.tasks[t.id] = t
	p.tasks = append(p.tasks, t)
	return t
}

func (t *task) setData(data json.RawMessage) {
	t.data, t.fields = data, nil
	if err := json.Unmarshal(data, &t.fields); err != nil {
		t.fields = nil // no object: it has no fields
	}
}

// SetMeta replaces a task's meta, as a person's PATCH does: the time of the task moves and nothing is announced. It reports whether there is such a task.
func (s *StandIn) SetMeta(taskID int64, meta any) bool {
	raw := mustJSON(meta)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[taskID]
	if t != nil {
		t.meta, t.updated = raw, s.now()
	}
	return t != nil
}

// Backup returns what puts the tasks that are there now back as they are, their times too: Label Studio was restored.
func (s *StandIn) Backup() (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := map[*task]task{}
	for _, t := range s.tasks {
		was[t] = *t
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for t, before := range was {
			t.meta, t.updated = before.meta, before.updated
		}
	}
}

// MoveTask moves a task to another project as an UPDATE in the real one's database does, where the API has no way: it keeps its number and its times.
func (s *StandIn) MoveTask(id, project int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[id]
	from, to := s.projects[t.project], s.projects[project]
	from.tasks = slices.DeleteFunc(from.tasks, func(other *task) bool { return other == t })
	t.project, to.tasks = project, append(to.tasks, t)
	slices.SortFunc(to.tasks, func(a, b *task) int { return cmp.Compare(a.id, b.id) })
}

// DeleteTask deletes a task and announces it. It reports whether there was such a task.
func (s *StandIn) DeleteTask(id int64) bool {
	s.mu.Lock()
	t := s.tasks[id]
	if t == nil {
		s.mu.Unlock()
		return false
	}
	send := s.deleteTask(t)
	s.mu.Unlock()
	send(context.Background())
	return true
}

func (s *StandIn) deleteTask(t *task) (send func(context.Context)) {
	s.removeTask(t)
	return s.announce(t.project, labelstudio.TasksDeleted, object{"tasks": idsOnly(t.id)})
}

func (s *StandIn) removeTask(t *task) {
	for _, a := range t.notes {
		delete(s.notes, a.id)
	}
	delete(s.tasks, t.id)
	p := s.projects[t.project]
	p.tasks = slices.DeleteFunc(p.tasks, func(other *task) bool { return other == t })
}

// Task returns the task as it is now, with its annotations.
func (s *StandIn) Task(id int64) (labelstudio.Task, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[id]
	if t == nil {
		return labelstudio.Task{}, false
	}
	var out labelstudio.Task
	// The same way out and in as over HTTP, so that it is what a client would see.
	if err := json.Unmarshal(encode(s.taskBody(t, single)), &out); err != nil {
		panic(fmt.Sprintf("stand-in: task %d does not decode: %v", id, err))
	}
	return out, true
}
