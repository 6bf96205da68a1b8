package budget

import (
	"slices"
	"sync"
)

// Small and large work share a class in these fractions.
const (
	smallShare  = 16 // small work needs at most one sixteenth of the class
	keptShare   = 4  // one quarter of the class is kept from large work,
	parkedShare = 8  // and one eighth of Parked, for the answers of fetches that only sleep
)

// part is the memory of one class.
type part struct {
	limit    int64 // bytes in all
	forLarge int64 // bytes that large work may hold at most
	forSmall int64 // bytes that small work may hold at most while large work waits
	small    int64 // work that needs at most so many bytes is small

	mu      sync.Mutex // guards the fields below
	used    [2]int64   // bytes held by small and by large work; see indexOf
	peak    int64      // the most that both have held at a time since takePeak
	waiting [2]queue   // small and large work
}

// queue is work that waits, in the order in which it came.
type queue struct{ list []*waiter }

// waiter is one piece of work in a queue. It leaves the queue when it is granted its bytes or
// gives up, both with the part's mutex held.
type waiter struct {
	large   bool
	bytes   int64
	granted chan struct{} // closed when it holds the bytes
}

// indexOf is the place of small or of large work in part's arrays.
func indexOf(large bool) int {
	if large {
		return 1
	}
	return 0
}

// setLimit sets the bytes, of which one part in kept is left to small work.
func (p *part) setLimit(n, kept int64) {
	p.limit = n
	p.forSmall = n / kept
	p.forLarge = n - p.forSmall
	p.small = n / smallShare
}

// isLarge tells whether work of n bytes is large. Work that can never fit is ErrTooLarge.
func (p *part) isLarge(c Class, n int64) (large bool, err error) {
	if n > p.forLarge {
		return false, tooLargeError(c, n, p.forLarge)
	}
	return n > p.small, nil
}

// fitsLocked tells whether n bytes are free for the work, without regard to its own queue.
func (p *part) fitsLocked(large bool, n int64) bool {
	if p.used[0]+p.used[1]+n > p.limit {
		return false
	}
	if large {
		return p.used[1]+n <= p.forLarge
	}
	return len(p.waiting[1].list) == 0 || p.used[0]+n <= p.forSmall
}

// takeOrQueue takes n bytes and returns nil, or enters the queue and returns the waiter there.
func (p *part) takeOrQueue(large bool, n int64) *waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.takeLocked(large, n) {
		return nil
	}
	w := &waiter{large: large, bytes: n, granted: make(chan struct{})}
	q := &p.waiting[indexOf(large)]
	q.list = append(q.list, w)
	return w
}

func (p *part) tryTake(large bool, n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.takeLocked(large, n)
}

func (p *part) takeLocked(large bool, n int64) bool {
	i := indexOf(large)
	if len(p.waiting[i].list) > 0 || !p.fitsLocked(large, n) {
		return false
	}
	p.takeBytesLocked(i, n)
	return true
}

func (p *part) takeBytesLocked(i int, n int64) {
	p.used[i] += n
	p.peak = max(p.peak, p.used[0]+p.used[1])
}

// giveBack frees bytes and grants them to work that waits.
func (p *part) giveBack(large bool, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := indexOf(large)
	if p.used[i] -= n; p.used[i] < 0 {
		panic("BUG: more work memory was given back than was held")
	}
	p.grantLocked()
}

// grantLocked grants bytes to the first waiters of both queues as long as they fit. Large work
// goes first, since small work has its quarter in any case.
func (p *part) grantLocked() {
	for _, large := range []bool{true, false} {
		i := indexOf(large)
		q := &p.waiting[i]
		for len(q.list) > 0 && p.fitsLocked(large, q.list[0].bytes) {
			p.takeBytesLocked(i, q.list[0].bytes)
			close(q.list[0].granted)
			q.list[0] = nil
			q.list = q.list[1:]
		}
		if len(q.list) == 0 {
			q.list = nil // frees the memory of the waiters before
		}
	}
}

// abandonWait removes a waiter that gives up. Bytes that were granted to it meanwhile are
// freed.
func (p *part) abandonWait(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := &p.waiting[indexOf(w.large)]
	if i := slices.Index(q.list, w); i >= 0 {
		q.list = slices.Delete(q.list, i, i+1)
	} else {
		p.used[indexOf(w.large)] -= w.bytes
	}
	p.grantLocked() // the waiters behind it may fit
}

func (p *part) takePeak() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	most := p.peak
	p.peak = p.used[0] + p.used[1]
	return most
}

func (p *part) measureUsage() Usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Usage{
		Limit: p.limit, Used: p.used[0] + p.used[1],
		Waiting: len(p.waiting[0].list) + len(p.waiting[1].list),
	}
}
