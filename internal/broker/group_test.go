package broker

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
)

// newGroupRig starts a broker that coordinates groups, without the initial delay.
func newGroupRig(tb testing.TB) *rig {
	tb.Helper()
	var g *rig
	groups := group.New(group.Config{
		Logger: slog.New(slog.DiscardHandler),
		Settings: func() group.Settings {
			s := group.DefaultSettings()
			s.InitialDelay = time.Second // longer than a busy machine keeps a test from its next request
			return s
		},
		Partitions: func() int32 {
			if topic := g.image.Load().Topic(group.Topic); topic != nil {
				return int32(len(topic.Partitions))
			}
			return 0
		},
	})
	var once sync.Once
	g = newRig(tb, func(c *Config) {
		c.Groups = groups
		c.EnsureTopic = func(context.Context, string) error {
			once.Do(func() {
				g.topic(group.Topic, 50)
				for i := range int32(50) {
					groups.StartLeading(i, 0, g.set.Partition(group.Topic, i))
				}
			})
			return nil
		}
	})
	tb.Cleanup(groups.Close)
	return g
}

// side is one of the two brokers that a scenario is run against, with its answers.
type side struct {
	t       *testing.T
	addr    string
	topic   string
	topicID [16]byte
	group   string // every name of a group begins with it
	clients map[string]*client
	lines   []string
	ids     map[string]string // member ids by who joined last with one
	gen     map[string]int32
	uuids   []string // in order of appearance
}

func (s *side) client(who string) *client {
	if s.clients[who] == nil {
		s.clients[who] = dial(s.t, s.addr)
		s.clients[who].id = who
	}
	return s.clients[who]
}

// do sends a request on the connection of that name, and notes the answer.
func (s *side) do(who string, req kmsg.Request) {
	s.t.Helper()
	s.start(who, req)
	s.end(who, req)
}

func (s *side) start(who string, req kmsg.Request) { s.client(who).send(req) }

func (s *side) end(who string, req kmsg.Request) {
	s.t.Helper()
	resp := s.client(who).receive(req)
	if j, ok := resp.(*kmsg.JoinGroupResponse); ok {
		if j.MemberID != "" {
			s.ids[who] = j.MemberID
		}
		s.gen[who] = j.Generation
	}
	s.normaliseOrder(resp)
	s.lines = append(s.lines, fmt.Sprintf("%s, %s v%d: %s", who, kmsg.NameForKey(req.Key()), req.GetVersion(), s.scrub(asJSON(resp))))
}

var uuid = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// scrub replaces random ids, and the names of this run, by what they stand for.
func (s *side) scrub(text string) string {
	text = uuid.ReplaceAllStringFunc(text, func(id string) string {
		i := slices.Index(s.uuids, id)
		if i < 0 {
			i = len(s.uuids)
			s.uuids = append(s.uuids, id)
		}
		return fmt.Sprint("#", i)
	})
	text = strings.ReplaceAll(text, asJSON(s.topicID), "TOPICID")
	return strings.ReplaceAll(strings.ReplaceAll(text, s.topic, "TOPIC"), s.group, "GROUP")
}

// awaitState waits until the group is in a state with so many members.
func (s *side) awaitState(state string, members int) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		g := ask[*kmsg.DescribeGroupsResponse](s.client("watcher"), s.describe(5, s.group)).Groups[0]
		if g.State == state && len(g.Members) == members {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the group is %s with %d members, not %s with %d", g.State, len(g.Members), state, members)
		}
	}
}

