package wire

import (
	"errors"
	"sync"
	"sync/atomic"
)

const (
	// sendEarly bytes of answers go out before the rest of a read is served.
	sendEarly = 256 << 10
	// maxUnsent bytes of answers may wait for a client that does not read them;
	// behind them its requests are not read.
	maxUnsent = 1 << 20
	// pressedUnsent bytes of memory may be taken by the answers of a connection that were not
	// sent, where those of all connections take more than they may. A single answer may be
	// larger; a large one holds work memory of its own.
	pressedUnsent = 64 << 10
	// unsentStep is in which steps an output tells the server how much memory it takes.
	unsentStep = 16 << 10
	// reliefShare is the share of its bounds by which a connection must get below
	// them before its requests are read again: a quarter.
	reliefShare = 4
	// parkedStep answers outstanding cost a connection nothing; those beyond are
	// counted for the server, in steps of this size.
	parkedStep = 64
	// parkedShare times MaxParked answers may be outstanding on all connections.
	parkedShare = 4
	// completerMax is how much somebody who completes an answer sends without a helper.
	completerMax = 256 << 10
)

// output sends the answers of a connection in the order of its requests.
//
// The answer whose turn it is goes to the outbox, with the ready ones behind it; one
// that is ready earlier waits among the early ones. Its flow says whose task it is to
// send the outbox:
//
//	corked --uncork--> open      corked: the connection's goroutine serves requests, and
//	   '<-----cork-------'       sends all their answers at uncork
//	any --close--> closed        open: the one who completes the oldest answer sends
//
// There is one sender at a time, and its place has three states:
//
//	none ------> active      by uncork, or by completeAnswer when no more is outstanding
//	none ------> deferred    by completeAnswer when more is outstanding: those answers will
//	                         likely be completed too, one after the other, as a group
//	                         commit does; then all go out with the last one's write, or
//	                         by the helper that was started (BenchmarkParked)
//	deferred --> active      by the helper, or by somebody who comes before it
//	active ----> none        when nothing is left to send
//
// The sender may hand its place over to a helper, a goroutine that may wait for the
// client and for the disk, which others must not.
type output struct {
	sock     socket
	shared   *outputShared
	activity *activity
	conn     conn // ended when something cannot be sent

	// The connection's goroutine owns these fields.
	issued   uint64 // requests for whose answers places were given out
	seenDone uint64 // done, as last looked up
	collects bool   // it has corked the output

	pressed atomic.Bool // look at the bounds: sendEarly was reached, or the output was closed

	mu      sync.Mutex // guards the fields below
	box     outbox
	early   earlyAnswers
	done    uint64 // answers that are in box, or were sent
	taken   uint64 // issued, as others may know it
	counted int64  // of taken-done, the part that shared.parked counts
	noted   int64  // of the memory of answers, the part that shared.unsent counts
	flow    outputFlow
	sender  senderState
	helper  bool          // the helper of a deferred sender runs
	relief  chan struct{} // closed when the output is below the bounds in relieve, or closed
	relieve bounds

	helpers sync.WaitGroup // added to under mu while not closed
}

// conn is the connection of an output.
type conn interface {
	Close(reason error)
	Contain() // see Conn
}

type outputFlow uint8

const (
	flowOpen outputFlow = iota
	flowCorked
	flowClosed
)

type senderState uint8

const (
	senderNone senderState = iota
	senderDeferred
	senderActive
)

// outputShared is shared by the outputs of a server.
type outputShared struct {
	requests  requestPool
	writers   writerPool
	boxes     boxPool
	buffers   *bufferPool
	sent      *atomic.Int64 // bytes
	parked    atomic.Int64  // answers outstanding, of connections that have many
	maxParked int           // on one connection
	unsent    atomic.Int64  // memory of answers that were not sent, but for less than unsentStep a connection
	maxUnsent int64         // above that no connection takes more than pressedUnsent
}

// bounds say how much may be outstanding.
type bounds struct {
	parked uint64 // answers that are not ready
	unsent int64  // bytes to be sent
	early  int64  // bytes of answers that are ready before it is their turn
	memory int64  // bytes of memory that both take
}

