package progress

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// rig drives a Mirror by hand, as the leader of a partition whose log it keeps.
type rig struct {
	t   *testing.T
	m   *Mirror
	now time.Duration
	log localLog
	a   Assignment
}

// theTopic is the id of the topic of a rig.
var theTopic = TopicID{7}

// newRig makes a Mirror that leads in local epoch 100. Its log has a batch of one record for each epoch, with the epochs in order.
func newRig(t *testing.T, topic TopicID, epochs ...record.Epoch) *rig {
	t.Helper()
	r := &rig{t: t, m: New(&Config{}), now: time.Hour}
	for i, e := range epochs {
		r.log.append(&batch{Batch: BatchOf(build(t, record.Offset(i), e))})
	}
	r.a = Assignment{Epoch: 100, Settings: Settings{Start: Earliest}, Durable: Durable{State: Mirroring, HasBegun: len(epochs) > 0, Topic: topic}}
	r.m.Lead(r.now, r.a, r.log.state(), Age{-1, -1}, &r.log)
	return r
}

// build makes a batch of one record, or of as many as there are epochs, whose bytes differ by offset and epoch.
func build(t *testing.T, at record.Offset, epoch record.Epoch, more ...record.Epoch) record.Batch {
	t.Helper()
	var bu record.Builder
	for i := range 1 + len(more) {
		bu.Append(1000, nil, fmt.Append(nil, int(at)+i, " of epoch ", epoch))
	}
	b, err := bu.Build()
	if err != nil {
		t.Fatal(err)
	}
	b = slices.Clone(b)
	b.SetBaseOffset(at)
	b.SetLeaderEpoch(epoch)
	return b
}

// next takes the next action, which must be of a kind. Pauses are waited for.
func (r *rig) next(kind ActionKind) Action {
	r.t.Helper()
	if at, ok := r.m.WakeAt(); ok {
		r.now = max(r.now, at)
	}
	r.now += time.Millisecond
	a, ok := r.m.Next(r.now)
	if !ok || a.Kind != kind {
		r.t.Fatalf("%v comes next (%v), want %v; the state is %+v", a.Kind, ok, kind, r.m.Status(r.now))
	}
	return a
}

// none proves that nothing is to be done now.
func (r *rig) none() {
	r.t.Helper()
	if a, ok := r.m.Next(r.now); ok {
		r.t.Fatalf("%v is to be done, want nothing", a.Kind)
	}
}

// lead answers who leads at the source.
func (r *rig) lead(epoch record.Epoch) {
	r.t.Helper()
	r.m.Described(r.now, r.next(FindTopic).ID, &Description{Topic: r.a.Durable.Topic, Leader: 1, LeaderEpoch: epoch, Broker: 2, Asked: r.now})
}

// fetch answers a fetch.
func (r *rig) fetch(a Answer) Action {
	r.t.Helper()
	q := r.next(Fetch)
	a.Compared, a.Nearer = true, -1
	r.m.Fetched(r.now, q.ID, &a)
	return q
}

// store does a change of the log.
func (r *rig) store(kind ActionKind) Action {
	r.t.Helper()
	a := r.next(kind)
	switch kind {
	case Trim:
		r.log.trim(a.Offset)
	case Skip:
		r.log.startAt(a.Offset)
	default:
		for rest := a.Raw; len(rest) > 0; {
			b, next, err := record.Next(rest)
			if err != nil {
				r.t.Fatal(err)
			}
			r.log.append(&batch{Batch: BatchOf(b)})
			rest = next
		}
	}
	r.m.LogChanged(r.now, a.ID, r.log.state(), Trouble{})
	return a
}

// declare has the controller set a state, and the metadata say so.
func (r *rig) declare(s State) Durable {
	r.t.Helper()
	a := r.next(Declare)
	if a.Durable.State != s || a.Was != r.a.Durable || a.Local != r.a.Epoch {
		r.t.Fatalf("%+v is to be declared, want %v", a, s)
	}
	r.m.Decided(r.now, a.ID, Trouble{})
	r.none()
	r.a.Durable = a.Durable
	r.m.Assigned(r.a)
	return a.Durable
}

