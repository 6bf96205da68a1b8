package wire

import "sync"

// Receive buffers come in classes. The first three hold the rest of a frame of
// which not much has come while its connection waits; reading starts at
// firstClass; a busy connection rises to busyClass, so that one read brings many
// requests; the classes above are for frames that do not fit, each twice the one
// before, and the last holds the largest frame.
const (
	restClasses = 3
	firstClass  = 3
	busyClass   = 5
	maxHint     = 7 // 2 MiB: what a connection starts with after large frames

	maxKept = 32 << 20 // bytes of free buffers that are kept for the next
)

// memory hands out receive buffers and counts them. Buffers above firstClass may
// not take the last quarter of the limit, so that small requests are served
// while large ones wait.
type memory struct {
	limit int64
	bulk  int64 // limit for buffers above firstClass
	sizes []int // by class

	mu      sync.Mutex  // guards what follows
	used    int64       // bytes that connections hold
	kept    int64       // bytes in free
	free    []freeList  // by class
	waiting [2]waitList // for buffers up to firstClass, and above
}

// freeList is a stack, so that the buffer used last, which may still be in the
// processor's cache, is the next to be used.
type freeList struct {
	list [][]byte
	low  int // the shortest that list was since the last trim
}

// waiter is a connection that waits for a buffer.
type waiter struct {
	c       *Conn
	size    int64
	have    int64 // bytes of the buffer that it would give back
	ready   chan struct{}
	granted bool // guarded by memory.mu; size is counted in used
	queued  bool // guarded by memory.mu
}

type waitList struct {
	list  []*waiter // first come, first served
	stale *waiter   // the first one at the last sweep
}

func newMemory(limit int64, maxFrame int) *memory {
	m := &memory{limit: limit, bulk: limit - limit/4}
	m.sizes = []int{1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 512 << 10}
	top := (maxFrame + 4 + 4095) &^ 4095
	for n := 1 << 20; m.sizes[len(m.sizes)-1] < top; n *= 2 {
		m.sizes = append(m.sizes, min(n, top))
	}
	m.free = make([]freeList, len(m.sizes))
	return m
}

// classFor is the smallest class that holds n bytes, or the last.
func (m *memory) classFor(n int) int {
	for i, size := range m.sizes {
		if size >= n {
			return i
		}
	}
	return len(m.sizes) - 1
}

func isBulk(class int) int {
	if class > firstClass {
		return 1
	}
	return 0
}

func (m *memory) fitsLocked(bulk int, size, have int64) bool {
	limit := m.limit
	if bulk == 1 {
		limit = m.bulk
	}
	return m.used-have+size <= limit
}

// take returns a buffer of the class, or nil when memory is short or others
// have waited for longer. have is the size of the buffer that this one replaces:
// while its bytes are copied both exist, but it is counted as gone.
func (m *memory) take(class, have int) []byte {
	size := int64(m.sizes[class])
	bulk := isBulk(class)
	m.mu.Lock()
	if len(m.waiting[bulk].list) > 0 || !m.fitsLocked(bulk, size, int64(have)) {
		m.mu.Unlock()
		return nil
	}
	m.used += size
	b := m.reuseLocked(class)
	m.mu.Unlock()
	if b == nil {
		b = make([]byte, size)
	}
	return b
}

// scratch returns a buffer for sections that are on their way out. It is counted,
// but always had, and held only while a call sends it.
func (m *memory) scratch() (b []byte, class int) {
	class = m.classFor(scratchSize)
	m.mu.Lock()
	m.used += int64(m.sizes[class])
	b = m.reuseLocked(class)
	m.mu.Unlock()
	if b == nil {
		b = make([]byte, m.sizes[class])
	}
	return b, class
}

// reuseLocked takes a free buffer of the class. Where there is none, it makes
// sure that the new one and the free ones of other classes stay within the limit.
func (m *memory) reuseLocked(class int) []byte {
	f := &m.free[class]
	if n := len(f.list); n > 0 {
		b := f.list[n-1]
		f.list[n-1] = nil
		f.list = f.list[:n-1]
		f.low = min(f.low, n-1)
		m.kept -= int64(len(b))
		return b
	}
	if m.kept > 0 && m.used+m.kept > m.limit {
		for i := range m.free {
			m.free[i] = freeList{}
		}
		m.kept = 0
	}
	return nil
}

