// Package progress has the rules by which a mirrored partition makes progress: a Mirror, the machine of one partition on the node that leads it; and what a promotion needs to decide the transactions
// that are open then (Examine, Resolve). A Mirror is a struct whose methods take an event, with its time, and change the state. What is to be done is asked of Next, one action at a time. It has no
// goroutine, lock, clock, file, connection or random number. Its owner calls it from one goroutine at a time, and does the asking, reading and writing. Package mirror is such an owner, and so
// are two simulated clusters in this package's tests.
//
// "Here" is the cluster that mirrors, and "the source" the other one. A partition has two kinds of epochs. The local leader epoch fences leaders here, and batch epochs are those of the source: the
// log here has its batches as they are. The local leader epoch is never below a batch epoch.
//
// # The promise
//
// The log here is at every moment a copy of one history that the source had committed, from the place on where the mirror begins; what is missing within it, the source has compacted, or the metadata
// have said before that it is lost. In the end it has all that the source has committed and still has. Nothing is removed here that the leader at the source has, unless a person wants all to be copied
// anew. The state is the true one.
//
// # States
//
//	                                +-> WAITING, for a known time, with a reason
//	IDLE --Lead--> PREPARING <------+-> MIRRORING <----------+
//	                                +-> CUTTING              |
//	                                +-> PAUSED, by a person  |
//	                                |                        |
//	                                +-> GAP              ----+ the source has deleted what is not here; a person, or a setting, accepts it
//	                                +-> TOMBSTONES_LOST  ----+ behind for longer than the source keeps tombstones; accepted in the same way
//	                                +-> SOURCE_DELETED   ----+ if the same topic is there again
//	                                +-> SOURCE_RECREATED ----+ all is copied anew, or it was not true
//	                                +-> FAILED           ----+ if it can go on; it is tried again now and then
//	RESTORING -----> MIRRORING, or CUTTING: the logs' fork is found, and all replicas are cut there
//	PROMOTING, PROMOTED: the metadata say so, and nothing is done
//
// The states from GAP to FAILED are halts. The metadata have them before they count, by Declare, and while they have them nothing here is changed. The source is looked at all the same, after a pause each
// time, and when the state is not true any more the controller is asked for the true one. All other trouble is WAITING: the same thing is tried again after a pause that doubles.
//
// # How it reads
//
// The next action is the first of these that is needed:
//
//	Trim, Append     what was read
//	FindTopic        who leads, in which epoch, and the topic's id
//	Raise            the local leader epoch is below the source's
//	FindRange ...    an offset was out of range: where does the source's log begin and end
//	FindEpoch ...    the logs have parted: where
//	FindBegin ...    where the mirror begins; Declare notes it, with the topic's id
//	FindEpoch Reread where no fetch compares the logs, they are compared after each change or loss of the leader: the end of the last epoch, and the last batch
//	Fetch            from the end on, with the last epoch
//
// A fetch that compares epochs (version 12 or later), of a topic with an id, proves by its answer that the records here are the source's. For older sources the proof is asked for before anything is
// appended. It also finds a topic that was made again without an id, unless the source has deleted what could be compared.
//
// Logs part after an unclean election. The source is asked for the end of the last epoch here, or of the last one before it that it has; then for the next lower epoch that is here, until both have an
// epoch: its end, on the side where it ends first, is where they part (KIP-279). Then the controller decides a cut there: it raises the local leader epoch, and each replica makes the cut before it does
// anything else in it. If the source's leader epoch is not above that of the records here, no election explains the loss, and the partition has failed.
//
// # Back again
//
// The site that failed was written by its clients, and may have records that the other one never got. When it is to mirror the other one, its partitions are RESTORING. The metadata say where the other site
// has begun to write by itself (Fork). Below that the two logs are compared by their epochs, as above; from there on nothing counts, since both sites count their epochs on by themselves and come to the same numbers. Each
// replica is cut where the logs part, in a new leader epoch, and keeps what is cut. Then the partition mirrors as any other one.
//
// Nothing is appended that was read in another local leadership, or before a cut, or under another leader of the source; nor anything from beyond the high watermark, or behind a batch whose checksum is
// wrong.
//
// # How far it is
//
// A high watermark of the source's leader, and the time at which it was asked for, make a sample. When the log here ends there, the mirror has had at that time all that the source had committed. That
// time gives the lag in seconds, what a failover would lose (RPO), and whether tombstones can have been missed. A new leader may have a lower high watermark than the one before it, until it
// has got to the start of its own epoch; before that there are no samples. A leader that was deposed, and does not know it, has one that is too low as well: for transactions (HeldAt) a sample counts
// when another broker has still known this leader later.
//
// # Promotion
//
// A transaction that is open in a mirror when it is promoted is committed if the source is known to have committed it, and if no partition may lack records of it. A partition has all of its records if it has
// all that the source had committed at a time at which the decision was known here: they were committed before the decision. All these times are of one clock. A decision is known from the
// coordinator's log, or from a marker in another partition, if the transaction has an epoch of its own (KIP-890). Older clients use an epoch again, so that the coordinator's log must also show that the
// records are not those of the next transaction. Everything else is aborted, and listed unless the source is known to have aborted it.
//
// # Proof
//
// TestModel runs Mirrors of two or three nodes, and their controller, against a source of three brokers: elections, clean and not, brokers that do not know that they were deposed, retention, compaction,
// topics that are deleted and made again, old and new versions, bad bytes; crashes here, late and doubled answers, pauses. TestModelOfPromotions loses sources with transactions of both kinds, and knows the
// truth. TestModelOfForks has sites part in every way, and knows what both have. TestMutants proves that they see broken rules: for each patch in testdata/mutants there is a seed that fails.
package progress