// is proves what the state is.
func (r *rig) is(s State) Status {
	r.t.Helper()
	got := r.m.Status(r.now)
	if got.State != s {
		r.t.Fatalf("the state is %v: %s, want %v", got.State, got.Reason, s)
	}
	return got
}

// raw are batches one behind the other, from an offset on.
func (r *rig) raw(from record.Offset, epochs ...record.Epoch) (all []byte) {
	for i, e := range epochs {
		all = append(all, build(r.t, from+record.Offset(i), e)...)
	}
	return all
}

// TestNewMirror proves that a mirror which has nothing notes where it begins before it reads, begins there though the source is empty or is not, and follows the source's start.
func TestNewMirror(t *testing.T) {
	r := newRig(t, TopicID{})
	r.is(Preparing)
	r.m.Described(r.now, r.next(FindTopic).ID, &Description{Topic: theTopic, Leader: 1, LeaderEpoch: 3})
	r.m.RangeFound(r.now, r.next(FindRange).ID, SourceRange{40, 100}, Trouble{})
	if d := r.declare(Mirroring); !d.HasBegun || d.Begin != 40 || d.Topic != theTopic {
		t.Fatalf("%+v is declared", d)
	}
	if q := r.fetch(Answer{Start: 40, HighWatermark: 42, Raw: r.raw(40, 2, 3)}); q.Offset != 40 || q.LastEpoch != record.NoEpoch || q.Topic != theTopic || q.LeaderEpoch != 3 || q.Broker != 1 {
		t.Errorf("the fetch is %+v", q)
	}
	if a := r.store(Skip); a.Offset != 40 {
		t.Errorf("the log begins at %d", a.Offset)
	}
	r.store(Append)
	r.is(Mirroring)
	if q := r.fetch(Answer{Start: 41, HighWatermark: 43, Raw: r.raw(42, 3)}); q.Offset != 42 || q.LastEpoch != 3 {
		t.Errorf("the second fetch is %+v", q)
	}
	if a := r.store(Trim); a.Offset != 41 {
		t.Errorf("the start is moved to %d", a.Offset)
	}
	r.store(Append)

	r = newRig(t, TopicID{})
	r.a.Settings.Start = 5000
	r.m.Assigned(r.a)
	r.lead(3)
	if a := r.next(FindBegin); a.Time != 5000 {
		t.Errorf("the time is %d", a.Time)
	} else {
		r.m.BeginFound(r.now, a.ID, -1, Trouble{})
	}
	r.m.RangeFound(r.now, r.next(FindRange).ID, SourceRange{40, 100}, Trouble{})
	if d := r.declare(Mirroring); d.Begin != 100 {
		t.Errorf("all records are older, and it begins at %d", d.Begin)
	}
	r.fetch(Answer{Start: 40, HighWatermark: 100})
	if a := r.store(Skip); a.Offset != 100 {
		t.Errorf("the empty log begins at %d", a.Offset)
	}
}

// TestLocalEpochIsRaised proves that the local leader epoch is raised before a batch of a higher one is fetched, or appended.
func TestLocalEpochIsRaised(t *testing.T) {
	r := newRig(t, theTopic, 3)
	r.lead(3)
	r.m.Described(r.now, 0, &Description{Topic: theTopic, Leader: 1, LeaderEpoch: 101, Broker: 2})
	a := r.next(Raise)
	if a.Epoch != 101 || a.Local != 100 {
		t.Errorf("%+v", a)
	}
	r.m.Decided(r.now, a.ID, Trouble{Lost, "no answer"})
	r.is(Waiting)
	if a := r.next(Raise); a.Epoch != 101 {
		t.Errorf("after a lost answer: %+v", a)
	}
	r.a.Epoch = 2000
	r.m.Lead(r.now, r.a, r.log.state(), Age{-1, -1}, &r.log)
	r.m.Described(r.now, r.next(FindTopic).ID, &Description{Topic: theTopic, Leader: 1, LeaderEpoch: 101})
	r.fetch(Answer{HighWatermark: 1})
}

