// Package storage keeps partitions' logs on disk. A Store has all logs of one data directory
// and their group commit; a Log is one of them. Below it are segment (a file of batches and
// its indexes), journal (the ring that all logs share), producer (sequences and retries) and
// checkpoint (the position at which a recovery begins). DESIGN.md beside this file gives the
// reasons and the invariants.
//
// The directory is in Kafka's format, except for the files marked with a star:
//
//	<topic>-<partition>/
//	    partition.metadata            the topic's id
//	    00000000000000000000.log      record batches, beginning with the offset in the name
//	    00000000000000000000.index    (last offset of a batch, its position), 8 bytes each
//	    00000000000000000000.timeindex
//	    00000000000000000042.snapshot idempotent producers at offset 42
//	    leader-epoch-checkpoint       (epoch, first offset) of each leader's epoch
//	<name>.<topic id>.<partition>-delete *          a deleted log's directory, about to be removed
//	<name>.<ms>.<topic id>.<partition>-stray *      set aside: the metadata does not have its topic
//	log-start-offset-checkpoint       starts above a log's first segment; written at a clean stop
//	sync-failed *                     the kernel under which a sync has failed, or "none"
//	checkpoint-a, checkpoint-b *      the position at which recovery begins; written in turn
//	points-a, points-b *              up to where each log is known to be whole; written in turn
//	journal/0000.ring ... *           the shared journal, recycled
//
// Any goroutine may use a Store and its Logs. Locks, outer before inner: keeper.run (one
// checkpoint or truncation at a time), Log.mu (appends; held during their write), the lock of
// a directory's name, segment's own, Log.pub (the state that readers see; held for moments,
// never during input and output), then one of committer.mu, keeper.mu, Store.mu and those of
// the packages below.
package storage
