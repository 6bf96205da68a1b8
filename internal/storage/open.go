package storage

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/epoch"
	"github.com/leatstream/leat/internal/storage/producer"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/storage/transaction"
	"github.com/leatstream/leat/internal/vfs"
)

// openLocked reads the log's directory for the first time. It lists the segments and checks the
// part beyond the last checkpoint. If the end of that part is broken it is cut off; damage to the
// part that the checkpoint vouches for makes the log read-only. The caller holds mu.
func (l *Log) openLocked() error {
	s := l.s
	if err := s.waitingError(l.id); err != nil {
		return err
	}
	if p := takeUnconfirmed(s, l.id); p != nil {
		l.unconfirmed = p
	}
	point := s.points.Get(l.id)
	if f := s.faults.get(l.id); f != nil {
		l.setFault(f)
	}
	o := &opening{l: l, point: point, now: time.Now().UnixMilli(), firstTxn: transaction.None}
	if point.Vouched && point.Transactional {
		o.firstTxn = point.TransactionsFrom
	}
	if s.isLeaving(l.id) { // the directory and the point, if there are any, still belong to the deleted log
		o.point = checkpoint.UnknownPoint()
		o.finishEmpty()
		return nil
	}
	infos, err := s.fs.ReadDir(s.pathOf(l.name))
	if errors.Is(err, vfs.ErrNotExist) {
		if err := s.dirs.takeBack(l.name, l.id); err != nil {
			return nameError(err)
		}
		infos, err = s.fs.ReadDir(s.pathOf(l.name))
	}
	if errors.Is(err, vfs.ErrNotExist) {
		if point.HadRecords() {
			l.reportLoss("its directory %s is missing, though it had records up to offset %d", l.s.pathOf(l.name), point.Next)
		}
		o.finishEmpty()
		return nil
	}
	if err != nil {
		return nameError(err)
	}
	mine, err := o.identifyDir()
	if err != nil {
		return nameError(err)
	}
	if !mine {
		o.finishEmpty()
		return nil
	}
	if infos, err = o.finishSwaps(infos); err != nil {
		return nameError(err)
	}
	o.attachFiles(infos)
	if err := o.readCutNumber(); err != nil {
		return nameError(err)
	}
	if err := o.settleCuts(); err != nil {
		return nameError(err)
	}
	if err := o.checkSegments(); err != nil {
		return nameError(err)
	}
	if err := o.readEpochs(); err != nil {
		return nameError(err)
	}
	return nameError(o.finishOpening())
}

// finishEmpty opens a log that has no directory of its own.
func (o *opening) finishEmpty() {
	l, p := o.l, o.point
	next := max(p.Next, p.Start)
	l.pub.Lock()
	l.start.Store(int64(next))
	l.sureStart.Store(int64(p.Start))
	l.end = Position{Next: next}
	l.commitTo.Store(int64(next))
	l.pub.Unlock()
	l.highWatermark.Store(int64(min(p.HighWatermark, next)))
	l.opened = p
	l.opened.Snapshot, l.opened.ProducersAt = -1, next
	l.state.Store(int32(logOpen))
}

// identifyDir tells whether the directory is the log's own, and sets a foreign one aside. A
// directory that a checkpoint vouched for is the log's own even if its metadata are damaged. Any
// other directory without valid metadata was never part of a checkpoint; if the journal has records
// for it that count, recovery has written its metadata anew.
func (o *opening) identifyDir() (bool, error) {
	l := o.l
	d := &l.s.dirs
	unlock := d.lockName(l.name)
	defer unlock()
	if o.point.Vouched {
		b, err := l.s.readFile(l.s.pathOf(l.name, metadataFile))
		if err != nil {
			return false, err
		}
		if _, ok := decodeMetadata(b); !ok || isOneBitOff(b, encodeMetadata(l.id.Topic)) {
			l.s.log.Warn("a directory's metadata were damaged; they are written anew", "log", l.name)
			return true, d.writeMetadata(l.name, l.id)
		} else if topic, _ := decodeMetadata(b); topic != l.id.Topic && o.point.Next > o.point.Start {
			l.taint(fmt.Errorf("its directory says that it belongs to topic %x; if that is not so, remove the file %s in it and restart", topic, metadataFile))
			return false, nil // only the operator can say which topic it belongs to
		}
	}
	return d.identifyLocked(l.name, l.id)
}

