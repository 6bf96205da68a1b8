package wire

import (
	"errors"
	"slices"
	"sync"

	"github.com/leatstream/leat/internal/budget"
)

const (
	// unreadFor is the number of sweeps in a row that find work waiting for memory after which
	// the connection of the oldest unread answer that holds some is closed.
	unreadFor = 3
	// holdFrom is the least size of an answer that holds work memory until it is sent.
	holdFrom = 16 << 10
)

// errUnread closes the connection of a client that does not read an answer which holds work
// memory while other work waits for memory.
var errUnread = errors.New("an answer was not read while others waited for its memory")

// heldAnswers are the answers that hold work memory and are not sent yet, the oldest first.
type heldAnswers struct {
	mu      sync.Mutex // guards the fields below, and those of the answers
	list    []*heldAnswer
	waiting int // how many sweeps in a row have found work that waits for memory
}

// heldAnswer is the work memory that one answer holds until it is sent, or its connection ends.
type heldAnswer struct {
	of     *heldAnswers
	conn   *Conn
	ready  bool     // the answer can be sent; only then its client may be closed for not reading it
	memory Releaser // nil: it was released
}

// Releaser is memory that an answer holds until it is sent.
type Releaser interface{ Release() }

func (l *heldAnswers) addAnswer(c *Conn, memory Releaser) *heldAnswer {
	a := &heldAnswer{of: l, conn: c, memory: memory}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, a)
	return a
}

func (a *heldAnswer) noteReady() {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	a.ready = true
}

// release gives the memory back. A second call does nothing.
func (a *heldAnswer) release() {
	l := a.of
	l.mu.Lock()
	if i := slices.Index(l.list, a); i >= 0 {
		l.list = slices.Delete(l.list, i, i+1)
	}
	memory := a.memory
	a.memory = nil
	l.mu.Unlock()
	if memory != nil {
		memory.Release()
	}
}

// releaseOfConn gives back all memory that the answers of an ended connection hold. A request
// that has panicked is never answered, and would hold its memory for ever.
func (l *heldAnswers) releaseOfConn(c *Conn) {
	var left []*heldAnswer
	l.mu.Lock()
	for _, a := range l.list {
		if a.conn == c {
			left = append(left, a)
		}
	}
	l.mu.Unlock()
	for _, a := range left {
		a.release()
	}
}

// closeOldestUnread is called at each sweep. If unreadFor sweeps have found work that waits for
// memory, it closes the connection with the answer that has been unread for longest.
func (l *heldAnswers) closeOldestUnread(waiting int) {
	l.mu.Lock()
	var oldest *heldAnswer
	if l.waiting++; waiting == 0 {
		l.waiting = 0
	}
	if i := slices.IndexFunc(l.list, func(a *heldAnswer) bool { return a.ready }); l.waiting >= unreadFor && i >= 0 {
		oldest = l.list[i]
		l.waiting = 0
	}
	l.mu.Unlock()
	if oldest != nil {
		oldest.conn.Close(errUnread)
	}
}

// Hold has the answer that Begin started hold work memory until it is sent, or the connection
// ends, in place of the memory that it held before. It takes over the caller's reservation.
// Less than holdFrom is released at once: small answers are bounded as part of all unsent ones.
func (r *Request) Hold(memory *budget.Reservation) {
	if memory.Bytes() < holdFrom {
		memory.Release()
		r.resp.releaseHeld()
		return
	}
	own := *memory
	*memory = budget.Reservation{}
	r.HoldShared(&own)
}

// HoldShared is Hold for memory that several answers share.
func (r *Request) HoldShared(memory Releaser) {
	r.resp.releaseHeld()
	r.resp.held = r.Conn.srv.held.addAnswer(r.Conn, memory)
}

// decodeMemory is the work memory of a decoded request while it is served. It is released when
// Serve returns, except for the part that a large answer has taken.
type decodeMemory struct {
	mu     sync.Mutex // the answer may come from any goroutine
	memory budget.Reservation
}

// takeMemory returns the memory, and leaves none.
func (d *decodeMemory) takeMemory() (memory budget.Reservation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	memory, d.memory = d.memory, memory
	return memory
}

// holdMemory has a large answer that is ready hold the part that it needs of the request's
// decodeMemory, unless it holds memory already.
func (r *Request) holdMemory() {
	if p := &r.resp; r.decoded != nil && p.held == nil && len(p.B) >= holdFrom {
		memory := r.decoded.takeMemory()
		memory.Shrink(int64(len(p.B)))
		r.Hold(&memory)
	}
	if r.resp.held != nil {
		r.resp.held.noteReady()
	}
}
