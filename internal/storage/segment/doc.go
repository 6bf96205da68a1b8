// Package segment keeps the segments of a partition's log. A Segment is a file of record
// batches with an offset index and a time index. Dir is the directory that a log's
// segments share, Files bounds how many segment files of a store are open at a time,
// Chunk is a part of a file that is sent to a reader, and Walker reads a file batch by
// batch.
//
// The files have Kafka's format. They are named after the base offset, at which the
// segment begins:
//
//	00000000000000000000.log        record batches, one after the other
//	00000000000000000000.index      (last offset of a batch less the base, its position), 4 bytes each
//	00000000000000000000.timeindex  (largest timestamp so far, the last offset of its batch less the base), 8 and 4 bytes
//	00000000000000000000.txnindex   aborted transactions whose markers are in the segment; see package transaction
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
// Batches are appended to an active segment, and the ends of its indexes are in memory
// (tail). A closed segment never changes, except that its indexes may be built again.
// Indexes are only hints: each entry is compared with the batch that it names before it
// is used, and an index that is wrong or missing is built again from the batches. That of aborted
// transactions has a checksum, and says up to where it is complete; who knows the log builds it
// again, since its transactions may have begun in earlier segments.
//
// Compaction replaces closed segments by one that has a part of their records (Swap):
//
//	00000000000000000000-00000000000000000300.cleaned    is being written; it may be lost
//	00000000000000000000-00000000000000000300.swap.log   replaces all segments with bases from 0 on and below 300
//
//	            Finish            Decide               Publish            Clear                 Settle
//	written -----------> synced ----------> decided -----------> published ------> cleared --------------> a closed segment
//	                                                             readers use it    the others   its files have the names
//	                                                                               are gone     of a segment
//
// From Decide on an opening finishes the swap (FinishSwaps). Who holds a chunk of a replaced segment goes on
// reading it; who would open its file gets ErrReplaced, and looks for the segment again.
//
// Append, Seal and Truncate are for one goroutine at a time, the owner of the log's end.
// All other methods may be called by any goroutine at any time. The locks, outer before
// inner, are: Segment.indexFiles, held while the index files change; Dir's, held while
// the directory changes; then one of Segment.mu, Files.mu and cursors.mu, which are held
// for moments and never during input and output. DoAlone is called with none of them but Dir's held.
package segment