// TestNothingOfAnotherLeadership proves that what was read in one local leadership, or before a halt, is not appended in the next one.
func TestNothingOfAnotherLeadership(t *testing.T) {
	r := newRig(t, theTopic, 3)
	r.lead(3)
	q := r.next(Fetch)
	r.a.Epoch++
	r.m.Lead(r.now, r.a, r.log.state(), Age{-1, -1}, &r.log)
	r.m.Fetched(r.now, q.ID, &Answer{Compared: true, Nearer: -1, HighWatermark: 2, Raw: r.raw(1, 3)})
	r.lead(3)
	r.fetch(Answer{HighWatermark: 2, Raw: r.raw(1, 3)})
	r.a.IsPaused = true
	r.m.Assigned(r.a)
	r.none()
	r.is(Paused)
	r.a.IsPaused = false
	r.m.Assigned(r.a)
	r.fetch(Answer{HighWatermark: 1})
	q = r.next(Fetch)
	r.m.Resign()
	r.m.Fetched(r.now, q.ID, &Answer{Compared: true, Nearer: -1, HighWatermark: 2, Raw: r.raw(1, 3)})
	r.none()
	r.is(Idle)
}

// TestOldSourcesAreComparedFirst proves that where no fetch compares the logs they are compared before anything is appended: after each change or loss of the leader, and after a topic without an id was
// not read for a while.
func TestOldSourcesAreComparedFirst(t *testing.T) {
	prove := func(r *rig) {
		t.Helper()
		a := r.next(FindEpoch)
		if a.Epoch != 4 {
			t.Errorf("the epoch is %d", a.Epoch)
		}
		r.m.EpochFound(r.now, a.ID, Tail{4, 9}, Trouble{})
		if a = r.next(Reread); a.Offset != 2 {
			t.Errorf("the batch at %d is read again", a.Offset)
		}
		r.m.Reread(r.now, a.ID, r.log.state().Last, Trouble{})
	}
	old := func(r *rig) {
		t.Helper()
		q := r.next(Fetch)
		r.m.Fetched(r.now, q.ID, &Answer{Nearer: -1, HighWatermark: 9, Raw: r.raw(3, 4)})
	}
	r := newRig(t, theTopic, 3, 3, 4)
	r.lead(4)
	old(r) // it was not compared, and is read again
	prove(r)
	old(r)
	r.next(Append)

	r = newRig(t, TopicID{}, 3, 3, 4)
	r.lead(4)
	prove(r) // it has no id
	r.fetch(Answer{HighWatermark: 3})
	q := r.next(Fetch)
	r.m.Fetched(r.now, q.ID, &Answer{Trouble: Trouble{Lost, "the connection broke"}, Nearer: -1})
	if s := r.is(Waiting); !strings.Contains(s.Reason, "the connection broke") {
		t.Errorf("the reason is %q", s.Reason)
	}
	r.lead(4)
	prove(r)
	r.fetch(Answer{HighWatermark: 3})
	r.a.IsPaused = true
	r.m.Assigned(r.a)
	r.now += 2 * time.Second
	r.a.IsPaused = false
	r.m.Assigned(r.a)
	prove(r)
}

// TestTopicMadeAgain proves that another topic of the same name is found, by its id or by the last batch, when the source has said so often enough, and that all is copied anew when a person wants it.
func TestTopicMadeAgain(t *testing.T) {
	r := newRig(t, theTopic, 3)
	begun := r.now
	for r.m.want.Kind == NoAction {
		r.m.Described(r.now, r.next(FindTopic).ID, &Description{Topic: TopicID{8}, Leader: 1, LeaderEpoch: 0})
	}
	if r.now-begun < 5*time.Second {
		t.Errorf("it is believed after %v", r.now-begun)
	}
	r.declare(SourceRecreated)
	r.is(SourceRecreated)

	r = newRig(t, TopicID{}, 3)
	r.lead(3)
	for r.m.want.Kind == NoAction {
		r.m.EpochFound(r.now, r.next(FindEpoch).ID, Tail{3, 9}, Trouble{})
		other := r.log.state().Last
		other.CRC++
		r.m.Reread(r.now, r.next(Reread).ID, other, Trouble{})
	}
	r.declare(SourceRecreated)
	if r.m.Command(Accept) || !r.m.Command(CopyAnew) {
		t.Error("only copying anew makes sense")
	}
	r.declare(Cutting)
	a := r.next(Cut)
	if a.Offset != 0 {
		t.Errorf("the cut is at %d", a.Offset)
	}
	r.m.Decided(r.now, a.ID, Trouble{})
	r.log.cut(0)
	r.a.Epoch++
	r.m.Lead(r.now, r.a, r.log.state(), Age{-1, -1}, &r.log)
	r.declare(Mirroring)
	r.lead(3)
	r.next(FindRange)

	r = newRig(t, theTopic, 3)
	for r.m.want.Kind == NoAction {
		r.m.Described(r.now, r.next(FindTopic).ID, &Description{Trouble: Trouble{Kind: TopicGone}})
	}
	r.declare(SourceDeleted)
	if r.m.Command(CopyAnew) {
		t.Error("a topic that is not there is copied anew")
	}
	r.lead(3)
	r.fetch(Answer{HighWatermark: 1})
	r.declare(Mirroring) // it is there again
}