// normaliseOrder sorts lists that have no order, and removes addresses.
func (s *side) normaliseOrder(resp kmsg.Response) {
	switch r := resp.(type) {
	case *kmsg.JoinGroupResponse:
		slices.SortFunc(r.Members, func(a, b kmsg.JoinGroupResponseMember) int { return cmp.Compare(a.MemberID, b.MemberID) })
	case *kmsg.DescribeGroupsResponse:
		slices.SortFunc(r.Groups, func(a, b kmsg.DescribeGroupsResponseGroup) int { return cmp.Compare(a.Group, b.Group) })
		for _, g := range r.Groups {
			slices.SortFunc(g.Members, func(a, b kmsg.DescribeGroupsResponseGroupMember) int { return cmp.Compare(a.MemberID, b.MemberID) })
		}
	case *kmsg.ListGroupsResponse:
		r.Groups = slices.DeleteFunc(append([]kmsg.ListGroupsResponseGroup{}, r.Groups...), func(g kmsg.ListGroupsResponseGroup) bool { return !strings.HasPrefix(g.Group, s.group) })
		slices.SortFunc(r.Groups, func(a, b kmsg.ListGroupsResponseGroup) int { return cmp.Compare(a.Group, b.Group) })
	case *kmsg.DeleteGroupsResponse:
		slices.SortFunc(r.Groups, func(a, b kmsg.DeleteGroupsResponseGroup) int { return cmp.Compare(a.Group, b.Group) })
	case *kmsg.OffsetCommitResponse:
		for _, t := range r.Topics {
			slices.SortFunc(t.Partitions, func(a, b kmsg.OffsetCommitResponseTopicPartition) int { return cmp.Compare(a.Partition, b.Partition) })
		}
	case *kmsg.OffsetDeleteResponse:
		slices.SortFunc(r.Topics, func(a, b kmsg.OffsetDeleteResponseTopic) int { return cmp.Compare(a.Topic, b.Topic) })
		for _, t := range r.Topics {
			slices.SortFunc(t.Partitions, func(a, b kmsg.OffsetDeleteResponseTopicPartition) int { return cmp.Compare(a.Partition, b.Partition) })
		}
	case *kmsg.FindCoordinatorResponse:
		r.Port = min(r.Port, 1)
		for i := range r.Coordinators {
			r.Coordinators[i].Port = min(r.Coordinators[i].Port, 1)
		}
	}
}

// TestGroupAnswersAreKafkas runs scenarios against a real Kafka (LEAT_TEST_KAFKA, its
// address) and against us, and proves that every answer is the same.
func TestGroupAnswersAreKafkas(t *testing.T) {
	addr := os.Getenv("LEAT_TEST_KAFKA")
	if addr == "" {
		t.Skip("LEAT_TEST_KAFKA names no Kafka to compare with")
	}
	g := newGroupRig(t)
	for name, scenario := range groupScenarios() {
		topic := fmt.Sprintf("diff-%s-%d", strings.ReplaceAll(name, " ", "-"), time.Now().UnixNano())
		kafka := &side{addr: addr, topic: topic, topicID: createTestTopic(t, addr, topic)}
		ours := &side{addr: g.addr, topic: topic, topicID: g.topic(topic, 2)}
		t.Run(name, func(t *testing.T) {
			for _, s := range []*side{kafka, ours} {
				s.t, s.group = t, "group-of-"+topic
				s.clients, s.ids, s.gen = map[string]*client{}, map[string]string{}, map[string]int32{}
				awaitCoordinator(s)
				scenario(s)
			}
			if diff := gocmp.Diff(kafka.lines, ours.lines); diff != "" {
				t.Errorf("(-kafka +ours):\n%s", diff)
			}
		})
	}
}

// createTestTopic makes a topic of two partitions on a broker.
func createTestTopic(t *testing.T, addr, topic string) [16]byte {
	t.Helper()
	req := at(7, kmsg.NewPtrCreateTopicsRequest())
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic, 2, 1
	req.Topics, req.TimeoutMillis = append(req.Topics, rt), 10_000
	c := dial(t, addr)
	made := ask[*kmsg.CreateTopicsResponse](c, req).Topics[0]
	if made.ErrorCode != none {
		t.Fatalf("cannot make %s: code %d", topic, made.ErrorCode)
	}
	for deadline := time.Now().Add(20 * time.Second); ; { // the broker follows its controller
		md := at(9, kmsg.NewPtrMetadataRequest())
		md.Topics = []kmsg.MetadataRequestTopic{{Topic: &topic}}
		got := ask[*kmsg.MetadataResponse](c, md).Topics[0]
		if got.ErrorCode == none && len(got.Partitions) == 2 {
			return made.TopicID
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come: %+v", topic, got)
		}
	}
}

