package progress

import (
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// ask has a follower's process fetch, with a log that ends with a record of epoch 4.
func (w *leading) ask(id int32, incarnation int64, end, durable record.Offset, tail Tail) Verdict {
	f := Fetch{Replica: id, BrokerEpoch: incarnation, Epoch: 5, Assigned: w.a.PartitionEpoch, Offset: end, LastEpoch: 4, Durable: durable}
	return w.l.Fetched(w.now, &f, tail)
}

// object has a follower tell the leader that it lacks records.
func (w *leading) object(id int32, durable record.Offset) {
	w.l.Reported(w.now, Report{Replica: id, BrokerEpoch: alive[id].Epoch, Epoch: 5, Assigned: w.a.PartitionEpoch, Durable: durable})
}

// restarted is the metadata after node 3 was registered again.
func restarted() Brokers {
	return Brokers{1: alive[1], 2: alive[2], 3: {Epoch: 203, MayJoin: true}}
}

// TestMemberThatLacksRecordsLeaves proves that a member of the in-sync set whose next process shows less on disk than is committed leaves it at once, and is
// said to be damaged, so that it is not eligible either; whether the logs agree as far as they go, or have parted. One that has as much stays.
func TestMemberThatLacksRecordsLeaves(t *testing.T) {
	for _, tc := range []struct {
		name         string
		end, durable record.Offset
		tail         Tail
		leaves       bool
	}{
		{"it has all", 20, 20, Tail{4, 20}, false},
		{"it has more than is committed", 24, 24, Tail{4, 20}, false},
		{"it ends before", 18, 18, Tail{4, 20}, true},
		{"it has all, and not on disk", 20, 15, Tail{4, 20}, true},
		{"the logs part before", 24, 24, Tail{4, 12}, true},
	} {
		w := lead(t, replicas(1, 2, 3), 10)
		w.grow(20)
		w.fetch(2, 20, 20)
		w.fetch(3, 20, 20)
		w.wantHW(20, tc.name)
		w.l.BrokersChanged(w.now, restarted())
		w.ask(3, 203, tc.end, tc.durable, tc.tail)
		if !tc.leaves {
			w.wantProposal(tc.name)
			continue
		}
		p := w.wantProposal(tc.name, 1, 2)
		if len(p.Damaged) != 1 || p.Damaged[0] != 3 {
			t.Errorf("%s: damaged are %v", tc.name, p.Damaged)
		}
		w.a.ISR = []int32{1, 2}
		w.assign(1, 2)
		w.wantProposal(tc.name + ", and it has left")
		w.ask(3, 203, 20, 20, Tail{4, 20})
		w.wantProposal(tc.name+", and it has caught up", 1, 2, 3)
	}
}

// TestEligibleReplicaThatLacksRecords proves that a replica which is eligible, and shows less on disk than is committed, is said to be damaged.
func TestEligibleReplicaThatLacksRecords(t *testing.T) {
	a := replicas(1, 2)
	a.MinISR, a.Eligible = 3, []int32{3}
	w := lead(t, a, 10)
	w.ask(3, 103, 8, 8, Tail{4, 10})
	if p := w.wantProposal("it has less", 1, 2); len(p.Damaged) != 1 || p.Damaged[0] != 3 {
		t.Errorf("damaged are %v", p.Damaged)
	}
	w.a.Eligible = nil
	w.assign(1, 2)
	w.now += time.Second
	w.wantProposal("it is not eligible any more")
}

// TestLeaderThatLacksRecords proves what a leader does when a member tells it that it lacks committed records: it commits nothing, answers no fetch, so
// that nobody else cuts its log, and gives up to those that have not followed it; the ones that have are said to be damaged.
func TestLeaderThatLacksRecords(t *testing.T) {
	w := lead(t, replicas(1, 2, 3), 10)
	w.grow(12)
	w.fetch(2, 12, 12)
	if v := w.ask(3, 103, 20, 20, Tail{4, 10}); v != Diverged {
		t.Fatalf("verdict %d", v)
	}
	w.wantProposal("nobody has objected")
	w.object(3, 20)
	if !w.l.IsBehind() {
		t.Fatal("it does not believe that it is behind")
	}
	w.wantHW(10, "it lacks records")
	for id := range int32(2) {
		if v := w.ask(id+2, alive[id+2].Epoch, 20, 20, Tail{4, 10}); v != Unavailable {
			t.Errorf("node %d gets the verdict %d", id+2, v)
		}
	}
	p := w.wantProposal("it gives up", 3)
	if !p.GivesUp || p.Successor != 3 || len(p.Damaged) != 1 || p.Damaged[0] != 2 {
		t.Errorf("%+v", p)
	}
	w.l.Answered(w.now, p.Attempt)
	w.now += time.Second
	w.wantProposal("it gives up again", 3)
}

// TestLeaderThatLacksRecordsWaits proves that a leader which lacks records has nobody join while the replica with the records is eligible and away;
// and that it does not give its place to one that was told to cut its log, unless that has asked again since.
func TestLeaderThatLacksRecordsWaits(t *testing.T) {
	a := replicas(1)
	a.MinISR, a.Eligible = 2, []int32{2, 3}
	w := lead(t, a, 10)
	w.ask(2, 102, 20, 20, Tail{4, 10})
	w.ask(3, 103, 20, 20, Tail{4, 10})
	w.now += time.Second
	w.object(3, 20)
	w.wantProposal("the other one may have cut its log", 3)
	w = lead(t, a, 10)
	w.ask(2, 102, 20, 20, Tail{4, 10})
	w.ask(3, 103, 20, 20, Tail{4, 10})
	w.object(3, 20)
	w.now += time.Second
	w.ask(2, 102, 20, 20, Tail{4, 10})
	w.wantProposal("it has not", 2, 3)
	a.Eligible = []int32{3}
	w = lead(t, a, 10)
	w.fetch(2, 10, 10)
	w.ask(3, 103, 20, 20, Tail{4, 10})
	w.object(3, 20)
	w.l.BrokersChanged(w.now, Brokers{1: alive[1], 2: alive[2], 3: {Epoch: 103}})
	w.grow(12)
	w.fetchRefused(2, 12)
	w.wantProposal("it waits")
	w.wantHW(10, "it waits")
}

// fetchRefused has a follower that agrees with the leader fetch from one that answers nobody.
func (w *leading) fetchRefused(id int32, offset record.Offset) {
	w.t.Helper()
	f := Fetch{Replica: id, BrokerEpoch: alive[id].Epoch, Epoch: 5, Offset: offset, LastEpoch: record.NoEpoch, Durable: offset}
	if v := w.l.Fetched(w.now, &f, Tail{}); v != Unavailable {
		w.t.Fatalf("verdict %d", v)
	}
}

// TestObjectionOfReplicaThatLeaves proves that a leader gives up to a replica, too, that has told it what it lacks and has left the in-sync set since, by a proposal
// that was under way; and that it goes on when that one is not there any more, or is removed.
func TestObjectionOfReplicaThatLeaves(t *testing.T) {
	for _, gone := range []string{"", "fenced", "removed"} {
		w := lead(t, replicas(1, 3), 10)
		w.fetch(2, 10, 10)
		w.ask(3, 103, 20, 20, Tail{4, 10})
		w.object(3, 20)
		w.assign(1, 2)
		switch gone {
		case "":
			w.wantProposal("it has left", 3)
			continue
		case "fenced":
			w.l.BrokersChanged(w.now, Brokers{1: alive[1], 2: alive[2], 3: {Epoch: 103}})
		case "removed":
			w.a.Replicas = []int32{1, 2}
			w.assign(1, 2)
		}
		if w.l.IsBehind() {
			t.Errorf("%s: it does not go on", gone)
		}
		w.wantProposal(gone)
	}
}

// TestObjectionThatIsNotBelieved proves that a leader goes on, and has the replica leave, if that lacks records which the leader knows to be committed: an
// unclean election may have made the replica's records those of another history. A report from before the comparison is no durable end either.
func TestObjectionThatIsNotBelieved(t *testing.T) {
	w := lead(t, replicas(1, 2), 10)
	w.grow(20)
	w.fetch(2, 20, 20)
	w.wantHW(20, "both have it")
	w.assign(1, 2, 3)
	w.ask(3, 103, 25, 25, Tail{4, 15})
	w.object(3, 25)
	if w.l.IsBehind() {
		t.Error("it believes that it is behind")
	}
	w.wantProposal("it lacks what is committed", 1, 2)
	before := Report{Replica: 3, BrokerEpoch: 103, Epoch: 5, Assigned: w.a.PartitionEpoch, Durable: 25}
	w.assign(1, 2)
	w.ask(3, 103, 15, 15, Tail{4, 15})
	w.l.Reported(w.now, before)
	w.wantProposal("its objection comes late")
	before.Assigned, before.Durable = w.a.PartitionEpoch, 20
	w.l.Reported(w.now, before)
	w.wantProposal("it has caught up", 1, 2, 3)
}

// TestMemberKeepsCommittedRecords proves that a follower which is in sync or eligible does not cut what it knows to be committed, and has the leader told of it after
// each such answer; that it cuts what it does not know to be committed; and that it cuts both when the metadata do not count on it.
func TestMemberKeepsCommittedRecords(t *testing.T) {
	for name, a := range map[string]Answer{
		"the logs have parted":      {Verdict: Diverged, Diverging: Tail{2, 1}, End: 9},
		"the leader's log is short": {Verdict: OutOfRange, End: 1},
		"the leader has no records": {Verdict: OutOfRange},
	} {
		w := follow(t, 1, 2, 2, 3)
		w.restart(3)
		w.f.Follow(0, 1, 5, 40, true)
		for range 2 {
			if s := w.answer(w.fetch(), a); s.Kind != NoStep {
				t.Fatalf("%s: it does %+v", name, s)
			}
			r, ok := w.f.NextReport()
			if want := (Report{Replica: 2, BrokerEpoch: 102, Epoch: 5, Assigned: 40, Durable: 3}); !ok || r != want {
				t.Errorf("%s: it reports %+v, %v", name, r, ok)
			}
			if r, ok := w.f.NextReport(); ok {
				t.Errorf("%s: it reports %+v, too", name, r)
			}
			if _, ok := w.f.NextFetch(w.now); ok {
				t.Errorf("%s: it asks again at once", name)
			}
			w.now += time.Second
		}
		w.answer(w.fetch(), a)
		w.f.Follow(w.now, 1, 5, 41, false)
		if r, ok := w.f.NextReport(); ok {
			t.Errorf("%s: it reports %+v when it does not count any more", name, r)
		}
		w.now += time.Second
		if s := w.answer(w.fetch(), a); s.Kind != Truncate || s.To > 1 {
			t.Errorf("%s: it does %+v", name, s)
		}
	}
	w := follow(t, 1, 2, 2, 3)
	w.restart(3)
	w.f.Follow(0, 1, 5, 40, true)
	if s := w.answer(w.fetch(), Answer{Verdict: Diverged, Diverging: Tail{2, 3}, End: 9}); s.Kind != Truncate || s.To != 3 {
		t.Errorf("it does %+v with a record of which it does not know that it is committed", s)
	}
}
