package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

const (
	// sendEarly bytes of answers go out before the rest of a read is served.
	sendEarly = 256 << 10
	// maxUnsent bytes of answers may wait for a client that does not read them;
	// behind them its requests are not read.
	maxUnsent = 1 << 20
	// relieved is the share of its bounds to which a connection must get back
	// before its requests are read again: a quarter less.
	relieved = 4
)

// Reasons why connections end.
var (
	errShutdown  = errors.New("the server shuts down")
	errIdle      = errors.New("nothing was sent for longer than the idle time-out")
	errHalfSent  = errors.New("the rest of a request did not come in time")
	errNoReader  = errors.New("the client does not read its answers")
	errNoMemory  = errors.New("the memory for requests is exhausted; more of it is given by a larger RequestMemory")
	errClientEnd = errors.New("the client closed the connection")
)

// Conn is one client's connection.
type Conn struct {
	srv  *Server
	nc   net.Conn
	sock socket
	sess Session

	prev, next *Conn // in the server's list, guarded by Server.mu

	// What follows belongs to the connection's goroutine.

	in        []byte // receive buffer; nil while the connection is idle
	a, b      int    // in[a:b] has come and was not served yet
	need      int    // bytes of the frame at in[a], once they are known
	class     int8   // of in
	hint      int8   // the class to begin with
	small     int8   // how often in a row the buffer was much too large
	filled    bool   // the last read filled the buffer
	peak      int    // the most that in has held
	tail      uint64 // answers that requests were taken for
	seen      uint64 // done, as last looked up
	clientID  string
	uncorked  bool // by the Session
	unflushed bool // requests were served since the last Flush

	progress atomic.Uint32 // the server's tick when bytes last moved
	half     atomic.Bool   // in holds a part of a request
	pressed  atomic.Bool   // sendEarly was reached

	mu      sync.Mutex // guards what follows; Server.mu and memory.mu are never taken under it
	out     outbox
	ring    ring   // answers that are ready before it is their turn
	held    int64  // bytes of those
	done    uint64 // answers that are in out, or were sent
	taken   uint64 // tail, as others may know it
	serving bool   // between a read and the end of its answers
	corked  bool   // ready answers are left to the connection's goroutine
	writing bool   // somebody is the writer
	closed  bool
	reason  error
	relief  chan struct{} // closed when the connection is relieved, or closed
	relieve bounds        // when that is
	waiting *waiter       // for memory

	drains sync.WaitGroup // goroutines of drain; added to under mu while not closed
}

// bounds say how much may be outstanding.
type bounds struct {
	parked uint64
	unsent int64
}

// LocalAddr is the address on which the client reached us.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr is the client's address.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Close ends the connection, with a reason for the log.
func (c *Conn) Close(reason error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed, c.reason = true, reason
	if c.relief != nil {
		close(c.relief)
		c.relief = nil
	}
	w := c.waiting
	var l leftovers
	if !c.writing {
		l = c.abandonLocked()
	}
	c.mu.Unlock()
	_ = c.nc.Close() // there is nobody left to tell
	if w != nil {
		c.srv.memory.cancel(w)
	}
	l.release(c.srv)
}

// leftovers are answers that are not sent any more.
type leftovers struct {
	cuts  []cut
	ready []*Request
}

func (c *Conn) abandonLocked() leftovers {
	l := leftovers{c.out.abandon(), c.ring.list}
	c.ring, c.held = ring{}, 0
	return l
}

func (l leftovers) release(s *Server) {
	for _, k := range l.cuts {
		if k.sec != nil {
			k.sec.Release()
		}
		if k.owner != nil {
			s.recycle(k.owner)
		}
	}
	for _, r := range l.ready {
		if r != nil {
			r.resp.discard()
			s.recycle(r)
		}
	}
}

// run serves the connection until it ends.
func (c *Conn) run() {
	err := c.guarded(func() error {
		c.sess = c.srv.handler.Open(c)
		return nil
	})
	for err == nil && !c.srv.stopping.Load() {
		if err = c.sock.read(c); err != nil {
			break
		}
		if c.whole() {
			err = c.cycle()
		}
	}
	if c.srv.stopping.Load() {
		err = errShutdown
		c.linger()
	}
	c.Close(err)
	c.drains.Wait()
	c.giveBuffer()
	if c.sess != nil {
		if err := c.guarded(func() error { c.sess.Close(); return nil }); err != nil {
			c.report(err)
		}
	}
	c.report(c.reason)
}

