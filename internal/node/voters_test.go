package node

import (
	"slices"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
)

// TestWantedVoters proves which step to its voters a quorum takes: learners first, then voters; none if it
// has them. The node that leads may have been registered before the metadata could have raft's ids, as after
// an upgrade; and a voter whose directory was replaced is replaced by the same node's new id.
func TestWantedVoters(t *testing.T) {
	m := newMember(t)
	defer m.cancel()
	cfg := peersConfig{id: identity{clusterID: credential.ClusterID{7}.String(), nodeID: 1}, image: m.image.Load, isCutOff: func() bool { return false }}
	if err := m.peers.prepare(m.ctx, &cfg); err != nil {
		t.Fatal(err)
	}
	defer m.peers.close()
	e := &electorate{n: m.Node, away: map[int32]time.Duration{}}
	for _, c := range []struct {
		what             string
		ids              []uint64 // of raft in the registrations of the nodes from 1 on
		voters, learners []uint64 // of the quorum that node 1 leads as 11
		want             quorum.Members
		isDone           bool
	}{
		{"one node", []uint64{11}, []uint64{11}, nil, quorum.Members{}, true},
		{"one node from before", []uint64{0}, []uint64{11}, nil, quorum.Members{}, true},
		{"two nodes", []uint64{11, 12}, []uint64{11}, nil, quorum.Members{}, true},
		{"three nodes", []uint64{11, 12, 13}, []uint64{11}, nil, quorum.Members{Voters: []uint64{11}, Learners: []uint64{12, 13}}, false},
		{"three nodes, the leader from before", []uint64{0, 12, 13}, []uint64{11}, nil, quorum.Members{Voters: []uint64{11}, Learners: []uint64{12, 13}}, false},
		{"their learners", []uint64{0, 12, 13}, []uint64{11}, []uint64{12, 13}, quorum.Members{Voters: []uint64{11, 12, 13}}, false},
		{"three voters", []uint64{0, 12, 13}, []uint64{11, 12, 13}, nil, quorum.Members{}, true},
		{"a replaced directory", []uint64{11, 12, 23}, []uint64{11, 12, 13}, nil, quorum.Members{Voters: []uint64{11, 12, 13}, Learners: []uint64{23}}, false},
	} {
		entry := meta.AppendLevel(nil, meta.LevelFeature, meta.LevelCluster)
		for i, raftID := range c.ids {
			entry = meta.Append(entry, meta.BrokerRegistered{Broker: meta.Broker{ID: int32(i) + 1, Epoch: int64(i) + 1, State: meta.BrokerActive, RaftID: raftID}})
		}
		img, _, err := meta.Apply(meta.Empty(), entry)
		if err != nil {
			t.Fatal(err)
		}
		m.image.Store(img)
		status := quorum.Status{RaftID: 11, Members: quorum.Members{Voters: c.voters, Learners: c.learners}}
		got, changes := e.wantedMembers(img, &status)
		if changes == c.isDone || changes && (!slices.Equal(got.Voters, c.want.Voters) || !slices.Equal(got.Learners, c.want.Learners)) {
			t.Errorf("%s: %+v, a change: %v", c.what, got, changes)
		}
	}
}
