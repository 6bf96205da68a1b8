package progress

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/record"
)

// leading is a leader, node 1, whose log grows at once on disk unless a test says otherwise. It
// leads in epoch 5, which begins at offset 10, with a pause of 1 s after each proposal and a lag
// limit of 10 s.
type leading struct {
	t   *testing.T
	l   *Leader
	now time.Duration
	a   Assignment
	own Ends
}

var alive = Brokers{1: {Epoch: 101, MayJoin: true}, 2: {Epoch: 102, MayJoin: true}, 3: {Epoch: 103, MayJoin: true}}

func lead(t *testing.T, a Assignment, hw record.Offset) *leading {
	t.Helper()
	w := &leading{t: t, a: a, own: Ends{End: 10, Durable: 10}}
	w.l = NewLeader(0, Config{ID: 1, Lag: 10 * time.Second, Retry: time.Second},
		Start{Epoch: 5, EpochStart: 10, Log: w.own, HighWatermark: hw}, a, alive)
	return w
}

// grow has the leader append and sync up to an offset.
func (w *leading) grow(to record.Offset) { w.append(to, to) }

func (w *leading) append(end, durable record.Offset) {
	w.own.End, w.own.Durable = end, durable
	w.l.Moved(w.now, w.own)
}

// fetch has a follower, in its present incarnation and without a difference, fetch.
func (w *leading) fetch(id int32, offset, durable record.Offset) {
	w.t.Helper()
	f := Fetch{Replica: id, BrokerEpoch: alive[id].Epoch, Epoch: 5, Offset: offset, LastEpoch: record.NoEpoch, Durable: durable}
	if v := w.l.Fetched(w.now, &f, Tail{}); v != Served {
		w.t.Fatalf("verdict %d", v)
	}
}

// assign has the metadata change the in-sync set.
func (w *leading) assign(isr ...int32) {
	w.a.ISR = isr
	w.a.PartitionEpoch++
	w.l.Assigned(w.now, w.a)
}

func (w *leading) wantHW(want record.Offset, why string) {
	w.t.Helper()
	if got := w.l.HighWatermark(); got != want {
		w.t.Errorf("%s: the high watermark is %d, want %d", why, got, want)
	}
}

// wantProposal checks the members of the next proposal; none: there is none.
func (w *leading) wantProposal(why string, ids ...int32) Proposal {
	w.t.Helper()
	p, ok := w.l.Propose(w.now)
	var got []int32
	for _, m := range p.ISR {
		got = append(got, m.ID)
	}
	if ok != (ids != nil) || !slices.Equal(got, ids) {
		w.t.Fatalf("%s: proposed %v, want %v", why, got, ids)
	}
	return p
}

func replicas(isr ...int32) Assignment {
	return Assignment{Replicas: []int32{1, 2, 3}, ISR: isr, MinISR: 1, PartitionEpoch: 7}
}

