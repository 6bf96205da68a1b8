// Package progress has the rules by which a replicated partition makes progress, as two
// machines: a Leader for the replica that leads, and a Follower for each that copies it.
// A machine is a struct whose methods take an event, with its time where that matters, and
// change the state; what is to be done is read from it afterwards. It has no goroutine, lock,
// clock, file or random number. Its owner calls it from one goroutine at a time, or under one
// lock, and does the reading, writing and sending. Package replica is such an owner, and so is
// the simulated cluster in this package's tests.
//
// # The promise
//
// A record below the high watermark is on the disk of every member of the in-sync set, and of
// every replica that the controller may elect without loss. A disk counts as far as it was
// synced: a follower reports the offset that it has fetched to and, apart from that, the end of
// its durable records, and only the second one commits.
//
// # The leader
//
// A Leader lives for one leader epoch. It knows the ends of its own log and of each follower's,
// and the in-sync set, which only the metadata changes:
//
//	maximal set     the in-sync set, and each replica that was proposed for it at this partition epoch
//	high watermark  the lowest durable end in the maximal set and of replicas that are about to
//	                join it; it stays while the in-sync set is smaller than min.insync.replicas
//	                (KIP-966), or while an end is unknown; it never falls
//	join            the durable end has reached the high watermark and the start of this epoch,
//	                in the incarnation that the metadata knows, which is neither fenced nor leaving
//	start           a replica joins when it has deleted what the leader has deleted. DeleteRecords waits for
//	                the in-sync set and for all replicas that are alive. So no later leader shows
//	                the records again. A start that retention has moved may be lower at a later leader
//	leave           for replica.lag.time.max.ms it did not have on disk all that the leader had; at once if it
//	                says that it cannot store. After that it joins when it has stored again what it refused, and
//	                not before a pause, which doubles each time
//	give up         a leader whose log takes no records, or cannot be opened, gives its place to another member that was
//	                heard since and has room. It leaves the set only if its log has a fault: on a full
//	                disk it has everything that is committed
//	added           of a replica that a reassignment adds, nothing counts that was sent before it
//	                knew of that: it may have been removed with an earlier log
//	rebuild         a follower whose log is damaged deletes it when the leader says so: the metadata have it neither as in sync
//	                nor as eligible, and the leader has the records and forgets what it knew of the follower's
//	incomplete      a member that shows less on disk than is committed was put back from an older copy: it leaves the set, and
//	                is not eligible, until it has caught up
//	behind          a leader that was put back from an older copy, and is told so by a member, commits nothing, has nobody cut a log,
//	                and gives its place to those that have not cut theirs
//	compared        nobody can compare records that the leader has deleted: a follower that has only such
//	                ones begins anew
//	readers         are told nothing that depends on the high watermark before it has reached
//	                the start of this epoch (KIP-207)
//
// A change of the in-sync set is proposed to the controller (KIP-497), one at a time:
//
//	         Propose                Answered
//	settled ---------> proposed ----------------> waiting
//	 ^  ^                 |  ^                       |
//	 |  +-----------------+  +-----------------------+
//	 |    the partition        Propose, after a pause
//	 |    epoch rises                                |
//	 +-----------------------------------------------+
//
// An answer moves nothing, whatever it says. An accepted proposal counts when the metadata has
// it, so that it never overtakes a change of min.insync.replicas before it. After a refusal,
// or if no answer came, a copy of the request may still be under way and be accepted later. So
// everybody who was proposed counts in the maximal set until the partition epoch rises, which
// ends all requests that carry the old one. To get there the leader proposes again: the set that
// it wants by then, or the present one.
//
// # The follower
//
// A Follower lives as long as its node runs. It follows one leader after another:
//
//	       Follow              NextFetch             Answered with records or a cut
//	idle ----------> ready ----------------> fetching -------------------------> writing
//	                  ^ ^                       | |                                 |
//	                  | +-----------------------+ |                                 |
//	                  |   empty answer, or lost   | a newer epoch is known there    |
//	                  |                           v                                 |
//	                  |        Follow           fenced                              |
//	                  +---------------------------+                                 |
//	                  +-------------------------------------------------------------+
//	                              Wrote, WriteFailed or StepDropped
//
// From every state but writing, Follow leads to ready, or to idle if there is no
// leader. While it is writing, the new leader is followed when the write has ended.
//
// Beside that a Follower knows whether its log takes records:
//
//	can store ----------------> may recover ------------> cannot ever
//	     ^      WriteFailed          |        LogFailed
//	     +---------------------------+
//	          TryStoring
//
// While it does not, the fetches say so, and no answer leads to a Step.
//
// A fetch names the epoch of the last record of the log, so that the leader sees whether the
// logs have parted (KIP-101, KIP-279, KIP-595). Then the follower cuts its log where its own
// records of the leader's epochs end, and asks again. Only after the leader has found no
// difference does the follower report durable ends: an end that was reported earlier might be
// that of records which the leader does not have.
//
// A member, which is in sync or eligible, does not cut records that it knows to be committed: a leader that was elected without loss
// has them. It keeps its log, tells the leader so by a report (an objection), and asks again after a pause. After an unclean
// election nobody but the leader is a member, so that the records go; copies.go has the rules.
//
// # Cuts
//
// The metadata may have all replicas end their logs at an offset, below the high watermark, too: a mirror, whose source has lost what
// it had committed, or a partition that is restored. Such a cut comes with a new leader epoch, and counts in it: each replica makes it
// once before it does anything in that epoch, or in a later one if it was away.
//
//	leader      there is none before its log is cut; it begins with a high watermark of at most the cut
//	follower    fetches, reports and objects nothing before its log is cut (MustCut, WasCut), and forgets what was committed beyond;
//	            a Step that an answer of before has asked for is not done
//	others      count for nothing until they fetch in the new epoch, so that the high watermark stays, and none joins
//
// A partition that mirrors another cluster's has batches with the epochs of that cluster, and the log of its leader does not begin the
// leader epochs of this one. It answers as if each began at its end: TailOfMirror.
//
// A fetch may stand for long without an answer, and while nothing is appended nothing need be
// said: a leader takes it that a follower which had everything has it until more is appended.
// A log has whole batches, so one that has no records yet may begin within one.
//
// # Proof
//
// TestModel runs the machines in a simulated cluster of 2 to 5 nodes, from a seed: crashes that
// lose the page cache, one-way cuts, late, lost and doubled messages, changes of the leader and of
// the replicas. After each event nothing committed may be missing. TestMutants proves that it sees
// broken rules: for each patch in testdata/mutants there is a seed that fails.
package progress