// relieved are the bounds below which a connection goes on.
func (b bounds) relieved() bounds {
	return bounds{
		b.parked - b.parked/reliefShare, b.unsent - b.unsent/reliefShare,
		b.early - b.early/reliefShare, b.memory - b.memory/reliefShare,
	}
}

// isPressed tells that the unsent answers of all connections take more memory than they may.
func (s *outputShared) isPressed() bool { return s.unsent.Load() > s.maxUnsent }

// issuePlace gives out the next place in the order of answers.
func (o *output) issuePlace() uint64 {
	seq := o.issued
	o.issued++
	return seq
}

// currentLimits are the bounds of the connection. When too many answers are outstanding
// on all connections, or take too much memory, those which have many must wait.
func (o *output) currentLimits() bounds {
	parked := o.shared.maxParked
	if o.shared.parked.Load() > int64(parked)*parkedShare {
		parked = min(parked, parkedStep)
	}
	memory := int64(maxUnsent)
	if o.shared.isPressed() {
		memory = pressedUnsent
	}
	return bounds{uint64(parked) - 1, maxUnsent, maxUnsent, memory}
}

// isNearLimits tells that so much is outstanding that awaitRoom must be called.
func (o *output) isNearLimits() bool {
	parked := o.issued - o.seenDone
	return parked >= parkedStep && parked > o.currentLimits().parked || o.pressed.Load()
}

// cork leaves ready answers to the connection's goroutine.
func (o *output) cork() {
	o.collects = true
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.flow == flowOpen {
		o.flow = flowCorked
	}
}

// uncork sends the ready answers, and lets others send those that they complete.
func (o *output) uncork() {
	o.collects = false
	o.mu.Lock()
	if o.flow == flowCorked {
		o.flow = flowOpen
	}
	o.taken, o.seenDone = o.issued, o.done
	o.countParkedLocked()
	mine := o.sender != senderActive && o.flow != flowClosed && o.box.size > 0
	if mine {
		o.sender = senderActive
	} else if o.sender != senderActive {
		o.box.releaseBuffer(&o.shared.boxes)
	}
	o.mu.Unlock()
	if mine {
		o.send(asOwner)
	}
}

// awaitRoom waits until no more is outstanding than the bounds allow, and if they
// were passed, until there is some room. It returns false when the output is closed.
func (o *output) awaitRoom(limit bounds) (open bool) {
	for {
		o.mu.Lock()
		if o.flow == flowClosed {
			o.mu.Unlock()
			return false
		}
		o.seenDone = o.done
		o.pressed.Store(o.box.size+o.early.bytes >= sendEarly)
		if o.isWithinLocked(limit) {
			o.mu.Unlock()
			return true
		}
		relief := make(chan struct{})
		o.relief, o.relieve = relief, limit.relieved()
		o.mu.Unlock()
		<-relief
	}
}

func (o *output) isWithinLocked(b bounds) bool {
	return o.taken-o.done <= b.parked && o.box.size <= b.unsent && o.early.bytes <= b.early && o.memoryLocked() <= b.memory
}

// countParkedLocked tells the server how many answers are outstanding, when that has
// changed much.
func (o *output) countParkedLocked() {
	if d := int64(o.taken-o.done) - o.counted; d >= parkedStep || d <= -parkedStep {
		o.shared.parked.Add(d)
		o.counted += d
	}
}

// relieveLocked wakes the connection's goroutine if it waits for room and there is some.
func (o *output) relieveLocked() {
	if o.relief != nil && o.isWithinLocked(o.relieve) {
		close(o.relief)
		o.relief = nil
	}
}

// claimPlace hands out the place behind the outbox when r's answer is the next one.
func (o *output) claimPlace(r *Request) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.seq != o.done || o.flow == flowClosed {
		return nil
	}
	r.resp.claimed = true
	return o.box.claimTail(&o.shared.boxes, o.sender == senderActive)
}

