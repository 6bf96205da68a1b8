package broker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/wire"
)

// reached is a cluster of which another node leads, or none.
type reached struct {
	leader    int32
	forward   func(ctx context.Context, q *wire.Carried, here func(context.Context) error) ([]byte, error)
	mu        sync.Mutex
	ensured   [][]string // guarded by mu
	refused   map[string]*controller.Error
	positions map[int32]controller.Position
}

func (c *reached) Leader() int32 { return c.leader }

func (c *reached) Forward(ctx context.Context, q *wire.Carried, here func(ctx context.Context) error) ([]byte, error) {
	return c.forward(ctx, q, here)
}

func (c *reached) EnsureTopics(_ context.Context, names []string) (map[string]*controller.Error, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ensured = append(c.ensured, slices.Clone(names))
	return c.refused, nil
}

func (c *reached) Positions() map[int32]controller.Position { return c.positions }

// TestLostControllerIsForwarded proves that a request is sent on if this node finds out that it is not the
// active controller any more, and is served here if it has become that meanwhile.
func TestLostControllerIsForwarded(t *testing.T) {
	g := newAdminRig(t, nil)
	leads := false
	asked := 0
	g.broker.cfg.Controller = controller.New(controller.Config{
		Image: g.image.Load, Static: g.broker.cfg.Static, Leading: func() (uint64, bool) { return 1, leads },
		Propose: func(_ context.Context, _ uint64, b []byte) error {
			img, _, err := meta.Apply(g.image.Load(), b)
			g.image.Store(img)
			return err
		},
	})
	g.broker.cfg.Cluster = &reached{leader: 1, forward: func(ctx context.Context, _ *wire.Carried, here func(context.Context) error) ([]byte, error) {
		if asked++; !errors.Is(here(ctx), quorum.ErrNotLeader) {
			t.Error("it was served by a node that does not lead")
		}
		leads = true
		return nil, here(ctx)
	}}
	got := ask[*kmsg.CreateTopicsResponse](dial(t, g.addr), createTopics(7, false, topicOf("t", 1, 1)))
	if got.Topics[0].ErrorCode != 0 || asked != 1 || g.image.Load().Topic("t") == nil {
		t.Errorf("%+v, asked %d times", got, asked)
	}
}

// TestForwardingFails proves which code a client gets if the active controller was not reached, for each
// of the errors that say so, and that its connection ends if its request could not be read.
func TestForwardingFails(t *testing.T) {
	g := newAdminRig(t, nil)
	for _, f := range []struct {
		err  error
		code int16 // -2: the connection ends
	}{
		{context.DeadlineExceeded, 7},
		{quorum.ErrNotLeader, 41},
		{peer.ErrTooLarge, 44},
		{wire.ErrMalformed, -2},
	} {
		g.broker.cfg.Cluster = &reached{leader: 2, forward: func(context.Context, *wire.Carried, func(context.Context) error) ([]byte, error) { return nil, f.err }}
		c := dial(t, g.addr)
		req := createTopics(7, false, topicOf("t", 1, 1))
		c.send(req)
		if f.code == -2 {
			if b, err := c.frame(); err == nil {
				t.Errorf("%v: %x", f.err, b)
			}
			continue
		}
		resp, _ := c.receive(req).(*kmsg.CreateTopicsResponse)
		if resp.Topics[0].ErrorCode != f.code || f.code == 44 && !strings.Contains(*resp.Topics[0].ErrorMessage, "too large") {
			t.Errorf("%v: %+v", f.err, resp)
		}
	}
}

// TestTooManyWait proves that a request which finds as many waiting for the active controller as may wait is
// told at once that its time is over, and that each gives its place back.
func TestTooManyWait(t *testing.T) {
	g := newAdminRig(t, nil)
	var asked atomic.Int64
	g.broker.cfg.Cluster = &reached{leader: 2, forward: func(context.Context, *wire.Carried, func(context.Context) error) ([]byte, error) {
		asked.Add(1)
		return nil, context.DeadlineExceeded
	}}
	c := dial(t, g.addr)
	create := func() int16 {
		return ask[*kmsg.CreateTopicsResponse](c, createTopics(7, false, topicOf("t", 1, 1))).Topics[0].ErrorCode
	}
	// A request gives its place back a moment after its answer.
	isFree := func() bool { return g.broker.forwarding.Load() == mostWaiting-1 }
	g.broker.forwarding.Store(mostWaiting - 1)
	for range 3 {
		if code := create(); code != 7 {
			t.Errorf("code %d", code)
		}
		eventually(t, "the place is free again", isFree)
	}
	g.broker.forwarding.Store(mostWaiting)
	if code := create(); code != 7 || asked.Load() != 3 || g.broker.forwarding.Load() != mostWaiting {
		t.Errorf("code %d, %d requests were sent on, %d wait", code, asked.Load(), g.broker.forwarding.Load())
	}
}

