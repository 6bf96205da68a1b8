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

// Stamp is a record's place in time.
type Stamp struct {
	Offset record.Offset
	Time   int64 // ms
	Epoch  record.Epoch
}

// MaxTime is the largest timestamp of the segment's records, in ms; NoTimestamp: no
// record has one. active says that it is the log's last segment.
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

// loadMaxTime takes a closed segment's largest timestamp from the end of its time index,
// and makes the indexes anew where that does not fit the batch that it names.
func (g *Segment) loadMaxTime() error {
	x, err := g.openIndex(TimeSuffix, timeEntryLen)
	if err != nil {
		return err
	}
	defer x.close()
	if x.n > 0 {
		b := make([]byte, timeEntryLen)
		if err := x.read(b, x.n-1); err != nil {
			return err
		}
		if e := decodeTimeEntry(b); g.endsTimes(e) {
			g.mu.Lock()
			g.maxTime, g.maxTimeAt = e.ms, g.base+record.Offset(e.rel)
			g.mu.Unlock()
			return nil
		}
	}
	return g.rebuildIndexes()
}

// endsTimes tells whether an entry is the last one that a closed segment's time index needs:
// it fits, and no later batch has a larger timestamp. Were entries behind it lost, records
// would be deleted too early.
func (g *Segment) endsTimes(e timeEntry) bool {
	pos, ok := g.timeFits(e)
	if !ok {
		return false
	}
	rest := &Segment{base: g.base, maxTime: e.ms, firstTime: TimeUnknown}
	err := g.scan(rest, &tail{}, pos, g.Size(), math.MaxInt)
	return err == nil && rest.maxTime == e.ms
}

// timeFits tells whether the batch that a time index names has that timestamp, and where
// it ends.
func (g *Segment) timeFits(e timeEntry) (end int64, fits bool) {
	o := g.base + record.Offset(e.rel)
	c, err := g.search(o)
	if err != nil {
		return 0, false
	}
	found, _, err := g.walkTo(c, o)
	return found.End, err == nil && found.Next == o+1 && found.MaxTime == e.ms
}

// lastBefore is the last offset up to which, by the time index, no record is as late as
// ms; below the segment's base where the index does not say.
func (g *Segment) lastBefore(ms int64) record.Offset {
	after := func(e timeEntry) bool { return e.ms >= ms }
	n := -1
	g.mu.Lock()
	if t := g.tail; t != nil {
		if i := sort.Search(len(t.times), func(i int) bool { return after(t.times[i]) }); i > 0 {
			o := g.base + record.Offset(t.times[i-1].rel)
			g.mu.Unlock()
			return o
		}
		n = t.inTimes
	}
	g.mu.Unlock()
	x, err := g.openIndex(TimeSuffix, timeEntryLen)
	if err != nil {
		return g.base - 1
	}
	defer x.close()
	if n >= 0 {
		x.n = min(n, x.n)
	}
	b, err := x.last(func(b []byte) bool { return after(decodeTimeEntry(b)) })
	if err != nil || b == nil {
		return g.base - 1
	}
	e := decodeTimeEntry(b)
	if _, fits := g.timeFits(e); fits {
		return g.base + record.Offset(e.rel)
	}
	return g.base - 1
}

// Work is the memory that look-ups into batches draw on: they may wait for it until the
// context ends. A nil budget has no bounds.
type Work struct {
	Ctx    context.Context //nolint:containedctx // it is handed on with the budget, call by call
	Budget *budget.Budget
}

// FindTime finds the first record, not below an offset, with a timestamp of at least ms;
// ok is false where the segment has none.
func (g *Segment) FindTime(work Work, ms int64, from record.Offset) (at Stamp, ok bool, err error) {
	from = max(g.lastBefore(ms)+1, from)
	err = g.walkBatches(from, func(b record.Batch, read func() (record.Batch, error)) (done bool, err error) {
		if b.MaxTimestamp() < ms || b.LastOffset() < from {
			return false, nil
		}
		at, ok, err = work.firstAt(b, read, from, ms)
		return ok, err
	})
	return at, ok, err
}

// MaxTimeFrom is the largest timestamp of the segment's records from an offset on, in ms;
// whole is that of all its records. Only where that one lies below are the others looked at.
func (g *Segment) MaxTimeFrom(work Work, from record.Offset, whole int64) (int64, error) {
	if _, ok, err := g.FindTime(work, whole, from); ok || err != nil {
		return whole, err
	}
	latest := record.NoTimestamp
	err := g.walkBatches(from, func(b record.Batch, read func() (record.Batch, error)) (done bool, err error) {
		ms := b.MaxTimestamp()
		if b.BaseOffset() < from { // its newest record may lie below
			if ms, err = work.maxTimeIn(b, read, from); err != nil {
				return false, err
			}
		}
		latest = max(latest, ms)
		return false, nil
	})
	return latest, err
}

// walkBatches calls fn with the headers of batches, from the one that holds an offset on,
// until it is done. read reads all of the batch.
func (g *Segment) walkBatches(from record.Offset, fn func(b record.Batch, read func() (record.Batch, error)) (done bool, err error)) error {
	found, err := g.Locate(from)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	h, err := g.open()
	if err != nil {
		return err
	}
	defer h.release()
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

// maxTimeIn is the largest timestamp of a batch's records from an offset on, by bisection.
func (w Work) maxTimeIn(header record.Batch, read func() (record.Batch, error), from record.Offset) (int64, error) {
	lo, hi := record.NoTimestamp, header.MaxTimestamp()
	for lo < hi {
		mid := hi - (hi-lo)/2
		at, ok, err := w.firstAt(header, read, from, mid)
		switch {
		case err != nil:
			return 0, err
		case ok:
			lo = at.Time
		default:
			hi = mid - 1
		}
	}
	return lo, nil
}

// firstAt is the first record of a batch, from an offset on, that is as late as ms. A batch
// that is larger than any reservation was allowed by somebody: it takes the largest, and is
// read while no other large one is.
func (w Work) firstAt(header record.Batch, read func() (record.Batch, error), from record.Offset, ms int64) (Stamp, bool, error) {
	held, err := w.Budget.Reserve(w.Ctx, budget.Batch, min(int64(header.Size()), w.Budget.Most(budget.Batch)))
	if err != nil {
		return Stamp{}, false, err
	}
	defer held.Release()
	whole, err := read()
	if err != nil {
		return Stamp{}, false, err
	}
	at, ok, err := whole.FirstAt(w.Ctx, w.Budget, from, ms)
	return Stamp{at.Offset, at.Timestamp, whole.LeaderEpoch()}, ok, err
}
