// Package sandbox is a Label Studio for tests and for the demo command: the real one, or a stand-in.
//
// [StartReal] runs Label Studio Community, which it installs into a cache folder once, on a database of its own in a PostgreSQL that it is
// handed. It costs six seconds a start, some 400 MB of memory and a Python. [StartStandIn] answers the same calls from memory, at once, and refuses
// what the real one refuses; the conformance tests of this package hold the two together.
package sandbox
