package broker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
)

// newClusterRig is an admin rig whose cluster has two more nodes: node 2 is active and node 3 is
// fenced.
func newClusterRig(t *testing.T) *rig {
	t.Helper()
	g := newAdminRig(t, nil)
	g.apply(
		meta.BrokerRegistered{Broker: meta.Broker{ID: 2, Epoch: 2, State: meta.BrokerActive, Rack: "r2", Listeners: []meta.Listener{{Host: "two", Port: 2}}}},
		meta.BrokerRegistered{Broker: meta.Broker{ID: 3, Epoch: 3, Listeners: []meta.Listener{{Host: "three", Port: 3}}}})
	return g
}

// place makes a topic with these partitions.
func (g *rig) place(name string, partitions ...meta.Partition) {
	g.t.Helper()
	id := meta.NewUUID()
	g.apply(meta.TopicCreated{ID: id, Name: name}, meta.PartitionsSet{Topic: id, Partitions: partitions})
}

// TestEveryRefusalHasACode proves that each kind of refusal of the controller has one of Kafka's
// codes.
func TestEveryRefusalHasACode(t *testing.T) {
	for k := controller.InvalidRequest; k <= controller.UnknownLink; k++ {
		if e := refusalCode(k); e == kerr.UnknownServerError {
			t.Errorf("kind %d has no code", k)
		}
	}
	if e := refusalCode(controller.UnknownLink + 1); e != kerr.UnknownServerError {
		t.Errorf("an unknown kind is %v", e)
	}
}

// TestUnregisteredNodesAreTold proves that the answer to DescribeCluster has a note of the nodes that belong to the
// cluster and are no brokers, which nobody would see otherwise, in the version that can have it; and no note if there
// are none.
func TestUnregisteredNodesAreTold(t *testing.T) {
	g := newClusterRig(t)
	c := dial(t, g.addr)
	noteAt := func(version int16) (note string) {
		resp := ask[*kmsg.DescribeClusterResponse](c, at(version, kmsg.NewPtrDescribeClusterRequest()))
		resp.UnknownTags.Each(func(key uint32, value []byte) {
			if key == config.NoteTag {
				note = string(value)
			}
		})
		return note
	}
	if note := noteAt(2); note != "" {
		t.Errorf("without such nodes: %q", note)
	}
	g.apply(meta.LevelSet{Level: meta.LevelAdmission})
	for id := int32(1); id <= 30; id++ {
		g.apply(meta.NodeAdmitted{ID: id, Key: credential.PublicKey{byte(id)}})
	}
	for id := int32(16); id <= 30; id++ {
		g.apply(meta.NodeRemoved{ID: id})
	}
	if note := noteAt(2); !strings.Contains(note, "registered: 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 2 more. ") || strings.Contains(note, "token") {
		t.Errorf("with twelve: %q", note)
	}
	g.apply(meta.NodeAdmitted{ID: 31, Key: credential.PublicKey{31}, Ends: 1})
	if note := noteAt(2); !strings.Contains(note, "a day after the end of their join token") || noteAt(1) != "" {
		t.Errorf("with one that is to be forgotten: %q, and at version 1 %q", note, noteAt(1))
	}
}

