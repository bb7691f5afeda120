package sandbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle/sandbox/pgtest"
	"github.com/aristotle/reconciler/labelstudio/sandbox"
	"github.com/aristotle/reconciler/labelstudio/sandbox/lstest"
)

// The real thing starts with our token and login, takes our label configuration, comes back after a kill with all it had, keeps others
// off its port, and leaves nothing when it is stopped.
func TestReal(t *testing.T) {
	t.Parallel()
	real := lstest.Real(t, pgtest.Shared(t).URL())
	project := call(t, real, http.MethodPost, "/api/projects/", map[string]any{"title": "street", "label_config": sandbox.LabelConfig})
	checkLogin(t, real)

	if err := real.Kill(); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.Get(real.URL()); err == nil {
		resp.Body.Close()
		t.Fatal("it answers after a kill")
	}
	if err := real.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := call(t, real, http.MethodGet, fmt.Sprintf("/api/projects/%v/", project["id"]), nil)
	if again["title"] != "street" {
		t.Errorf("after the restart the project is %v", again)
	}

	_, port, _ := strings.Cut(strings.TrimPrefix(real.URL(), "http://"), ":")
	taken, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	_, err = sandbox.StartReal(t.Context(), sandbox.RealOptions{Postgres: pgtest.Shared(t).URL(), Port: taken})
	if err == nil || !strings.Contains(err.Error(), "RealOptions.Port") {
		t.Errorf("a second one on the same port: %v", err)
	}

	if err := real.Stop(); err != nil {
		t.Fatal(err)
	}
	if conn, err := pgx.Connect(t.Context(), real.DatabaseURL()); err == nil {
		conn.Close(t.Context())
		t.Error("its database is still there")
	}
	if err := real.Restart(t.Context()); err == nil {
		t.Error("restarted after a stop")
	}
}

func call(t *testing.T, real *sandbox.Real, method, path string, body any) (answer map[string]any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, real.URL()+path, bytes.NewReader(text))
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
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s %s %v", method, path, resp.Status, got, err)
	}
	if err := json.Unmarshal(got, &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// checkLogin logs in as a person's browser does.
func checkLogin(t *testing.T, real *sandbox.Real) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Jar: jar}
	page, err := client.Get(real.URL() + "/user/login/")
	if err != nil {
		t.Fatal(err)
	}
	page.Body.Close()
	var csrf string
	for _, cookie := range jar.Cookies(page.Request.URL) {
		if cookie.Name == "csrftoken" {
			csrf = cookie.Value
		}
	}
	landed, err := client.PostForm(real.URL()+"/user/login/", url.Values{
		"email": {real.Email()}, "password": {real.Password()}, "csrfmiddlewaretoken": {csrf},
	})
	if err != nil {
		t.Fatal(err)
	}
	landed.Body.Close()
	if landed.StatusCode != http.StatusOK || strings.Contains(landed.Request.URL.Path, "login") {
		t.Errorf("the login ends at %s with %s", landed.Request.URL, landed.Status)
	}
}

// asParent in the environment makes the test binary a program that starts Label Studio, says so and waits to be killed. Its value is the
// URL of a PostgreSQL.
const asParent = "SANDBOX_TEST_PARENT"

func parent(postgres string) {
	real, err := sandbox.StartReal(context.Background(), sandbox.RealOptions{Postgres: postgres})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(real.URL())
	select {}
}

// However the program dies, Label Studio and its files go with it. (It also is the second Label Studio at once, of another process.)
func TestKilledParentLeavesNothing(t *testing.T) {
	t.Parallel()
	lstest.Real(t, pgtest.Shared(t).URL()) // there is one before it, which stays
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), asParent+"="+pgtest.Shared(t).URL(), "TMPDIR="+temp)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // mostly dead by then
		_ = cmd.Wait()
	})
	var address string
	if _, err := fmt.Fscanln(out, &address); err != nil {
		t.Fatal("the program did not start Label Studio:", err)
	}
	if n := len(entries(t, temp)); n != 1 {
		t.Fatalf("%d folders in its temporary folder, want its data", n)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		resp, err := http.Get(address)
		if err == nil {
			resp.Body.Close()
		}
		return err != nil && len(entries(t, temp)) == 0
	})
}

func TestNoPython(t *testing.T) {
	t.Setenv("PATH", "")
	_, err := sandbox.StartReal(t.Context(), sandbox.RealOptions{CacheDir: t.TempDir()})
	if !errors.Is(err, sandbox.ErrNoPython) {
		t.Error(err)
	}
}

func entries(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// eventually looks again and again: the end of somebody else's child sends no event.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(3 * time.Minute)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it is still there")
		}
	}
}
