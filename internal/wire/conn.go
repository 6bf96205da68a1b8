package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/budget"
)

// errGoneMuted is why the goroutine of a muted connection ends if the connection was closed meanwhile.
var errGoneMuted = errors.New("the connection was closed while it was muted")

// Handler opens a Session for every accepted connection.
type Handler interface {
	Open(c *Conn) Session
}

// Session is a Handler's side of one connection. Its methods run on the
// connection's goroutine, one at a time.
type Session interface {
	// Serve handles one request. Exactly one of the request's Reply, Send or
	// NoReply must be called, now or later, from any goroutine. Returning an
	// error closes the connection with one log line.
	Serve(r *Request) error
	// Flush is called after the last request of a read. When it returns, the memory of the
	// bodies served so far is used for something else, except of those that were kept. It is
	// also called before a request waits for memory (Decode, Reserve); then only the body of that
	// request stays.
	Flush()
	// Close is called when the connection has ended. Bodies for which Flush was not called,
	// or did not return, are still valid.
	Close()
}

const (
	lingerMax  = 200 * time.Millisecond // how long a client may take to read its last answers
	lingerRead = 10 * time.Millisecond  // the same if the client's system has received all of them
	// lingerBytes bounds how much is read from a client after the last answer. Closing a
	// connection with unread bytes would reset it, and the client could lose answers that
	// it has not read yet.
	lingerBytes = 1 << 20
)

// Conn is one client's connection. It has three parts: the input reads, the output answers,
// and the lifecycle is the connection's state. The connection's goroutine repeats three
// steps: it reads, hands the requests of that read to the session, and sends the answers
// that are ready.
type Conn struct {
	srv      *Server
	listener *Listener
	nc       net.Conn
	sock     socket
	secured  securedSocket // the socket, if the listener asks for TLS; nil: it does not

	in   input
	out  output
	life lifecycle

	activity activity

	proven    atomic.Bool           // it is a peer's; set once, by Prove
	plain     atomic.Bool           // it has come without TLS to a listener that may be shared; set once, before the session is opened
	finishing atomic.Pointer[error] // why it is to be closed when all its answers are sent; nil: it is not

	mutedUntil atomic.Int64 // on the clock of the server's muted list; 0: it is not muted

	entry  connEntry  // owned by the registry
	sample heldSample // owned by the sweeper

	// The fields below belong to the connection's goroutine.

	tls      *tls.Conn // set before the session is opened; nil: the connection is not encrypted
	sess     Session
	lease    *buffer       // keeps the bodies that the session may still use: from Serve until Flush returns
	leasedAt uint64        // the place of the first request whose body is in lease; the requests before it have lost theirs
	decoded  *decodeMemory // of the request that was decoded last, while it is served
	clientID string
	key      int16 // the API of the last requests
	requests int64 // their number, which is not in Stats yet
	tokens   bool  // the next frames are tokens: see Request.ExpectTokens
	isNew    bool  // it is a newcomer's, for all that its goroutine knows

	waits   *waitingPlace // nil: it is not in the waiting room
	refusal error         // why it is closed when it is muted no longer; nil: it is served
}

// refusedError marks that the session refused a request.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }

func (e *refusedError) Unwrap() error { return e.err }

// newConn makes a connection of nc.
func newConn(s *Server, l *Listener, nc net.Conn) (*Conn, error) {
	sock, err := newSocket(nc)
	if err != nil {
		return nil, err
	}
	c := &Conn{srv: s, listener: l, nc: nc, sock: sock, activity: activity{sweeps: &s.sweeps}, isNew: true}
	c.in.pool, c.in.activity, c.in.received = s.buffers, &c.activity, &s.stats.BytesIn
	c.in.startClass = firstClass
	c.SetMaxFrame(l.MaxFrame)
	if l.TLS != nil && l.Sharing == nil {
		c.secured = newTLSSocket(sock, &s.records)
		c.sock, sock = c.secured, c.secured
	}
	c.out.sock, c.out.shared, c.out.activity, c.out.conn = sock, &s.shared, &c.activity, c
	return c, nil
}

// LocalAddr is the address to which the client has connected.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// ListenerName is Kafka's name of the listener that accepted the connection.
func (c *Conn) ListenerName() string { return c.listener.Name }

// AsksForLogin tells whether the client must log in with SASL before it may do anything else.
func (c *Conn) AsksForLogin() bool {
	if c.listener.Sharing != nil {
		return c.tls != nil
	}
	return c.listener.Protocol.AsksForLogin()
}