// panicError is what a panic of a Session becomes.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// guarded calls f and makes an error of its panic: a bug costs one connection,
// not the process.
func (c *Conn) guarded(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v, debug.Stack()}
		}
	}()
	return f()
}

// whole tells whether the buffer begins with something to be done: a whole
// request, or a size that must be refused.
func (c *Conn) whole() bool {
	if c.b-c.a < 4 {
		return false
	}
	n := int(int32(binary.BigEndian.Uint32(c.in[c.a:])))
	c.need = n + 4
	return n <= 0 || n > c.srv.cfg.MaxFrame || c.b-c.a >= n+4
}

// cycle serves what one read brought and sends the answers that are ready.
func (c *Conn) cycle() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v, debug.Stack()}
		}
	}()
	c.cork()
	err = c.serve()
	c.flush()
	c.uncork()
	if err == nil && c.much() {
		err = c.await(c.limits())
	}
	return err
}

func (c *Conn) limits() bounds {
	return bounds{uint64(c.srv.cfg.MaxParked) - 1, maxUnsent}
}

// much tells that so much is outstanding that limits must be looked at.
func (c *Conn) much() bool {
	return c.pressed.Load() || c.tail-c.seen >= uint64(c.srv.cfg.MaxParked)
}

// serve hands all whole requests in the buffer to the session.
func (c *Conn) serve() error {
	for c.whole() {
		n := c.need - 4
		if n <= 0 || n > c.srv.cfg.MaxFrame {
			return refuse(c.in[c.a:c.b], c.srv.cfg.MaxFrame)
		}
		frame := c.in[c.a+4 : c.a+c.need : c.a+c.need]
		c.a += c.need
		if err := c.serveFrame(frame); err != nil {
			return err
		}
		if c.much() {
			if err := c.pause(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Conn) serveFrame(frame []byte) error {
	h, body, err := c.srv.guard.header(frame)
	if err != nil {
		c.srv.stats.Refused.Add(1)
		return err
	}
	if string(h.clientID) != c.clientID {
		c.clientID = string(h.clientID)
	}
	c.srv.stats.request(h.key)
	r, _ := c.srv.requests.Get().(*Request)
	r.Conn, r.Key, r.Version, r.CorrelationID, r.ClientID = c, h.key, h.version, h.correlationID, c.clientID
	r.Body, r.seq = body, c.tail
	c.tail++
	c.unflushed = true
	if c.uncorked {
		c.cork()
	}
	if err := c.sess.Serve(r); err != nil {
		return fmt.Errorf("%s v%d: %w", keyName(h.key), h.version, err)
	}
	return nil
}

// flush tells the session that the bodies served so far go away.
func (c *Conn) flush() {
	if c.unflushed {
		c.unflushed = false
		c.sess.Flush()
	}
}

// pause sends what is ready in the midst of a read, when it is much, and waits
// where the bounds of the connection are reached.
func (c *Conn) pause() error {
	c.flush()
	c.uncork()
	err := c.await(c.limits())
	c.cork()
	return err
}

// cork leaves ready answers to the connection's goroutine.
func (c *Conn) cork() {
	c.uncorked = false
	c.mu.Lock()
	c.corked, c.serving = true, true
	c.mu.Unlock()
}

// uncork sends what is ready, and lets others send what they complete.
func (c *Conn) uncork() {
	c.uncorked = true
	c.mu.Lock()
	c.corked, c.serving = false, false
	c.taken, c.seen = c.tail, c.done
	write := !c.writing && !c.closed && c.out.size > 0
	if write {
		c.writing = true
	} else if !c.writing {
		c.out.close(&c.srv.boxes)
	}
	c.mu.Unlock()
	if write {
		c.write(byOwner)
	}
}

// Uncork sends what is ready now, in order, before a handler that may take long.
// Only the Session may call it.
func (c *Conn) Uncork() {
	c.uncork()
	c.mu.Lock()
	c.serving = true
	c.mu.Unlock()
}

// await waits until no more is outstanding than the bounds allow, and where they
// were passed, until there is some room.
func (c *Conn) await(max bounds) error {
	c.mu.Lock()
	if c.closed {
		defer c.mu.Unlock()
		return c.reason
	}
	c.seen = c.done
	c.pressed.Store(c.out.size+c.held >= sendEarly)
	if c.withinLocked(max) {
		c.mu.Unlock()
		return nil
	}
	relief := make(chan struct{})
	c.relief = relief
	c.relieve = bounds{max.parked - max.parked/relieved, max.unsent - max.unsent/relieved}
	c.mu.Unlock()
	<-relief
	return c.await(max)
}

func (c *Conn) withinLocked(b bounds) bool {
	return c.taken-c.done <= b.parked && c.out.size+c.held <= b.unsent
}

// linger lets the answers of requests that were read go out, until the server
// closes the connection.
func (c *Conn) linger() {
	_ = c.await(bounds{}) // a closed connection has nothing to wait for
	if h, ok := c.nc.(interface{ CloseWrite() error }); ok && h.CloseWrite() == nil {
		c.swallow()
	}
}

// lingerBytes bounds what is read of a client that has been told that no more
// answers will come. Closing with unread bytes would reset the connection, and
// the client could lose answers that it has not read yet.
const lingerBytes = 1 << 20

func (c *Conn) swallow() {
	if c.nc.SetReadDeadline(c.srv.lingerUntil()) == nil {
		_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
	}
}

// claim hands out the place behind the outbox when r's answer is the next one.
func (c *Conn) claim(r *Request) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.seq != c.done || c.closed {
		return nil
	}
	r.resp.claimed = true
	return c.out.tail(&c.srv.boxes, c.writing)
}

// complete takes the answer of r; it goes out when all before it have.
func (c *Conn) complete(r *Request) {
	var finished *Request
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		r.resp.discard()
		c.srv.recycle(r)
		return
	}
	if r.seq != c.done {
		c.ring.put(r, c.done)
		c.held += int64(r.resp.size())
		if c.held >= sendEarly {
			c.pressed.Store(true)
		}
		c.mu.Unlock()
		return
	}
	for n := r; n != nil; n = c.ring.take(c.done) {
		if n != r {
			c.held -= int64(n.resp.size())
		}
		c.done++
		if c.out.add(n, &c.srv.boxes, c.writing) {
			n.next, finished = finished, n
		}
	}
	if c.out.size >= sendEarly {
		c.pressed.Store(true)
	}
	write := !c.corked && !c.writing && c.out.size > 0
	if write {
		c.writing = true
	}
	c.relieveLocked()
	c.mu.Unlock()
	c.srv.recycle(finished)
	if write {
		c.write(byOther)
	}
}

// relieveLocked wakes the connection's goroutine where it waits for room.
func (c *Conn) relieveLocked() {
	if c.relief != nil && c.withinLocked(c.relieve) {
		close(c.relief)
		c.relief = nil
	}
}

// ring keeps answers that are ready before it is their turn, by the order of
// their requests.
type ring struct {
	list []*Request // a power of two long; seq's place is its low bits
	n    int
}

func (g *ring) put(r *Request, done uint64) {
	if d := int(r.seq - done); d >= len(g.list) {
		size := max(16, len(g.list))
		for size <= d {
			size *= 2
		}
		list := make([]*Request, size)
		for _, o := range g.list {
			if o != nil {
				list[o.seq&uint64(size-1)] = o
			}
		}
		g.list = list
	}
	i := r.seq & uint64(len(g.list)-1)
	if g.list[i] != nil {
		panic("BUG: a request was answered twice")
	}
	g.list[i] = r
	g.n++
}

// take removes the answer with that place in the order, if it is ready.
func (g *ring) take(seq uint64) *Request {
	if g.n == 0 {
		return nil
	}
	i := seq & uint64(len(g.list)-1)
	r := g.list[i]
	if r == nil {
		return nil
	}
	g.list[i] = nil
	if g.n--; g.n == 0 && len(g.list) > 64 {
		g.list = nil
	}
	return r
}
