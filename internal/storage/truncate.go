package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/journal"
	"github.com/leatstream/leat/internal/storage/producer"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/storage/transaction"
)

// Truncate removes all records at an offset and beyond it: the log ends with the last batch that
// lies below the offset as a whole. The committed end falls with it. The cut is durable when
// Truncate returns.
//
// The cut goes through these states, two of which are noted in the journal. So a crash at any point
// brings back no byte from beyond the cut, and loses no byte that is appended after it:
//
//	settled      no round that is being written has bytes of the log
//	announced    the journal has the cut (Truncate): a recovery makes it
//	cut          the files are cut, durably
//	confirmed    the journal has the end of the cut (Truncated): a recovery leaves the files as they are
//
// A failure between announced and cut makes the log read-only until a restart. If the journal has no room for
// the confirmation, nothing is appended before it has some (confirmCutLocked).
func (l *Log) Truncate(to record.Offset) error {
	l.compacted.swapping.Lock() // no segment is replaced meanwhile
	defer l.compacted.swapping.Unlock()
	if err := l.compacted.advanceSwap(); err != nil { // an opening that finishes it would undo the cut
		return fmt.Errorf("%w: the log cannot be truncated while a compaction of it is not settled: %w", ErrBusy, err)
	}
	l.s.keeper.run.Lock() // no checkpoint may vouch for the bytes that are removed
	defer l.s.keeper.run.Unlock()
	l.mu.Lock() // held to the end, since nothing may be appended meanwhile
	defer l.mu.Unlock()
	if err := l.makeUsableLocked(); err != nil {
		return err
	}
	if err := l.Fault(); err != nil {
		return err
	}
	return truncateLocked(l, to)
}

// truncateLocked truncates a log that is sound. The log's swapping, keeper.run and mu are held, and no swap is pending.
func truncateLocked(l *Log, to record.Offset) error {
	start, end := record.Offset(l.start.Load()), l.end.Next
	if to >= end {
		return nil
	}
	if err := beginTruncationLocked(l); err != nil {
		return err
	}
	if to < start {
		return fmt.Errorf("%w: %d lies below the log's start, %d", ErrOffsetOutOfRange, to, start)
	}
	at, err := findCut(l, to)
	if err != nil {
		return err
	}
	t := &truncation{l: l, at: at, last: at.Next}
	if start > at.Next { // it lies within the batch that is cut, or in a gap: the log ends there, as it cannot end below it
		t.at.Next, t.leavesGap = start, true
	}
	at = t.at
	if err := t.keepProducers(); err != nil {
		return err
	}
	if err := l.s.commit.awaitEntered(); err != nil {
		return err
	}
	note := journal.Part{Kind: journal.Truncate, ID: l.id, Dir: l.name, Base: at.Segment.Base(), Pos: at.Pos, Offset: t.last}
	if err := announceCutLocked(l, note); err != nil {
		return err
	}
	if err := t.cutLog(); err != nil {
		l.taint(fmt.Errorf("truncating to offset %d: %w", at.Next, err))
		return l.Fault()
	}
	return endTruncationLocked(l, note)
}

// beginTruncationLocked tells whether the log can be truncated now. mu is held.
func beginTruncationLocked(l *Log) error {
	if err := confirmCutLocked(l); err != nil { // two cuts are never open at a time
		return err
	}
	if l.s.journal.Lost() != nil {
		return fmt.Errorf("%w: the log cannot be truncated while the journal cannot be written; restart the node", ErrBusy)
	}
	return nil
}

// endTruncationLocked confirms a cut that was announced by a note, or has the next append do so. mu is held.
func endTruncationLocked(l *Log, note journal.Part) error {
	note.Kind = journal.Truncated
	l.unconfirmed = &note
	if err := confirmCutLocked(l); err != nil && !errors.Is(err, ErrBusy) {
		return err
	}
	return nil
}

// announceCutLocked puts into the journal that a log is going to be cut. mu is held.
func announceCutLocked(l *Log, note journal.Part) error {
	l.pub.Lock()
	if l.due.journal == 0 { // the note must stay in the journal until a checkpoint has the log's new end
		l.due.journal = l.s.journal.Next()
	}
	l.listLocked()
	l.pub.Unlock()
	err := l.s.commit.putNote(note)
	switch {
	case errors.Is(err, errNoteRefused):
		return fmt.Errorf("%w: the log cannot be truncated while the journal takes no notes", ErrBusy)
	case errors.Is(err, errNoteUnknown): // nobody knows whether a recovery makes the cut
		l.taint(err)
		return l.Fault()
	}
	return err
}

