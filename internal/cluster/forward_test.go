package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/broker"
	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/wire"
)

// server is a member that serves clients.
type server struct {
	*member

	mu     sync.Mutex
	levels map[string]slog.Level // of its loggers; guarded by mu
}

// addBroker gives a member a broker with all that is below it.
func (s *server) addBroker(ctx context.Context, m *member) {
	s.member, s.levels = m, map[string]slog.Level{"root": slog.LevelInfo}
	static, err := config.NewStatic(m.id, nil)
	if err != nil {
		m.w.t.Fatal(err)
	}
	m.work = budget.New(budget.Config{Bytes: budget.MinBytes, Processors: 1})
	store, err := storage.Open(storage.Config{FS: m.disk, Dir: "data", Logger: m.w.log, Scrub: -1, Reserve: 1 << 16, Journal: 1 << 20, Work: m.work})
	if err != nil {
		m.w.t.Fatal(err)
	}
	set := replica.NewSet(replica.Config{NodeID: m.id, Store: store, Static: static, Logger: m.w.log})
	b, err := broker.New(broker.Config{
		NodeID: m.id, Logger: m.w.log.With("node", m.id), Image: m.meta.image.Load, Set: set, Work: m.work,
		Context: func() context.Context { return ctx },
		ProducerIDs: func(ctx context.Context) (first, count int64, err error) {
			first, err = m.ctl.AllocateProducerIDs(ctx, 10)
			return first, 10, err
		},
		Controller: m.local, Cluster: m.ctl, Static: static, Quorum: m.quorum.Status,
		LogLevels: func() map[string]slog.Level {
			s.mu.Lock()
			defer s.mu.Unlock()
			return map[string]slog.Level{"root": s.levels["root"]}
		},
		SetLogLevel: func(name string, l *slog.Level) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.levels[name] = *l
		},
	})
	if err != nil {
		m.w.t.Fatal(err)
	}
	m.clients, m.serveClient = b, b.ServeForwarded
	m.meta.setFollow(set.Apply)
	m.closers = append(m.closers, func() {
		m.meta.setFollow(func(*meta.Delta, *meta.Image) {})
		b.Close()
		set.Close()
		if err := store.Close(); err != nil {
			m.w.t.Error(err)
		}
		for c := budget.Peer; c <= budget.Unsent; c++ {
			// Who answers a command gives its memory back after the answer.
			isFree := func() bool { u := m.work.Usage(c); return u.Used == 0 && u.Waiting == 0 }
			for deadline := time.Now().Add(5 * time.Second); !isFree() && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			if !isFree() {
				m.w.t.Errorf("work memory of %s at the end of node %d: %+v", c, m.id, m.work.Usage(c))
			}
		}
	})
}

// startServers starts nodes that serve clients, of which the first ones are the voters.
func (w *world) startServers(count, voters int) (all []*server) {
	byID := map[int32]*server{}
	for _, m := range w.startMembers(count, voters, func(m *member, ctx context.Context) []peer.Handler {
		byID[m.id] = new(server)
		byID[m.id].addBroker(ctx, m)
		return nil
	}) {
		all = append(all, byID[m.id])
	}
	return all
}

// apart returns the server that leads, and the others.
func apart(tb testing.TB, all []*server) (lead *server, rest []*server) {
	tb.Helper()
	var members []*member
	for _, s := range all {
		members = append(members, s.member)
	}
	first := leading(tb, members)
	for _, s := range all {
		if s.member == first {
			lead = s
		} else {
			rest = append(rest, s)
		}
	}
	return lead, rest
}

// client is a client's connection to a node.
type client struct {
	tb   testing.TB
	conn net.Conn
}

func (s *server) dial() *client {
	s.w.t.Helper()
	c, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		s.w.t.Fatal(err)
	}
	s.w.t.Cleanup(func() { c.Close() })
	return &client{s.w.t, c}
}

// tryAsk sends a request and returns its answer.
func (c *client) tryAsk(req kmsg.Request) (kmsg.Response, error) {
	c.conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.conn.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, 7)); err != nil {
		return nil, err
	}
	var head [8]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:])-4)
	if _, err := io.ReadFull(c.conn, b); err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if resp.IsFlexible() {
		b = b[1:]
	}
	return resp, resp.ReadFrom(b)
}

