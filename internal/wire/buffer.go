package wire

import (
	"sync"
	"sync/atomic"
)

// Receive buffers come in classes. The first three hold the rest of a frame of
// which not much has come while its connection waits; reading starts at
// firstClass; a busy connection rises to busyClass, so that one read brings many
// requests; the classes above are for frames that do not fit, each twice the one
// before, and the last holds the largest frame.
const (
	firstClass    = 3
	busyClass     = 5
	maxStartClass = 7 // 2 MiB: the class that a connection starts with after large frames

	maxKept = 32 << 20 // bytes of free buffers that are kept for the next
)

// buffer is a receive buffer. While it has a reference besides that of the connection's input,
// its bytes are neither changed nor given to another connection. The release of the last
// reference gives it back.
type buffer struct {
	pool  *bufferPool
	bytes []byte
	class int
	refs  atomic.Int32
}

// retain adds a reference.
func (b *buffer) retain() *buffer {
	b.refs.Add(1)
	return b
}

// release ends a reference.
func (b *buffer) release() {
	switch n := b.refs.Add(-1); {
	case n == 0:
		b.pool.giveBack(b)
	case n < 0:
		panic("BUG: a receive buffer was released more often than it was retained")
	}
}

// isShared tells whether there is a reference besides the caller's.
func (b *buffer) isShared() bool { return b.refs.Load() > 1 }

// bufferPool hands out receive buffers and counts them. Buffers above firstClass may
// not take the last quarter of the limit, so that small requests are served
// while large ones wait.
type bufferPool struct {
	limit int64
	bulk  int64 // limit for buffers above firstClass
	sizes []int // by class

	mu      sync.Mutex     // guards the fields below
	used    int64          // bytes that connections hold
	kept    int64          // bytes in free
	free    []freeList     // by class
	waiting [2]bufferQueue // for buffers up to firstClass, and above
}

// freeList is a stack, so that the buffer used last, which may still be in the
// processor's cache, is the next to be used.
type freeList struct {
	list []*buffer
	low  int // the shortest that list was since the last trim
}

// waiterState is the state of a bufferWaiter:
//
//	queued --> granted     its bytes are counted, and ready is closed
//	   '-----> cancelled   ready is closed
type waiterState uint8

const (
	waiterQueued waiterState = iota
	waiterGranted
	waiterCancelled
)

// bufferWaiter is an input that waits for a buffer.
type bufferWaiter struct {
	pool     *bufferPool
	class    int
	size     int64
	replaced int64         // bytes of the buffer that it will give back for this one
	ready    chan struct{} // closed when it is granted or cancelled
	state    waiterState   // guarded by bufferPool.mu
	sweeps   int           // how many it has waited for; guarded by bufferPool.mu
}

// bufferQueue is served in the order of arrival.
type bufferQueue struct {
	list []*bufferWaiter
	head *bufferWaiter // the first one at the last sweep
}

// scratchSize is how many bytes of sections are read into memory for one call that sends.
const scratchSize = 256 << 10

// pageSize is the size of which the largest buffer is a multiple.
const pageSize = 4 << 10

// bulkShare is the part of a limit that buffers above firstClass may take.
func bulkShare(limit int64) int64 { return limit - limit/4 }

// largestFrame is the size of the largest frame for which there can be a buffer.
func largestFrame(limit int64) int { return int(bulkShare(limit)&^(pageSize-1)) - lengthSize }

func newBufferPool(limit int64, maxFrame int) *bufferPool {
	p := &bufferPool{limit: limit, bulk: bulkShare(limit)}
	p.sizes = []int{1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 512 << 10}
	top := (maxFrame + lengthSize + pageSize - 1) &^ (pageSize - 1)
	for n := 1 << 20; p.sizes[len(p.sizes)-1] < top; n *= 2 {
		p.sizes = append(p.sizes, min(n, top))
	}
	p.free = make([]freeList, len(p.sizes))
	return p
}

// classFor is the smallest class that holds n bytes, or the last.
func (p *bufferPool) classFor(n int) int {
	for i, size := range p.sizes {
		if size >= n {
			return i
		}
	}
	return len(p.sizes) - 1
}

// nextClass is the class above this one, or the last.
func (p *bufferPool) nextClass(class int) int { return min(class+1, len(p.sizes)-1) }

// queueOf is the queue, by its index, in which a buffer of the class is waited for.
func queueOf(class int) int {
	if class > firstClass {
		return 1
	}
	return 0
}

func (p *bufferPool) fitsLocked(queue int, size, replaced int64) bool {
	limit := p.limit
	if queue == 1 {
		limit = p.bulk
	}
	return p.used-replaced+size <= limit
}

// takeBuffer returns a buffer of the class, or nil when memory is short or others
// have waited for longer. replaced is the size of the buffer that this one replaces:
// while its bytes are copied both exist, but it is counted as gone. A smaller one is
// always granted, since that leaves more memory to those that wait.
func (p *bufferPool) takeBuffer(class, replaced int) *buffer {
	size := int64(p.sizes[class])
	queue := queueOf(class)
	p.mu.Lock()
	if size > int64(replaced) && (len(p.waiting[queue].list) > 0 || !p.fitsLocked(queue, size, int64(replaced))) {
		p.mu.Unlock()
		return nil
	}
	p.used += size
	b := p.reuseLocked(class)
	p.mu.Unlock()
	return p.ownBuffer(b, class)
}

// takeScratch returns a buffer for sections that are being sent. It is counted, but always
// granted, and held only during the call that sends it.
func (p *bufferPool) takeScratch() *buffer {
	class := p.classFor(scratchSize)
	p.mu.Lock()
	p.used += int64(p.sizes[class])
	b := p.reuseLocked(class)
	p.mu.Unlock()
	return p.ownBuffer(b, class)
}

