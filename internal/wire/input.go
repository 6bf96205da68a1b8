package wire

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
)

// errQueued closes a connection whose request waits for work memory, when its receive buffer is
// needed and nothing else gives memory back.
var errQueued = errors.New("the memory for requests is exhausted, and a request of this connection waited for work memory, or for the end of a throttle")

// errNoMemory closes a connection that waits for memory, or whose memory others need.
var errNoMemory = errors.New("the memory for requests is exhausted, and this connection was slower than others to send the rest of a request")

// input reads for a connection: it owns the receive buffer and cuts frames from it. An idle
// connection has no buffer. One is taken when bytes have come, and grows with the bytes that
// have come, never with the size that a frame announces.
//
// Frames alias the buffer, and are valid until the next call of makeRoom or prepareToWait. To
// use one for longer, retain the buffer: the input then continues in another one.
//
// The methods and fields belong to the connection's goroutine, except for stop and the fields
// that are marked as shared.
type input struct {
	pool     *bufferPool // clients'; its sizes of classes are those of reserve
	reserve  *bufferPool // of peers, for the smaller classes; nil: none is for this connection
	activity *activity
	received *atomic.Int64 // bytes, of the server
	maxFrame int           // bytes of the largest frame that is accepted

	buf        *buffer // nil while there is nothing to be read
	start, end int     // buf.bytes[start:end], the rest, has come and was not cut yet
	filled     bool    // the last read filled the buffer
	startClass int     // the class of the first buffer after an idle time
	oversized  int     // how often in a row the buffer was much too large
	peak       int     // the most bytes that buf has held
	frames     uint64  // the number of frames that were cut

	waiting atomic.Pointer[bufferWaiter] // shared: while it waits for a buffer
	stopped atomic.Bool                  // shared: it must not wait for a buffer any more
	held    unfinished                   // shared
}

// unfinished is the memory that an input holds while it waits for the rest of a request, or
// until there is room for the answers of its requests, or until there is work memory. The input writes it, and the sweeper
// reads it.
type unfinished struct {
	bytes   atomic.Int64  // of the buffer; 0: nothing is held
	reserve atomic.Bool   // the buffer is of the reserve
	arrived atomic.Int64  // bytes of the request that have come
	missing atomic.Int64  // bytes of the request that have not come
	frame   atomic.Uint64 // the number of frames that were cut before it, plus one
	since   atomic.Uint32 // the server's sweeps when the input began to wait for its rest
}

// restSize is how many bytes have come and were not cut yet.
func (in *input) restSize() int { return in.end - in.start }

// frameSize is the size that the next frame announces, if that has come.
func (in *input) frameSize() (size int, known bool) {
	if in.restSize() < lengthSize {
		return 0, false
	}
	return int(int32(binary.BigEndian.Uint32(in.buf.bytes[in.start:]))), true
}

// isAcceptable tells whether a frame may have that size.
func (in *input) isAcceptable(size int) bool { return size > 0 && size <= in.maxFrame }

// hasFrame tells whether nextFrame has a result: a whole frame, or the refusal of
// its size.
func (in *input) hasFrame() bool {
	size, known := in.frameSize()
	return known && (!in.isAcceptable(size) || in.restSize() >= lengthSize+size)
}

// nextFrame cuts the next frame off.
func (in *input) nextFrame() ([]byte, error) {
	size, _ := in.frameSize()
	if !in.isAcceptable(size) {
		return nil, describeBadSize(in.buf.bytes[in.start:in.end], in.maxFrame)
	}
	from := in.start + lengthSize
	in.start = from + size
	in.frames++
	return in.buf.bytes[from:in.start:in.start], nil
}

// useReserve takes the smaller buffers from a pool that clients do not have from now on. There must be
// no bytes that were not cut.
func (in *input) useReserve(reserve *bufferPool) {
	in.dropBuffer()
	in.reserve, in.startClass = reserve, firstClass
}

// poolOf is the pool for buffers of a class. A buffer that would take most of the reserve is taken
// from the pool that clients have too.
func (in *input) poolOf(class int) *bufferPool {
	if in.reserve != nil && int64(in.reserve.sizes[class]) <= in.reserve.bulk {
		return in.reserve
	}
	return in.pool
}

