package node

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/meta"
)

// TestClusterIsToldOf proves which lines of the log a change of the metadata makes, and what it adds to the counters:
// an operator finds the time of a failover there, and an election that may have lost records.
func TestClusterIsToldOf(t *testing.T) {
	topic := func(parts ...meta.Partition) *meta.Topic { return &meta.Topic{Name: "t", Partitions: parts} }
	part := func(epoch, leader int32, isr, eligible []int32) meta.Partition {
		return meta.Partition{PartitionEpoch: epoch, Leader: leader, Replicas: []int32{1, 2, 3}, ISR: isr, Eligible: eligible}
	}
	brokers := func(states map[int32]meta.BrokerState) *meta.Image {
		m := *meta.Empty()
		m.Brokers = map[int32]*meta.Broker{}
		for id, s := range states {
			m.Brokers[id] = &meta.Broker{ID: id, State: s}
		}
		return &m
	}
	all := []int32{1, 2, 3}
	active, fenced, leaving := meta.BrokerActive, meta.BrokerFenced, meta.BrokerLeaving
	for name, c := range map[string]struct {
		from, to      *meta.Topic
		before, after map[int32]meta.BrokerState
		want, not     []string
		counts        [4]int64 // elections, unclean ones, shrinks, expands
	}{
		"a node is fenced": {
			topic(part(1, 1, all, nil), part(1, 2, all, nil)), topic(part(2, 2, []int32{2, 3}, nil), part(2, 2, []int32{2, 3}, nil)),
			map[int32]meta.BrokerState{1: active, 2: active},
			map[int32]meta.BrokerState{1: fenced, 2: active},
			[]string{"level=WARN msg=\"a node is fenced", "node=1", "another leader\" partitions=1 without_one_before=0", "replicas_left=2 replicas_joined=0"},
			[]string{"node=2", "no leader", "may lack"},
			[4]int64{1, 0, 2, 0},
		},
		"nobody can lead": {
			topic(part(1, 1, []int32{1}, nil)), topic(part(2, -1, []int32{1}, nil)), nil, nil,
			[]string{"level=WARN msg=\"partitions have no leader", "partitions=1 some=[t-0]"},
			[]string{"another leader"},
			[4]int64{},
		},
		"an eligible replica leads": {
			topic(part(1, -1, nil, []int32{2})), topic(part(2, 2, []int32{2}, nil)), nil, nil,
			[]string{"without_one_before=1"},
			[]string{"may lack"},
			[4]int64{1, 0, 0, 1},
		},
		"an unclean election": {
			topic(part(1, -1, []int32{1}, nil)), topic(part(2, 3, []int32{3}, nil)), nil, nil,
			[]string{"level=WARN msg=\"partitions are led by replicas that may lack acknowledged records\" partitions=1 some=[t-0]"},
			nil,
			[4]int64{1, 1, 1, 1},
		},
		"the new replica of a partition that has moved leads": {
			topic(meta.Partition{PartitionEpoch: 1, Leader: 1, Replicas: []int32{1, 4}, ISR: []int32{1}, Adding: []int32{4}, Removing: []int32{1}}),
			topic(meta.Partition{PartitionEpoch: 2, Leader: 4, Replicas: []int32{4}, ISR: []int32{4}}), nil, nil,
			[]string{"another leader\" partitions=1", "partitions have the replicas"},
			[]string{"WARN"},
			[4]int64{1, 0, 1, 1},
		},
		"an unclean election of a replica that is added": {
			topic(meta.Partition{PartitionEpoch: 1, Leader: 1, Replicas: []int32{1, 4}, ISR: []int32{1}, Adding: []int32{4}, Removing: []int32{1}}),
			topic(meta.Partition{PartitionEpoch: 2, Leader: 4, Replicas: []int32{1, 4}, ISR: []int32{4}, Adding: []int32{4}, Removing: []int32{1}}), nil, nil,
			[]string{"may lack acknowledged records"},
			nil,
			[4]int64{1, 1, 1, 1},
		},
		"replicas are moved": {
			topic(part(1, 1, all, nil), meta.Partition{PartitionEpoch: 1, Leader: 1, Replicas: all, ISR: all, Removing: []int32{1}}),
			topic(meta.Partition{PartitionEpoch: 2, Leader: 1, Replicas: []int32{1, 2, 3, 4}, ISR: all, Adding: []int32{4}}, part(2, 1, all, nil)), nil, nil,
			[]string{"given other replicas\" partitions=1", "partitions have the replicas"},
			[]string{"WARN", "leader"},
			[4]int64{},
		},
		"nothing": {
			topic(part(1, 1, all, nil)), topic(part(1, 1, all, nil)),
			map[int32]meta.BrokerState{1: active},
			map[int32]meta.BrokerState{1: active},
			nil,
			[]string{"msg"},
			[4]int64{},
		},
		"nodes come and go": {
			nil, topic(part(1, 1, all, nil)),
			map[int32]meta.BrokerState{1: fenced, 2: active, 3: leaving, 4: active},
			map[int32]meta.BrokerState{1: active, 2: leaving, 3: fenced, 5: fenced},
			[]string{"a node serves\" node=1", "a node stops", "a node has stopped\" node=3", "removed from the cluster\" node=4", "come into the cluster\" node=5"},
			[]string{"WARN"},
			[4]int64{},
		},
	} {
		var out strings.Builder
		var counted clusterChanges
		d := &meta.Delta{Topics: map[meta.UUID]meta.TopicChange{{1}: {Old: c.from, New: c.to}}, Brokers: true}
		counted.logCluster(slog.New(slog.NewTextHandler(&out, nil)), d, brokers(c.before), brokers(c.after))
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %q in\n%s", name, want, out.String())
			}
		}
		for _, not := range c.not {
			if strings.Contains(out.String(), not) {
				t.Errorf("%s: %q in\n%s", name, not, out.String())
			}
		}
		if got := [4]int64{counted.elections.Load(), counted.uncleanElections.Load(), counted.shrinks.Load(), counted.expands.Load()}; got != c.counts {
			t.Errorf("%s: counted %v", name, got)
		}
	}
}