// ownBuffer gives the caller the only reference to a buffer, which it makes if b is nil.
func (p *bufferPool) ownBuffer(b *buffer, class int) *buffer {
	if b == nil {
		b = &buffer{pool: p, bytes: make([]byte, p.sizes[class]), class: class}
	}
	b.refs.Store(1)
	return b
}

// reuseLocked takes a free buffer of the class. If there is none, it makes
// sure that the new one and the free ones of other classes stay within the limit.
func (p *bufferPool) reuseLocked(class int) *buffer {
	f := &p.free[class]
	if n := len(f.list); n > 0 {
		b := f.list[n-1]
		f.list[n-1] = nil
		f.list = f.list[:n-1]
		f.low = min(f.low, n-1)
		p.kept -= int64(len(b.bytes))
		return b
	}
	if p.kept > 0 && p.used+p.kept > p.limit {
		for i := range p.free {
			p.free[i] = freeList{}
		}
		p.kept = 0
	}
	return nil
}

// giveBack takes a buffer that has no reference any more, and grants memory to waiting inputs.
func (p *bufferPool) giveBack(b *buffer) {
	size := int64(len(b.bytes))
	p.mu.Lock()
	p.used -= size
	if p.kept+size <= maxKept && p.used+p.kept+size <= p.limit {
		p.free[b.class].list = append(p.free[b.class].list, b)
		p.kept += size
	}
	var first *bufferWaiter
	if len(p.waiting[0].list)+len(p.waiting[1].list) > 0 {
		first = p.grantNextLocked()
	}
	p.mu.Unlock()
	for ; first != nil; first = p.grantNext() {
		close(first.ready)
	}
}

func (p *bufferPool) grantNext() *bufferWaiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.grantNextLocked()
}

// grantNextLocked takes the first waiter that can be served off its queue, if any,
// and counts its bytes. The caller closes its channel after unlocking.
func (p *bufferPool) grantNextLocked() *bufferWaiter {
	for queue := range p.waiting {
		q := &p.waiting[queue]
		if len(q.list) == 0 {
			continue
		}
		if w := q.list[0]; p.fitsLocked(queue, w.size, w.replaced) {
			q.list = q.list[1:]
			p.used += w.size
			w.state = waiterGranted
			return w
		}
	}
	return nil
}

// awaitTurn waits in line for a buffer of the class; the caller then waits for ready,
// and calls takeGranted.
func (p *bufferPool) awaitTurn(class, replaced int) *bufferWaiter {
	w := &bufferWaiter{pool: p, class: class, size: int64(p.sizes[class]), replaced: int64(replaced), ready: make(chan struct{})}
	queue := queueOf(class)
	p.mu.Lock()
	defer p.mu.Unlock()
	q := &p.waiting[queue]
	if len(q.list) == 0 && p.fitsLocked(queue, w.size, w.replaced) {
		p.used += w.size
		w.state = waiterGranted
		close(w.ready)
		return w
	}
	q.list = append(q.list, w)
	return w
}

// takeGranted returns the buffer that w was granted, or nil when it was cancelled.
func (p *bufferPool) takeGranted(w *bufferWaiter) *buffer {
	p.mu.Lock()
	if w.state != waiterGranted {
		p.mu.Unlock()
		return nil
	}
	b := p.reuseLocked(w.class)
	p.mu.Unlock()
	return p.ownBuffer(b, w.class)
}

// cancelWait ends w's waiting without a buffer, unless it was granted already.
func (p *bufferPool) cancelWait(w *bufferWaiter) {
	p.mu.Lock()
	queued := w.state == waiterQueued
	if queued {
		w.state = waiterCancelled
		q := &p.waiting[queueOf(w.class)]
		for i := range q.list {
			if q.list[i] == w {
				q.list = append(q.list[:i:i], q.list[i+1:]...)
				break
			}
		}
	}
	p.mu.Unlock()
	if queued {
		close(w.ready)
	}
	for next := p.grantNext(); next != nil; next = p.grantNext() { // waiters behind it may fit
		close(next.ready)
	}
}

// shortage is how scarce the memory for buffers is.
type shortage struct {
	wanted int64 // bytes for which connections have waited for agedSweeps or longer
	stuck  bool  // in some queue no waiter was served since the last sweep
}

// agedSweeps is how many sweeps a connection waits for a buffer before slow connections that
// hold one may be closed for it.
const agedSweeps = 2

// sweepUnused drops free buffers that were not needed since the last sweep, and returns how
// scarce memory is.
func (p *bufferPool) sweepUnused() (s shortage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.free {
		f := &p.free[i]
		n := len(f.list) - f.low
		p.kept -= int64(f.low) * int64(p.sizes[i])
		clear(f.list[n:])
		f.list = f.list[:n]
		f.low = n
	}
	for i := range p.waiting {
		q := &p.waiting[i]
		for _, w := range q.list {
			if w.sweeps++; w.sweeps >= agedSweeps {
				s.wanted += w.size - w.replaced
			}
		}
		var head *bufferWaiter
		if len(q.list) > 0 {
			head = q.list[0]
		}
		s.stuck = s.stuck || head != nil && head == q.head
		q.head = head
	}
	return s
}

// inUse is how many bytes connections hold.
func (p *bufferPool) inUse() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used
}

// isShort tells that memory is scarce: more than half is used.
func (p *bufferPool) isShort() bool {
	return p.inUse() > p.limit/2
}
