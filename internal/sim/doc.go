// Package sim runs whole clusters, with their faults, by seed. Run runs one cluster of 3 or 5 nodes:
// nodes and clients act, and faults happen, until the faults end and the cluster has healed. Everything
// happens in events, one at a time, and every choice is drawn from one source, so a seed is the same
// history each time, byte for byte. There is no goroutine, clock or file in it; clusters of different
// seeds may run at the same time.
//
// # What is real
//
//	progress.Leader, Follower     every replica runs them, on a memlog.Log
//	controller.Rules, Liveness    the node that leads the metadata quorum decides with them
//	meta                          every node applies the records to an image of its own
//	place, config                 as far as those use them
//
// In clusters with transactions (RunTransactions) also
//
//	txn.Machine, group.Machine    on the replicated partitions of their topics, by coord.Step
//	replica.Verifications         where a leader takes the first record of a transaction
//	producer.State                sequences, epochs and markers of each log
//	transaction.View              the last stable offset and the aborted transactions of each log
//
// # What is a model
//
// The metadata quorum (metaQuorum) is a machine that keeps what package quorum promises, and no more:
// a term has one leader, who knows all committed entries; an entry is committed while a majority of the
// voters can write; of the entries that a leader has not committed, any number of the first ones are
// committed by the next leader, so that their outcome is unknown to the one who proposed them; a leader
// that is replaced learns of it late; nodes apply entries late, several at a time, or a snapshot
// instead. The real machines of package quorum are not used, for three reasons. Raft draws its election
// timeouts from the random numbers of the process, so that a seed would be one history only if no
// other seed ran beside it. They are driven by the loop that owns the log on disk, of which a dozen
// methods would have to be exported for nobody else. And the contract allows more than raft does. The
// simulation in package quorum proves the contract on the real machines, on disks that lose power.
//
// These follow rules that stand elsewhere in code which needs goroutines:
//
//	activeController   the order of commands and proposals, as controller.Controller has it
//	shard              the coordinator of committed offsets, as package coord has it
//	machineShard       a coordinator's machine on its partition, as package coord has it
//	markers            the sender of markers, as package txn has it
//	takeTransactional  what a leader does with a batch of a transaction, as packages broker and replica have it
//	appendSequences    the sequences of idempotent producers, as storage/producer has them
//	node, replica      how a node follows the metadata, fetches and answers, as packages node and replica
//	memlog.Log         the log, as storage.Log has it: one exam examines both
//
// # Faults
//
// Processes are killed; the power of one node or all of them is cut, which loses what is not on disk;
// disks are slow, hang, are replaced by empty ones or by old copies, also by copies of the same run (copies.go); links are cut in one direction;
// messages are lost, late, doubled and overtaken by others; clocks jump and run fast or slow; processes stall, the active
// controller's for so long that others have its places;
// the metadata are applied late; the controller is deposed or cut off. An administrator reassigns
// replicas, elects leaders, deletes records, unregisters nodes that are down, and changes min.insync.replicas, flush.messages and
// unclean.leader.election.enable.
//
// Clusters with transactions have producers that commit and abort, and pipelines which consume, transform and produce, all of either
// flow (KIP-890). Their leaders die between any two steps; markers, verifications and clients are slow; records of both flows, and all requests and
// markers of the newer one, come late and twice; those of the older one must not, since it keeps Kafka's own hole there; clients
// time out, die, and come back beside others of their transactional id. Directories are not put back from copies there.
//
// # What is checked
//
// After each event, of the partitions that it has touched (partition.go, election.go):
//
//   - a replica that is in sync or eligible has all committed records on disk, or in its log where the topic is
//     page-cached, unless it has just lost them and is not registered again; so has a new leader
//   - below its high watermark each replica has the committed records; a high watermark never goes back
//   - an acknowledged record has as many copies as were promised
//   - a leader epoch has one leader, in one life of its node
//   - readers are never told less than before, and get committed records only
//   - the records of an idempotent producer are committed once, in their order
//   - a committed offset never goes back, except at a coordinator that was replaced without being fenced, is
//     not in sync, and has not heard of it
//
// After each entry of the metadata log (truth.go, election.go):
//
//   - the images of all nodes are equal at equal entries
//   - the in-sync and eligible sets, leaders and epochs agree with each other
//   - only replicas of active brokers join an in-sync set
//   - nobody is forgotten who has all committed records, while records could not be committed without them
//   - a node that was told that it may end is not active again
//   - a node that has lost nothing keeps its places over a restart; one that has lost records keeps none
//
// In the end, when nothing fails any more: all replicas are in sync and equal, all nodes are active, and
// every client is answered.
//
// In clusters with transactions, in the end:
//
//   - all records of a transaction are committed, or none is: by an account of the committed logs that has none of the engine's rules
//   - a transaction is what its client was told, with all its acknowledged records, in their order
//   - readers of committed records, on leaders and followers, have seen all of those that are committed and nothing else
//   - each record of the input has one visible record that pipelines have made of it
//   - no transaction is open, and all clients go on
//
// and all the time: the last stable offset that leaders tell does not go back, nor does a committed offset that a pipeline is told.
//
// More may be lost than the rules promise: all page caches at once, or the only disk. The partition is
// exempt then until it has another leader, whose records are the committed ones from there on.
//
// # When a seed fails
//
//	LEAT_TEST_SEED=1234 go test -run TestSeeds ./internal/sim
//
// prints the last events of the partition concerned; LEAT_TEST_EVENTS is how many. TestTransactions has the clusters with
// transactions. The rules that were broken to try the simulator are in testdata/mutants and testdata/transactions, with
// the seed that finds each.
package sim
