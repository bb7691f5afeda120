package sandbox

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
)

const (
	release = "1.23.2"
	// maxRequestLine is that of Python's http.server: method, target, version and line end.
	maxRequestLine = 65536
	maxUpload      = 250 << 20
)

// request is what a handler gets: the lock is held, the user is known.
type request struct {
	*http.Request
	user *user
	body []byte
}

// answer is what it returns. What is in after runs without the lock, before the answer is written: webhooks go out inside the request.
type answer struct {
	status int
	body   any
	after  func(context.Context)
}

type route struct {
	op     labelstudio.Operation
	serve  func(*StandIn, *request) *answer
	cost   func(*StandIn, *request) time.Duration // nil: Delays.Other
	public bool
}

// handler is the whole surface in one place.
func (s *StandIn) handler() http.Handler {
	mux := http.NewServeMux()
	add := func(pattern string, r route) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, hr *http.Request) { s.serve(w, hr, r) })
	}
	cost := func(pick func(Delays) time.Duration) func(*StandIn, *request) time.Duration {
		return func(s *StandIn, _ *request) time.Duration { return pick(s.delays) }
	}
	note := cost(func(d Delays) time.Duration { return d.Annotation })

	add("GET /health/{$}", route{serve: func(*StandIn, *request) *answer { return ok(object{"status": "UP"}) }, public: true})
	add("GET /api/version/{$}", route{op: labelstudio.OpVersion, serve: (*StandIn).version, public: true})
	add("POST /api/token/refresh/{$}", route{op: labelstudio.OpTokenRefresh, serve: (*StandIn).refreshToken, public: true})
	add("GET /api/current-user/whoami/{$}", route{op: labelstudio.OpWhoami, serve: (*StandIn).whoami})
	add("GET /api/users/{$}", route{op: labelstudio.OpUsers, serve: (*StandIn).listUsers})

	add("GET /api/projects/{$}", route{op: labelstudio.OpProjects, serve: (*StandIn).listProjects})
	add("POST /api/projects/{$}", route{op: labelstudio.OpProjectCreate, serve: (*StandIn).createProject})
	add("PATCH /api/projects/{id}/{$}", route{op: labelstudio.OpProjectUpdate, serve: (*StandIn).updateProject})
	add("DELETE /api/projects/{id}/{$}", route{op: labelstudio.OpProjectDelete, serve: (*StandIn).deleteProject})
	add("POST /api/projects/{id}/import/{$}", route{op: labelstudio.OpTasksImport, serve: (*StandIn).importTasks, cost: (*StandIn).importCost})

	add("GET /api/tasks/{$}", route{serve: (*StandIn).listTasks, cost: (*StandIn).listingCost})
	add("GET /api/tasks/{id}/{$}", route{op: labelstudio.OpTask, serve: (*StandIn).getTask, cost: cost(func(d Delays) time.Duration { return d.Task })})
	add("PATCH /api/tasks/{id}/{$}", route{op: labelstudio.OpTaskPatch, serve: (*StandIn).patchTask, cost: cost(func(d Delays) time.Duration { return d.Patch })})
	add("DELETE /api/tasks/{id}/{$}", route{op: labelstudio.OpTaskDelete, serve: (*StandIn).dropTask})
	add("POST /api/tasks/{id}/annotations/{$}", route{op: labelstudio.OpAnnotationCreate, serve: (*StandIn).createNote, cost: note})
	add("PATCH /api/annotations/{id}/{$}", route{op: labelstudio.OpAnnotationUpdate, serve: (*StandIn).updateNote, cost: note})
	add("DELETE /api/annotations/{id}/{$}", route{op: labelstudio.OpAnnotationDelete, serve: (*StandIn).dropNote, cost: note})

	add("GET /api/webhooks/{$}", route{op: labelstudio.OpWebhooks, serve: (*StandIn).listHooks})
	add("POST /api/webhooks/{$}", route{op: labelstudio.OpWebhookCreate, serve: (*StandIn).createHook})
	add("PATCH /api/webhooks/{id}/{$}", route{op: labelstudio.OpWebhookUpdate, serve: (*StandIn).updateHook})
	add("DELETE /api/webhooks/{id}/{$}", route{op: labelstudio.OpWebhookDelete, serve: (*StandIn).dropHook})

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Method)+len(r.RequestURI)+len("  HTTP/1.1\r\n") > maxRequestLine {
			http.Error(w, "Request-URI Too Long", http.StatusRequestURITooLong)
			return
		}
		if !strings.HasSuffix(r.URL.Path, "/") {
			r.URL.Path += "/" // taken without the slash as well, and not by a redirect
		}
		mux.ServeHTTP(w, r)
	})
}

