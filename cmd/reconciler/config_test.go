package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// try parses a command line with an environment and the text of a YAML file ("" for none).
func try(t *testing.T, args, environ []string, file string) (loaded, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "r.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	_, l, err := parse(&commands{}, args, environ)
	return l, err
}

func TestFlagBeforeVariableBeforeFile(t *testing.T) {
	t.Parallel()
	file := "curation_listen: 127.0.0.1:3\nslot: from_file\nlabel_studio_projects: [1, 2]\nground_truth: true\nbrake_share: 0.5\n"
	env := []string{"RECONCILER_CURATION_LISTEN=127.0.0.1:2", "RECONCILER_SLOT=from_variable", "RECONCILER_PUBLICATION="}
	l, err := try(t, []string{"demo", "--curation-listen", "127.0.0.1:1", "--dry-run"}, env, file)
	if err != nil {
		t.Fatal(err)
	}
	c := l.config
	got := []any{c.CurationListen, c.Slot, c.LabelStudioProjects, c.GroundTruth, c.BrakeShare, c.DryRun, c.Publication, c.LabelStudioDeadline}
	want := []any{Address("127.0.0.1:1"), Name("from_variable"), ProjectIDs{1, 2}, true, Share(0.5), true, Name("reconciler"), time.Minute}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The contract fixes the variables and their defaults.
func TestDefaults(t *testing.T) {
	t.Parallel()
	l, err := try(t, []string{"demo"}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, s := range settings(&l.config) {
		fmt.Fprintf(&got, "%s=%v\n", s.env, s.value.Interface())
	}
	want := `RECONCILER_CONFIG=
ARISTOTLE_DATABASE_URL=
ARISTOTLE_ADMIN_URL=
ARISTOTLE_REPLICATION_URL=
ARISTOTLE_URL=
LABEL_STUDIO_URL=http://127.0.0.1:4115
LABEL_STUDIO_PUBLIC_URL=http://127.0.0.1:4115
LABEL_STUDIO_API_KEY=
LABEL_STUDIO_PROJECTS=[]
LABEL_STUDIO_DEADLINE=1m0s
LABEL_STUDIO_DATABASE_URL=
RECONCILER_LISTEN=127.0.0.1:4080
RECONCILER_CURATION_LISTEN=127.0.0.1:8001
RECONCILER_METRICS_LISTEN=127.0.0.1:9480
RECONCILER_PUBLIC_URL=
RECONCILER_WEBHOOK_SECRET=
RECONCILER_TOKENS_FILE=
RECONCILER_ICL_MEMORY=536870912
RECONCILER_DIFF_SCHEDULE=@every 30s
RECONCILER_FULL_DIFF_SCHEDULE=0 3 * * *
RECONCILER_INITIAL=union
RECONCILER_GROUND_TRUTH=false
RECONCILER_DIFF_PAGE=1000
RECONCILER_DIFF_PAUSE=50ms
RECONCILER_DRY_RUN=false
RECONCILER_BRAKE_COUNT=20
RECONCILER_BRAKE_SHARE=0.1
RECONCILER_SLOT=reconciler
RECONCILER_SLOT_WAL_LIMIT=10737418240
RECONCILER_PUBLICATION=reconciler
RECONCILER_SCHEMA=reconciler
RECONCILER_UNKNOWN_EVALUATOR=
RECONCILER_TRUSTED_PROXIES=[]
RECONCILER_LOCAL_USER=` + l.config.LocalUser + `
RECONCILER_AUDIT_RETENTION=2160h0m0s
RECONCILER_LOG_FORMAT=text
RECONCILER_LOG_LEVEL=INFO
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !strings.HasSuffix(l.config.LocalUser, "@localhost") || l.config.LocalUser == "@localhost" {
		t.Errorf("local user is %q", l.config.LocalUser)
	}
}

// Each of these must be refused by a sentence that names the setting as the user wrote it.
func TestBadSettings(t *testing.T) {
	t.Parallel()
	const db = "ARISTOTLE_DATABASE_URL=postgres://u:p@h/d"
	for _, c := range []struct {
		name, args, env, file, want string
	}{
		{"unknown flag", "demo --curation-lissen x", "", "", "--curation-lissen is no flag; did you mean --curation-listen?"},
		{"unknown key", "demo", "", "a: 1\nslott: x\n", `r.yaml:2: "slott" is no setting; did you mean slot?`},
		{"key of the file itself", "demo", "", "config: x\n", `"config" is no setting`},
		{"key twice", "demo", "", "slot: a\nslot: b\n", "slot is set twice"},
		{"no mapping", "demo", "", "- slot\n", "is no list of settings"},
		{"nested", "demo", "", "slot: {a: b}\n", "slot must be a text, a number or a list"},
		{"no such file", "demo --config /nowhere.yaml", "", "", "--config: open /nowhere.yaml"},
		{"address", "demo --listen 4080", "", "", `--listen: "4080" is no address`},
		{"port", "demo --listen :70000", "", "", "is no address"},
		{"open door", "run", "RECONCILER_LISTEN=0.0.0.0:1", "", "RECONCILER_LISTEN: 0.0.0.0:1 is not loopback, so others could reach it: set RECONCILER_TOKENS_FILE and RECONCILER_WEBHOOK_SECRET"},
		{"open page", "run --curation-listen=:1", "", "", "RECONCILER_CURATION_LISTEN: :1 is not loopback, so others could reach it: set RECONCILER_TOKENS_FILE, or"},
		{"cron", "demo --diff-schedule often", "", "", `--diff-schedule: "often" is no cron expression`},
		{"cron that would panic", "demo --diff-schedule TZ=x", "", "", "names a time zone and no time"},
		{"cron never", "demo --diff-schedule", "", "", "--diff-schedule"},
		{"empty", "demo --diff-schedule=", "", "", "--diff-schedule: must not be empty"},
		{"duration", "demo --label-studio-deadline 60", "", "", `"60" is no duration`},
		{"short deadline", "demo --label-studio-deadline 15s", "", "", "too short"},
		{"slot", "demo --slot My-Slot", "", "", `"My-Slot" is no name`},
		{"schema", "demo --schema public", "", "", "belongs to somebody else"},
		{"projects", "demo --label-studio-projects 1,x", "", "", `"x" is no project id`},
		{"share", "demo --brake-share NaN", "", "", "is no number from 0 to 1"},
		{"count", "demo --brake-count=-1", "", "", "is no whole number"},
		{"url", "demo --label-studio-url localhost:4115", "", "", "is no URL"},
		{"database without a scheme", "setup", "ARISTOTLE_DATABASE_URL=u:p@h:4002/d?sslmode=disable", "", "ARISTOTLE_DATABASE_URL: is no PostgreSQL URL"},
		{"no text after a flag", "demo --listen", "", "", "--listen: a text must follow"},
		{"no command", "", "", "", "`reconciler --help` lists them"},
		{"url with a password", "demo --public-url http://u:p@h", "", "", "must not hold a user"},
		{"initial", "demo --initial both", "", "", "must be one of union, aristotle, labelstudio, hold"},
		{"retention of minutes", "demo --audit-retention 30m", "", "", "is no time of at least an hour as in 90d"},
		{"retention in words", "demo --audit-retention xd", "", "", "is no time of at least an hour as in 90d"},
		{"switch", "demo --dry-run=perhaps", "", "", "must be true or false"},
		{"networks", "demo --trusted-proxies 10.0.0.0/99", "", "", "is no network"},
		{"key with a line break", "demo", "LABEL_STUDIO_API_KEY=abc\nd", "", "LABEL_STUDIO_API_KEY: holds a character"},
		{"secret twice", "demo", "LABEL_STUDIO_API_KEY=a LABEL_STUDIO_API_KEY_FILE=/b", "", "LABEL_STUDIO_API_KEY and LABEL_STUDIO_API_KEY_FILE are both set"},
		{"secret's file", "demo", "LABEL_STUDIO_API_KEY_FILE=/nowhere", "", "LABEL_STUDIO_API_KEY_FILE: open the secret's file"},
		{"tokens file", "demo --tokens-file /nowhere", "", "", "RECONCILER_TOKENS_FILE: open /nowhere"},
		{"other database", "setup", db + " ARISTOTLE_ADMIN_URL=postgres://u:p@h/e", "", `names database "e"`},
		{"two passwords", "setup", db + " ARISTOTLE_REPLICATION_URL=postgres://u:q@h/d", "", "two passwords"},
		{"missing", "setup", "", "", "ARISTOTLE_DATABASE_URL is missing"},
		{"missing key", "run", db, "", "LABEL_STUDIO_API_KEY is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			args, env := strings.Fields(c.args), strings.Split(c.env, " ")
			if c.name == "cron never" {
				args = append(args, "0 0 30 2 *")
			}
			_, err := try(t, args, env, c.file)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

// A mistake in the tokens file is told by who reads it: it keeps no other command from its work, and no daemon that runs from a new secret.
func TestTokensFileWithAMistake(t *testing.T) {
	t.Parallel()
	file, key := filepath.Join(t.TempDir(), "tokens"), filepath.Join(t.TempDir(), "key")
	write(t, file, "[]\n")
	write(t, key, "first")
	env := []string{"ARISTOTLE_DATABASE_URL=postgres://u:p@h/d", "RECONCILER_TOKENS_FILE=" + file, "LABEL_STUDIO_API_KEY_FILE=" + key}
	l, err := try(t, []string{"run"}, env, "")
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, "slip\n")
	write(t, key, "second")
	if now, problems := l.again(); len(problems) > 0 || now.config.LabelStudioAPIKey != "second" {
		t.Errorf("read again: %q, key %q", problems, string(now.config.LabelStudioAPIKey))
	}
	if _, err := try(t, []string{"status"}, env, ""); err != nil {
		t.Errorf("status: %v", err)
	}
	if _, err := try(t, []string{"run"}, env, ""); err == nil {
		t.Error("a daemon starts with it")
	}
}

func TestUnknownVariableIsAWarning(t *testing.T) {
	t.Parallel()
	l, err := try(t, []string{"demo"}, []string{"RECONCILER_SERVICE_HOST=1", "RECONCILER_SLOTS=2", "RECONCILER_SANDBOX_POSTGRES=3", "ARISTOTLE_X=4"}, "")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"RECONCILER_SERVICE_HOST in the environment is no setting",
		"RECONCILER_SLOTS in the environment is no setting; did you mean RECONCILER_SLOT?"}
	if diff := cmp.Diff(want, l.warnings); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSecretFromFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ arg, env, file string }{
		{arg: "--label-studio-api-key-file=" + path},
		{env: "LABEL_STUDIO_API_KEY_FILE=" + path},
		{file: "label_studio_api_key_file: " + path + "\n"},
		{arg: "--label-studio-api-key=abc", env: "LABEL_STUDIO_API_KEY_FILE=/nowhere"}, // not read: the flag counts
	} {
		l, err := try(t, strings.Fields("demo "+c.arg), []string{c.env}, c.file)
		if err != nil || l.config.LabelStudioAPIKey != "abc" {
			t.Errorf("%+v: %q, %v", c, string(l.config.LabelStudioAPIKey), err)
		}
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	t.Parallel()
	const secret = "hush-hush"
	cfg := Config{LabelStudioAPIKey: secret, WebhookSecret: secret,
		AristotleDatabaseURL: "postgres://u:" + secret + "@h:1/d", LabelStudioDatabaseURL: "host=h user=u password=" + secret}
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "cfg", cfg, "key", cfg.LabelStudioAPIKey, "dsn", cfg.AristotleDatabaseURL)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "cfg", cfg, "key", cfg.LabelStudioAPIKey, "dsn", cfg.AristotleDatabaseURL)
	shown := string(text) + log.String() + fmt.Sprintf("%v %+v %#v %s %q", cfg, cfg, cfg, cfg.LabelStudioAPIKey, cfg.AristotleDatabaseURL)
	if strings.Contains(shown, secret) {
		t.Error(shown)
	}
	if want := "postgres://u@h:1/d"; cfg.AristotleDatabaseURL.String() != want {
		t.Errorf("DSN shows as %v, want %s", cfg.AristotleDatabaseURL, want)
	}
}

// No text, however wrong, may panic, and a wrong secret must not be quoted.
func FuzzLoad(f *testing.F) {
	for _, s := range []string{"TZ=0", "@every -1s", "* * * * *", "postgres://u:hush@h/d", "postgres://u:hu#sh@h/d", "1,2,,", "[::1]:x", "host=a password='"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range settings(new(Config)) {
			if s.env == "RECONCILER_CONFIG" || s.env == "RECONCILER_TOKENS_FILE" {
				continue
			}
			err := s.set(text, "name")
			if err != nil && s.secret() && len(text) > 12 && strings.Contains(err.Error(), text) {
				t.Errorf("%s shows its text: %v", s.env, err)
			}
		}
	})
}