// isOneBitOff tells whether bytes differ in exactly one bit from those that they should be.
func isOneBitOff(got, want []byte) bool {
	if len(got) != len(want) {
		return false
	}
	n := 0
	for i := range got {
		n += bits.OnesCount8(got[i] ^ want[i])
	}
	return n == 1
}

// opening is the work of opening a log, and what it has found so far.
type opening struct {
	l     *Log
	point checkpoint.Point // the log's point, as the last checkpoint has it
	now   int64            // ms

	segs      []*segment.Segment
	start     record.Offset
	next      record.Offset // the end of the batches that were checked so far
	epochs    epoch.List
	walked    epoch.List // the epochs of the batches that were walked
	snapshots []record.Offset
	aborts    []record.Offset // of segments, or of none: files of aborted transactions
	firstTxn  record.Offset   // no batch below it is of a transaction; transaction.None: no batch is
	stable    Position        // up to where the last checkpoint vouched for the log
	hasGaps   bool
	lastGap   gap  // in the segment that is being walked
	wasCut    bool // files were cut or removed
	isMarked  bool // segment.CutMark is in the directory

	hasCutNumber bool // cutNumberFile is in the directory
}

// markCuts puts the mark into the directory before anything is cut or removed, so that the next
// opening makes that durable if this one does not.
func (o *opening) markCuts() error {
	if o.isMarked {
		return nil
	}
	err := o.l.dir.MarkCut(o.l.s.fs)
	o.isMarked = err == nil
	return err
}

// settleCuts makes durable what an earlier opening, or an append that failed, cut or removed, and the number of a cut, since
// that run may have ended before it did so. Without it, a power cut could bring those bytes back
// behind bytes that are appended next.
func (o *opening) settleCuts() error {
	if !o.isMarked {
		return nil
	}
	for _, g := range o.segs {
		if g.Base() < o.point.Base {
			continue // no opening cuts a segment below the point
		}
		if err := o.l.s.syncFile(g.Path(segment.LogSuffix)); err != nil {
			return o.judgeCut(err)
		}
	}
	return o.judgeCut(o.l.s.syncLogDir(o.l.name, o.hasCutNumber)) // a log that was cut may have its directory since then
}

// judgeCut deals with a cut that could not be made durable. If a sync failed the log is read-only,
// since a later sync would not report that the cut is lost.
func (o *opening) judgeCut(err error) error {
	if errors.Is(err, errSync) {
		o.l.taint(err)
		return nil
	}
	return err
}

// unmarkCuts removes the mark when everything that was cut or removed is durable.
func (o *opening) unmarkCuts() {
	if !o.isMarked || o.l.isFaulted() {
		return
	}
	if err := o.l.dir.UnmarkCut(o.l.s.fs); err != nil { // the next opening syncs the files once more
		o.l.s.log.Warn("a file could not be removed", "path", o.l.dir.Path(segment.CutMark), "err", err)
	}
}

// finishSwaps finishes the compaction that an earlier run has decided, before anything else looks at the
// segments. It returns the directory's entries.
func (o *opening) finishSwaps(infos []vfs.Info) ([]vfs.Info, error) {
	l := o.l
	changed, err := segment.FinishSwaps(l.s.fs, l.dir, infos, func() error { return l.s.syncs.syncDir(l.dir.Path()) })
	if errors.Is(err, errSync) { // without the files that have no names yet the log would seem to lack records
		l.taint(err)
		return nil, l.Fault()
	}
	if err != nil {
		return nil, err
	}
	if !changed {
		return infos, nil
	}
	return l.s.fs.ReadDir(l.dir.Path())
}

// removeLeftover removes a file that an earlier run has not finished. If it stays, its next writer makes it
// empty.
func (o *opening) removeLeftover(name string) {
	if err := o.l.s.fs.Remove(o.l.dir.Path(name)); err != nil {
		o.l.s.log.Warn("a file could not be removed", "path", o.l.dir.Path(name), "err", err)
	}
}

func (o *opening) attachFile(i vfs.Info) {
	l := o.l
	if base, ok := segment.ParseFileName(i.Name, segment.LogSuffix); ok {
		o.segs = append(o.segs, segment.Attach(l.s.files, l.dir, base, i.Size, o.now))
	}
	if at, ok := segment.ParseFileName(i.Name, snapshotSuffix); ok {
		o.snapshots = append(o.snapshots, at)
	}
	if base, ok := segment.ParseFileName(i.Name, segment.TxnSuffix); ok {
		o.aborts = append(o.aborts, base)
	}
	switch {
	case i.Name == segment.CutMark:
		o.isMarked = true
	case i.Name == cutNumberFile:
		o.hasCutNumber = true
	case strings.HasSuffix(i.Name, segment.DeletedSuffix):
		l.s.keeper.removeLater(l.dir.Path(i.Name), 0)
	case strings.HasSuffix(i.Name, ".tmp"):
		o.removeLeftover(i.Name)
	}
}