// IsPlain tells whether a connection has come without TLS to a listener that may be shared: see Sharing. Any goroutine may call it.
func IsPlain(c *Conn) bool { return c.plain.Load() }

// RemoteAddr is the client's address.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Listener is the one that accepted the connection.
func (c *Conn) Listener() *Listener { return c.listener }

// SetMaxFrame bounds the requests that are read from now on. A session may want less than
// its listener allows while it does not know the client. 0, or more than the server allows,
// stands for that: Config.MaxFrame, or what peers may send. Only the Handler and the Session may
// call it.
func (c *Conn) SetMaxFrame(bytes int) {
	switch most := c.srv.cfg.MaxFrame; {
	case c.waits != nil:
		c.in.maxFrame = waitingFrame
	case c.proven.Load():
		c.in.maxFrame = max(most, c.srv.peerFrame)
	default:
		c.in.maxFrame = most
	}
	if bytes > 0 {
		c.in.maxFrame = min(c.in.maxFrame, bytes)
	}
}

// Uncork sends the ready answers now, in order, before a handler that may take long.
// Only the Session may call it.
func (c *Conn) Uncork() { c.out.uncork() }

// Contain is to be deferred: a panic of the caller then closes the connection and does not end
// the process. It is for work that a request does after Serve has returned, on the goroutine
// that ends its wait, which may be a timer's, the storage's or another connection's. The first
// function that is called there for the request defers it.
func (c *Conn) Contain() {
	if v := recover(); v != nil { //nolint:revive // callers defer it
		c.Close(&panicError{v, debug.Stack()})
	}
}

// Close ends the connection, with a reason for the log.
func (c *Conn) Close(reason error) {
	before, first := c.life.close(reason)
	if !first {
		return
	}
	c.out.close()
	if isReset(c, reason) {
		if tcp, ok := c.nc.(interface{ SetLinger(seconds int) error }); ok {
			_ = tcp.SetLinger(0) // without it the end is an orderly one
		}
	}
	_ = c.nc.Close() // an error would have no effect
	c.in.stop()
	if before.hasNoGoroutine() {
		c.startAgain()
	}
}

// isReset tells whether a connection is reset when it ends for a reason: see ErrElsewhere.
func isReset(c *Conn, reason error) bool {
	return errors.Is(reason, ErrElsewhere) && c.out.countAnswers() <= 1
}

// Finish reads no more requests, and closes the connection when all its answers are sent, with a
// reason for the log. Any goroutine may call it; only the first call has an effect.
func (c *Conn) Finish(reason error) {
	if c.finishing.CompareAndSwap(nil, &reason) {
		c.stopReading()
	}
}

// endReason is why the connection reads no more requests; nil: it goes on.
func (c *Conn) endReason() error {
	if c.srv.isStopping() {
		return errShutdown
	}
	if reason := c.finishing.Load(); reason != nil {
		return *reason
	}
	return nil
}

// serveRequests serves the connection until it ends; false: until it is suspended or muted.
func (c *Conn) serveRequests() (ended bool) {
	var err error
	for err == nil && c.endReason() == nil {
		sleeps := false
		switch {
		case isMuted(c):
			sleeps, err = sleepMuted(c)
		case c.refusal != nil:
			err = c.refusal
		case c.sess == nil:
			if err = shakeHands(c); err == nil {
				err = c.openSession()
			}
		case c.in.hasFrame(): // it has come before the connection was muted
			err = catchPanic(c.serveInput)
		default:
			sleeps, err = readInput(c)
		}
		if sleeps {
			return false
		}
	}
	c.endConn(err)
	return true
}

// readInput reads, and serves the requests that have come.
func readInput(c *Conn) (sleeps bool, err error) {
	switch err = c.sock.read(&c.in); {
	case err == nil:
		if c.in.hasFrame() && !isMuted(c) {
			err = catchPanic(c.serveInput)
		}
		return false, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return c.trySuspend()
	}
	return false, markGone(err)
}

// openSession has the handler make the session.
func (c *Conn) openSession() error {
	err := catchPanic(func() error {
		c.sess = c.srv.handler.Open(c)
		return nil
	})
	if err == nil && !c.life.changeState(connReading) { // the session may have refused the client
		err = c.life.closeReason()
	}
	return err
}

