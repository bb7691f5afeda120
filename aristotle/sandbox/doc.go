// Package sandbox runs a throw-away PostgreSQL that carries Aristotle's schema: a real server for tests and for the demo
// command, with nothing to prepare on the machine.
//
// A program that uses it calls [Supervise] as the first line of main (or of TestMain). [Start] then re-executes the program
// as a small supervisor, which runs initdb and postgres and serves until its standard input ends. That is what keeps the
// machine clean: however the program dies, SIGKILL included, the kernel closes the pipe, and the supervisor stops the server and
// removes its folder. Should the supervisor be killed as well, the kernel takes the server down with it (Linux; elsewhere the
// server ends within a minute of losing its folder), and the next Start of anybody sweeps the folder away.
//
// PostgreSQL refuses to run as root. As root, initdb and the server run as uid 65534 instead, who must be able to reach the cache folder:
// root's home is no place for it.
//
// Where the binaries come from, in this order:
//
//   - RECONCILER_SANDBOX_POSTGRES: the prefix folder of an installed PostgreSQL (the one that has bin/postgres);
//   - the cache folder: RECONCILER_SANDBOX_CACHE, else "reconciler" in the user's cache folder, as root /var/cache/reconciler;
//   - a download into the cache, said aloud, and checked against a SHA-256 that is pinned here.
//
// RECONCILER_SANDBOX_VERSION names the version where [Options] does not.
package sandbox
