package group

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/classic"
	"github.com/leatstream/leat/internal/replica"
)

// newTightService is a service whose members may take little memory, and its log.
func newTightService(t *testing.T, limit int64) (*Service, []*memLog, *bytes.Buffer) {
	t.Helper()
	said := &bytes.Buffer{}
	sv := New(Config{
		Logger:     slog.New(slog.NewTextHandler(said, nil)),
		Partitions: func() int32 { return testPartitions },
		Memory:     limit,
	})
	t.Cleanup(sv.Close)
	logs := make([]*memLog, testPartitions)
	for i := range logs {
		logs[i] = &memLog{}
		sv.StartLeading(int32(i), 1, logs[i])
	}
	return sv, logs, said
}

func bigJoin(group string, version int16, size int) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.ProtocolType = version, group, "other"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 1_800_000, 1_800_000
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: make([]byte, size)}}
	return req
}

// TestMembersMemoryIsBounded proves that the members of all groups on all partitions share
// one limit, that a client which would pass it is refused and makes no group, that this
// is logged once and not each time, and that there is room again when members have left.
func TestMembersMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, limit = 1 << 20, 4<<20 + 64<<10
		sv, _, said := newTightService(t, 8*limit) // members may take an eighth of it
		var mu sync.Mutex                          // replies come from several partitions
		codes := map[int16]int{}
		ids := map[string]string{}
		join := func(group string) {
			sv.Join(Client{ID: "c"}, bigJoin(group, 3, size), func(r *kmsg.JoinGroupResponse) {
				mu.Lock()
				defer mu.Unlock()
				if codes[r.ErrorCode]++; r.ErrorCode == 0 {
					ids[group] = r.MemberID
				}
			})
		}
		for i := range 12 {
			join(fmt.Sprint("g", i))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if codes[0] != 4 || codes[groupMaxSizeReached] != 8 {
			t.Fatalf("answers: %v", codes)
		}
		if n := sv.MemoryUsed(); n < 4*size || n > limit {
			t.Errorf("%d bytes are held", n)
		}
		if n := strings.Count(said.String(), "level=WARN"); n != 1 {
			t.Errorf("it was said %d times:\n%s", n, said)
		}
		sv.List(kmsg.NewPtrListGroupsRequest(), func(r *kmsg.ListGroupsResponse) {
			if len(r.Groups) != 4 {
				t.Errorf("%d groups", len(r.Groups))
			}
		})
		for group, id := range ids {
			req := kmsg.NewPtrLeaveGroupRequest()
			req.Group, req.MemberID = group, id
			sv.Leave(req, func(*kmsg.LeaveGroupResponse) {})
		}
		if n := sv.MemoryUsed(); n > int64(len(ids))*(groupBytes+classic.Size("g11")) {
			t.Errorf("%d bytes are held after all have left", n)
		}
		clear(codes)
		join("later")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if codes[0] != 1 {
			t.Errorf("answers when there was room: %v", codes)
		}
		sv.Close()
		if n := sv.MemoryUsed(); n != 0 {
			t.Errorf("%d bytes are held after the end", n)
		}
	})
}

// TestLoadTakesWhatIsRecorded proves that a node loads groups that were acknowledged even
// beyond its limit, counts them, and takes no further members then.
func TestLoadTakesWhatIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv, logs, _ := newTightService(t, 1<<20)
		v := kmsg.NewGroupMetadataValue()
		v.Version, v.ProtocolType, v.Protocol, v.Leader = 3, "other", new(string("range")), new(string("a"))
		v.Members = []kmsg.GroupMetadataValueMember{{
			MemberID: "a", SessionTimeoutMillis: 60_000, Subscription: make([]byte, 3<<20), Assignment: make([]byte, 2<<20),
		}}
		err := sv.rt.Do(coord.PartitionOf("g", testPartitions), func(_ *Machine, s *coord.Step) { classic.Put(s, "g", &v) })
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			for i := range logs {
				sv.StopLeading(int32(i))
			}
			if n := sv.MemoryUsed(); n != 0 {
				t.Errorf("%d bytes are held by nobody", n)
			}
			for i, l := range logs {
				sv.StartLeading(int32(i), 2, l)
			}
			synctest.Wait()
			if n := sv.MemoryUsed(); n < 5<<20 || n > 5<<20+4096 {
				t.Errorf("%d bytes are held after a load", n)
			}
		}
		beat := kmsg.NewPtrHeartbeatRequest()
		beat.Group, beat.MemberID = "g", "a"
		sv.Heartbeat(beat, func(r *kmsg.HeartbeatResponse) {
			if r.ErrorCode != 0 {
				t.Errorf("heartbeat: %s", name(r.ErrorCode))
			}
		})
		sv.Join(Client{ID: "c"}, bigJoin("h", 3, 1), func(r *kmsg.JoinGroupResponse) {
			if r.ErrorCode != groupMaxSizeReached {
				t.Errorf("join: %s", name(r.ErrorCode))
			}
		})
		sv.Close()
	})
}