// freeRoom is the part of the buffer into which the next bytes are read.
func (in *input) freeRoom() []byte { return in.buf.bytes[in.end:] }

// makeRoom makes room in the buffer for the next bytes: it takes a buffer, moves the rest to
// the front, or replaces a full buffer by a larger one. It returns false if memory is short;
// the caller then calls awaitBuffer.
func (in *input) makeRoom() bool {
	b := in.buf
	if b == nil {
		return in.replaceBuffer(in.startClass) || in.replaceBuffer(firstClass)
	}
	rest := in.restSize()
	switch {
	case b.class < firstClass: // it holds a rest only
		return in.replaceBuffer(max(in.startClass, firstClass)) || in.replaceBuffer(firstClass)
	case rest == len(b.bytes): // full, and all of it one frame
		return in.replaceBuffer(in.pool.nextClass(b.class))
	case b.isShared(): // its bytes must stay as they are
		return in.replaceBuffer(b.class)
	case in.filled && b.class < busyClass && in.replaceBuffer(b.class+1):
		return true
	case rest == 0:
		in.start, in.end = 0, 0
	case in.start > 0 && in.needsFront():
		in.end = copy(b.bytes, b.bytes[in.start:in.end])
		in.start = 0
	}
	return true
}

// needsFront tells whether the rest should be moved to the front of the buffer, because there
// is little room behind it, or too little for its frame.
func (in *input) needsFront() bool {
	size, known := in.frameSize()
	behind := len(in.buf.bytes) - in.end
	return behind < len(in.buf.bytes)/2 || known && lengthSize+size > len(in.buf.bytes)-in.start
}

// replaceBuffer takes a buffer of the class in place of the present one. It returns
// false when memory is short.
func (in *input) replaceBuffer(class int) bool {
	pool := in.poolOf(class)
	b := pool.takeBuffer(class, in.replaceableBytes(pool))
	if b == nil {
		return false
	}
	in.adoptBuffer(b)
	return true
}

// replaceableBytes is how many bytes a pool gets back with the present buffer.
func (in *input) replaceableBytes(pool *bufferPool) int {
	if in.buf == nil || in.buf.pool != pool || in.buf.isShared() {
		return 0
	}
	return len(in.buf.bytes)
}

// adoptBuffer copies the rest into another buffer, in which the input continues.
func (in *input) adoptBuffer(b *buffer) {
	n := 0
	if in.buf != nil {
		n = copy(b.bytes, in.buf.bytes[in.start:in.end])
		in.buf.release()
	}
	in.buf, in.start, in.end, in.peak, in.filled = b, 0, n, n, false
}

// dropBuffer ends the input's reference to its buffer, and forgets what is in it.
func (in *input) dropBuffer() {
	if in.buf != nil {
		in.buf.release()
		in.buf, in.start, in.end = nil, 0, 0
	}
}

// addReceived notes that n bytes were read into freeRoom.
func (in *input) addReceived(n int) {
	in.filled = n == len(in.buf.bytes)-in.end
	in.end += n
	in.peak = max(in.peak, in.end)
	in.received.Add(int64(n))
	in.activity.noteProgress()
}

// prepareToWait is called when there are no bytes to read: it gives the buffer back, or, if a
// part of a frame has come, keeps a buffer that fits that.
func (in *input) prepareToWait() {
	if in.buf != nil {
		in.adaptStartClass()
		in.shrinkBuffer()
	}
	in.publishHeld()
}

// prepareToBlock is called before the connection waits until there is room for more answers. It
// gives up the buffer if nothing is left in it. If the session may still use bodies in it, it
// cannot be given up, and counts as held, so that the sweeper finds the connection.
func (in *input) prepareToBlock(leased bool) {
	if in.buf != nil && !leased {
		in.shrinkBuffer()
	}
	in.publishHeld()
	if in.buf != nil {
		in.held.reserve.Store(in.buf.pool == in.reserve)
		in.held.bytes.Store(int64(len(in.buf.bytes)))
	}
}

