package budget

import (
	"slices"
	"sync"
)

// How a class is shared between small and large work.
const (
	smallShare = 16 // work of up to this fraction of the class is small
	keptShare  = 4  // this fraction of the class cannot be taken by large work
)

// part is the memory of one class.
type part struct {
	limit    int64 // bytes in all
	forLarge int64 // bytes that large work may take of them
	forSmall int64 // bytes that small work has while large work waits
	small    int64 // bytes up to which work is small

	mu      sync.Mutex // guards what follows
	used    [2]int64   // bytes that are held by small and by large work
	waiting [2]line
}

// line is work that waits, in the order in which it came.
type line struct{ list []*waiter }

// waiter is one piece of work in a line. It leaves the line when it is granted its
// bytes or abandons them, both under the part's mutex.
type waiter struct {
	large   bool
	bytes   int64
	granted chan struct{} // closed when the bytes are its own
}

func index(large bool) int {
	if large {
		return 1
	}
	return 0
}

func (p *part) setLimit(n int64) {
	p.limit = n
	p.forSmall = n / keptShare
	p.forLarge = n - p.forSmall
	p.small = n / smallShare
}

// size tells whether work is large, or refuses it.
func (p *part) size(c Class, n int64) (large bool, err error) {
	if n > p.forLarge {
		return false, tooLarge(c, n, p.forLarge)
	}
	return n > p.small, nil
}

// fitsLocked tells whether work can begin now, whoever waits before it.
func (p *part) fitsLocked(large bool, n int64) bool {
	if p.used[0]+p.used[1]+n > p.limit {
		return false
	}
	if large {
		return p.used[1]+n <= p.forLarge
	}
	return len(p.waiting[1].list) == 0 || p.used[0]+n <= p.forSmall
}

// take takes n bytes, or enters the line and returns the place in it.
func (p *part) take(large bool, n int64) *waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.takeLocked(large, n) {
		return nil
	}
	w := &waiter{large: large, bytes: n, granted: make(chan struct{})}
	l := &p.waiting[index(large)]
	l.list = append(l.list, w)
	return w
}

func (p *part) tryTake(large bool, n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.takeLocked(large, n)
}

func (p *part) takeLocked(large bool, n int64) bool {
	i := index(large)
	if len(p.waiting[i].list) > 0 || !p.fitsLocked(large, n) {
		return false
	}
	p.used[i] += n
	return true
}

// give takes bytes back and lets those begin that now can.
func (p *part) give(large bool, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := index(large)
	if p.used[i] -= n; p.used[i] < 0 {
		panic("BUG: more work memory was given back than was held")
	}
	p.grantLocked()
}

// grantLocked lets the first ones of both lines begin as long as they fit. Large
// work goes first: it waits for more, and small work has its quarter in any case.
func (p *part) grantLocked() {
	for _, large := range []bool{true, false} {
		i := index(large)
		l := &p.waiting[i]
		for len(l.list) > 0 && p.fitsLocked(large, l.list[0].bytes) {
			p.used[i] += l.list[0].bytes
			close(l.list[0].granted)
			l.list[0] = nil
			l.list = l.list[1:]
		}
		if len(l.list) == 0 {
			l.list = nil // the memory of those that were served
		}
	}
}

// abandon ends a wait. Bytes that were granted meanwhile go back.
func (p *part) abandon(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &p.waiting[index(w.large)]
	if i := slices.Index(l.list, w); i >= 0 {
		l.list = slices.Delete(l.list, i, i+1)
	} else {
		p.used[index(w.large)] -= w.bytes
	}
	p.grantLocked() // those behind it may fit
}

func (p *part) usage() Usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Usage{
		Limit: p.limit, Used: p.used[0] + p.used[1],
		Waiting: len(p.waiting[0].list) + len(p.waiting[1].list),
	}
}
