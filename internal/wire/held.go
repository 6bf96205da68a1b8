package wire

import (
	"errors"
	"slices"
	"sync"

	"github.com/leatstream/leat/internal/budget"
)

const (
	// readWithin is the number of sweeps that a client has to read an answer when memory is
	// short, however steadily it reads.
	readWithin = 8
	// holdFrom is the least size of an answer that holds work memory until it is sent.
	holdFrom = 16 << 10
)

// errUnread closes the connection of a client that does not read an answer which holds work
// memory while other work waits for memory.
var errUnread = errors.New("an answer was not read while others waited for its memory")

// errUnsentFull closes the connection of a client whose large answer was built without reserved
// memory, when none is left to keep it until it is sent.
var errUnsentFull = errors.New("there is no memory to keep a large answer until it is sent")

// heldAnswers are the answers that hold work memory and are not sent yet.
//
//	       Hold                   Send                  sent, or the connection ends
//	built ------> held of its work ----> held of Unsent ---------------------------> released
//	  |                     |   Send, Unsent is full                                    ^
//	  |                     '---> held of its work -------------------------------------'
//	  '--- Send ---> held of Unsent, or the connection is closed if that is full
//
// Two rules keep clients that do not read from stopping the work of others. From Send on, each
// answer that takes holdFrom or more is covered by a reservation, of the class Unsent as long
// as that has room. And while work waits for memory, or since an answer found Unsent full, a
// ready answer of which nothing is sent between two sweeps does not outlive the second one.
// So the unread answers that are there keep work waiting for at most two sweeps.
type heldAnswers struct {
	mu   sync.Mutex // guards what follows, and the fields of the answers
	list []*heldAnswer
	full bool // Unsent has had no room for an answer since the last sweep
}

// heldAnswer is the work memory that one answer holds until it is sent, or its connection ends.
type heldAnswer struct {
	of     *heldAnswers
	conn   *Conn
	ready  bool     // the answer can be sent; only then its client may be closed for not reading it
	memory Releaser // nil: it was released

	sweeps   int   // that have seen it ready
	progress int64 // of its connection's output at the last of them
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

// measure tells how much memory the answer has to itself, or that it shares its memory.
func (a *heldAnswer) measure() (bytes int64, shared bool) {
	if a == nil {
		return 0, false
	}
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	switch m := a.memory.(type) {
	case nil:
		return 0, false
	case *budget.Reservation:
		return m.Bytes(), false
	default:
		return 0, true
	}
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

// closeUnread is called at each sweep. While memory is short, it closes the connections of all
// ready answers of which nothing was sent since the last sweep, or which take too many sweeps.
func (l *heldAnswers) closeUnread(waiting int) {
	for _, c := range l.listUnread(waiting) {
		c.Close(errUnread)
	}
}

func (l *heldAnswers) listUnread(waiting int) (unread []*Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	short := waiting > 0 || l.full
	l.full = false
	for _, a := range l.list {
		if !a.ready {
			continue
		}
		progress := a.conn.out.progress.Load()
		stalled := a.sweeps > 0 && progress == a.progress
		a.sweeps, a.progress = a.sweeps+1, progress
		if short && (stalled || a.sweeps > readWithin) {
			unread = append(unread, a.conn)
		}
	}
	return unread
}

func (l *heldAnswers) noteFull() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full = true
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

// reserveUnsent reserves memory to keep an answer until it is sent. One that may need more than the
// largest reservation gets that one, so that it is the only large one. If there is none, the answer may
// keep the memory with which its request was decoded.
func (r *Request) reserveUnsent(n int64) (budget.Reservation, bool) {
	work := r.Conn.srv.cfg.Work
	memory, ok := work.TryReserve(budget.Unsent, min(n, work.Most(budget.Unsent)))
	if !ok {
		r.Conn.srv.held.noteFull()
		if r.decoded != nil {
			return r.decoded.takeAtLeast(n)
		}
	}
	return memory, ok
}

// takeAtLeast returns n bytes of the memory, and leaves none, if it has so much.
func (d *decodeMemory) takeAtLeast(n int64) (memory budget.Reservation, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.memory.Bytes() < n {
		return memory, false
	}
	memory, d.memory = d.memory, memory
	memory.Shrink(n)
	return memory, true
}

// chargeAnswer has a large answer that is ready hold memory of the class Unsent until it is
// sent. Where that is full, the answer keeps the memory with which it was made; ok is false
// if that is less than it takes. An answer that has such memory leaves a quarter of the class to
// those that have none, as the answers of groups: so clients that do not read long lists do not
// keep groups from working.
//
// A peer's answer keeps the memory with which it was made, if any, and is not closed for it: the number
// of peers' connections and maxUnsent bound it.
func (r *Request) chargeAnswer() (ok bool) {
	p, srv := &r.resp, r.Conn.srv
	if r.Conn.IsProven() {
		return true
	}
	if r.decoded != nil && p.held == nil && len(p.B) >= holdFrom {
		memory := r.decoded.takeMemory()
		memory.Shrink(p.Memory())
		r.Hold(&memory)
	}
	held, shared := p.held.measure()
	need := min(p.Memory(), srv.cfg.Work.Most(budget.Unsent))
	ok = true
	if n := max(held, need); n >= holdFrom && !shared {
		reserve := srv.cfg.Work.TryReserve
		if held >= need {
			reserve = srv.cfg.Work.TryReserveLarge
		}
		memory, moved := reserve(budget.Unsent, n)
		if moved {
			r.Hold(&memory)
		} else {
			srv.held.noteFull()
		}
		ok = moved || held >= need
	}
	if p.held != nil {
		p.held.noteReady()
	}
	return ok
}
