package storage

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// Where retention drops segments as fast as new ones are made, a dropped one's file
// becomes the next one's: writing into blocks that are there takes a third of what a
// file that grows takes, a sync of it half (BenchmarkAppendSteady).
//
// What the file has of its earlier life must never be taken for records:
//
//   - It is given to the same log only, whose offsets rise: an old batch has an offset
//     that is too low wherever it is met, and every walk expects the next one.
//   - What lies beyond the end may be any bytes of the old batches, with what a client
//     once sent in them. So each write ends with zeros, a batch's head of them at least,
//     up to a block's end (which also keeps the kernel from reading that block first).
//     Where a kill cut a write short, or a power cut mixed old and new, recovery finds
//     something that is no batch and verifies all checksums again up to there.
//   - Whoever may still read the old records must not read the new ones: a file that is
//     open, or that sendfile was given, whose pages may wait in some socket, is not used.
//     Nobody tells when they have left it. So what a log has that drops as much as it
//     takes is read for an answer and not sent: each reader of large answers pays 0.04 s/GB for
//     it, and the producer saves 0.2 (leat bench produce behind a consume of 1 MiB answers).
//   - A segment that is closed is cut to its length, and synced before a point lies
//     beyond it.
const (
	maxSpares = 64               // a checkpoint drops as many of a log as were made since the last one
	spareFor  = 30 * time.Second // that a dropped file waits for its log's next segment at least, over a pause of the producer
)

// usage says who may still see what a segment's file has.
type usage struct {
	open  atomic.Int32 // uses of the file: open, or being opened
	sent  atomic.Bool  // sendfile was given it
	again atomic.Bool  // the file is to be used again: sendfile is not given it
}

// send tells whether sendfile may be given the file, and notes that it was.
func (u *usage) send() bool {
	if u.sent.Load() {
		return true
	}
	if u.again.Load() {
		return false
	}
	u.sent.Store(true)
	return true
}

// fits tells whether a dropped segment's file is of use for the log's next one.
func (l *Log) fits(g *segment) bool {
	limit := l.options().SegmentBytes
	l.pub.Lock()
	defer l.pub.Unlock()
	return g.size <= limit && g.size >= limit/2
}

// spare keeps a dropped segment's file for the log's next segment. It was renamed, so
// that nobody opens it any more, and will be removed in its time if it is not taken
// before.
func (l *Log) spare(g *segment) {
	l.pub.Lock()
	defer l.pub.Unlock()
	if n := len(l.spares); n >= maxSpares {
		l.spares = slices.Delete(l.spares, 0, n-maxSpares+1)
	}
	l.spares = append(l.spares, g)
}

// keepFiles has the files of all segments be of use again once they are dropped: from
// here on they are read for answers.
func (l *Log) keepFiles() {
	for _, g := range l.segments() {
		g.usage.again.Store(true)
	}
}

// takeSpare gives a spare file the new segment's name. mu is held.
func (l *Log) takeSpare(g *segment) bool {
	for {
		l.pub.Lock()
		if len(l.spares) == 0 {
			l.pub.Unlock()
			return false
		}
		old := l.spares[0]
		l.spares = l.spares[1:]
		l.pub.Unlock()
		g.usage.again.Store(true)
		if old.usage.open.Load() != 0 || old.usage.sent.Load() {
			continue
		}
		err := l.change(func() error {
			if err := l.s.fs.Rename(old.path(logSuffix)+deletedSuffix, g.path(logSuffix)); err != nil {
				return err
			}
			l.takeIndex(old, g, indexSuffix)
			l.takeIndex(old, g, timeSuffix)
			return nil
		})
		if err == nil {
			return true
		}
	}
}

// takeIndex gives the new segment the other one's index file, emptied: of segments of
// a few MiB, to make both files costs a tenth of what their bytes do, and a third on
// ext4 without a journal (row 6 of docs/benchmarks.md, steady). Where that fails one is
// made when there are entries.
func (l *Log) takeIndex(old, g *segment, suffix string) {
	name := old.path(suffix) + deletedSuffix
	f, err := l.s.fs.Open(name, vfs.Existing)
	if err != nil {
		return
	}
	if err = errors.Join(f.Truncate(0), f.Close()); err == nil {
		_ = l.s.fs.Rename(name, g.path(suffix))
	}
}

// openNext makes the file of a segment that begins.
func (l *Log) openNext(g *segment) (*handle, error) {
	if !l.takeSpare(g) {
		return l.s.files.open(g, vfs.Fresh)
	}
	h, err := l.s.files.open(g, vfs.Existing)
	if err != nil {
		return nil, l.unmake(g, err)
	}
	room, err := h.f.Size()
	if err == nil { // it ends before it begins: zeros, however short the first write is cut
		_, err = h.f.WriteAt(zeros[:min(room, l.s.cfg.block)], 0)
	}
	if err != nil {
		h.drop()
		return nil, l.unmake(g, err)
	}
	g.room, g.allocated = room, true
	return h, nil
}

// unmake removes the file of a segment that could not begin, and returns why. The one
// before may go on beyond the offset in its name: where that file stayed, the next
// start would take the rest of the one before for damage.
func (l *Log) unmake(g *segment, err error) error {
	g.forget()
	if e := l.change(func() error { return l.s.fs.Remove(g.path(logSuffix)) }); e != nil && !errors.Is(e, ErrClosed) {
		l.fail(fmt.Errorf("segment %d could not begin (%w), nor its file be removed: %w", g.base, err, e))
	}
	return err
}

// ending is the zeros behind what is written up to end; none where the file ends there.
func (g *segment) ending(end int64) [][]byte {
	const head = 64 // a batch's, about
	block := g.log.s.cfg.block
	to := min((end+head+block-1)/block*block, g.room)
	if to <= end {
		return nil
	}
	n := to - end
	first := min(n, journalBlock)
	return [][]byte{zeros[:first], zeros[:n-first]}
}

// crowded tells whether the log has segments that retention by size drops as a whole.
func (l *Log) crowded() bool {
	o := l.options()
	if !o.Delete || o.RetentionBytes < 0 {
		return false
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	if len(l.segs) < 2 {
		return false
	}
	n := int64(0)
	for _, g := range l.segs[1:] {
		n += g.size
	}
	return n >= o.RetentionBytes
}
