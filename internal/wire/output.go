package wire

import (
	"errors"
	"sync"
	"sync/atomic"
)

const (
	// If the answers to a part of a read's requests have sendEarly bytes, they are sent before
	// the others are served.
	sendEarly = 256 << 10
	// If a connection has more than maxUnsent bytes of unsent answers, its requests are not
	// read until the client reads its answers.
	maxUnsent = 1 << 20
	// If the unsent answers of all connections take more memory than they may, pressedUnsent
	// bytes of memory are the limit of each. If they take twice as much, a connection with any
	// unsent answer is not read. A single answer may be larger; a large one holds work memory of
	// its own.
	pressedUnsent = 64 << 10
	// unsentStep is the least change of an output's memory of which it informs the server while
	// its answers leave as fast as they come.
	unsentStep = 16 << 10
	// blockedMemory is about how much memory a helper takes that waits for the client.
	blockedMemory = 8 << 10
	// A connection that has reached its bounds must get below them by 1/resumeShare of each,
	// before its requests are read again.
	resumeShare = 4
	// parkedStep is the least change of the number of outstanding answers of which an output
	// informs the server. A connection with fewer is never limited.
	parkedStep = 64
	// All connections together may have parkedShare times MaxParked outstanding answers.
	parkedShare = 4
	// completerMax is the number of bytes above which a goroutine that completes an answer
	// leaves sending to a helper.
	completerMax = 256 << 10
)

// output sends the answers of a connection in the order of its requests.
//
// The answer whose turn it is goes to the outbox, with the ready ones behind it. An answer that
// is ready before its turn waits among the early ones. The flow decides which goroutine sends
// the outbox:
//
//	corked --uncork--> open      corked: the connection's goroutine serves requests, and
//	   '<-----cork-------'       sends all their answers at uncork
//	any --close--> closed        open: the goroutine that completes the oldest answer sends
//
// There is at most one sender at a time, in three states:
//
//	none ------> active      by uncork, or by completeAnswer when no more is outstanding
//	none ------> deferred    by completeAnswer when more is outstanding: those answers will
//	                         likely be completed too, one after the other, as a group
//	                         commit does; then all go out with the last one's write, or
//	                         by the helper that was started (BenchmarkParked)
//	deferred --> active      by the helper, or by another goroutine before it
//	active ----> none        when nothing is left to send
//
// A sender may hand over to a helper, which is a goroutine of its own. A helper may wait for
// the client and for the disk; other senders must not.
type output struct {
	sock     socket
	shared   *outputShared
	activity *activity
	conn     conn // closed when something cannot be sent

	// The connection's goroutine owns these fields.
	issued   uint64 // the number of places in the order of answers that were issued
	seenDone uint64 // the value of done when the goroutine last read it
	corked   bool   // it has corked the output

	checkBounds atomic.Bool  // sendEarly or another bound may be reached, or the output is closed
	progress    atomic.Int64 // bytes that the client's system has taken

	mu            sync.Mutex // guards the fields below
	box           outbox
	early         earlyAnswers
	done          uint64 // answers that are in box, or were sent
	sharedIssued  uint64 // issued, as others may know it
	parkedCounted int64  // of sharedIssued-done, the part that shared.parked counts
	memoryCounted int64  // of the memory of answers, the part that shared.unsent counts
	exempted      bool   // a peer's: shared counts nothing of it; the connection's goroutine sets it, and reads it without mu
	flow          outputFlow
	sender        senderState
	helper        bool          // the helper of a deferred sender runs
	blocked       bool          // a helper waits for the client
	resume        chan struct{} // closed when the output is below resumeBelow, or closed
	resumeBelow   bounds

	helpers sync.WaitGroup // added to under mu while not closed
}

// conn is what an output needs of its connection.
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
	parked    atomic.Int64  // outstanding answers, to within parkedStep for each connection
	maxParked int           // outstanding answers of one connection
	unsent    atomic.Int64  // memory of unsent answers, to within unsentStep for each connection whose answers leave as fast as they come
	maxUnsent int64         // if unsent is above it, the memory of each connection is limited to mostMemory
}

// bounds are limits of a connection's answers.
type bounds struct {
	parked uint64 // outstanding answers
	unsent int64  // bytes in the outbox
	early  int64  // bytes of answers that are ready before their turn
	memory int64  // bytes of memory of both
}

