package main

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Config is every setting, each declared once. The env tag gives all three names of it: RECONCILER_CURATION_LISTEN is also the
// flag --curation-listen and the key curation_listen of the YAML file (the prefix RECONCILER_ falls away, the others stay).
// The flag counts before the variable, the variable before the file. A [DSN] or a [Secret] may come from a file: the same
// name with _FILE. An empty variable counts as none.
//
// The types know how to read themselves, so that one pass finds every bad value; what holds between settings is in validate.go.
type Config struct {
	// Config is the YAML file itself; it can be no key of it.
	Config string `env:"RECONCILER_CONFIG" group:"General" help:"YAML file with settings; a key that is no setting stops the program."`

	AristotleDatabaseURL    DSN     `env:"ARISTOTLE_DATABASE_URL" group:"Aristotle" help:"Aristotle's PostgreSQL, as the ordinary role: it reads the tables, writes results and ratings and owns our schema."`
	AristotleAdminURL       DSN     `env:"ARISTOTLE_ADMIN_URL" shown:"ARISTOTLE_DATABASE_URL" group:"Aristotle" help:"The same database as a user who may create roles, grant and publish; for setup and uninstall alone. The daemon never uses it."`
	AristotleReplicationURL DSN     `env:"ARISTOTLE_REPLICATION_URL" shown:"ARISTOTLE_DATABASE_URL" group:"Aristotle" help:"The same database as a role with REPLICATION. It must reach the server itself: most poolers cannot carry a replication connection."`
	AristotleURL            BaseURL `env:"ARISTOTLE_URL" shown:"none" group:"Aristotle" help:"Where people find a conquest in Aristotle's web app, for links on the curation page: {id} stands for the conquest's id, as in http://127.0.0.1:4000/conquests/{id}."`

	LabelStudioURL         BaseURL       `env:"LABEL_STUDIO_URL" default:"http://127.0.0.1:4115" group:"Label Studio" help:"Base URL of Label Studio; may have a path prefix."`
	LabelStudioPublicURL   BaseURL       `env:"LABEL_STUDIO_PUBLIC_URL" shown:"LABEL_STUDIO_URL" group:"Label Studio" help:"Where people find Label Studio, for links on the curation page, when that is not where the daemon does."`
	LabelStudioAPIKey      Secret        `env:"LABEL_STUDIO_API_KEY" group:"Label Studio" help:"Personal access token or legacy token; told apart by itself. Its user must see every project that is to be synced."`
	LabelStudioProjects    ProjectIDs    `env:"LABEL_STUDIO_PROJECTS" default:"all" group:"Label Studio" help:"Project ids, comma-separated. A task elsewhere is not looked at."`
	LabelStudioDeadline    time.Duration `env:"LABEL_STUDIO_DEADLINE" default:"60s" group:"Label Studio" help:"How long after a PATCH without an answer it may still take effect there. Too short, and a late PATCH can cover a person's click; longer only delays the repair of a lost PATCH."`
	LabelStudioDatabaseURL DSN           `env:"LABEL_STUDIO_DATABASE_URL" shown:"none" group:"Label Studio" help:"Label Studio's own PostgreSQL, read-only, to make the diff pass fast. Without it passes read through the API."`

	Listen         Address `env:"RECONCILER_LISTEN" default:"127.0.0.1:4080" group:"Listeners" help:"Where webhooks, sync calls and requests for examples arrive. An address that is not loopback needs a tokens file and a webhook secret."`
	CurationListen Address `env:"RECONCILER_CURATION_LISTEN" default:"127.0.0.1:8001" group:"Listeners" help:"The curation web app. An address that is not loopback needs a tokens file."`
	MetricsListen  Address `env:"RECONCILER_METRICS_LISTEN" default:"127.0.0.1:9480" group:"Listeners" help:"/metrics, /healthz and /readyz; without any login, so not for the open network."`
	PublicURL      BaseURL `env:"RECONCILER_PUBLIC_URL" shown:"none" group:"Listeners" help:"Base URL by which Label Studio reaches us. When set, the daemon registers its webhooks and looks after them; without it somebody must, else stars there wait for a diff pass."`
	WebhookSecret  Secret  `env:"RECONCILER_WEBHOOK_SECRET" shown:"none" group:"Listeners" help:"Label Studio sends it as Authorization: Bearer. Without it anybody on this machine can wake the daemon."`
	TokensFile     string  `env:"RECONCILER_TOKENS_FILE" shown:"none" group:"Listeners" help:"YAML file that says who may call what. Where it is set it is enforced on loopback too."`

	ICLMemory Bytes `env:"RECONCILER_ICL_MEMORY" default:"512MiB" group:"Examples" help:"Memory that the examples may take. Where they do not fit, and with 0, each request asks the database."`

	DiffSchedule     Schedule      `env:"RECONCILER_DIFF_SCHEDULE" default:"@every 30s" group:"Passes" help:"When the incremental diff pass runs: cron expression or descriptor, UTC."`
	FullDiffSchedule Schedule      `env:"RECONCILER_FULL_DIFF_SCHEDULE" default:"0 3 * * *" group:"Passes" help:"The same for the pass that reads everything."`
	Initial          Initial       `env:"RECONCILER_INITIAL" default:"union" group:"Passes" help:"First contact where the sides differ: union, aristotle (the row is right), labelstudio (the task is right: a bare VICTORY becomes PENDING) or hold (a person decides each)."`
	GroundTruth      bool          `env:"RECONCILER_GROUND_TRUTH" default:"false" group:"Passes" help:"Whether ground_truth of an annotation counts as a star. Imported annotations carry it unasked."`
	DiffPage         Count         `env:"RECONCILER_DIFF_PAGE" default:"1000" group:"Passes" help:"Tasks in one listing of a pass that reads everything. Fewer let people's requests come in between sooner, and make the pass longer."`
	DiffPause        time.Duration `env:"RECONCILER_DIFF_PAUSE" default:"50ms" group:"Passes" help:"What such a pass waits between two listings, so that people go on working."`
	DryRun           bool          `env:"RECONCILER_DRY_RUN" default:"false" group:"Passes" help:"Look and report only: nothing is written but log and metrics. No turn, no slot, no webhook, no listener but the metrics'. Needs no setup."`
	BrakeCount       Count         `env:"RECONCILER_BRAKE_COUNT" default:"20" group:"Passes" help:"A pass that would change more keys than this, and than the share, within an hour stops before its first write."`
	BrakeShare       Share         `env:"RECONCILER_BRAKE_SHARE" default:"0.1" group:"Passes" help:"The same as a share of the linked keys, 0 to 1."`

	Slot         Name  `env:"RECONCILER_SLOT" default:"reconciler" group:"Names" help:"Our replication slot. Names are cluster-wide: two installations on one server need two."`
	SlotWALLimit Bytes `env:"RECONCILER_SLOT_WAL_LIMIT" default:"10GiB" group:"Names" help:"WAL that the server may keep for the slot. Beyond it the daemon gives the slot up rather than fill Aristotle's disk, and compares everything; 0: no limit. It cannot do so while it is down: set max_slot_wal_keep_size for that."`
	Publication  Name  `env:"RECONCILER_PUBLICATION" default:"reconciler" group:"Names" help:"Our publication."`
	Schema       Name  `env:"RECONCILER_SCHEMA" default:"reconciler" group:"Names" help:"The schema for our own tables; the application's migrations must not know it."`

	UnknownEvaluator string   `env:"RECONCILER_UNKNOWN_EVALUATOR" shown:"none: NULL" group:"People" help:"evaluatedBy where nobody can tell who set a star."`
	TrustedProxies   Networks `env:"RECONCILER_TRUSTED_PROXIES" shown:"none" group:"People" help:"Networks, comma-separated, whose X-Forwarded-User says who it is on the curation page. Everybody in them can claim to be anybody."`
	LocalUser        string   `env:"RECONCILER_LOCAL_USER" shown:"the system user @localhost" group:"People" help:"Who it is on the curation page without tokens, and in held settle."`

	AuditRetention Retention  `env:"RECONCILER_AUDIT_RETENTION" default:"90d" group:"General" help:"How long the audit, from which the story of a key is told, is kept: days as in 90d, a duration as in 36h, or forever."`
	LogFormat      LogFormat  `env:"RECONCILER_LOG_FORMAT" default:"text" group:"General" help:"text or json."`
	LogLevel       slog.Level `env:"RECONCILER_LOG_LEVEL" default:"info" group:"General" help:"debug, info, warn or error."`
}

