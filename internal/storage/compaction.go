package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/compact"
	"github.com/leatstream/leat/internal/storage/journal"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/storage/transaction"
)

var (
	// errChanged ends a round of compaction: the log's segments are not those with which it began.
	errChanged = errors.New("the log was cut while it was compacted")
	// errUnsettled ends a round before it begins: checkpoints do not vouch yet for what it would replace.
	errUnsettled = errors.New("checkpoints do not say yet that the segments are on disk")
)

// compaction is a round of compaction of one log. Its steps are those of package compact; before the first segment is
// replaced, settlePoint prepares what a recovery reads.
type compaction struct {
	l     *Log
	c     *cleaner
	now   int64 // ms
	log   compact.Log
	segs  []*segment.Segment // those of log.Segments, in the same order
	plan  compact.Round
	below []*segment.Segment // those that the log has below plan.Upper by now, if nobody has cut it
	keys  *compact.Map
	pace  *rest
	after int64           // bytes of the segments that were read, as they are now
	input []byte          // memory for reading
	ctx   context.Context //nolint:containedctx // of one call of compactLog, which is the round
}

// compactLog compacts a log if that is due. It tells whether the log needs another round, since there was no memory for all its keys.
func (c *cleaner) compactLog(ctx context.Context, l *Log, now time.Time) (isUnfinished bool, err error) {
	if settlePending(l); l.compacted.pendingSwap() != nil {
		return false, errUnsettled
	}
	r := &compaction{l: l, c: c, now: now.UnixMilli(), ctx: ctx, pace: newRest(c)}
	if err := r.planRound(); err != nil || r.plan.Due == compact.NotDue {
		return false, err
	}
	if err := r.pace.hasRoom(); err != nil {
		return false, err
	}
	if r.keys, err = compact.NewMap(max(c.config().MapBytes, compact.MinMapBytes)); err != nil {
		return false, err
	}
	began := time.Now()
	defer r.end()
	if err := r.settlePoint(); err != nil {
		return false, err
	}
	if err := r.readDirty(); err != nil {
		return false, r.explainFailure(err)
	}
	stats, err := r.rewriteAll()
	if err != nil {
		return false, r.explainFailure(err)
	}
	c.noteRound(r, &stats, time.Since(began))
	return r.keys.End() < r.plan.Upper, nil
}

// explainFailure is errChanged if a truncation, retention or a deletion took a segment that the round was reading, or is
// about to, whatever came of that; else it is the error itself.
func (r *compaction) explainFailure(err error) error {
	r.l.compacted.swapping.Lock() // a truncation that has cut a file may have its segment in the log still
	defer r.l.compacted.swapping.Unlock()
	if !r.isIntact() {
		return errChanged
	}
	return err
}

// planRound looks at the log and plans its next round.
func (r *compaction) planRound() (err error) {
	if r.log, r.segs, err = describeForRound(r.l); err != nil {
		return err
	}
	r.plan = r.log.PlanRound(r.now)
	n := 0
	for n < len(r.segs) && r.segs[n].Base() < r.plan.Upper {
		n++
	}
	r.below = slices.Clone(r.segs[:n])
	return nil
}

