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

// Names lists what has happened, in order.
func (c Coverage) Names() []string { return slices.Sorted(maps.Keys(c)) }

// expected has what happens besides faults.
var expected = []string{
	// the network and the quorum
	"message lost", "message doubled", "message late", "connection closed",
	"controller elected", "controller began", "proposal of unknown outcome", "proposal kept by the next leader", "proposal dropped",
	"metadata snapshot", "command in parts",
	// nodes
	"start", "controlled shutdown", "crash that loses records", "replica in sync has lost records", "more losses than the promise covers",
	"registration refused", "earlier process registered", "place kept over a restart",
	"broker fenced", "broker unfenced", "broker leaving", "fenced by silence", "broker unregistered",
	// elections and in-sync sets
	"clean election", "election of a joining replica", "election of an eligible replica", "election of the last leader", "unclean election", "records lost as allowed",
	"copy of the same run put back", "old copy of the same run elected",
	"leader told that it lacks records", "leader that lacks records gave up",
	"leader lost", "leader elected", "leader epoch renewed", "replica eligible",
	"ISR grew", "ISR shrank", "ISR proposed as is", "proposal accepted", "proposal at an old partition epoch", "proposal of a fenced leader",
	"proposal of unknown outcome", "proposal repeated", "late proposal accepted", "late proposal at an old partition epoch",
	"joining replica cut off", "power cut of a joining replica", "leader cut off while a replica joins",
	"truncation", "begin anew", "replica removed",
	// the administrator
	"reassignment began", "reassignment ended", "reassignment changed", "reassignment cancelled",
	"min.insync.replicas changed", "topic became durable", "topic became page-cached", "unclean.leader.election.enable changed",
	"records deleted", "replicas moved away",
	// clients
	"record acknowledged", "record acknowledged with acks=all", "append refused: too few in sync",
	"duplicate recognised", "sequence out of order", "records consumed", "records consumed from a follower", "not readable yet",
	"offset committed", "offset fetched", "coordinator loaded", "coordinator goes on", "offset asked of a node without a session",
}

// rare has what happens in few seeds.
var rare = []string{
	"acknowledgement refused: too few in sync", "registration superseded", "election of the only replica", "unclean election asked for",
	"preferred leader elected", "proposal of a stale broker", "election of a replica that has objected", "replica has followed an old copy",
}
