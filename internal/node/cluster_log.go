package node

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/leatstream/leat/internal/meta"
)

// clusterChanges counts what has happened to the cluster's partitions since this node follows the metadata. Every node
// counts the same.
type clusterChanges struct {
	elections        atomic.Int64 // partitions that got a leader
	uncleanElections atomic.Int64 // those whose leader may lack acknowledged records
	shrinks, expands atomic.Int64 // replicas that left and joined in-sync sets
}

// partitionChanges is what one change of the metadata means for partitions that were there before.
type partitionChanges struct {
	moved, lost, regained int      // partitions with another leader, with none any more, and with one again
	given, got            int      // partitions for which other replicas were chosen, and those that have got them
	shrinks, expands      int      // replicas that left and joined in-sync sets
	offline, unclean      []string // names of some of those that have lost their leader, and that have one which may lack records
	uncleanElections      int
}

// logCluster tells the operator which nodes have come and gone, and what became of the partitions, and counts it.
func (c *clusterChanges) logCluster(log *slog.Logger, d *meta.Delta, before, after *meta.Image) {
	if d.Brokers {
		logBrokers(log, before, after)
	}
	var p partitionChanges
	for _, ch := range d.Topics {
		if ch.Old == nil || ch.New == nil {
			continue
		}
		for i := range min(len(ch.Old.Partitions), len(ch.New.Partitions)) {
			p.add(ch.New.Name, i, &ch.Old.Partitions[i], &ch.New.Partitions[i])
		}
	}
	c.elections.Add(int64(p.moved + p.regained))
	c.uncleanElections.Add(int64(p.uncleanElections))
	c.shrinks.Add(int64(p.shrinks))
	c.expands.Add(int64(p.expands))
	p.tell(log)
}

// add takes the change of one partition.
func (p *partitionChanges) add(topic string, number int, from, to *meta.Partition) {
	if from.PartitionEpoch == to.PartitionEpoch {
		return
	}
	name := func() string { return fmt.Sprintf("%s-%d", topic, number) }
	elected := to.Leader >= 0 && to.Leader != from.Leader
	switch {
	case from.Leader >= 0 && to.Leader < 0:
		if p.lost++; p.lost <= maxLoggedTopics {
			p.offline = append(p.offline, name())
		}
	case elected && from.Leader < 0:
		p.regained++
	case elected:
		p.moved++
	}
	// A reassignment ends by the same record that takes the last of its new replicas into the in-sync set, and that one may lead at once. An
	// unclean election of such a replica does not end the reassignment.
	isEnded := slices.Contains(from.Adding, to.Leader) && len(to.Adding) == 0
	if elected && !isEnded && !slices.Contains(from.ISR, to.Leader) && !slices.Contains(from.Eligible, to.Leader) {
		if p.uncleanElections++; p.uncleanElections <= maxLoggedTopics {
			p.unclean = append(p.unclean, name())
		}
	}
	isMoving := func(p *meta.Partition) bool { return len(p.Adding) > 0 || len(p.Removing) > 0 }
	switch was, is := isMoving(from), isMoving(to); {
	case is && !was:
		p.given++
	case was && !is:
		p.got++
	}
	for _, id := range from.ISR {
		if !slices.Contains(to.ISR, id) {
			p.shrinks++
		}
	}
	for _, id := range to.ISR {
		if !slices.Contains(from.ISR, id) {
			p.expands++
		}
	}
}

func (p *partitionChanges) tell(log *slog.Logger) {
	if p.moved > 0 || p.regained > 0 {
		log.Info("partitions have another leader", "partitions", p.moved+p.regained, "without_one_before", p.regained)
	}
	if p.lost > 0 {
		log.Warn("partitions have no leader, since none of the replicas that may lead is running", "partitions", p.lost, "some", p.offline)
	}
	if p.uncleanElections > 0 {
		log.Warn("partitions are led by replicas that may lack acknowledged records", "partitions", p.uncleanElections, "some", p.unclean)
	}
	if p.given > 0 {
		log.Info("partitions are given other replicas", "partitions", p.given)
	}
	if p.got > 0 {
		log.Info("partitions have the replicas that they were given, or keep those that they had", "partitions", p.got)
	}
	if p.shrinks > 0 || p.expands > 0 {
		log.Info("in-sync sets have changed", "replicas_left", p.shrinks, "replicas_joined", p.expands)
	}
}

// logBrokers tells which nodes have come and gone.
func logBrokers(log *slog.Logger, before, after *meta.Image) {
	ids := slices.Collect(maps.Keys(after.Brokers))
	for id := range before.Brokers {
		if after.Brokers[id] == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		from, to := before.Brokers[id], after.Brokers[id]
		switch {
		case to == nil:
			log.Info("a node was removed from the cluster", "node", id)
		case from == nil:
			log.Info("a node has come into the cluster", "node", id)
		case from.State == to.State:
		case to.State == meta.BrokerActive:
			log.Info("a node serves", "node", id)
		case to.State == meta.BrokerLeaving:
			log.Info("a node stops: others take over what it leads", "node", id)
		case from.State == meta.BrokerLeaving:
			log.Info("a node has stopped", "node", id)
		case from.Incarnation != to.Incarnation:
			log.Info("a node starts", "node", id)
		default:
			log.Warn("a node is fenced, since it has not been heard from or its process has ended: others take over what it leads", "node", id)
		}
	}
}
