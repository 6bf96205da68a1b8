package wan

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// bale is cargo of a test.
type bale int

func (bale) arrive(copies int) int { return copies }

// run is a line with the clock of a test.
type run struct {
	line
	now  time.Duration
	sent int
}

func newRun(seed uint64, s Settings) *run {
	r := &run{line: line{random: rand.New(rand.NewPCG(seed, 0))}}
	r.set(0, s)
	return r
}

// send sends the next bale.
func (r *run) send(bytes int64) order {
	o := r.judge(r.now, size{1, bytes})
	if o.fate == fateCarried {
		r.put(&entry{bale(r.sent), size{1, bytes}, r.now, o})
	}
	r.sent++
	return o
}

// arrival is a bale that has arrived.
type arrival struct {
	bale   bale
	at     time.Duration
	copies int
}

// receive has all bales arrive, each when it is due.
func (r *run) receive() (all []arrival) {
	for {
		due, ok := r.next()
		if !ok {
			return all
		}
		r.now = max(r.now, due)
		e, ok := r.pop(r.now)
		if !ok {
			panic("a packet is not there when it is due")
		}
		all = append(all, arrival{e.cargo.(bale), r.now, e.order.copies})
	}
}

// TestDelayIsExact proves that a packet arrives after the delay and not earlier, and that those under way keep theirs when it changes, and their order.
func TestDelayIsExact(t *testing.T) {
	r := newRun(1, Settings{Delay: 40 * time.Millisecond})
	r.send(100)
	r.now = 10 * time.Millisecond
	r.set(r.now, Settings{Delay: time.Millisecond})
	r.send(100)
	if _, ok := r.pop(40*time.Millisecond - 1); ok {
		t.Error("a packet arrives early")
	}
	r.now = 39 * time.Millisecond
	r.send(100)
	want := []arrival{{0, 40 * time.Millisecond, 1}, {1, 40 * time.Millisecond, 1}, {2, 40 * time.Millisecond, 1}}
	if got := r.receive(); !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	r.now = 60 * time.Millisecond
	r.send(100)
	if got := r.receive(); !slices.Equal(got, []arrival{{3, 61 * time.Millisecond, 1}}) {
		t.Errorf("the shorter delay does not count: %v", got)
	}
}

// TestRateIsExact proves that bytes are carried at the rate, behind each other, and that a packet is lost if the queue has no room for it.
func TestRateIsExact(t *testing.T) {
	r := newRun(1, Settings{Delay: 10 * time.Millisecond, Rate: 1e6, Queue: 5000})
	for i, want := range []fate{fateCarried, fateCarried, fateCarried, fateCarried, fateCarried, fateOverflowed} {
		o := r.send(1000)
		if o.fate != want {
			t.Errorf("packet %d: %v", i, o)
		}
		if o.fate == fateOverflowed && o.again != time.Millisecond {
			t.Errorf("there is room for packet %d at %v", i, o.again)
		}
	}
	r.now = time.Millisecond // the first one is sent
	if o := r.send(1000); o.fate != fateCarried {
		t.Errorf("the queue has room for %v", o)
	}
	var want []arrival
	for i, b := range []bale{0, 1, 2, 3, 4, 6} {
		want = append(want, arrival{b, time.Duration(i+1)*time.Millisecond + 10*time.Millisecond, 1})
	}
	if got := r.receive(); !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	if o := r.send(1 << 20); o.fate != fateCarried {
		t.Errorf("a packet is larger than the queue of an idle line: %v", o)
	}
}

// TestQueueHasADefault proves that the queue that is not set takes 100 ms of the rate, or 64 KiB.
func TestQueueHasADefault(t *testing.T) {
	for rate, want := range map[int64]int{10e6: 1000, 100e3: 65} {
		r := newRun(1, Settings{Rate: rate})
		took := 0
		for r.send(1000).fate == fateCarried {
			took++
		}
		if took != want {
			t.Errorf("at %d bytes a second the queue takes %d KB, not %d", rate, took, want)
		}
	}
}

// TestNewRateCountsAtOnce proves that packets which wait for a low rate do not hold up a line that gets a higher one, and that packets which have been sent keep their delay.
func TestNewRateCountsAtOnce(t *testing.T) {
	r := newRun(1, Settings{Delay: 10 * time.Millisecond, Rate: 1000})
	r.send(1000)
	r.send(1000)
	r.send(1000)
	r.now = 1500 * time.Millisecond // the second one is half sent
	r.set(r.now, Settings{Delay: 10 * time.Millisecond, Rate: 500_000})
	r.send(1000)
	ms := time.Millisecond
	want := []arrival{{0, 1500 * ms, 1}, {1, 1511 * ms, 1}, {2, 1513 * ms, 1}, {3, 1515 * ms, 1}}
	if got := r.receive(); !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	r.set(r.now, Settings{Rate: 1000})
	r.send(1000)
	r.send(1000)
	r.set(r.now, Settings{})
	r.send(1000)
	if got := r.receive(); len(got) != 3 || got[2].at != 1515*ms {
		t.Errorf("without a rate packets wait: %v", got)
	}
}

