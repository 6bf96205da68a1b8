package node

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/place"
	"github.com/leatstream/leat/internal/quorum"
)

const (
	// votersEvery is how often the node that leads the metadata quorum looks whether it has the voters that
	// it should have.
	votersEvery = time.Second
	// learnersEvery is how often it looks while nodes are to vote that do not yet: until they do, the quorum may not
	// survive the end of one node.
	learnersEvery = 100 * time.Millisecond
	// changeTime is how long a change of the voters may take until it is looked at again.
	changeTime = 10 * time.Second
	// handOverTime is how long a node that stops tries to have another one lead the quorum.
	handOverTime = 2 * time.Second
)

// electorate has the cluster choose its voters by itself: the node that leads the quorum makes learners
// of those that are to vote, and voters of them as soon as they have caught up. What a leader did not
// finish the next one finds in the members. It belongs to one goroutine.
type electorate struct {
	n    *Node
	away map[int32]time.Duration // since when a broker has been fenced, by Node.clock
}

// run keeps the voters as they should be until the node stops.
func (e *electorate) run() {
	n := e.n
	tick := time.NewTicker(votersEvery)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.votersWanted:
		case <-tick.C:
		}
		if len(n.image.Load().Brokers) < 2 {
			tick.Stop() // it is woken when the nodes change
			continue
		}
		every := votersEvery
		if e.adjust() {
			every = learnersEvery
		}
		tick.Reset(every)
	}
}

// adjust makes the next step to the voters that the quorum should have, if this node leads it. isWaiting tells that there is a next step.
func (e *electorate) adjust() (isWaiting bool) {
	n := e.n
	img := n.image.Load()
	term, leads := n.quorum.Leading()
	status := n.quorum.Status()
	e.noteAway(img, n.clock())
	if !leads || status.IsChanging {
		return false
	}
	want, ok := e.wantedMembers(img, &status)
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(n.ctx, changeTime)
	defer cancel()
	err := n.quorum.ChangeMembers(ctx, term, want)
	log := n.loggers.loggerOf(rootLogger)
	switch {
	case err == nil:
		log.Info("the members of the metadata quorum have changed", "voters", e.nodesOf(want.Voters), "learners", e.nodesOf(want.Learners))
	case errors.Is(err, quorum.ErrNotCaughtUp), errors.Is(err, quorum.ErrChangeUnderWay), errors.Is(err, quorum.ErrNotLeader), n.ctx.Err() != nil:
	default:
		log.Warn("the members of the metadata quorum could not be changed; it is tried again", "err", err)
	}
	return err == nil || errors.Is(err, quorum.ErrNotCaughtUp)
}

// noteAway keeps since when the brokers have been fenced.
func (e *electorate) noteAway(img *meta.Image, now time.Duration) {
	away := e.away
	for id, b := range img.Brokers {
		if _, ok := away[id]; !ok && b.State == meta.BrokerFenced {
			away[id] = now
		} else if b.State != meta.BrokerFenced {
			delete(away, id)
		}
	}
	for id := range away {
		if img.Brokers[id] == nil {
			delete(away, id)
		}
	}
}

// wantedMembers are the members that the quorum should have next. ok is false if it has them.
func (e *electorate) wantedMembers(img *meta.Image, status *quorum.Status) (want quorum.Members, ok bool) {
	n := e.n
	s := n.serverSettings()
	now := n.clock()
	raftIDs := map[int32]uint64{} // by node; of those that none has any more, by a name below 0
	for id, b := range img.Brokers {
		if b.RaftID != 0 {
			raftIDs[id] = b.RaftID
		}
	}
	var voters []int32
	for _, raftID := range status.Members.Voters {
		id, known := e.nodeOf(img, status, raftID)
		if !known { // its directory was replaced, or its node was removed
			id = -1 - int32(len(voters))
		}
		raftIDs[id] = raftID
		voters = append(voters, id)
	}
	var nodes []place.Node
	for id, b := range img.Brokers {
		if raftIDs[id] == 0 {
			continue
		}
		since, isAway := e.away[id]
		nodes = append(nodes, place.Node{
			ID: id, Rack: b.Rack, Healthy: b.State == meta.BrokerActive,
			Away: isAway && now-since >= s.VoterAway,
		})
	}
	slices.SortFunc(nodes, func(a, b place.Node) int { return cmp.Compare(a.ID, b.ID) })
	chosen := place.Voters(nodes, voters, n.id.nodeID, s.Voters)
	var learners []uint64
	for _, id := range chosen {
		want.Voters = append(want.Voters, raftIDs[id])
		if !slices.Contains(status.Members.Voters, raftIDs[id]) {
			learners = append(learners, raftIDs[id])
		}
	}
	slices.Sort(want.Voters)
	slices.Sort(learners)
	if isMissing := slices.ContainsFunc(learners, func(id uint64) bool { return !slices.Contains(status.Members.Learners, id) }); isMissing {
		return quorum.Members{Voters: status.Members.Voters, Learners: learners}, true
	}
	isDone := len(learners) == 0 && len(status.Members.Learners) == 0 && len(want.Voters) == len(status.Members.Voters)
	return want, !isDone
}

// nodeOf finds the node that votes with one of raft's ids. A node that was registered before the metadata
// could have such ids is known as this one, or by what it has sent.
func (e *electorate) nodeOf(img *meta.Image, status *quorum.Status, raftID uint64) (id int32, ok bool) {
	if raftID == status.RaftID {
		return e.n.id.nodeID, true
	}
	if id, ok = e.n.peers.findRaftID(raftID); ok {
		return id, true
	}
	id, ok = e.n.peers.metadata.NodeOf(raftID)
	return id, ok && img.Brokers[id] != nil && img.Brokers[id].RaftID == 0
}

// nodesOf names the nodes of members.
func (e *electorate) nodesOf(raftIDs []uint64) (nodes []int32) {
	for _, raftID := range raftIDs {
		if id, ok := e.n.peers.findRaftID(raftID); ok {
			nodes = append(nodes, id)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// handQuorumOver has another voter lead the quorum, if this node leads it.
func handQuorumOver(ctx context.Context, n *Node) {
	if _, leads := n.quorum.Leading(); !leads {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	s := n.quorum.Status()
	others := slices.DeleteFunc(slices.Clone(s.Members.Voters), func(id uint64) bool { return id == s.RaftID })
	slices.SortFunc(others, func(a, b uint64) int { return cmp.Compare(s.Match[b], s.Match[a]) }) // the one that lacks least is first
	for _, id := range others {
		if n.quorum.TransferLeadership(ctx, id) == nil {
			return
		}
	}
}
