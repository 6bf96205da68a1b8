package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var be = binary.BigEndian

// errTorn says that a file does not go on with a whole batch at some position.
var errTorn = errors.New("not a whole batch")

const (
	walkBuffer = 128 << 10 // what a walk over many batches reads at a time
	hopBuffer  = 8 << 10   // what a search for one batch reads: two index intervals
)

// buffers are what walks read into.
var (
	walkBuffers = sync.Pool{New: func() any { b := make([]byte, walkBuffer); return &b }}
	hopBuffers  = sync.Pool{New: func() any { b := make([]byte, hopBuffer); return &b }}
)

// walker goes from batch to batch through a segment's file.
type walker struct {
	f      vfs.File
	end    int64 // of what there is to read
	pos    int64 // of the next batch
	verify int64 // batches from this position on must have a right checksum

	chained bool          // the next batch must begin with expect; known from the second one on at the latest
	expect  record.Offset // for next
	head    [record.HeaderLen]byte

	last     int64 // where the batch before pos begins
	lastBase record.Offset

	buf []byte
	at  int64 // where buf[:n] lies in the file
	n   int
}

// next returns the header of the batch at pos, valid until the next call, and
// moves behind it: io.EOF at the end, an error that is errTorn where no whole
// batch is, and what reading failed with.
func (w *walker) next() (record.Batch, error) {
	left := w.end - w.pos
	if left == 0 {
		return nil, io.EOF
	}
	if left < record.HeaderLen {
		return nil, fmt.Errorf("%w at byte %d: %d bytes are left", errTorn, w.pos, left)
	}
	if err := w.fill(record.HeaderLen); err != nil {
		return nil, err
	}
	b := record.Batch(w.buf[w.pos-w.at:][:record.HeaderLen])
	size := int64(b.Size())
	switch {
	case b.Magic() != record.Magic:
		return nil, fmt.Errorf("%w at byte %d: its format is %d", errTorn, w.pos, b.Magic())
	case size < record.HeaderLen || size > left:
		return nil, fmt.Errorf("%w at byte %d: it says it has %d bytes of %d", errTorn, w.pos, size, left)
	case w.chained && b.BaseOffset() != w.expect:
		return nil, fmt.Errorf("%w at byte %d: it begins with offset %d, not %d", errTorn, w.pos, b.BaseOffset(), w.expect)
	case b.LastOffsetDelta() < 0:
		return nil, fmt.Errorf("%w at byte %d: its last offset lies %d after its first", errTorn, w.pos, b.LastOffsetDelta())
	}
	if w.pos >= w.verify {
		copy(w.head[:], b) // what is read on may come to lie over it
		b = w.head[:]
		sum, err := w.sum(size)
		if err != nil {
			return nil, err
		}
		if sum != b.CRC() {
			return nil, fmt.Errorf("%w at byte %d: its checksum is wrong", errTorn, w.pos)
		}
	}
	w.last, w.lastBase = w.pos, b.BaseOffset()
	w.pos += size
	w.chained, w.expect = true, b.NextOffset()
	return b, nil
}

// verifyLast verifies the last batch of a walk that believed them all and ended in
// was; where it is not whole the walk ends before it. Where the file was longer than
// what was written, as with preallocation, a write that a kill cut short does not
// show otherwise.
func (w *walker) verifyLast(next record.Offset, was error) (record.Offset, error) {
	buf, _ := walkBuffers.Get().(*[]byte)
	defer walkBuffers.Put(buf)
	one := walker{f: w.f, end: w.pos, pos: w.last, buf: *buf}
	_, err := one.next()
	if !errors.Is(err, errTorn) {
		return next, errors.Join(was, err)
	}
	w.pos = w.last
	return w.lastBase, err
}

// fill makes the n bytes at pos lie in the buffer.
func (w *walker) fill(n int) error {
	if w.pos >= w.at && w.pos+int64(n) <= w.at+int64(w.n) {
		return nil
	}
	return w.read(w.pos, n)
}

// read fills the buffer from the file's position at on, with n bytes at least.
func (w *walker) read(at int64, n int) error {
	want := int(min(int64(len(w.buf)), w.end-at))
	got, err := w.f.ReadAt(w.buf[:want], at)
	w.at, w.n = at, got
	if got >= n {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w at byte %d: the file ends", errTorn, w.pos)
	}
	return err
}

// crcFrom is where the bytes that a batch's checksum covers begin.
const crcFrom = 21

// sum computes the checksum of the batch of size bytes at pos, through the buffer.
func (w *walker) sum(size int64) (uint32, error) {
	var sum uint32
	for at, end := w.pos+crcFrom, w.pos+size; at < end; {
		if at < w.at || at >= w.at+int64(w.n) {
			if err := w.read(at, 1); err != nil {
				return 0, err
			}
		}
		b := w.buf[at-w.at : w.n]
		b = b[:min(int64(len(b)), end-at)]
		sum = crc32.Update(sum, castagnoli, b)
		at += int64(len(b))
	}
	return sum, nil
}