// TestLossIsTheShare proves that the share of packets is lost, that all are at 1, and that a seed loses the same ones again.
func TestLossIsTheShare(t *testing.T) {
	lose := func(seed uint64, share float64) (lost []int) {
		r := newRun(seed, Settings{Loss: share})
		for i := range 100_000 {
			if r.send(100).fate == fateLost {
				lost = append(lost, i)
			}
		}
		return lost
	}
	for _, share := range []float64{0, 0.001, 0.05, 0.5, 1} {
		n := len(lose(7, share))
		if deviation := math.Sqrt(100_000 * share * (1 - share)); math.Abs(float64(n)-100_000*share) > 5*deviation {
			t.Errorf("of 100,000 packets %d are lost at %v", n, share)
		}
	}
	if a, b, c := lose(7, 0.05), lose(7, 0.05), lose(8, 0.05); !slices.Equal(a, b) || slices.Equal(a, c) {
		t.Error("a seed loses other packets each time, or each seed the same ones")
	}
	r := newRun(7, Settings{Loss: 0.5})
	for range 100 {
		if o := r.judge(0, size{1000, 1e6}); o.fate != fateLost {
			t.Fatal("of 1,000 packets none is lost")
		}
	}
}

// TestJitterKeepsTheOrder proves that jitter delays packets by up to itself, evenly, and never has one overtake another.
func TestJitterKeepsTheOrder(t *testing.T) {
	r := newRun(3, Settings{Delay: 50 * time.Millisecond, Jitter: 20 * time.Millisecond})
	var sum time.Duration
	for i := range 1000 {
		r.now = time.Duration(i) * time.Second
		o := r.send(100)
		extra := o.due - r.now - 50*time.Millisecond
		if extra < 0 || extra > 20*time.Millisecond {
			t.Fatalf("the jitter is %v", extra)
		}
		sum += extra
		r.receive()
	}
	if mean := sum / 1000; mean < 9*time.Millisecond || mean > 11*time.Millisecond {
		t.Errorf("the mean is %v", mean)
	}
	first := r.sent
	for i := range 1000 {
		r.now = 2000*time.Second + time.Duration(i)*time.Millisecond
		r.send(100)
	}
	for i, a := range r.receive() {
		if int(a.bale) != first+i {
			t.Fatalf("packet %d arrives in place of %d", a.bale, first+i)
		}
	}
}

// TestPacketsOvertakeAndComeTwice proves the shares of packets that are not delayed, and of those that come twice.
func TestPacketsOvertakeAndComeTwice(t *testing.T) {
	r := newRun(4, Settings{Delay: 50 * time.Millisecond, Reorder: 0.1, Duplicate: 0.2})
	for i := range 10_000 {
		r.now = time.Duration(i) * time.Microsecond
		r.send(100)
	}
	sent := r.now
	early, twice, last := 0, 0, bale(-1)
	for _, a := range r.receive() {
		if at := time.Duration(a.bale) * time.Microsecond; a.at == sent || a.at == at {
			early++
		} else if a.at != at+50*time.Millisecond || a.bale < last {
			t.Fatalf("%v after %d", a, last)
		} else {
			last = a.bale
		}
		twice += a.copies - 1
	}
	if early < 900 || early > 1100 || twice < 1800 || twice > 2200 {
		t.Errorf("of 10,000 packets %d overtook others, and %d came twice", early, twice)
	}
}