// TestFencedBrokersAreNotShown proves that clients are sent to brokers that serve only: that a
// fenced one is shown by DescribeCluster if it is asked for and nowhere else (and that one which is
// leaving has a note of it), its replicas are
// offline, and partitions that it would lead have no leader.
func TestFencedBrokersAreNotShown(t *testing.T) {
	g := newClusterRig(t)
	g.place("t",
		meta.Partition{Replicas: []int32{1, 2, 3}, ISR: []int32{1, 2}, Leader: 1},
		meta.Partition{Replicas: []int32{3}, ISR: []int32{3}, Leader: 3, LeaderEpoch: 4},
		meta.Partition{Replicas: []int32{3, 2}, Leader: -1, LeaderEpoch: 5, Eligible: []int32{3}, LastEligible: []int32{2}},
		meta.Partition{Replicas: []int32{9, 2}, ISR: []int32{2}, Leader: 2})
	c := dial(t, g.addr)
	name := "t"
	for _, version := range []int16{0, 1, 5, 12} {
		req := at(version, kmsg.NewPtrMetadataRequest())
		req.Topics = []kmsg.MetadataRequestTopic{{Topic: &name}}
		resp := ask[*kmsg.MetadataResponse](c, req)
		if len(resp.Brokers) != 2 || resp.Brokers[0].NodeID != 1 || resp.Brokers[1].NodeID != 2 || resp.Brokers[1].Host != "two" {
			t.Errorf("v%d: brokers %+v", version, resp.Brokers)
		}
		type seen struct {
			Code     int16
			Leader   int32
			Replicas []int32
			Offline  []int32
		}
		want := []seen{
			{0, 1, []int32{1, 2, 3}, []int32{3}}, {5, -1, []int32{3}, []int32{3}}, {5, -1, []int32{3, 2}, []int32{3}}, {0, 2, []int32{9, 2}, []int32{9}},
		}
		if version == 0 { // these clients look up each replica
			want = []seen{{9, 1, []int32{1, 2}, nil}, {5, -1, nil, nil}, {5, -1, []int32{2}, nil}, {9, 2, []int32{2}, nil}}
		}
		var got []seen
		for _, p := range resp.Topics[0].Partitions {
			got = append(got, seen{p.ErrorCode, p.Leader, p.Replicas, p.OfflineReplicas})
		}
		for i := range want {
			if version < 5 {
				want[i].Offline = nil
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("v%d: (-want +got)\n%s", version, diff)
		}
	}
	for version, want := range map[int16][]int32{1: {1, 2}, 2: {1, 2, 3}} {
		req := at(version, kmsg.NewPtrDescribeClusterRequest())
		req.IncludeFencedBrokers = true
		var ids []int32
		for _, n := range ask[*kmsg.DescribeClusterResponse](c, req).Brokers {
			if ids = append(ids, n.NodeID); n.IsFenced != (n.NodeID == 3) {
				t.Errorf("v%d: %+v", version, n)
			}
		}
		if !slices.Equal(ids, want) {
			t.Errorf("v%d: brokers %v", version, ids)
		}
	}
	if n := len(ask[*kmsg.DescribeClusterResponse](c, at(2, kmsg.NewPtrDescribeClusterRequest())).Brokers); n != 2 {
		t.Errorf("%d brokers if the fenced ones are not wanted", n)
	}
	g.apply(meta.BrokerChanged{ID: 2, Epoch: 2, State: meta.BrokerLeaving})
	for _, n := range ask[*kmsg.DescribeClusterResponse](c, at(2, kmsg.NewPtrDescribeClusterRequest())).Brokers {
		note := ""
		n.UnknownTags.Each(func(key uint32, value []byte) {
			if key == config.NoteTag {
				note = string(value)
			}
		})
		if isLeaving := n.NodeID == 2; isLeaving != (note == config.LeavingNote) || n.IsFenced {
			t.Errorf("broker %d, fenced %v, has the note %q after broker 2 began to leave", n.NodeID, n.IsFenced, note)
		}
	}
	g.apply(meta.BrokerChanged{ID: 2, Epoch: 2, State: meta.BrokerActive})
	described := kmsg.NewPtrDescribeTopicPartitionsRequest()
	described.Topics, described.ResponsePartitionLimit = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "t"}}, 100
	parts := ask[*kmsg.DescribeTopicPartitionsResponse](c, described).Topics[0].Partitions
	if p := parts[2]; p.LeaderID != -1 || p.ErrorCode != 0 || !slices.Equal(p.EligibleLeaderReplicas, []int32{3}) || !slices.Equal(p.LastKnownELR, []int32{2}) {
		t.Errorf("%+v", p)
	}
	if p := parts[0]; p.EligibleLeaderReplicas == nil || len(p.EligibleLeaderReplicas) != 0 || p.LastKnownELR == nil || !slices.Equal(p.OfflineReplicas, []int32{3}) {
		t.Errorf("%+v", p)
	}
}