// TestEnoughInSync proves that acks=all can be promised exactly if min.insync.replicas are in
// sync, or all replicas if the partition has fewer, not counting those that a reassignment is
// adding; and never with an empty in-sync set.
func TestEnoughInSync(t *testing.T) {
	for _, tc := range []struct {
		name                          string
		isr, replicas, adding, minISR int
		want                          bool
	}{
		{"the only replica", 1, 1, 0, 1, true},
		{"one replica where two are asked for", 1, 1, 0, 2, true},
		{"nobody", 0, 1, 0, 1, false},
		{"nobody, and nobody is asked for", 0, 3, 0, 0, false},
		{"all of three", 3, 3, 0, 2, true},
		{"exactly enough", 2, 3, 0, 2, true},
		{"one too few", 1, 3, 0, 2, false},
		{"two of two where three are asked for", 2, 2, 0, 3, true},
		{"one of two where three are asked for", 1, 2, 0, 3, false},
		{"one of one, to which two are being added", 1, 3, 2, 2, true},
		{"one of two, to which one is being added", 1, 3, 1, 2, false},
	} {
		a := Assignment{ISR: make([]int32, tc.isr), Replicas: make([]int32, tc.replicas), Adding: make([]int32, tc.adding), MinISR: tc.minISR}
		if got := a.EnoughInSync(); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

// TestBeginsOnDisk proves that a leader does not begin with a high watermark above what it has on
// disk: one that was elected uncleanly may have heard of more.
func TestBeginsOnDisk(t *testing.T) {
	l := NewLeader(0, Config{ID: 1}, Start{Epoch: 5, EpochStart: 10, Log: Ends{End: 10, Durable: 7}, HighWatermark: 9}, replicas(1, 2), alive)
	if l.HighWatermark() != 7 {
		t.Errorf("the high watermark is %d", l.HighWatermark())
	}
}

// TestDeletedTail proves that a follower has to begin anew whose last record lies just before the
// leader's start: nobody can tell whether the leader had the same one. That is so until the logs were
// compared in this epoch.
func TestDeletedTail(t *testing.T) {
	w := lead(t, replicas(1, 2), 10)
	w.own = Ends{Start: 10, End: 10, Durable: 10}
	w.grow(12)
	for _, tc := range []struct {
		why    string
		fetch  Fetch
		want   Verdict
		wantHW record.Offset
	}{
		{"its records end where the leader's begin", Fetch{Start: 4, Offset: 10, LastEpoch: 3, Durable: 10}, OutOfRange, 10},
		{"it has no records", Fetch{Start: 10, Offset: 10, LastEpoch: record.NoEpoch, Durable: 10}, Served, 10},
		{"it has the leader's", Fetch{Start: 10, Offset: 12, LastEpoch: 5, Durable: 12}, Served, 12},
	} {
		f := tc.fetch
		f.Replica, f.BrokerEpoch, f.Epoch = 2, 102, 5
		if v := w.l.Fetched(0, &f, Tail{f.LastEpoch, max(10, f.Offset)}); v != tc.want {
			t.Errorf("%s: verdict %d", tc.why, v)
		}
		w.l.Reported(0, Report{Replica: 2, BrokerEpoch: 102, Epoch: 5, Durable: tc.wantHW})
		w.wantHW(tc.wantHW, tc.why)
	}
	w.own.Start = 12
	w.grow(12)
	if v := w.l.Fetched(0, &Fetch{Replica: 2, BrokerEpoch: 102, Epoch: 5, Start: 10, Offset: 12, LastEpoch: 5}, Tail{5, 12}); v != Served {
		t.Errorf("all was deleted after the logs were compared: verdict %d", v)
	}
}

// TestHighWatermark proves that the high watermark is the lowest durable end in the in-sync set,
// whatever was only fetched or is only written, and that it stays in the cases that are listed.
func TestHighWatermark(t *testing.T) {
	type ends struct{ fetched, durable record.Offset }
	for _, tc := range []struct {
		name       string
		isr        []int32
		minISR     int
		end, own   record.Offset // of the leader: written, durable
		two, three ends          // 0: it has not fetched
		want       record.Offset // from 5, long after the epoch began: nobody is about to join
	}{
		{"the leader alone", []int32{1}, 1, 20, 15, ends{}, ends{}, 15},
		{"the slowest of three", []int32{1, 2, 3}, 1, 20, 20, ends{20, 12}, ends{15, 15}, 12},
		{"the leader is the slowest", []int32{1, 2, 3}, 1, 20, 11, ends{20, 20}, ends{20, 20}, 11},
		{"the followers have fetched more than they have on disk", []int32{1, 2, 3}, 1, 20, 20, ends{20, 13}, ends{20, 14}, 13},
		{"a slow replica that is not in sync", []int32{1, 2}, 1, 20, 20, ends{18, 18}, ends{6, 6}, 18},
		{"a member that has not fetched in this epoch", []int32{1, 2}, 1, 20, 20, ends{}, ends{20, 20}, 5},
		{"a member that is no replica", []int32{1, 4}, 1, 20, 20, ends{20, 20}, ends{20, 20}, 5},
		{"the leader is not in sync itself", []int32{2}, 1, 20, 12, ends{14, 14}, ends{}, 12},
		{"nobody is in sync", nil, 1, 20, 20, ends{20, 20}, ends{}, 5},
		{"too few in sync", []int32{1}, 2, 20, 20, ends{12, 12}, ends{}, 5},
		{"just enough in sync", []int32{1, 2}, 2, 20, 20, ends{19, 19}, ends{}, 19},
	} {
		a := replicas(tc.isr...)
		a.MinISR = tc.minISR
		w := lead(t, a, 5)
		w.append(tc.end, tc.own)
		w.now = 20 * time.Second
		for id, e := range map[int32]ends{2: tc.two, 3: tc.three} {
			if e.fetched > 0 {
				w.fetch(id, e.fetched, e.durable)
			}
		}
		w.wantHW(tc.want, tc.name)
	}
}

// TestHighWatermarkIsSafe proves, for any script of reports and in-sync sets, that the high
// watermark never falls and never rises above the durable end of a member, nor while too few are
// in sync.
func TestHighWatermarkIsSafe(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a := replicas(1)
		a.MinISR = rapid.IntRange(1, 3).Draw(rt, "min")
		w := lead(t, a, 0)
		ends := map[int32]record.Offset{1: 10}
		hw := w.l.HighWatermark()
		check := func(rt *rapid.T) {
			rt.Helper()
			next := w.l.HighWatermark()
			if next < hw {
				rt.Fatalf("it falls from %d to %d", hw, next)
			}
			for _, id := range w.a.ISR {
				if end, known := ends[id]; next > hw && (!known || next > end) {
					rt.Fatalf("it rises to %d, replica %d has %d (known: %v)", next, id, end, known)
				}
			}
			if next > hw && len(w.a.ISR) < w.a.MinISR {
				rt.Fatalf("it rises with %d in sync of %d", len(w.a.ISR), w.a.MinISR)
			}
			hw = next
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			id := rapid.Int32Range(1, 3).Draw(rt, "replica")
			more := record.Offset(rapid.IntRange(0, 5).Draw(rt, "more"))
			if id == 1 {
				ends[1] += more
				w.grow(ends[1])
			} else {
				ends[id] = min(ends[id]+more, ends[1])
				w.fetch(id, ends[id], ends[id])
			}
			check(rt)
			if rapid.Bool().Draw(rt, "change") {
				w.assign(rapid.SliceOfNDistinct(rapid.Int32Range(1, 3), 0, 3, rapid.ID[int32]).Draw(rt, "isr")...)
				check(rt)
			}
		}
	})
}