// describeForRound is what a plan needs to know of a log. The active segment is one whose end no checkpoint
// vouches for, as far as the plan is concerned: nothing from there on is compacted.
func describeForRound(l *Log) (compact.Log, []*segment.Segment, error) {
	var v compact.Log
	if err := l.makeUsable(); err != nil {
		return v, nil, err
	}
	l.pub.Lock() // before the limits are read, which may be lower, but never higher, than those of these segments: a cut makes others
	segs, end, onDisk := l.segs, l.end.Next, l.stable.Segment
	start := record.Offset(l.start.Load())
	l.pub.Unlock()
	if r := (&retention{l: l}); r.limit() < record.Offset(l.commitTo.Load()) {
		l.committed(l) // its owner may not have looked at it since the start
	}
	limit := (&retention{l: l}).limit()
	stable, err := StableEnd(l, limit)
	if err != nil {
		return v, nil, err
	}
	upTo, err := l.compacted.compactedTo()
	if err != nil {
		return v, nil, err
	}
	o := l.options()
	for len(segs) > 1 && segs[1].Base() <= start {
		segs = segs[1:]
	}
	if len(segs) == 0 || onDisk == nil {
		return v, nil, nil
	}
	v = compact.Log{Start: start, End: end, LastStable: stable, HighWatermark: min(limit, onDisk.Base()), Cleaned: upTo}
	v.Config = compact.Config{
		MinLag: o.Compaction.MinLag.Milliseconds(), MaxLag: o.Compaction.MaxLag.Milliseconds(),
		DirtyRatio: o.Compaction.DirtyRatio, SegmentBytes: o.SegmentBytes, IndexBytes: int64(o.IndexBytes),
	}
	v.Segments = make([]compact.Segment, len(segs))
	for i, g := range segs {
		var next *segment.Segment // nil: g is the active one
		if i+1 < len(segs) {
			next = segs[i+1]
		}
		if v.Segments[i], err = describeSegment(l, g, next); err != nil && !hasWholeSegment(l, g) {
			err = errChanged
		}
		if err != nil {
			return v, nil, err
		}
	}
	return v, segs, nil
}

// describeSegment is what a plan needs to know of a segment; next is the one behind it, and nil for the active one. Times
// are looked up only if the settings ask for them: where no record has one, the last is the time when the segment was closed,
// or when this process found it. An index has at most one entry for so many bytes.
func describeSegment(l *Log, g, next *segment.Segment) (s compact.Segment, err error) {
	o := l.options()
	entries := g.Size()/int64(o.IndexInterval) + 1
	s = compact.Segment{Base: g.Base(), Bytes: g.Size(), Index: 8 * entries, TimeIndex: 12 * (entries + 1)}
	if next == nil {
		return s, nil
	}
	if o.Compaction.MinLag > 0 {
		if s.LastTime, err = maxTimeOf(l, g); err != nil {
			return s, err
		}
		if s.LastTime < 0 {
			s.LastTime = segment.CreatedAt(next)
		}
	}
	if o.Compaction.MaxLag < foreverLag {
		if s.FirstTime, err = segment.FirstTime(g); err != nil {
			return s, l.explainError(g, err)
		}
	}
	return s, nil
}

// foreverLag is a lag that no record reaches.
const foreverLag = math.MaxInt64 / 4

// settlePoint prepares a recovery for the round. Both checkpoint files must say that the log has gaps, must not know
// the sizes of its segments, must name a snapshot with all producers that have batches in them, and must begin behind
// all rounds of the journal that have bytes of them. Then the journal notes the round, for a recovery without checkpoint
// files, which may begin further back.
func (r *compaction) settlePoint() error {
	l, s := r.l, r.l.s
	k := &s.keeper
	l.pub.Lock()
	isReady := l.dirState == dirNamed && l.stable.Segment != nil && l.stable.Segment.Base() >= r.plan.Upper
	at := l.stable
	if isReady {
		l.compacted.inRound, l.hasGaps = true, true
	}
	l.pub.Unlock()
	if !isReady || s.journal.Lost() != nil {
		return errUnsettled
	}
	if err := r.wantSnapshot(); err != nil {
		return err
	}
	k.txns.wanted.Store(true) // earlier versions do not know how to finish a swap
	l.notePoint(at)
	if err := s.commit.awaitEntered(); err != nil {
		return err
	}
	round := s.journal.Next()
	for after, tries := -1, 0; ; tries++ {
		if after < 0 && r.isPointReady() {
			k.run.Lock()
			after = k.saves + 2
			k.run.Unlock()
		}
		if after >= 0 && isBehind(k, round, after) {
			return r.noteRound()
		}
		if tries == mostCheckpoints {
			return errUnsettled
		}
		k.checkpointNow()
	}
}

