// Package coord runs a state machine on a partition's log: decide -> append ->
// apply, replies released when the high watermark passes what they saw.
package coord

import (
	"time"

	"github.com/leatstream/leat/internal/record"
)

// Log is the partition on which a shard keeps its records: *replica.Partition, or
// a twin in memory in tests.
type Log interface {
	// AppendBatch appends one batch (built with base offset 0; it is stamped) as
	// the leader of the given epoch and returns the offset after its last record.
	// Whoever calls it owes a Commit afterwards.
	AppendBatch(b record.Batch, e record.Epoch) (next record.Offset, err error)
	// Commit commits what was appended to any log of this node so far. No lock may be held.
	Commit()
	// Await calls fn(nil) once the high watermark has reached off (at once where it
	// has), or fn(err) when this node stops leading before, or when the limit has
	// passed; 0: there is none. fn must not block.
	Await(off record.Offset, limit time.Duration, fn func(error))
	// ReadBatches returns whole batches from the one that holds off on, below the
	// offset end, at most about maxBytes; none at the end. They need not be committed.
	ReadBatches(off, end record.Offset, maxBytes int) ([]byte, error)
	// Start is the first offset kept, HighWatermark the end of what is committed, End
	// the end of what this replica has.
	Start() record.Offset
	HighWatermark() record.Offset
	End() (record.Offset, error)
}

// Owed is the commit that who has staged steps owes: what is appended is committed, and
// waits for it end, when somebody asks. The zero value is owed nothing.
type Owed struct{ log Log }

// Exists tells whether something is owed.
func (o Owed) Exists() bool { return o.log != nil }

// Commit commits what is owed. No lock may be held.
func (o Owed) Commit() {
	if o.log != nil {
		o.log.Commit()
	}
}