// needs names the settings without which a command can do nothing.
func needs(command string) []string {
	switch command {
	case "run", "diff":
		return []string{"ARISTOTLE_DATABASE_URL", "LABEL_STUDIO_API_KEY"}
	case "setup", "doctor", "status", "held", "uninstall", "export":
		return []string{"ARISTOTLE_DATABASE_URL"}
	}
	return nil
}

// uses says whether a command's help shows a setting. A command takes all of them, so that one environment and one file serve all
// commands.
func uses(command, env string) bool {
	const (
		general = "RECONCILER_CONFIG RECONCILER_LOG_FORMAT RECONCILER_LOG_LEVEL "
		names   = "RECONCILER_SLOT RECONCILER_PUBLICATION RECONCILER_SCHEMA "
		urls    = "ARISTOTLE_DATABASE_URL ARISTOTLE_ADMIN_URL ARISTOTLE_REPLICATION_URL "
		studio  = "LABEL_STUDIO_URL LABEL_STUDIO_API_KEY LABEL_STUDIO_PROJECTS "
		listen  = "RECONCILER_LISTEN RECONCILER_CURATION_LISTEN RECONCILER_METRICS_LISTEN RECONCILER_TOKENS_FILE RECONCILER_WEBHOOK_SECRET "
	)
	shown := map[string]string{
		"setup":     general + urls + "RECONCILER_PUBLICATION RECONCILER_SCHEMA",
		"uninstall": general + names + urls + studio + "RECONCILER_PUBLIC_URL",
		"doctor":    general + names + studio + "ARISTOTLE_DATABASE_URL ARISTOTLE_REPLICATION_URL LABEL_STUDIO_DATABASE_URL RECONCILER_LISTEN RECONCILER_PUBLIC_URL RECONCILER_WEBHOOK_SECRET",
		"diff":      general + studio + "ARISTOTLE_DATABASE_URL RECONCILER_SCHEMA LABEL_STUDIO_DATABASE_URL RECONCILER_INITIAL RECONCILER_GROUND_TRUTH RECONCILER_DIFF_PAGE RECONCILER_DIFF_PAUSE RECONCILER_BRAKE_COUNT RECONCILER_BRAKE_SHARE RECONCILER_LOCAL_USER",
		"status":    general + "ARISTOTLE_DATABASE_URL LABEL_STUDIO_URL LABEL_STUDIO_API_KEY RECONCILER_SLOT RECONCILER_SCHEMA RECONCILER_METRICS_LISTEN",
		"export":    general + "ARISTOTLE_DATABASE_URL RECONCILER_SCHEMA",
		"held":      general + "ARISTOTLE_DATABASE_URL RECONCILER_SCHEMA RECONCILER_LOCAL_USER",
		"demo":      general + listen,
	}[command]
	if shown == "" { // the daemon, and what does a part of its work
		return env != "ARISTOTLE_ADMIN_URL"
	}
	return slices.Contains(strings.Fields(shown), env)
}

// listens says whether a command opens the listeners.
func listens(command string) bool { return command == "run" || command == "demo" }

// ProjectIDs are Label Studio's project ids; nil means all.
type ProjectIDs []int64

// Networks are networks of addresses.
type Networks []netip.Prefix
