package group

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/classic"
)

// longGroup is a name that makes every record of the group large.
func longGroup(i int) string { return fmt.Sprintf("%05d", i) + strings.Repeat("g", 30_000) }

// repeatedCommit commits an offset of one partition very often.
func repeatedCommit(group string) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: make([]kmsg.OffsetCommitRequestTopicPartition, 500)}}
	return req
}

// allocated is how many bytes were ever allocated.
func allocated() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.TotalAlloc)
}

// TestCommitsThatWaitKeepNoRecords proves that commits of which each makes many megabytes of
// records keep little memory while they wait for the disk, and that none is lost.
func TestCommitsThatWaitKeepNoRecords(t *testing.T) {
	const commits, most = 12, 4 << 20
	sv, logs, _ := newTightService(t, 0)
	for _, l := range logs {
		l.held, l.discard = true, true
	}
	before, answers := heap(), 0
	for i := range commits {
		commitOne(sv, repeatedCommit(longGroup(i)), func(r *kmsg.OffsetCommitResponse) {
			for _, p := range r.Topics[0].Partitions {
				if p.ErrorCode != 0 {
					t.Errorf("commit: %s", name(p.ErrorCode))
				}
			}
			answers++
		})
	}
	if n := heap() - before; n > most || answers > 0 {
		t.Errorf("%d bytes are kept for %d commits, and %d are answered", n, commits, answers)
	}
	for _, l := range logs {
		l.commit()
	}
	if answers != commits {
		t.Errorf("%d answers to %d commits", answers, commits)
	}
}

// TestOffsetsAreDeletedInBatches proves that a request which names an offset of a group with a long
// name very often takes no more memory than a batch does, and that it deletes the offset.
func TestOffsetsAreDeletedInBatches(t *testing.T) {
	const repeats, most = 50_000, 64 << 20
	sv, _, _ := newTightService(t, 0)
	commitOne(sv, repeatedCommit(longGroup(0)), func(*kmsg.OffsetCommitResponse) {})
	req := kmsg.NewPtrOffsetDeleteRequest()
	req.Group = longGroup(0)
	req.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: "t", Partitions: make([]kmsg.OffsetDeleteRequestTopicPartition, repeats)}}
	answers, before := 0, allocated()
	sv.DeleteOffsets(req, func(r *kmsg.OffsetDeleteResponse) {
		answers++
		if r.ErrorCode != 0 || len(r.Topics) != 1 || len(r.Topics[0].Partitions) != repeats {
			t.Errorf("%s, %d topics", name(r.ErrorCode), len(r.Topics))
		}
	})
	if n := allocated() - before; n > most || answers != 1 {
		t.Errorf("%d bytes were allocated, and there were %d answers", n, answers)
	}
	sv.Fetch([]kmsg.OffsetFetchRequestGroup{{Group: req.Group}}, false, func(groups []kmsg.OffsetFetchResponseGroup) {
		if len(groups[0].Topics) > 0 {
			t.Errorf("there are offsets of %d topics", len(groups[0].Topics))
		}
	})
}

// TestGroupThatIsTooLargeIsNotEncoded proves that an assignment for a group whose record would be
// too large is refused before the record is made.
func TestGroupThatIsTooLargeIsNotEncoded(t *testing.T) {
	const members, most = 3, 4 << 20
	w := newWorld(t)
	var joined *kmsg.JoinGroupResponse
	for range members {
		w.step(func(s *coord.Step) {
			w.m.Join(s, Client{ID: "c"}, bigJoin("g", 3, coord.MaxBatch/2), func(r *kmsg.JoinGroupResponse) { joined = r })
		})
	}
	w.pass(10 * time.Second)
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.MemberID, req.Generation = "g", joined.LeaderID, joined.Generation
	got, before := int16(-2), allocated()
	w.step(func(s *coord.Step) {
		w.m.Sync(s, req, func(r *kmsg.SyncGroupResponse) { got = r.ErrorCode })
	})
	if n := allocated() - before; n > most || got != codeOf(coord.ErrTooLarge) {
		t.Errorf("%d bytes were allocated, and the answer is %s", n, name(got))
	}
	w.m.check(t.Fatalf)
}

// BenchmarkManyMembersGone measures how long it takes until all members of a group have left with
// one request. A member takes as long in a large group as in a small one.
func BenchmarkManyMembersGone(b *testing.B) {
	for _, members := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				m, req := crowdedMachine(members)
				s := coord.NewStep(time.UnixMilli(0))
				b.StartTimer()
				m.Leave(s, req)
				s.Run(m, 1000, nil)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(members), "ns/member")
		})
	}
}

// crowdedMachine is a machine with one group of many members, and a request of all to leave.
func crowdedMachine(members int) (*Machine, *kmsg.LeaveGroupRequest) {
	m := emptyMachine()
	ids := 0
	m.classic.NewID = func() string { ids++; return fmt.Sprint(ids) }
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = "g"
	for i := range members {
		s := coord.NewStep(time.UnixMilli(0))
		m.Join(s, classic.Client{ID: "c"}, bigJoin("g", 3, 1), func(*kmsg.JoinGroupResponse) {})
		s.Run(m, 1, nil)
		leave.Members = append(leave.Members, kmsg.LeaveGroupRequestMember{MemberID: fmt.Sprintf("c-%d", i+1)})
	}
	return m, leave
}