// give takes a buffer back.
func (m *memory) give(class int, b []byte) {
	m.mu.Lock()
	m.used -= int64(len(b))
	if m.kept+int64(len(b)) <= maxKept && m.used+m.kept+int64(len(b)) <= m.limit {
		m.free[class].list = append(m.free[class].list, b)
		m.kept += int64(len(b))
	}
	var first *waiter
	if len(m.waiting[0].list)+len(m.waiting[1].list) > 0 {
		first = m.grantLocked()
	}
	m.mu.Unlock()
	for ; first != nil; first = m.grant() {
		close(first.ready)
	}
}

func (m *memory) grant() *waiter {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.grantLocked()
}

// grantLocked takes the first waiter that can be served off its list, if any,
// and counts its bytes. The caller closes its channel after unlocking.
func (m *memory) grantLocked() *waiter {
	for bulk := range m.waiting {
		l := &m.waiting[bulk]
		if len(l.list) == 0 {
			continue
		}
		if w := l.list[0]; m.fitsLocked(bulk, w.size, w.have) {
			l.list = l.list[1:]
			m.used += w.size
			w.granted, w.queued = true, false
			return w
		}
	}
	return nil
}

// wait queues for a buffer of the class; the caller then waits for ready, and
// calls collect.
func (m *memory) wait(c *Conn, class, have int) *waiter {
	w := &waiter{c: c, size: int64(m.sizes[class]), have: int64(have), ready: make(chan struct{})}
	bulk := isBulk(class)
	m.mu.Lock()
	l := &m.waiting[bulk]
	if len(l.list) == 0 && m.fitsLocked(bulk, w.size, w.have) {
		m.used += w.size
		w.granted = true
		close(w.ready)
	} else {
		w.queued = true
		l.list = append(l.list, w)
	}
	m.mu.Unlock()
	return w
}

// collect returns the buffer that w was granted, or nil when it was cancelled.
func (m *memory) collect(w *waiter, class int) []byte {
	m.mu.Lock()
	if !w.granted {
		m.mu.Unlock()
		return nil
	}
	b := m.reuseLocked(class)
	m.mu.Unlock()
	if b == nil {
		b = make([]byte, w.size)
	}
	return b
}

// cancel ends w's waiting without a buffer, unless it was granted already.
func (m *memory) cancel(w *waiter) {
	m.mu.Lock()
	queued := w.queued
	w.queued = false
	for i := range m.waiting {
		l := m.waiting[i].list
		for j := range l {
			if l[j] == w {
				m.waiting[i].list = append(l[:j:j], l[j+1:]...)
				break
			}
		}
	}
	m.mu.Unlock()
	if queued {
		close(w.ready)
	}
	for next := m.grant(); next != nil; next = m.grant() { // those behind it may fit
		close(next.ready)
	}
}

// sweep drops free buffers that nobody needed since the last sweep. When nobody
// could be served since then, all of them wait for each other: it names the
// connection that holds most, to be closed.
func (m *memory) sweep() (stuck *Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.free {
		f := &m.free[i]
		n := len(f.list) - f.low
		m.kept -= int64(f.low) * int64(m.sizes[i])
		clear(f.list[n:])
		f.list = f.list[:n]
		f.low = n
	}
	for i := range m.waiting {
		l := &m.waiting[i]
		var first, most *waiter
		for _, w := range l.list {
			if first == nil {
				first, most = w, w
			}
			if w.have > most.have {
				most = w
			}
		}
		if first != nil && first == l.stale && most.have > 0 {
			stuck = most.c
		}
		l.stale = first
	}
	return stuck
}

// inUse is how many bytes connections hold.
func (m *memory) inUse() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

// short tells that memory is scarce: more than half is used.
func (m *memory) short() bool {
	return m.inUse() > m.limit/2
}
