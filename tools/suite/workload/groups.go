package workload

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/bench/process"
	"github.com/leatstream/leat/internal/record"
)

// The steps of Groups.
const (
	GroupsJoin    = "join"    // from the first member's request until all are in one generation
	GroupsLeave   = "leave"   // from one member's leaving until the others are
	GroupsCommit  = "commit"  // every group, once in each interval
	GroupsProduce = "produce" // as many small requests on as many connections, for comparison
)

// heartbeatEvery is how soon a member notices that others have come. Clients wait
// for seconds, and the group with them; but the broker is measured.
const heartbeatEvery = time.Millisecond

// GroupsDefaults are the settings of Groups.
func GroupsDefaults() Options {
	o := Defaults()
	o.Members, o.Groups, o.Interval, o.Duration = 100, 1000, 100*time.Millisecond, 5*time.Second
	o.Size, o.Batch, o.InFlight, o.Partitions = 100, 1, 1, 1
	return o
}

// Groups fills a consumer group from empty to stable, and lets many groups commit an
// offset each at a fixed rate, with as many small produce requests beside it for
// comparison. Start the broker with
// group.initial.rebalance.delay.ms=0, or the group waits for that long first.
func Groups(ctx context.Context, o Options) (*Result, error) {
	if o.Members < 1 || o.Groups < 1 || o.Interval <= 0 || o.Duration <= 0 {
		return nil, errors.New("members, groups, interval and duration must be more than 0")
	}
	c, err := client.DialAny(ctx, o.Brokers)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	topic, err := c.FindTopic(ctx, o.Topic)
	if err != nil {
		return nil, err
	}
	leader := topic.Leaders[0]
	r := &Result{Result: bench.Result{Kind: KindGroups, Options: o.Options, Started: time.Now().Truncate(time.Second)}}
	name := fmt.Sprintf("bench-%08x", rand.Uint32())
	addr, err := findCoordinator(ctx, c, name)
	if err != nil {
		return nil, err
	}
	if err := fillGroup(ctx, &o, addr, name, r); err != nil {
		return nil, err
	}
	commits, err := commitBeats(ctx, &o, addr, name)
	if err != nil {
		return nil, err
	}
	produces, err := produceBeats(ctx, &o, leader)
	if err != nil {
		return nil, err
	}
	for _, step := range []struct {
		name, addr string
		beats      []*beat
	}{{GroupsCommit, addr, commits}, {GroupsProduce, leader, produces}} {
		one, err := pulsate(ctx, &o, step.addr, step.beats)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		r.Steps = append(r.Steps, StepOf(step.name, one))
	}
	r.AddSteps()
	return r, nil
}

// findCoordinator asks for the address of a group's coordinator, until there is one that
// serves: Apache Kafka names one before it has loaded its groups.
func findCoordinator(ctx context.Context, c *client.Conn, group string) (addr string, err error) {
	err = retryUntil(ctx, time.Now().Add(client.CallWithin), func() error {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKey, req.CoordinatorKeys = group, []string{group}
		answer, err := c.Call(ctx, req)
		if err != nil {
			return err
		}
		resp, _ := answer.(*kmsg.FindCoordinatorResponse)
		code, host, port := resp.ErrorCode, resp.Host, resp.Port
		if len(resp.Coordinators) == 1 {
			code, host, port = resp.Coordinators[0].ErrorCode, resp.Coordinators[0].Host, resp.Coordinators[0].Port
		}
		if err := kerr.ErrorForCode(code); err != nil {
			return err
		}
		addr = net.JoinHostPort(host, fmt.Sprint(port))
		return checkServing(ctx, addr, group)
	})
	if err != nil {
		return "", fmt.Errorf("the coordinator of group %s: %w", group, err)
	}
	return addr, nil
}

// checkServing asks a coordinator about a member that does not exist: one that serves
// answers that it knows none.
func checkServing(ctx context.Context, addr, group string) error {
	c, err := client.Dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	m := &member{c: c, group: group, id: "nobody"}
	if err := m.heartbeat(ctx); !errors.Is(err, kerr.UnknownMemberID) && !errors.Is(err, kerr.GroupIDNotFound) {
		return err
	}
	return nil
}

