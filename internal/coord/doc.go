// Package coord runs state machines on partitions' logs. A Runtime has a shard for
// each partition that this node leads, and a shard owns a Machine. Everything that
// happens to a machine is a Step, which goes
//
//	decide -> append one batch -> apply -> call the replies
//
// A reply is called when the high watermark has passed the last record that its step
// has read or written; a reply that only reads waits, too, behind the writes that it
// has read. So no answer depends on a record that a failover could take back, and the
// machine's state is never rolled back.
//
// Decide, append and apply run under the shard's mutex, on the caller's goroutine;
// the log's commit and the replies run afterwards, with no lock held. The timers of a
// machine are one heap with one timer of Go's runtime. If that rings late, the process was
// stopped meanwhile, and all timers are put off by the delay: the requests that would have
// moved them may not have been read yet.
//
// # The life of a shard
//
//	StartLeading -> loading -> catching up -> active -> stopped
//	                                           |  ^
//	                                           +--+ the next epoch, and nobody else has appended
//
// When a node begins to lead a partition, a background goroutine reads the log up to
// its present end, and gives the records to the same Apply. Some of them may lie above
// the high watermark that this replica knows, although a former leader acknowledged
// them. The shard therefore returns ErrLoading until the high watermark has reached
// that end. From then on no record that it has applied can be lost, since a leader
// never truncates its log.
//
// A shard goes on without a load if this node has stayed the leader, that is, if the
// new epoch follows the shard's own and the log ends at the shard's last record.
// Otherwise another leader may have been in between, and a new shard is made.
//
// # Two leaders
//
// A node that has been replaced as the leader may not know it yet. It acknowledges
// nothing: the log takes appends in the present epoch only, and the high watermark needs
// all in-sync replicas, which follow the next leader by then. Its answers to questions are sound, too,
// as long as it is in the in-sync set: the next leader commits nothing before all of that
// set have fetched from it in its own epoch, and a replica that does so no longer leads. A
// node that was fenced is in no such set. Therefore a caller must not ask a machine for
// what another leader may have changed, without a change of its own, if this node has lost its session
// with the controller (group.Config.HasSession).
//
// # Transactions
//
// A Transactional machine gets the records of producers' transactions with their producer, and the markers that end
// them. The shard appends a marker as it does records, so that it stays the only appender of its log. Records of a transaction
// are applied at once; the machine keeps them apart until the marker. A marker that comes again is appended and applied again. A
// machine that is not Transactional is not loaded from a log with transactions.
//
// # What joins later
//
// Groups whose members are assigned by the coordinator, and share groups, follow the metadata and
// compute for long. A feed of metadata is a Runtime.Do on each of Partitions, as TopicDeleted in package group
// is one, and from Loaded on the machine's own image. Work off the lock is a goroutine of the service,
// begun by a reply or a Then, whose result comes back as another Do. The machine compares an epoch of
// its own with that at the beginning, since other steps come in between.
//
// Lock order: a shard's mutex, then the locks of its Log. Runtime.mu guards only the
// table of shards; no other lock is taken under it. StartLeading and StopLeading are
// called by one goroutine, all other methods by any.
package coord