// endConn closes the connection after its last answers, if they may be sent, and gives
// everything back.
func (c *Conn) endConn(err error) {
	var refused *refusedError
	var panicked *panicError
	switch {
	case isReset(c, err): // it has no answers that anybody waits for
	case errors.As(err, &refused): // answers that are not ready are not waited for
		err = refused.err
		c.drainAnswers(bounds{parked: math.MaxUint64, early: math.MaxInt64, memory: math.MaxInt64})
	case errors.As(err, &panicked): // the request that panicked is never answered
	case c.endReason() != nil:
		err = c.endReason()
		c.drainAnswers(bounds{})
	}
	c.Close(err)
	if c.waits != nil {
		c.waits.patience.Stop()
	}
	c.out.helpers.Wait()
	if c.sess != nil {
		if err := catchPanic(func() error { c.sess.Close(); return nil }); err != nil {
			c.srv.reportEnd(c, err)
		}
	}
	c.releaseDecoded()
	c.srv.held.releaseOfConn(c)
	c.endLease() // not before the session is closed: it may use the bodies until then
	c.in.dropBuffer()
	c.srv.reportEnd(c, c.life.closeReason())
}

// serveInput serves the requests of one read and sends the answers that are ready.
func (c *Conn) serveInput() error {
	c.life.changeState(connServing)
	c.out.cork()
	err := c.serveFrames()
	c.countRequests()
	c.flushSession()
	c.out.uncork()
	if err == nil && c.out.isNearLimits() {
		err = c.awaitRoom(c.out.currentLimits())
	}
	c.activity.noteProgress() // the time that handlers take does not count as the client's
	c.life.changeState(connReading)
	return err
}

// serveFrames hands all whole requests in the buffer to the session.
func (c *Conn) serveFrames() error {
	for c.in.hasFrame() {
		frame, err := c.in.nextFrame()
		if err != nil {
			return refuseFrame(c, err)
		}
		if err := c.serveFrame(frame); err != nil {
			return err
		}
		if c.out.isNearLimits() {
			if err := c.pauseServing(); err != nil {
				return err
			}
		}
		if isMuted(c) { // the rest is served later
			return nil
		}
	}
	return nil
}

func (c *Conn) serveFrame(frame []byte) error {
	h, body, err := header{key: TokenKey}, frame, error(nil)
	if !c.tokens {
		h, body, err = c.srv.guard.parseHeader(frame)
	}
	if err != nil {
		return refuseFrame(c, err)
	}
	if c.waits != nil {
		if err := c.srv.checkWaiting(c, h.key); err != nil {
			return err
		}
	}
	if c.isNew && !c.AsksForLogin() {
		c.Settle()
	}
	if string(h.clientID) != c.clientID {
		c.clientID = string(h.clientID)
	}
	if h.key != c.key {
		c.countRequests()
		c.key = h.key
	}
	c.requests++
	if !c.out.corked {
		c.out.cork()
	}
	r := c.srv.shared.requests.takeRequest()
	r.Conn, r.Key, r.Version, r.CorrelationID, r.ClientID = c, h.key, h.version, h.correlationID, c.clientID
	r.from, r.to, r.seq = c.in.start-len(body), c.in.start, c.out.issuePlace()
	if c.lease == nil {
		c.lease, c.leasedAt = c.in.buf.retain(), r.seq
	}
	err = c.sess.Serve(r)
	c.releaseDecoded()
	if err != nil {
		return &refusedError{fmt.Errorf("%s v%d: %w", nameOfKey(h.key), h.version, err)}
	}
	return nil
}

// workGrowth is how much memory a request takes while it is served, in multiples of its decoded
// structures: these, the handler's lists and maps, the answer's structures, and the answer's
// bytes in a buffer that grows.
const workGrowth = 6

// elementGrowth is how much memory a request takes besides that for each element of its arrays.
// An element as small as an empty name may have a structure and a message in the answer.
const elementGrowth = 192

// workMemory is how much memory a request takes until it is served. One that may need more than
// most gets so much, if it can be decoded with that.
func (s shape) workMemory(most int64) int64 {
	n := int64(s.memory)
	return max(n, min(workGrowth*n+elementGrowth*int64(s.elements), most))
}

// reserveWork waits until there is work memory to serve a request. A request that may need more
// than the largest reservation gets that one, so that it is the only large one.
func reserveWork(r *Request, s shape) (*decodeMemory, error) {
	c := r.Conn
	c.releaseDecoded() // of an earlier call
	n := s.workMemory(c.srv.cfg.Work.Most(c.workClass(budget.Command)))
	held, err := r.Reserve(budget.Command, n)
	if err != nil {
		return nil, err
	}
	if held.Bytes() > 0 {
		c.decoded = &decodeMemory{memory: held}
	}
	return c.decoded, nil
}