// fillGroup lets all members join at once, and then one of them leave.
func fillGroup(ctx context.Context, o *Options, addr, name string, r *Result) error {
	g := &gathering{members: make([]*member, 0, o.Members)}
	defer func() {
		for _, m := range g.members {
			m.c.Close()
		}
	}()
	for len(g.members) < o.Members {
		c, err := client.Dial(ctx, addr)
		if err != nil {
			return fmt.Errorf("after %d connections: %w", len(g.members), err)
		}
		g.members = append(g.members, &member{c: c, g: g, group: name, topic: o.Topic})
	}
	process.ResetPeak(o.PIDs)
	s, err := MeasureStep(GroupsJoin, o.PIDs, func(s *Step) error { return g.stabilize(ctx, s) })
	if err != nil {
		return err
	}
	r.Steps = append(r.Steps, s)
	if o.Members == 1 {
		return nil
	}
	s, err = MeasureStep(GroupsLeave, o.PIDs, func(s *Step) error {
		leaver := g.members[0]
		defer leaver.c.Close()
		g.members = g.members[1:]
		if err := leaver.leave(ctx); err != nil {
			return err
		}
		return g.stabilize(ctx, s)
	})
	r.Steps = append(r.Steps, s)
	return err
}

// gathering is the members of one group.
type gathering struct {
	members  []*member
	complete atomic.Int32 // the generation that has just these members, as its leader saw it
}

// stabilize returns when all members are in one generation, and no others are.
func (g *gathering) stabilize(ctx context.Context, s *Step) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, m := range g.members {
		wg.Go(func() {
			if err := m.joinUntilStable(ctx); err != nil {
				cancel(err) // the first one counts; it ends the others
			}
		})
	}
	wg.Wait()
	for _, m := range g.members {
		s.Requests += m.requests
		m.requests = 0
	}
	return context.Cause(ctx)
}

// member is a member of a group, as a consumer is one.
type member struct {
	c            *client.Conn
	g            *gathering
	group, topic string
	id           string
	generation   int32 // 0: none
	requests     int64
}

const groupProtocol = "range"

// joinUntilStable joins as often as it takes.
func (m *member) joinUntilStable(ctx context.Context) error {
	joined := m.generation > 0
	for {
		if joined && m.g.complete.Load() == m.generation {
			return nil
		}
		var err error
		if joined {
			err = m.heartbeat(ctx)
		} else if err = m.join(ctx); err == nil {
			joined = true
			continue
		}
		switch {
		case errors.Is(err, kerr.RebalanceInProgress):
			joined = false
		case err != nil:
			return err
		default:
			time.Sleep(heartbeatEvery)
		}
	}
}

func (m *member) call(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	m.requests++
	return m.c.Call(ctx, req)
}

