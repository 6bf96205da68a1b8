// Package group coordinates consumer groups, and keeps the offsets that they commit.
// Machine is the pure state machine of one partition of __consumer_offsets, run by a
// coord.Runtime; Service is its face for the broker. This package has what groups of all
// kinds share: the service, the offsets and their records. Who is a member of a group and
// who gets what is up to the kind: package classic is the classic protocol; the others
// will stand beside it. Package memory counts what all of them keep.
//
// The records are Kafka's own (OffsetCommitKey and GroupMetadataKey with their
// values), so that its tools read them and a log of Kafka's can be taken over. They
// hold a group's last complete generation and its offsets. Members that are joining,
// requests that wait, and timers live in the machine only; after a failover members
// come back by themselves.
//
// A Machine is guarded by its shard's mutex and knows no clock but its Step's. A
// Service is safe for concurrent use.
package group