// completeAnswer takes the answer of r; it goes out when all before it have.
func (o *output) completeAnswer(r *Request) {
	o.mu.Lock()
	if o.flow == flowClosed {
		o.mu.Unlock()
		r.resp.discard()
		o.shared.requests.recycle(r)
		return
	}
	if r.seq != o.done {
		first := o.early.put(r, o.done)
		o.noteMemoryLocked()
		o.mu.Unlock()
		if !first {
			panic("BUG: a request was answered twice")
		}
		return
	}
	finished := o.appendReadyLocked(r)
	mine := o.becomeSenderLocked()
	o.relieveLocked()
	o.mu.Unlock()
	o.shared.requests.recycle(finished)
	if mine {
		o.send(asCompleter)
	}
}

// appendReadyLocked puts the answer of r and those that are ready behind it into the
// outbox. It returns the requests that are not needed any more.
func (o *output) appendReadyLocked(r *Request) (finished *Request) {
	for ; r != nil; r = o.early.take(o.done) {
		o.done++
		if o.box.appendAnswer(r, &o.shared.boxes, o.sender == senderActive) {
			r.next, finished = finished, r
		}
	}
	if o.counted > 0 && o.flow != flowCorked {
		o.countParkedLocked()
	}
	o.noteMemoryLocked()
	return finished
}

// memoryLocked is about how much memory the answers take that were not sent.
func (o *output) memoryLocked() int64 { return o.box.memory + o.early.memory }

// noteMemoryLocked tells the server how much memory the answers take, when that has changed
// much, and has the connection's goroutine look at the bounds when it is much.
func (o *output) noteMemoryLocked() {
	if o.flow == flowClosed {
		return
	}
	memory := o.memoryLocked()
	if d := memory - o.noted; d >= unsentStep || d <= -unsentStep {
		o.shared.unsent.Add(d)
		o.noted = memory
	}
	if max(o.box.size+o.early.bytes, memory) >= sendEarly || memory > pressedUnsent && o.shared.isPressed() {
		o.pressed.Store(true)
	}
}

// becomeSenderLocked makes the caller, who has completed an answer, the sender, or
// defers that (see output). It tells whether the caller must send.
func (o *output) becomeSenderLocked() bool {
	switch {
	case o.flow != flowOpen || o.sender == senderActive || o.box.size == 0:
		return false
	case o.taken == o.done:
		o.sender = senderActive
		return true
	}
	o.sender = senderDeferred
	if !o.helper {
		o.helper = true
		o.helpers.Go(o.sendDeferred)
	}
	return false
}

// sendDeferred sends what was left to a helper, unless somebody else has.
func (o *output) sendDeferred() {
	o.mu.Lock()
	o.helper = false
	mine := o.sender == senderDeferred
	if mine {
		o.sender = senderActive
	}
	o.mu.Unlock()
	if mine {
		o.send(asHelper)
	}
}

// senderRole says who sends, and so how long it may take.
type senderRole uint8

const (
	asOwner     senderRole = iota // the connection's goroutine
	asCompleter                   // somebody who completed an answer: never waits
	asHelper                      // a goroutine for this only: waits for the client and the disk
)

// send sends the outbox. The caller is the active sender, and is not afterwards.
func (o *output) send(as senderRole) {
	w := o.shared.writers.take(o.shared.buffers)
	completed := false
	defer func() {
		o.shared.writers.put(w)
		if !completed { // a section panicked
			o.stopSending()
		}
	}()
	defer o.conn.Contain()
	for o.viewUnsent(w, as) {
		if as != asHelper && !o.sock.isNonblocking() {
			o.handOver()
			break
		}
		err := o.sendNext(w, as)
		if errors.Is(err, errAgain) && as == asHelper {
			err = o.sock.awaitRoom()
		}
		if errors.Is(err, errAgain) || errors.Is(err, errCold) {
			o.handOver()
			break
		}
		if err != nil {
			o.conn.Close(markGone(err))
		}
	}
	completed = true
}

