// Package storage keeps partitions' logs on disk: Store is the set of them in one data
// directory with their group commit, Log is one of them. Below it are segment (a file of
// batches and its indexes), journal (the ring that all logs share), producer (sequences and
// retries) and checkpoint (where a recovery begins). DESIGN.md beside this file says why it
// is built as it is and what must hold.
//
// The directory, in Kafka's format but for the files marked with a star:
//
//	<topic>-<partition>/
//	    partition.metadata            the topic's id
//	    00000000000000000000.log      record batches, from the offset in the name on
//	    00000000000000000000.index    (last offset of a batch, its position), 8 bytes each
//	    00000000000000000000.timeindex
//	    00000000000000000042.snapshot idempotent producers as of offset 42
//	    leader-epoch-checkpoint       (epoch, first offset) of each leader's epoch
//	<name>.<topic id>.<partition>-delete *          a deleted log's directory, on its way out
//	<name>.<ms>.<topic id>.<partition>-stray *      set aside: the metadata do not know its topic
//	log-start-offset-checkpoint       starts above a log's first segment; written at a clean stop
//	sync-failed *                     names the kernel under which a sync failed, or "none"
//	checkpoint-a, checkpoint-b *      where recovery begins; written in turn
//	points-a, points-b *              how far each log is known to be whole; in turn
//	journal/0000.ring ... *           the shared journal, recycled
//
// A Store and its Logs are safe for concurrent use. Locks, outer before inner: keeper.run (one
// checkpoint or truncation at a time), Log.mu (appends; held over their write), the lock of a
// directory's name, segment's own, Log.pub (what readers see; held for moments, never over
// input and output), then one of committer.mu, keeper.mu, Store.mu and those of the packages
// below.
package storage