// TestGroups runs the scenarios twice against this broker alone, and proves that they end and
// that the first run does not disturb the second.
func TestGroups(t *testing.T) {
	g := newGroupRig(t)
	for name, scenario := range groupScenarios() {
		topic := "t-" + strings.ReplaceAll(name, " ", "-")
		s := &side{t: t, addr: g.addr, topic: topic, topicID: g.topic(topic, 2), group: "g-" + topic}
		t.Run(name, func(t *testing.T) {
			s.t, s.clients, s.ids, s.gen = t, map[string]*client{}, map[string]string{}, map[string]int32{}
			awaitCoordinator(s)
			scenario(s)
			if len(s.lines) == 0 {
				t.Error("nothing was asked")
			}
		})
	}
}

// awaitCoordinator asks for the coordinator until there is one: Kafka makes the
// offsets topic at the first question and answers a later one.
func awaitCoordinator(s *side) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		req := at(4, kmsg.NewPtrFindCoordinatorRequest())
		req.CoordinatorKeys = []string{s.group}
		r := ask[*kmsg.FindCoordinatorResponse](s.client("finder"), req)
		if r.Coordinators[0].ErrorCode == none {
			break
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("no coordinator: code %d", r.Coordinators[0].ErrorCode)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; { // it may still be loading
		req := at(5, kmsg.NewPtrDescribeGroupsRequest())
		req.Groups = []string{s.group, s.group + "-2", s.group + "-3", ""}
		r := ask[*kmsg.DescribeGroupsResponse](s.client("finder"), req)
		if !slices.ContainsFunc(r.Groups, func(g kmsg.DescribeGroupsResponseGroup) bool { return g.ErrorCode != none }) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the coordinator does not load: %+v", r.Groups)
		}
	}
}

// consumer is a member's metadata.
func consumer(topics ...string) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Topics = topics
	return m.AppendTo(nil)
}

func (s *side) join(version int16, id string, change ...func(*kmsg.JoinGroupRequest)) *kmsg.JoinGroupRequest {
	req := at(version, kmsg.NewPtrJoinGroupRequest())
	req.Group, req.MemberID, req.ProtocolType = s.group, id, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 30_000, 30_000
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: consumer(s.topic)}}
	for _, f := range change {
		f(req)
	}
	return req
}

func (s *side) sync(version int16, who string, assign ...string) *kmsg.SyncGroupRequest {
	req := at(version, kmsg.NewPtrSyncGroupRequest())
	req.Group, req.MemberID, req.Generation = s.group, s.ids[who], s.gen[who]
	req.ProtocolType, req.Protocol = new(string("consumer")), new(string("range"))
	for _, a := range assign {
		req.GroupAssignment = append(req.GroupAssignment,
			kmsg.SyncGroupRequestGroupAssignment{MemberID: s.ids[a], MemberAssignment: []byte("for " + a)})
	}
	return req
}

func (s *side) beat(version int16, id string, gen int32, instance *string) *kmsg.HeartbeatRequest {
	req := at(version, kmsg.NewPtrHeartbeatRequest())
	req.Group, req.MemberID, req.Generation, req.InstanceID = s.group, id, gen, instance
	return req
}

func (s *side) leave(version int16, ids ...string) *kmsg.LeaveGroupRequest {
	req := at(version, kmsg.NewPtrLeaveGroupRequest())
	req.Group, req.MemberID = s.group, ids[0]
	for _, id := range ids {
		req.Members = append(req.Members, kmsg.LeaveGroupRequestMember{MemberID: id})
	}
	return req
}