// TestJoin proves when a replica is proposed for the in-sync set.
func TestJoin(t *testing.T) {
	for _, tc := range []struct {
		name             string
		fetched, durable record.Offset
		broker           Broker
		want             bool
	}{
		{"all is on its disk", 20, 20, Broker{102, true}, true},
		{"the high watermark and the start of the epoch are on its disk", 15, 15, Broker{102, true}, true},
		{"it has fetched all, and not synced it", 20, 14, Broker{102, true}, false},
		{"it is fenced or leaving", 20, 20, Broker{102, false}, false},
		{"the metadata knows no such broker", 20, 20, Broker{}, false},
		{"the metadata does not know its registration yet", 20, 20, Broker{99, true}, false},
	} {
		w := lead(t, replicas(1), 10)
		w.grow(15)
		w.append(20, 15) // the high watermark is 15
		w.l.BrokersChanged(w.now, Brokers{1: alive[1], 2: tc.broker})
		w.fetch(2, tc.fetched, tc.durable)
		p, ok := w.l.Propose(w.now)
		if ok != tc.want {
			t.Errorf("%s: proposed %v", tc.name, p.ISR)
		}
		want := []Member{{1, 101}, {2, 102}}
		if ok && (p.Epoch != 5 || p.PartitionEpoch != 7 || !slices.Equal(p.ISR, want)) {
			t.Errorf("%s: %+v", tc.name, p)
		}
	}
}

// TestJoinNeedsTheStartOfTheEpoch proves that a replica is not in sync with a new leader before
// it has all that the leader had when its epoch began: there may be committed records beyond the
// high watermark that the leader knows.
func TestJoinNeedsTheStartOfTheEpoch(t *testing.T) {
	w := lead(t, replicas(1, 3), 5) // 3 is silent, so the high watermark stays at 5
	w.fetch(2, 9, 9)
	w.wantProposal("below the start of the epoch")
	w.fetch(2, 10, 10)
	w.wantProposal("at the start of the epoch", 1, 3, 2)
}

// TestProposedReplicasCount proves that a replica which was proposed holds the high watermark
// back until the partition epoch rises, whatever became of the request; and that the leader asks
// again after a pause: at last for the set as it is, so that the epoch rises.
func TestProposedReplicasCount(t *testing.T) {
	begin := func(t *testing.T) (*leading, Proposal) {
		t.Helper()
		w := lead(t, replicas(1), 10)
		w.fetch(2, 10, 10)
		p := w.wantProposal("it has all", 1, 2)
		w.grow(20)
		w.wantHW(10, "while it is proposed")
		w.wantProposal("one is under way")
		return w, p
	}
	t.Run("accepted", func(t *testing.T) {
		w, p := begin(t)
		w.l.Answered(w.now, p.Attempt)
		w.wantHW(10, "the answer alone")
		w.assign(1, 2)
		w.wantHW(10, "in sync")
		w.fetch(2, 20, 20)
		w.wantHW(20, "it has all again")
		w.now += time.Hour
		w.fetch(2, 20, 20)
		w.wantProposal("nothing is to be changed")
	})
	t.Run("overtaken by the metadata", func(t *testing.T) {
		w, p := begin(t)
		w.assign(1)
		w.wantHW(10, "it is still about to join")
		again := w.wantProposal("it had reached the high watermark", 1, 2)
		w.l.Answered(w.now, p.Attempt)
		w.wantProposal("the late answer is to an earlier attempt")
		if again.PartitionEpoch != 8 {
			t.Errorf("%+v", again)
		}
	})
	// After all others the leader knows nothing: a copy of the request may be under way.
	for _, end := range []string{"refused", "stale", "lost"} {
		t.Run(end, func(t *testing.T) {
			w, p := begin(t)
			w.l.Answered(w.now, p.Attempt)
			w.l.BrokersChanged(w.now, Brokers{1: alive[1]}) // it may not join any more
			w.grow(30)
			w.wantHW(10, "its place is not known")
			w.wantProposal("in the pause")
			w.now += time.Second
			p = w.wantProposal("after the pause: as it is", 1)
			w.l.Answered(w.now, p.Attempt)
			w.wantHW(10, "the answer moves nothing")
			w.assign(1)
			w.wantHW(30, "the old request is void now")
			w.wantProposal("settled")
		})
	}
}