// elections asks for elections, and returns the code and the message for each partition.
func elections(c *client, kind int8, topics ...kmsg.ElectLeadersRequestTopic) (whole int16, codes map[string][]int16, last string) {
	req := at(2, kmsg.NewPtrElectLeadersRequest())
	req.ElectionType, req.TimeoutMillis, req.Topics = kind, 10_000, topics
	resp := ask[*kmsg.ElectLeadersResponse](c, req)
	codes = map[string][]int16{}
	for _, rt := range resp.Topics {
		codes[rt.Topic] = nil
		for _, p := range rt.Partitions {
			codes[rt.Topic] = append(codes[rt.Topic], p.ErrorCode)
			if p.ErrorMessage != nil {
				last = *p.ErrorMessage
			}
		}
	}
	return resp.ErrorCode, codes, last
}

// TestElections proves that clients can have leaders elected: the preferred ones, any for partitions
// without one, of some partitions or of all that need it, with Kafka's codes and words where that
// cannot be done.
func TestElections(t *testing.T) {
	g := newClusterRig(t)
	g.place("t",
		meta.Partition{Replicas: []int32{2, 1}, ISR: []int32{1, 2}, Leader: 1},
		meta.Partition{Replicas: []int32{3, 1}, ISR: []int32{1}, Leader: 1},
		meta.Partition{Replicas: []int32{1, 3}, Leader: -1, Eligible: []int32{3}},
		meta.Partition{Replicas: []int32{3}, Leader: -1})
	g.place("well", meta.Partition{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1})
	c := dial(t, g.addr)
	leaders := func() (ids []int32) {
		for _, p := range g.image.Load().Topic("t").Partitions {
			ids = append(ids, p.Leader)
		}
		return ids
	}
	check := func(what string, want map[string][]int16, words string, leads []int32, kind int8, topics ...kmsg.ElectLeadersRequestTopic) {
		t.Helper()
		whole, codes, last := elections(c, kind, topics...)
		if diff := cmp.Diff(want, codes); diff != "" || whole != 0 || words != "" && last != words {
			t.Errorf("%s: code %d, last message %q (-want +got)\n%s", what, whole, last, diff)
		}
		if !slices.Equal(leaders(), leads) {
			t.Errorf("%s: leaders %v, want %v", what, leaders(), leads)
		}
	}
	of := func(partitions ...int32) kmsg.ElectLeadersRequestTopic {
		return kmsg.ElectLeadersRequestTopic{Topic: "t", Partitions: partitions}
	}
	check("preferred", map[string][]int16{"t": {0, 80}}, "The preferred leader was not available.", []int32{2, 1, -1, -1}, 0, of(0, 1))
	check("preferred again", map[string][]int16{"t": {84}}, "Leader election not needed for topic partition.", []int32{2, 1, -1, -1}, 0, of(0))
	check("unclean, nobody is there", map[string][]int16{"t": {83}}, "Eligible topic partition leaders are not available.", []int32{2, 1, -1, -1}, 1, of(3))
	check("unclean for all", map[string][]int16{"t": {0, 83}, "well": nil}, "", []int32{2, 1, 1, -1}, 1)
	check("preferred for all", map[string][]int16{"t": {80, 80}, "well": nil}, "", []int32{2, 1, 1, -1}, 0)
}

// TestManyElections proves that more elections than one command takes are all made.
func TestManyElections(t *testing.T) {
	g := newClusterRig(t)
	const each = electionsAtOnce*2/3 + 1
	for _, name := range []string{"a", "b", "c"} {
		partitions := make([]meta.Partition, each)
		for i := range partitions {
			partitions[i] = meta.Partition{Replicas: []int32{2, 1}, ISR: []int32{1, 2}, Leader: 1}
		}
		g.place(name, partitions...)
	}
	whole, codes, _ := elections(dial(t, g.addr), 0)
	if whole != 0 || len(codes["a"]) != each || len(codes["b"]) != each || len(codes["c"]) != each {
		t.Errorf("code %d, %d, %d and %d results", whole, len(codes["a"]), len(codes["b"]), len(codes["c"]))
	}
	for _, name := range []string{"a", "b", "c"} {
		for i, p := range g.image.Load().Topic(name).Partitions {
			if p.Leader != 2 || codes[name][i] != 0 {
				t.Fatalf("%s-%d is led by %d, code %d", name, i, p.Leader, codes[name][i])
			}
		}
	}
}

