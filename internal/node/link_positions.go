package node

import (
	"context"
	"sync"

	"github.com/leatstream/leat/internal/broker"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror"
	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
)

// linkPositions has the positions of groups here follow those of the sources of links: it serves other nodes, as a cluster.PositionServer, and asks them.
type linkPositions struct{ n *Node }

// memory is how much the positions of the groups of all sources may take. Those that are followed are here, too, where each takes about half as much.
func (l linkPositions) memory() int64 { return l.n.sizes.groups }

// groupsHere are the groups of this cluster, as links reach them.
func (l linkPositions) groupsHere() mirror.Groups {
	return mirror.Groups{
		Coordinator: l.coordinatorOf, Coordinators: l.coordinators,
		Prepare: func(ctx context.Context) error { return l.n.peers.commands.EnsureTopic(ctx, group.Topic) },
		Ask: func(ctx context.Context, node int32, q *position.Question) (*position.Answer, error) {
			return cluster.AskPositions(ctx, l.n.peers.commands, node, q)
		},
	}
}

// coordinatorOf finds the node that coordinates a group; -1: none does now.
func (l linkPositions) coordinatorOf(name string) int32 {
	t := l.n.image.Load().Topic(group.Topic)
	if t == nil {
		return -1
	}
	return t.Partitions[coord.PartitionOf(name, int32(len(t.Partitions)))].Leader
}

// coordinators are the nodes that coordinate groups. isComplete tells that there is one for each group.
func (l linkPositions) coordinators() (nodes []int32, isComplete bool) {
	t := l.n.image.Load().Topic(group.Topic)
	if t == nil { // there are no groups
		return nil, true
	}
	isComplete = true
	seen := map[int32]bool{}
	for i := range t.Partitions {
		leader := t.Partitions[i].Leader
		isComplete = isComplete && leader >= 0
		if leader >= 0 && !seen[leader] {
			seen[leader] = true
			nodes = append(nodes, leader)
		}
	}
	return nodes, isComplete
}

// ServePositions is that of cluster.PositionServer.
func (l linkPositions) ServePositions(ctx context.Context, q *position.Question) (*position.Answer, error) {
	answered := make(chan *position.Answer, 1)
	link := meta.UUID(q.Link)
	l.n.groups.ServeLink(q, func(topic string) (id [16]byte, ok bool) {
		t := l.n.image.Load().Topic(topic)
		if t == nil || !mirror.FollowsPositions(t, link) {
			return id, false
		}
		return t.ID, true
	}, func(a *position.Answer) { answered <- a })
	select {
	case a := <-answered:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ListEnds is that of cluster.PositionServer.
func (l linkPositions) ListEnds(places []cluster.MirrorPlace) []cluster.MirrorEnd {
	ends := make([]cluster.MirrorEnd, len(places))
	for i, at := range places {
		if t := l.n.set.TopicByID(at.Topic); t != nil && t.Partition(at.Number) != nil {
			ends[i] = endOf(t.Partition(at.Number))
		}
	}
	return ends
}

// endOf is up to where a partition that this node leads has records that are committed.
func endOf(p *replica.Partition) (e cluster.MirrorEnd) {
	l := p.Leadership()
	if err := p.CheckLeader(l.Epoch); err != nil || l.Mirror == nil || l.Mirror.State == meta.PartitionPromoted {
		return e // of one that was promoted the end is not that of the mirror: who asks does not know of it yet
	}
	limits, err := replica.MirrorEnds(p)
	if err != nil {
		return e
	}
	e.End, e.LastEpoch, e.LeaderEpoch, e.IsKnown = p.HighWatermark(), record.NoEpoch, l.Epoch, true
	if e.End == limits.End { // of a record before that it takes a search to know
		e.LastEpoch = limits.LastEpoch
	}
	return e
}

// mirrorEnds is broker.Config.MirrorEnds.
func (l linkPositions) mirrorEnds(ctx context.Context, places []broker.MirrorPlace) ([]position.Extent, []bool) {
	ends, known := make([]position.Extent, len(places)), make([]bool, len(places))
	byNode := map[int32][]int{}
	for i := range places {
		leader := places[i].Topic.Partitions[places[i].Number].Leader
		if leader >= 0 {
			byNode[leader] = append(byNode[leader], i)
		}
	}
	var asking sync.WaitGroup
	for node, list := range byNode {
		ask := func() {
			for len(list) > 0 {
				some := list[:min(len(list), cluster.MaxMirrorPlaces)]
				list = list[len(some):]
				asked := make([]cluster.MirrorPlace, len(some))
				for k, i := range some {
					asked[k] = cluster.MirrorPlace{Topic: places[i].Topic.ID, Number: places[i].Number}
				}
				found, err := cluster.AskEnds(ctx, l.n.peers.commands, node, asked)
				if err != nil {
					return
				}
				for k, i := range some {
					ends[i], known[i] = found[k].Extent, found[k].IsKnown
				}
			}
		}
		if node == l.n.id.nodeID {
			ask()
		} else {
			asking.Go(ask)
		}
	}
	asking.Wait()
	return ends, known
}
