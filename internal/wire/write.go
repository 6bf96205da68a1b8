package wire

import (
	"errors"
	"fmt"
	"io"
)

const (
	// readSection is the size up to which a section is read into memory and sent with
	// what is around it. On connections with reno 32 KiB from memory cost 0.78 of what
	// sendfile takes, 64 KiB the same, 128 KiB 0.74, 256 KiB 0.88, and 1 MiB 1.1 (leat
	// bench consume --fetch-bytes).
	readSection = 256 << 10
	// scratchSize is how much of sections is read for one call.
	scratchSize = 256 << 10
	// maxPieces is how many pieces of memory one call sends.
	maxPieces = 256
	// tinyPiece is the size up to which bytes between two sections that are read
	// are copied to them, so that all is one piece.
	tinyPiece = 1 << 10
	// helpMax is how much somebody who completes an answer sends by himself.
	helpMax = 256 << 10
)

// errTruncated closes a connection when a section's file is shorter than the
// section: its length was sent already, and no other bytes must follow.
var errTruncated = errors.New("a file ended within a section of an answer")

// errAgain is what a socket returns that has no room now.
var errAgain = errors.New("the socket is full")

// errCold is what a socket returns that would have to wait for the disk.
var errCold = errors.New("a section is not in the page cache")

// writer sends an outbox. There is one for a connection at a time, taken from a
// pool while it has something to send.
type writer struct {
	c *Conn

	// What waits, as seen last. Others append behind it meanwhile.
	buf  []byte
	sent int
	cuts []cut
	pos  int

	// What the next call sends: pieces, and behind them n bytes of a file.
	pieces [][]byte
	file   uintptr
	off    int64
	n      int
	mayNap bool // the call may wait for the disk

	class   int
	scratch []byte // sections that were read
	used    int

	sys sysWriter
}

// by says who writes, and so how long he may.
type by int

const (
	byOwner by = iota // the connection's goroutine
	byOther           // somebody who completed an answer: never waits
	byDrain           // a goroutine for this only: waits for the client
)

// write sends what waits. The caller has set writing, which is given back or
// handed on to a drain.
func (c *Conn) write(who by) {
	w, _ := c.srv.writers.Get().(*writer)
	w.c = c
	defer w.free()
	for w.look(who) {
		if who != byDrain && !c.sock.tries() {
			c.drainSoon()
			return
		}
		w.mayNap = who == byDrain
		err := w.gather(c.sock.files())
		n := 0
		if err == nil {
			n, err = c.sock.send(w)
			c.srv.stats.BytesOut.Add(int64(n))
		}
		w.dropScratch()
		w.settle(n)
		switch {
		case err == nil:
		case errors.Is(err, errCold):
			c.drainSoon()
			return
		case !errors.Is(err, errAgain):
			c.Close(gone(err))
		case who == byDrain:
			if err := c.sock.waitRoom(); err != nil {
				c.Close(gone(err))
			}
		default:
			c.drainSoon()
			return
		}
	}
}

// look takes a view of what waits. It is false, and the caller no more the
// writer, when there is nothing to be sent by him.
func (w *writer) look(who by) bool {
	c := w.c
	c.mu.Lock()
	if c.closed {
		l := c.abandonLocked()
		c.writing = false
		c.mu.Unlock()
		l.release(c.srv)
		return false
	}
	if c.out.size == 0 || who != byOwner && c.corked {
		c.writing = false
		if c.out.size == 0 && !c.corked {
			c.out.close(&c.srv.boxes)
		}
		c.mu.Unlock()
		return false
	}
	o := &c.out
	w.buf, w.sent, w.cuts, w.pos = o.buf, o.sent, o.cuts[o.gone:], o.pos
	much := o.size > helpMax
	c.mu.Unlock()
	if much && who == byOther {
		c.drainSoon()
		return false
	}
	return true
}

// drainSoon hands the writing on to a goroutine that waits for the client.
func (c *Conn) drainSoon() {
	c.mu.Lock()
	if !c.closed {
		c.drains.Go(c.drain)
		c.mu.Unlock()
		return
	}
	l := c.abandonLocked()
	c.writing = false
	c.mu.Unlock()
	l.release(c.srv)
}

