// Package segment keeps one segment of a partition's log: a file of record batches, its
// offset index and its time index. Segment is one of them, Dir is the directory that a
// log's segments share, Files bounds how many segment files of a store are open at a
// time, Chunk is a stretch of a file that is sent to a reader, Walker goes from batch to
// batch.
//
// The files, in Kafka's format, are named after the offset from which the segment goes on:
//
//	00000000000000000000.log        record batches, one after the other
//	00000000000000000000.index      (last offset of a batch less the base, its position), 4 bytes each
//	00000000000000000000.timeindex  (largest timestamp so far, the last offset of its batch less the base), 8 and 4 bytes
//
// A segment is in one of three states:
//
//	          Create                 Seal
//	(nothing) ------> active ------------------> closed
//	          Attach    ^                          ^
//	(a file) -----------+-- the log's last one     |
//	          Attach                               |
//	(a file) --------------------------------------+
//
// An active segment is appended to, and the ends of its indexes are in memory (tail). A
// closed one never changes, except that its indexes may be made anew. Indexes are hints:
// each entry is compared with the batch that it names before it is believed, and an
// index that is wrong or missing is made anew from the batches.
//
// Append, Seal and Truncate are for one goroutine at a time, the owner of the log's end.
// All other methods may be called at any time. Locks, outer before inner:
// Segment.indexFiles (held over changes of the index files), Dir's (held over changes in
// the directory), then one of Segment.mu, Files.mu and cursors.mu, which are held for
// moments and never over input and output.
package segment
