package budget

import (
	"sync"
	"sync/atomic"
)

// processors are those that may run work of length. Who has one waits for nothing
// until it passes it on or leaves. Codecs wait in one line and all other work in
// another, and the lines take turns, so that a flood of commands leaves codecs alone.
type processors struct {
	mu      sync.Mutex // guards what follows
	free    int
	waiting [2][]chan struct{} // each in the order of coming; closed when it is their turn
	last    int                // the line that was served last

	queued atomic.Int32 // length of both lines: Pass looks at it without the mutex
}

// turnOf is the line in which work of the class waits for a processor.
func turnOf(c Class) int {
	if c == Codec {
		return 0
	}
	return 1
}

// Enter waits for a processor on which work of the class may run. The wait needs no
// context: whoever has one passes it on after a short stretch.
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

// Pass hands the caller's processor to the next one that waits, and waits for another
// turn. It returns at once where nobody waits.
func (b *Budget) Pass(c Class) {
	if b == nil || b.processors.queued.Load() == 0 {
		return
	}
	p := &b.processors
	p.mu.Lock()
	turn := p.queueLocked(c)
	p.nextLocked()
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
	p.nextLocked()
}

// WaitingTurns is how much work waits for a processor.
func (b *Budget) WaitingTurns() int {
	if b == nil {
		return 0
	}
	return int(b.processors.queued.Load())
}

func (p *processors) queueLocked(c Class) chan struct{} {
	turn := make(chan struct{})
	l := &p.waiting[turnOf(c)]
	*l = append(*l, turn)
	p.queued.Add(1)
	return turn
}

// nextLocked gives a processor to the line whose turn it is, or the other one.
func (p *processors) nextLocked() {
	if other := 1 - p.last; len(p.waiting[other]) > 0 {
		p.last = other
	}
	l := &p.waiting[p.last]
	close((*l)[0])
	(*l)[0] = nil
	if *l = (*l)[1:]; len(*l) == 0 {
		*l = nil
	}
	p.queued.Add(-1)
}
