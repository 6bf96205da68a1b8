package wire

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
)

// errNoMemory ends a connection to which no memory was given.
var errNoMemory = errors.New("the memory for requests is exhausted, and this connection was slower than others to send the rest of a request")

// input reads for a connection: it owns the receive buffer and cuts frames from it. An idle connection has no buffer; one is taken when data have come and
// grows with what has come, never with what is announced.
//
// Frames alias the buffer. To use one for longer than until the next call of makeRoom
// or prepareToWait, retain the buffer (see buffer): the input then goes on in another one.
//
// The methods and fields belong to the connection's goroutine, except for stop and
// the fields that are marked as shared.
type input struct {
	pool     *bufferPool
	activity *activity
	received *atomic.Int64 // bytes, of the server
	maxFrame int           // bytes of the largest frame that is accepted

	buf        *buffer // nil while there is nothing to be read
	start, end int     // buf.bytes[start:end] has come and was not cut yet
	filled     bool    // the last read filled the buffer
	startClass int     // the class of buffer to begin with
	oversized  int     // how often in a row the buffer was much too large
	peak       int     // the most that buf has held
	frames     uint64  // that were cut

	waiting atomic.Pointer[bufferWaiter] // shared: while it waits for a buffer
	stopped atomic.Bool                  // shared: it is not to wait any more
	held    unfinished                   // shared
}

// unfinished tells how much memory an input holds while it waits for the rest of a request, or
// while its requests wait until there is room for their answers: for the sweeper.
// The input writes it, the sweeper reads it.
type unfinished struct {
	bytes   atomic.Int64  // of the buffer; 0: nothing is held
	arrived atomic.Int64  // bytes of the request that have come
	missing atomic.Int64  // bytes of it that have not
	frame   atomic.Uint64 // frames cut before it, plus one
	since   atomic.Uint32 // sweeps of the server when its rest was first waited for
}

// restSize is how many bytes have come and were not cut.
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

// freeRoom is the part of the buffer into which the next bytes are read.
func (in *input) freeRoom() []byte { return in.buf.bytes[in.end:] }

// makeRoom sees to it that the buffer has room for what comes next: it takes one,
// moves the rest to its front, or replaces it when it is full. It returns false when
// memory is short; the caller then calls awaitBuffer.
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

// needsFront tells whether the rest should be moved to the front of the buffer: the
// room behind it is small, or too small for the frame that it is of.
func (in *input) needsFront() bool {
	size, known := in.frameSize()
	behind := len(in.buf.bytes) - in.end
	return behind < len(in.buf.bytes)/2 || known && lengthSize+size > len(in.buf.bytes)-in.start
}

// replaceBuffer takes a buffer of the class in place of the present one. It returns
// false when memory is short.
func (in *input) replaceBuffer(class int) bool {
	b := in.pool.take(class, in.replaceable())
	if b == nil {
		return false
	}
	in.adoptBuffer(b)
	return true
}

// replaceable is how many bytes are given back with the present buffer.
func (in *input) replaceable() int {
	if in.buf == nil || in.buf.isShared() {
		return 0
	}
	return len(in.buf.bytes)
}

// adoptBuffer goes on in another buffer.
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

// prepareToWait is called when nothing is there to be read: it gives the buffer back,
// or keeps one that fits the part of a frame that has come.
func (in *input) prepareToWait() {
	if in.buf != nil {
		in.adaptStartClass()
		in.shrinkBuffer()
	}
	in.publishHeld()
}

// shrinkBuffer changes the buffer for the smallest that holds the rest, when that
// saves more than copying it twice costs.
func (in *input) shrinkBuffer() {
	rest := in.restSize()
	if rest == 0 {
		in.dropBuffer()
		return
	}
	class := in.pool.classFor(rest)
	if in.pool.sizes[class]*4 <= len(in.buf.bytes) && (rest <= in.pool.sizes[1] || in.pool.isShort()) {
		in.replaceBuffer(class)
	}
}

// publishHeld tells the sweeper how much is held.
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
	h.bytes.Store(int64(len(in.buf.bytes)))
}

// adaptStartClass remembers which size of buffer the connection makes use of.
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

// awaitBuffer waits until there is a buffer to go on with.
func (in *input) awaitBuffer() error {
	class := firstClass
	if in.buf != nil && in.buf.class >= firstClass {
		class = in.buf.class
		if in.restSize() == len(in.buf.bytes) {
			class = in.pool.nextClass(class)
		}
	}
	in.publishHeld()
	w := in.pool.awaitTurn(class, in.replaceable())
	in.waiting.Store(w)
	if in.stopped.Load() { // stop came before it could see w
		in.pool.cancelWait(w)
	}
	<-w.ready
	in.activity.noteProgress() // the client was not the one to be waited for
	in.waiting.Store(nil)
	b := in.pool.takeGranted(w)
	if b == nil {
		return errNoMemory
	}
	in.adoptBuffer(b)
	return nil
}

// isWaitingForBuffer tells the sweeper that the client is not the one to be waited for.
func (in *input) isWaitingForBuffer() bool { return in.waiting.Load() != nil }

// stop ends the input's waiting for a buffer, now and later. Anybody may call it.
func (in *input) stop() {
	in.stopped.Store(true)
	if w := in.waiting.Load(); w != nil {
		in.pool.cancelWait(w)
	}
}
