package node

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/place"
)

// clusterMetrics are the metrics of the cluster as this node sees it, and of links to others.
type clusterMetrics struct {
	linkMetrics
	nodes, controller, controllerKnown, voters *prometheus.Desc
	offline, underReplicated, belowMinISR      *prometheus.Desc
	leaders, replicas                          *prometheus.Desc
	elections, uncleanElections                *prometheus.Desc
	shrinks, expands                           *prometheus.Desc
}

func newClusterMetrics(desc func(name, help string, labels ...string) *prometheus.Desc) clusterMetrics {
	return clusterMetrics{
		linkMetrics:      newLinkMetrics(desc),
		nodes:            desc("nodes", "Nodes of the cluster, by state: active, leaving (it stops), fenced (not heard from, or not serving yet).", "state"),
		controller:       desc("controller", "1 on the node that is the active controller."),
		controllerKnown:  desc("controller_known", "1 if this node knows an active controller; without one the metadata cannot change."),
		voters:           desc("quorum_voters", "Nodes that vote on the metadata."),
		offline:          desc("partitions_offline", "Partitions of the cluster without a leader."),
		underReplicated:  desc("partitions_under_replicated", "Partitions of the cluster of which some replica is not in sync."),
		belowMinISR:      desc("partitions_below_min_isr", "Partitions of the cluster with fewer replicas in sync than min.insync.replicas: records with acks=all are refused."),
		leaders:          desc("leaders", "Partitions that this node leads."),
		replicas:         desc("replicas", "Partitions of which this node has a replica."),
		elections:        desc("leader_elections_total", "Partitions of the cluster that got another leader since this node follows the metadata."),
		uncleanElections: desc("unclean_leader_elections_total", "Those whose leader may lack acknowledged records."),
		shrinks:          desc("isr_shrinks_total", "Replicas that left in-sync sets of the cluster since this node follows the metadata."),
		expands:          desc("isr_expands_total", "Replicas that joined in-sync sets of the cluster since this node follows the metadata."),
	}
}

// brokerStates are the values of the label state.
var brokerStates = [...]string{meta.BrokerFenced: "fenced", meta.BrokerActive: "active", meta.BrokerLeaving: "leaving"}

// collect sends the present values.
func (g *clusterMetrics) collect(n *Node, img *meta.Image, value func(d *prometheus.Desc, kind prometheus.ValueType, v int64, labels ...string)) {
	count, now := prometheus.CounterValue, prometheus.GaugeValue
	var nodes [len(brokerStates)]int64
	for _, b := range img.Brokers {
		nodes[b.State]++
	}
	for state, name := range brokerStates {
		value(g.nodes, now, nodes[state], name)
	}
	_, leads := n.quorum.Leading()
	value(g.controller, now, oneIf(leads))
	value(g.controllerKnown, now, oneIf(leads || n.nodeLinks.activeController() >= 0))
	value(g.voters, now, int64(len(n.quorum.Status().Members.Voters)))
	var offline, under, below, leaders, replicas int64
	for t := range img.Topics() {
		settings := meta.TopicSettings(img, n.static, t)
		for i := range t.Partitions {
			p := &t.Partitions[i]
			offline += oneIf(p.Leader < 0)
			under += oneIf(len(p.ISR) < len(p.Replicas))
			below += oneIf(len(p.ISR) < place.MinISR(settings, p))
			leaders += oneIf(p.Leader == n.id.nodeID)
			replicas += oneIf(slices.Contains(p.Replicas, n.id.nodeID))
		}
	}
	value(g.offline, now, offline)
	value(g.underReplicated, now, under)
	value(g.belowMinISR, now, below)
	value(g.leaders, now, leaders)
	value(g.replicas, now, replicas)
	value(g.elections, count, n.changes.elections.Load())
	value(g.uncleanElections, count, n.changes.uncleanElections.Load())
	value(g.shrinks, count, n.changes.shrinks.Load())
	value(g.expands, count, n.changes.expands.Load())
}

func oneIf(is bool) int64 {
	if is {
		return 1
	}
	return 0
}