// ask is tryAsk on a connection on which nothing fails.
func ask[R kmsg.Response](c *client, req kmsg.Request) R {
	c.tb.Helper()
	resp, err := c.tryAsk(req)
	if err != nil {
		c.tb.Fatalf("%s: %v", kmsg.NameForKey(req.Key()), err)
	}
	r, ok := resp.(R)
	if !ok {
		c.tb.Fatalf("the answer is a %T", resp)
	}
	return r
}

func newTopics(version int16, millis int32, names ...string) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis = version, millis
	for _, name := range names {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = name, 2, 1
		req.Topics = append(req.Topics, t)
	}
	return req
}

func metadataOf(names ...string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.Version, req.Topics = 12, []kmsg.MetadataRequestTopic{}
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &name
		req.Topics = append(req.Topics, t)
	}
	return req
}

// TestAnyNodeServesEveryRequest proves that each request which only the active controller decides can be
// sent to any node: that it is carried out, that the answer is the active controller's, and that the
// asked node shows the change when it has answered.
func TestAnyNodeServesEveryRequest(t *testing.T) {
	all := newWorld(t).startServers(3, 1)
	lead, rest := apart(t, all)
	for _, s := range rest {
		c := s.dial()
		name := fmt.Sprintf("topic-%d", s.id)
		for v := int16(2); v <= 7; v++ {
			name := fmt.Sprintf("%s-v%d", name, v)
			made := ask[*kmsg.CreateTopicsResponse](c, newTopics(v, 30_000, name)).Topics[0]
			if made.ErrorCode != 0 || v >= 5 && (made.NumPartitions != 2 || len(made.Configs) < 20) || v == 7 && made.TopicID == [16]byte{} {
				t.Fatalf("v%d: %+v", v, made)
			}
			shown := ask[*kmsg.MetadataResponse](c, metadataOf(name))
			if rt := shown.Topics[0]; rt.ErrorCode != 0 || len(rt.Partitions) != 2 || shown.ControllerID != lead.id {
				t.Fatalf("the node that was asked for a topic shows %+v, controller %d", rt, shown.ControllerID)
			}
		}
		topic := name + "-v7"
		more := kmsg.NewPtrCreatePartitionsRequest()
		more.Version, more.TimeoutMillis = 3, 30_000
		more.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: topic, Count: 5}, {Topic: topic + "x", Count: 5}}
		if got := ask[*kmsg.CreatePartitionsResponse](c, more).Topics; len(got) != 2 || got[0].ErrorCode != 0 || got[1].ErrorCode != 3 {
			t.Errorf("%+v", got)
		}
		if n := len(s.meta.image.Load().Topic(topic).Partitions); n != 5 {
			t.Errorf("%d partitions are shown", n)
		}
		s.electAndMove(c, topic)
		created := kmsg.NewPtrMetadataRequest()
		created.Version, created.AllowAutoTopicCreation = 12, true
		auto := name + "-auto"
		created.Topics = []kmsg.MetadataRequestTopic{{Topic: &auto}}
		if rt := ask[*kmsg.MetadataResponse](c, created).Topics[0]; rt.ErrorCode != 0 || len(rt.Partitions) != 1 {
			t.Errorf("made by a request for metadata: %+v", rt)
		}
		ids := kmsg.NewPtrInitProducerIDRequest()
		ids.Version, ids.ProducerID, ids.ProducerEpoch = 4, -1, -1
		if got := ask[*kmsg.InitProducerIDResponse](c, ids); got.ErrorCode != 0 {
			t.Errorf("%+v", got)
		}
		gone := kmsg.NewPtrDeleteTopicsRequest()
		gone.Version, gone.TimeoutMillis = 6, 30_000
		gone.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: s.meta.image.Load().Topic(topic).ID}, {Topic: &auto}}
		for _, rt := range ask[*kmsg.DeleteTopicsResponse](c, gone).Topics {
			if rt.ErrorCode != 0 || s.meta.image.Load().Topic(*rt.Topic) != nil {
				t.Errorf("%+v", rt)
			}
		}
	}
}

