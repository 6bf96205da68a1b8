// Package position follows where the consumer groups of another cluster are in its topics, and says what is to be committed here for that: it is the pure part of a link's task for
// positions. A Machine is told of the records of the source's __consumer_offsets, or of the answers to OffsetFetch where those cannot be read. It has no clock, no network and no
// goroutine; times are arguments, in ms since 1970 by the clock here, unless their name says that they are the source's.
//
//	__consumer_offsets of the source          the source's groups          the groups here
//
//	offset ---------------------------------> position -----Decide-------> commit, if nobody here has done so later
//	offset of a transaction -> pending --commit--^                         and the group has no members here
//	                              '----abort--> forgotten
//	tombstone ------------------------------> none -----Decide-----------> delete, if this link has made it
//
// A position is committed here as it is at the source: offsets are the same in a mirror. It may be beyond what the mirror has, so it is bounded when a client asks for it: by the end of the mirror (Position.Within), and
// after a promotion by the place where clients here began to write (package group).
//
// The rules of Decide:
//
//   - The source's log decides, not the numbers: an offset that goes back (a reset), a group that is deleted and one whose offsets have expired are followed.
//   - A group with members here is left alone. So is a position that somebody else has committed here later than the source's group has at the source; times of two clocks are compared, and
//     a source whose clock is known to be ahead counts by as much less.
//   - What this link has not made is never deleted. What it has made is deleted for a tombstone of the source, not for a loss, and not for a topic that the source may have deleted: see Mirror.SeenAt.
//   - Nothing is decided before the log that has the group's records was read up to its end.
//
// A Machine belongs to one goroutine at a time.
package position
