// Package mirror mirrors topics of other clusters by the links that the metadata have. A Service is all of a node's mirroring: it runs the machine (package progress) of each mirrored partition that the
// node leads, and on the node of the active controller the tasks of links. Checks of links before they are made are Service.Check.
//
//	metadata -- Apply --> partition, one for each that this node leads
//	                        progress.Mirror  <----- answers -----------------------.
//	                          | FindTopic                                          |
//	                          |-----------> session, one for each link: describes -|
//	                          | Fetch, FindEpoch, Reread, FindRange, FindBegin     |
//	                          |-----------> pool, one for each broker of a source -|
//	                          | Append, Trim, Skip                                 |
//	                          |-----------> Log, the partition's own; one commit for all partitions of an answer
//	                          | Raise, Cut, Declare                                |
//	                          '-----------> decider: the controller, many at once -'
//
// When a topic is promoted, the promoter of its link, on the node of the active controller, asks all nodes what their partitions can prove about open transactions, and decides; each leader then writes the markers. What
// a node can prove it has from its own mirrors, and from readings of the coordinators' logs of the source, which are partitions with a machine, too, whose log is evidence in memory. A watch asks brokers of the
// source in turn who leads what is read, without which nothing that a leader has said proves anything.
//
// A pool reads for all of its partitions with few requests: those at the end of their logs, the tip, share a long poll; those behind, the backfill, are read by others, some at a time, on connections of their own. Memory
// for answers is of budget.Mirror, of which the tip has a part that the backfill cannot use; the same holds for the rate of a throttled link.
//
// Any goroutine may call a Service's methods, but one at a time calls Apply. Locks: partition.mu is held while its machine is called and its log is read and written, and no other partition's is held then; under
// it, session.mu, pool.mu, timers.mu, decider.mu or throttle.mu is held for moments, each alone; so are evidence.mu and, to note what a partition had at its promotion, Service.mu. No partition.mu is taken while Service.mu or readings.mu is held.
package mirror