// TestWaitsForReplicasThatAreAboutToJoin proves that the high watermark does not run away from a
// replica that keeps up, while records come all the time.
func TestWaitsForReplicasThatAreAboutToJoin(t *testing.T) {
	w := lead(t, replicas(1), 10)
	w.fetch(2, 10, 9)
	w.wantProposal("one record is missing")
	w.now += time.Second
	w.l.Reported(w.now, Report{Replica: 2, BrokerEpoch: 102, Epoch: 5, Durable: 10})
	w.grow(20)
	w.wantHW(10, "it is not in sync, and was so a moment ago")
	w.wantProposal("it has reached the high watermark", 1, 2)

	w = lead(t, replicas(1), 10)
	w.fetch(2, 9, 9)
	w.grow(20)
	w.wantHW(20, "one that never had all is not waited for")
}

// TestLeave proves that a replica leaves the in-sync set exactly if for the lag limit its disk did
// not have all that the leader had.
func TestLeave(t *testing.T) {
	const limit = 10 * time.Second
	t.Run("silent from the start", func(t *testing.T) {
		w := lead(t, replicas(1, 2, 3), 10)
		w.fetch(3, 10, 10)
		w.now = limit
		w.wantProposal("at the limit")
		w.now++
		w.wantProposal("after it", 1, 3)
	})
	t.Run("idle", func(t *testing.T) {
		w := lead(t, replicas(1, 2), 10)
		w.fetch(2, 10, 10)
		w.now = time.Hour
		w.l.Tick(w.now)
		w.wantProposal("it has all that there is")
	})
	t.Run("idle until records come", func(t *testing.T) {
		w := lead(t, replicas(1, 2), 10)
		w.fetch(2, 10, 10)
		w.now = time.Hour
		w.grow(20)
		w.wantProposal("it had all until now, and need not fetch while there is nothing")
		w.now += limit
		w.grow(30)
		w.wantProposal("at the limit")
		w.now++
		w.wantProposal("after it", 1)
	})
	t.Run("a disk that hangs", func(t *testing.T) {
		w := lead(t, replicas(1, 2), 10)
		w.fetch(2, 10, 10)
		for range 12 { // it had all until the first record came, after a second
			w.now += time.Second
			w.grow(w.own.End + 1)
			w.fetch(2, w.own.End, 10)
		}
		w.wantProposal("it has fetched all, and has nothing of it on disk", 1)
	})
	t.Run("always a little behind", func(t *testing.T) {
		w := lead(t, replicas(1, 2), 10)
		w.fetch(2, 10, 10)
		for range 100 {
			w.now += time.Second
			w.grow(w.own.End + 10)
			w.fetch(2, w.own.End-10, w.own.End-25)
			w.wantProposal("it is two and a half seconds behind")
		}
	})
	t.Run("slower than the records come", func(t *testing.T) {
		w := lead(t, replicas(1, 2), 10)
		w.fetch(2, 10, 10)
		for i := record.Offset(1); i < 40; i++ {
			w.now += time.Second
			w.grow(w.own.End + 10)
			w.fetch(2, 10+3*i, 10+3*i)
		}
		w.wantProposal("it needs three times as long as there is", 1)
	})
	t.Run("it has joined a moment ago", func(t *testing.T) {
		a := replicas(1)
		a.MinISR = 2
		w := lead(t, a, 10)
		w.now = time.Hour
		w.grow(1000)
		w.fetch(2, 10, 10)
		w.wantProposal("it has reached the high watermark", 1, 2)
		w.assign(1, 2)
		w.now += limit
		w.wantProposal("it has the limit to catch up")
		w.now++
		w.wantProposal("it has not", 1)
	})
}

// TestAwaitsTime proves that a leader is to be told of the time exactly while a follower that is waited
// for lacks something, or a pause goes on.
func TestAwaitsTime(t *testing.T) {
	w := lead(t, replicas(1, 2), 10)
	want := func(want bool, why string) {
		t.Helper()
		if got := w.l.AwaitsTime(); got != want {
			t.Errorf("%s: %v", why, got)
		}
	}
	want(true, "a member has not fetched yet")
	w.fetch(2, 10, 10)
	want(false, "it has all")
	w.grow(20)
	want(true, "it is behind")
	w.now = 11 * time.Second
	p := w.wantProposal("it is late", 1)
	w.fetch(2, 20, 20)
	want(false, "it has all, and the answer to come is an event")
	w.l.Answered(w.now, p.Attempt)
	want(true, "the pause after the answer")
	w.assign(1)
	want(false, "the metadata have the change")
	w.fetch(3, 5, 5)
	want(true, "one that may join is behind")
	w.l.BrokersChanged(w.now, Brokers{1: alive[1], 2: alive[2], 3: {Epoch: 103}})
	want(false, "it is fenced")
}