// attachFiles takes over the directory's segments and snapshots, and has leftovers of earlier runs
// removed: at once those whose names are used again, or a later removal would take a new file.
func (o *opening) attachFiles(infos []vfs.Info) {
	for _, i := range infos {
		o.attachFile(i)
	}
	slices.SortFunc(o.segs, func(a, b *segment.Segment) int { return int(min(max(a.Base()-b.Base(), -1), 1)) })
	slices.Sort(o.snapshots)
	o.start, o.hasGaps = o.point.Start, o.point.Gaps
	if len(o.segs) > 0 {
		o.start = max(o.start, o.segs[0].Base())
	}
	for i, g := range o.segs {
		if o.hasGaps {
			g.AllowGaps()
		}
		if i+1 < len(o.segs) {
			g.SetRecovered(g.Size(), o.segs[i+1].Base(), 0, false)
		}
	}
}

// findStable finds the place up to which the last checkpoint vouches for the log: the number of the
// segment, and the position in it. ok is false if the checkpoint vouches for nothing in the log.
func (o *opening) findStable() (from int, pos int64, ok bool) {
	p := &o.point
	if p.Vouched {
		i := slices.IndexFunc(o.segs, func(g *segment.Segment) bool { return g.Base() == p.Base })
		if i >= 0 {
			from, pos, ok = i, p.Pos, true
		}
		reportMissing(o.l, &o.point, o.segs)
	}
	for i, g := range o.segs[:from] { // their bytes and names are vouched for
		g.SetRecovered(g.Size(), o.segs[i+1].Base(), g.Size(), true)
	}
	o.next = o.start
	if p.Vouched {
		o.next = max(o.next, p.Next)
	}
	if len(o.segs) > 0 {
		g := o.segs[from]
		o.stable = Position{g, 0, g.Base()}
		if ok && g.Size() >= pos {
			o.stable = Position{g, pos, p.Next}
		}
	}
	return from, pos, ok
}

// checkSegments checks the segments that the last checkpoint does not vouch for.
func (o *opening) checkSegments() error {
	from, pos, vouched := o.findStable()
	for i := from; i < len(o.segs); i++ {
		if i > from && o.segs[i].Base() != o.next {
			o.reportHole(i)
			again, err := o.handleMisfit(i)
			if !again || err != nil {
				return err
			}
			i--
			continue
		}
		whole, err := o.walkSegment(i, pos, vouched)
		if err != nil {
			return err
		}
		goesOn := i+1 < len(o.segs) && (o.segs[i+1].Base() == o.next || o.isBelowStart(i+1))
		if !whole && (o.l.isFaulted() || !goesOn) {
			return o.dropSegments(i + 1)
		} // else the file was longer than the segment, since the cut that closed it was lost
		pos, vouched = 0, false
	}
	return nil
}

// reportHole reports that the i-th segment does not begin where the one before it ends. It does so
// only if the log's point was lost, since nothing tells then whether the records between the two
// were acknowledged.
func (o *opening) reportHole(i int) {
	if o.point.Lost && i < len(o.segs) && o.segs[i].Base() != o.next && !o.isBelowStart(i) {
		o.l.reportLoss("there are no records from offset %d on, though %s is there", o.next, segmentPath(o.l, o.segs[i].Base()))
	}
}