// serve is the life of a request: counted, faulted, computed, done, announced, answered.
func (s *StandIn) serve(w http.ResponseWriter, hr *http.Request, rt route) {
	s.count(hr, rt)
	var fault Fault
	if decide := s.faults.get(); decide != nil {
		fault = decide(hr)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, hr.Body, maxUpload))
	if err != nil {
		panic(http.ErrAbortHandler) // the client went, or sends without end
	}
	switch fault.Kind {
	case FaultStatus:
		s.write(w, refuse(fault.Status, http.StatusText(fault.Status)))
		return
	case FaultCut:
		panic(http.ErrAbortHandler)
	case FaultHang:
		select {
		case <-hr.Context().Done():
		case <-s.closed:
		}
		panic(http.ErrAbortHandler)
	case FaultLate:
		s.pause(fault.Delay)
	}
	a := s.answer(&request{Request: hr, body: body}, rt)
	switch {
	case fault.Kind == FaultLost && fault.Status != 0:
		a = refuse(fault.Status, http.StatusText(fault.Status))
	case fault.Kind == FaultLost:
		panic(http.ErrAbortHandler)
	case fault.Kind == FaultShort:
		a.cutRows()
	}
	s.write(w, a)
}

func (s *StandIn) answer(r *request, rt route) *answer {
	s.mu.Lock()
	user, refusal := s.authenticate(r.Request)
	r.user = user
	wait := s.delays.Other
	if rt.cost != nil {
		wait = rt.cost(s, r)
	}
	s.mu.Unlock()
	if refusal != nil && !rt.public {
		return refusal
	}
	s.compute(wait)
	s.mu.Lock()
	a := rt.serve(s, r)
	s.mu.Unlock()
	if a.after != nil {
		a.after(r.Context())
	}
	return a
}

func (s *StandIn) write(w http.ResponseWriter, a *answer) {
	h := w.Header()
	h.Set("Server", "WSGIServer/0.2 CPython/3.11.2")
	h.Set("Set-Cookie", "sessionid=stand-in; HttpOnly; Path=/; SameSite=Lax") // a client with a cookie jar would then go by session
	if a.status == http.StatusNoContent {
		w.WriteHeader(a.status)
		return
	}
	h.Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_, _ = w.Write(encode(a.body)) // the client may be gone
}

func (s *StandIn) count(r *http.Request, rt route) {
	op := rt.op
	if op == "" && r.URL.Path == "/api/tasks/" {
		op = listingOp(r.URL.Query().Get("query"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[op]++
}

func ok(body any) *answer { return &answer{status: http.StatusOK, body: body} }

func noContent(after func(context.Context)) *answer {
	return &answer{status: http.StatusNoContent, after: after}
}

// refuse is Label Studio's error body. Its id is a UUID, to catch who takes it for an object's.
func refuse(status int, detail string) *answer {
	return &answer{status: status, body: object{"id": newUUID(), "status_code": status, "version": release, "detail": detail, "exc_info": nil}}
}

func invalid(errors any) *answer {
	a := refuse(http.StatusBadRequest, "Validation error")
	a.body.(object)["validation_errors"] = errors
	return a
}

func missing(what string) *answer {
	return refuse(http.StatusNotFound, "No "+what+" matches the given query.")
}

// decode reads the body; the answer is the refusal of what is no JSON object.
func (r *request) decode(into any) *answer {
	if !json.Valid(r.body) {
		return refuse(http.StatusBadRequest, "JSON parse error - Expecting value: line 1 column 1 (char 0)")
	}
	if err := json.Unmarshal(r.body, into); err != nil {
		return invalid(object{"non_field_errors": []string{"Invalid data. " + err.Error()}})
	}
	return nil
}

// id is the number in the path; 0, which nothing has, where it is none.
func (r *request) id() int64 {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return 0
	}
	return id
}

func (s *StandIn) version(*request) *answer {
	return ok(object{"release": release, "label-studio-os-package": object{"version": release}, "edition": "Community"})
}

func (s *StandIn) whoami(r *request) *answer { return ok(userBody(r.user)) }

func (s *StandIn) listUsers(*request) *answer {
	list := make([]object, 0, len(s.users))
	for id := int64(1); id <= s.ids.user; id++ {
		list = append(list, userBody(s.users[id]))
	}
	return ok(list)
}