// findCut finds the end of the last batch before the one that holds an offset, or before the first
// one after it. A log must end where a batch ends and not within a gap, because no file would tell
// where in the gap it ends.
func findCut(l *Log, to record.Offset) (Position, error) {
	segs := l.segments()
	i := len(segs) - 1
	for i > 0 && segs[i].Base() > to {
		i--
	}
	g := segs[i]
	found, err := g.Locate(to)
	if errors.Is(err, io.EOF) {
		size, next := g.End()
		return Position{g, size, next}, nil
	}
	if err != nil {
		return Position{}, l.explainError(g, err)
	}
	if found.Pos == 0 {
		return Position{g, 0, g.Base()}, nil
	}
	base, err := g.LastBaseAt(found.Pos - 1)
	if err == nil {
		found, err = g.Locate(base)
	}
	if err != nil {
		return Position{}, l.explainError(g, err)
	}
	return Position{g, found.End, found.Next}, nil
}

// truncation cuts a log at a place. The caller of its methods holds Log.mu.
type truncation struct {
	l    *Log
	at   Position      // the log's new end
	last record.Offset // the offset after the last record that stays
	// leavesGap tells that the next batch does not follow that record, so the log's files have a gap.
	leavesGap bool

	firstTxn  record.Offset    // no batch that stays and lies below it is of a transaction; transaction.None: none that stays is
	view      transaction.View // of the log when it is cut
	producers producer.State   // those at the cut of which the log has batches, if it has transactions then
}

// findTransactions finds out which transactions are open at the place of the cut, and which were aborted
// before it: it reads the log behind a producer snapshot, or all of it.
func (t *truncation) findTransactions() error {
	l := t.l
	if t.firstTxn = transaction.None; !l.txns.anyBelow(t.last) {
		return nil
	}
	t.firstTxn = l.txns.firstOffset()
	if err := l.prepareWriterLocked(); err != nil {
		return err
	}
	ld := &loading{l: l, ps: &t.producers, to: t.last, now: time.Now().UnixMilli()}
	snapshots, truthTo := t.listSnapshots()
	if err := ld.readSnapshot(snapshots, truthTo); err != nil {
		return err
	}
	high := record.Offset(l.highWatermark.Load())
	ld.beginView(min(high, t.last), l.txns.view.StableEnd(high))
	segs := l.segments()
	if _, err := ld.applySegments(segs[:slices.Index(segs, t.at.Segment)+1]); err != nil {
		return err
	}
	t.view = ld.view
	upTo, err := l.compacted.readUpTo()
	if err == nil && (&retention{l: l}).limit() <= t.last { // the markers of these were below that limit, and are gone
		t.producers.EndTransactions(upTo)
		t.view.DropOpen(upTo)
	}
	return err
}

// listSnapshots lists the producer snapshots that have all producers without batches in the log, in their
// order, and the offset up to which the last one is the truth, or there were no producers if there is none.
func (t *truncation) listSnapshots() (list []record.Offset, truthTo record.Offset) {
	l, end := t.l, t.at.Next
	l.pub.Lock()
	defer l.pub.Unlock()
	first, newest := l.segs[0].Base(), l.snapshots.newest
	for _, at := range append(slices.Clone(l.snapshots.older), newest) {
		if at >= first && at <= end {
			list = append(list, at)
		}
	}
	switch {
	case newest < 0 && first <= 0 || len(list) > 0 && list[len(list)-1] == newest:
		truthTo = min(l.snapshots.truthTo, t.last)
	case len(list) > 0:
		truthTo = list[len(list)-1]
	}
	return list, truthTo
}