// walkSegment walks the batches of the i-th segment from pos on, and cuts the file where they end.
// whole is false if the file goes on behind them. vouched says that the bytes before pos are known
// to be right and on disk.
func (o *opening) walkSegment(i int, pos int64, vouched bool) (whole bool, err error) {
	l, g := o.l, o.segs[i]
	size := g.Size()
	synced, named := int64(0), false
	if vouched {
		synced, named = pos, pos > 0 // a point at the segment's beginning does not vouch for the name
	}
	if size < pos {
		l.reportLoss("%s has %d bytes and had %d", segmentPath(l, g.Base()), size, pos)
		pos = 0 // the bytes that are left are walked
	}
	next := g.Base()
	if pos > 0 {
		next = o.point.Next
	}
	if pos == size {
		g.SetRecovered(size, next, synced, named)
		o.next = next
		return true, nil
	}
	w, closeWalk, err := g.Walk(pos, next, false)
	if err != nil {
		return false, err
	}
	defer closeWalk()
	o.lastGap = gap{pos: -1}
	next, err = o.walkBatches(w, next)
	end := w.Pos()
	o.next = next
	isOdd := errors.Is(err, segment.ErrTorn) || err == nil && i+1 < len(o.segs) && o.segs[i+1].Base() != next
	// Of a page-cached log a power cut may leave any pages, also of batches that a truncation had removed.
	if isOdd && l.options().mode() == durable {
		changed, failed := findChangedOffset(o.segs, i, gap{end, next}, o.lastGap)
		if failed != nil {
			return false, failed
		}
		if changed.pos >= 0 {
			o.reportChangedOffset(i, changed, synced, named)
			return false, nil
		}
	}
	if l.s.syncs.distrust && (err == nil || errors.Is(err, segment.ErrTorn)) && !l.isFaulted() {
		if err := g.Rewrite(pos, end); err != nil {
			return false, err
		}
	}
	g.SetRecovered(end, next, synced, named)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, segment.ErrTorn) {
		return false, err
	}
	o.reportHole(i + 1)
	if l.isFaulted() { // the file is damaged, and stays as it is for the operator to mend
		return false, nil
	}
	l.s.log.Info("a log's torn end was cut off", "log", l.name, "segment", int64(g.Base()),
		"at", end, "bytes", size-end, "why", err)
	if err := o.markCuts(); err != nil {
		return false, err
	}
	o.wasCut = true
	return false, o.judgeCut(l.s.truncateFile(g.Path(segment.LogSuffix), end)) // the bytes must not come back behind those that are appended next
}

// reportChangedOffset makes the log read-only, and has it end before a batch. Nothing is cut, since what is behind it was acknowledged.
func (o *opening) reportChangedOffset(i int, at gap, synced int64, named bool) {
	_ = o.l.reportDamage(o.segs[i], fmt.Errorf("%w at byte %d: it does not begin with offset %d, though what is behind it does as if it did", segment.ErrTorn, at.pos, at.expected))
	o.next, o.walked = at.expected, o.walked.Cut(at.expected)
	o.segs[i].SetRecovered(at.pos, at.expected, min(synced, at.pos), named)
}

// walkBatches walks on from next and returns the offset after the last good batch.
func (o *opening) walkBatches(w *segment.Walker, next record.Offset) (record.Offset, error) {
	for {
		pos := w.Pos()
		b, err := w.Next()
		if errors.Is(err, io.EOF) {
			return next, nil
		}
		if err != nil {
			return next, err
		}
		if o.walked.Last() < b.LeaderEpoch() {
			o.walked = append(o.walked, epoch.Start{Epoch: b.LeaderEpoch(), Offset: b.BaseOffset()})
		}
		if b.Transactional() {
			o.firstTxn = minTxn(o.firstTxn, b.BaseOffset())
		}
		if b.BaseOffset() != next {
			o.hasGaps, o.lastGap = true, gap{pos, next}
		}
		next = b.NextOffset()
	}
}

// dropSegments removes the segments from the i-th on. The segment before them is torn, so nothing
// in them was acknowledged.
func (o *opening) dropSegments(i int) error {
	dropped := o.segs[min(i, len(o.segs)):]
	o.segs = o.segs[:len(o.segs)-len(dropped)]
	if o.l.isFaulted() || len(dropped) == 0 {
		return nil
	}
	if err := o.markCuts(); err != nil {
		return err
	}
	for _, g := range dropped {
		if err := o.l.s.keeper.removeSegment(o.l, g); err != nil {
			return err
		}
	}
	o.wasCut = true
	return o.judgeCut(o.l.s.syncs.syncDir(o.l.dir.Path())) // the files must not come back behind bytes that are appended next
}

