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

// ErrTorn is returned for a position in a file at which there is no whole batch.
var ErrTorn = errors.New("not a whole batch")

const (
	walkBuffer = 128 << 10 // bytes that a walk over many batches reads at a time
	hopBuffer  = 8 << 10   // bytes that a search for one batch reads: two index intervals
)

// The buffers of walkers, kept for the next ones.
var (
	walkBuffers = sync.Pool{New: func() any { b := make([]byte, walkBuffer); return &b }}
	hopBuffers  = sync.Pool{New: func() any { b := make([]byte, hopBuffer); return &b }}
)

// Walker goes from batch to batch through a segment's file. It is for one goroutine.
type Walker struct {
	f          io.ReaderAt
	end        int64 // the position at which the walk ends
	pos        int64 // the position of the next batch
	verifyFrom int64 // the checksums of batches from this position on are verified

	strict     bool          // there must be no gaps between the offsets of batches
	least      record.Offset // the next batch must not begin below it; if strict, it must begin there
	leastKnown bool          // least is known, which it is from the second batch on at the latest
	epoch      record.Epoch  // of the last batch; that of the next one must not be lower

	head [record.HeaderLen]byte // the header that Next has returned, if the batch was verified
	last int64                  // the position of the batch that Next has returned
	pool *sync.Pool             // to which buf goes back
	buf  *[]byte                // its first n bytes are those of the file from the position at on
	at   int64
	n    int
}

// newWalker makes a walker over the bytes from pos to end of a file. buffers is
// walkBuffers or hopBuffers. Close gives the buffer back.
func newWalker(f io.ReaderAt, pos, end int64, buffers *sync.Pool) *Walker {
	buf, _ := buffers.Get().(*[]byte)
	return &Walker{f: f, pos: pos, end: end, epoch: record.NoEpoch, pool: buffers, buf: buf}
}

// walkFrom makes a walker over the segment's bytes from pos to end. It knows whether the
// segment may have gaps and, at the beginning, the first offset.
func (g *Segment) walkFrom(f io.ReaderAt, pos, end int64, buffers *sync.Pool) *Walker {
	w := newWalker(f, pos, end, buffers)
	g.mu.Lock()
	w.strict = !g.hasGaps
	g.mu.Unlock()
	if pos == 0 {
		w.least, w.leastKnown = g.base, true
	}
	return w
}

// NewWalker makes a walker over the bytes from pos to end of a file. The first batch must
// not begin below the offset least. If strict is true it must begin with least, and there
// must be no gaps between the offsets of batches.
func NewWalker(f io.ReaderAt, pos, end int64, least record.Offset, strict bool) *Walker {
	w := newWalker(f, pos, end, &walkBuffers)
	w.least, w.leastKnown, w.strict = least, true, strict
	return w
}

// Trust has the walker not verify the checksums of batches that begin before a position.
func (w *Walker) Trust(before int64) { w.verifyFrom = before }

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

// Reread empties the buffer, so that the next batch is read from the file again.
func (w *Walker) Reread() { w.n = 0 }

// StepBack moves back to the batch that Next returned last, which begins at pos and not
// below the offset least.
func (w *Walker) StepBack(pos int64, least record.Offset) {
	w.pos, w.least, w.epoch = pos, least, record.NoEpoch
}

// Next returns the header of the batch at Pos, which is valid until the next call, and
// moves to the next batch. The error is io.EOF at the end, ErrTorn if there is no whole
// batch, or that of a read which failed.
func (w *Walker) Next() (record.Batch, error) {
	left := w.end - w.pos
	if left == 0 {
		return nil, io.EOF
	}
	if left < record.HeaderLen {
		return nil, fmt.Errorf("%w at byte %d: %d bytes are left", ErrTorn, w.pos, left)
	}
	if err := w.fillBuffer(record.HeaderLen); err != nil {
		return nil, err
	}
	b := record.Batch((*w.buf)[w.pos-w.at:][:record.HeaderLen])
	if err := w.checkHeader(b, left); err != nil {
		return nil, err
	}
	size := int64(b.Size())
	if w.pos >= w.verifyFrom {
		copy(w.head[:], b) // checksumBatch may overwrite the buffer
		b = w.head[:]
		sum, err := w.checksumBatch(size)
		if err != nil {
			return nil, err
		}
		if sum != b.CRC() {
			return nil, fmt.Errorf("%w at byte %d: its checksum is wrong", ErrTorn, w.pos)
		}
	}
	w.last = w.pos
	w.pos += size
	w.leastKnown, w.least, w.epoch = true, b.NextOffset(), b.LeaderEpoch()
	return b, nil
}

