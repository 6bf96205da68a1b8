// Package txn has the transactions of producers. Machine is the pure state machine of one partition of
// __transaction_state, run by a coord.Runtime: it gives producers their ids and epochs, knows which
// partitions are part of their transactions, decides how these end, and says which partitions still need a marker. A
// Decision goes out with what is to be written, and the results come back by Machine.ReportMarkers; a
// Filter is what ListTransactions asks for.
//
// A machine is guarded by its shard's mutex and takes the time from its Step. A Filter does not
// change. Config.Send is called by any goroutine, with no lock held.
//
// # States
//
// A transactional id has one transaction at a time. The names are Kafka's, and so are the records.
//
//	             InitProducerId
//	no record -------------------> Empty
//
//	          partitions are added             EndTxn: commit                   all have a marker
//	   idle -----------------------> Ongoing -----------------> PrepareCommit -------------------> CompleteCommit
//	                                  |   ^ |
//	                                  |   +-+ partitions are added
//	                                  |
//	                                  |  EndTxn: abort, timeout,               all have a marker
//	                                  |  InitProducerId
//	                                  +------------------------> PrepareAbort -------------------> CompleteAbort
//
//	   idle is Empty, CompleteCommit or CompleteAbort. From there,
//	      InitProducerId gives another epoch, or producer id ----> Empty
//	      an abort of what has not begun (KIP-890) --------------> CompleteAbort
//	      transactional.id.expiration.ms without use ------------> no record (a tombstone)
//
// Kafka's Dead is an id without a record, and its PrepareEpochFence is no state here: to fence a producer and to abort
// its transaction is one record.
//
// The epoch rises with InitProducerId; with the end of a transaction, for clients that know of it (EndTxn 5,
// transaction.version 2); and once when the server aborts, whatever the client. The markers have
// the epoch after the rise. 32766 is the last epoch that a producer gets, and 32767 is only
// in the markers of its last transaction. Then another producer id follows, which PrepareCommit and
// PrepareAbort already name.
//
// In memory only are the timer of the timeout and, while a transaction ends, which partitions have their
// marker, when to send the decision again, and the requests that wait for the end: those that add
// partitions to the transaction that follows, for add.partitions.to.txn.retry.backoff.max.ms. All other
// requests that come meanwhile are told CONCURRENT_TRANSACTIONS, and their clients ask again.
//
// # What a crash leaves
//
//	the coordinator dies after ...         the next one ...
//	a step, before its record is           has the record or not. Nobody was told: the client asks again,
//	committed                              and no decision has gone out
//	Empty, before the answer               gives the same epoch again to a producer that says what it had, and
//	                                       the next one to all others
//	Ongoing, before the answer             has a partition in the transaction that may have no records; its
//	                                       marker ends nothing
//	PrepareCommit or PrepareAbort          sends the decision at once, for all partitions. Those that have the
//	                                       marker take it again
//	the last marker, before the            does the same: the markers are doubled
//	record of the end
//	CompleteCommit or CompleteAbort        tells a client that asks again how it has ended
//	a tombstone                            gives the producer that comes back another producer id
//
// While Ongoing, the timeout runs on at the next coordinator. A record that cannot be appended
// changes nothing: its client is told, and timers try again.
//
// # What markers need of the partitions
//
// A leader refuses a marker whose coordinator epoch is below that of the producer's last one there,
// and one whose producer epoch is too low: below the producer's (Decision.Version 0), or not above it (2). With
// version 2, one of the same epoch is taken again if no transaction of the producer is open there, or if the
// epoch is 32767. A leader takes the first record of a transaction only after the coordinator said that its
// partition is part of it, and if no marker of the producer has come in between.
//
// So the producers of the older flow keep Kafka's own hole: a marker, or a request of theirs, that comes when
// they have begun their next transaction with the same epoch counts for that one. The coordinator's side of it is
// closed by Decision's rule that no two markers of one decision are under way for one partition.
//
// # Two coordinators
//
// A node that was replaced as the leader and does not know it can decide nothing, since its appends fail, and the
// markers that it sends again have the lower coordinator epoch. Its answers that need no record are true
// only while it is in the in-sync set (see package coord), so the caller must ask no machine while this node
// has lost its session with the controller.
//
// # Limits
//
//	what                                       limit                              refused with
//	length of a transactional id               32767 bytes                        INVALID_REQUEST
//	timeout                                    transaction.max.timeout.ms         INVALID_TRANSACTION_TIMEOUT
//	partitions of one transaction              10000                              TRANSACTION_ABORTABLE
//	their names and numbers in a record        1000000 bytes                      TRANSACTION_ABORTABLE
//	memory of all transactional ids of a node  Config.Memory                      COORDINATOR_NOT_AVAILABLE
//	pattern of ListTransactions                1024 bytes, syntax of RE2          INVALID_REGULAR_EXPRESSION
//	requests that wait for one id              100                                CONCURRENT_TRANSACTIONS
//	tombstones in one batch                    10000, 256 KiB                     (the next batch has the rest)
//
// A log is always loaded, whatever it takes.
//
// # Where this differs from Kafka
//
// A producer that was fenced cannot abort the transaction of its successor by InitProducerId with what it had.
// One that asks twice for its next epoch gets the same answer also when the coordinator has changed, when
// its epochs were exhausted, and when its transactional id had expired: the epoch before is recorded, in
// a tagged field that Kafka skips. A commit counts as asked again only if a client of the newer flow has ended the
// transaction. A transaction times out at its time, not at the next of regular checks. An abort of what
// has not begun is one record. Two-phase commits (KIP-939) are not served.
package txn
