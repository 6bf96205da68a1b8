// Package meta holds the cluster's metadata: an immutable Image, the Records that
// change it, Apply, which makes the next image of one image and some records, and the
// Delta that tells the difference.
//
// An Image never changes once Apply has returned it, so any number of goroutines
// may read one without a lock. All functions may be called concurrently; the owner of
// the newest image keeps it in an atomic pointer. Images share structure: the topics
// are spread over shards, and Apply copies only the shards that it changes, so that
// making the ten-thousandth topic costs as much as making the first.
//
// Records are the only way from one image to the next, and the metadata quorum puts
// them in order. An image has the configs that were set on topics, brokers, groups and
// metrics subscriptions. Package config knows all configs and their defaults;
// TopicSettings and ServerSettings compute the values that apply to a topic and to a
// broker, and keep them until a config changes.
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
// A record says what was decided, never what was asked for: applying it needs no
// clock, no random number and no setting, so that every node arrives at the same
// image.
//
// # How records grow
//
// A new field is added at the end of a body, or of an element, and is left out while
// it has no value. A reader takes a field that was left out as one without a value. A
// change of a field's meaning, or a field that must always be there, raises the
// record's version.
//
// An unknown record, an unknown version and an unknown field are all refused with
// ErrNewer: nothing is skipped. A node that skipped a field would lose it when it
// writes its snapshot, and its image would differ from that of the others. A writer
// therefore uses a new record, or gives a new field a value, only once the finalized
// level of leat.metadata allows it, and that level is raised only when all
// registered nodes understand it. Apply refuses records and fields above the level. Until then an older version can read everything that
// a newer one has written, so that a cluster can go back to the older one.
//
// # Leader epochs
//
// A node that has restarted must never append in the leader epoch of the process
// before it. Its registration under a new incarnation, and the end of its fencing,
// therefore raise the leader epoch of all partitions that it leads. One record for the
// node is enough: Apply raises the epoch in each Partition of the image. A partition's
// epoch is always the one in its Partition and never computed by readers, so it is the
// same on all nodes, is kept in a snapshot, and does not fall when the leadership
// moves. The cost is one pass over the topics (BenchmarkStartBroker).
package meta
