package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// sendEarly bytes of answers go out before the rest of a read is served.
	sendEarly = 256 << 10
	// maxUnsent bytes of answers may wait for a client that does not read them;
	// behind them its requests are not read.
	maxUnsent = 1 << 20
	// relieved is the share of its bounds by which a connection must get below
	// them before its requests are read again: a quarter.
	relieved = 4
	// parkedStep answers outstanding cost a connection nothing; those beyond are
	// counted for the server, in steps of this size.
	parkedStep = 64
	// parkedShare times MaxParked answers may be outstanding on all connections.
	parkedShare = 4
)

// Reasons why connections end.
var (
	errGone     = errors.New("the client is gone")
	errShutdown = errors.New("the server shuts down")
	errIdle     = errors.New("nothing was sent for longer than the idle time-out")
	errHalfSent = errors.New("the rest of a request did not come in time")
	errNoReader = errors.New("the client does not read its answers")
	errDozes    = errors.New("the connection was left to the dozer")
	errNoMemory = errors.New("the memory for requests is exhausted, and this connection held the oldest unfinished one")
)

// Conn is one client's connection.
type Conn struct {
	srv  *Server
	nc   net.Conn
	sock socket
	sess Session

	prev, next *Conn // in one of the server's rings, guarded by Server.mu
	shelved    bool  // in that of those that doze, guarded by Server.mu

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
	halfOf    uint64 // tail when holds was last set
	uncorked  bool   // by the Session
	unflushed bool   // requests were served since the last Flush
	refused   bool   // the session ended the connection
	key       int16  // of the last requests
	requests  int64  // of that key which Stats do not know yet

	progress atomic.Uint32 // the server's tick when bytes last moved
	began    atomic.Uint32 // the tick when the rest of a request was first waited for
	holds    atomic.Int64  // bytes of buffer held while waiting for that rest
	pressed  atomic.Bool   // look at the bounds: sendEarly was reached, or the connection was closed

	mu        sync.Mutex // guards what follows; Server.mu and memory.mu are never taken under it
	out       outbox
	ring      ring   // answers that are ready before it is their turn
	held      int64  // bytes of those
	done      uint64 // answers that are in out, or were sent
	taken     uint64 // tail, as others may know it
	counted   int64  // of taken-done, what Server.parked counts
	serving   bool   // between a read and the end of its answers
	corked    bool   // ready answers are left to the connection's goroutine
	writing   bool   // somebody is the writer
	later     bool   // ready answers are left to writeLater
	laterRuns bool   // it was started
	closed    bool
	dozing    bool // it has no goroutine until somebody wakes it
	reason    error
	relief    chan struct{} // closed when the connection is relieved, or closed
	relieve   bounds        // when that is
	waiting   *waiter       // for memory

	drains sync.WaitGroup // goroutines of drain; added to under mu while not closed
}

// bounds say how much may be outstanding.
type bounds struct {
	parked uint64 // answers that are not ready
	unsent int64  // bytes to be sent
	held   int64  // bytes of answers that are ready before it is their turn
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
	c.pressed.Store(true)
	c.srv.parked.Add(-c.counted)
	c.counted = 0
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
	c.wake()
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

// nod lets the connection doze, unless it is to end. The caller's goroutine must
// leave it alone then.
func (c *Conn) nod() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dozing = !c.closed && !c.srv.stopping.Load()
	return c.dozing
}

// rouse tells whether the connection dozed. Who is told so owns it.
func (c *Conn) rouse() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	dozed := c.dozing
	c.dozing = false
	return dozed
}

// wake gives a connection that dozes a goroutine again.
func (c *Conn) wake() {
	if c.rouse() {
		c.srv.shelve(c, false)
		go c.srv.resume(c) // it is counted in Server.running as long as it is open
	}
}

// run serves the connection until it ends; false: until it dozes.
func (c *Conn) run() (ended bool) {
	var err error
	if c.sess == nil {
		err = guarded(func() error {
			c.sess = c.srv.handler.Open(c)
			return nil
		})
	}
	for err == nil && !c.srv.stopping.Load() {
		if err = c.sock.read(c); err != nil {
			if errors.Is(err, errDozes) {
				return false
			}
			err = gone(err)
			break
		}
		if c.whole() {
			err = guarded(c.cycle)
		}
	}
	switch {
	case c.srv.stopping.Load():
		err = errShutdown
		c.linger(bounds{})
	case c.refused: // what was parked is given up
		c.linger(bounds{math.MaxUint64, 0, math.MaxInt64})
	}
	c.Close(err)
	c.drains.Wait()
	c.giveBuffer()
	if c.sess != nil {
		if err := guarded(func() error { c.sess.Close(); return nil }); err != nil {
			c.report(err)
		}
	}
	c.report(c.reason)
	return true
}