// electAndMove sends requests about leaders, replicas and nodes to a node that is not the active controller.
func (s *server) electAndMove(c *client, topic string) {
	t := c.tb
	for _, topics := range [][]kmsg.ElectLeadersRequestTopic{{{Topic: topic, Partitions: []int32{0, 9}}}, nil} {
		elect := kmsg.NewPtrElectLeadersRequest()
		elect.Version, elect.TimeoutMillis, elect.Topics = 2, 30_000, topics
		got := ask[*kmsg.ElectLeadersResponse](c, elect)
		if got.ErrorCode != 0 || topics == nil && len(got.Topics) < 6 || topics != nil && (got.Topics[0].Partitions[0].ErrorCode != 84 || got.Topics[0].Partitions[1].ErrorCode != 3) {
			t.Errorf("elections in %v: %+v", topics, got)
		}
	}
	move := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	move.Version, move.TimeoutMillis = 1, 30_000
	move.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{{Topic: topic, Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Partition: 0, Replicas: []int32{9}}}}}
	if got := ask[*kmsg.AlterPartitionAssignmentsResponse](c, move); got.Topics[0].Partitions[0].ErrorCode != 39 {
		t.Errorf("%+v", got)
	}
	level := kmsg.NewPtrUpdateFeaturesRequest()
	level.Version, level.TimeoutMillis = 2, 30_000
	level.FeatureUpdates = []kmsg.UpdateFeaturesRequestFeatureUpdate{{Feature: meta.LevelFeature, MaxVersionLevel: meta.LatestLevel + 1, UpgradeType: 1}}
	if got := ask[*kmsg.UpdateFeaturesResponse](c, level); got.ErrorCode != 95 || !strings.Contains(*got.ErrorMessage, "only supports") {
		t.Errorf("%+v", got)
	}
	if got := ask[*kmsg.UnregisterBrokerResponse](c, &kmsg.UnregisterBrokerRequest{BrokerID: s.id}); got.ErrorCode != 44 {
		t.Errorf("%+v", got)
	}
	if got := ask[*kmsg.AddRaftVoterResponse](c, kmsg.NewPtrAddRaftVoterRequest()); got.ErrorCode != 35 || *got.ErrorMessage == "" {
		t.Errorf("%+v", got)
	}
}

// TestAnyNodeDescribesTheQuorum proves that each node, voter or not, shows who leads the metadata quorum and
// how far each node is, as the leader knows it.
func TestAnyNodeDescribesTheQuorum(t *testing.T) {
	all := newWorld(t).startServers(4, 3)
	lead, _ := apart(t, all)
	req := kmsg.NewPtrDescribeQuorumRequest()
	req.Version = 2
	req.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: "__cluster_metadata", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
	for _, s := range all {
		c := s.dial()
		eventually(t, "all nodes are known to have all of the metadata", func() bool {
			for _, m := range all {
				if _, refused, err := m.beat(t.Context()); refused != nil || err != nil {
					t.Fatal(refused, err)
				}
			}
			p := ask[*kmsg.DescribeQuorumResponse](c, req).Topics[0].Partitions[0]
			if p.LeaderID != lead.id || len(p.CurrentVoters) != 3 || len(p.Observers) != 1 || p.Observers[0].ReplicaID != 4 {
				t.Fatalf("node %d: %+v", s.id, p)
			}
			for _, v := range append(p.CurrentVoters, p.Observers...) {
				if v.LogEndOffset != p.HighWatermark || v.LastCaughtUpTimestamp < 0 || v.LastFetchTimestamp < 0 {
					return false
				}
			}
			return true
		})
	}
}