func (s *side) commit(version int16, id string, gen int32, change ...func(*kmsg.OffsetCommitRequest)) *kmsg.OffsetCommitRequest {
	req := at(version, kmsg.NewPtrOffsetCommitRequest())
	req.Group, req.MemberID, req.Generation = s.group, id, gen
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic, t.TopicID = s.topic, s.topicID
	for i := range int32(2) {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = i, 7+int64(i), 3, new(string("meta"))
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	for _, f := range change {
		f(req)
	}
	return req
}

func (s *side) fetch(version int16, group string, partitions ...int32) *kmsg.OffsetFetchRequest {
	req := at(version, kmsg.NewPtrOffsetFetchRequest())
	g := kmsg.NewOffsetFetchRequestGroup()
	req.Group, g.Group = group, group
	if len(partitions) > 0 {
		req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: s.topic, Partitions: partitions}}
		g.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: s.topic, TopicID: s.topicID, Partitions: partitions}}
	}
	req.Groups = append(req.Groups, g)
	return req
}

func (s *side) dropOffsets(group string, partitions ...int32) *kmsg.OffsetDeleteRequest {
	req := at(0, kmsg.NewPtrOffsetDeleteRequest())
	req.Group = group
	for _, topic := range []string{s.topic, "no-such-" + s.topic} {
		t := kmsg.OffsetDeleteRequestTopic{Topic: topic}
		for _, p := range partitions {
			t.Partitions = append(t.Partitions, kmsg.OffsetDeleteRequestTopicPartition{Partition: p})
		}
		req.Topics = append(req.Topics, t)
	}
	return req
}

func (*side) describe(version int16, groups ...string) *kmsg.DescribeGroupsRequest {
	req := at(version, kmsg.NewPtrDescribeGroupsRequest())
	req.Groups, req.IncludeAuthorizedOperations = groups, true
	return req
}

func (*side) list(version int16, states, types []string) *kmsg.ListGroupsRequest {
	req := at(version, kmsg.NewPtrListGroupsRequest())
	req.StatesFilter, req.TypesFilter = states, types
	return req
}

func (*side) remove(version int16, groups ...string) *kmsg.DeleteGroupsRequest {
	req := at(version, kmsg.NewPtrDeleteGroupsRequest())
	req.Groups = groups
	return req
}

// groupScenarios are what clients and administrators do to groups.
func groupScenarios() map[string]func(*side) {
	return map[string]func(*side){
		"nobody": scenarioUnknownGroups, "finding": scenarioFindCoordinator, "offsets": scenarioOffsets,
		"two members": scenarioTwoMembers, "static members": scenarioStatic, "refusals": scenarioRefusals,
	}
}

// scenarioUnknownGroups asks about groups that do not exist.
func scenarioUnknownGroups(s *side) {
	for v := range int16(7) {
		s.do("admin", s.describe(v, s.group))
	}
	for v := int16(1); v <= 10; v++ {
		s.do("admin", s.fetch(v, s.group, 0, 1, 9))
		if v > 1 {
			s.do("admin", s.fetch(v, s.group))
		}
	}
	for v := range int16(5) {
		s.do("m", s.beat(v, "m", 1, nil))
	}
	for v := range int16(6) {
		s.do("m", s.leave(v, "m"))
		s.do("m", s.sync(v, "m"))
		s.do("admin", s.list(v, nil, nil))
	}
	s.do("m", s.leave(3, "m", "n"))
	for v := range int16(10) {
		s.do("m", s.join(v, "m"))
	}
	for v := int16(2); v <= 10; v++ {
		s.do("m", s.commit(v, "m", 3))
	}
	for v := range int16(3) {
		s.do("admin", s.remove(v, s.group))
	}
	s.do("admin", s.dropOffsets(s.group, 0))
}

