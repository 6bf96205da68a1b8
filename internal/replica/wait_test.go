package replica

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/record"
)

// called records the waits that have ended.
type called struct {
	slots []int32
	errs  []error
}

func (c *called) Complete(slot int32, err error) {
	c.slots, c.errs = append(c.slots, slot), append(c.errs, err)
}

// TestWaitListReleasesInOrder proves against a sorted list that a high watermark releases
// exactly the waiters that it satisfies, the lowest offset first, in whichever order they were
// added, and that expiry releases exactly those whose deadline has passed.
func TestWaitListReleasesInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type model struct {
			need record.Offset
			slot int32
			dead time.Duration
		}
		var l waitList
		var want []model
		next := int32(0)
		match := func(got *Waiter, keep func(m model) bool) {
			var out, left []model
			for _, m := range want {
				if keep(m) {
					left = append(left, m)
				} else {
					out = append(out, m)
				}
			}
			want = left
			var c called
			for w := got; w != nil; w = w.next {
				w.Owner = &c
			}
			completeWaits(got, nil)
			if len(c.slots) != len(out) {
				t.Fatalf("released %v, want %v", c.slots, out)
			}
			for i := range out {
				if c.slots[i] != out[i].slot {
					t.Fatalf("released %v, want %v", c.slots, out)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				m := model{record.Offset(rapid.IntRange(0, 20).Draw(t, "need")), next, time.Duration(rapid.Int64Range(0, 5).Draw(t, "deadline"))}
				next++
				l.add(&Waiter{Slot: m.slot, Deadline: m.dead, need: m.need})
				at, _ := slices.BinarySearchFunc(want, m.need+1, func(m model, o record.Offset) int { return int(m.need - o) })
				want = slices.Insert(want, at, m)
			},
			"take": func(t *rapid.T) {
				hw := record.Offset(rapid.IntRange(0, 20).Draw(t, "hw"))
				match(l.takeReached(hw), func(m model) bool { return m.need > hw })
			},
			"expire": func(t *rapid.T) {
				now := time.Duration(rapid.Int64Range(0, 5).Draw(t, "now"))
				match(l.takeExpired(now), func(m model) bool { return m.dead == 0 || m.dead > now })
			},
			"all": func(*rapid.T) { match(l.takeAll(), func(model) bool { return false }) },
		})
	})
}

// newBarePartition makes a partition without a log, led by node 1.
func newBarePartition(h *host) *Partition {
	p := &Partition{host: h}
	newAudience(&p.audience)
	p.lead.Store(&Leadership{Leader: 1, Replicas: []int32{1}, ISR: []int32{1}})
	return p
}

// addBytes does as an append of n bytes and its commit would.
func (p *Partition) addBytes(n int64) {
	p.mu.Lock()
	p.audience.bytes += n
	p.audience.end++
	hw := p.hw.Add(1)
	p.audience.advanceTo(record.Offset(hw))
	woken := p.audience.count(false)
	p.mu.Unlock()
	wakePolls(woken)
}

type wakes struct{ n atomic.Int32 }

func (w *wakes) Wake() { w.n.Add(1) }

// TestPollWakesOnceWhenEnoughHasCome proves that a poll of several partitions is woken when
// the bytes of all together are enough, not before, and only once.
func TestPollWakesOnceWhenEnoughHasCome(t *testing.T) {
	s := &host{cfg: Config{NodeID: 1}}
	a, b := newBarePartition(s), newBarePartition(s)
	var w wakes
	poll := Poll{Owner: &w}
	for range 3 { // a poll can be used again
		w.n.Store(0)
		poll.Begin(100, 2)
		poll.Watch(a, record.Offset(a.hw.Load()))
		poll.Watch(b, record.Offset(b.hw.Load()))
		if !poll.Park() {
			t.Fatal("not parked although nothing has come")
		}
		a.addBytes(60)
		if w.n.Load() != 0 {
			t.Fatal("woken by 60 of 100 bytes")
		}
		b.addBytes(40)
		b.addBytes(40)
		a.addBytes(100)
		if w.n.Load() != 1 {
			t.Fatalf("woken %d times", w.n.Load())
		}
		poll.End()
		if a.audience.polls.next != &a.audience.polls || b.audience.polls.next != &b.audience.polls {
			t.Fatal("an ended poll is still watching")
		}
	}
}

// TestPollMissesNothingBeforePark proves that a poll does not miss bytes that come between the
// read of a partition and Watch, nor an Expire between Begin and Park.
func TestPollMissesNothingBeforePark(t *testing.T) {
	s := &host{cfg: Config{NodeID: 1}}
	p := newBarePartition(s)
	var w wakes
	poll := Poll{Owner: &w}
	poll.Begin(100, 1)
	hw := record.Offset(p.hw.Load())
	p.addBytes(1)
	poll.Watch(p, hw)
	if poll.Park() {
		t.Error("parked although the high watermark had moved")
	}
	poll.End()

	poll.Begin(100, 1)
	poll.Watch(p, record.Offset(p.hw.Load()))
	if poll.Expire() {
		t.Error("a poll that is not parked was fired")
	}
	if poll.Park() {
		t.Error("parked although it has expired")
	}
	poll.End()
	if w.n.Load() != 0 {
		t.Error("woken although its owner has fired it")
	}
}

// TestPollUnderLoad proves, best with -race, that a poll which is parked many times while many
// goroutines append to its partitions is woken once for each Park, and does not miss the last
// bytes.
func TestPollUnderLoad(*testing.T) {
	const movers, moves = 4, 500
	s := &host{cfg: Config{NodeID: 1}}
	parts := []*Partition{newBarePartition(s), newBarePartition(s), newBarePartition(s)}
	o := &reparker{parts: parts, want: movers * moves, done: make(chan struct{})}
	o.poll.Owner = o
	o.park()
	var wg sync.WaitGroup
	for m := range movers {
		wg.Go(func() {
			for i := range moves {
				parts[(m+i)%len(parts)].addBytes(1)
			}
		})
	}
	wg.Wait()
	<-o.done
}

// reparker parks its poll again until the high watermarks of its partitions add up to want.
type reparker struct {
	poll  Poll
	parts []*Partition
	want  int64
	done  chan struct{}
}

func (o *reparker) park() {
	for {
		seen := int64(0)
		var hws []record.Offset
		for _, p := range o.parts {
			hws = append(hws, record.Offset(p.hw.Load()))
			seen += p.hw.Load()
		}
		if seen == o.want {
			close(o.done)
			return
		}
		o.poll.Begin(7, len(o.parts))
		if o.want-seen < 7 {
			o.poll.Begin(1, len(o.parts))
		}
		for i, p := range o.parts {
			o.poll.Watch(p, hws[i])
		}
		if o.poll.Park() {
			return
		}
		o.poll.End()
	}
}

func (o *reparker) Wake() {
	o.poll.End()
	o.park()
}