// TestElectionsOfAllTakeTurns proves that a request which elects the leaders of all partitions waits while
// another one does, so that their lists are in memory one at a time, and is told when its time is over.
func TestElectionsOfAllTakeTurns(t *testing.T) {
	g := newClusterRig(t)
	g.place("t", meta.Partition{Replicas: []int32{2, 1}, ISR: []int32{1, 2}, Leader: 1})
	c := dial(t, g.addr)
	g.broker.electingAll <- struct{}{}
	req := at(2, kmsg.NewPtrElectLeadersRequest())
	req.TimeoutMillis, req.Topics = 1, nil
	if code := ask[*kmsg.ElectLeadersResponse](c, req).ErrorCode; code != 7 {
		t.Errorf("code %d while another request elects", code)
	}
	<-g.broker.electingAll
	if whole, codes, _ := elections(c, 0); whole != 0 || !slices.Equal(codes["t"], []int16{0}) {
		t.Errorf("code %d, %v after that", whole, codes)
	}
	eventually(t, "the next request may elect", func() bool { return len(g.broker.electingAll) == 0 })
}

// TestLargeCommandsAreRefused proves that a command whose answer has no room in this node's memory gets a code,
// and does not end the connection.
func TestLargeCommandsAreRefused(t *testing.T) {
	g := newClusterRig(t)
	c := dial(t, g.addr)
	numbers := make([]int32, 50_000)
	req := at(1, kmsg.NewPtrAlterPartitionAssignmentsRequest())
	rt := kmsg.AlterPartitionAssignmentsRequestTopic{Topic: "t"}
	for range numbers {
		rt.Partitions = append(rt.Partitions, kmsg.AlterPartitionAssignmentsRequestTopicPartition{})
	}
	req.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{rt}
	if resp := ask[*kmsg.AlterPartitionAssignmentsResponse](c, req); resp.ErrorCode != 44 || resp.ErrorMessage == nil {
		t.Errorf("%+v", resp)
	}
	if whole, _, _ := elections(c, 0, kmsg.ElectLeadersRequestTopic{Topic: "t", Partitions: numbers}); whole != 44 {
		t.Errorf("code %d for elections", whole)
	}
}

// TestReassignments proves that clients can move replicas, see what is under way, all of it and of
// some partitions, and cancel it, with Kafka's codes and words where that cannot be done.
func TestReassignments(t *testing.T) {
	g := newClusterRig(t)
	for _, name := range []string{"t", "u"} {
		g.place(name, meta.Partition{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}, meta.Partition{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1})
	}
	c := dial(t, g.addr)
	codes := func(topic string, allow bool, replicas ...[]int32) (codes []int16) {
		t.Helper()
		req := assignment(1, topic, replicas...)
		req.AllowReplicationFactorChange = allow
		for _, p := range ask[*kmsg.AlterPartitionAssignmentsResponse](c, req).Topics[0].Partitions {
			codes = append(codes, p.ErrorCode)
		}
		return codes
	}
	list := func(asked ...kmsg.ListPartitionReassignmentsRequestTopic) (under map[string][][]int32) {
		t.Helper()
		req := kmsg.NewPtrListPartitionReassignmentsRequest()
		req.Topics = asked
		under = map[string][][]int32{}
		for _, rt := range ask[*kmsg.ListPartitionReassignmentsResponse](c, req).Topics {
			for _, p := range rt.Partitions {
				under[rt.Topic] = append(under[rt.Topic], []int32{p.Partition}, p.Replicas, p.AddingReplicas, p.RemovingReplicas)
			}
		}
		return under
	}
	if got := codes("t", true, []int32{2}, []int32{1, 2}); !slices.Equal(got, []int16{0, 0}) {
		t.Errorf("moving: %v", got)
	}
	if got := codes("u", false, []int32{2}, []int32{1, 2}); !slices.Equal(got, []int16{0, 38}) {
		t.Errorf("moving as many replicas: %v", got)
	}
	all := map[string][][]int32{
		"t": {{0}, {2, 1}, {2}, {1}, {1}, {1, 2}, {2}, nil},
		"u": {{0}, {2, 1}, {2}, {1}},
	}
	if diff := cmp.Diff(all, list()); diff != "" {
		t.Errorf("all that is under way: (-want +got)\n%s", diff)
	}
	some := kmsg.ListPartitionReassignmentsRequestTopic{Topic: "t", Partitions: []int32{1, 9}}
	if diff := cmp.Diff(map[string][][]int32{"t": {{1}, {1, 2}, {2}, nil}}, list(some)); diff != "" {
		t.Errorf("what is under way of some: (-want +got)\n%s", diff)
	}
	if got := codes("t", true, nil, nil); !slices.Equal(got, []int16{0, 0}) {
		t.Errorf("cancelling: %v", got)
	}
	if got := codes("t", true, nil, nil); !slices.Equal(got, []int16{85, 85}) {
		t.Errorf("cancelling nothing: %v", got)
	}
	if diff := cmp.Diff(map[string][][]int32{"u": all["u"]}, list()); diff != "" {
		t.Errorf("what is left: (-want +got)\n%s", diff)
	}
}