// TestConfigsAreJudgedWhereTheyBelong proves that a request for configs is divided: the node that is asked
// changes the levels of its own loggers, and refuses what is another node's; the active controller decides
// of the rest; and the answer has all of it in the order of the request.
func TestConfigsAreJudgedWhereTheyBelong(t *testing.T) {
	all := newWorld(t).startServers(2, 1)
	lead, rest := apart(t, all)
	s := rest[0]
	c := s.dial()
	ask[*kmsg.CreateTopicsResponse](c, newTopics(7, 30_000, "t"))
	resource := func(kind kmsg.ConfigResourceType, name, key, value string) kmsg.IncrementalAlterConfigsRequestResource {
		return kmsg.IncrementalAlterConfigsRequestResource{
			ResourceType: kind, ResourceName: name, Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: key, Value: &value}},
		}
	}
	own, other := fmt.Sprint(s.id), fmt.Sprint(lead.id)
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Version = 1
	req.Resources = []kmsg.IncrementalAlterConfigsRequestResource{
		resource(kmsg.ConfigResourceTypeBrokerLogger, own, "root", "ERROR"),
		resource(kmsg.ConfigResourceTypeTopic, "t", "retention.ms", "1234"),
		resource(kmsg.ConfigResourceTypeBroker, other, "log.retention.ms", "5"),
		resource(kmsg.ConfigResourceTypeTopic, "t2", "retention.ms", "1234"),
		resource(kmsg.ConfigResourceTypeBroker, own, "log.cleaner.threads", "2"),
		resource(kmsg.ConfigResourceTypeBrokerLogger, other, "root", "ERROR"),
	}
	var codes []int16
	for i, rr := range ask[*kmsg.IncrementalAlterConfigsResponse](c, req).Resources {
		codes = append(codes, rr.ErrorCode)
		if rr.ResourceName != req.Resources[i].ResourceName || rr.ResourceType != req.Resources[i].ResourceType {
			t.Errorf("answer %d is for %s", i, rr.ResourceName)
		}
	}
	if diff := cmp.Diff([]int16{0, 0, 42, 3, 0, 42}, codes); diff != "" {
		t.Error(diff)
	}
	if s.levels["root"] != slog.LevelError || lead.levels["root"] != slog.LevelInfo {
		t.Errorf("levels %v and %v", s.levels, lead.levels)
	}
	if m := s.meta.image.Load(); m.Overrides(config.Resource{Type: config.Topic, Name: "t"})["retention.ms"] != "1234" || len(m.Overrides(config.Resource{Type: config.Broker, Name: own})) != 1 {
		t.Error("the asked node does not show the change")
	}
	req.Resources = req.Resources[:1]
	*req.Resources[0].Configs[0].Value = "INFO"
	if rr := ask[*kmsg.IncrementalAlterConfigsResponse](c, req).Resources[0]; rr.ErrorCode != 0 || s.levels["root"] != slog.LevelInfo {
		t.Errorf("loggers only: %+v", rr)
	}
	old := kmsg.NewPtrAlterConfigsRequest()
	old.Version = 2
	value := "99"
	old.Resources = []kmsg.AlterConfigsRequestResource{
		{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: other},
		{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "t", Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: "segment.ms", Value: &value}}},
	}
	got := ask[*kmsg.AlterConfigsResponse](c, old).Resources
	if got[0].ErrorCode != 42 || got[1].ErrorCode != 0 || len(s.meta.image.Load().Overrides(config.Resource{Type: config.Topic, Name: "t"})) != 1 {
		t.Errorf("%+v", got)
	}
}

// TestAnswersAreTheSame proves that the answer to a request is the same whatever node is asked, to the byte,
// also for long ones.
func TestAnswersAreTheSame(t *testing.T) {
	all := newWorld(t).startServers(2, 1)
	lead, rest := apart(t, all)
	var names []string
	for i := range 200 {
		names = append(names, fmt.Sprint("topic-", i))
	}
	many, twice := newTopics(7, 30_000, names...), newTopics(4, 30_000, "a", "b", "a", "__cluster_metadata", "no name")
	for _, req := range []*kmsg.CreateTopicsRequest{many, twice} {
		req.ValidateOnly = true
		var bodies [][]byte
		for _, s := range []*server{lead, rest[0]} {
			resp := ask[*kmsg.CreateTopicsResponse](s.dial(), req)
			for i := range resp.Topics {
				resp.Topics[i].TopicID = [16]byte{} // drawn for each
			}
			bodies = append(bodies, resp.AppendTo(nil))
		}
		if !bytes.Equal(bodies[0], bodies[1]) {
			t.Errorf("%d and %d bytes", len(bodies[0]), len(bodies[1]))
		}
	}
	if n := lead.meta.image.Load().NumTopics(); n != 0 {
		t.Errorf("%d topics were made", n)
	}
}

// TestRequestsSurviveTheController proves that clients of the other nodes make topics while the active
// controller is killed: each is told of success, or that the topic is there, and finds it.
func TestRequestsSurviveTheController(t *testing.T) {
	all := newWorld(t).startServers(4, 3)
	lead, rest := apart(t, all)
	const rounds = 30
	halfway := make(chan struct{}, len(rest))
	var working sync.WaitGroup
	for _, s := range rest {
		c := s.dial()
		working.Go(func() {
			for i := range rounds {
				if i == rounds/2 {
					halfway <- struct{}{}
				}
				name := fmt.Sprintf("topic-%d-%d", s.id, i)
				resp, err := c.tryAsk(newTopics(7, 60_000, name))
				made, _ := resp.(*kmsg.CreateTopicsResponse)
				if err != nil || made.Topics[0].ErrorCode != 0 && made.Topics[0].ErrorCode != 36 {
					t.Errorf("%+v, %v", made, err)
					return
				}
				if s.meta.image.Load().Topic(name) == nil {
					t.Errorf("node %d does not show %s", s.id, name)
				}
			}
		})
	}
	for range rest {
		<-halfway
	}
	lead.kill()
	working.Wait()
}