// TestLogsPart proves where logs part, for logs of some shapes: never before the source's records, and never behind records that the source does not have.
func TestLogsPart(t *testing.T) {
	none := Tail{record.NoEpoch, -1}
	for name, c := range map[string]struct {
		epochs  []record.Epoch // of the local batches
		first   Tail           // the source's answer to the fetch
		answers map[record.Epoch]Tail
		limits  SourceRange
		at      record.Offset
	}{
		"the source has less of the last epoch":        {[]record.Epoch{1, 1, 1, 2, 2, 2}, Tail{2, 4}, nil, SourceRange{}, 4},
		"the source has more of a lower epoch":         {[]record.Epoch{1, 1, 1, 2, 2, 2}, Tail{1, 5}, nil, SourceRange{}, 3},
		"the source has less of a lower epoch":         {[]record.Epoch{1, 1, 1, 2, 2, 2}, Tail{1, 2}, nil, SourceRange{}, 2},
		"the source has an epoch that is not here":     {[]record.Epoch{1, 1, 3, 3, 5, 5}, Tail{4, 5}, map[record.Epoch]Tail{3: {3, 3}}, SourceRange{}, 3},
		"both have epochs that the other one lacks":    {[]record.Epoch{1, 1, 3, 3, 5, 5}, Tail{4, 5}, map[record.Epoch]Tail{3: {2, 4}, 1: {1, 1}}, SourceRange{}, 1},
		"the source does not answer for higher epochs": {[]record.Epoch{1, 1, 3, 3, 5, 5}, Tail{2, 4}, map[record.Epoch]Tail{1: none}, SourceRange{0, 4}, 0},
		"the source has none of the epochs":            {[]record.Epoch{3, 3, 5, 5}, Tail{2, 4}, nil, SourceRange{0, 4}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, theTopic, c.epochs...)
			r.lead(7)
			r.fetch(Answer{HighWatermark: 9, Diverged: &c.first})
			for r.m.want.Kind == NoAction {
				a, ok := r.m.Next(r.now)
				switch {
				case ok && a.Kind == FindEpoch:
					found, known := c.answers[a.Epoch]
					if !known {
						t.Fatalf("epoch %d is asked for", a.Epoch)
					}
					r.m.EpochFound(r.now, a.ID, found, Trouble{})
				case ok && a.Kind == FindRange:
					r.m.RangeFound(r.now, a.ID, c.limits, Trouble{})
				default:
					t.Fatalf("%v comes next", a.Kind)
				}
			}
			if a := r.next(Cut); a.Offset != c.at || a.Local != 100 {
				t.Errorf("%+v, want a cut at %d", a, c.at)
			}
			r.is(Cutting)
		})
	}
}

// TestLossWithoutElection proves that the records here are kept if no election explains that the source does not have them any more.
func TestLossWithoutElection(t *testing.T) {
	r := newRig(t, theTopic, 3, 3, 3)
	for range enoughSigns {
		r.lead(3)
		r.fetch(Answer{HighWatermark: 2, Diverged: &Tail{3, 2}})
	}
	if d := r.declare(Failed); !strings.Contains(d.Reason, "without an election") {
		t.Errorf("the reason is %q", d.Reason)
	}
	if s := r.is(Failed); s.Log.End != 3 || s.Reason != r.a.Durable.Reason {
		t.Errorf("%+v", s)
	}
	r.fetch(Answer{HighWatermark: 2, Diverged: &Tail{3, 2}})
	r.lead(4) // after a pause
	r.fetch(Answer{HighWatermark: 2, Diverged: &Tail{3, 2}})
	r.declare(Mirroring) // now there was one
	r.fetch(Answer{HighWatermark: 2, Diverged: &Tail{3, 2}})
	r.next(Cut)
}