// TestFollowerEnds proves that the ends of a follower's log are those of its last fetch, once the
// logs were compared.
func TestFollowerEnds(t *testing.T) {
	w := lead(t, replicas(1, 2), 10)
	if _, _, ok := w.l.FollowerEnds(2); ok {
		t.Error("it has not fetched yet")
	}
	f := Fetch{Replica: 2, BrokerEpoch: 102, Epoch: 5, Offset: 8, LastEpoch: record.NoEpoch, Start: 3, Durable: 7}
	w.l.Fetched(w.now, &f, Tail{})
	if start, end, ok := w.l.FollowerEnds(2); !ok || start != 3 || end != 8 {
		t.Errorf("%d to %d, %v", start, end, ok)
	}
	if _, _, ok := w.l.FollowerEnds(7); ok {
		t.Error("node 7 is no replica")
	}
}

// TestReadable proves that a new leader tells readers of no high watermark before it has reached
// the start of its epoch.
func TestReadable(t *testing.T) {
	w := lead(t, replicas(1, 2), 5)
	if hw, ok := w.l.Readable(); ok {
		t.Errorf("readable at %d", hw)
	}
	w.fetch(2, 9, 9)
	if hw, ok := w.l.Readable(); ok {
		t.Errorf("readable at %d", hw)
	}
	w.fetch(2, 10, 10)
	if hw, ok := w.l.Readable(); !ok || hw != 10 {
		t.Errorf("at %d: %v", hw, ok)
	}
}

// TestAcked proves that an acknowledgement needs the high watermark, and at the time of the
// answer min.insync.replicas in the maximal set.
func TestAcked(t *testing.T) {
	a := replicas(1, 2)
	a.MinISR = 2
	w := lead(t, a, 10)
	w.grow(12)
	want := func(done, enough bool, why string) {
		t.Helper()
		if d, e := w.l.Acked(12); d != done || e != enough {
			t.Errorf("%s: done %v, enough %v", why, d, e)
		}
	}
	w.fetch(2, 12, 11)
	want(false, true, "it is not on the second disk")
	w.fetch(2, 12, 12)
	want(true, true, "it is")
	w.assign(1)
	want(true, false, "too few by now")
	w.wantProposal("it may join again", 1, 2)
	want(true, true, "proposed ones count, too")
}

// TestFetched proves the verdict about each fetch, and which fetches count as reports.
func TestFetched(t *testing.T) {
	good := Fetch{Replica: 2, BrokerEpoch: 102, Epoch: 5, Offset: 20, LastEpoch: 4, Durable: 20}
	for _, tc := range []struct {
		name string
		edit func(*Fetch)
		tail Tail
		want Verdict
	}{
		{"it agrees", func(*Fetch) {}, Tail{4, 20}, Served},
		{"it agrees, and is behind", func(f *Fetch) { f.Offset = 15 }, Tail{4, 20}, Served},
		{"it has no records", func(f *Fetch) { f.Start, f.Offset, f.LastEpoch = 3, 3, record.NoEpoch }, Tail{record.NoEpoch, -1}, Served},
		{"an epoch that the leader does not have", func(*Fetch) {}, Tail{3, 20}, Diverged},
		{"more of the epoch than the leader has", func(*Fetch) {}, Tail{4, 19}, Diverged},
		{"below the start", func(f *Fetch) { f.Offset = 2 }, Tail{4, 20}, OutOfRange},
		{"beyond the end without an epoch", func(f *Fetch) { f.Offset, f.LastEpoch = 21, record.NoEpoch }, Tail{}, OutOfRange},
		{"the leader does not know of such epochs", func(*Fetch) {}, Tail{record.NoEpoch, -1}, OutOfRange},
		{"an old epoch", func(f *Fetch) { f.Epoch = 4 }, Tail{4, 20}, FencedEpoch},
		{"a later epoch", func(f *Fetch) { f.Epoch = 6 }, Tail{4, 20}, UnknownEpoch},
		{"not a replica", func(f *Fetch) { f.Replica = 9 }, Tail{4, 20}, UnknownEpoch},
		{"an earlier incarnation", func(f *Fetch) { f.BrokerEpoch = 101 }, Tail{4, 20}, StaleBroker},
	} {
		w := lead(t, replicas(1, 2), 5)
		w.own.Start = 3
		w.grow(20)
		f := good
		tc.edit(&f)
		if v := w.l.Fetched(0, &f, tc.tail); v != tc.want {
			t.Errorf("%s: verdict %d, want %d", tc.name, v, tc.want)
		}
		want := record.Offset(5)
		if tc.want == Served {
			want = max(5, f.Offset)
		}
		w.wantHW(want, tc.name)
	}
}