// TestFencedBrokerIsRemoved proves that a broker that does not serve can be unregistered.
func TestFencedBrokerIsRemoved(t *testing.T) {
	g := newClusterRig(t)
	c := dial(t, g.addr)
	for _, s := range []struct {
		id   int32
		code int16
	}{{2, 44}, {3, 0}, {3, 102}} {
		if resp := ask[*kmsg.UnregisterBrokerResponse](c, &kmsg.UnregisterBrokerRequest{BrokerID: s.id}); resp.ErrorCode != s.code {
			t.Errorf("broker %d: code %d", s.id, resp.ErrorCode)
		}
	}
	if m := g.image.Load(); m.Brokers[2] == nil || m.Brokers[3] != nil {
		t.Errorf("%d brokers", len(m.Brokers))
	}
}

// TestLevelIsRaised proves that clients see which levels of the metadata this version has and which
// one is in force, can raise it if all nodes know it, and cannot lower it.
func TestLevelIsRaised(t *testing.T) {
	g := newAdminRig(t, nil)
	c := dial(t, g.addr)
	see := func(version int16) (supported, finalized []int16) {
		t.Helper()
		req := at(version, kmsg.NewPtrApiVersionsRequest())
		req.ClientSoftwareName, req.ClientSoftwareVersion = "test", "1"
		resp := ask[*kmsg.ApiVersionsResponse](c, req)
		for _, f := range resp.SupportedFeatures {
			if f.Name == meta.LevelFeature {
				supported = []int16{f.MinVersion, f.MaxVersion}
			}
		}
		for _, f := range resp.FinalizedFeatures {
			if f.Name == meta.LevelFeature {
				finalized = []int16{f.MinVersionLevel, f.MaxVersionLevel}
			}
		}
		return supported, finalized
	}
	raise := func(level int16, validate bool) (int16, string) {
		t.Helper()
		req := at(1, kmsg.NewPtrUpdateFeaturesRequest())
		req.ValidateOnly, req.TimeoutMillis = validate, 10_000
		req.FeatureUpdates = []kmsg.UpdateFeaturesRequestFeatureUpdate{{Feature: meta.LevelFeature, MaxVersionLevel: level, UpgradeType: 1}}
		resp := ask[*kmsg.UpdateFeaturesResponse](c, req)
		if resp.ErrorMessage == nil {
			return resp.ErrorCode, ""
		}
		return resp.ErrorCode, *resp.ErrorMessage
	}
	expect := func(when string, finalized []int16) {
		t.Helper()
		for version, want := range map[int16][]int16{3: {1, meta.LatestLevel}, 4: {0, meta.LatestLevel}} {
			if s, f := see(version); !slices.Equal(s, want) || !slices.Equal(f, finalized) {
				t.Errorf("%s, v%d: supported %v, finalized %v", when, version, s, f)
			}
		}
	}
	expect("at first", nil)
	if code, message := raise(1, false); code != 95 || message == "" {
		t.Errorf("a node that does not know the level: %d %q", code, message)
	}
	g.apply(meta.BrokerRegistered{Broker: meta.Broker{ID: 1, Epoch: 2, State: meta.BrokerActive, Features: SupportedFeatures()}})
	if code, message := raise(1, true); code != 0 {
		t.Errorf("validated: %d %q", code, message)
	}
	expect("after a validation", nil)
	if code, message := raise(1, false); code != 0 {
		t.Errorf("raised: %d %q", code, message)
	}
	expect("raised", []int16{1, 1})
	if code, message := raise(1, false); code != 0 {
		t.Errorf("raised again: %d %q", code, message)
	}
	for _, level := range []int16{0, meta.LatestLevel + 1, -1} {
		if code, message := raise(level, false); code != 95 || message == "" {
			t.Errorf("level %d: %d %q", level, code, message)
		}
	}
	expect("in the end", []int16{1, 1})
}

