package budget

import (
	"sync"
	"sync/atomic"
)

// processors are those that may run codecs. Who has one waits for nothing until it
// passes it on or leaves.
type processors struct {
	mu      sync.Mutex // guards what follows
	free    int
	waiting []chan struct{} // in the order in which they came; closed when it is their turn

	queued atomic.Int32 // length of waiting: Pass looks at it without the mutex
}

// Enter waits for a processor on which codecs may run. The wait needs no context:
// whoever has one passes it on after a short stretch.
func (b *Budget) Enter() {
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
	turn := p.queueLocked()
	p.mu.Unlock()
	<-turn
}

// Pass hands the caller's processor to the one that has waited longest, and waits
// for another turn. It returns at once where nobody waits.
func (b *Budget) Pass() {
	if b == nil || b.processors.queued.Load() == 0 {
		return
	}
	p := &b.processors
	p.mu.Lock()
	if len(p.waiting) == 0 {
		p.mu.Unlock()
		return
	}
	p.nextLocked()
	turn := p.queueLocked()
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
	if len(p.waiting) == 0 {
		p.free++
		return
	}
	p.nextLocked()
}

func (p *processors) queueLocked() chan struct{} {
	turn := make(chan struct{})
	p.waiting = append(p.waiting, turn)
	p.queued.Store(int32(len(p.waiting)))
	return turn
}

func (p *processors) nextLocked() {
	close(p.waiting[0])
	p.waiting[0] = nil
	if p.waiting = p.waiting[1:]; len(p.waiting) == 0 {
		p.waiting = nil
	}
	p.queued.Store(int32(len(p.waiting)))
}