// TestReported proves that a report counts only from a replica that was compared in this epoch and
// incarnation, only up to the end of the leader's log, and that an old one changes nothing.
func TestReported(t *testing.T) {
	w := lead(t, replicas(1, 2), 5)
	w.grow(20)
	report := func(broker int64, epoch record.Epoch, durable record.Offset) {
		w.l.Reported(w.now, Report{Replica: 2, BrokerEpoch: broker, Epoch: epoch, Durable: durable})
	}
	report(102, 5, 20)
	w.wantHW(5, "before the logs are compared")
	w.fetch(2, 12, 7)
	w.wantHW(7, "with the fetch")
	report(102, 4, 12)
	report(101, 5, 12)
	w.wantHW(7, "in another epoch or incarnation")
	report(102, 5, 12)
	w.wantHW(12, "compared")
	report(102, 5, 9)
	w.grow(21)
	report(102, 5, 99)
	w.wantHW(21, "no more than the leader has")

	// A later incarnation may have lost records: what the earlier one reported does not count.
	next := Brokers{1: alive[1], 2: {Epoch: 112, MayJoin: true}}
	w.l.BrokersChanged(w.now, next)
	w.l.Fetched(w.now, &Fetch{Replica: 2, BrokerEpoch: 112, Epoch: 5, Offset: 15, LastEpoch: 5, Durable: 15}, Tail{5, 21})
	w.grow(30)
	report(102, 5, 30)
	w.wantHW(21, "the earlier incarnation's report comes late")
	report(112, 5, 30)
	w.wantHW(30, "the present one's")
}

// TestReassignment proves that added replicas are not needed for min.insync.replicas, can join,
// and that removed ones are forgotten.
func TestReassignment(t *testing.T) {
	a := Assignment{PartitionEpoch: 1, Replicas: []int32{1, 2, 3}, Adding: []int32{2, 3}, ISR: []int32{1}, MinISR: 2}
	w := lead(t, a, 10)
	w.grow(12)
	w.wantHW(12, "as before the reassignment")
	w.fetch(2, 12, 12)
	w.wantProposal("an added one has all", 1, 2)
	w.a.Replicas, w.a.Adding = []int32{1, 2}, nil
	w.assign(1, 2)
	w.grow(13)
	w.wantHW(12, "two are in sync")
	f := Fetch{Replica: 3, BrokerEpoch: 103, Epoch: 5, Offset: 12, LastEpoch: record.NoEpoch}
	if v := w.l.Fetched(w.now, &f, Tail{}); v != UnknownEpoch {
		t.Errorf("a replica that was removed: verdict %d", v)
	}
	w.a.Replicas = []int32{1}
	w.assign(1)
	w.wantHW(13, "alone again")
}

// TestReplicaAddedAgain proves that a replica which was removed and added again, with a new log,
// begins anew with the leader: even if the leader hears of both changes at once, and messages
// from before come late.
func TestReplicaAddedAgain(t *testing.T) {
	w := lead(t, replicas(1, 2), 10)
	w.fetch(2, 10, 10)
	w.fetch(3, 10, 10)
	w.a.Adding, w.a.AddingSince, w.a.PartitionEpoch = []int32{3}, 9, 8
	w.assign(1, 2)
	w.wantProposal("nothing is known of the new log")
	old := Fetch{Replica: 3, BrokerEpoch: 103, Epoch: 5, Assigned: 8, Offset: 10, LastEpoch: record.NoEpoch, Durable: 10}
	if v := w.l.Fetched(w.now, &old, Tail{}); v != UnknownEpoch {
		t.Errorf("a fetch from before: verdict %d", v)
	}
	now := old
	now.Assigned, now.Offset, now.Durable = 9, 3, 3
	if v := w.l.Fetched(w.now, &now, Tail{}); v != Served {
		t.Errorf("a fetch of the new log: verdict %d", v)
	}
	w.l.Reported(w.now, Report{Replica: 3, BrokerEpoch: 103, Epoch: 5, Assigned: 8, Durable: 10})
	w.wantProposal("a report from before")
	w.assign(1, 2) // the reassignment goes on
	w.l.Reported(w.now, Report{Replica: 3, BrokerEpoch: 103, Epoch: 5, Assigned: 9, Durable: 10})
	w.wantProposal("the new log has all", 1, 2, 3)
}

// hear has the leader's node hear that of a follower, in its present incarnation.
func (w *leading) hear(id int32, hasRoom bool) {
	w.now += time.Millisecond
	w.l.Heard(id, alive[id].Epoch, w.now, hasRoom)
}

func (w *leading) wantSuccessor(p Proposal, id int32, why string) {
	w.t.Helper()
	if p.GivesUp != (id > 0) || p.GivesUp && p.Successor != id {
		w.t.Errorf("%s: gives up %v to %d, want %d", why, p.GivesUp, p.Successor, id)
	}
}