// panicError is what a panic of a Session becomes.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// guarded calls f and makes an error of its panic: a bug costs one connection,
// not the process.
func guarded(f func() error) (err error) {
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
func (c *Conn) cycle() error {
	c.cork()
	err := c.serve()
	c.count()
	c.flush()
	c.uncork()
	if err == nil && c.much() {
		err = c.await(c.limits())
	}
	return err
}

// limits are the bounds of the connection. When too many answers are outstanding
// on all connections, those which have many must wait.
func (c *Conn) limits() bounds {
	parked := c.srv.cfg.MaxParked
	if c.srv.parked.Load() > int64(parked)*parkedShare {
		parked = min(parked, parkedStep)
	}
	return bounds{uint64(parked) - 1, maxUnsent, maxUnsent}
}

// much tells that so much is outstanding that the limits must be looked at.
func (c *Conn) much() bool {
	parked := c.tail - c.seen
	return parked >= parkedStep && parked > c.limits().parked || c.pressed.Load()
}

// serve hands all whole requests in the buffer to the session.
func (c *Conn) serve() error {
	for c.whole() {
		n := c.need - 4
		if n <= 0 || n > c.srv.cfg.MaxFrame {
			c.srv.stats.Refused.Add(1)
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
	if h.key != c.key {
		c.count()
		c.key = h.key
	}
	c.requests++
	r, _ := c.srv.requests.Get().(*Request)
	r.Conn, r.Key, r.Version, r.CorrelationID, r.ClientID = c, h.key, h.version, h.correlationID, c.clientID
	r.Body, r.seq = body, c.tail
	c.tail++
	c.unflushed = true
	if c.uncorked {
		c.cork()
	}
	if err := c.sess.Serve(r); err != nil {
		c.refused = true
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

// count tells Stats of the requests served.
func (c *Conn) count() {
	if c.requests > 0 {
		c.srv.stats.requests[slot(c.key)].Add(c.requests)
		c.requests = 0
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
	c.recountLocked()
	write := !c.writing && !c.closed && c.out.size > 0
	if write {
		c.writing, c.later = true, false
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
func (c *Conn) await(limit bounds) error {
	c.mu.Lock()
	if c.closed {
		defer c.mu.Unlock()
		return c.reason
	}
	c.seen = c.done
	c.pressed.Store(c.out.size+c.held >= sendEarly)
	if c.withinLocked(limit) {
		c.mu.Unlock()
		return nil
	}
	relief := make(chan struct{})
	c.relief = relief
	c.relieve = bounds{
		limit.parked - limit.parked/relieved,
		limit.unsent - limit.unsent/relieved,
		limit.held - limit.held/relieved,
	}
	c.mu.Unlock()
	<-relief
	return c.await(limit)
}

func (c *Conn) withinLocked(b bounds) bool {
	return c.taken-c.done <= b.parked && c.out.size <= b.unsent && c.held <= b.held
}

// recountLocked tells the server how many answers are outstanding, when that has
// changed much.
func (c *Conn) recountLocked() {
	if d := int64(c.taken-c.done) - c.counted; d >= parkedStep || d <= -parkedStep {
		c.srv.parked.Add(d)
		c.counted += d
	}
}

// linger lets the client read its last answers before the connection is closed.
func (c *Conn) linger(b bounds) {
	if c.await(b) != nil {
		return // closed already
	}
	limit := lingerMax
	if c.sock.delivered() { // an idle client does not hold up a stop
		limit = lingerRead
	}
	if h, ok := c.nc.(interface{ CloseWrite() error }); ok && h.CloseWrite() == nil {
		c.swallow(limit)
	}
}

// lingerBytes bounds what is read of a client that has been told that no more
// answers will come. Closing with unread bytes would reset the connection, and
// the client could lose answers that it has not read yet.
const lingerBytes = 1 << 20

func (c *Conn) swallow(limit time.Duration) {
	if c.nc.SetReadDeadline(time.Now().Add(limit)) == nil {
		_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
	}
}