// workClass is the class of the work memory for the connection's requests of a class.
func (c *Conn) workClass(class budget.Class) budget.Class {
	if c.proven.Load() {
		return budget.Peer
	}
	return class
}

// GiveUpBodies tells that the Session has been flushed and needs none of the bodies served so far,
// so that a request which waits after it was decoded keeps no receive buffer. Only Serve may call it.
func (c *Conn) GiveUpBodies() {
	c.endLease()
	if c.in.buf != nil {
		c.in.adaptStartClass()
		c.in.shrinkBuffer()
	}
}

// Context ends with the connection.
func (c *Conn) Context() context.Context { return connContext{c.life.closedChan(), remoteIP(c.nc)} }

// releaseDecoded gives back the memory of the request that was decoded last, except for the
// part that its answer has taken.
func (c *Conn) releaseDecoded() {
	if c.decoded != nil {
		memory := c.decoded.takeMemory()
		memory.Release()
		c.decoded = nil
	}
}

// flushSession flushes the session if it may still use the bodies served so far, and gives
// them up.
func (c *Conn) flushSession() {
	if c.lease != nil {
		c.sess.Flush()
		c.endLease()
	}
}

// leasedBuffer is the buffer that has the request's body; nil: the session has given it up.
func (r *Request) leasedBuffer() *buffer {
	c := r.Conn
	if r.seq < c.leasedAt {
		return nil
	}
	return c.lease
}

// endLease ends the reference that keeps the bodies for the session.
func (c *Conn) endLease() {
	if c.lease != nil {
		c.lease.release()
		c.lease = nil
	}
}

// countRequests adds the requests that were served to Stats.
func (c *Conn) countRequests() {
	if c.requests > 0 {
		c.srv.stats.requests[slotOfKey(c.key)].Add(c.requests)
		c.requests = 0
	}
}

// pauseServing sends the ready answers before all requests of a read are served, when there
// are many, and waits if the bounds of the connection are reached.
func (c *Conn) pauseServing() error {
	c.flushSession()
	c.out.uncork()
	err := c.awaitRoom(c.out.currentLimits())
	c.life.changeState(connServing)
	c.out.cork()
	return err
}

// awaitRoom waits until no more is outstanding than the bounds allow.
func (c *Conn) awaitRoom(limit bounds) error {
	c.in.prepareToBlock(c.lease != nil)
	c.life.changeState(connBlocked)
	if !c.out.awaitRoom(limit) {
		return c.life.closeReason()
	}
	return nil
}

// drainAnswers lets the client read its last answers before the connection is closed.
func (c *Conn) drainAnswers(limit bounds) {
	if !c.life.changeState(connDraining) || !c.out.awaitRoom(limit) {
		return // closed already
	}
	patience := lingerMax
	if c.sock.isDelivered() { // an idle client does not delay a stop
		patience = lingerRead
	}
	c.out.sendEnd()
	h, ok := c.nc.(interface{ CloseWrite() error })
	if ok && h.CloseWrite() == nil && c.nc.SetReadDeadline(time.Now().Add(patience)) == nil {
		_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
	}
}

// isIdle tells whether the connection has a goroutine that waits for a request, and no request
// is unanswered.
func (c *Conn) isIdle() bool {
	return c.life.currentState() == connReading && c.in.held.bytes.Load() == 0 && !c.in.isWaitingForBuffer() && c.out.currentLoad().isNothing()
}

// interruptRead ends the goroutine's wait for requests. The connection is then suspended, or
// ends if the server stops.
func (c *Conn) interruptRead() {
	_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // fails only if the connection is closed, and does not wait
}

// stopReading is called when endReason has a reason: the connection reads no more requests.
func (c *Conn) stopReading() {
	c.interruptRead()
	c.in.stop()
	c.wake()
}

