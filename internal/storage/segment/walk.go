package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/leatstream/leat/internal/record"
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	be         = binary.BigEndian
)

// ErrTorn says that a file does not go on with a whole batch at some position.
var ErrTorn = errors.New("not a whole batch")

const (
	walkBuffer = 128 << 10 // bytes that a walk over many batches reads at a time
	hopBuffer  = 8 << 10   // bytes that a search for one batch reads: two index intervals
)

// The buffers that walks read into, used again.
var (
	walkBuffers = sync.Pool{New: func() any { b := make([]byte, walkBuffer); return &b }}
	hopBuffers  = sync.Pool{New: func() any { b := make([]byte, hopBuffer); return &b }}
)

// Walker goes from batch to batch through a segment's file. It is for one goroutine.
type Walker struct {
	f      io.ReaderAt
	end    int64 // of the bytes that there are to read
	pos    int64 // of the next batch
	verify int64 // batches from this position on must have a right checksum

	strict bool          // offsets must follow each other without a gap
	least  record.Offset // the next batch must not begin below; with strict it must begin here
	known  bool          // least is known; it is from the second batch on at the latest
	epoch  record.Epoch  // of the batch before: the next one's must not be lower

	head [record.HeaderLen]byte
	pool *sync.Pool
	buf  *[]byte
	at   int64 // where the first n bytes of buf lie in the file
	n    int
}

// newWalker makes a walker over the bytes from pos to end of a file; buffers is one of
// the pools above. Close gives its memory back.
func newWalker(f io.ReaderAt, pos, end int64, buffers *sync.Pool) *Walker {
	buf, _ := buffers.Get().(*[]byte)
	return &Walker{f: f, pos: pos, end: end, epoch: record.NoEpoch, pool: buffers, buf: buf}
}

// walkFrom makes a walker over the segment's bytes from pos to end, which takes a gap for
// damage where there must not be one.
func (g *Segment) walkFrom(f io.ReaderAt, pos, end int64, buffers *sync.Pool) *Walker {
	w := newWalker(f, pos, end, buffers)
	g.mu.Lock()
	w.strict = !g.hasGaps
	g.mu.Unlock()
	if pos == 0 {
		w.least, w.known = g.base, true
	}
	return w
}

// NewWalker makes a walker over the bytes from pos to end of a file. The first batch must
// not begin below least. strict: offsets follow each other without a gap, and the first
// batch begins with least.
func NewWalker(f io.ReaderAt, pos, end int64, least record.Offset, strict bool) *Walker {
	w := newWalker(f, pos, end, &walkBuffers)
	w.least, w.known, w.strict = least, true, strict
	return w
}

// Trust has the walker believe checksums of batches that begin before a position.
func (w *Walker) Trust(before int64) { w.verify = before }

// Close gives the walker's memory back.
func (w *Walker) Close() {
	if w.buf != nil {
		w.pool.Put(w.buf)
		w.buf = nil
	}
}

// Pos is the position of the next batch.
func (w *Walker) Pos() int64 { return w.pos }

// Least is the offset below which the next batch must not begin.
func (w *Walker) Least() record.Offset { return w.least }

// Reread drops what was read ahead, so that the next batch comes from the file again.
func (w *Walker) Reread() { w.n = 0 }

// StepBack moves back to the batch that Next returned last: it begins at pos, and its offset
// is not below least.
func (w *Walker) StepBack(pos int64, least record.Offset) {
	w.pos, w.least, w.epoch = pos, least, record.NoEpoch
}