// Whole returns all bytes of the batch that Next has returned last, if it is a control batch. They
// are valid until the next call. Of a batch that is too long for a marker, and of any other, it
// returns the header.
func (w *Walker) Whole(b record.Batch) (record.Batch, error) {
	if !b.Control() || b.Size() > record.MaxMarkerLen {
		return b, nil
	}
	size := b.Size()
	if w.last < w.at || w.pos > w.at+int64(w.n) {
		if err := w.readBuffer(w.last, size); err != nil {
			return nil, err
		}
	}
	return record.Batch((*w.buf)[w.last-w.at:][:size]), nil
}

// checkHeader checks the header of the batch at pos; left bytes of the file follow there.
func (w *Walker) checkHeader(b record.Batch, left int64) error {
	size := int64(b.Size())
	switch {
	case b.Magic() != record.Magic:
		return fmt.Errorf("%w at byte %d: its format is %d", ErrTorn, w.pos, b.Magic())
	case size < record.HeaderLen || size > left:
		return fmt.Errorf("%w at byte %d: it says it has %d bytes of %d", ErrTorn, w.pos, size, left)
	case w.leastKnown && (b.BaseOffset() < w.least || w.strict && b.BaseOffset() != w.least):
		return fmt.Errorf("%w at byte %d: it begins with offset %d, not %d", ErrTorn, w.pos, b.BaseOffset(), w.least)
	case b.LastOffsetDelta() < 0:
		return fmt.Errorf("%w at byte %d: its last offset lies %d after its first", ErrTorn, w.pos, b.LastOffsetDelta())
	case b.LeaderEpoch() < w.epoch:
		return fmt.Errorf("%w at byte %d: its leader epoch is %d after %d", ErrTorn, w.pos, b.LeaderEpoch(), w.epoch)
	}
	return nil
}

// fillBuffer reads the n bytes at pos into the buffer, unless they are there.
func (w *Walker) fillBuffer(n int) error {
	if w.pos >= w.at && w.pos+int64(n) <= w.at+int64(w.n) {
		return nil
	}
	return w.readBuffer(w.pos, n)
}

// readBuffer reads the file into the buffer from the position at on, at least n bytes.
func (w *Walker) readBuffer(at int64, n int) error {
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

// crcFrom is the position in a batch of the first byte that its checksum covers.
const crcFrom = 21

// checksumBatch computes the checksum of the batch at pos, which has size bytes. It reads
// the batch through the buffer.
func (w *Walker) checksumBatch(size int64) (uint32, error) {
	var sum uint32
	for at, end := w.pos+crcFrom, w.pos+size; at < end; {
		if at < w.at || at >= w.at+int64(w.n) {
			if err := w.readBuffer(at, 1); err != nil {
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

// BatchInfo has the positions of a batch, and some fields of its header.
type BatchInfo struct {
	Pos, End   int64
	Base, Next record.Offset
	Epoch      record.Epoch
	MaxTime    int64 // ms
}

func infoOf(b record.Batch, pos, end int64) BatchInfo {
	return BatchInfo{pos, end, b.BaseOffset(), b.NextOffset(), b.LeaderEpoch(), b.MaxTimestamp()}
}

// FindHole returns the first offset, from one on, behind which no batch of some segments, in
// their order, can be read without a gap.
func FindHole(segs []*Segment, from record.Offset) record.Offset {
	for i, g := range segs {
		if i+1 < len(segs) && segs[i+1].Base() <= from {
			continue
		}
		if g.Base() > from {
			break
		}
		from = readableEnd(g)
	}
	return from
}

// readableEnd is the offset after the last batch that can be read from the beginning on.
func readableEnd(g *Segment) record.Offset {
	next := g.Base()
	w, closeWalk, err := g.Walk(0, next, false)
	if err != nil {
		return next
	}
	defer closeWalk()
	for {
		b, err := w.Next()
		if err != nil {
			return next
		}
		next = b.NextOffset()
	}
}
