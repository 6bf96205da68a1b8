package storage

import (
	"errors"
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/storage/compact"
)

// CleanerStats are the counts of a store's compaction.
type CleanerStats struct {
	Rounds                  int64
	BytesRead, BytesWritten int64
	BytesSaved              int64         // by which logs became smaller
	Backlog                 int64         // dirty bytes of the logs that were due at the last look
	MaxDirtyRatio           float64       // of all logs at the last look
	MaxDelay                time.Duration // by which the oldest dirty record was beyond max.compaction.lag.ms at the last look
	Uncleanable             int           // logs that are not compacted any more, since a round of them has failed
	UncleanableBytes        int64         // of those
	NoRoom                  int           // logs for whose last round the disk had no room
	LastLook, LastRound     time.Time     // zero: none since the start
}

// CompactionStats are the present counts.
func CompactionStats(s *Store) CleanerStats {
	c := &s.cleaner
	st := CleanerStats{
		Rounds: c.rounds.Load(), BytesRead: c.bytesRead.Load(), BytesWritten: c.bytesWritten.Load(), BytesSaved: c.bytesSaved.Load(),
		Backlog: c.backlog.Load(), MaxDirtyRatio: float64(c.dirtiest.Load()) / ratioUnit,
		MaxDelay: time.Duration(c.overdue.Load()) * time.Millisecond,
		LastLook: timeOf(c.lookedAt.Load()), LastRound: timeOf(c.roundAt.Load()),
	}
	for _, l := range s.allLogs() {
		if UncleanableError(l) != nil {
			st.Uncleanable++
			st.UncleanableBytes += l.SizeOnDisk()
		}
		if lacksRoom(l) {
			st.NoRoom++
		}
	}
	return st
}

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// UncleanableError is why a log is not compacted any more, until the next start; nil: it is, or its settings do not
// ask for that.
func UncleanableError(l *Log) error {
	l.pub.Lock()
	defer l.pub.Unlock()
	if !l.options().Compact {
		return nil
	}
	return l.compacted.failed
}

// lacksRoom tells whether the last round of a log ended since the disk had no room.
func lacksRoom(l *Log) bool {
	l.pub.Lock()
	defer l.pub.Unlock()
	return l.options().Compact && isNoRoom(l.compacted.tried)
}

// CompactionState is how far a compacted log is compacted, as of the last look, and why not further.
type CompactionState struct {
	Log        string // the topic and the partition, as its directory is named
	Looked     time.Time
	Clean      int64 // bytes of the segments that were compacted already
	Dirty      int64 // bytes of those that a round would compact
	Held       int64 // bytes of those that no round may compact yet
	Active     int64 // bytes of the segment that is written to
	DirtyRatio float64
	Last       RoundReport
	Reason     string // why it is not compacted right now, a sentence
}

// DescribeCompaction lists the compacted logs of a store.
func DescribeCompaction(s *Store) (list []CompactionState) {
	for _, l := range s.allLogs() {
		if o := l.options(); o.Compact {
			list = append(list, describeCompaction(l, o))
		}
	}
	return list
}

func describeCompaction(l *Log, o *Options) CompactionState {
	isFaulted := l.isFaulted()
	l.pub.Lock()
	defer l.pub.Unlock()
	c := &l.compacted
	return CompactionState{
		Log: l.name, Looked: c.looked, Last: c.last,
		Clean: c.plan.Clean, Dirty: c.plan.Dirty, Held: c.plan.Held, Active: c.plan.Active, DirtyRatio: c.plan.Ratio(),
		Reason: c.explainLocked(isFaulted, o),
	}
}

// explainLocked says why a log is not being compacted. pub is held.
func (c *compacted) explainLocked(isFaulted bool, o *Options) string {
	p := &c.plan
	switch {
	case c.l.s.cleaner.config().Off:
		return "log.cleaner.enable is false"
	case c.failed != nil:
		return fmt.Sprintf("it is not compacted any more until the next start: %v", c.failed)
	case isFaulted:
		return "it is read-only"
	case c.inRound:
		return "it is being compacted"
	case c.looked.IsZero():
		return "nobody has looked at it since the start"
	case isNoRoom(c.tried):
		return "the disk had too little room for the last round"
	case p.Due != compact.NotDue && c.tried != nil:
		return fmt.Sprintf("the last round ended early, and another one follows: %v", c.tried)
	case p.Due != compact.NotDue:
		return "it waits for its turn"
	case p.Dirty > 0 && p.Held > 0:
		return fmt.Sprintf("min.cleanable.dirty.ratio is %g, and of the rest: %s", o.Compaction.DirtyRatio, explainBound(p, o))
	case p.Dirty > 0:
		return fmt.Sprintf("min.cleanable.dirty.ratio is %g", o.Compaction.DirtyRatio)
	case p.Held > 0:
		return explainBound(p, o)
	case p.Active > 0:
		return "new records are in the segment that is written to, which no round compacts: segment.bytes, segment.ms or max.compaction.lag.ms ends it"
	}
	return "it has no new records"
}

// explainBound says why sealed segments are not compacted.
func explainBound(p *compact.Round, o *Options) string {
	switch p.Bound {
	case compact.ByStable:
		return "a transaction is open: leat txn list shows it"
	case compact.ByWatermark:
		return "not all replicas have the new records yet, or no checkpoint has been made since"
	case compact.ByLag:
		return fmt.Sprintf("records are younger than min.compaction.lag.ms, which is %d", o.Compaction.MinLag.Milliseconds())
	case compact.ByActive:
	}
	return "the new segments were not looked at yet"
}

func isNoRoom(err error) bool { return errors.Is(err, errNoRoom) || classify(err) == full }

// noteLook notes the round that a log could have.
func noteLook(l *Log, p *compact.Round) {
	l.pub.Lock()
	defer l.pub.Unlock()
	l.compacted.looked, l.compacted.plan = time.Now(), *p
}

// noteRound notes what a round did, and tells of it.
func (c *cleaner) noteRound(r *compaction, stats *compact.Stats, took time.Duration) {
	l := r.l
	report := RoundReport{
		At: time.Now(), Took: took, Before: stats.BytesIn, After: r.after, Records: stats.Records, Kept: stats.Kept, Whole: stats.Whole,
		LeftForAnother: r.keys.End() < r.plan.Upper,
	}
	l.pub.Lock()
	l.compacted.last = report
	l.pub.Unlock()
	c.rounds.Add(1)
	c.bytesSaved.Add(max(0, report.Before-report.After))
	c.roundAt.Store(report.At.UnixMilli())
	c.s.log.Debug("a log was compacted", "log", l.name, "from", int64(r.plan.First), "to", int64(r.keys.End()),
		"before", report.Before, "after", report.After, "records", stats.Records, "kept", stats.Kept, "whole", stats.Whole, "took", took)
}
