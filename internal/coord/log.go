package coord

import (
	"time"

	"github.com/leatstream/leat/internal/record"
)

// Log is the partition on which a shard keeps its records: *replica.Partition, or
// a twin in memory in tests.
type Log interface {
	// AppendBatch appends one batch as the leader of the given epoch and returns the
	// offset after its last record. The batch was built with base offset 0; the log
	// writes the real offset and the epoch into it. The caller must call Commit
	// afterwards. AppendBatch calls no function that was given to Await, even if it reaches
	// what that function waits for: the caller holds a lock. Commit calls it then.
	AppendBatch(b record.Batch, e record.Epoch) (next record.Offset, err error)
	// AppendMarker is AppendBatch for a marker that ends a producer's transaction of the given version: with 2
	// each of the producer's transactions has an epoch of its own.
	AppendMarker(b record.Batch, e record.Epoch, version int16) (next record.Offset, err error)
	// Commit commits all that was appended so far, to any log of this node. No lock may
	// be held.
	Commit()
	// Await calls fn(nil) once the high watermark has reached off, which may be at once.
	// It calls fn(err) if this node stops leading in epoch e before, or if the limit passes; a
	// limit of 0 is none. fn must not block.
	Await(e record.Epoch, off record.Offset, limit time.Duration, fn func(error))
	// IsCommitted tells whether the high watermark has reached off, and this node still leads in
	// epoch e: under another leader the records below off may be other ones.
	IsCommitted(e record.Epoch, off record.Offset) bool
	// ReadBatches returns whole batches below the offset end, about maxBytes of them at
	// most, beginning with the one that contains off, or the next one after it; it returns none if there is
	// none below the end. They need not be committed.
	ReadBatches(off, end record.Offset, maxBytes int) ([]byte, error)
	// Start is the first offset that is kept, End the end of all records that this replica has.
	Start() record.Offset
	End() (record.Offset, error)
}

// PendingCommit is a commit that the caller of Stage has to make: until then the
// appended records are not committed, and replies wait for them. The zero value means
// that there is nothing to commit.
type PendingCommit struct{ log Log }

// Exists tells whether there is something to commit.
func (c PendingCommit) Exists() bool { return c.log != nil }

// Commit makes the commit. No lock may be held.
func (c PendingCommit) Commit() {
	if c.log != nil {
		c.log.Commit()
	}
}