// join gets the member into a generation and its assignment, or ends with
// kerr.RebalanceInProgress.
func (m *member) join(ctx context.Context) error {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID, req.ProtocolType = m.group, m.id, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 45_000, 20_000
	meta := kmsg.NewConsumerMemberMetadata()
	meta.Topics = []string{m.topic}
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name, protocol.Metadata = groupProtocol, meta.AppendTo(nil)
	req.Protocols = append(req.Protocols, protocol)
	answer, err := m.call(ctx, req)
	if err != nil {
		return err
	}
	joined, _ := answer.(*kmsg.JoinGroupResponse)
	err = kerr.ErrorForCode(joined.ErrorCode)
	if m.id == "" && errors.Is(err, kerr.MemberIDRequired) {
		m.id = joined.MemberID
		return m.join(ctx)
	}
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	m.id, m.generation = joined.MemberID, joined.Generation
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.MemberID, sync.Generation = m.group, m.id, m.generation
	sync.ProtocolType, sync.Protocol = &req.ProtocolType, &protocol.Name
	for _, other := range joined.Members { // only the leader sees them
		assigned := kmsg.NewConsumerMemberAssignment()
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberID, a.MemberAssignment = other.MemberID, assigned.AppendTo(nil)
		sync.GroupAssignment = append(sync.GroupAssignment, a)
	}
	if len(joined.Members) == len(m.g.members) {
		// Before the others have their assignments, which this request brings them.
		m.g.complete.Store(m.generation)
	}
	if answer, err = m.call(ctx, sync); err != nil {
		return err
	}
	synced, _ := answer.(*kmsg.SyncGroupResponse)
	if err := kerr.ErrorForCode(synced.ErrorCode); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

func (m *member) heartbeat(ctx context.Context) error {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = m.group, m.id, m.generation
	answer, err := m.call(ctx, req)
	if err != nil {
		return err
	}
	resp, _ := answer.(*kmsg.HeartbeatResponse)
	return kerr.ErrorForCode(resp.ErrorCode)
}

func (m *member) leave(ctx context.Context) error {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = m.group, m.id
	one := kmsg.NewLeaveGroupRequestMember()
	one.MemberID = m.id
	req.Members = append(req.Members, one)
	answer, err := m.call(ctx, req)
	if err != nil {
		return err
	}
	resp, _ := answer.(*kmsg.LeaveGroupResponse)
	m.g.complete.Store(0)
	return kerr.ErrorForCode(resp.ErrorCode)
}

// The versions of a timed commit, those whose answer has its error at a fixed place.
const commitLow, commitHigh = 2, 7

// commitBeats are commits of an offset, each of a group of its own. Each group has
// committed once before.
func commitBeats(ctx context.Context, o *Options, addr, name string) ([]*beat, error) {
	c, err := client.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	version, err := c.PickVersion(kmsg.OffsetCommit.Int16(), commitLow, commitHigh)
	if err != nil {
		return nil, err
	}
	at := 4 + 4 + 2 + len(o.Topic) + 4 + 4 // of the error, in the answer
	if version >= 3 {
		at += 4
	}
	var all []*beat
	for i := range o.Groups {
		req := kmsg.NewPtrOffsetCommitRequest()
		req.SetVersion(version)
		req.Group, req.Generation = fmt.Sprintf("%s-%d", name, i), -1
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic = o.Topic
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset = int32(i%o.Partitions), 1
		t.Partitions = append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
		b := &beat{request: client.Encode(req), check: func(answer []byte) error {
			if len(answer) < at+2 {
				return bench.ErrShort
			}
			return kerr.ErrorForCode(int16(binary.BigEndian.Uint16(answer[at:])))
		}}
		err := retryUntil(ctx, time.Now().Add(client.CallWithin), func() error {
			answer, err := c.Exchange(ctx, b.request, req)
			if err != nil {
				return err
			}
			if resp, _ := answer.(*kmsg.OffsetCommitResponse); len(resp.Topics) == 1 && len(resp.Topics[0].Partitions) == 1 {
				return kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("commit of group %s: %w", req.Group, err)
		}
		all = append(all, b)
	}
	return all, nil
}

// produceBeats are as many requests with one record.
func produceBeats(ctx context.Context, o *Options, leader string) ([]*beat, error) {
	c, err := client.Dial(ctx, leader)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	version, err := c.PickVersion(kmsg.Produce.Int16(), bench.ProduceLow, bench.ProduceHigh)
	if err != nil {
		return nil, err
	}
	var all []*beat
	for i := range o.Groups {
		batch, err := bench.MakeBatch(record.None, 1, o.Size, time.Now().UnixMilli(), uint64(i))
		if err != nil {
			return nil, err
		}
		all = append(all, &beat{
			request: bench.EncodeProduce(version, acksAll, o.Topic, []int32{int32(i % o.Partitions)}, []record.Batch{batch}),
			check:   func(answer []byte) error { return bench.ProduceError(version, answer) },
		})
	}
	return all, nil
}
