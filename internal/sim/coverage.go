package sim

import (
	"maps"
	"slices"
)

// Coverage counts what has happened, by its name.
type Coverage map[string]int

// Add adds what has happened in another cluster.
func (c Coverage) Add(other Coverage) {
	for what, n := range other {
		c[what] += n
	}
}

// manySeeds are enough for what happens rarely.
const manySeeds = 5000

// Missing lists what should have happened over some hundred seeds, and has not.
func (c Coverage) Missing(seeds int) []string {
	var list []string
	if seeds >= manySeeds {
		list = append(list, rare...)
	}
	for _, f := range faults() {
		list = append(list, f.name)
	}
	list = append(list, expected...)
	list = append(list, verdictNames[:]...)
	list = slices.DeleteFunc(list, func(what string) bool { return c[what] > 0 })
	slices.Sort(list)
	return slices.Compact(list)
}

// MissingTransactions lists what should have happened over some hundred seeds of clusters with transactions, and has not.
func (c Coverage) MissingTransactions(int) []string {
	list := slices.DeleteFunc(slices.Clone(expectedOfTransactions), func(what string) bool { return c[what] > 0 })
	slices.Sort(list)
	return list
}

// Names lists what has happened, in order.
func (c Coverage) Names() []string { return slices.Sorted(maps.Keys(c)) }

// expected has what happens besides faults.
var expected = []string{
	// the network and the quorum
	"message lost", "message doubled", "message late", "connection closed",
	"controller elected", "controller began", "controller not confirmed", "proposal of unknown outcome", "proposal kept by the next leader", "proposal dropped",
	"metadata snapshot", "command in parts",
	// nodes
	"start", "controlled shutdown", "crash that loses records", "replica in sync has lost records", "more losses than the promise covers",
	"registration refused", "earlier process registered", "place kept over a restart",
	"broker fenced", "broker unfenced", "broker leaving", "fenced by silence", "broker unregistered",
	// elections and in-sync sets
	"clean election", "election of a joining replica", "election of an eligible replica", "election of the last leader", "unclean election", "records lost as allowed",
	"copy of the same run put back", "copy from before the last generation put back", "old copy of the same run elected",
	"leader lost", "leader elected", "leader epoch renewed", "replica eligible",
	"ISR grew", "ISR shrank", "ISR proposed as is", "proposal accepted", "proposal at an old partition epoch", "proposal of a fenced leader",
	"proposal of unknown outcome", "proposal repeated", "late proposal accepted", "late proposal at an old partition epoch",
	"joining replica cut off", "power cut of a joining replica", "leader cut off while a replica joins",
	"truncation", "begin anew", "replica removed",
	// the administrator
	"reassignment began", "reassignment ended", "reassignment changed", "reassignment cancelled",
	"min.insync.replicas changed", "topic became durable", "topic counts as durable again", "topic became page-cached", "unclean.leader.election.enable changed",
	"records deleted", "replicas moved away",
	// clients
	"record acknowledged", "record acknowledged with acks=all", "append refused: too few in sync",
	"duplicate recognised", "sequence out of order", "records consumed", "records consumed from a follower", "not readable yet",
	"offset committed", "offset fetched", "coordinator loaded", "coordinator goes on", "offset asked of a node without a session",
	// copies of directories
	"leader told that it lacks records", "leader that lacks records gave up",
}

// rare has what happens in few seeds.
var rare = []string{
	"acknowledgement refused: too few in sync", "registration superseded", "election of the only replica", "unclean election asked for",
	"preferred leader elected", "proposal of a stale broker", "election of a replica that has objected", "replica has followed an old copy",
}

// expectedOfTransactions has what happens in clusters with transactions.
var expectedOfTransactions = []string{
	"machine loaded", "machine goes on", "leader dies between two steps", "step refused: too few in sync",
	"init: ok", "init: CONCURRENT_TRANSACTIONS", "init: PRODUCER_FENCED", "init: COORDINATOR_LOAD_IN_PROGRESS", "init: NOT_COORDINATOR", "init: no answer",
	"add: ok", "add: PRODUCER_FENCED", "add offsets: ok", "offset in a transaction: ok", "offset in a transaction: INVALID_PRODUCER_EPOCH",
	"produce in a transaction: ok", "produce in a transaction: CONCURRENT_TRANSACTIONS", "produce in a transaction: INVALID_PRODUCER_EPOCH",
	"produce in a transaction: NOT_ENOUGH_REPLICAS", "produce in a transaction: NOT_LEADER_FOR_PARTITION", "produce in a transaction: no answer",
	"commit: ok", "commit: no answer", "commit: PRODUCER_FENCED", "commit: INVALID_TXN_STATE", "abort: ok", "abort: PRODUCER_FENCED",
	"fetch an offset: ok", "fetch an offset: UNSTABLE_OFFSET_COMMIT", "fetch an offset: NOT_COORDINATOR",
	"late or doubled: produce in a transaction", "late or doubled: commit", "late or doubled: abort", "late or doubled: offset in a transaction",
	"partition verified", "slow verification", "transactional record appended", "transactional duplicate recognised",
	"slow marker", "late marker", "marker lost", "marker doubled", "marker refused", "marker under way",
	"rival started", "slow client", "input transformed", "transaction committed",
	"reader held back", "committed record read", "committed records read from a follower", "aborted record skipped", "no promise of transactions",
}