// TestGivesUp proves that a leader whose log has a fault proposes the set without itself, as soon as a
// member or a replica that is about to join could lead, and not before; and that nobody is late meanwhile.
func TestGivesUp(t *testing.T) {
	w := lead(t, replicas(1), 10)
	w.l.LogChanged(w.now, LogFaulted)
	w.wantProposal("it is alone")
	w.fetch(2, 10, 10)
	w.hear(2, true)
	p := w.wantProposal("a replica is complete", 2)
	w.wantSuccessor(p, 2, "a replica is complete")
	w.l.Answered(w.now, p.Attempt)
	w.assign(1, 2)
	w.wantProposal("it is in the set again", 2)

	w = lead(t, replicas(1, 2, 3), 10)
	w.fetch(2, 10, 10)
	w.append(20, 10)
	w.now += time.Hour
	w.l.BrokersChanged(w.now, Brokers{1: alive[1], 2: {Epoch: 102}, 3: {Epoch: 103}})
	w.l.LogChanged(w.now, LogFaulted)
	w.hear(2, true)
	w.wantProposal("nobody else could lead")
	w.l.BrokersChanged(w.now, Brokers{1: alive[1], 2: alive[2], 3: {Epoch: 103}})
	w.wantSuccessor(w.wantProposal("another one could, and both have been late for an hour", 2, 3), 2, "node 3 is fenced")
}

// TestGivesUpToTheLiving proves that the successor was heard since the fault, in the incarnation that the metadata know, and
// has room: a node that was heard before may be dead. A leader on a full disk stays in sync, and goes on
// when it has room again; one that cannot read its log gives up, too, and judges nobody.
func TestGivesUpToTheLiving(t *testing.T) {
	for _, state := range []LogState{LogRefuses, LogFaulted, LogUnreadable} {
		w := lead(t, replicas(1, 2, 3), 10)
		want := []int32{1, 2, 3}
		switch state {
		case LogFaulted:
			want = []int32{2, 3}
		case LogUnreadable:
			w.l = NewUnreadable(w.now, Config{ID: 1, Lag: 10 * time.Second, Retry: time.Second}, 5, w.a, alive)
			f := Fetch{Replica: 2, BrokerEpoch: 102, Epoch: 5, LastEpoch: record.NoEpoch}
			if v := w.l.Fetched(w.now, &f, Tail{}); v != Unavailable {
				t.Errorf("verdict %d", v)
			}
		default:
		}
		if state != LogUnreadable {
			w.fetch(2, 10, 10)
			w.fetch(3, 10, 10)
			w.hear(2, true)
			w.hear(3, true)
			w.now += time.Millisecond
			w.l.LogChanged(w.now, state)
		}
		if !w.l.AwaitsTime() {
			t.Error("it does not wait for anybody")
		}
		w.wantProposal("nobody was heard since")
		w.hear(2, false)
		w.l.Heard(3, 99, w.now, true)
		w.wantProposal("one is full, and the other one was heard in an earlier incarnation")
		w.hear(3, true)
		w.wantSuccessor(w.wantProposal("node 3 was heard", want...), 3, "node 3 was heard")
	}
	w := lead(t, replicas(1, 2), 10)
	w.fetch(2, 10, 10)
	w.l.LogChanged(w.now, LogRefuses)
	w.l.LogChanged(w.now, LogSound)
	w.hear(2, true)
	w.wantProposal("there is room again")
}

// refuse has a follower say that it cannot store.
func (w *leading) refuse(id int32, offset record.Offset) {
	w.t.Helper()
	f := Fetch{Replica: id, BrokerEpoch: alive[id].Epoch, Epoch: 5, Offset: offset, LastEpoch: record.NoEpoch, CannotStore: true}
	if v := w.l.Fetched(w.now, &f, Tail{}); v != Unavailable {
		w.t.Errorf("verdict %d", v)
	}
}

// TestCannotStore proves that a follower which cannot store leaves the in-sync set at once, that nothing waits for it then, and
// that it joins again when it has stored what it refused.
func TestCannotStore(t *testing.T) {
	w := lead(t, replicas(1, 2, 3), 10)
	w.fetch(2, 10, 10)
	w.fetch(3, 10, 10)
	w.grow(20)
	w.fetch(2, 20, 20)
	w.refuse(3, 10)
	w.wantHW(10, "node 3 is in sync")
	w.l.Answered(w.now, w.wantProposal("it cannot store", 1, 2).Attempt)
	w.assign(1, 2)
	w.wantHW(20, "it is out")
	w.now += 2 * time.Second
	w.wantProposal("it still cannot")
	w.fetch(3, 10, 10)
	w.wantProposal("it tries")
	w.refuse(3, 10)
	w.grow(30)
	w.fetch(2, 30, 30)
	w.wantHW(30, "nobody waits for it")
	w.fetch(3, 10, 10)
	w.fetch(3, 25, 20)
	w.grow(31)
	w.fetch(2, 31, 31)
	w.wantHW(31, "it stores, and is not expected before it has caught up")
	w.wantProposal("it lacks committed records")
	w.fetch(3, 31, 31)
	w.wantProposal("it has everything", 1, 2, 3)
}