// scenarioFindCoordinator looks for coordinators.
func scenarioFindCoordinator(s *side) {
	find := func(version int16, kind int8, keys ...string) {
		req := at(version, kmsg.NewPtrFindCoordinatorRequest())
		req.CoordinatorKey, req.CoordinatorType, req.CoordinatorKeys = keys[0], kind, keys
		s.do("m", req)
	}
	for v := range int16(7) {
		find(v, 0, s.group, "", s.group)
	}
	for v := int16(1); v < 6; v++ {
		find(v, 7, "x")
	}
}

// scenarioOffsets commits without being a member.
func scenarioOffsets(s *side) {
	for v := int16(2); v <= 10; v++ {
		s.do("m", s.commit(v, "", -1))
		s.do("m", s.fetch(max(v, 1), s.group))
	}
	topics := func(change func(*kmsg.OffsetCommitRequestTopic)) func(*kmsg.OffsetCommitRequest) {
		return func(r *kmsg.OffsetCommitRequest) { change(&r.Topics[0]) }
	}
	for v := int16(8); v <= 10; v++ {
		s.do("m", s.commit(v, "m", -1))
		s.do("m", s.commit(v, "m", 5))
		s.do("m", s.commit(v, "", -1, topics(func(t *kmsg.OffsetCommitRequestTopic) { t.Partitions[1].Partition = 9 })))
		s.do("m", s.commit(v, "", -1, topics(func(t *kmsg.OffsetCommitRequestTopic) { t.Partitions[0].Partition = -1 })))
		s.do("m", s.commit(v, "", -1, topics(func(t *kmsg.OffsetCommitRequestTopic) { t.Topic, t.TopicID = "none", [16]byte{9} })))
		s.do("m", s.commit(v, "", -1, topics(func(t *kmsg.OffsetCommitRequestTopic) {
			t.Partitions[0].Metadata = new(strings.Repeat("x", 4097))
			t.Partitions[1].Metadata = nil
			t.Partitions[1].Offset = -1
		})))
		s.do("m", s.commit(v, "", -1, func(r *kmsg.OffsetCommitRequest) { r.Topics = nil }))
		s.do("m", s.commit(v, "", -1, func(r *kmsg.OffsetCommitRequest) { r.Group = s.group + "-2" }))
	}
	for v := int16(1); v <= 10; v++ {
		s.do("m", s.fetch(v, s.group, 0, 1, 9, -1))
	}
	many := s.fetch(8, s.group, 0)
	many.Groups = append(many.Groups, s.fetch(8, s.group+"-2").Groups[0], s.fetch(8, s.group+"-3", 1).Groups[0])
	s.do("m", many)
	unknown := s.fetch(10, s.group, 0)
	unknown.Groups[0].Topics[0].TopicID = [16]byte{9}
	s.do("m", unknown)
	asMember := s.fetch(9, s.group, 0)
	asMember.Groups[0].MemberID, asMember.Groups[0].MemberEpoch = new(string("m")), 4
	s.do("m", asMember)
	s.do("admin", s.describe(6, s.group))
	s.do("admin", s.list(5, nil, nil))
	s.do("admin", s.list(5, []string{"empty", "nonsense"}, []string{"CLASSIC"}))
	s.do("admin", s.list(5, []string{"Stable"}, nil))
	s.do("admin", s.list(5, nil, []string{"consumer"}))
	s.do("admin", s.list(5, nil, []string{"nonsense"}))
	s.do("admin", s.dropOffsets(s.group, 1, 9))
	s.do("m", s.fetch(9, s.group))
	s.do("admin", s.remove(2, s.group, s.group+"-3", s.group, s.group+"-2"))
	s.do("admin", s.list(5, nil, nil))
}

