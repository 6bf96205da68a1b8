package segment

import (
	"context"
	"errors"
	"io"
	"math"
	"sort"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/record"
)

// Stamp is a record's offset, timestamp and leader epoch.
type Stamp struct {
	Offset record.Offset
	Time   int64 // ms
	Epoch  record.Epoch
}

// MaxTime is the largest timestamp of the segment's records, in ms, or NoTimestamp if
// none has one. active is true for the log's last segment.
func (g *Segment) MaxTime(active bool) (int64, error) {
	g.mu.Lock()
	known := g.maxTime
	g.mu.Unlock()
	if known != TimeUnknown {
		return known, nil
	}
	load := g.loadMaxTime
	if active {
		load = func() error { return g.Activate(0) }
	}
	if err := load(); err != nil {
		return 0, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.maxTime, nil
}

// loadMaxTime reads a closed segment's largest timestamp from the end of its time index.
// If that entry is wrong it builds the indexes again.
func (g *Segment) loadMaxTime() error {
	x, err := g.openIndex(TimeSuffix, timeEntryLen)
	if err != nil {
		return err
	}
	defer x.closeFile()
	if x.n > 0 {
		b := make([]byte, timeEntryLen)
		if err := x.readEntries(b, x.n-1); err != nil {
			return err
		}
		if e := decodeTimeEntry(b); g.isLastTimeEntry(e) {
			g.mu.Lock()
			g.maxTime, g.maxTimeAt = e.ms, g.base+record.Offset(e.rel)
			g.mu.Unlock()
			return nil
		}
	}
	return g.rebuildIndexes()
}

// isLastTimeEntry tells whether an entry of a closed segment's time index is right, and no
// later batch has a larger timestamp. If later entries were lost, retention would delete
// records too early.
func (g *Segment) isLastTimeEntry(e timeEntry) bool {
	pos, ok := g.checkTimeEntry(e)
	if !ok {
		return false
	}
	rest := &Segment{base: g.base, maxTime: e.ms, firstTime: TimeUnknown}
	err := g.scanBatches(rest, &tail{}, pos, g.Size(), math.MaxInt)
	return err == nil && rest.maxTime == e.ms
}

// checkTimeEntry tells whether an entry of the time index is right: its batch must have
// that timestamp. It also returns where the batch ends.
func (g *Segment) checkTimeEntry(e timeEntry) (end int64, fits bool) {
	o := g.base + record.Offset(e.rel)
	c, err := g.searchOffset(o)
	if err != nil {
		return 0, false
	}
	found, _, err := g.walkTo(c, o)
	return found.End, err == nil && found.Next == o+1 && found.MaxTime == e.ms
}

// lastOffsetBefore returns an offset up to which all records have timestamps below ms, by
// the time index. It returns an offset below the segment's base if the index does not
// tell.
func (g *Segment) lastOffsetBefore(ms int64) record.Offset {
	after := func(e timeEntry) bool { return e.ms >= ms }
	n := -1
	g.mu.Lock()
	if t := g.tail; t != nil {
		if i := sort.Search(len(t.times), func(i int) bool { return after(t.times[i]) }); i > 0 {
			o := g.base + record.Offset(t.times[i-1].rel)
			g.mu.Unlock()
			return o
		}
		n = t.timesInFile
	}
	g.mu.Unlock()
	x, err := g.openIndex(TimeSuffix, timeEntryLen)
	if err != nil {
		return g.base - 1
	}
	defer x.closeFile()
	if n >= 0 {
		x.n = min(n, x.n)
	}
	b, err := x.lastEntry(func(b []byte) bool { return after(decodeTimeEntry(b)) })
	if err != nil || b == nil {
		return g.base - 1
	}
	e := decodeTimeEntry(b)
	if _, fits := g.checkTimeEntry(e); fits {
		return g.base + record.Offset(e.rel)
	}
	return g.base - 1
}

// Work has the budget in which a look-up into batches reserves its memory. The look-up
// may wait for memory until the context ends. A nil budget has no bounds.
type Work struct {
	Ctx    context.Context //nolint:containedctx // it is handed on with the budget, call by call
	Budget *budget.Budget
}

// FindTime finds the first record with an offset of at least from and a timestamp of at
// least ms; ok is false if the segment has none.
func (g *Segment) FindTime(work Work, ms int64, from record.Offset) (at Stamp, ok bool, err error) {
	from = max(g.lastOffsetBefore(ms)+1, from)
	err = g.walkBatches(from, func(b record.Batch, read func() (record.Batch, error)) (done bool, err error) {
		if b.MaxTimestamp() < ms || b.LastOffset() < from || b.Count() == 0 {
			return false, nil
		}
		at, ok, err = work.findFirst(b, read, from, ms)
		return ok, err
	})
	return at, ok, err
}

// MaxTimeFrom is the largest timestamp, in ms, of the segment's records from an offset on;
// whole is that of all its records. It is fast if a record from there on has the
// timestamp whole.
func (g *Segment) MaxTimeFrom(work Work, from record.Offset, whole int64) (int64, error) {
	if _, ok, err := g.FindTime(work, whole, from); ok || err != nil {
		return whole, err
	}
	latest := record.NoTimestamp
	err := g.walkBatches(from, func(b record.Batch, read func() (record.Batch, error)) (done bool, err error) {
		if b.Count() == 0 {
			return false, nil
		}
		ms := b.MaxTimestamp()
		if b.BaseOffset() < from { // the record with the batch's largest timestamp may lie below from
			if ms, err = work.maxTimeIn(b, read, from); err != nil {
				return false, err
			}
		}
		latest = max(latest, ms)
		return false, nil
	})
	return latest, err
}

// walkBatches calls fn with the header of each batch, from the one with an offset on,
// until fn is done. read reads the whole batch.
func (g *Segment) walkBatches(from record.Offset, fn func(b record.Batch, read func() (record.Batch, error)) (done bool, err error)) error {
	found, err := g.Locate(from)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	h, err := g.useFile()
	if err != nil {
		return err
	}
	defer h.removeUser()
	w := g.walkFrom(h.f, found.Pos, g.Size(), &walkBuffers)
	defer w.Close()
	for {
		pos := w.pos
		b, err := w.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		done, err := fn(b, func() (record.Batch, error) {
			whole := make(record.Batch, b.Size())
			return whole, g.ReadAt(whole, pos)
		})
		if done || err != nil {
			return err
		}
	}
}

// maxTimeIn finds the largest timestamp of a batch's records from an offset on. It reads the
// batch once.
func (w Work) maxTimeIn(header record.Batch, read func() (record.Batch, error), from record.Offset) (ms int64, err error) {
	err = w.readReserved(header, read, func(whole record.Batch) error {
		ms, err = whole.MaxTimeFrom(w.Ctx, w.Budget, from)
		return err
	})
	return ms, err
}

// findFirst finds the first record of a batch from an offset on with a timestamp of at
// least ms.
func (w Work) findFirst(header record.Batch, read func() (record.Batch, error), from record.Offset, ms int64) (at Stamp, ok bool, err error) {
	err = w.readReserved(header, read, func(whole record.Batch) error {
		var found record.Stamp
		found, ok, err = whole.FirstAt(w.Ctx, w.Budget, from, ms)
		at = Stamp{found.Offset, found.Timestamp, whole.LeaderEpoch()}
		return err
	})
	return at, ok, err
}

// readReserved reads a batch into reserved memory, and calls use with it. A batch may be larger
// than the largest reservation, since its topic allows it. For such a batch the largest is
// reserved, so that only one of them is read at a time.
func (w Work) readReserved(header record.Batch, read func() (record.Batch, error), use func(whole record.Batch) error) error {
	held, err := w.Budget.Reserve(w.Ctx, budget.Batch, min(int64(header.Size()), w.Budget.Most(budget.Batch)))
	if err != nil {
		return err
	}
	defer held.Release()
	whole, err := read()
	if err != nil {
		return err
	}
	return use(whole)
}

// FirstTime is the largest timestamp of a segment's first batch, in ms, or NoTimestamp if it has none.
func FirstTime(g *Segment) (int64, error) {
	g.mu.Lock()
	known, size := g.firstTime, g.size
	g.mu.Unlock()
	if known != TimeUnknown || size == 0 {
		return max(known, record.NoTimestamp), nil
	}
	first, _, err := g.walkTo(hint{0, noHint}, 0)
	if err != nil {
		return 0, tornAtEnd(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.firstTime == TimeUnknown && g.tail == nil {
		g.firstTime = first.MaxTime
	}
	return first.MaxTime, nil
}