// TestAnswersHaveRoom proves that the memory which is reserved for the answer of another node is enough
// for the longest answers of this one.
func TestAnswersHaveRoom(t *testing.T) {
	g := newAdminRig(t, nil)
	g.topic("there", 3)
	long := strings.Repeat("x", 249)
	var created []kmsg.CreateTopicsRequestTopic
	for _, name := range []string{"a", "there", long, long + "x", "a b", "c", "c"} {
		created = append(created, topicOf(name, 1, 1, "retention.ms", "7", "segment.bytes", "1000000"))
	}
	created = append(created, topicOf("bad", 1, 1, strings.Repeat("k", 300), "v"), topicOf("bad2", 1, 1, "cleanup.policy", strings.Repeat("v", 500)))
	var good []kmsg.CreateTopicsRequestTopic
	for i := range 50 {
		good = append(good, topicOf(strings.Repeat("g", i+1), 1, 1))
	}
	more := morePartitionsOf(3, "there", 2)
	more.Topics = append(more.Topics, morePartitionsOf(3, long, 9).Topics...)
	changed := alter(2, "there", strings.Repeat("k", 300), "v")
	changed.Resources = append(changed.Resources, alter(2, long, "cleanup.policy", strings.Repeat("v", 500)).Resources...)
	elect := at(2, kmsg.NewPtrElectLeadersRequest())
	elect.TimeoutMillis = 10_000
	elect.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: long, Partitions: []int32{0, 1, 2}}, {Topic: "there", Partitions: []int32{0, 9}}}
	everything := at(2, kmsg.NewPtrElectLeadersRequest())
	everything.TimeoutMillis = 10_000
	level := at(1, kmsg.NewPtrUpdateFeaturesRequest())
	level.TimeoutMillis = 10_000
	level.FeatureUpdates = []kmsg.UpdateFeaturesRequestFeatureUpdate{{Feature: long, MaxVersionLevel: 9, UpgradeType: 1}}
	quorumOf := at(2, kmsg.NewPtrDescribeQuorumRequest())
	quorumOf.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: metadataTopic, Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
	c := dial(t, g.addr)
	for _, req := range []kmsg.Request{
		createTopics(7, true, created...), createTopics(7, true, good...), more, changed, elect, everything, level, quorumOf,
		deleteNames(6, long, long, "nowhere"), assignment(1, long, []int32{7}), &kmsg.UnregisterBrokerRequest{BrokerID: 1},
	} {
		room := g.broker.answerMemory(req)
		c.send(req)
		b, err := c.frame()
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(b)) > room {
			t.Errorf("%s: an answer of %d bytes has %d", kmsg.NameForKey(req.Key()), len(b), room)
		}
		t.Logf("%s: %d bytes of %d", kmsg.NameForKey(req.Key()), len(b), room)
	}
}

// TestTopicsThatCannotBeAreRefusedHere proves that a request for the metadata has the active controller make
// the topics that are missing; that a refusal becomes the topic's code; and that a topic which can never be
// made, since its name is invalid or collides, is refused by this node alone.
func TestTopicsThatCannotBeAreRefusedHere(t *testing.T) {
	g := newAdminRig(t, nil)
	conn := dial(t, g.addr)
	if made := ask[*kmsg.CreateTopicsResponse](conn, createTopics(7, false, topicOf("a_b", 1, 1))).Topics[0]; made.ErrorCode != 0 {
		t.Fatalf("%+v", made)
	}
	c := &reached{leader: 2, refused: map[string]*controller.Error{"t7": {Kind: controller.PolicyViolation}}}
	g.broker.cfg.Cluster = c
	req := at(12, kmsg.NewPtrMetadataRequest())
	req.AllowAutoTopicCreation = true
	want := map[string]int16{"a.b": 17, "a_b": 0, "no topic": 17, "t7": 44, "t8": 3}
	for _, name := range []string{"a.b", "a.b", "a_b", "no topic", "t7", "t8"} {
		req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{Topic: &name})
	}
	for _, rt := range ask[*kmsg.MetadataResponse](conn, req).Topics {
		if rt.ErrorCode != want[*rt.Topic] {
			t.Errorf("%s: %d", *rt.Topic, rt.ErrorCode)
		}
	}
	req.Topics = req.Topics[:4]
	ask[*kmsg.MetadataResponse](conn, req)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ensured) != 1 || !slices.Equal(c.ensured[0], []string{"t7", "t8"}) {
		t.Errorf("the active controller is asked for %q", c.ensured)
	}
}