// TestGap proves that a gap has the exact range, also when it grows, that nothing is skipped before it is accepted, and nothing but what was accepted.
func TestGap(t *testing.T) {
	r := newRig(t, theTopic, 3, 3)
	look := func(start record.Offset) {
		t.Helper()
		r.fetch(Answer{Trouble: Trouble{Kind: OutOfRange}})
		r.m.RangeFound(r.now, r.next(FindRange).ID, SourceRange{start, 900}, Trouble{})
	}
	r.lead(3)
	look(500)
	if d := r.declare(Gap); d.Range != (Range{2, 500}) {
		t.Errorf("the range is %+v", d.Range)
	}
	look(500)
	r.lead(3) // after a pause
	look(600)
	if d := r.declare(Gap); d.Range != (Range{2, 600}) {
		t.Errorf("the range is %+v", d.Range)
	}
	if !r.m.Command(Accept) {
		t.Error("it cannot be accepted")
	}
	r.declare(Mirroring)
	look(700)
	if d := r.declare(Gap); d.Range != (Range{2, 700}) {
		t.Errorf("the range is %+v", d.Range)
	}
	r.m.Command(Accept)
	r.declare(Mirroring)
	look(700)
	if q := r.fetch(Answer{Start: 700, HighWatermark: 900, Raw: r.raw(700, 4)}); q.Offset != 700 || q.LastEpoch != record.NoEpoch {
		t.Errorf("the fetch is %+v", q)
	}
	r.m.Described(r.now, 0, &Description{Topic: theTopic, Leader: 1, LeaderEpoch: 4, Broker: 2})
	look(700)
	r.fetch(Answer{Start: 700, HighWatermark: 900, Raw: r.raw(700, 4)})
	if a := r.store(Skip); a.Offset != 700 {
		t.Errorf("the log goes on at %d", a.Offset)
	}
	r.store(Append)
}

// TestFailedBehindGap proves that a loss which was accepted stays accepted if what follows it cannot be stored: the partition stays FAILED with that reason, and does not ask for the same loss again.
func TestFailedBehindGap(t *testing.T) {
	r := newRig(t, theTopic, 3, 3)
	look := func() {
		t.Helper()
		r.fetch(Answer{Trouble: Trouble{Kind: OutOfRange}})
		r.m.RangeFound(r.now, r.next(FindRange).ID, SourceRange{500, 900}, Trouble{})
	}
	old := r.raw(500, 3)
	old[16] = 1 // the version of the batch
	r.lead(3)
	look()
	r.declare(Gap)
	r.m.Command(Accept)
	r.declare(Mirroring)
	look()
	for i := range enoughSigns {
		if i > 0 {
			r.lead(3)
			look()
		}
		r.fetch(Answer{Start: 500, HighWatermark: 900, Raw: old})
	}
	r.declare(Failed)
	for range 3 { // it is looked at again
		look()
		if q := r.fetch(Answer{Start: 500, HighWatermark: 900, Raw: old}); q.Offset != 500 {
			t.Errorf("the fetch is %+v", q)
		}
		if s := r.is(Failed); !strings.Contains(s.Reason, "offset 500") || s.Range != (Range{}) {
			t.Errorf("%+v", s)
		}
		r.lead(3)
	}
	look()
	r.fetch(Answer{Start: 500, HighWatermark: 900, Raw: r.raw(500, 3)})
	r.declare(Mirroring)
	look()
	r.fetch(Answer{Start: 500, HighWatermark: 900, Raw: r.raw(500, 3)})
	if a := r.store(Skip); a.Offset != 500 {
		t.Errorf("the log goes on at %d", a.Offset)
	}
	r.store(Append)
}