// TestCutsAndFlaps proves when a line that is cut, or flaps, carries packets.
func TestCutsAndFlaps(t *testing.T) {
	const ms = time.Millisecond
	r := newRun(5, Settings{Delay: 10 * ms})
	r.send(100)
	r.now = ms
	r.set(r.now, Settings{Delay: 10 * ms, Cut: true})
	if o := r.send(100); o.fate != fateCut || o.again != 0 {
		t.Errorf("a cut line: %v", o)
	}
	if got := r.receive(); !slices.Equal(got, []arrival{{0, 10 * ms, 1}}) {
		t.Errorf("a packet that was under way before the cut: %v", got)
	}
	r.now = 1000 * ms
	r.set(r.now, Settings{Up: 30 * ms, Down: 20 * ms})
	for _, c := range []struct {
		after time.Duration
		want  fate
		again time.Duration
	}{
		{0, fateCarried, 0},
		{30*ms - 1, fateCarried, 0},
		{30 * ms, fateCut, 1050 * ms},
		{50*ms - 1, fateCut, 1050 * ms},
		{50 * ms, fateCarried, 0},
		{80 * ms, fateCut, 1100 * ms},
	} {
		r.now = 1000*ms + c.after
		if o := r.send(100); o.fate != c.want || o.again != c.again {
			t.Errorf("%v after it began to flap: %v", c.after, o)
		}
	}
	r.set(r.now, Settings{Reset: true, Cut: true})
	if o := r.send(100); o.fate != fateRefused {
		t.Errorf("a line that resets: %v", o)
	}
}

// TestLinesKeepABoundedNumberOfBytes proves that no more than maxUnderWay is kept, whatever the delay.
func TestLinesKeepABoundedNumberOfBytes(t *testing.T) {
	r := newRun(6, Settings{Delay: time.Hour})
	for range 4 {
		if o := r.send(maxUnderWay / 4); o.fate != fateCarried {
			t.Fatal(o)
		}
	}
	if o := r.send(1); o.fate != fateOverflowed || o.again != time.Hour {
		t.Errorf("more than %d bytes are under way: %v", maxUnderWay, o)
	}
}

// TestNothingIsLostUnasked proves with random settings that change that each packet which is carried arrives, no earlier than it may, and in its order.
func TestNothingIsLostUnasked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRun(rapid.Uint64().Draw(t, "seed"), Settings{})
		millis := func(name string, most int) time.Duration {
			return time.Duration(rapid.IntRange(0, most).Draw(t, name)) * time.Millisecond
		}
		carried, ordered, arrived, last := 0, map[bale]bool{}, 0, bale(-1)
		least := map[bale]time.Duration{}
		take := func(all []arrival) {
			for _, a := range all {
				arrived++
				if a.at < least[a.bale] {
					t.Fatalf("packet %d arrives at %v, and not before %v", a.bale, a.at, least[a.bale])
				}
				if ordered[a.bale] {
					if a.bale < last {
						t.Fatalf("packet %d arrives after %d", a.bale, last)
					}
					last = a.bale
				}
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				share := rapid.Float64Range(0, 1)
				s := Settings{
					Delay: millis("delay", 100), Jitter: millis("jitter", 10), Loss: share.Draw(t, "loss"), Duplicate: share.Draw(t, "duplicate"),
					Reorder: share.Draw(t, "reorder"), Rate: rapid.SampledFrom([]int64{0, 1000, 1e5, 1e9}).Draw(t, "rate"), Cut: rapid.Bool().Draw(t, "cut"),
				}
				if err := s.validate(); err != nil {
					t.Fatal(err)
				}
				r.set(r.now, s)
			case 1:
				r.now += millis("pause", 50)
				for {
					e, ok := r.pop(r.now)
					if !ok {
						break
					}
					take([]arrival{{e.cargo.(bale), r.now, e.order.copies}})
				}
			default:
				b := bale(r.sent)
				if o := r.send(int64(rapid.IntRange(40, 1500).Draw(t, "bytes"))); o.fate == fateCarried {
					carried++
					least[b] = r.now
					ordered[b] = !o.overtake
					if !o.overtake {
						least[b] += r.settings.Delay
					}
				}
			}
		}
		take(r.receive())
		if carried != arrived || r.bytes != 0 || !r.isEmpty() {
			t.Fatalf("of %d packets that were carried %d arrived; %d bytes are left", carried, arrived, r.bytes)
		}
	})
}

// TestImpossibleSettingsAreRefused proves that settings which no path can have are known.
func TestImpossibleSettingsAreRefused(t *testing.T) {
	for _, s := range []Settings{
		{Delay: -1},
		{Jitter: -1},
		{Loss: -0.1},
		{Loss: 1.1},
		{Duplicate: math.NaN()},
		{Reorder: 2},
		{Rate: -1},
		{Rate: maxRate + 1},
		{Queue: -1},
		{Queue: maxQueue + 1},
		{Up: time.Second},
		{Down: time.Second},
		{Up: -1, Down: -1},
	} {
		if s.validate() == nil {
			t.Errorf("%+v is possible", s)
		}
	}
	for _, s := range []Settings{{}, {Loss: 1, Rate: maxRate, Queue: maxQueue}, {Up: 1, Down: 1}} {
		if err := s.validate(); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
}