// sendNext sends one batch and takes the bytes that went out off the outbox.
func (o *output) sendNext(w *writer, as senderRole) error {
	w.batch.mayWait = as == asHelper
	n, err := 0, w.gather(o.sock.isNonblocking())
	if err == nil {
		n, err = o.sock.send(&w.batch)
		o.shared.sent.Add(int64(n))
	}
	w.dropScratch()
	if n == 0 {
		return err
	}
	to := w.releaseSent(n, &o.shared.requests)
	o.activity.noteProgress()
	o.mu.Lock()
	o.box.dropSent(to)
	if o.noted > 0 {
		o.noteMemoryLocked()
	}
	o.relieveLocked()
	o.mu.Unlock()
	return err
}

// viewUnsent shows the writer what waits. It is false, and the caller not the sender
// any more, when there is nothing for it to send.
func (o *output) viewUnsent(w *writer, as senderRole) bool {
	o.mu.Lock()
	if o.flow == flowClosed {
		o.mu.Unlock()
		o.stopSending()
		return false
	}
	if o.box.size == 0 || as != asOwner && o.flow == flowCorked {
		o.sender = senderNone
		if o.box.size == 0 && o.flow == flowOpen {
			o.box.releaseBuffer(&o.shared.boxes)
		}
		o.mu.Unlock()
		return false
	}
	w.view(&o.box)
	tooMuch := as == asCompleter && (o.box.size > completerMax || w.hasComputed())
	o.mu.Unlock()
	if tooMuch {
		o.handOver()
		return false
	}
	return true
}

// handOver makes a helper the sender in place of the caller.
func (o *output) handOver() {
	o.mu.Lock()
	if o.flow != flowClosed {
		o.helpers.Go(o.sendAsHelper)
		o.mu.Unlock()
		return
	}
	o.mu.Unlock()
	o.stopSending()
}

func (o *output) sendAsHelper() { o.send(asHelper) }

// stopSending ends the caller's being the sender of an output that is closed, or is
// about to be.
func (o *output) stopSending() {
	var left unsent
	o.mu.Lock()
	o.sender = senderNone
	if o.flow == flowClosed {
		left = o.takeUnsentLocked()
	}
	o.mu.Unlock()
	left.releaseAll(&o.shared.requests)
}

// close drops all answers that were not sent, now or when the sender notices it.
func (o *output) close() {
	var left unsent
	o.mu.Lock()
	if o.flow == flowClosed {
		o.mu.Unlock()
		return
	}
	o.flow = flowClosed
	o.pressed.Store(true)
	o.shared.parked.Add(-o.counted)
	o.shared.unsent.Add(-o.noted)
	o.counted, o.noted = 0, 0
	if o.relief != nil {
		close(o.relief)
		o.relief = nil
	}
	if o.sender != senderActive {
		left = o.takeUnsentLocked()
	}
	o.mu.Unlock()
	left.releaseAll(&o.shared.requests)
}

// unsent are answers that are not sent any more.
type unsent struct {
	cuts  []cut
	ready []*Request
}

func (o *output) takeUnsentLocked() unsent {
	u := unsent{o.box.takeUnsent(), o.early.list}
	o.early = earlyAnswers{}
	return u
}

func (u unsent) releaseAll(requests *requestPool) {
	for i := range u.cuts {
		u.cuts[i].release(requests)
	}
	for _, r := range u.ready {
		if r != nil {
			r.resp.discard()
			requests.recycle(r)
		}
	}
}

// outputLoad tells how much an output has to do.
type outputLoad struct {
	unsent int64 // bytes
	parked bool  // answers are outstanding
	busy   bool  // somebody sends, or will
}

// isNothing tells that the output has nothing to do.
func (l outputLoad) isNothing() bool { return l == outputLoad{} }

// load tells the sweeper how much the output has to do.
func (o *output) load() outputLoad {
	o.mu.Lock()
	defer o.mu.Unlock()
	return outputLoad{o.box.size + o.early.bytes, o.taken != o.done, o.sender == senderActive || o.relief != nil}
}
