package compact

import (
	"cmp"
	"math"

	"github.com/leatstream/leat/internal/record"
)

// Segment is what a plan needs to know of a segment of a log.
type Segment struct {
	Base      record.Offset
	Bytes     int64
	Index     int64 // bytes of its index of offsets
	TimeIndex int64 // bytes of its index of timestamps
	FirstTime int64 // the largest timestamp of its first batch, ms; 0 or less if it is not known
	LastTime  int64 // the largest timestamp of its records, ms
}

// Config are the topic's configs that a plan needs.
type Config struct {
	MinLag, MaxLag int64   // ms, {min,max}.compaction.lag.ms
	DirtyRatio     float64 // min.cleanable.dirty.ratio
	SegmentBytes   int64   // segment.bytes
	IndexBytes     int64   // segment.index.bytes
}

// Log is a log at some moment.
type Log struct {
	Start, End    record.Offset
	LastStable    record.Offset
	HighWatermark record.Offset
	// Cleaned is where the last round has ended, and NoRound if there was none.
	Cleaned  record.Offset
	Segments []Segment // by Base; the last one is the active one
	Config   Config
}

// NoRound is the value of Log.Cleaned for a log that was never compacted.
const NoRound record.Offset = -1

// Due says why a log is to be compacted.
type Due int8

// The reasons.
const (
	NotDue     Due = iota // it is not
	DueByRatio            // more of it is dirty than min.cleanable.dirty.ratio
	DueByAge              // a dirty record is older than max.compaction.lag.ms
)

// Bound says what the end of a round is due to.
type Bound int8

// The bounds.
const (
	ByActive    Bound = iota // the active segment
	ByLag                    // a record younger than min.compaction.lag.ms
	ByWatermark              // the high watermark
	ByStable                 // an open transaction
)

// Round is a round of compaction that a log could have.
type Round struct {
	First   record.Offset // the first dirty offset
	Upper   record.Offset // the base of the first segment that stays as it is
	Reset   bool          // the end of the last round did not fit the log: it was below the start or above the end
	Clean   int64         // bytes of the segments below First
	Dirty   int64         // bytes of the segments from the one of First up to Upper
	Due     Due
	Bound   Bound // of Upper
	Held    int64 // bytes of the segments from Upper up to the active one
	Active  int64 // bytes of the active segment
	Overdue int64 // ms since max.compaction.lag.ms was over for the oldest dirty record; 0: it is not
}

// Ratio is the dirty part of all that the round would read, from 0 to 1.
func (r *Round) Ratio() float64 {
	if r.Dirty == 0 {
		return 0
	}
	return float64(r.Dirty) / float64(r.Clean+r.Dirty)
}

// PlanRound plans the next round of a log at a time in ms.
//
// A log that was cut below the end of its last round, or whose start has moved beyond it, is
// dirty from its start. The round ends below the last stable offset, the high watermark, the
// active segment, and the first dirty segment that has a record younger than min.compaction.lag.ms; and
// there at the beginning of a segment.
func (l *Log) PlanRound(now int64) Round {
	r := Round{First: l.Cleaned}
	if l.Cleaned < l.Start || l.Cleaned > l.End {
		r.First, r.Reset = l.Start, l.Cleaned != NoRound
	}
	if len(l.Segments) == 0 {
		r.Upper = r.First
		return r
	}
	active := len(l.Segments) - 1
	first := l.findSegment(r.First)
	upper := l.Segments[active].Base
	lower := func(to record.Offset, by Bound) {
		if to < upper {
			upper, r.Bound = to, by
		}
	}
	lower(l.HighWatermark, ByWatermark)
	lower(l.LastStable, ByStable)
	for i := first; i < active && l.Config.MinLag > 0; i++ {
		if s := &l.Segments[i]; s.LastTime > now-l.Config.MinLag {
			lower(s.Base, ByLag)
			break
		}
	}
	end := l.findSegment(max(r.First, upper))
	r.Upper = l.Segments[end].Base
	for i, s := range l.Segments[:end] {
		if i < first {
			r.Clean += s.Bytes
		} else {
			r.Dirty += s.Bytes
		}
	}
	for _, s := range l.Segments[end:active] {
		r.Held += s.Bytes
	}
	r.Active = l.Segments[active].Bytes
	r.Overdue = l.findOverdue(first, now)
	switch {
	case r.Dirty > 0 && r.Overdue > 0:
		r.Due = DueByAge
	case r.Dirty > 0 && r.Ratio() > l.Config.DirtyRatio:
		r.Due = DueByRatio
	}
	return r
}

// findSegment is the index of the segment that has an offset, or of the first one if the offset is below it.
func (l *Log) findSegment(at record.Offset) int {
	i := len(l.Segments) - 1
	for i > 0 && l.Segments[i].Base > at {
		i--
	}
	return i
}

// findOverdue is how long ago the oldest dirty segment reached max.compaction.lag.ms.
func (l *Log) findOverdue(first int, now int64) int64 {
	until := now - max(0, l.Config.MaxLag)
	overdue := int64(0)
	for _, s := range l.Segments[first:max(first, len(l.Segments)-1)] {
		if s.FirstTime > 0 && s.FirstTime < until {
			overdue = max(overdue, until-s.FirstTime)
		}
	}
	return overdue
}

// CompareRounds orders rounds that are due: that of the dirtiest log comes first.
func CompareRounds(a, b Round) int { return cmp.Compare(b.Ratio(), a.Ratio()) }

// GroupSegments groups the segments that a round rewrites: all that begin below end, the Map's
// End. Each group becomes one segment with the base of its first. A group of several has no more bytes
// than a segment and its indexes may have, and no more offsets than an index can have (2^31). The
// segments of a group follow one another; they are parts of l.Segments.
func (l *Log) GroupSegments(end record.Offset) [][]Segment {
	n := 0
	for n+1 < len(l.Segments) && l.Segments[n].Base < end { // the last one is active, and never rewritten
		n++
	}
	var groups [][]Segment
	for from := 0; from < n; {
		sum, to := l.Segments[from], from+1
		for ; to < n; to++ {
			s, last := &l.Segments[to], l.Segments[to+1].Base-1
			if sum.Bytes+s.Bytes > l.Config.SegmentBytes || sum.Index+s.Index > l.Config.IndexBytes ||
				sum.TimeIndex+s.TimeIndex > l.Config.IndexBytes || s.Bytes > 0 && last-sum.Base > math.MaxInt32 {
				break
			}
			sum.Bytes, sum.Index, sum.TimeIndex = sum.Bytes+s.Bytes, sum.Index+s.Index, sum.TimeIndex+s.TimeIndex
		}
		groups = append(groups, l.Segments[from:to:to])
		from = to
	}
	return groups
}
