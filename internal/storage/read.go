package storage

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// Read finds the batches from the one with offset from, or else the first one after it, up to
// limit. They have at most maxBytes together, but the first one is given whole however long it is.
// The last one may be cut short by maxBytes, as in Kafka. Read returns nil if there is nothing
// below limit.
func (l *Log) Read(from, limit record.Offset, maxBytes int) (*Chunk, error) {
	if err := l.makeUsable(); err != nil {
		return nil, err
	}
	for {
		l.pub.Lock()
		start, end := record.Offset(l.start.Load()), l.end.Next
		segs := l.segs
		l.pub.Unlock()
		if from < start && l.isIncomplete() { // the records were there, so the client must not be told to begin at the start
			return nil, l.Fault()
		}
		if from < start || from > end {
			return nil, fmt.Errorf("%w: %d is not within [%d, %d]", ErrOffsetOutOfRange, from, start, end)
		}
		limit = min(limit, end)
		if from >= limit {
			return nil, nil //nolint:nilnil // the caller is told: nothing
		}
		i := sort.Search(len(segs), func(i int) bool { return segs[i].Base() > from }) - 1
		if i < 0 && len(segs) > 0 && !l.isFaulted() {
			i = 0 // the log begins with a gap
		}
		if i < 0 {
			l.reportLoss("no file has the records from offset %d on", from)
			return nil, l.Fault()
		}
		c, err := segs[i].Read(from, limit, maxBytes)
		switch {
		case err == nil && c == nil && i+1 < len(segs): // the segment ends with a gap
			from = segs[i+1].Base()
		case err == nil:
			l.noteUse(useRead, nil)
			return c, nil
		case errors.Is(err, vfs.ErrNotExist) && !l.hasSegment(segs[i]): // retention removed it meanwhile: look again
		default:
			return nil, l.explainError(segs[i], err)
		}
	}
}

// explainError makes an error of a segment one that callers can act on. A batch that has changed
// makes the log read-only.
func (l *Log) explainError(g *segment.Segment, err error) error {
	if errors.Is(err, segment.ErrTorn) && hasWholeSegment(l, g) {
		return l.reportDamage(g, err)
	}
	if errors.Is(err, segment.ErrReplaced) {
		return err // the caller looks for the segments again
	}
	err = nameError(err)
	if !errors.Is(err, context.Canceled) && !errors.Is(err, budget.ErrTooLarge) {
		l.noteUse(useRead, err)
	}
	return err
}

// segmentsFromStart are the segments that have an offset at the start or above it.
func (l *Log) segmentsFromStart() []*segment.Segment {
	l.pub.Lock()
	defer l.pub.Unlock()
	i := 0
	for i+1 < len(l.segs) && l.segs[i+1].Base() <= record.Offset(l.start.Load()) {
		i++
	}
	return l.segs[i:]
}

// FindTime finds the first record with a timestamp of at least ms, for ListOffsets. ok is false if
// there is none. It may wait for work memory until the context ends.
func (l *Log) FindTime(ctx context.Context, ms int64) (at Stamp, ok bool, err error) {
	if err := l.makeUsable(); err != nil {
		return Stamp{}, false, err
	}
	return findTime(l, segment.Work{Ctx: ctx, Budget: l.s.cfg.Work}, max(ms, 0))
}

// MaxTime finds the first record with the largest timestamp. It may wait for work memory until the
// context ends.
func (l *Log) MaxTime(ctx context.Context) (at Stamp, ok bool, err error) {
	if err := l.makeUsable(); err != nil {
		return Stamp{}, false, err
	}
	work := segment.Work{Ctx: ctx, Budget: l.s.cfg.Work}
	latest := record.NoTimestamp
	segs := l.segmentsFromStart()
	for _, g := range segs {
		ms, err := maxTimeOf(l, g)
		if errors.Is(err, segment.ErrReplaced) {
			return l.MaxTime(ctx) // with the segment that has its place
		}
		if err != nil {
			return Stamp{}, false, err
		}
		if start := record.Offset(l.start.Load()); ms > latest && g.Base() < start {
			if ms, err = g.MaxTimeFrom(work, start, ms); errors.Is(err, segment.ErrReplaced) {
				return l.MaxTime(ctx)
			} else if err != nil {
				return Stamp{}, false, l.explainError(g, err)
			}
		}
		latest = max(latest, ms)
	}
	if latest < 0 {
		return Stamp{}, false, nil
	}
	at, ok, err = findTime(l, work, latest)
	if err == nil && !ok && !hasSegments(l, segs) { // the record was removed meanwhile
		return l.MaxTime(ctx)
	}
	return at, ok, err
}

// findTime is FindTime for a log that is open. It looks at the segments with such a record in their
// order.
func findTime(l *Log, work segment.Work, ms int64) (at Stamp, ok bool, err error) {
	for _, g := range l.segmentsFromStart() {
		latest, err := maxTimeOf(l, g)
		if err == nil && latest < ms {
			continue
		}
		if err == nil {
			start := record.Offset(l.start.Load())
			at, ok, err = g.FindTime(work, ms, start)
		}
		if errors.Is(err, segment.ErrReplaced) {
			return findTime(l, work, ms) // with the segment that has its place
		}
		if err != nil {
			return Stamp{}, false, l.explainError(g, err)
		}
		if ok {
			return at, true, nil
		}
	}
	return Stamp{}, false, nil
}

// maxTimeOf is the largest timestamp of a segment's records.
func maxTimeOf(l *Log, g *segment.Segment) (int64, error) {
	ms, err := g.MaxTime(g == l.activeSegment())
	if err != nil {
		return 0, l.explainError(g, err)
	}
	return ms, nil
}
