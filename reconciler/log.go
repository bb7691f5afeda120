package reconciler

// The keys of log attributes.
const (
	logKey   = "key"
	logTask  = "task"
	logTo    = "to"
	logTook  = "took"
	logError = "error"
	logKeys  = "keys"
	logPass  = "pass"
)