// handleMisfit deals with the i-th segment, which does not begin where the one before it ends.
// again is true if the check can go on. That is so if the segments before it lie below the log's
// start, since they may have been removed in part. It is also so if the segment does not count: its
// making failed, and a power cut brought its file back. Otherwise the log ends before the segment.
func (o *opening) handleMisfit(i int) (again bool, err error) {
	g := o.segs[i]
	if o.isBelowStart(i) {
		o.next = g.Base()
		return true, nil
	}
	follows := func(g *segment.Segment) bool { return g.Base() == o.next }
	if g.Base() > o.next || !slices.ContainsFunc(o.segs[i+1:], follows) {
		return false, o.dropSegments(i)
	}
	o.segs = slices.Delete(o.segs, i, i+1)
	if o.l.isFaulted() {
		return true, nil
	}
	if err := o.markCuts(); err != nil {
		return false, err
	}
	o.wasCut = true
	if err := o.l.s.keeper.removeSegment(o.l, g); err != nil {
		return false, err
	}
	return true, o.judgeCut(o.l.s.syncs.syncDir(o.l.dir.Path()))
}

// isBelowStart tells whether everything before the i-th segment lies below the log's start.
func (o *opening) isBelowStart(i int) bool { return o.segs[i].Base() <= o.start }

// readEpochs reads the epochs from their file and adds those of the walked batches.
func (o *opening) readEpochs() error {
	s, l := o.l.s, o.l
	b, err := s.readFile(l.dir.Path(epoch.FileName))
	if err != nil {
		return err
	}
	if b != nil || o.stable.Next > o.start {
		if o.epochs, err = epoch.Decode(b); err != nil {
			s.log.Warn("a log's leader epochs were damaged; they are made anew from its batches", "log", l.name, "err", err)
			if err := o.walkForEpochs(); err != nil {
				return err
			}
		}
	}
	// The file may have epochs of records that are gone, so behind the stable place only those of
	// the walked batches count.
	o.epochs = o.epochs.Cut(o.stable.Next).Trim(o.point.Start) // only below the durable start, which does not move back
	for _, e := range o.walked {
		o.epochs, _ = o.epochs.Begin(e.Epoch, e.Offset)
	}
	return nil
}

// walkForEpochs walks the whole log to collect its epochs.
func (o *opening) walkForEpochs() error {
	o.walked = nil
	for i, g := range o.segs {
		if i+1 < len(o.segs) && o.segs[i+1].Base() <= o.start {
			continue // the segment was deleted, and a crash may have brought back a part
		}
		w, closeWalk, err := g.Walk(0, g.Base(), false)
		if err != nil {
			return err
		}
		_, err = o.walkBatches(w, g.Base())
		closeWalk()
		if errors.Is(err, segment.ErrTorn) {
			_ = o.l.reportDamage(g, err) // the batches before the damage count, and the fault tells of the rest
		} else if err != nil {
			return err
		}
	}
	return nil
}

// finishOpening makes the log usable. Everything that was found counts as committed, so in a
// durable log it is made durable first. That a page-cached log has some that may not be on disk is
// noted in the directory.
func (o *opening) finishOpening() error {
	l := o.l
	if o.next < o.start { // all that was found lies below the start, so nothing may be appended to it
		o.next = o.start
		if err := o.dropSegments(0); err != nil {
			return err
		}
		o.stable = Position{}
	}
	if o.hasGaps {
		for _, g := range o.segs {
			g.AllowGaps()
		}
	}
	l.pub.Lock()
	l.segs, l.epochs, l.dirState, l.hasGaps = o.segs, o.epochs, dirMade, o.hasGaps
	l.end = Position{Next: o.next}
	if g := l.activeLocked(); g != nil {
		l.end.Segment, l.end.Pos = g, g.Size() // nobody appends to it yet
	}
	if o.point.Vouched {
		l.dirState = dirNamed
		if o.start == o.point.Start { // else the first record is another one
			l.oldest = o.point.Oldest
		}
	}
	l.stable = o.stable
	l.due.epochs = len(o.walked) > 0
	l.pub.Unlock()
	if l.options().mode() == pageCached && !o.isClean() {
		if err := l.s.cfg.Run.NoteCached(l.id.Topic, l.id.Partition); err != nil {
			return err
		}
	}
	if !l.isFaulted() && l.options().mode() == durable {
		if err := l.syncFiles(); classify(err) == tainted {
			l.taint(err)
		} else if err != nil {
			return err
		}
	}
	if err := o.dropSnapshots(); err != nil {
		return err
	}
	if err := o.dropAborts(); err != nil {
		return err
	}
	o.unmarkCuts()
	l.pub.Lock()
	defer l.pub.Unlock()
	l.start.Store(int64(o.start))
	l.sureStart.Store(int64(o.point.Start))
	l.commitTo.Store(int64(o.next))
	l.highWatermark.Store(int64(min(o.point.HighWatermark, o.next)))
	l.txns.first.Store(int64(o.firstTxn))
	if !o.isClean() || len(o.segs) > 1 && o.isBelowStart(1) { // the last run did not delete the segments below the start
		l.listLocked()
	}
	l.state.Store(int32(logOpen))
	return nil
}

