// Package interop proves with clients that nobody here wrote that a Leat
// process is a Kafka broker to them. It holds black-box tests only and imports
// nothing of Leat, so the same suite runs against Apache Kafka
// (LEAT_INTEROP_BROKER=kafka) and shows what the two do differently.
//
// A contender is a client library with a small driver program of ours in its
// own language. Drivers obey one protocol: a request is one line of JSON on
// standard input, its answer one line on standard output that starts with
// "@leat "; every other line is noise of the library. Records travel in files,
// one JSON object a line. The drivers decide nothing: each scenario is written
// once, in Go, and runs for every contender.
//
//	scenario (Go) -- JSON lines --> driver (Go, Java, Python, JavaScript) -- library --> broker
//	      |                                                                               ^
//	      +---------------- reads the same data itself, with another client --------------+
//
// The drivers in Go are this test binary, started again under another name.
// What must be installed is kept in .cache (or $LEAT_INTEROP_CACHE) between
// runs. README.md lists the environment variables.
package interop
