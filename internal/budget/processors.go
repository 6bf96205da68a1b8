package budget

import (
	"sync"
	"sync/atomic"
)

// processors are the processors that may run long work. Work that has one waits for nothing
// until it calls Pass or Leave. Codecs wait in one queue and all other work in another, and the
// queues take turns, so that a flood of commands does not stop codecs.
type processors struct {
	mu      sync.Mutex // guards the fields below
	free    int
	waiting [2][]chan struct{} // in the order in which they came; closed when they get a processor
	last    int                // the queue that was served last

	queued atomic.Int32 // length of both queues; written with mu held, read by Pass without it
}

// queueOf is the queue in which work of the class waits for a processor.
func queueOf(c Class) int {
	if c == Codec {
		return 0
	}
	return 1
}

// Enter takes a processor for work of the class, and waits until it gets one. It needs no
// context, since the work on a processor passes it on after a short stretch.
func (b *Budget) Enter(c Class) {
	if b == nil {
		return
	}
	p := &b.processors
	p.mu.Lock()
	if p.free > 0 {
		p.free--
		p.mu.Unlock()
		return
	}
	turn := p.queueLocked(c)
	p.mu.Unlock()
	<-turn
}

// Pass gives the caller's processor to the next work that waits, and waits until it gets one
// again. It returns at once if no work waits.
func (b *Budget) Pass(c Class) {
	if b == nil || b.processors.queued.Load() == 0 {
		return
	}
	p := &b.processors
	p.mu.Lock()
	turn := p.queueLocked(c)
	p.serveNextLocked()
	p.mu.Unlock()
	<-turn
}

// Leave gives the caller's processor back.
func (b *Budget) Leave() {
	if b == nil {
		return
	}
	p := &b.processors
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queued.Load() == 0 {
		p.free++
		return
	}
	p.serveNextLocked()
}

// WaitingTurns is the number of pieces of work that wait for a processor.
func (b *Budget) WaitingTurns() int {
	if b == nil {
		return 0
	}
	return int(b.processors.queued.Load())
}

func (p *processors) queueLocked(c Class) chan struct{} {
	turn := make(chan struct{})
	q := &p.waiting[queueOf(c)]
	*q = append(*q, turn)
	p.queued.Add(1)
	return turn
}

// serveNextLocked gives a processor to the first waiter of the queue that was not served last,
// or of the other one if that is empty. There must be a waiter.
func (p *processors) serveNextLocked() {
	if other := 1 - p.last; len(p.waiting[other]) > 0 {
		p.last = other
	}
	q := &p.waiting[p.last]
	close((*q)[0])
	(*q)[0] = nil
	if *q = (*q)[1:]; len(*q) == 0 {
		*q = nil
	}
	p.queued.Add(-1)
}
