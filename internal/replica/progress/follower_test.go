package progress

import (
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress/memlog"
)

// following is a follower, node 2, with its log. Node 1 leads, in epoch 5, unless a test says
// otherwise.
type following struct {
	t   *testing.T
	f   *Follower
	log *memlog.Log
	now time.Duration
}

// follow makes a follower whose log has a record of each of the epochs.
func follow(t *testing.T, epochs ...record.Epoch) *following {
	t.Helper()
	w := &following{t: t, log: memlog.New(false)}
	for _, e := range epochs {
		w.log.Append(e, uint64(e))
	}
	w.log.Commit()
	w.restart(0)
	w.f.Follow(0, 1, 5, 40, false)
	return w
}

// restart makes the machine of a node that starts.
func (w *following) restart(hw record.Offset) {
	w.f = NewFollower(2, 102, time.Second, Following{Log: w.ends(), LastEpoch: w.last(), HighWatermark: hw})
}

func (w *following) ends() Ends {
	return Ends{Start: w.log.Start(), End: w.log.End(), Durable: w.log.Committed()}
}

func (w *following) last() record.Epoch { return w.log.EpochAt(w.log.End() - 1) }

func (w *following) fetch() Fetch {
	w.t.Helper()
	q, ok := w.f.NextFetch(w.now)
	if !ok {
		w.t.Fatal("there is no fetch to be sent")
	}
	return q
}