// TestVotersAreTheClustersOwn proves that a client which adds or removes a voter is told who does, by
// the code that Kafka has for a quorum whose voters are fixed.
func TestVotersAreTheClustersOwn(t *testing.T) {
	c := dial(t, newAdminRig(t, nil).addr)
	add := ask[*kmsg.AddRaftVoterResponse](c, at(1, kmsg.NewPtrAddRaftVoterRequest()))
	remove := ask[*kmsg.RemoveRaftVoterResponse](c, at(0, kmsg.NewPtrRemoveRaftVoterRequest()))
	if add.ErrorCode != 35 || !strings.Contains(*add.ErrorMessage, "itself chooses") || remove.ErrorCode != 35 || *remove.ErrorMessage != *add.ErrorMessage {
		t.Errorf("%+v, %+v", add, remove)
	}
}

// TestClusterCommandsFail proves that commands about nodes and replicas which the quorum does not
// take are answered with the code of that, as a whole and for each partition.
func TestClusterCommandsFail(t *testing.T) {
	for _, f := range []struct {
		err  error
		code int16
	}{{quorum.ErrNotLeader, 41}, {context.DeadlineExceeded, 7}, {errors.New("disk"), -1}} {
		g := newRig(t, func(cfg *Config) {
			cfg.Static, _ = config.NewStatic(1, nil)
			cfg.Quorum = func() quorum.Status { return quorum.Status{} }
			cfg.Controller = controller.New(controller.Config{
				Image: cfg.Image, Static: cfg.Static, Leading: alwaysLeads, Propose: func(context.Context, uint64, []byte) error { return f.err },
			})
		})
		g.apply(meta.BrokerRegistered{Broker: meta.Broker{ID: 1, Epoch: 1, State: meta.BrokerActive, Features: SupportedFeatures()}},
			meta.BrokerRegistered{Broker: meta.Broker{ID: 3, Epoch: 3, Features: SupportedFeatures()}})
		g.place("t", meta.Partition{Replicas: []int32{1, 3}, Leader: -1})
		c := dial(t, g.addr)
		whole, codes, _ := elections(c, 1, kmsg.ElectLeadersRequestTopic{Topic: "t", Partitions: []int32{0}})
		all, _, _ := elections(c, 1)
		moved := ask[*kmsg.AlterPartitionAssignmentsResponse](c, assignment(1, "t", []int32{1}))
		gone := ask[*kmsg.UnregisterBrokerResponse](c, &kmsg.UnregisterBrokerRequest{BrokerID: 3})
		level := at(1, kmsg.NewPtrUpdateFeaturesRequest())
		level.TimeoutMillis = 10_000
		level.FeatureUpdates = []kmsg.UpdateFeaturesRequestFeatureUpdate{{Feature: meta.LevelFeature, MaxVersionLevel: 1, UpgradeType: 1}}
		raised := ask[*kmsg.UpdateFeaturesResponse](c, level)
		for i, code := range []int16{whole, codes["t"][0], all, moved.ErrorCode, moved.Topics[0].Partitions[0].ErrorCode, gone.ErrorCode, raised.ErrorCode} {
			if code != f.code {
				t.Errorf("%v, answer %d: %d, want %d", f.err, i, code, f.code)
			}
		}
	}
}