// isPointReady tells whether the log's point vouches for all segments of the round, and for a snapshot of the producers
// that have batches in them.
func (r *compaction) isPointReady() bool {
	p := r.l.s.points.Get(r.l.id)
	return p.Vouched && p.Gaps && p.Base >= r.plan.Upper && p.ProducersAt >= r.plan.Upper && p.Snapshot <= p.Next
}

// mostCheckpoints is how many checkpoints a round waits for: one may have to write a snapshot first, and two save that, unless
// one of them has begun before.
const mostCheckpoints = 4

// wantSnapshot has the next checkpoint write a snapshot of the log's producers, unless there is one for all segments
// of the round: the batches that stay of them tell only the last sequence of each producer.
func (r *compaction) wantSnapshot() error {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pub.Lock()
	has := l.snapshots.truthTo >= r.plan.Upper
	l.pub.Unlock()
	if has {
		return nil
	}
	if err := l.makeUsableLocked(); err != nil {
		return err
	}
	if err := l.prepareWriterLocked(); err != nil {
		return err
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	l.due.snapshot = true
	l.listLocked()
	return nil
}

// isBehind tells whether a recovery, whichever checkpoint file it begins with, reads no round of the journal before one,
// and whether so many checkpoints were saved.
func isBehind(k *keeper, round uint64, saves int) bool {
	k.run.Lock()
	defer k.run.Unlock()
	return min(k.previous.Round, k.older.Round) >= round && k.saves >= saves && k.txns.isSaved.Load()
}

// noteRound puts into the journal that the segments below the round's end are on disk and may be replaced.
func (r *compaction) noteRound() error {
	l := r.l
	l.compacted.swapping.Lock() // no truncation makes one of them the active one meanwhile
	defer l.compacted.swapping.Unlock()
	if !r.isIntact() {
		return errChanged
	}
	err := l.s.commit.putNote(journal.Part{Kind: journal.Compacted, ID: l.id, Dir: l.name, Base: r.plan.Upper})
	if errors.Is(err, errNoteRefused) || errors.Is(err, errNoteUnknown) {
		return fmt.Errorf("%w: %w", errUnsettled, err)
	}
	return err
}

// isIntact tells whether the log still has all segments below the round's end with which it began, or those that have
// replaced them, and none of them is being cut.
func (r *compaction) isIntact() bool {
	l := r.l
	l.pub.Lock()
	defer l.pub.Unlock()
	return len(r.below) > 0 && logState(l.state.Load()) == logOpen && l.compacted.hasNeighboursLocked(r.below) &&
		!slices.ContainsFunc(r.below, func(g *segment.Segment) bool { return isCuttingLocked(l, g) })
}

// wasCut tells whether the log was cut below the round's end since the round began. Then it may lack records for which the
// round would drop earlier ones of their keys, and have others in their place. The log's swapping is held, so that it is not
// cut meanwhile. A segment that was cut is another one, and those behind it are no part of the log any more.
func (r *compaction) wasCut() bool { return !r.l.hasSegment(r.below[len(r.below)-1]) }

// end ends the round: checkpoints count the log's bytes again.
func (r *compaction) end() {
	l := r.l
	l.pub.Lock()
	defer l.pub.Unlock()
	if l.compacted.inRound {
		l.compacted.inRound = false
		l.listLocked()
	}
}

// readDirty fills the map with the keys of the dirty part.
func (r *compaction) readDirty() error {
	x := compact.NewIndexer(r.keys, r.plan.First, nil)
	for i, g := range r.segs {
		next := r.nextBase(i)
		if next <= r.plan.First || g.Base() >= r.plan.Upper {
			continue
		}
		aborted, err := r.listAborted(g.Base(), next)
		if err != nil {
			return err
		}
		x.AddAborted(aborted)
		isFull := false
		err = r.eachBatch(g, func(b record.Batch) (err error) {
			if b.NextOffset() <= r.plan.First {
				return nil
			}
			if isFull, err = x.AddBatch(r.ctx, r.l.s.cfg.Work, b); isFull {
				return io.EOF
			}
			return err
		})
		if err != nil || isFull {
			return err
		}
	}
	x.Finish(r.plan.Upper)
	return nil
}

// nextBase is the offset at which the i-th segment ends.
func (r *compaction) nextBase(i int) record.Offset {
	if i+1 < len(r.segs) {
		return r.segs[i+1].Base()
	}
	return r.log.End
}

// listAborted lists the aborted transactions with records in a part of the log.
func (r *compaction) listAborted(from, upper record.Offset) ([]compact.Aborted, error) {
	list, err := AbortedTransactions(r.l, from, upper)
	if err != nil {
		return nil, err
	}
	aborted := make([]compact.Aborted, len(list))
	for i, a := range list {
		aborted[i] = compact.Aborted{Producer: a.Producer, First: a.First, Last: a.Last, LastStable: a.Stable}
	}
	return aborted, nil
}

// eachBatch calls fn with each batch of a segment, as a whole, until fn returns an error; io.EOF ends it without one.
func (r *compaction) eachBatch(g *segment.Segment, fn func(b record.Batch) error) error {
	in, err := segment.OpenBatches(g, r.input)
	if err != nil {
		return err
	}
	defer func() { r.input = in.Close() }()
	for {
		b, err := in.Next(r.ctx, r.l.s.cfg.Work)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			r.c.bytesRead.Add(int64(len(b)))
			err = r.pace.spend(r.ctx, int64(len(b)))
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", segment.FileName(g.Base(), segment.LogSuffix), err)
		}
		if err = fn(b); errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the batch at offset %d in %s: %w", b.BaseOffset(), segment.FileName(g.Base(), segment.LogSuffix), err)
		}
	}
}

