package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/journal"
	"github.com/leatstream/leat/internal/storage/segment"
)

// SetStart moves the start forward, as DeleteRecords asks. The start is durable when SetStart
// returns.
func (l *Log) SetStart(o record.Offset) error {
	if err := l.moveStart(o); err != nil {
		return err
	}
	return l.keepStart(o)
}

// keepStart makes durable a start that the log has in memory, unless a start at least as high is
// durable already.
func (l *Log) keepStart(o record.Offset) error { return keepStarts(l.s, StartMove{Log: l, To: o}) }

// DurableStart is a start that is durable. The log's start may be higher: where retention has moved it, a
// power cut takes it back.
func DurableStart(l *Log) (record.Offset, error) {
	err := l.makeUsable()
	return record.Offset(l.sureStart.Load()), err
}

// StartMove is the start of a log, to which SetStarts moves it.
type StartMove struct {
	Log *Log
	To  record.Offset
}

// SetStarts moves the starts of logs forward, as SetStart does, with one write for all of them. A
// follower does so as its leader's starts move: it waits for the commits that are under way first
// if a start is above what is committed. If a start cannot be moved the others are, and the error
// says why.
func SetStarts(s *Store, moves ...StartMove) error {
	var failed error
	moved := make([]StartMove, 0, len(moves))
	waited := false
	for _, m := range moves {
		if !waited && int64(m.To) > m.Log.commitTo.Load() {
			waited = true
			if err := s.commit.awaitEntered(); err != nil {
				return err
			}
		}
		if err := m.Log.moveStart(m.To); err != nil {
			failed = err
			continue
		}
		moved = append(moved, m)
	}
	return cmp.Or(failed, keepStarts(s, moved...))
}

// keepStarts makes durable the starts that logs have in memory, unless starts at least as high are
// durable already.
func keepStarts(s *Store, moves ...StartMove) (failed error) {
	notes := make([]*note, len(moves)) // nil: the start is durable already, or its log was deleted
	last := int64(0)
	for i, m := range moves {
		if m.To <= record.Offset(m.Log.sureStart.Load()) {
			continue
		}
		n, round, err := noteStart(m.Log, m.To)
		if err != nil {
			failed = err
			continue
		}
		notes[i], last = n, max(last, round)
	}
	saved := false // the points files have the starts that the journal does not have
	for i, n := range notes {
		if n == nil {
			continue
		}
		err := s.commit.awaitNote(n, last)
		if errors.Is(err, errNoteRefused) || errors.Is(err, errNoteUnknown) {
			err = nil
			if !saved {
				err = s.keeper.savePoints()
				saved = err == nil
			}
		}
		if err != nil {
			failed = err
			continue
		}
		for sure := &moves[i].Log.sureStart; ; {
			was := sure.Load()
			if was >= int64(moves[i].To) || sure.CompareAndSwap(was, int64(moves[i].To)) {
				break
			}
		}
	}
	return failed
}

// noteStart puts a note of the log's start into the coming round, before that of a deletion.
func noteStart(l *Log, o record.Offset) (n *note, round int64, err error) {
	l.pub.Lock()
	defer l.pub.Unlock()
	if logState(l.state.Load()) == logDeleted { // the next log of the same identity must not get the start
		return nil, 0, ErrClosed
	}
	l.s.points.RaiseStart(l.id, o)
	n, round = l.s.commit.addNote(journal.Part{Kind: journal.Start, ID: l.id, Dir: l.name, Offset: o})
	return n, round, nil
}

// moveStart moves the start in memory, unless it is as high already. The segments below the start
// are removed when checkpoints have the start.
func (l *Log) moveStart(o record.Offset) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.makeUsableLocked(); err != nil {
		return err
	}
	if end := record.Offset(l.commitTo.Load()); o < 0 || o > end {
		return fmt.Errorf("%w: the start cannot be %d where %d is the end", ErrOffsetOutOfRange, o, end)
	}
	if o <= record.Offset(l.start.Load()) {
		return nil
	}
	if err := l.Fault(); err != nil {
		return err
	}
	if err := emptyActive(l, o); err != nil {
		return nameError(err)
	}
	if err := l.prepareProducersFor(o); err != nil {
		return err
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	l.start.Store(int64(o))
	l.oldest = segment.TimeUnknown // the first record is another one
	l.s.keeper.dropSegments(l, l.cutSegmentsLocked(o))
	l.listLocked()
	return nil
}