// TestNoControllerIsNoHang proves that a request is answered with REQUEST_TIMED_OUT within its time if
// there is no active controller, and one without a time at once.
func TestNoControllerIsNoHang(t *testing.T) {
	all := newWorld(t).startServers(3, 3)
	lead, rest := apart(t, all)
	lead.kill()
	rest[0].kill()
	c := rest[1].dial()
	for _, millis := range []int32{300, 0, -1} {
		if got := ask[*kmsg.CreateTopicsResponse](c, newTopics(7, millis, "t")).Topics; len(got) != 1 || got[0].ErrorCode != 7 {
			t.Errorf("%d ms: %+v", millis, got)
		}
	}
	gone := kmsg.NewPtrDeleteTopicsRequest()
	gone.Version, gone.TimeoutMillis, gone.TopicNames = 5, 300, []string{"t"}
	if got := ask[*kmsg.DeleteTopicsResponse](c, gone).Topics; len(got) != 1 || got[0].ErrorCode != 3 {
		t.Errorf("%+v", got)
	}
	elect := kmsg.NewPtrElectLeadersRequest()
	elect.Version, elect.TimeoutMillis = 2, 300
	if got := ask[*kmsg.ElectLeadersResponse](c, elect); got.ErrorCode != 7 {
		t.Errorf("%+v", got)
	}
}