// scenarioTwoMembers has two members join a group, consume, and leave it.
func scenarioTwoMembers(s *side) {
	for _, who := range []string{"a", "b"} {
		s.do(who, s.join(9, "")) // gives an id
	}
	a, b := s.join(9, s.ids["a"]), s.join(5, s.ids["b"])
	s.start("a", a)
	s.awaitState("PreparingRebalance", 1)
	s.do("admin", s.describe(6, s.group))
	s.start("b", b)
	s.end("a", a)
	s.end("b", b)
	s.do("admin", s.describe(5, s.group))
	s.do("b", s.commit(9, s.ids["b"], 1))
	s.do("b", s.beat(4, s.ids["b"], 1, nil))
	s.do("b", s.join(9, s.ids["b"])) // it missed the answer
	s.do("a", s.join(9, s.ids["a"]))
	syncB := s.sync(5, "b")
	s.start("b", syncB)
	s.do("a", s.sync(5, "a", "a", "b"))
	s.end("b", syncB)
	s.do("admin", s.describe(6, s.group))
	s.do("admin", s.list(5, []string{"stable"}, nil))
	s.do("b", s.sync(3, "b"))
	s.do("b", s.join(9, s.ids["b"]))
	for _, gen := range []int32{-1, 0, 1, 2} {
		s.do("a", s.beat(4, s.ids["a"], gen, nil))
		s.do("a", s.beat(4, "x", gen, nil))
		s.do("a", s.beat(4, s.ids["a"], gen, new(string("i"))))
		s.do("a", s.commit(9, s.ids["a"], gen))
		s.do("a", s.commit(9, "x", gen))
		s.do("a", s.commit(9, "", gen))
	}
	s.do("admin", s.dropOffsets(s.group, 0))
	s.do("admin", s.remove(2, s.group))
	s.do("a", s.fetch(9, s.group))

	again := s.join(9, s.ids["a"]) // the leader wants another assignment
	s.start("a", again)
	s.awaitState("PreparingRebalance", 2)
	s.do("admin", s.describe(6, s.group))
	s.do("b", s.beat(4, s.ids["b"], 1, nil))
	s.do("b", s.commit(9, s.ids["b"], 1))
	s.do("b", s.sync(5, "b"))
	s.do("b", s.join(9, s.ids["b"]))
	s.end("a", again)
	s.do("a", s.sync(5, "a", "a", "b"))
	s.do("b", s.sync(5, "b"))
	s.do("a", s.leave(5, s.ids["a"], "x"))
	s.do("b", s.join(9, s.ids["b"]))
	s.do("b", s.sync(5, "b", "b"))
	s.do("b", s.leave(1, s.ids["b"]))
	s.do("b", s.join(9, s.ids["b"]))
	s.do("admin", s.describe(6, s.group))
	s.do("admin", s.list(5, nil, nil))
	s.do("a", s.commit(9, "", -1))
	s.do("admin", s.dropOffsets(s.group, 0))
	s.do("a", s.fetch(9, s.group))
	s.do("admin", s.remove(2, s.group))
}

// scenarioStatic is about members with instance ids.
func scenarioStatic(s *side) {
	static := func(instance string, change ...func(*kmsg.JoinGroupRequest)) func(*kmsg.JoinGroupRequest) {
		return func(r *kmsg.JoinGroupRequest) {
			r.InstanceID = &instance
			for _, f := range change {
				f(r)
			}
		}
	}
	a, b := s.join(9, "", static("i1")), s.join(9, "", static("i2"))
	s.start("a", a)
	s.awaitState("PreparingRebalance", 1)
	s.do("admin", s.describe(6, s.group))
	s.start("b", b)
	s.end("a", a)
	s.end("b", b)
	syncB := s.sync(5, "b")
	s.start("b", syncB)
	s.do("a", s.sync(5, "a", "a", "b"))
	s.end("b", syncB)
	old := s.ids["b"]
	for v := int16(5); v <= 9; v++ { // restarts of a follower and of a leader
		s.do("b", s.join(v, "", static("i2")))
		s.do("a", s.join(v, "", static("i1")))
		s.do("b", s.sync(5, "b"))
	}
	s.do("b", s.beat(4, old, 1, new(string("i2"))))
	s.do("b", s.beat(4, old, 1, nil))
	s.do("b", s.beat(4, s.ids["b"], 1, new(string("i2"))))
	s.do("b", s.beat(4, s.ids["b"], 1, nil))
	s.do("b", s.beat(4, s.ids["b"], 1, new(string("i3"))))
	s.do("b", s.join(9, old, static("i2")))
	s.do("b", s.commit(9, old, 1, func(r *kmsg.OffsetCommitRequest) { r.InstanceID = new(string("i2")) }))
	s.do("b", s.commit(9, s.ids["b"], 1, func(r *kmsg.OffsetCommitRequest) { r.InstanceID = new(string("i2")) }))
	s.do("admin", s.describe(6, s.group))
	leave := func(id, instance string) {
		req := s.leave(5, id)
		req.Members[0].InstanceID = &instance
		s.do("admin", req)
	}
	leave("", "i3")
	leave(old, "i2")
	leave("", "i2")
	s.do("a", s.beat(4, s.ids["a"], 1, new(string("i1"))))
	s.do("a", s.join(9, s.ids["a"], static("i1")))
	leave("", "i1")
	s.do("admin", s.describe(6, s.group))
	s.do("admin", s.remove(2, s.group))
}