// resumeBounds are the bounds below which a connection that was above b resumes.
func (b bounds) resumeBounds() bounds {
	return bounds{
		b.parked - b.parked/resumeShare, b.unsent - b.unsent/resumeShare,
		b.early - b.early/resumeShare, b.memory - b.memory/resumeShare,
	}
}

// isPressed tells whether the unsent answers of all connections take more memory than they may.
func (s *outputShared) isPressed() bool { return s.unsent.Load() > s.maxUnsent }

// mostMemory is how much memory the unsent answers of one connection may take that is counted.
func (s *outputShared) mostMemory() int64 {
	switch n := s.unsent.Load(); {
	case n > 2*s.maxUnsent:
		return 0
	case n > s.maxUnsent:
		return pressedUnsent
	}
	return maxUnsent
}

// useSocket replaces the socket, before the first answer.
func (o *output) useSocket(s socket) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sock = s
}

// issuePlace issues the next place in the order of answers.
func (o *output) issuePlace() uint64 {
	seq := o.issued
	o.issued++
	return seq
}

// exempt takes the output out of what all connections together have, and out of their bounds.
func (o *output) exempt() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.exempted = true
	o.uncountLocked()
}

// uncountLocked takes the output out of the counts of all outputs.
func (o *output) uncountLocked() {
	o.shared.parked.Add(-o.parkedCounted)
	o.shared.unsent.Add(-o.memoryCounted)
	o.parkedCounted, o.memoryCounted = 0, 0
}

// currentLimits are the present bounds of the connection. They are low if too many answers are
// outstanding on all connections, or take too much memory.
func (o *output) currentLimits() bounds {
	parked := o.shared.maxParked
	if !o.exempted && o.shared.parked.Load() > int64(parked)*parkedShare {
		parked = min(parked, parkedStep)
	}
	return bounds{uint64(parked) - 1, maxUnsent, maxUnsent, o.mostMemory()}
}

// mostMemory is how much memory the unsent answers of the connection may take.
func (o *output) mostMemory() int64 {
	if o.exempted {
		return maxUnsent
	}
	return o.shared.mostMemory()
}

// isNearLimits tells whether so much is outstanding that awaitRoom must be called.
func (o *output) isNearLimits() bool {
	parked := o.issued - o.seenDone
	return parked >= parkedStep && parked > o.currentLimits().parked || o.checkBounds.Load()
}

// cork leaves ready answers to the connection's goroutine.
func (o *output) cork() {
	o.corked = true
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.flow == flowOpen {
		o.flow = flowCorked
	}
}

// uncork sends the ready answers, and lets other goroutines send those that they complete.
func (o *output) uncork() {
	o.corked = false
	o.mu.Lock()
	if o.flow == flowCorked {
		o.flow = flowOpen
	}
	o.sharedIssued, o.seenDone = o.issued, o.done
	o.countParkedLocked()
	mustSend := o.sender != senderActive && o.flow != flowClosed && o.box.size > 0
	if mustSend {
		o.sender = senderActive
	} else if o.sender != senderActive {
		o.box.releaseBuffer(&o.shared.boxes)
	}
	o.mu.Unlock()
	if mustSend {
		o.sendOutbox(asOwner)
	}
}

// awaitRoom returns when the connection is within the bounds. If it is not at first, it waits
// until it is below their resumeBounds. It returns false if the output is closed.
func (o *output) awaitRoom(limit bounds) (open bool) {
	for {
		o.mu.Lock()
		if o.flow == flowClosed {
			o.mu.Unlock()
			return false
		}
		o.seenDone = o.done
		o.checkBounds.Store(o.box.size+o.early.bytes >= sendEarly)
		if o.isWithinLocked(limit) {
			o.mu.Unlock()
			return true
		}
		resume := make(chan struct{})
		o.resume, o.resumeBelow = resume, limit.resumeBounds()
		o.mu.Unlock()
		<-resume
	}
}

func (o *output) isWithinLocked(b bounds) bool {
	return o.sharedIssued-o.done <= b.parked && o.box.size <= b.unsent && o.early.bytes <= b.early && o.memoryLocked() <= b.memory
}

// countParkedLocked informs the server of the number of outstanding answers, if that has changed
// much.
func (o *output) countParkedLocked() {
	if d := int64(o.sharedIssued-o.done) - o.parkedCounted; !o.exempted && (d >= parkedStep || d <= -parkedStep) {
		o.shared.parked.Add(d)
		o.parkedCounted += d
	}
}

