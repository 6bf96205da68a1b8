package broker

import (
	"time"
)

// Transactions reaches the coordinators of transactions, on whichever nodes they are.
type Transactions interface {
	// Verify asks whether partitions are part of a producer's transaction (KIP-890), and with Add makes them
	// part of it. It never waits. done is called exactly once, by any goroutine, perhaps before Verify
	// returns, with no lock held; it does not block. It gets a code for each partition, in their order: 0, or
	// what the coordinator said (PRODUCER_FENCED, CONCURRENT_TRANSACTIONS, TRANSACTION_ABORTABLE and so on), or
	// COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR or NETWORK_EXCEPTION if it cannot be asked. Verify does not try again.
	Verify(q VerifyRequest, done func(codes []int16))
}

// VerifyRequest is a question to the coordinator of a transactional id.
type VerifyRequest struct {
	TransactionalID string
	ProducerID      int64
	ProducerEpoch   int16
	Add             bool             // the partitions are to become part of the transaction; else they must be part of it
	Partitions      []TopicPartition // all different
	Limit           time.Duration    // how long the answer is of use
}

// TopicPartition names a partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}