// TestQuorumOfSeveralNodes proves that the leader of the quorum describes its voters and observers by
// their nodes, with what it knows of each; and that another node sends the request on, and tells what it
// knows itself if nobody answers.
func TestQuorumOfSeveralNodes(t *testing.T) {
	g := newAdminRig(t, nil)
	g.apply(meta.LevelSet{Level: meta.LevelCluster})
	for id := int32(2); id <= 4; id++ {
		b := brokerOn(id, "")
		b.RaftID, b.Directory = uint64(10*id), meta.UUID{byte(id)}
		g.apply(b)
	}
	st := quorum.Status{
		Leader: -1, Term: 3, Commit: 100, RaftID: 10, LeaderRaftID: 10, Members: quorum.Members{Voters: []uint64{30, 10, 20}},
		Match: map[uint64]uint64{10: 100, 20: 100, 30: 90},
	}
	c := &reached{leader: 1, positions: map[int32]controller.Position{4: {Applied: 80, Unreached: "nobody can reach it"}, 3: {Applied: 70}}}
	g.broker.cfg.Cluster, g.broker.cfg.Quorum = c, func() quorum.Status { return st }
	req := at(2, kmsg.NewPtrDescribeQuorumRequest())
	req.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: metadataTopic, Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
	conn := dial(t, g.addr)
	note, wanted := "", ""
	check := func(what string, leader int32, ends map[int32]int64) {
		t.Helper()
		resp := ask[*kmsg.DescribeQuorumResponse](conn, req)
		note, wanted = "", ""
		resp.UnknownTags.Each(func(key uint32, value []byte) {
			if key == config.NoteTag {
				note = string(value)
			}
			if key == config.VotersTag {
				wanted = string(value)
			}
		})
		p := resp.Topics[0].Partitions[0]
		if p.LeaderID != leader || p.LeaderEpoch != 3 || p.HighWatermark != 100 || len(p.CurrentVoters) != 3 || len(p.Observers) != 1 || len(resp.Nodes) != 3 || resp.Nodes[1].Listeners[0].Host != "host-2" {
			t.Errorf("%s: %+v", what, resp)
		}
		for _, v := range append(p.CurrentVoters, p.Observers...) {
			if v.LogEndOffset != ends[v.ReplicaID] || (v.LastCaughtUpTimestamp > 0) != (v.LogEndOffset == 100) || v.ReplicaID > 1 && v.ReplicaDirectoryID != [16]byte{byte(v.ReplicaID)} {
				t.Errorf("%s: %+v", what, v)
			}
		}
	}
	check("the leader", 1, map[int32]int64{1: 100, 2: 100, 3: 90, 4: 80})
	if note != "Node 4 stays fenced: nobody can reach it." {
		t.Errorf("the leader's note is %q", note)
	}
	st.Wanted = 3
	if check("with all voters", 1, map[int32]int64{1: 100, 2: 100, 3: 90, 4: 80}); wanted != "" {
		t.Errorf("it tells of %x wanted voters, and has them", wanted)
	}
	st.Wanted = 5
	if check("with few voters", 1, map[int32]int64{1: 100, 2: 100, 3: 90, 4: 80}); wanted != "\x05" {
		t.Errorf("of five wanted voters it has three, and tells %x", wanted)
	}
	st.LeaderRaftID, st.Match, c.leader, c.positions = 20, nil, 2, nil
	forwarded := 0
	c.forward = func(context.Context, *wire.Carried, func(context.Context) error) ([]byte, error) {
		forwarded++
		return nil, context.DeadlineExceeded
	}
	check("another node", 2, map[int32]int64{1: -1, 2: -1, 3: -1, 4: -1})
	if note != "" {
		t.Errorf("another node's note is %q", note)
	}
	if forwarded != 1 {
		t.Errorf("the leader was asked %d times", forwarded)
	}
	if voters := ask[*kmsg.DescribeQuorumResponse](conn, req).Topics[0].Partitions[0].CurrentVoters; voters[0].ReplicaID != 1 || voters[2].ReplicaID != 3 {
		t.Errorf("the voters are %+v", voters)
	}
}