// scenarioRefusals sends requests that are invalid whatever the state of the group.
func scenarioRefusals(s *side) {
	join := func(change func(*kmsg.JoinGroupRequest)) {
		for _, v := range []int16{0, 3, 4, 7, 9} {
			s.do("m", s.join(v, "", change))
		}
	}
	join(func(r *kmsg.JoinGroupRequest) { r.Group = "" })
	join(func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 10 })
	join(func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 1 << 30 })
	join(func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "" })
	join(func(r *kmsg.JoinGroupRequest) { r.Protocols = nil })
	s.do("m", s.join(4, ""))
	m := s.join(9, s.ids["m"])
	s.do("m", m)
	s.do("m", s.sync(5, "m", "m"))
	join(func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "connect" })
	join(func(r *kmsg.JoinGroupRequest) { r.Protocols[0].Name = "sticky" })
	wrong := s.sync(5, "m")
	wrong.Protocol = new(string("sticky"))
	s.do("m", wrong)
	wrong = s.sync(5, "m")
	wrong.ProtocolType = nil
	s.do("m", wrong)
	wrong = s.sync(4, "m")
	wrong.Group = ""
	s.do("m", wrong)
	beat := s.beat(4, "m", 1, nil)
	beat.Group = ""
	s.do("m", beat)
	leave := s.leave(5, "m")
	leave.Group = ""
	s.do("m", leave)
	s.do("m", s.dropOffsets("", 0))
	s.do("m", s.leave(5, s.ids["m"]))
	s.do("admin", s.remove(2, s.group))
}

// TestPipelinedCommits proves that commits which arrive with one read are answered one by one,
// in order, and that the next request sees the committed offsets.
func TestPipelinedCommits(t *testing.T) {
	g := newGroupRig(t)
	s := &side{
		t: t, addr: g.addr, topic: "t", topicID: g.topic("t", 2), group: "g",
		clients: map[string]*client{}, ids: map[string]string{}, gen: map[string]int32{},
	}
	awaitCoordinator(s)
	const n = 20
	reqs := make([]kmsg.Request, 0, n+2)
	for i := range int64(n) {
		reqs = append(reqs, s.commit(8, "", -1, func(r *kmsg.OffsetCommitRequest) {
			r.Group = fmt.Sprint("g", i%5)
			r.Topics[0].Partitions[0].Offset = i
		}))
	}
	reqs = append(reqs, put("t", 0, acksAll, batch(t, "a record")), s.fetch(8, "g3", 0))
	c := s.client("m")
	c.send(reqs...)
	for _, req := range reqs[:n] {
		r, _ := c.receive(req).(*kmsg.OffsetCommitResponse)
		if code := r.Topics[0].Partitions[0].ErrorCode; code != none {
			t.Errorf("a commit is refused: %d", code)
		}
	}
	produced, _ := c.receive(reqs[n]).(*kmsg.ProduceResponse)
	if code := produced.Topics[0].Partitions[0].ErrorCode; code != none {
		t.Errorf("the record is refused: %d", code)
	}
	fetched, _ := c.receive(reqs[n+1]).(*kmsg.OffsetFetchResponse)
	if off := fetched.Groups[0].Topics[0].Partitions[0].Offset; off != 18 {
		t.Errorf("the last offset of the group is %d", off)
	}
}