// Next returns the header of the batch at Pos, valid until the next call, and moves
// behind the batch. It returns io.EOF at the end, an error that is ErrTorn where there
// is no whole batch, and the error of a read that failed.
func (w *Walker) Next() (record.Batch, error) {
	left := w.end - w.pos
	if left == 0 {
		return nil, io.EOF
	}
	if left < record.HeaderLen {
		return nil, fmt.Errorf("%w at byte %d: %d bytes are left", ErrTorn, w.pos, left)
	}
	if err := w.fill(record.HeaderLen); err != nil {
		return nil, err
	}
	b := record.Batch((*w.buf)[w.pos-w.at:][:record.HeaderLen])
	if err := w.checkHeader(b, left); err != nil {
		return nil, err
	}
	size := int64(b.Size())
	if w.pos >= w.verify {
		copy(w.head[:], b) // bytes that are read on may come to lie over it
		b = w.head[:]
		sum, err := w.sum(size)
		if err != nil {
			return nil, err
		}
		if sum != b.CRC() {
			return nil, fmt.Errorf("%w at byte %d: its checksum is wrong", ErrTorn, w.pos)
		}
	}
	w.pos += size
	w.known, w.least, w.epoch = true, b.NextOffset(), b.LeaderEpoch()
	return b, nil
}

// checkHeader judges the header of the batch at pos, of which left bytes may be there.
func (w *Walker) checkHeader(b record.Batch, left int64) error {
	size := int64(b.Size())
	switch {
	case b.Magic() != record.Magic:
		return fmt.Errorf("%w at byte %d: its format is %d", ErrTorn, w.pos, b.Magic())
	case size < record.HeaderLen || size > left:
		return fmt.Errorf("%w at byte %d: it says it has %d bytes of %d", ErrTorn, w.pos, size, left)
	case w.known && (b.BaseOffset() < w.least || w.strict && b.BaseOffset() != w.least):
		return fmt.Errorf("%w at byte %d: it begins with offset %d, not %d", ErrTorn, w.pos, b.BaseOffset(), w.least)
	case b.LastOffsetDelta() < 0:
		return fmt.Errorf("%w at byte %d: its last offset lies %d after its first", ErrTorn, w.pos, b.LastOffsetDelta())
	case b.LeaderEpoch() < w.epoch:
		return fmt.Errorf("%w at byte %d: its leader epoch is %d after %d", ErrTorn, w.pos, b.LeaderEpoch(), w.epoch)
	}
	return nil
}

// fill makes the n bytes at pos lie in the buffer.
func (w *Walker) fill(n int) error {
	if w.pos >= w.at && w.pos+int64(n) <= w.at+int64(w.n) {
		return nil
	}
	return w.read(w.pos, n)
}

// read fills the buffer from the file's position at on, with n bytes at least.
func (w *Walker) read(at int64, n int) error {
	want := int(min(int64(len(*w.buf)), w.end-at))
	got, err := w.f.ReadAt((*w.buf)[:want], at)
	w.at, w.n = at, got
	if got >= n {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w at byte %d: the file ends", ErrTorn, w.pos)
	}
	return err
}

// crcFrom is the position in a batch where the bytes begin that its checksum covers.
const crcFrom = 21

// sum computes the checksum of the batch of size bytes at pos, through the buffer.
func (w *Walker) sum(size int64) (uint32, error) {
	var sum uint32
	for at, end := w.pos+crcFrom, w.pos+size; at < end; {
		if at < w.at || at >= w.at+int64(w.n) {
			if err := w.read(at, 1); err != nil {
				return 0, err
			}
		}
		b := (*w.buf)[at-w.at : w.n]
		b = b[:min(int64(len(b)), end-at)]
		sum = crc32.Update(sum, castagnoli, b)
		at += int64(len(b))
	}
	return sum, nil
}

// BatchInfo says where a batch lies, and what its header tells.
type BatchInfo struct {
	Pos, End   int64
	Base, Next record.Offset
	Epoch      record.Epoch
	MaxTime    int64 // ms
}

func infoOf(b record.Batch, pos, end int64) BatchInfo {
	return BatchInfo{pos, end, b.BaseOffset(), b.NextOffset(), b.LeaderEpoch(), b.MaxTimestamp()}
}