// TestBadBatches proves that the good batches before a bad one are appended, that the bad one is asked for some more times, and that the reason says what is wrong with it.
func TestBadBatches(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(b record.Batch) record.Batch
		want  string
	}{
		"wrong bytes":        {func(b record.Batch) record.Batch { b[len(b)-1]++; return b }, "batch is corrupt"},
		"the format of 0.10": {func(b record.Batch) record.Batch { b[16] = 1; return b }, "batch format is not version 2: it is 1"},
		"an offset again":    {func(record.Batch) record.Batch { return build(t, 1, 3, 3) }, "does not follow the offset 2"},
		"an earlier epoch":   {func(b record.Batch) record.Batch { b.SetLeaderEpoch(2); return b }, "is of epoch 2, and the one before it of epoch 3"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, theTopic, 3)
			good, bad := build(t, 1, 3), c.spoil(build(t, 2, 3))
			r.lead(3)
			r.fetch(Answer{HighWatermark: 9, Raw: slices.Concat(good, bad)})
			if a := r.store(Append); !slices.Equal(a.Raw, good) {
				t.Errorf("%d bytes are appended, want %d", len(a.Raw), len(good))
			}
			for i := range enoughSigns {
				if i > 0 {
					r.lead(3)
				}
				r.fetch(Answer{HighWatermark: 9, Raw: slices.Concat(bad, build(t, 3, 3))})
			}
			if d := r.declare(Failed); !strings.Contains(d.Reason, c.want) {
				t.Errorf("the reason is %q, want %q", d.Reason, c.want)
			}
			r.is(Failed)
		})
	}
}

// TestLag proves that the lag is counted from what was last heard of the source, grows while nothing is heard, and is never negative.
func TestLag(t *testing.T) {
	r := newRig(t, theTopic, 3)
	if s := r.m.Status(r.now); s.Lag.IsKnown || s.Lag.Records != 0 || s.Source.HighWatermark != -1 {
		t.Errorf("before anything was heard: %+v", s)
	}
	r.lead(3)
	r.fetch(Answer{HighWatermark: 11, Raw: r.raw(1, 3)})
	first := r.now
	r.store(Append)
	if s := r.m.Status(r.now); s.Lag.Records != 9 || s.Lag.Bytes < 9*60 || s.Lag.IsKnown {
		t.Errorf("9 records are missing: %+v", s.Lag)
	}
	r.fetch(Answer{HighWatermark: 11, Raw: r.raw(2, 3, 3, 3, 3, 3, 3, 3, 3, 3)})
	r.store(Append)
	r.now = first + time.Minute
	if s := r.m.Status(r.now); s.Lag.Records != 0 || s.Lag.Behind != 0 || !s.Lag.IsKnown || s.Lag.RPO < time.Minute-time.Second || s.Lag.RPO > time.Minute {
		t.Errorf("nothing was heard for a minute: %+v", s.Lag)
	}
	r.fetch(Answer{HighWatermark: 10}) // of a new leader, perhaps
	if s := r.m.Status(r.now); s.Lag.Records != 0 || s.Lag.RPO < 0 {
		t.Errorf("the high watermark goes back: %+v", s.Lag)
	}
	r.m.EpochFound(r.now, r.next(FindEpoch).ID, Tail{2, 0}, Trouble{})
	r.fetch(Answer{HighWatermark: 14, Raw: r.raw(11, 3)})
	r.now += time.Minute
	if l := r.m.Loss(r.now); l.MirrorEnd != 11 || l.HighWatermark != 14 || l.End != 14 || l.Lag.Records != 3 || l.SinceContact != time.Minute || l.Lag.Behind != l.Lag.RPO {
		t.Errorf("the loss is %+v", l)
	}
}

