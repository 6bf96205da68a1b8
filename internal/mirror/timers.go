package mirror

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// timers wake partitions at their times, by one goroutine for all of a node.
type timers struct {
	clock func() time.Duration
	wake  chan struct{} // of size 1; filled: the first time is another one

	mu    sync.Mutex // guards the fields below, and partition.timer of all partitions
	queue timerQueue
}

// timer is when a partition is woken.
type timer struct {
	at    time.Duration
	index int // in the queue
	isSet bool
}

// timerQueue is a heap of partitions: the one that is woken first is on top.
type timerQueue []*partition

func (q *timerQueue) Len() int           { return len(*q) }
func (q *timerQueue) Less(i, j int) bool { return (*q)[i].timer.at < (*q)[j].timer.at }
func (q *timerQueue) Swap(i, j int) {
	(*q)[i], (*q)[j] = (*q)[j], (*q)[i]
	(*q)[i].timer.index, (*q)[j].timer.index = i, j
}

// Push is of heap.Interface.
func (q *timerQueue) Push(x any) {
	p, _ := x.(*partition)
	p.timer.index = len(*q)
	*q = append(*q, p)
}

// Pop is of heap.Interface.
func (q *timerQueue) Pop() any {
	last := len(*q) - 1
	p := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return p
}

// set has a partition be woken at a time, or not at all.
func (t *timers) set(p *partition, at time.Duration, isSet bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case isSet && p.timer.isSet:
		p.timer.at = at
		heap.Fix(&t.queue, p.timer.index)
	case isSet:
		p.timer.at, p.timer.isSet = at, true
		heap.Push(&t.queue, p)
	case p.timer.isSet:
		p.timer.isSet = false
		heap.Remove(&t.queue, p.timer.index)
	}
	if isSet && t.queue[0] == p {
		fill(t.wake)
	}
}

// takeDue takes the partitions whose time has come, and tells how long it is to the next one; negative: there is none.
func (t *timers) takeDue() (due []*partition, pause time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock()
	for len(t.queue) > 0 && t.queue[0].timer.at <= now {
		p := t.queue[0]
		p.timer.isSet = false
		heap.Pop(&t.queue)
		due = append(due, p)
	}
	if len(t.queue) == 0 {
		return due, -1
	}
	return due, t.queue[0].timer.at - now
}

// run gives partitions to do when their times come.
func (t *timers) run(ctx context.Context, do func(*partition)) {
	sleep := time.NewTimer(time.Hour)
	defer sleep.Stop()
	for {
		due, pause := t.takeDue()
		for _, p := range due {
			do(p)
		}
		if pause < 0 {
			pause = time.Hour
		}
		sleep.Reset(pause)
		select {
		case <-t.wake:
		case <-sleep.C:
		case <-ctx.Done():
			return
		}
	}
}
