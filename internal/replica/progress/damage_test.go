package progress

import (
	"slices"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// TestDamagedFollower proves that a follower with a damaged log leaves the set, that the controller is told that it is not eligible, and that it
// may delete its log once the metadata know that: nothing that it has sent before counts from then on.
func TestDamagedFollower(t *testing.T) {
	w := lead(t, replicas(1, 2, 3), 10)
	w.fetch(2, 10, 10)
	w.fetch(3, 10, 10)
	tell := func(assigned int32, want Verdict) {
		t.Helper()
		f := Fetch{Replica: 3, BrokerEpoch: 103, Epoch: 5, Assigned: assigned, LastEpoch: record.NoEpoch, CannotStore: true, IsDamaged: true}
		if v := w.l.Fetched(w.now, &f, Tail{}); v != want {
			t.Errorf("verdict %d, want %d", v, want)
		}
	}
	w.l.LogChanged(w.now, LogFaulted)
	tell(w.a.PartitionEpoch, Unavailable)
	w.wantProposal("the leader's own log is damaged")

	w = lead(t, replicas(1, 2, 3), 10)
	w.fetch(2, 10, 10)
	w.fetch(3, 10, 10)
	ahead := w.a.PartitionEpoch + 1 // the follower knows more than the leader
	tell(ahead, Unavailable)
	p := w.wantProposal("it is damaged", 1, 2)
	if !slices.Equal(p.Damaged, []int32{3}) {
		t.Errorf("damaged are %v", p.Damaged)
	}
	w.l.Answered(w.now, p.Attempt)
	w.assign(1, 2)
	tell(ahead, Unavailable)
	w.now += time.Second
	p = w.wantProposal("it may have sent something at that epoch", 1, 2)
	w.l.Answered(w.now, p.Attempt)
	w.assign(1, 2)
	tell(ahead, UnknownEpoch)
	tell(ahead+1, Rebuild)
	w.l.Reported(w.now, Report{Replica: 3, BrokerEpoch: 103, Epoch: 5, Assigned: ahead, Durable: 10})
	w.now += time.Second
	w.wantProposal("it is out")
	fetch := func(offset record.Offset) {
		t.Helper()
		f := Fetch{Replica: 3, BrokerEpoch: 103, Epoch: 5, Assigned: ahead + 1, Offset: offset, LastEpoch: record.NoEpoch, Durable: offset}
		if v := w.l.Fetched(w.now, &f, Tail{}); v != Served {
			t.Errorf("verdict %d", v)
		}
	}
	fetch(0)
	w.l.Reported(w.now, Report{Replica: 3, BrokerEpoch: 103, Epoch: 5, Assigned: ahead, Durable: 10})
	w.wantProposal("a report of the deleted log comes late")
	fetch(10)
	w.wantProposal("it has everything again", 1, 2, 3)

	w = lead(t, replicas(1, 2, 3), 10)
	w.fetch(2, 10, 10)
	w.fetch(3, 10, 10)
	tell(w.a.PartitionEpoch, Unavailable)
	w.a.Eligible = []int32{3} // by a change that was under way
	w.assign(1, 2)
	tell(w.a.PartitionEpoch, Unavailable)
	if p = w.wantProposal("it is eligible", 1, 2); !slices.Equal(p.Damaged, []int32{3}) {
		t.Errorf("damaged are %v", p.Damaged)
	}
	w.l.Answered(w.now, p.Attempt)
	w.a.Eligible = nil
	w.assign(1, 2)
	tell(w.a.PartitionEpoch, Rebuild)
}
