// Package meta is what the cluster *is*: an immutable Image, the records that
// change it, and Apply.
//
// An Image never changes once Apply has returned it, so any number of goroutines
// may read one without a lock; the newest one is kept in an atomic pointer by its
// owner. Images share structure: topics live in shards, and a step copies only the
// shards that it touches, so that making the ten-thousandth topic costs what making
// the first one did.
//
// The only way from one Image to the next is a batch of records (record.go), which
// is what the metadata quorum orders. An image holds the configs that were set on
// topics, brokers, groups and metrics subscriptions; config knows which there are and
// what they are worth, and settings.go keeps the typed views until one changes.
//
// # Records
//
// An entry of the metadata log is a batch of records, one after another, and so is
// a snapshot:
//
//	entry   = { record }
//	record  = tag uvarint | version uvarint | length uvarint | body [length]
//	element = length uvarint | fields [length]     of a list within a body
//
// Numbers in a body are varints (zigzag where they can be negative), strings and
// lists carry their length, ids are 16 bytes. A tag keeps its meaning for ever.
//
// Records say what became of the decision, never what was asked for: applying them
// needs no clock, no random number and no setting, so that every node arrives at
// the same image.
//
// # How records grow
//
// A new field goes to the end of a body, or of an element, and is left out while
// it has no value; a reader takes a field that is left out for none. A field of
// another meaning, or one that must always be there, raises the record's version.
//
// An unknown record, an unknown version and an unknown field are all refused with
// ErrNewer: nothing is skipped. A node that skipped a field would lose it when it
// writes its snapshot, and its image would not be that of the others. A writer
// therefore uses a new record, or gives a new field a value, only once the finalized
// level of metadata.version allows it, which is when all registered nodes understand
// it. Until then an older version can read all that a newer one has written, and
// going back is possible.
//
// # Leader epochs
//
// A node that starts anew must never append in the leader epoch of its former life.
// Its registration under a new incarnation, and the end of its fencing, therefore
// raise the leader epoch of all partitions that it leads, by one record for the
// node: Apply does it to each partition of the image. The epoch of a partition is
// always the one that its Partition says; it is nothing that a reader computes, so
// it is the same on all nodes, stays in a snapshot, and does not fall when the
// leadership moves. BenchmarkStartBroker shows the cost, which is one pass over the
// topics.
package meta
