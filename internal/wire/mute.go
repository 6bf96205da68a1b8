package wire

import (
	priority "container/heap" // tests have a function heap
	"sync"
	"time"
)

// mutedList wakes the muted connections of a server when their time is over.
type mutedList struct {
	clock func() time.Duration // since the server was made

	mu    sync.Mutex
	conns mutedHeap   // guarded by mu
	timer *time.Timer // for the first one; nil before there was one; guarded by mu
}

// muted is a connection that is muted.
type muted interface {
	// endMute is called when its time is over.
	endMute()
}

type mutedConn struct {
	conn  muted
	until time.Duration
}

func newMutedList() *mutedList {
	began := time.Now()
	return &mutedList{clock: func() time.Duration { return time.Since(began) }}
}

func (l *mutedList) add(c muted, until time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	priority.Push(&l.conns, mutedConn{c, until})
	if l.conns[0].conn == c {
		l.setTimerLocked()
	}
}

// setTimerLocked sets the timer for the first connection.
func (l *mutedList) setTimerLocked() {
	wait := l.conns[0].until - l.clock()
	if l.timer == nil {
		l.timer = time.AfterFunc(wait, l.wakeDue)
	} else {
		l.timer.Reset(wait)
	}
}

// wakeDue wakes the connections whose time is over. One that was closed, or woken by a stop, is not muted any more.
func (l *mutedList) wakeDue() {
	var due []muted
	l.mu.Lock()
	for now := l.clock(); len(l.conns) > 0 && l.conns[0].until <= now; {
		m, _ := priority.Pop(&l.conns).(mutedConn)
		due = append(due, m.conn)
	}
	if len(l.conns) > 0 {
		l.setTimerLocked()
	}
	l.mu.Unlock()
	for _, c := range due {
		c.endMute()
	}
}

// count is how many connections are in the list.
func (l *mutedList) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// stop forgets all connections, which the server wakes or closes.
func (l *mutedList) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = nil
	if l.timer != nil {
		l.timer.Stop()
	}
}

// mutedHeap has the connection whose time is over first at its front.
type mutedHeap []mutedConn //nolint:recvcheck // as container/heap wants it

func (h mutedHeap) Len() int           { return len(h) }
func (h mutedHeap) Less(i, j int) bool { return h[i].until < h[j].until }
func (h mutedHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push appends an element; heap.Push calls it.
func (h *mutedHeap) Push(x any) {
	if m, ok := x.(mutedConn); ok {
		*h = append(*h, m)
	}
}

// Pop removes the last element; heap.Pop calls it.
func (h *mutedHeap) Pop() any {
	last := len(*h) - 1
	m := (*h)[last]
	(*h)[last] = mutedConn{}
	*h = (*h)[:last]
	return m
}