// TestCannotStoreAndHasAll proves that a follower whose log could not be opened, or took no records that are not the leader's any
// more, joins when it fetches again and lacks nothing.
func TestCannotStoreAndHasAll(t *testing.T) {
	w := lead(t, replicas(1, 2), 10)
	w.fetch(2, 10, 10)
	w.refuse(3, 0)
	w.fetch(3, 10, 10)
	w.wantProposal("the pause goes on")
	w.now += time.Second
	w.wantProposal("it has everything", 1, 2, 3)
}

// TestRefusalsAreBounded proves that a follower which can store now and then does not join and leave all the time: the pause before
// it joins doubles, up to the lag limit, and is short again after it could store for that long.
func TestRefusalsAreBounded(t *testing.T) {
	w := lead(t, replicas(1, 2), 10)
	w.fetch(2, 10, 10)
	w.fetch(3, 10, 10)
	offset := record.Offset(10)
	pause := func() time.Duration {
		t.Helper()
		w.assign(1, 2, 3)
		w.grow(offset + 10)
		w.fetch(2, offset+10, offset+10)
		began := w.now
		w.refuse(3, offset)
		w.assign(1, 2)
		offset += 10
		for {
			w.fetch(3, offset, offset)
			if p, ok := w.l.Propose(w.now); ok && len(p.ISR) == 3 {
				return w.now - began
			}
			if w.now-began > time.Minute {
				t.Fatal("it does not join")
			}
			w.now += 100 * time.Millisecond
		}
	}
	for _, want := range []int{1, 2, 4, 8, 10, 10} {
		if got := pause(); got != time.Duration(want)*time.Second {
			t.Errorf("the pause is %v, want %v s", got, want)
		}
	}
	w.now += 11 * time.Second
	if got := pause(); got != time.Second {
		t.Errorf("the pause is %v after a while without trouble", got)
	}
}

// TestRestartedFollowerIsNotWaitedFor proves that nothing waits for a follower that has left the in-sync set and comes back far behind, as with
// an empty disk, however short it was away; and that it is waited for when it has caught up.
func TestRestartedFollowerIsNotWaitedFor(t *testing.T) {
	w := lead(t, replicas(1, 2, 3), 10)
	w.fetch(2, 10, 10)
	w.fetch(3, 10, 10)
	w.assign(1, 2)
	w.l.BrokersChanged(w.now, Brokers{1: alive[1], 2: alive[2], 3: {Epoch: 203, MayJoin: true}})
	fetch := func(offset record.Offset) {
		t.Helper()
		f := Fetch{Replica: 3, BrokerEpoch: 203, Epoch: 5, Offset: offset, LastEpoch: record.NoEpoch, Durable: offset}
		if v := w.l.Fetched(w.now, &f, Tail{}); v != Served {
			t.Fatalf("verdict %d", v)
		}
	}
	fetch(0)
	w.grow(20)
	w.fetch(2, 20, 20)
	w.wantHW(20, "it is far behind")
	fetch(20)
	w.grow(30)
	w.fetch(2, 30, 30)
	w.wantHW(20, "it has caught up and is about to join")
}

// TestJoinsWithTheStart proves that a replica joins when its log begins where the leader's does, or later.
func TestJoinsWithTheStart(t *testing.T) {
	w := lead(t, replicas(1, 2), 10)
	w.own.Start = 5
	w.grow(12)
	w.fetch(3, 12, 12)
	w.wantProposal("it has records that the leader has deleted")
	f := Fetch{Replica: 3, BrokerEpoch: alive[3].Epoch, Epoch: 5, Offset: 12, LastEpoch: record.NoEpoch, Start: 5, Durable: 12}
	w.l.Fetched(w.now, &f, Tail{})
	w.wantProposal("it has deleted them", 1, 2, 3)
}

// TestLowWatermark proves that the low watermark is the lowest start of the members of the in-sync set, also of one
// whose broker is leaving, and of the others that are alive; and that it is unknown while too few are in sync.
func TestLowWatermark(t *testing.T) {
	w := lead(t, replicas(1, 2), 10)
	w.a.MinISR = 2
	w.own.Start = 8
	w.grow(12)
	fetch := func(id int32, start record.Offset) {
		f := Fetch{Replica: id, BrokerEpoch: alive[id].Epoch, Epoch: 5, Offset: 12, LastEpoch: record.NoEpoch, Start: start, Durable: 12}
		w.l.Fetched(w.now, &f, Tail{})
	}
	want := func(low record.Offset, why string) {
		t.Helper()
		if got := w.l.LowWatermark(); got != low {
			t.Errorf("%s: the low watermark is %d, want %d", why, got, low)
		}
	}
	want(0, "nobody has fetched")
	fetch(2, 7)
	fetch(3, 4)
	want(4, "all are alive")
	w.l.BrokersChanged(w.now, Brokers{1: alive[1], 2: {Epoch: 102}, 3: {Epoch: 103}})
	want(7, "one is in sync and leaving, the other one is down")
	w.assign(1)
	want(-1, "too few are in sync")
}