// keepLast replaces the buffer by the smallest that holds the rest and the n bytes that were cut
// last, if that is much smaller. The n bytes are then the first ones of the new buffer. The buffer
// must have no reference of the session.
func (in *input) keepLast(n int) (moved bool) {
	in.start -= n
	class := in.pool.classFor(in.restSize())
	moved = in.pool.sizes[class]*4 <= len(in.buf.bytes) && in.replaceBuffer(class)
	in.start += n
	return moved
}

// copyMuchSmaller copies a part of a buffer into the smallest one that holds it, if that is much smaller and
// memory is not short; nil: it is not copied. The caller has the only reference to the copy.
func (in *input) copyMuchSmaller(from *buffer, start, end int) *buffer {
	class := in.pool.classFor(end - start)
	if in.pool.sizes[class]*4 > len(from.bytes) {
		return nil
	}
	b := in.poolOf(class).takeBuffer(class, 0)
	if b != nil {
		copy(b.bytes, from.bytes[start:end])
	}
	return b
}

// shrinkBuffer replaces the buffer by the smallest that holds the rest, if that saves enough
// memory to be worth copying the rest twice.
func (in *input) shrinkBuffer() {
	rest := in.restSize()
	if rest == 0 {
		in.dropBuffer()
		return
	}
	class := in.pool.classFor(rest)
	if in.pool.sizes[class]*4 <= len(in.buf.bytes) && (rest <= in.pool.sizes[1] || in.buf.pool.isShort()) {
		in.replaceBuffer(class)
	}
}

// publishHeld updates held for the sweeper.
func (in *input) publishHeld() {
	h, rest := &in.held, in.restSize()
	if rest == 0 {
		if h.bytes.Load() != 0 {
			h.bytes.Store(0)
		}
		return
	}
	size, known := in.frameSize()
	if !known {
		size = 0
	}
	if h.bytes.Load() == 0 || h.frame.Load() != in.frames+1 {
		h.since.Store(in.activity.sweeps.Load())
		h.frame.Store(in.frames + 1)
	}
	h.arrived.Store(int64(rest))
	h.missing.Store(int64(max(lengthSize+size-rest, 0)))
	h.reserve.Store(in.buf.pool == in.reserve)
	h.bytes.Store(int64(len(in.buf.bytes)))
}

// adaptStartClass adapts startClass to the size of buffer that the connection has used.
func (in *input) adaptStartClass() {
	switch class := in.buf.class; {
	case class < firstClass:
	case class > in.startClass:
		in.startClass, in.oversized = min(class, maxStartClass), 0
	case in.peak > len(in.buf.bytes)/4:
		in.oversized = 0
	default:
		if in.oversized++; in.oversized >= 16 && in.startClass > firstClass {
			in.startClass, in.oversized = in.startClass-1, 0
		}
	}
}

// awaitBuffer waits until there is memory for a buffer in which the input can continue.
func (in *input) awaitBuffer() error {
	class := firstClass
	if in.buf != nil && in.buf.class >= firstClass {
		class = in.buf.class
		if in.restSize() == len(in.buf.bytes) {
			class = in.pool.nextClass(class)
		}
	}
	in.publishHeld()
	pool := in.poolOf(class)
	w := pool.awaitTurn(class, in.replaceableBytes(pool))
	in.waiting.Store(w)
	if in.stopped.Load() { // stop came before it could see w
		pool.cancelWait(w)
	}
	<-w.ready
	in.activity.noteProgress() // the time of this wait does not count as the client's
	in.waiting.Store(nil)
	b := pool.takeGranted(w)
	if b == nil {
		return errNoMemory
	}
	in.adoptBuffer(b)
	return nil
}

// isWaitingForBuffer tells the sweeper whether the connection waits for memory, and not for its
// client.
func (in *input) isWaitingForBuffer() bool { return in.waiting.Load() != nil }

// stop ends the input's wait for a buffer, now and later. Any goroutine may call it.
func (in *input) stop() {
	in.stopped.Store(true)
	if w := in.waiting.Load(); w != nil {
		w.pool.cancelWait(w)
	}
}
