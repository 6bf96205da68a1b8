package producer

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
)

// EntryBytes is how much memory a producer takes in a log, at most: its entry, its place in
// the index, and the room that both have to grow (TestEntryBytes).
const EntryBytes = 256

// minKept is how many producers without an open transaction a log keeps however many other logs have. So what a flood
// cannot take from a log is bounded by the number of logs.
const minKept = 2

// Budget bounds the producers that all logs of a store remember together. Each State counts its
// own producers in it, and evicts from nobody but itself: from the longest unused one on, and
// only down to its fair share. A log that has less than that leaves the rest to the others.
//
//	count <= most                  nobody evicts
//	most < count                   a State above its fair share evicts down to it, once it has an
//	                               eighth more, for which fair shares leave room
//	most + most/4 < count          a State that grows beyond an eighth of its fair share evicts
//	                               at least as many as it has added, likewise many at a time
//
// The last case is that of a log that is full and idle while another one grows, until somebody
// calls Evict of the idle one. States that grow have no more than most together, since that is
// what fair shares are: so all have never much more than twice that. Producers with an open
// transaction are not evicted: no other transaction begins while they alone are most, which adds as many again at most.
// A nil *Budget has no limit.
type Budget struct {
	most    int64 // producers
	count   atomic.Int64
	open    atomic.Int64 // producers with an open transaction
	evicted atomic.Int64

	mu    sync.Mutex
	sizes [bits.UintSize + 1]sizeClass // guarded by mu: States of n producers are in that of bits.Len(n)
}

// sizeClass counts the States of about the same number of producers.
type sizeClass struct{ states, producers int64 }

// NewBudget makes a Budget of a number of bytes.
func NewBudget(bytes int64) *Budget { return &Budget{most: max(bytes/EntryBytes, minKept)} }

// Usage is the present use of a Budget.
type Usage struct {
	Producers int64
	Bytes     int64 // that they take, at most
	Limit     int64 // of Bytes
	Evicted   int64 // producers that were forgotten before their time
	Open      int64 // transactions that are open
}

// Usage is the present use.
func (b *Budget) Usage() Usage {
	n := b.count.Load()
	return Usage{Producers: n, Bytes: n * EntryBytes, Limit: b.most * EntryBytes, Evicted: b.evicted.Load(), Open: b.open.Load()}
}

// resize notes that a State has another number of producers.
func (b *Budget) resize(from, to int) {
	if b == nil || from == to {
		return
	}
	b.count.Add(int64(to - from))
	b.mu.Lock()
	defer b.mu.Unlock()
	if from > 0 {
		c := &b.sizes[bits.Len(uint(from))]
		c.states--
		c.producers -= int64(from)
	}
	if to > 0 {
		c := &b.sizes[bits.Len(uint(to))]
		c.states++
		c.producers += int64(to)
	}
}

// countOpen counts producers with an open transaction that are more now, or less.
func (b *Budget) countOpen(n int) {
	if b != nil {
		b.open.Add(int64(n))
	}
}

// isFilledByOpen tells whether the producers with an open transaction alone are as many as may be.
func (b *Budget) isFilledByOpen() bool { return b != nil && b.open.Load() >= b.most }

// isExceeded tells whether all logs together have more producers than they may.
func (b *Budget) isExceeded() bool { return b != nil && b.count.Load() > b.most }

// isFarExceeded tells whether even a log that has less than its fair share must not grow.
func (b *Budget) isFarExceeded() bool { return b.count.Load() > b.most+b.most/4 }

// fairShare is the number of producers down to which the larger States have to evict, so that
// all together have an eighth less than they may. Smaller States keep all of theirs.
func (b *Budget) fairShare() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	left, states := b.most-b.most/8, int64(0)
	for i := range b.sizes {
		states += b.sizes[i].states
	}
	for size, c := range b.sizes {
		if c.states == 0 {
			continue
		}
		share := left / states
		if bits.Len64(uint64(share)) <= size { // some of these have more
			return max(int(share), minKept)
		}
		left -= c.producers
		states -= c.states
	}
	return math.MaxInt
}
