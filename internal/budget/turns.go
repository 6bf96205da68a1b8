package budget

import (
	"context"
	"net/netip"
	"slices"
	"sync"
)

// Turns lets few pieces of work that strangers can ask for compute at the same time, such as handshakes and checks of passwords. Each
// network has a queue, and the networks take turns: however many pieces of work those of one network ask for, work for another network
// waits for one of each network at most.
//
//	new --a turn is free--> has its turn --Give--> done
//	 |                         ^
//	 '--none is--> waiting ----'  in the order of its network, when that has its turn
//	                  |
//	                  '--its client is gone--> refused
//
// Any goroutine may use it.
type Turns struct {
	mu    sync.Mutex
	free  int                       // turns that nobody has; 0 while work waits; guarded by mu
	of    map[netip.Addr]*turnQueue // of the networks for which work waits; guarded by mu
	order []*turnQueue              // the same queues, the one that is served next is first; guarded by mu
}

// turnQueue is the work of one network that waits.
type turnQueue struct {
	network netip.Addr
	waiting []chan struct{} // in the order in which it came; each is closed when its work has its turn
}

// NewTurns makes turns of which n may be taken at a time.
func NewTurns(n int) *Turns {
	return &Turns{free: max(n, 1), of: map[netip.Addr]*turnQueue{}}
}

// Take takes a turn for a client of an address, and waits until it gets one; false: the channel was closed before. The caller must call
// Give after true.
func (t *Turns) Take(gone <-chan struct{}, ip netip.Addr) bool {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return true
	}
	turn := t.queueLocked(NetworkOf(ip))
	t.mu.Unlock()
	select {
	case <-turn:
		return true
	case <-gone:
	}
	if !t.leave(NetworkOf(ip), turn) {
		t.Give() // it came at the same time
	}
	return false
}

// Give gives a turn back.
func (t *Turns) Give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.order) == 0 {
		t.free++
		return
	}
	q := t.order[0]
	t.order[0] = nil
	t.order = t.order[1:]
	close(q.waiting[0])
	q.waiting[0] = nil
	if q.waiting = q.waiting[1:]; len(q.waiting) > 0 {
		t.order = append(t.order, q)
		return
	}
	delete(t.of, q.network)
}

// Waiting is how many pieces of work wait for a turn.
func (t *Turns) Waiting() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, q := range t.order {
		n += len(q.waiting)
	}
	return n
}

func (t *Turns) queueLocked(network netip.Addr) chan struct{} {
	q := t.of[network]
	if q == nil {
		q = &turnQueue{network: network}
		t.of[network] = q
		t.order = append(t.order, q)
	}
	turn := make(chan struct{})
	q.waiting = append(q.waiting, turn)
	return turn
}

// leave takes work out of the queue; false: it is not there, since it has its turn.
func (t *Turns) leave(network netip.Addr, turn chan struct{}) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.of[network]
	if q == nil {
		return false
	}
	i := slices.Index(q.waiting, turn)
	if i < 0 {
		return false
	}
	if q.waiting = slices.Delete(q.waiting, i, i+1); len(q.waiting) == 0 {
		delete(t.of, network)
		t.order = slices.DeleteFunc(t.order, func(o *turnQueue) bool { return o == q })
	}
	return true
}

// NetworkOf is what stands for an address where clients share something: an IPv6 host has all addresses of a /64.
func NetworkOf(ip netip.Addr) netip.Addr {
	ip = ip.Unmap()
	if !ip.Is6() {
		return ip
	}
	network, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return ip
	}
	return network.Addr()
}

// Origin is the key of the value that a context has for the address, a netip.Addr, of the client for which work is done.
type Origin struct{}

// WithOrigin is a context of work for a client of an address.
func WithOrigin(ctx context.Context, ip netip.Addr) context.Context {
	return context.WithValue(ctx, Origin{}, ip)
}

// OriginOf is the address of the client for which a context's work is done; the zero address: it is not known.
func OriginOf(ctx context.Context) netip.Addr {
	ip, _ := ctx.Value(Origin{}).(netip.Addr)
	return ip
}