// trimBelowStart drops segments below the start that an earlier run did not delete. It does so only
// when the producers in them are known.
func (l *Log) trimBelowStart() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if logState(l.state.Load()) == logDeleted { // its segments are removed with its directory
		return nil
	}
	start := record.Offset(l.start.Load())
	if segs := l.segments(); len(segs) < 2 || segs[1].Base() > start || l.isFaulted() {
		return nil
	}
	if err := l.prepareProducersFor(start); err != nil {
		return err
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	l.s.keeper.dropSegments(l, l.cutSegmentsLocked(start))
	return nil
}

// cutSegmentsLocked takes the segments below a start out of the log and returns them. Those that a swap is
// replacing stay, and those behind them: trimBelowStart takes them when the swap is settled. The caller
// holds pub.
func (l *Log) cutSegmentsLocked(start record.Offset) []*segment.Segment {
	n := 0
	for n+1 < len(l.segs) && l.segs[n+1].Base() <= start && !l.compacted.isSwapping(l.segs[n]) {
		n++
	}
	if n == 0 {
		return nil
	}
	cut := l.segs[:n]
	l.segs = append([]*segment.Segment(nil), l.segs[n:]...)
	if first := l.segs[0]; l.stable.Segment != nil && l.stable.Segment.Base() < first.Base() {
		l.stable = Position{first, 0, first.Base()}
	}
	return cut
}

