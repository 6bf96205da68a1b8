package wire

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

const (
	// A section of up to maxReadSection bytes is read into memory and sent with the bytes
	// around it, which is cheaper than sendfile up to about that size (leat bench consume
	// --fetch-bytes).
	maxReadSection = 256 << 10
	// maxPieces is the largest number of pieces of memory that one call sends.
	maxPieces = 256
	// Up to tinyPiece bytes behind a section that was read are copied behind it, so that both
	// are one piece.
	tinyPiece = 1 << 10
)

// writer makes batches of an outbox. The sender of a connection takes one from a pool for as
// long as it sends.
type writer struct {
	buffers *bufferPool

	// The unsent part of the outbox at the last viewOutbox. Other goroutines append behind it.
	buf  []byte
	sent int
	cuts []cut
	pos  int

	batch   sendBatch // for the next call of send
	scratch *buffer   // the bytes of sections that were read
	used    int       // how many bytes of scratch are used
}

// writerPool keeps writers for later senders.
type writerPool struct{ pool sync.Pool }

func (p *writerPool) takeWriter(buffers *bufferPool) *writer {
	w, ok := p.pool.Get().(*writer)
	if !ok {
		w = &writer{batch: sendBatch{pieces: make([][]byte, 0, 16)}}
	}
	w.buffers = buffers
	return w
}

func (p *writerPool) putWriter(w *writer) {
	w.dropScratch()
	w.resetBatch()
	w.buf, w.cuts = nil, nil
	p.pool.Put(w)
}

// viewOutbox notes the unsent part of an outbox. The caller holds the outbox's mutex.
func (w *writer) viewOutbox(o *outbox) {
	w.buf, w.sent, w.cuts, w.pos = o.buf, o.sent, o.cuts[o.gone:], o.pos
}

// hasComputed tells whether an unsent section is Computed.
func (w *writer) hasComputed() bool {
	for i := range w.cuts {
		if _, ok := w.cuts[i].sec.(Computed); ok {
			return true
		}
	}
	return false
}

func (w *writer) resetBatch() {
	clear(w.batch.pieces)
	w.batch.pieces, w.batch.fileLen, w.used = w.batch.pieces[:0], 0, 0
}

// gatherBatch makes the next batch. It reads small sections into memory, and all sections if
// the socket cannot send files. It returns errCold at a section that must be read into memory and is large, if the sender must not wait
// for the disk.
func (w *writer) gatherBatch(files bool) error {
	w.resetBatch()
	at, pos := w.sent, w.pos
	for i := range w.cuts {
		k := &w.cuts[i]
		if len(w.batch.pieces) >= maxPieces-2 {
			return nil
		}
		w.addPiece(w.buf[at:k.at])
		at = k.at
		if k.sec == nil {
			w.addPiece(k.body[pos:])
			pos = 0
			continue
		}
		rest := k.n - pos
		if files && rest > maxReadSection { // asked for only when it is used: see storage's recycle.go
			if fd, off, ok := k.sec.Fd(); ok {
				w.batch.file, w.batch.offset, w.batch.fileLen = fd, off+int64(pos), rest
				return nil
			}
		}
		if !files && rest > maxReadSection && !w.batch.mayWait {
			if len(w.batch.pieces) > 0 {
				return nil
			}
			return errCold
		}
		n, err := w.readSome(k.sec, pos, rest)
		if err != nil || n < rest {
			return err
		}
		pos = 0
	}
	w.addPiece(w.buf[at:])
	return nil
}

// addPiece adds bytes to the batch.
func (w *writer) addPiece(b []byte) {
	if len(b) == 0 {
		return
	}
	if w.used > 0 && len(b) <= min(tinyPiece, len(w.scratch.bytes)-w.used) {
		w.addScratch(copy(w.scratch.bytes[w.used:], b))
		return
	}
	w.batch.pieces = append(w.batch.pieces, b)
}

// addScratch adds the next n bytes of scratch to the last piece, if that ends just before them,
// or else as a new piece.
func (w *writer) addScratch(n int) {
	b := w.scratch.bytes[w.used : w.used+n]
	w.used += n
	pieces := w.batch.pieces
	if k := len(pieces) - 1; k >= 0 {
		if last := pieces[k]; cap(last) > len(last) && &last[:len(last)+1][len(last)] == &b[0] {
			pieces[k] = last[:len(last)+n]
			return
		}
	}
	w.batch.pieces = append(pieces, b)
}

// readSome reads as much of the section from pos on as scratch has room for.
func (w *writer) readSome(s Section, pos, rest int) (int, error) {
	if w.scratch == nil {
		w.scratch = w.buffers.takeScratch()
	}
	n := min(rest, len(w.scratch.bytes)-w.used)
	if n == 0 {
		return 0, nil
	}
	k, err := s.ReadAt(w.scratch.bytes[w.used:w.used+n], int64(pos))
	if k < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = errTruncated
		}
		return 0, fmt.Errorf("read a section of an answer: %w", err)
	}
	w.addScratch(n)
	return n, nil
}

// releaseSent releases the cuts that were sent whole with the last n bytes, and returns the new
// front of the outbox.
func (w *writer) releaseSent(n int, requests *requestPool) sentTo {
	to, left := sentTo{sent: w.sent, pos: w.pos, bytes: n, memory: n}, n
	for i := range w.cuts {
		k := &w.cuts[i]
		m := min(left, k.at-to.sent)
		to.sent, left = to.sent+m, left-m
		if to.sent < k.at {
			break
		}
		m = min(left, k.size()-to.pos)
		to.pos, left = to.pos+m, left-m
		if k.sec != nil {
			to.memory -= m
		}
		if to.pos < k.size() {
			break
		}
		if k.sec != nil {
			to.memory += sectionMemory
		}
		k.release(requests)
		to.cuts, to.pos = to.cuts+1, 0
	}
	to.sent += left
	return to
}

// dropScratch gives scratch back, so that none is held while the sender waits for the client.
func (w *writer) dropScratch() {
	if w.scratch != nil {
		w.scratch.release()
		w.scratch = nil
	}
}