// answer answers the fetch q and does the step that the follower asks for.
func (w *following) answer(q Fetch, a Answer) Step {
	w.t.Helper()
	a.ID = q.ID
	var own Tail
	own.Epoch, own.End = w.log.EpochEnd(a.Diverging.Epoch)
	s := w.f.Answered(w.now, &a, own)
	var err error
	switch s.Kind {
	case NoStep:
		return s
	case Truncate:
		err = w.log.Truncate(s.To)
	case Restart:
		err = w.log.Clear(s.To)
	case Append:
		for _, b := range a.Batches[:s.Batches] {
			if err == nil {
				err = w.log.AppendAt(b.Base, memlog.Entry{Epoch: b.Epoch})
			}
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.f.Wrote(w.now, w.ends(), w.last())
	return s
}

// records are batches of one record each, from an offset on.
func records(at record.Offset, epochs ...record.Epoch) []Batch {
	var bs []Batch
	for i, e := range epochs {
		o := at + record.Offset(i)
		bs = append(bs, Batch{o, o + 1, e})
	}
	return bs
}

// TestFollowerFetches proves what a follower asks for and appends, and that it has one fetch under
// way at a time.
func TestFollowerFetches(t *testing.T) {
	w := follow(t, 1, 3)
	q := w.fetch()
	want := Fetch{ID: 1, Replica: 2, BrokerEpoch: 102, Epoch: 5, Assigned: 40, Offset: 2, LastEpoch: 3, Durable: 2}
	if q != want {
		t.Errorf("it asks %+v, want %+v", q, want)
	}
	if _, ok := w.f.NextFetch(w.now); ok {
		t.Error("two fetches are under way")
	}
	w.answer(q, Answer{Batches: records(2, 3, 5, 5), HighWatermark: 4, End: 5})
	if w.f.HighWatermark() != 4 || w.log.End() != 5 {
		t.Errorf("the high watermark is %d of %d", w.f.HighWatermark(), w.log.End())
	}
	want = Fetch{ID: 2, Replica: 2, BrokerEpoch: 102, Epoch: 5, Assigned: 40, Offset: 5, LastEpoch: 5, Durable: 2}
	if q = w.fetch(); q != want {
		t.Errorf("then it asks %+v, want %+v", q, want)
	}
}

// TestTruncation proves where a follower cuts its log, for the leader's answer to the last own
// epoch.
func TestTruncation(t *testing.T) {
	for _, tc := range []struct {
		name   string
		own    []record.Epoch
		leader Tail
		want   record.Offset // the own end after it
	}{
		{"the leader has less of the epoch", []record.Epoch{1, 3, 3, 3}, Tail{3, 2}, 2},
		{"the leader does not have the epoch", []record.Epoch{1, 1, 3, 3}, Tail{1, 2}, 2},
		{"the leader has more of an earlier one", []record.Epoch{1, 1, 3, 3}, Tail{1, 9}, 2},
		{"the leader has less of an earlier one", []record.Epoch{1, 1, 3, 3}, Tail{1, 1}, 1},
		{"the leader has an epoch that the follower does not have", []record.Epoch{1, 1, 3, 3}, Tail{2, 4}, 2},
		{"the same, and it ends below", []record.Epoch{1, 1, 3, 3}, Tail{2, 1}, 1},
		{"all own epochs are later", []record.Epoch{3, 3, 4}, Tail{2, 2}, 0},
	} {
		w := follow(t, tc.own...)
		w.answer(w.fetch(), Answer{Verdict: Diverged, Diverging: tc.leader, HighWatermark: 9, End: 9})
		if got := w.log.End(); got != tc.want {
			t.Errorf("%s: it ends at %d, want %d", tc.name, got, tc.want)
		}
		if q := w.fetch(); q.Offset != tc.want || q.LastEpoch != w.last() || w.f.HighWatermark() != 0 {
			t.Errorf("%s: then it asks %+v, and its high watermark is %d", tc.name, q, w.f.HighWatermark())
		}
	}
}

// TestTruncationKeepsTheStart proves that a cut does not go below the own start, and that one that
// would change nothing is not made again and again.
func TestTruncationKeepsTheStart(t *testing.T) {
	w := follow(t, 1, 3, 3, 3)
	if err := w.log.SetStart(2); err != nil {
		t.Fatal(err)
	}
	w.restart(2)
	w.f.Follow(0, 1, 5, 40, false)
	w.answer(w.fetch(), Answer{Verdict: Diverged, Diverging: Tail{1, 1}})
	if w.log.Start() != 2 || w.log.End() != 2 {
		t.Errorf("it has %d to %d", w.log.Start(), w.log.End())
	}
	if s := w.answer(w.fetch(), Answer{Verdict: Diverged, Diverging: Tail{1, 9}}); s.Kind != NoStep {
		t.Errorf("a cut at the end: %+v", s)
	}
	if _, ok := w.f.NextFetch(w.now); ok {
		t.Error("it asks again at once")
	}
}

// TestParting proves that replicas which have parted over several fast changes of the leader get
// equal logs (KIP-279): a follower has records of an epoch that the leader never saw, between
// epochs that both have.
func TestParting(t *testing.T) {
	leader := memlog.New(false)
	for _, e := range []record.Epoch{1, 1, 2, 4, 4} {
		leader.Append(e, uint64(e))
	}
	if err := leader.BeginEpoch(5); err != nil {
		t.Fatal(err)
	}
	w := follow(t, 1, 1, 2, 3, 3, 3, 3)
	l := NewLeader(0, Config{ID: 1}, Start{Epoch: 5, EpochStart: 5, Log: Ends{End: 5, Durable: 5}}, replicas(1), alive)
	for range 20 {
		q := w.fetch()
		var tail Tail
		tail.Epoch, tail.End = leader.EpochEnd(q.LastEpoch)
		a := Answer{Verdict: l.Fetched(0, &q, tail), Diverging: tail, End: leader.End()}
		if a.Verdict == Served {
			es, err := leader.Read(q.Offset, 1)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range es {
				a.Batches = append(a.Batches, Batch{q.Offset, q.Offset + 1, e.Epoch})
			}
		}
		w.answer(q, a)
	}
	for o := range leader.End() {
		if got, want := w.log.EpochAt(o), leader.EpochAt(o); got != want {
			t.Errorf("at %d the epochs are %d and %d", o, got, want)
		}
	}
	if w.log.End() != leader.End() {
		t.Errorf("they end at %d and %d", w.log.End(), leader.End())
	}
}

// TestEpochWithoutRecords proves that a follower which led in an epoch without a record names the
// epoch of its last record, not that one: no cut could ever remove it (KAFKA-10706).
func TestEpochWithoutRecords(t *testing.T) {
	w := follow(t, 1, 3)
	if err := w.log.BeginEpoch(4); err != nil {
		t.Fatal(err)
	}
	w.restart(0)
	w.f.Follow(0, 1, 5, 40, false)
	if q := w.fetch(); q.LastEpoch != 3 {
		t.Errorf("it names epoch %d", q.LastEpoch)
	}
}

// TestEmptyAnswerKeepsTheEpoch proves that an answer without records leaves the epoch that the
// next fetch names (KAFKA-15510), also if the leader's start has moved to the end.
func TestEmptyAnswerKeepsTheEpoch(t *testing.T) {
	w := follow(t, 1, 3)
	w.answer(w.fetch(), Answer{HighWatermark: 2, Start: 2, End: 2})
	if q := w.fetch(); q.LastEpoch != 3 || q.Start != 2 {
		t.Errorf("it asks %+v", q)
	}
}

// TestFollowerWatermark proves that a follower's high watermark is never above its own end, that
// its start is the leader's as far as the high watermark, and where both are after a restart.
func TestFollowerWatermark(t *testing.T) {
	w := follow(t, 1, 3)
	w.answer(w.fetch(), Answer{HighWatermark: 9, Start: 0, End: 9})
	if hw := w.f.HighWatermark(); hw != 2 {
		t.Errorf("it is %d", hw)
	}
	w.answer(w.fetch(), Answer{Batches: records(2, 5, 5), HighWatermark: 3, Start: 4, End: 9})
	if hw, start := w.f.HighWatermark(), w.f.Start(); hw != 3 || start != 3 {
		t.Errorf("it is %d, the start %d", hw, start)
	}
	w.answer(w.fetch(), Answer{HighWatermark: 1, Start: 1, End: 9})
	if hw, start := w.f.HighWatermark(), w.f.Start(); hw != 3 || start != 3 {
		t.Errorf("it falls to %d, the start to %d", hw, start)
	}
	w.log.Crash(0) // the two records of epoch 5 are lost
	w.restart(4)
	if hw := w.f.HighWatermark(); hw != 2 {
		t.Errorf("after the crash it is %d", hw)
	}
}

// TestOutOfRange proves that a follower whose records are all below the leader's start begins anew
// there, and that one beyond the leader's end cuts there and asks again.
func TestOutOfRange(t *testing.T) {
	for _, tc := range []struct {
		name             string
		ownStart         record.Offset
		start, end       record.Offset // of the leader
		wantStart, wants record.Offset
	}{
		{"below the start", 0, 7, 9, 7, 7},
		{"at the start", 0, 4, 9, 4, 4},
		{"beyond the end", 0, 0, 3, 0, 3},
		{"beyond the end, which is below the own start", 2, 0, 1, 0, 0},
	} {
		w := follow(t, 1, 3, 3, 3)
		if err := w.log.SetStart(tc.ownStart); err != nil {
			t.Fatal(err)
		}
		w.restart(tc.ownStart)
		w.f.Follow(0, 1, 5, 40, false)
		w.answer(w.fetch(), Answer{Verdict: OutOfRange, Start: tc.start, End: tc.end, HighWatermark: tc.end})
		if w.log.Start() != tc.wantStart || w.log.End() != tc.wants {
			t.Errorf("%s: it has %d to %d", tc.name, w.log.Start(), w.log.End())
		}
		if q := w.fetch(); q.Offset != tc.wants || w.f.HighWatermark() > tc.wants || w.f.HighWatermark() < tc.wantStart {
			t.Errorf("%s: it asks %+v, its high watermark is %d", tc.name, q, w.f.HighWatermark())
		}
	}
}

// TestRefusedFetch proves when a follower asks again after each answer of no use, and after none.
func TestRefusedFetch(t *testing.T) {
	for _, tc := range []struct {
		verdict Verdict
		waits   bool // for metadata; else for the pause
	}{{FencedEpoch, true}, {UnknownEpoch, false}, {StaleBroker, false}, {Unavailable, false}} {
		w := follow(t, 1)
		if s := w.answer(w.fetch(), Answer{Verdict: tc.verdict, HighWatermark: 9, Start: 9}); s.Kind != NoStep || w.f.Start() != 0 {
			t.Errorf("verdict %d: step %v, start %d", tc.verdict, s, w.f.Start())
		}
		if _, ok := w.f.NextFetch(w.now + time.Second - 1); ok {
			t.Errorf("verdict %d: it asks again at once", tc.verdict)
		}
		if _, ok := w.f.NextFetch(w.now + time.Second); ok == tc.waits {
			t.Errorf("verdict %d: after the pause it asks again: %v", tc.verdict, ok)
		}
		w.f.Follow(w.now, 1, 5, 40, false) // this is known
		w.f.Follow(w.now, 3, 6, 40, false)
		if q := w.fetch(); q.Epoch != 6 {
			t.Errorf("verdict %d: with new metadata it asks %+v", tc.verdict, q)
		}
	}
	w := follow(t, 1)
	q := w.fetch()
	w.f.FetchLost(w.now, q.ID-1)
	if _, ok := w.f.NextFetch(time.Hour); ok {
		t.Error("an earlier fetch is lost, and it does not wait for the present one")
	}
	w.f.FetchLost(w.now, q.ID)
	if again, ok := w.f.NextFetch(w.now + time.Second); !ok || again.ID == q.ID {
		t.Errorf("after a lost one it asks %+v, %v", again, ok)
	}
}

// TestNoLeader proves that a follower without a leader asks nobody.
func TestNoLeader(t *testing.T) {
	w := follow(t, 1)
	w.answer(w.fetch(), Answer{})
	w.f.Follow(w.now, -1, 6, 40, false)
	if q, ok := w.f.NextFetch(time.Hour); ok {
		t.Errorf("it asks %+v", q)
	}
	w.f.Synced(1)
	if r, ok := w.f.NextReport(); ok {
		t.Errorf("it reports %+v", r)
	}
}

// TestBatchesThatDoNotFollow proves that of an answer only the batches are appended that follow
// the log, and none of a later epoch than the fetch's (KAFKA-18723).
func TestBatchesThatDoNotFollow(t *testing.T) {
	for _, tc := range []struct {
		name    string
		batches []Batch
		want    record.Offset // the own end after it
	}{
		{"all follow", records(2, 3, 4, 5), 5},
		{"below the end", records(1, 3, 3), 2},
		{"an epoch falls", records(2, 4, 3), 3},
		{"an epoch is below the log's", records(2, 2), 2},
		{"an epoch after the leader's", records(2, 5, 6), 3},
		{"an empty batch", []Batch{{2, 2, 3}}, 2},
	} {
		w := follow(t, 1, 3)
		w.answer(w.fetch(), Answer{Batches: tc.batches, End: 9})
		if got := w.log.End(); got != tc.want {
			t.Errorf("%s: it ends at %d, want %d", tc.name, got, tc.want)
		}
		if _, ok := w.f.NextFetch(w.now); ok != (tc.want > 2) {
			t.Errorf("%s: it asks again at once: %v", tc.name, ok)
		}
	}
}

// TestLogBeginsWithinBatch proves that a log without records takes a batch that begins before its end,
// since the leader's start may lie there; that one with records does not; and that a follower whose
// records are all deleted at the leader comes to have none.
func TestLogBeginsWithinBatch(t *testing.T) {
	across := []Batch{{1, 4, 5}, {4, 5, 5}}
	w := follow(t, 1, 3)
	if s := w.answer(w.fetch(), Answer{Batches: across, HighWatermark: 5, Start: 2, End: 5}); s.Kind != NoStep {
		t.Fatalf("with records: %+v", s)
	}
	if w.f.Start() != 2 || w.f.HighWatermark() != 2 {
		t.Fatalf("the start is %d, the high watermark %d", w.f.Start(), w.f.HighWatermark())
	}
	w.now += time.Second
	s := w.f.Answered(w.now, &Answer{ID: w.fetch().ID, Batches: across, HighWatermark: 5, Start: 2, End: 5}, Tail{})
	if s.Kind != Append || s.Batches != 2 {
		t.Errorf("without records: %+v", s)
	}
	w = follow(t)
	s = w.f.Answered(w.now, &Answer{ID: w.fetch().ID, Batches: []Batch{{0, 0, 5}}, End: 5}, Tail{})
	if s.Kind != NoStep {
		t.Errorf("a batch that ends where the log does: %+v", s)
	}
}

// TestRetryAt proves that a follower says from when on it fetches, and that it waits for an event in
// other states.
func TestRetryAt(t *testing.T) {
	w := follow(t, 1)
	want := func(at time.Duration, ok bool, why string) {
		t.Helper()
		if gotAt, got := w.f.RetryAt(); got != ok || ok && gotAt != at {
			t.Errorf("%s: at %v, %v", why, gotAt, got)
		}
	}
	want(0, true, "it has begun to follow")
	q := w.fetch()
	want(0, false, "a fetch is under way")
	w.now = 7 * time.Second
	w.f.FetchLost(w.now, q.ID)
	want(8*time.Second, true, "the fetch is lost")
	if _, ok := w.f.NextFetch(w.now); ok {
		t.Error("it fetches in the pause")
	}
	w.f.Follow(w.now, -1, 6, 41, false)
	want(0, false, "nobody leads")
}

// TestLateAnswers proves that answers to earlier fetches are not heeded, and that a leader which
// comes while a write is under way is followed after it.
func TestLateAnswers(t *testing.T) {
	w := follow(t, 1, 3)
	old := w.fetch()
	w.f.Follow(w.now, 3, 6, 40, false)
	if s := w.answer(old, Answer{Batches: records(2, 5)}); s.Kind != NoStep {
		t.Errorf("before the next fetch: %+v", s)
	}
	q := w.fetch()
	if s := w.answer(old, Answer{Batches: records(2, 5)}); s.Kind != NoStep {
		t.Errorf("after the next fetch: %+v", s)
	}
	s := w.f.Answered(w.now, &Answer{ID: q.ID, Batches: records(2, 6), HighWatermark: 3}, Tail{})
	if s.Kind != Append {
		t.Fatalf("step %+v", s)
	}
	w.f.Follow(w.now, 1, 7, 40, false)
	if _, ok := w.f.NextFetch(w.now); ok {
		t.Error("it fetches while it writes")
	}
	if err := w.log.AppendAt(2, memlog.Entry{Epoch: 6}); err != nil {
		t.Fatal(err)
	}
	w.f.Wrote(w.now, w.ends(), w.last())
	if q := w.fetch(); q.Epoch != 7 || q.Offset != 3 || q.LastEpoch != 6 || w.f.HighWatermark() != 3 {
		t.Errorf("then it asks %+v, its high watermark is %d", q, w.f.HighWatermark())
	}
}

// TestWriteFailed proves that the leader is told at once of a failed write, and of a fault; that records are asked for again
// when the owner says so, after the leader was told, and after a pause; and that a log with a fault asks for none, also of another leader.
func TestWriteFailed(t *testing.T) {
	w := follow(t, 1)
	fail := func(isLasting bool) {
		t.Helper()
		q := w.fetch()
		if q.CannotStore {
			t.Fatal("it asks for no records")
		}
		w.f.Answered(w.now, &Answer{ID: q.ID, Batches: records(1, 5), HighWatermark: 2}, Tail{})
		w.f.WriteFailed(w.now, isLasting)
		if w.f.HighWatermark() != 0 {
			t.Errorf("the high watermark is %d", w.f.HighWatermark())
		}
	}
	tell := func() {
		t.Helper()
		w.f.TryStoring() // too early: the leader was not told
		q := w.fetch()
		if !q.CannotStore || q.Offset != 1 || q.Epoch != 5 {
			t.Fatalf("it does not tell the leader: %+v", q)
		}
		if s := w.answer(q, Answer{Batches: records(1, 5)}); s.Kind != NoStep {
			t.Errorf("it asks for %+v", s)
		}
		if q, ok := w.f.NextFetch(w.now); ok {
			t.Errorf("it asks %+v without a pause", q)
		}
		w.now += time.Second
	}
	fail(false)
	tell()
	if q := w.fetch(); !q.CannotStore {
		t.Errorf("nobody has said that it can store again, and it asks %+v", q)
	} else {
		w.answer(q, Answer{Verdict: Unavailable})
	}
	w.now += time.Second
	w.f.TryStoring()
	fail(true)
	tell()
	w.f.TryStoring()
	w.f.Follow(w.now, 3, 6, 40, false)
	if q := w.fetch(); !q.CannotStore || q.Epoch != 6 {
		t.Errorf("it asks another leader %+v", q)
	}
}

// TestFaultUnderAFetch proves that the leader is told at once of a fault that is found while a fetch stands, whose answer
// leads to nothing then, or while a step is done.
func TestFaultUnderAFetch(t *testing.T) {
	w := follow(t, 1)
	q := w.fetch()
	w.f.LogFailed(w.now)
	if s := w.answer(q, Answer{Batches: records(1, 5)}); s.Kind != NoStep {
		t.Errorf("it asks for %+v", s)
	}
	if q := w.fetch(); !q.CannotStore {
		t.Errorf("it asks %+v", q)
	}
	w = follow(t, 1)
	w.f.Answered(w.now, &Answer{ID: w.fetch().ID, Batches: records(1, 5), HighWatermark: 2}, Tail{})
	w.f.LogFailed(w.now)
	w.f.StepDropped(w.now)
	if _, ok := w.f.NextFetch(w.now); ok {
		t.Error("there is no pause after a step that was not done")
	}
	w.now += time.Second
	if q := w.fetch(); !q.CannotStore {
		t.Errorf("it asks %+v", q)
	}
}

// TestReports proves that durable ends are reported between fetches, each once, and not before the
// leader has compared the logs in its epoch.
func TestReports(t *testing.T) {
	w := follow(t, 1)
	report := func(want record.Offset, why string) {
		t.Helper()
		r, ok := w.f.NextReport()
		if ok != (want > 0) || ok && r != (Report{Replica: 2, BrokerEpoch: 102, Epoch: 5, Assigned: 40, Durable: want}) {
			t.Errorf("%s: %v, %v", why, r, ok)
		}
	}
	report(0, "before the first fetch")
	w.answer(w.fetch(), Answer{Batches: records(1, 5), End: 2})
	report(0, "the fetch has said it")
	w.f.Synced(2)
	report(2, "more is on disk, and no fetch is under way")
	report(0, "once")
	w.fetch()
	w.f.Follow(w.now, 3, 6, 40, false)
	report(0, "a new leader has not compared the logs")
}