// resumeLocked wakes the connection's goroutine if it waits for room and there is some.
func (o *output) resumeLocked() {
	if o.resume != nil && o.isWithinLocked(o.resumeBelow) {
		close(o.resume)
		o.resume = nil
	}
}

// claimPlace returns the place behind the outbox, if r's answer is the next one, else nil.
func (o *output) claimPlace(r *Request) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.seq != o.done || o.flow == flowClosed {
		return nil
	}
	r.resp.claimed = true
	return o.box.claimTail(&o.shared.boxes, o.sender == senderActive)
}

// completeAnswer takes the answer of r, which is sent when all answers before it are.
func (o *output) completeAnswer(r *Request) {
	o.mu.Lock()
	if o.flow == flowClosed {
		o.mu.Unlock()
		r.resp.discard()
		o.shared.requests.recycle(r)
		return
	}
	if r.seq != o.done {
		first := o.early.putAnswer(r, o.done)
		o.noteMemoryLocked()
		o.mu.Unlock()
		if !first {
			panic("BUG: a request was answered twice")
		}
		return
	}
	finished := o.appendReadyLocked(r)
	mustSend := o.becomeSenderLocked()
	o.resumeLocked()
	o.mu.Unlock()
	o.shared.requests.recycle(finished)
	if mustSend {
		o.sendOutbox(asCompleter)
	}
}

// appendReadyLocked appends the answer of r, and those that are ready behind it, to the outbox.
// It returns the requests that are not needed any more.
func (o *output) appendReadyLocked(r *Request) (finished *Request) {
	for ; r != nil; r = o.early.takeReady(o.done) {
		o.done++
		if o.box.appendAnswer(r, &o.shared.boxes, o.sender == senderActive) {
			r.next, finished = finished, r
		}
	}
	if o.parkedCounted > 0 && o.flow != flowCorked {
		o.countParkedLocked()
	}
	o.noteMemoryLocked()
	return finished
}

// memoryLocked is about how much memory the unsent answers take.
func (o *output) memoryLocked() int64 { return o.box.memory + o.early.memory }

// noteMemoryLocked informs the server of the memory of unsent answers, if that has changed much or
// the answers stay for some time, and has the connection's goroutine check the bounds if it is much.
func (o *output) noteMemoryLocked() {
	if o.flow == flowClosed {
		return
	}
	memory, step := o.memoryLocked(), int64(unsentStep)
	counted := memory
	if o.blocked {
		counted += blockedMemory + o.sock.heldBytes()
	}
	if o.blocked || o.early.n > 0 || counted == 0 { // many connections may each have a little for long
		step = 1
	}
	if d := counted - o.memoryCounted; !o.exempted && (d >= step || d <= -step) {
		o.shared.unsent.Add(d)
		o.memoryCounted = counted
	}
	if max(o.box.size+o.early.bytes, memory) >= sendEarly || memory > o.mostMemory() {
		o.checkBounds.Store(true)
	}
}

