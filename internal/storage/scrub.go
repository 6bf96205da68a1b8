package storage

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/epoch"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

const (
	scrubDelay = time.Minute    // from the start to the first pass, since a node that starts has more urgent work
	scrubEvery = 24 * time.Hour // from one pass to the next, at least
	scrubRests = 8              // a second
	scrubYield = 8              // the factor by which rests are longer while more is appended than the scrub reads
	scrubOpen  = 64 << 10       // bytes that opening a log counts as
)

// scrub reads and verifies the batches of all logs that are at rest, so that damage is found before
// somebody needs the record. It holds no lock while it reads, and stops when the store is closed.
func (s *Store) scrub(rate int64) {
	p := &pacer{s: s, rate: max(rate, 1)}
	p.left = p.burst()
	began, found := time.Now(), 0
	for _, l := range s.allLogs() {
		if p.waitToRead(scrubOpen) != nil {
			return
		}
		was := l.isFaulted()
		if err := p.scrubLog(l); errors.Is(err, ErrClosed) && s.closing.Load() {
			return
		} else if err != nil && !errors.Is(err, ErrClosed) {
			s.log.Warn("a log could not be checked for damage; it is tried again tomorrow", "log", l.name, "err", err)
		}
		if !was && l.isFaulted() {
			found++
		}
	}
	s.log.Info("all logs were checked for damage", "bytes", p.taken, "damaged", found, "took", time.Since(began))
}

// scrubLog verifies the batches of a log that are at rest, until it finds damage.
func (p *pacer) scrubLog(l *Log) error {
	if err := l.makeUsable(); err != nil {
		return err
	}
	for at := record.Offset(-1); !l.isFaulted(); {
		r, ok := findResting(l, at)
		if !ok {
			return nil
		}
		at = r.g.Base()
		if r.size == 0 {
			continue
		}
		if err := p.scrubSegment(l, r); err != nil {
			return err
		}
	}
	return nil
}

// resting is a segment whose bytes do not change any more.
type resting struct {
	g      *segment.Segment
	size   int64
	next   record.Offset
	epochs epoch.List
	strict bool // offsets have no gaps
}

// findResting finds the next segment after the one with base after. Its size is 0 if it is not to
// be read now. That is so for the active segment while some of it is not on disk, and for segments
// below the start: they were deleted, and a crash may have brought back a part of them. The active
// segment ends here where the log does, since the epochs and gaps of a batch behind that are not known.
func findResting(l *Log, after record.Offset) (r resting, ok bool) {
	l.pub.Lock()
	defer l.pub.Unlock()
	for _, g := range l.segs {
		if g.Base() <= after {
			continue
		}
		size, next := g.End()
		if g == l.end.Segment {
			size, next = l.end.Pos, l.end.Next
		}
		r = resting{g, size, next, l.epochs, !l.hasGaps}
		if synced, _ := g.Synced(); g == l.end.Segment && synced < size || next <= record.Offset(l.start.Load()) {
			r.size = 0
		}
		return r, true
	}
	return r, false
}

// scrubSegment verifies one segment. It opens the file itself, so that the files that readers and
// writers use stay open.
func (p *pacer) scrubSegment(l *Log, r resting) error {
	f, err := r.g.OpenApart()
	if errors.Is(err, vfs.ErrNotExist) {
		if l.hasSegment(r.g) {
			_ = l.reportDamage(r.g, errors.New("the file is missing")) // the log reports the fault from now on
		}
		return nil
	}
	if classify(err) == gone {
		return nil // the segment was deleted meanwhile
	}
	if err != nil {
		return nameError(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	w := segment.NewWalker(pacedFile{f, p}, 0, r.size, r.g.Base(), r.strict)
	defer w.Close()
	reread := false
	for {
		err := r.verifyNext(w)
		switch {
		case err == nil:
			reread = false
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, ErrClosed):
			return err
		case !reread: // the memory may have failed, or the disk may read the bytes right at a second try
			reread = true
			w.Reread()
		case hasWholeSegment(l, r.g):
			_ = l.reportDamage(r.g, err) // the log reports the fault from now on
			return nil
		default:
			return nil // the segment was deleted or cut meanwhile
		}
	}
}

// verifyNext verifies the next batch. It returns io.EOF if the segment rightly ends here.
func (r *resting) verifyNext(w *segment.Walker) error {
	at, from := w.Pos(), w.Least()
	b, err := w.Next()
	if errors.Is(err, io.EOF) && r.strict && from != r.next {
		return fmt.Errorf("%w at byte %d: it ends with offset %d, not %d", segment.ErrTorn, at, from, r.next)
	}
	if err != nil {
		return err
	}
	// No checksum covers the leader's epoch, because the broker stamps it.
	if want := r.epochs.At(b.BaseOffset()); want != record.NoEpoch && b.LeaderEpoch() != want {
		err := fmt.Errorf("%w at byte %d: its leader epoch is %d, not %d", segment.ErrTorn, at, b.LeaderEpoch(), want)
		w.StepBack(at, from)
		return err
	}
	return nil
}

// pacedFile reads no faster than its pacer allows.
type pacedFile struct {
	vfs.File
	p *pacer
}

func (f pacedFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.p.waitToRead(int64(len(b))); err != nil {
		return 0, err
	}
	return vfs.ReadPassing(f.File, b, off)
}

// pacer bounds the bytes that are read in a second. It allows them in bursts with rests between,
// which costs less than a wake-up for every read.
type pacer struct {
	s     *Store
	rate  int64 // bytes a second
	left  int64 // bytes until it rests
	seen  int64 // keeper.bytes when it rested last
	taken int64
}

func (p *pacer) burst() int64 { return max(p.rate/scrubRests, 1) }

// waitToRead waits until n bytes may be read. It returns ErrClosed if the store is closing.
func (p *pacer) waitToRead(n int64) error {
	p.taken += n
	if p.left -= n; p.left < 0 && p.restAWhile() != nil || p.s.closing.Load() {
		return ErrClosed
	}
	return nil
}

func (p *pacer) restAWhile() error {
	d := time.Duration(float64(p.burst()-p.left) / float64(p.rate) * float64(time.Second))
	now := p.s.keeper.bytes.Load()
	appended := now - p.seen
	if appended < 0 { // a checkpoint has begun to count from 0
		appended = now
	}
	if appended > p.burst() {
		d *= scrubYield
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.s.quit:
		return ErrClosed
	case <-timer.C:
	}
	p.left, p.seen = p.burst(), p.s.keeper.bytes.Load()
	return nil
}
