package wire

import (
	"errors"
	"slices"
	"sync"

	"github.com/leatstream/leat/internal/budget"
)

const (
	// unreadFor is for how many sweeps work waits for memory until the oldest unread answer
	// that holds some is given up with its connection.
	unreadFor = 3
	// holdFrom is the size from which an answer holds work memory until it was sent.
	holdFrom = 16 << 10
)

// errUnread ends the connection of a client that does not read an answer which holds work
// memory, while others wait for it.
var errUnread = errors.New("an answer was not read while others waited for its memory")

// heldAnswers are the answers that hold work memory and were not sent yet, the oldest
// first.
type heldAnswers struct {
	mu      sync.Mutex // guards what follows, and the fields of the answers
	list    []*heldAnswer
	waiting int // sweeps in a row at which others waited for memory
}

// heldAnswer is the work memory that one answer holds until it was sent, or its connection
// is gone.
type heldAnswer struct {
	of     *heldAnswers
	conn   *Conn
	ready  bool     // it could be sent: while it is not, its client is not the one to blame
	memory Releaser // nil: it was released
}

// Releaser is memory that an answer holds until it was sent.
type Releaser interface{ Release() }

func (l *heldAnswers) enter(c *Conn, memory Releaser) *heldAnswer {
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

// releaseOf gives back all that the answers of a connection hold that has ended: a request
// that met a bug is never answered.
func (l *heldAnswers) releaseOf(c *Conn) {
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

// relieve is called at each sweep. Where work has waited for the memory of answers for some
// sweeps, it closes the connection whose answer has been unread for longest.
func (l *heldAnswers) relieve(waiting int) {
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

// Hold has the answer that Begin started hold work memory until it was sent, or the
// connection is gone. The caller's reservation is empty afterwards. It takes the place of
// what the answer held before. Less than holdFrom is not held: small answers are bounded with
// all that is unsent.
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
	r.resp.held = r.Conn.srv.held.enter(r.Conn, memory)
}

// decodeMemory is the work memory of a decoded request while it is served. It goes back when
// Serve returns, unless the answer takes what it needs of it.
type decodeMemory struct {
	mu     sync.Mutex // the answer may come from any goroutine
	memory budget.Reservation
}

// take empties it.
func (d *decodeMemory) take() (memory budget.Reservation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	memory, d.memory = d.memory, memory
	return memory
}

// holdMemory has a large answer that is ready hold as much as it takes of the memory with which
// the request was decoded, unless it holds memory already.
func (r *Request) holdMemory() {
	if p := &r.resp; r.decoded != nil && p.held == nil && len(p.B) >= holdFrom {
		memory := r.decoded.take()
		memory.Shrink(int64(len(p.B)))
		r.Hold(&memory)
	}
	if r.resp.held != nil {
		r.resp.held.noteReady()
	}
}