// TestMemberMetadataIsBounded proves that a member which could never be recorded is
// refused at once.
func TestMemberMetadataIsBounded(t *testing.T) {
	sv, _, _ := newTightService(t, 0)
	f := func(req *kmsg.JoinGroupRequest, want int16) {
		t.Helper()
		sv.Join(Client{ID: "c"}, req, func(r *kmsg.JoinGroupResponse) {
			if r.ErrorCode != want {
				t.Errorf("join: %s, want %s", name(r.ErrorCode), name(want))
			}
		})
	}
	f(bigJoin("g", 9, coord.MaxBatch), invalidRequest)
	f(bigJoin("g", 9, coord.MaxBatch-4096), memberIDRequired)
	many := bigJoin("h", 9, 0)
	for i := range coord.MaxBatch / 128 {
		many.Protocols = append(many.Protocols, kmsg.JoinGroupRequestProtocol{Name: fmt.Sprint(i)})
	}
	f(many, invalidRequest)
}

// TestGrowthIsRefused proves that neither an assignment nor a member's new metadata may
// pass the limit, and that the group does not change then. The same metadata is not
// refused, however full the memory is.
func TestGrowthIsRefused(t *testing.T) {
	w := newWorld(t)
	w.set.InitialDelay = 0
	var joined *kmsg.JoinGroupResponse
	join := func(id string, size int) {
		req := bigJoin("g", 3, size)
		req.MemberID = id
		w.step(func(s *coord.Step) {
			w.m.Join(s, Client{ID: "c"}, req, func(r *kmsg.JoinGroupResponse) { joined = r })
		})
	}
	join("", 1000)
	w.pass(time.Second)
	id := joined.MemberID
	sync := func(size int, want int16) {
		t.Helper()
		req := kmsg.NewPtrSyncGroupRequest()
		req.Group, req.MemberID, req.Generation = "g", id, joined.Generation
		req.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: id, MemberAssignment: make([]byte, size)}}
		got := int16(-2)
		w.step(func(s *coord.Step) {
			w.m.Sync(s, req, func(r *kmsg.SyncGroupResponse) { got = r.ErrorCode })
		})
		if got != want {
			t.Fatalf("sync of %d bytes: %d, want %s", size, got, name(want))
		}
		w.m.check(t.Fatalf)
	}
	w.room(500)
	sync(501, coordinatorNotAvailable)
	w.fail = replica.ErrDiskFull
	sync(500, coordinatorNotAvailable)
	w.fail = nil
	sync(500, 0)
	used, g := w.total.Used(), w.m.groups["g"].classic
	join(id, 1001)
	if joined.ErrorCode != groupMaxSizeReached || w.total.Used() != used || g.State() != "Stable" {
		t.Fatalf("join: %s, %d bytes, %v", name(joined.ErrorCode), w.total.Used()-used, g.State())
	}
	w.room(-1000)
	join(id, 1000)
	if joined.ErrorCode != 0 || joined.Generation != 2 {
		t.Fatalf("join: %s", name(joined.ErrorCode))
	}
	w.m.check(t.Fatalf)
}

// TestSubscribedTopicsAreBounded proves that a set of topics, which takes more memory than
// the metadata that names them, is not kept if there is no room for it. All offsets of
// the group are then in use.
func TestSubscribedTopicsAreBounded(t *testing.T) {
	var topics []string
	for i := range 10_000 {
		topics = append(topics, fmt.Sprint(i))
	}
	w := newWorld(t)
	w.room(200_000)
	w.join(args{"v": "3"}, []string{"a", "range=" + strings.Join(topics, "+")})
	w.pass(10 * time.Second)
	w.m.check(t.Fatalf)
	if g := w.m.groups["g"].classic; g.State() != "CompletingRebalance" || !g.Consumes("x") {
		t.Errorf("the group is %v; it is known not to consume a topic: %v", g.State(), !g.Consumes("x"))
	}
}

// TestNothingIsChargedTwice proves that the account is right in states that random tests
// seldom reach: a static member that could not be recorded, a leader that joins again
// before it has sent an assignment, and a group with members that a record deletes.
func TestNothingIsChargedTwice(t *testing.T) {
	w := newWorld(t)
	w.set.InitialDelay = 0
	run := func(cmds ...string) {
		t.Helper()
		for _, cmd := range cmds {
			w.run(cmd)
			w.m.check(t.Fatalf)
		}
	}
	run("join a range=t static=i", "pass 1s", "sync a id=i-1 gen=1 static=i give=i-1:what")
	group := func() kmsg.DescribeGroupsResponseGroup {
		d := kmsg.NewDescribeGroupsResponseGroup()
		w.m.groups["g"].classic.Describe(&d)
		return d
	}
	if g := group(); g.State != "Stable" {
		t.Fatalf("the group is %v", g.State)
	}
	run("disk full", "join a range=t+u+v static=i", "disk ok", "join a range=t+u+v static=i")
	id := group().Members[0].MemberID
	run("join a range=t id=" + id + " static=i")
	if g := group(); g.State != "CompletingRebalance" || len(g.Members[0].MemberAssignment) == 0 {
		t.Fatalf("the group is %v, with %d bytes assigned", g.State, len(g.Members[0].MemberAssignment))
	}
	run("join a range=u id=" + id + " static=i")
	if g := group(); len(g.Members[0].MemberAssignment) != 0 || w.m.groups["g"].classic.Consumes("t") {
		t.Fatalf("%d bytes are assigned; it consumes t: %v", len(g.Members[0].MemberAssignment), w.m.groups["g"].classic.Consumes("t"))
	}
	w.step(func(s *coord.Step) { classic.Put(s, "g", nil) })
	w.m.check(t.Fatalf)
	if n := w.total.Used(); n != 0 {
		t.Errorf("%d bytes are held", n)
	}
}