// prepareProducersFor makes sure that the producers with batches below a start are known and will
// be written down, before the segments with those batches are removed. The caller holds mu.
func (l *Log) prepareProducersFor(start record.Offset) error {
	l.pub.Lock()
	n := 0
	for n+1 < len(l.segs) && l.segs[n+1].Base() <= start {
		n++
	}
	needed := n > 0 && l.snapshots.truthTo < l.segs[n].Base()
	l.pub.Unlock()
	if !needed {
		return nil
	}
	if err := l.prepareWriterLocked(); err != nil {
		return err
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	l.due.snapshot = true
	return nil
}

// emptyActive closes the active segment if all of its records lie below the new start, so that its
// space can be freed, too. The caller holds mu.
func emptyActive(l *Log, o record.Offset) error {
	g := l.end.Segment
	if g == nil {
		return nil
	}
	if size, next := g.End(); size == 0 || next > o {
		return nil
	}
	if err := confirmCutLocked(l); err != nil {
		return err
	}
	if err := l.prepareWriterLocked(); err != nil {
		return err
	}
	if err := l.writer.rollSegment(l.end.Next); err != nil && classify(err) != full {
		return err
	}
	return nil
}

// retain applies retention to all logs.
func (s *Store) retain(now time.Time) {
	for _, l := range s.allLogs() {
		if s.closing.Load() {
			return
		}
		s.retainOne(l, now)
	}
}

func (s *Store) retainOne(l *Log, now time.Time) {
	if err := (&retention{l, now}).apply(); err != nil && classify(err) != gone {
		s.log.Warn("retention could not be applied to a log", "log", l.name, "err", err)
	}
}

// retention finds out which part of a log goes by time and by size.
type retention struct {
	l   *Log
	now time.Time
}

// apply moves the log's start as the topic's settings say. No lock may be held.
func (r *retention) apply() error {
	l, now := r.l, r.now
	o := l.options()
	if !o.Delete || l.isFaulted() {
		return nil
	}
	if !l.isOpen() && !r.mayApply() {
		return nil
	}
	if err := l.makeUsable(); err != nil {
		return err
	}
	if end, err := l.End(); err != nil || record.Offset(l.start.Load()) == end {
		return err
	}
	if r.limit() < record.Offset(l.commitTo.Load()) {
		// Its owner may not have looked at the log since the start, so that its high watermark is the
		// one of the last checkpoint. No client may ever come to a log whose records only expire.
		l.committed(l)
	}
	start, byAge := record.Offset(-1), nothingGoes
	if o.RetentionBytes >= 0 {
		at, err := r.startBySize(o.RetentionBytes)
		if err != nil {
			return err
		}
		start = at
	}
	if o.RetentionAge >= 0 {
		at, err := r.startByAge(now.Add(-o.RetentionAge).UnixMilli())
		if err != nil {
			return err
		}
		start, byAge = max(start, at.Offset), at
	}
	start = min(start, r.limit())
	if start > record.Offset(l.start.Load()) {
		if err := l.moveStart(start); err != nil {
			return err
		}
		l.committed(l)
	}
	l.noteOldest(byAge)
	return nil
}

// noteOldest notes the time of a record if that is the log's first one: retention by time removes
// nothing before that record is too old.
func (l *Log) noteOldest(at Stamp) {
	l.pub.Lock()
	defer l.pub.Unlock()
	if at.Time != segment.TimeUnknown && record.Offset(l.start.Load()) == at.Offset {
		l.oldest = at.Time
	}
}

// limit is the offset beyond which retention removes nothing: the committed end, or the high
// watermark if a leader has set one, or must do so.
func (r *retention) limit() record.Offset {
	l := r.l
	limit := record.Offset(l.commitTo.Load())
	if hw := record.Offset(l.highWatermark.Load()); hw > 0 || l.options().Replicated {
		limit = min(limit, hw)
	}
	return limit
}

// mayApply tells without opening the log whether retention may move its start. With a limit for the
// size it may, since the size is not known before the log is opened.
func (r *retention) mayApply() bool {
	l := r.l
	p := l.s.points.Get(l.id)
	if !p.Vouched {
		_, err := l.s.fs.Stat(l.s.pathOf(l.name))
		return err == nil
	}
	age := l.options().RetentionAge
	return l.options().RetentionBytes >= 0 || age >= 0 && (p.Oldest == segment.TimeUnknown || p.Oldest < r.now.Add(-age).UnixMilli())
}

// nothingGoes is the answer of startByAge if nothing goes.
var nothingGoes = Stamp{Offset: -1, Time: segment.TimeUnknown}

// startByAge is the first offset that retention by time keeps: that of the first record that is not
// older than ms. If there is none, it is the committed end, and the time is unknown. A record that is old enough stays as long as a younger
// record lies before it. A log without any record that has a time keeps them all.
func (r *retention) startByAge(ms int64) (Stamp, error) {
	l := r.l
	l.pub.Lock()
	oldest := l.oldest
	l.pub.Unlock()
	if oldest != segment.TimeUnknown && oldest >= ms {
		return nothingGoes, nil
	}
	ctx := context.Background() //nolint:forbidigo // the store's own look-up draws on no budget, so that nothing waits
	at, ok, err := findTime(l, segment.Work{Ctx: ctx}, max(ms, 0))
	if err != nil {
		return nothingGoes, err
	}
	if ok {
		return at, nil
	}
	for _, g := range l.segmentsFromStart() {
		if latest, err := maxTimeOf(l, g); err != nil || latest >= 0 {
			return Stamp{Offset: record.Offset(l.commitTo.Load()), Time: segment.TimeUnknown}, err
		}
	}
	return nothingGoes, nil
}

// startBySize is the first offset that retention by size keeps: that of the last batch from which
// the log still has as many bytes as it may have. It is -1 if nothing goes.
func (r *retention) startBySize(limit int64) (record.Offset, error) {
	l := r.l
	segs := l.segments()
	over := -limit
	for _, g := range segs {
		over += g.Size()
	}
	if over <= 0 {
		return -1, nil
	}
	for _, g := range segs {
		size, next := g.End()
		if over < size {
			o, err := g.LastBaseAt(over)
			if errors.Is(err, segment.ErrReplaced) {
				return r.startBySize(limit)
			}
			if err != nil {
				return -1, l.explainError(g, err)
			}
			return o, nil
		}
		if over -= size; over == 0 {
			return next, nil
		}
	}
	return -1, nil
}

// isExceeded tells whether retention by size can remove whole segments.
func (r *retention) isExceeded() bool {
	l := r.l
	o := l.options()
	if !o.Delete || o.RetentionBytes < 0 {
		return false
	}
	segs := l.segments()
	if len(segs) < 2 {
		return false
	}
	n := int64(0)
	for _, g := range segs[1:] {
		n += g.Size()
	}
	return n >= o.RetentionBytes
}