// becomeSenderLocked is called by a goroutine that has completed an answer. It makes that the
// sender, or defers sending (see output). It returns whether the caller must send.
func (o *output) becomeSenderLocked() bool {
	switch {
	case o.flow != flowOpen || o.sender == senderActive || o.box.size == 0:
		return false
	case o.sharedIssued == o.done:
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

// sendDeferred is the helper of a deferred sender. It sends unless another goroutine has become
// the sender.
func (o *output) sendDeferred() {
	o.mu.Lock()
	o.helper = false
	mustSend := o.sender == senderDeferred
	if mustSend {
		o.sender = senderActive
	}
	o.mu.Unlock()
	if mustSend {
		o.sendOutbox(asHelper)
	}
}

// senderRole is the kind of goroutine that sends, on which it depends how long it may take.
type senderRole uint8

const (
	asOwner     senderRole = iota // the connection's goroutine
	asCompleter                   // a goroutine that has completed an answer: it never waits
	asHelper                      // a goroutine only for this: it waits for the client and the disk
)

// sendOutbox sends the outbox. The caller must be the active sender, and is not afterwards.
func (o *output) sendOutbox(as senderRole) {
	w := o.shared.writers.takeWriter(o.shared.buffers)
	completed := false
	defer func() {
		if w != nil {
			o.shared.writers.putWriter(w)
		}
		if !completed { // a section has panicked
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
			o.shared.writers.putWriter(w) // very many clients may be waited for
			w = nil
			err = o.awaitClient()
			w = o.shared.writers.takeWriter(o.shared.buffers)
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

// awaitClient waits until the client has read some of its answers.
func (o *output) awaitClient() error {
	o.setBlocked(true)
	defer o.setBlocked(false)
	return o.sock.awaitRoom()
}

func (o *output) setBlocked(blocked bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blocked = blocked
	o.noteMemoryLocked()
}

// sendNext sends one batch, and removes the bytes that were sent from the outbox.
func (o *output) sendNext(w *writer, as senderRole) error {
	w.batch.mayWait = as == asHelper
	n, err := 0, w.gatherBatch(o.sock.sendsFiles())
	if err == nil {
		n, err = o.sock.send(&w.batch)
		o.shared.sent.Add(int64(n))
		o.progress.Add(int64(n))
	}
	w.dropScratch()
	if n == 0 {
		return err
	}
	to := w.releaseSent(n, &o.shared.requests)
	o.activity.noteProgress()
	o.mu.Lock()
	o.box.dropSent(to)
	if o.memoryCounted > 0 {
		o.noteMemoryLocked()
	}
	o.resumeLocked()
	o.mu.Unlock()
	return err
}

// viewUnsent shows the unsent bytes to the writer. If there is nothing for the caller to send, it
// returns false, and the caller is not the sender any more.
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
	w.viewOutbox(&o.box)
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

func (o *output) sendAsHelper() { o.sendOutbox(asHelper) }

// stopSending ends the caller's turn as the sender of an output that is closed, or is about to
// be.
func (o *output) stopSending() {
	var left droppedAnswers
	o.mu.Lock()
	o.sender = senderNone
	isClosed := o.flow == flowClosed
	if isClosed {
		left = o.takeDroppedLocked()
	}
	o.mu.Unlock()
	left.releaseAll(&o.shared.requests)
	if isClosed {
		o.sock.drop()
	}
}

// sendEnd tells the client that nothing follows, unless a sender is at work.
func (o *output) sendEnd() {
	o.mu.Lock()
	isFree := o.sender != senderActive && o.flow != flowClosed
	if isFree {
		o.sender = senderActive
	}
	o.mu.Unlock()
	if isFree {
		o.sock.sendEnd()
		o.stopSending()
	}
}

// close drops all unsent answers, at once or when the sender notices it.
func (o *output) close() {
	var left droppedAnswers
	o.mu.Lock()
	if o.flow == flowClosed {
		o.mu.Unlock()
		return
	}
	o.flow = flowClosed
	o.checkBounds.Store(true)
	o.uncountLocked()
	if o.resume != nil {
		close(o.resume)
		o.resume = nil
	}
	isLast := o.sender != senderActive
	if isLast {
		left = o.takeDroppedLocked()
	}
	o.mu.Unlock()
	left.releaseAll(&o.shared.requests)
	if isLast {
		o.sock.drop()
	}
}

// countAnswers is how many answers were made, in the order of the requests.
func (o *output) countAnswers() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.done
}

// droppedAnswers are answers that were not sent before the output was closed.
type droppedAnswers struct {
	cuts  []cut
	ready []*Request
}

func (o *output) takeDroppedLocked() droppedAnswers {
	d := droppedAnswers{o.box.takeUnsent(), o.early.list}
	o.early = earlyAnswers{}
	return d
}

func (d droppedAnswers) releaseAll(requests *requestPool) {
	for i := range d.cuts {
		d.cuts[i].release(requests)
	}
	for _, r := range d.ready {
		if r != nil {
			r.resp.discard()
			requests.recycle(r)
		}
	}
}

// outputLoad is the outstanding work of an output.
type outputLoad struct {
	unsent int64 // bytes
	parked bool  // answers are outstanding
	busy   bool  // a goroutine sends, or the connection's waits for room
}

// isNothing tells whether the output has nothing to do.
func (l outputLoad) isNothing() bool { return l == outputLoad{} }

// currentLoad returns the outstanding work, for the sweeper.
func (o *output) currentLoad() outputLoad {
	o.mu.Lock()
	defer o.mu.Unlock()
	return outputLoad{o.box.size + o.early.bytes, o.sharedIssued != o.done, o.sender == senderActive || o.resume != nil}
}

// holdsMuch tells whether the answers that wait for the client take more memory than those of a
// client that reads slowly, or any if memory is very short.
func (o *output) holdsMuch() bool {
	least := int64(boxSize)
	if o.shared.mostMemory() == 0 {
		least = 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.blocked && !o.exempted && o.memoryLocked()+o.sock.heldBytes() > least
}
