// Package compact decides which records a compacted log keeps (cleanup.policy=compact), and
// rewrites batches without the others. It is pure: it knows no file, no clock and no lock,
// and the engine gives it batches and takes them back.
//
// A round of compaction has three steps:
//
//	PlanRound   which part of a log is dirty, where the round must end, and whether it is due
//	Indexer     reads the dirty part and notes the latest offset of each key in a Map; when
//	            the Map is full, the round ends there
//	Filter      reads all segments below that end, in groups that become one segment each
//	            (GroupSegments), and judges each batch: it is dropped, copied byte for byte,
//	            left without records, or rewritten with fewer of them
//
//	0 ........ clean ........ | First ....... dirty ....... | End .... | Upper .... active ....
//	  older records of the    |  read by the Indexer        |  not in  |  never touched
//	  Map's keys go           |                             |  the Map |
//
// # Rules
//
// A record stays if no record of its key has a higher offset in the Map. A tombstone (a null
// value) goes, too, when its batch's delete horizon has passed: the round that drops what the
// tombstone has deleted sets the horizon delete.retention.ms after its own time, so that a
// consumer that has read the older record has as long to see that it is gone (KIP-534). A
// record without a key goes. A record at End or above stays.
//
// Records of aborted transactions go. The marker of a transaction stays as it is while a round still
// reads a batch of the transaction; the next round gives it a delete horizon, and it goes when that
// has passed. The list of aborted transactions loses its entry with the horizon (Filter.TakeAborted).
//
// A batch that has lost all its records stays without them if it has the last sequence below Upper of a
// producer that is still known (else the next batch of the producer would be out of order; also for a
// replica that has no more than that, and gets the batch again), or
// the last offset below Upper (so that the log's end is known from its batches), or that of its
// segment (KeepEnd: a log whose checkpoints are lost is walked, and a segment that does not end where
// the next one begins would be damage). No offset ever
// changes: a batch keeps its first and last offset, and its epoch, producer and sequences.
//
// A batch that would grow too much when it is compressed without the records that go stays whole. Tombstones above it stay,
// too, since they may delete what is in it: a tombstone that has no horizon after the round that has read its key gets none later.
//
// These are the rules of Apache Kafka 4.3, with these differences. Kafka does not keep the end of a segment, nor
// a producer's last sequence below Upper if it has a later one. A tombstone at End or above
// gets no horizon: its older records have not gone yet. And a segment of which a part is
// dirty counts as dirty only; Kafka counts it as clean as well.
//
// Nothing here may be called by several goroutines at once.
package compact