// rewriteAll replaces all segments below the end of the map, group by group.
func (r *compaction) rewriteAll() (stats compact.Stats, err error) {
	producers, err := r.l.Producers(math.MaxInt)
	if err != nil {
		return stats, err
	}
	known := map[int64]compact.LastOfProducer{}
	for _, p := range producers {
		last := p.LastOffset
		if i := slices.IndexFunc(p.LastOffsets[:], func(o record.Offset) bool { return o < r.plan.Upper }); i >= 0 {
			last = p.LastOffsets[i]
		}
		if p.LastOffset >= 0 && (last < 0 || last >= r.plan.Upper) {
			continue // all that is known of it is above the round
		}
		known[p.ID] = compact.LastOfProducer{Data: last, Epoch: p.Epoch}
	}
	f := compact.NewFilter(compact.Rules{
		Map: r.keys, First: r.plan.First, Upper: r.plan.Upper, Now: r.now, Retention: r.l.options().Compaction.DeleteRetention.Milliseconds(), Producers: known,
	})
	at := 0
	for _, group := range r.log.GroupSegments(r.keys.End()) {
		if !r.l.options().Compact {
			return f.Stats(), errChanged
		}
		if err := r.rewriteGroup(f, r.segs[at:at+len(group)], r.nextBase(at+len(group)-1)); err != nil {
			return f.Stats(), err
		}
		at += len(group)
	}
	r.l.compacted.swapping.Lock()
	defer r.l.compacted.swapping.Unlock()
	if r.wasCut() { // what came in the place of the records that are gone was not read
		return f.Stats(), errChanged
	}
	return f.Stats(), r.l.compacted.noteCompacted(r.keys.End())
}

