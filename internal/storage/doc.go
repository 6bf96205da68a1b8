// Package storage keeps partitions' logs on disk. A Store has all logs of one data directory
// and their group commit; a Log is one of them. Below it are segment (a file of batches and
// its indexes), journal (the ring that all logs share), producer (sequences, retries and
// transactions), transaction (what readers must know of those) and checkpoint (the position at which a recovery begins). DESIGN.md beside this file gives the
// reasons and the invariants.
//
// The directory is in Kafka's format, except for the files marked with a star:
//
//	<topic>-<partition>/
//	    partition.metadata            the topic's id
//	    00000000000000000000.log      record batches, beginning with the offset in the name
//	    00000000000000000000.index    (last offset of a batch, its position), 8 bytes each
//	    00000000000000000000.timeindex
//	    00000000000000000000.txnindex aborted transactions whose markers are in the segment
//	    00000000000000000042.snapshot producers at offset 42, and their open transactions
//	    compacted-offset *            up to where the log is compacted; only a hint
//	    cut-number *                  the last cut of the metadata that the log has made; see Log.Cut
//	    ...-....cleaned, ....swap.log *  compacted segments that are to replace others; see package segment
//	    leader-epoch-checkpoint       (epoch, first offset) of each leader's epoch
//	<name>.<topic id>.<partition>-delete *          a deleted log's directory, about to be removed
//	<name>.<ms>.<topic id>.<partition>-stray *      set aside: the metadata does not have its topic
//	<name>.<topic id>.<partition>-tails *           what cuts have taken from a log, and kept; see Tail
//	log-start-offset-checkpoint       starts above a log's first segment; written at a clean stop
//	sync-failed *                     the kernel under which a sync has failed, or "none"
//	checkpoint-a, checkpoint-b *      the position at which recovery begins; written in turn
//	points-a, points-b *              up to where each log is known to be whole; written in turn
//	journal/0000.ring ... *           the shared journal, recycled
//
// Any goroutine may use a Store and its Logs. Locks, outer before inner: compacted.swapping of a log, keeper.run (one
// checkpoint or truncation at a time), Log.mu (appends; held during their write), the lock of
// a directory's name, a log's for making indexes of transactions anew, segment's own, Log.pub (the state that readers see; held for moments,
// never during input and output), then one of committer.mu, keeper.mu, Store.mu and those of
// the packages below.
package storage
