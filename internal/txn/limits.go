package txn

import "math"

// The package doc has a table of these limits.
const (
	// maxIDBytes is how long a transactional id may be: the key of a record has no room for more.
	maxIDBytes = math.MaxInt16
	// maxPartitions is how many partitions may be part of one transaction. Each one that is added has
	// the record of all of them written anew.
	maxPartitions = 10_000
	// maxSetBytes bounds the partitions in a record, so that the record is no larger than what a topic of
	// Kafka takes by default (max.message.bytes).
	maxSetBytes = 1_000_000
	// maxWaiting is how many requests may wait for the end of one transaction.
	maxWaiting = 100
	// maxPatternBytes is how long the pattern of ListTransactions may be.
	maxPatternBytes = 1024
)

// About how many bytes of memory an id takes.
const (
	idBytes        = 384 // its struct, timer and place in the table, without the characters
	topicBytes     = 64  // a topic of its transaction, without the characters
	partitionBytes = 4   // a partition
)

// size is about how many bytes of memory the set takes. In a record it takes less.
func (set partitionSet) size() (n int64) {
	for _, t := range set {
		n += int64(topicBytes + len(t.Topic) + partitionBytes*len(t.Partitions))
	}
	return n
}

// recordSize is how many bytes the set takes in a record at most.
func (set partitionSet) recordSize() (n int) {
	const lengths = 12 // of a name, of a list, and of no tagged fields
	for _, t := range set {
		n += lengths + len(t.Topic) + partitionBytes*len(t.Partitions)
	}
	return n
}

// sizeOf is about how many bytes of memory an id takes with this state.
func sizeOf(id string, st *state) int64 { return int64(idBytes+len(id)) + st.partitions.size() }

// isTooLarge tells whether the set is larger than a transaction may be.
func (set partitionSet) isTooLarge() bool {
	return set.countPartitions() > maxPartitions || set.recordSize() > maxSetBytes
}
