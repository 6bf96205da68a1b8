// Package audit records who did what: logins, denials, changes, and, if that is wanted, reads and writes.
//
// An Event is one thing that somebody did. A Recorder takes the events of a node, sums up those that repeat
// (repeats), and gives each to its trails. A Trail is one destination: a bounded queue, the Chain that makes lines
// of events, and a Sink, which is a File or another writer. A Verifier checks the lines of a log. Only Trail, File and
// Recorder do more than compute.
//
// # A line
//
// An event is one line of JSON, with the attribute names of CloudEvents 1.0, and three extensions of it: sequence,
// previoushash and start.
//
//	{"specversion":"1.0","id":"1.5f1c0e….42","source":"/clusters/ID/nodes/1","type":"leat.topic.created","subject":"topic/orders",
//	 "time":"…","datacontenttype":"application/json","start":"5f1c0e…","sequence":"42","previoushash":"…","data":{"principal":"User:alice",…}}
//
// # The chain
//
// The sequence counts the lines of a node and a start in one trail, from 1 on. The previoushash is the SHA-256 of the bytes of the
// line before, without its end of line. The first line of a start is a Started event. It names the last line of the start before, by
// what the trail has noted (Head):
//
//	append the Started line -> note {confirmed, written} -> append the lines up to written -> note {confirmed = written, the next written} -> ...
//
// So a node that is killed does not know of at most one batch of lines whether it is in the log, and the Started event says so: the log must have
// all lines up to confirmed, and none beyond written. A start whose Started line was never noted has no other line, and the next one names
// the same start before as it did. A line may be in the log twice, since a batch whose answer was lost is sent again.
// An Anchor event has the number of lines and the hash at some point, which the node's log has, too: with that, the newest lines can be
// checked, which no line behind them vouches for.
//
// # Concurrency
//
// Any goroutine may call a Recorder, which never blocks: an event for which a queue has no room is counted, and a Lost event says later how
// many there were. Each Trail has a goroutine, and the Recorder one more. No goroutine holds more than one of Recorder.mu and Trail.mu.
package audit
