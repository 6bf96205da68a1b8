// Package group coordinates consumer groups, and keeps the offsets that they commit.
// Machine is the pure state machine of one partition of __consumer_offsets, run by a
// coord.Runtime; the broker calls it through a Service. This package has the parts that
// groups of all kinds share: the service, the offsets and their records. Each kind has
// a package of its own, which decides who is a member and which partitions the members
// get; package classic is the classic protocol. Package memory counts the bytes that
// all groups keep.
//
// The records are Kafka's own (OffsetCommitKey and GroupMetadataKey with their
// values), so that Kafka's tools can read them, and Leat can read a log that Kafka
// wrote. They have a group's last complete generation and its offsets. Members that are
// joining, requests that wait, and timers are only in memory; after a failover members
// join again by themselves.
//
// Offsets that a producer sends in a transaction are kept apart until the marker that ends it (transaction.go).
//
// A Machine is guarded by its shard's mutex and takes the time from its Step. A Service
// may be used by any number of goroutines.
package group