// dropSnapshots removes the producer snapshots beyond the log's end, before other records take
// their offsets.
func (o *opening) dropSnapshots() error {
	l, lost := o.l, false
	var kept []record.Offset
	for _, at := range o.snapshots {
		if at <= o.next || l.isFaulted() {
			kept = append(kept, at)
			continue
		}
		if err := o.markCuts(); err != nil {
			return err
		}
		if err := l.s.fs.Remove(l.dir.Path(segment.FileName(at, snapshotSuffix))); err != nil {
			return err
		}
		lost = true
	}
	l.opened = o.point
	l.opened.ProducersAt = min(l.opened.ProducersAt, o.next)
	known := slices.Contains(kept, l.opened.Snapshot)
	if l.opened.Snapshot >= 0 && !known || !o.point.Vouched {
		l.opened.Snapshot, l.opened.ProducersAt = -1, -1
		if len(kept) > 0 {
			l.opened.Snapshot = kept[len(kept)-1]
		}
	}
	l.pub.Lock()
	l.snapshots = snapshots{newest: l.opened.Snapshot, truthTo: l.opened.ProducersAt}
	for _, at := range kept {
		if at != l.snapshots.newest {
			l.snapshots.older = append(l.snapshots.older, at)
		}
	}
	l.pub.Unlock()
	if !lost {
		return nil
	}
	return o.judgeCut(l.s.syncs.syncDir(l.dir.Path()))
}

// dropAborts removes files of aborted transactions that say more than the log has, before other
// records take the offsets behind its end. The last checkpoint vouches for the segments below its
// place: nothing was cut there.
func (o *opening) dropAborts() error {
	l, lost := o.l, false
	if l.isFaulted() {
		return nil
	}
	for _, base := range o.aborts {
		i := slices.IndexFunc(o.segs, func(g *segment.Segment) bool { return g.Base() == base })
		if i >= 0 && (base < o.point.Base || !hasMoreAborts(o.segs[i])) {
			continue
		}
		if err := o.markCuts(); err != nil {
			return err
		}
		remove := func() error { return l.s.fs.Remove(l.dir.Path(segment.FileName(base, segment.TxnSuffix))) }
		if i >= 0 {
			remove = func() error { return segment.RemoveAborts(o.segs[i]) }
		}
		if err := remove(); err != nil {
			return err
		}
		lost = true
	}
	if !lost {
		return nil
	}
	return o.judgeCut(l.s.syncs.syncDir(l.dir.Path()))
}

// hasMoreAborts tells whether a segment's file of aborted transactions says more than the segment
// has, or cannot be read.
func hasMoreAborts(g *segment.Segment) bool {
	_, next := g.End()
	_, s, err := segment.FindAborts(g, next, next, 0)
	return err != nil || s.UpTo > next
}

// isClean tells whether the last checkpoint still describes the log.
func (o *opening) isClean() bool {
	if len(o.segs) == 0 {
		return false
	}
	g := o.segs[len(o.segs)-1]
	return o.point.Vouched && !o.wasCut && g.Base() == o.point.Base && g.Size() == o.point.Pos && o.start == o.point.Start
}

// prepareWriterLocked prepares an open log for its first append. The caller holds mu.
func (l *Log) prepareWriterLocked() error {
	if l.writer != nil {
		return nil
	}
	if g := l.end.Segment; g != nil {
		if err := g.Activate(l.options().IndexInterval); err != nil {
			return l.explainError(g, err)
		}
	}
	if logState(l.state.Load()) == logDeleted { // nobody would drop the writer
		return ErrClosed
	}
	w := &writer{l: l, next: l.end.Next, producers: producer.New(l.s.cfg.Producers), firstTxn: transaction.None}
	view, err := loadProducers(l, &w.producers)
	if err != nil {
		w.producers.Release()
		return err
	}
	l.pub.Lock()
	if !l.txns.isLoaded { // else it is as it was before the log was truncated, or more exact
		l.txns.view, l.txns.isLoaded = view, true
	}
	l.pub.Unlock()
	l.writer = w
	return nil
}