// TestNewLeaderIsNotBelievedAtOnce proves that the high watermark of a new leader counts when it has got to the leader's epoch, and for transactions when another broker has known the leader later.
func TestNewLeaderIsNotBelievedAtOnce(t *testing.T) {
	r := newRig(t, theTopic, 3)
	r.lead(5)
	r.fetch(Answer{HighWatermark: 1})
	if s := r.m.Status(r.now); s.Lag.IsKnown {
		t.Errorf("the lag is known: %+v", s.Lag)
	}
	a := r.next(FindEpoch)
	if a.Epoch != 4 {
		t.Errorf("the end of epoch %d is asked for", a.Epoch)
	}
	r.m.EpochFound(r.now, a.ID, Tail{3, 2}, Trouble{})
	r.fetch(Answer{HighWatermark: 1})
	if s := r.m.Status(r.now); s.Lag.IsKnown {
		t.Errorf("the lag is known below the start of the epoch: %+v", s.Lag)
	}
	r.fetch(Answer{HighWatermark: 2, Raw: r.raw(1, 3)})
	asked := r.now
	r.store(Append)
	if s := r.m.Status(r.now); !s.Lag.IsKnown {
		t.Errorf("the lag is not known: %+v", s.Lag)
	}
	held := func(from int32, at time.Duration) time.Duration {
		r.m.Described(r.now, 0, &Description{Topic: theTopic, Leader: 1, LeaderEpoch: 5, Broker: from, Asked: at})
		asOf, _ := r.m.HeldAt(0)
		return asOf
	}
	if asOf := held(1, r.now); asOf != Never {
		t.Errorf("the leader itself has confirmed %v", asOf)
	}
	if asOf := held(2, asked-time.Millisecond); asOf != Never {
		t.Errorf("what was asked before has confirmed %v", asOf)
	}
	if asOf := held(2, r.now+1); asOf == Never || asOf > asked {
		t.Errorf("another broker has confirmed %v, asked at %v", asOf, asked)
	}
	if _, by := r.m.HeldAt(1); by > r.now || by < asked {
		t.Errorf("the record was here at %v", by)
	}
	if _, by := r.m.HeldAt(2); by != Later {
		t.Errorf("a record that is not here was here at %v", by)
	}
}

// TestLostTombstones proves that a mirror which was behind for longer than the source keeps tombstones says so before it goes on.
func TestLostTombstones(t *testing.T) {
	for name, c := range map[string]struct {
		age  time.Duration
		lost bool
	}{"not for so long": {time.Minute, false}, "for too long": {time.Hour, true}, "nobody knows": {-1, true}} {
		r := newRig(t, theTopic, 3)
		r.a.Settings.IsCompacted, r.a.Settings.KeepTombstones = true, 30*time.Minute
		r.m.Lead(r.now, r.a, r.log.state(), Age{-1, c.age}, &r.log)
		r.lead(3)
		r.fetch(Answer{HighWatermark: 5, Raw: r.raw(1, 3)})
		if !c.lost {
			r.next(Append)
			continue
		}
		if d := r.declare(TombstonesLost); d.Range != (Range{1, 5}) {
			t.Errorf("%s: the range is %+v", name, d.Range)
		}
		if !r.m.Command(Accept) {
			t.Errorf("%s: it cannot be accepted", name)
		}
		r.declare(Mirroring)
		r.fetch(Answer{HighWatermark: 6, Raw: r.raw(1, 3)})
		r.next(Append)
	}
}

// TestPromotionStopsAll proves that nothing is done once the metadata say that a partition is promoted.
func TestPromotionStopsAll(t *testing.T) {
	for _, s := range []State{Promoting, Promoted} {
		r := newRig(t, theTopic, 3)
		r.lead(3)
		r.fetch(Answer{HighWatermark: 5, Raw: r.raw(1, 3)})
		r.a.Durable.State = s
		r.m.Assigned(r.a)
		r.none()
		r.is(s)
		if _, ok := r.m.WakeAt(); ok || r.m.Command(CopyAnew) || r.m.Command(Accept) {
			t.Errorf("%v: something is to be done", s)
		}
	}
}

// TestPausesAreBounded proves that the pauses after troubles grow up to a bound, and are shortened at random.
func TestPausesAreBounded(t *testing.T) {
	r := newRig(t, theTopic, 3)
	r.m.config.Jitter = func() float64 { return 0.5 }
	last := time.Duration(0)
	for range 80 {
		a := r.next(FindTopic)
		r.m.Described(r.now, a.ID, &Description{Trouble: Trouble{Lost, "no route to host"}})
		at, ok := r.m.WakeAt()
		if d := at - r.now; !ok || d < last || d > 10*time.Second {
			t.Fatalf("the pause is %v after %v", d, last)
		}
		last = at - r.now
	}
	if s := r.is(Waiting); last != 7500*time.Millisecond || !strings.Contains(s.Reason, "no route to host") || s.RetryAt <= r.now {
		t.Errorf("the last pause is %v, the state %+v", last, s)
	}
}