// rewriteGroup replaces segments, which end at an offset, by one that has what the filter keeps of them. One that would
// be the same stays.
func (r *compaction) rewriteGroup(f *compact.Filter, olds []*segment.Segment, end record.Offset) error {
	l := r.l
	w, err := segment.BeginSwap(l.s.files, l.dir, olds[0].Base(), end, indexInterval(l.options(), sumSizes(olds)))
	if err != nil {
		return err
	}
	f.KeepEnd(end)
	changed := len(olds) > 1
	for _, g := range olds {
		found, err := r.rewriteSegment(f, w, g)
		if err != nil {
			return errors.Join(err, w.Abandon())
		}
		changed = changed || found
	}
	hasAborts := l.txns.anyBelow(end)
	stable := end
	if hasAborts {
		stable = min(end, r.log.LastStable)
		last := olds[len(olds)-1]
		if _, s, err := segment.FindAborts(last, end, end, end); err == nil {
			stable = s.Stable
		} else if !errors.Is(err, segment.ErrNoAborts) {
			return errors.Join(l.explainError(last, err), w.Abandon())
		} else {
			hasAborts = false // who needs the file makes it anew
		}
	}
	var left []transaction.Abort
	for _, a := range f.TakeAborted() {
		left = append(left, transaction.Abort{Producer: a.Producer, First: a.First, Last: a.Last, Stable: a.LastStable})
	}
	r.after += w.Size()
	if !changed && len(left) == r.countAborts(olds[0], end) {
		return w.Abandon()
	}
	if err := w.Finish(left, stable, hasAborts); err != nil {
		return errors.Join(err, w.Abandon())
	}
	l.compacted.swapping.Lock()
	defer l.compacted.swapping.Unlock()
	if r.wasCut() {
		return errors.Join(errChanged, w.Abandon())
	}
	if err = l.compacted.decideSwap(w, olds, r.now); err != nil && l.compacted.pendingSwap() == nil && classify(err) != gone {
		return errors.Join(err, w.Abandon())
	}
	if err == nil {
		r.noteReplaced(olds)
	}
	return err
}

// indexInterval is the number of bytes between two entries of the index of a segment that replaces others, which have so many
// bytes. The index is in memory until it is written, so that it has a bound, even if index.interval.bytes was more when the
// others were written.
func indexInterval(o *Options, size int64) int {
	const entryBytes, leastBound = 12, 10 << 20
	return max(o.IndexInterval, int(entryBytes*size/int64(max(o.IndexBytes, leastBound))))
}

func sumSizes(segs []*segment.Segment) (n int64) {
	for _, g := range segs {
		n += g.Size()
	}
	return n
}

// noteReplaced notes that the log has another segment now in the place of some.
func (r *compaction) noteReplaced(olds []*segment.Segment) {
	l := r.l
	l.pub.Lock()
	defer l.pub.Unlock()
	i := slices.IndexFunc(l.segs, func(g *segment.Segment) bool { return g.Base() == olds[0].Base() })
	at := slices.Index(r.below, olds[0])
	if i < 0 || at < 0 {
		return // it was cut already
	}
	r.below = slices.Replace(r.below, at, at+len(olds), l.segs[i])
}

// countAborts counts the aborted transactions with markers in a segment.
func (r *compaction) countAborts(g *segment.Segment, end record.Offset) int {
	if !r.l.txns.anyBelow(end) {
		return 0
	}
	list, _, err := segment.FindAborts(g, 0, math.MaxInt64, end)
	if err != nil {
		return -1
	}
	return len(list)
}

// rewriteSegment writes what the filter keeps of a segment. It tells whether anything of it goes.
func (r *compaction) rewriteSegment(f *compact.Filter, w *segment.Swap, g *segment.Segment) (changed bool, err error) {
	_, next := g.End()
	aborted, err := r.listAborted(g.Base(), next)
	if err != nil {
		return false, err
	}
	f.AddAborted(aborted)
	s := r.l.s
	err = r.eachBatch(g, func(b record.Batch) error {
		v, err := f.Judge(r.ctx, s.cfg.Work, b)
		if err != nil {
			return err
		}
		before := w.Size()
		err = w.Append(func(dst []byte) ([]byte, error) { return f.AppendTo(r.ctx, s.cfg.Work, dst, b, &v) })
		changed = changed || v.Action != compact.Copy
		n := w.Size() - before
		r.c.bytesWritten.Add(n)
		if err == nil {
			err = r.pace.take(n)
		}
		return err
	})
	return changed, err
}