func (c *Conn) drain() { c.write(byDrain) }

// gather collects what the next call sends. Sections that are small, or that
// the socket cannot send as files, are read.
func (w *writer) gather(files bool) error {
	clear(w.pieces)
	w.pieces, w.n, w.used = w.pieces[:0], 0, 0
	at, pos := w.sent, w.pos
	for i := range w.cuts {
		k := &w.cuts[i]
		if len(w.pieces) >= maxPieces-2 {
			return nil
		}
		w.piece(w.buf[at:k.at])
		at = k.at
		if k.sec == nil {
			w.piece(k.body[pos:])
			pos = 0
			continue
		}
		rest := k.n - pos
		if files && rest > readSection { // asked for only where it is used: see storage's recycle.go
			if fd, off, ok := k.sec.Fd(); ok {
				w.file, w.off, w.n = fd, off+int64(pos), rest
				return nil
			}
		}
		n, err := w.readSome(k.sec, pos, rest)
		if err != nil || n < rest {
			return err
		}
		pos = 0
	}
	w.piece(w.buf[at:])
	return nil
}

// piece adds bytes to what is sent next.
func (w *writer) piece(b []byte) {
	if len(b) == 0 {
		return
	}
	if w.used > 0 && len(b) <= min(tinyPiece, len(w.scratch)-w.used) {
		w.extend(copy(w.scratch[w.used:], b))
		return
	}
	w.pieces = append(w.pieces, b)
}

// extend adds the next n bytes of scratch to the last piece, if that ends there.
func (w *writer) extend(n int) {
	b := w.scratch[w.used : w.used+n]
	w.used += n
	if k := len(w.pieces) - 1; k >= 0 {
		if last := w.pieces[k]; cap(last) > len(last) && &last[:len(last)+1][len(last)] == &b[0] {
			w.pieces[k] = last[:len(last)+n]
			return
		}
	}
	w.pieces = append(w.pieces, b)
}

// readSome reads the section from pos on, as much as scratch has room for.
func (w *writer) readSome(s Section, pos, rest int) (int, error) {
	if w.scratch == nil {
		w.scratch, w.class = w.c.srv.memory.scratch()
	}
	n := min(rest, len(w.scratch)-w.used)
	if n == 0 {
		return 0, nil
	}
	k, err := s.ReadAt(w.scratch[w.used:w.used+n], int64(pos))
	if k < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = errTruncated
		}
		return 0, fmt.Errorf("read a section of an answer: %w", err)
	}
	w.extend(n)
	return n, nil
}

// settle takes n bytes that went out off the outbox, and releases what they
// were the last of.
func (w *writer) settle(n int) {
	if n == 0 {
		return
	}
	sent, pos, gone, left := w.sent, w.pos, 0, n
	for i := range w.cuts {
		k := &w.cuts[i]
		m := min(left, k.at-sent)
		sent, left = sent+m, left-m
		if sent < k.at {
			break
		}
		m = min(left, k.size()-pos)
		pos, left = pos+m, left-m
		if pos < k.size() {
			break
		}
		if k.sec != nil {
			k.sec.Release()
		}
		if k.owner != nil {
			w.c.srv.recycle(k.owner)
		}
		gone, pos = gone+1, 0
	}
	sent += left
	c := w.c
	c.moved()
	c.mu.Lock()
	c.out.advance(sent, gone, pos, n)
	c.relieveLocked()
	c.mu.Unlock()
}

// dropScratch gives scratch back: while waiting for the client none is held.
func (w *writer) dropScratch() {
	if w.scratch != nil {
		w.c.srv.memory.give(w.class, w.scratch)
		w.scratch = nil
	}
}

func (w *writer) free() {
	s := w.c.srv
	clear(w.pieces)
	w.pieces = w.pieces[:0]
	w.c, w.buf, w.cuts = nil, nil, nil
	s.writers.Put(w)
}