// TestOffsetsTopicIsKafkas proves that groups and offsets are written as records
// that a consumer of the offsets topic can read, with the topic's id.
func TestOffsetsTopicIsKafkas(t *testing.T) {
	g := newGroupRig(t)
	s := &side{
		t: t, addr: g.addr, topic: "t", topicID: g.topic("t", 2), group: "g",
		clients: map[string]*client{}, ids: map[string]string{}, gen: map[string]int32{},
	}
	awaitCoordinator(s)
	s.do("m", s.commit(8, "", -1))
	p := g.set.Partition(group.Topic, coord.PartitionOf("g", 50))
	b, err := p.ReadBatches(0, p.HighWatermark(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	batch, _, err := record.Next(b)
	if err != nil {
		t.Fatal(err)
	}
	var r record.Reader
	defer r.Close()
	n := 0
	for r.Reset(batch, 0); r.Next(); n++ {
		var k kmsg.OffsetCommitKey
		var v kmsg.OffsetCommitValue
		if err := k.ReadFrom(r.Record.Key); err != nil {
			t.Fatal(err)
		}
		if err := v.ReadFrom(r.Record.Value); err != nil {
			t.Fatal(err)
		}
		if k.Group != "g" || k.Topic != "t" || k.Partition != int32(n) || v.Offset != 7+int64(n) || v.LeaderEpoch != 3 ||
			v.Metadata != "meta" || v.TopicID != s.topicID {
			t.Errorf("record %d: %+v %+v", n, k, v)
		}
	}
	if n != 2 {
		t.Errorf("%d records", n)
	}
}

// TestOffsetsOfDeletedTopicsAreNotShown proves that an answer with all offsets of a group has
// none of a topic that was deleted and whose name another topic has now. Until its offsets
// are deleted, too, they would have a consumer of the new topic begin in its middle.
func TestOffsetsOfDeletedTopicsAreNotShown(t *testing.T) {
	g := newGroupRig(t)
	old := g.topic("again", 1)
	c := dial(t, g.addr)
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.CoordinatorKey = "g"
	c.send(find)
	c.receive(find)
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Version, commit.Group, commit.Generation = 8, "g", -1
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic = "again"
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Offset = 5
	topic.Partitions = append(topic.Partitions, p)
	commit.Topics = append(commit.Topics, topic)
	c.send(commit)
	if resp, _ := c.receive(commit).(*kmsg.OffsetCommitResponse); resp.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("%+v", resp)
	}
	offsets := func(version int16) (n int) {
		t.Helper()
		fetch := kmsg.NewPtrOffsetFetchRequest()
		fetch.Version, fetch.Group = version, "g"
		all := kmsg.NewOffsetFetchRequestGroup()
		all.Group = "g"
		fetch.Groups = append(fetch.Groups, all)
		c.send(fetch)
		resp, _ := c.receive(fetch).(*kmsg.OffsetFetchResponse)
		if version < 8 {
			return len(resp.Topics)
		}
		return len(resp.Groups[0].Topics)
	}
	for _, version := range []int16{7, 8, 10} {
		if n := offsets(version); n != 1 {
			t.Fatalf("version %d: offsets of %d topics", version, n)
		}
	}
	g.apply(meta.TopicDeleted{ID: old})
	g.topic("again", 1)
	for _, version := range []int16{7, 8, 10} {
		if n := offsets(version); n != 0 {
			t.Errorf("version %d: offsets of %d topics after another has the name", version, n)
		}
	}
}