// trySuspend is called when the wait for requests was interrupted. If it returns true, the
// connection belongs to the idle poller, and the goroutine must end; otherwise the goroutine
// reads on.
func (c *Conn) trySuspend() (suspended bool, err error) {
	if err := c.nc.SetReadDeadline(time.Time{}); err != nil {
		return false, markGone(err)
	}
	if err := c.endReason(); err != nil { // the deadline may have been that of stopReading
		return false, err
	}
	c.in.prepareToWait()
	c.clientID = "" // an idle connection keeps no name; the next request brings it again
	p := c.srv.idlePoller()
	if p == nil || c.in.buf != nil || !p.addSocket(c.sock, func() { wakeFrom(c, connSuspended) }) {
		return false, nil
	}
	c.srv.conns.setSuspended(c, true)
	if c.life.changeState(connSuspended) {
		// From here on the connection belongs to the goroutine that wakes it, perhaps already.
		if c.endReason() == nil && p.armSocket(c.sock) || !c.life.wake() {
			return true, nil
		}
	}
	c.srv.conns.setSuspended(c, false)
	return false, nil
}

// wake gives a suspended or muted connection a goroutine again.
func (c *Conn) wake() {
	if c.life.wake() {
		c.startAgain()
	}
}

// wakeFrom is wake for a connection in one of these states only.
func wakeFrom(c *Conn, state connState) {
	if c.life.wakeFrom(state) {
		c.startAgain()
	}
}

// Mute has the connection read and serve no further requests for a time, from now on, as Kafka does with clients that are
// above a quota (KIP-219). Requests that were read are answered, and those that have come and were not served wait. The
// longest of several times counts. Another node's connection is never muted. Any goroutine may call it.
//
// A muted connection has no goroutine, and keeps no buffer but one for the bytes that have come.
func (c *Conn) Mute(d time.Duration) {
	if d <= 0 || c.proven.Load() {
		return
	}
	until := int64(c.srv.muted.clock() + d)
	for {
		now := c.mutedUntil.Load()
		if now >= until || c.mutedUntil.CompareAndSwap(now, until) {
			return
		}
	}
}

// isMuted tells whether the connection is muted now.
func isMuted(c *Conn) bool {
	until := c.mutedUntil.Load()
	if until == 0 {
		return false
	}
	if int64(c.srv.muted.clock()) < until {
		return true
	}
	c.mutedUntil.CompareAndSwap(until, 0)
	return false
}

// sleepMuted is called when the connection is muted. If it returns true, the connection belongs to the muted list, and the
// goroutine must end.
func sleepMuted(c *Conn) (sleeps bool, err error) {
	c.in.prepareToWait()
	c.clientID = ""
	until := time.Duration(c.mutedUntil.Load())
	if c.in.buf == nil {
		c.srv.conns.setSuspended(c, true) // the sweeper has little to do for it
	}
	if c.life.changeState(connMuted) {
		// From the next call on the connection belongs to the goroutine that wakes it, perhaps already.
		c.srv.muted.add(c, until)
		if c.endReason() == nil || !c.life.wake() {
			return true, nil
		}
	}
	c.srv.conns.setSuspended(c, false)
	if c.life.currentState() == connClosed {
		return false, errGoneMuted
	}
	return false, nil
}

// endMute gives the connection a goroutine again, if it is still muted.
func (c *Conn) endMute() {
	c.activity.noteProgress() // the time in which it was muted does not count as the client's
	wakeFrom(c, connMuted)
}

// startAgain starts a goroutine for a connection that was suspended or muted.
func (c *Conn) startAgain() {
	c.srv.conns.setSuspended(c, false)
	go c.srv.serveConn(c) // it is counted in Server.running as long as it is open
}

// reportEnd logs why a connection has ended.
func (s *Server) reportEnd(c *Conn, reason error) {
	var p *panicError
	var away *turnedAwayError
	var failed *handshakeError
	switch {
	case errors.As(reason, &away):
		s.reportTurnedAway(c.nc, away.limit)
	case errors.As(reason, &failed):
		if log := s.lines.nextLine(); log != nil {
			log.Warn("connection closed", "client", c.RemoteAddr().String(), "listener", c.listener.Name, "reason", reason)
		}
	case errors.As(reason, &p):
		s.stats.Panics.Add(1)
		s.cfg.Logger.Error("BUG: a handler panicked; its connection was closed", "client", c.RemoteAddr().String(), "panic", p.value, "stack", string(p.stack))
	case reason == nil, errors.Is(reason, errShutdown), errors.Is(reason, errIdle), errors.Is(reason, errGone):
		s.cfg.Logger.Debug("connection ended", "client", c.RemoteAddr().String(), "reason", reason)
	default:
		if log := s.lines.nextLine(); log != nil {
			log.Warn("connection closed", "client", c.RemoteAddr().String(), "reason", reason)
		}
	}
}