// keepProducers writes a snapshot of the producers as they are at the place of the cut, if the log's batches do not tell: those
// in removed segments are in snapshots beyond it only, or compaction may have removed some behind the snapshots that are left. It is
// on disk before the cut is announced. It finds out what the log knows of transactions there, too.
func (t *truncation) keepProducers() error {
	l, end := t.l, t.at.Next
	if err := t.findTransactions(); err != nil {
		return err
	}
	l.pub.Lock()
	known := l.segs[0].Base() <= 0 // all batches are in the log
	for _, at := range append(slices.Clone(l.snapshots.older), l.snapshots.newest) {
		known = known || at >= l.segs[0].Base() && at <= end
	}
	hasGaps := l.hasGaps
	l.pub.Unlock()
	if known && !hasGaps {
		return nil
	}
	if err := l.prepareWriterLocked(); err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	cut := producer.New(nil)
	if err := cut.Decode(bytes.NewReader(l.writer.producers.Encode()), now); err != nil {
		return err
	}
	cut.CutAt(end)
	if cut.Adopt(&t.producers); cut.Len() == 0 && !hasGaps {
		return nil
	}
	err := l.dir.Do(func() error {
		return l.s.replaceFile(l.dir.Path(segment.FileName(end, snapshotSuffix)), cut.Encode(), true)
	})
	if err == nil {
		err = l.s.syncs.syncDir(l.dir.Path())
	}
	if errors.Is(err, errSync) {
		l.taint(err)
		return l.Fault()
	}
	if err != nil {
		return nameError(err)
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	if i, has := slices.BinarySearch(l.snapshots.older, end); !has && l.snapshots.newest != end {
		l.snapshots.older = slices.Insert(slices.Clone(l.snapshots.older), i, end)
	}
	return nil
}

// cutLog cuts the files, and the state in memory with them.
func (t *truncation) cutLog() error {
	l, at := t.l, t.at
	l.pub.Lock()
	l.end = at // no reader gets beyond the cut from here on; one that has begun before may find a file that is cut
	l.cuts.from = at.Segment
	l.commitTo.Store(min(l.commitTo.Load(), int64(at.Next)))
	l.highWatermark.Store(min(l.highWatermark.Load(), int64(at.Next)))
	l.owed.Store(0)
	l.epochs = l.epochs.Cut(at.Next)
	l.due.epochs = true
	l.txns.view, l.txns.isLoaded = t.view, true
	l.txns.first.Store(int64(t.firstTxn))
	l.compacted.upTo = min(l.compacted.upTo, at.Next)
	if t.leavesGap {
		l.hasGaps = true
		at.Segment.AllowGaps()
	}
	n := slices.Index(l.segs, at.Segment)
	kept, dropped := l.segs[:n:n], l.segs[n+1:]
	l.pub.Unlock()
	l.s.points.Lower(l.id, at.Segment.Base(), at.Pos, t.last, 0)
	last, err := at.Segment.Truncate(at.Pos, at.Next, time.Now().UnixMilli())
	if err != nil {
		return err
	}
	l.pub.Lock()
	l.segs, l.end, l.cuts.from = append(kept, last), Position{last, at.Pos, at.Next}, nil
	switch {
	case l.stable.Next >= at.Next:
		l.stable = l.end
	case l.stable.Segment == at.Segment:
		l.stable.Segment = last
	}
	l.pub.Unlock()
	if aborts := copyAborts(l); aborts.g != nil {
		if err := aborts.save(false); err != nil { // the next opening makes it anew
			l.s.log.Debug("an index of aborted transactions could not be written", "log", l.name, "err", err)
		}
	}
	for _, g := range dropped {
		if err := l.s.keeper.removeSegment(l, g); err != nil {
			return err
		}
	}
	if err := t.cutSnapshots(); err != nil {
		return err
	}
	if err := l.s.fs.Remove(l.dir.Path(compactedFile)); err != nil { // it may tell of records that are gone
		return err
	}
	dropWriterLocked(l) // the next append reads the producers anew
	return l.s.syncs.syncDir(l.dir.Path())
}

// cutSnapshots removes the producer snapshots that lie beyond the log's new end.
func (t *truncation) cutSnapshots() error {
	l, end := t.l, t.at.Next
	l.pub.Lock()
	all := l.snapshots.older
	if l.snapshots.newest >= 0 {
		all = append(all, l.snapshots.newest)
	}
	slices.Sort(all) // none but that of keepProducers may be newer than the newest one
	n := len(all)
	for n > 0 && all[n-1] > end {
		n--
	}
	left := snapshots{newest: -1, truthTo: min(l.snapshots.truthTo, end)}
	if n > 0 {
		left.newest, left.older = all[n-1], all[:n-1:n-1]
	}
	if left.newest != l.snapshots.newest {
		left.truthTo = left.newest // -1: the whole log is read for producers
	}
	l.snapshots = left
	l.pub.Unlock()
	l.opened.Snapshot, l.opened.ProducersAt = left.newest, left.truthTo
	for _, at := range all[n:] {
		if err := l.s.fs.Remove(l.dir.Path(segment.FileName(at, snapshotSuffix))); err != nil {
			return err
		}
	}
	return nil
}

// StartAt makes an empty log begin with an offset. A mirror needs it if the first records of the
// log that it copies are gone. It is durable when StartAt returns.
func (l *Log) StartAt(o record.Offset) error {
	l.mu.Lock()
	if err := l.makeUsableLocked(); err != nil {
		l.mu.Unlock()
		return err
	}
	if l.s.isLeaving(l.id) {
		l.mu.Unlock()
		l.s.keeper.checkpointSoon()
		return errLeaving
	}
	if o == record.Offset(l.start.Load()) && o == l.end.Next { // an earlier try may have failed to make the start durable
		l.mu.Unlock()
		return l.keepStart(o)
	}
	if len(l.segments()) > 0 || o < l.end.Next {
		l.mu.Unlock()
		return fmt.Errorf("%w: the log has records, or ends beyond %d", ErrOffsetOutOfRange, o)
	}
	l.pub.Lock()
	l.start.Store(int64(o))
	l.end = Position{Next: o}
	l.commitTo.Store(int64(o))
	l.pub.Unlock()
	dropWriterLocked(l)
	l.mu.Unlock()
	return l.keepStart(o)
}