// TestSilentControllerIsNoHang proves that a request is answered within its time if the active
// controller takes longer, and that the active controller stops working on it then.
func TestSilentControllerIsNoHang(t *testing.T) {
	all := newWorld(t).startServers(2, 1)
	lead, rest := apart(t, all)
	ended := make(chan error, 1)
	lead.serveClient = func(ctx context.Context, _ *wire.Carried, _ *wire.Request) error {
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	if got := ask[*kmsg.CreateTopicsResponse](rest[0].dial(), newTopics(7, 200, "t")).Topics; got[0].ErrorCode != 7 {
		t.Errorf("%+v", got)
	}
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestOneRequestEndsAlone proves that a request of a client which the active controller cannot serve, or on
// which it panics, ends no other one: the connection between the nodes stays, and the client's ends as it
// does where the active controller is asked.
func TestOneRequestEndsAlone(t *testing.T) {
	all := newWorld(t).startServers(2, 1)
	lead, rest := apart(t, all)
	served := lead.serveClient
	lead.serveClient = func(ctx context.Context, q *wire.Carried, r *wire.Request) error {
		if bytes.Contains(q.Body, []byte("panic")) {
			panic("on purpose")
		}
		if bytes.Contains(q.Body, []byte("wrong")) {
			return wire.ErrMalformed
		}
		if bytes.Contains(q.Body, []byte("large")) {
			p := r.Begin()
			p.B = append(p.B, make([]byte, q.Most+1)...)
			r.Send(p)
			return nil
		}
		return served(ctx, q, r)
	}
	before, err := rest[0].links.Get(t.Context(), lead.id, peer.Clients)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"panic", "wrong", "large"} {
		if resp, err := rest[0].dial().tryAsk(newTopics(7, 30_000, name)); err == nil {
			t.Errorf("%s: %+v", name, resp)
		}
	}
	if got := ask[*kmsg.CreateTopicsResponse](rest[0].dial(), newTopics(7, 30_000, "t")).Topics[0]; got.ErrorCode != 0 {
		t.Errorf("%+v", got)
	}
	if after, err := rest[0].links.Get(t.Context(), lead.id, peer.Clients); err != nil || after != before {
		t.Error("there is another connection between the nodes:", err)
	}
}

// TestLargeRequestsAreRefused proves that a request whose answer might not fit into the memory of the node
// that is asked is refused before anything is done, with a sentence.
func TestLargeRequestsAreRefused(t *testing.T) {
	all := newWorld(t).startServers(2, 1)
	_, rest := apart(t, all)
	var names []string
	for i := range 3000 {
		names = append(names, fmt.Sprint("topic-", i))
	}
	got := ask[*kmsg.CreateTopicsResponse](rest[0].dial(), newTopics(7, 30_000, names...)).Topics
	if len(got) != len(names) || got[7].ErrorCode != 44 || !strings.Contains(*got[7].ErrorMessage, "ask for less") {
		t.Errorf("%d answers, %+v", len(got), got[0])
	}
	if n := rest[0].meta.image.Load().NumTopics(); n != 0 {
		t.Errorf("%d topics were made", n)
	}
}

// TestManyForwards proves that more requests of clients than the active controller serves at a time keep
// no node's own command from it, and are all served in the end.
func TestManyForwards(t *testing.T) {
	all := newWorld(t).startServers(2, 1)
	lead, rest := apart(t, all)
	release := make(chan struct{})
	arrived := make(chan struct{}, 2*maxForwards)
	served := lead.serveClient
	lead.serveClient = func(ctx context.Context, q *wire.Carried, r *wire.Request) error {
		arrived <- struct{}{}
		<-release
		return served(ctx, q, r)
	}
	var clients sync.WaitGroup
	for i := range maxForwards + 20 {
		c := rest[0].dial()
		clients.Go(func() {
			resp, err := c.tryAsk(newTopics(4, 60_000, fmt.Sprint("topic-", i)))
			if made, ok := resp.(*kmsg.CreateTopicsResponse); err != nil || !ok || made.Topics[0].ErrorCode != 0 {
				t.Errorf("%+v, %v", resp, err)
			}
		})
	}
	for range maxForwards {
		<-arrived
	}
	if _, refused, err := rest[0].beat(t.Context()); refused != nil || err != nil {
		t.Error(refused, err)
	}
	close(release)
	clients.Wait()
}

// FuzzForward proves that any bytes are read as a forwarded request or refused, and that one which was read
// is written again as an equal one.
func FuzzForward(f *testing.F) {
	f.Add(appendForward(&wire.Carried{Key: 19, Version: 7, ClientID: "client", Address: "1.2.3.4:5", Listener: "PLAINTEXT", Most: 9, Body: []byte("body")}, time.Second))
	f.Add([]byte{0, 3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, left, err := readForward(b)
		if err != nil {
			return
		}
		if len(q.Principal) > maxText || len(b) > math.MaxUint16-2 || len(q.ClientID) > maxText || len(q.Address) > maxText || len(q.Listener) > maxText || left == 0 {
			return
		}
		again, leftAgain, err := readForward(appendForward(q, left-time.Millisecond))
		if err != nil || leftAgain != left || !cmp.Equal(q, again) {
			t.Errorf("%+v, %v becomes %+v, %v: %v", q, left, again, leftAgain, err)
		}
	})
}

// TestForwardForm proves that a forwarded request is read as it was written, also by a version that knows
// fewer fields of its head, and that one which is cut short is an error.
func TestForwardForm(t *testing.T) {
	q := &wire.Carried{Key: 19, Version: 7, ClientID: "client", Address: "1.2.3.4:5", Listener: "PLAINTEXT", Principal: "User:alice", Groups: []string{"a", "team b"}, Most: 1 << 20, Body: []byte("body")}
	for _, is := range [][2]bool{{false, false}, {false, true}, {true, true}, {true, false}} {
		q.IsPeer, q.MayHaveToken = is[0], is[1]
		if got, _, err := readForward(appendForward(q, time.Second)); err != nil || !cmp.Equal(q, got) {
			t.Error(got, err)
		}
	}
	b := appendForward(q, 1500*time.Millisecond)
	got, left, err := readForward(b)
	if diff := cmp.Diff(q, got); diff != "" || left != 1501*time.Millisecond || err != nil {
		t.Error(diff, left, err)
	}
	longer := binary.BigEndian.AppendUint16(nil, binary.BigEndian.Uint16(b)+3)
	longer = append(append(append(longer, b[2:len(b)-4]...), "new"...), "body"...)
	if got, _, err := readForward(longer); err != nil || !cmp.Equal(q, got) {
		t.Error(got, err)
	}
	const groups = 2 + 2 + len("a") + 2 + len("team b")
	older := binary.BigEndian.AppendUint16(nil, binary.BigEndian.Uint16(b)-uint16(groups))
	older = append(append(older, b[2:len(b)-4-groups]...), "body"...)
	if got, _, err := readForward(older); err != nil || got.Principal != "User:alice" || !got.IsPeer || got.Groups != nil || string(got.Body) != "body" {
		t.Errorf("from a version without groups: %+v, %v", got, err)
	}
	for n := range len(b) - len(q.Body) {
		if _, _, err := readForward(b[:n]); !errors.Is(err, errRequest) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, _, err := cutForwarded(make([]byte, 7)); !errors.Is(err, errAnswer) {
		t.Error(err)
	}
}
