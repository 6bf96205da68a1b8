package broker

import (
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
)

// largeMember is a member of a group whose metadata make the leader's answer large.
type largeMember struct {
	*client
	id         string
	generation int32
}

func (m *largeMember) join() int16 {
	req := at(5, kmsg.NewPtrJoinGroupRequest())
	req.Group, req.MemberID, req.ProtocolType = "honest", m.id, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 30_000, 30_000
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: make([]byte, 300<<10)}}
	resp := ask[*kmsg.JoinGroupResponse](m.client, req)
	if resp.ErrorCode == kerr.MemberIDRequired.Code {
		m.id = resp.MemberID
		return m.join()
	}
	m.generation = resp.Generation
	return resp.ErrorCode
}

// sync assigns much to the members, or, without any, waits for its own assignment.
func (m *largeMember) sync(members ...*largeMember) int16 {
	req := at(4, kmsg.NewPtrSyncGroupRequest())
	req.Group, req.MemberID, req.Generation = "honest", m.id, m.generation
	for _, of := range members {
		req.GroupAssignment = append(req.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: of.id, MemberAssignment: make([]byte, 300<<10)})
	}
	return ask[*kmsg.SyncGroupResponse](m.client, req).ErrorCode
}

// joinBoth has a group of two members begin a new generation.
func joinBoth(t *testing.T, leader, follower *largeMember) {
	t.Helper()
	joined := make(chan int16, 1)
	go func() { joined <- follower.join() }()
	beat := at(3, kmsg.NewPtrHeartbeatRequest())
	beat.Group, beat.MemberID, beat.Generation = "honest", leader.id, leader.generation
	for ask[*kmsg.HeartbeatResponse](leader.client, beat).ErrorCode != kerr.RebalanceInProgress.Code {
		runtime.Gosched()
	}
	if code := leader.join(); code != none {
		t.Fatalf("the leader's JoinGroup has code %d", code)
	}
	if code := <-joined; code != none {
		t.Fatalf("the follower's JoinGroup has code %d", code)
	}
}

// TestGroupsWorkBesideUnreadAnswers proves that clients which do not read long lists do not keep
// the members of a group from their large answers.
func TestGroupsWorkBesideUnreadAnswers(t *testing.T) {
	g := newWholeRig(t, 96<<20) // so much that a list counts as small
	m, other := &largeMember{client: dial(t, g.addr)}, &largeMember{client: dial(t, g.addr)}
	if code := m.join(); code != none {
		t.Fatalf("JoinGroup has code %d", code)
	}
	joinBoth(t, m, other)
	synced := make(chan int16, 1)
	go func() { synced <- other.sync() }()
	described := at(4, kmsg.NewPtrDescribeConfigsRequest())
	described.IncludeDocumentation, described.IncludeSynonyms = true, true
	for range 100 {
		q := kmsg.NewDescribeConfigsRequestResource()
		q.ResourceType, q.ResourceName = kmsg.ConfigResourceTypeBroker, "1"
		described.Resources = append(described.Resources, q)
	}
	// It is full when not all of four more answers fit. Each second the broker closes some of those that nobody reads, so what is used
	// need not stand still.
	for fit, full := int64(0), false; !full; {
		before := g.work.Usage(budget.Unsent).Used
		for range 4 {
			c := dial(t, g.addr)
			c.send(described)
			if _, err := c.c.Read(make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
		}
		grown := g.work.Usage(budget.Unsent).Used - before
		fit = max(fit, grown)
		full = grown < fit
	}
	if code := m.sync(m, other); code != none {
		t.Errorf("the leader's SyncGroup has code %d", code)
	}
	if code := <-synced; code != none {
		t.Errorf("the follower's SyncGroup has code %d", code)
	}
}

// TestGroupsAreAskedToWait proves that the members of a group keep their connections where there
// is no memory for their large answers, get codes with which they ask again, and then go on.
func TestGroupsAreAskedToWait(t *testing.T) {
	g := newWholeRig(t, budget.MinBytes)
	m := &largeMember{client: dial(t, g.addr)}
	fill := func() (release func()) {
		large, ok := g.work.TryReserve(budget.Unsent, g.work.Most(budget.Unsent))
		for !ok { // an answer that was read is given back only after its write has returned
			runtime.Gosched()
			large, ok = g.work.TryReserve(budget.Unsent, g.work.Most(budget.Unsent))
		}
		var small []budget.Reservation
		for {
			r, ok := g.work.TryReserve(budget.Unsent, 1<<10)
			if !ok {
				break
			}
			small = append(small, r)
		}
		return func() {
			large.Release()
			for i := range small {
				small[i].Release()
			}
		}
	}
	release := fill()
	if code := m.join(); code != kerr.CoordinatorLoadInProgress.Code {
		t.Errorf("JoinGroup has code %d", code)
	}
	release()
	if code := m.join(); code != none {
		t.Fatalf("the second JoinGroup has code %d", code)
	}
	other := &largeMember{client: dial(t, g.addr)}
	joinBoth(t, m, other)
	synced := make(chan int16, 1)
	go func() { synced <- other.sync() }()
	release = fill()
	if code := m.sync(m, other); code != none {
		t.Errorf("the leader's SyncGroup has code %d", code)
	}
	code := <-synced
	release()
	if again := other.sync(); code != kerr.RebalanceInProgress.Code || again != none {
		t.Errorf("the follower's SyncGroup has code %d, and then %d", code, again)
	}
}
