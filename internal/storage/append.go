package storage

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/producer"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/storage/transaction"
)

// Item is one batch to append, and the outcome.
type Item struct {
	Batch record.Batch  // checked by the caller; Append writes offset and epoch into it
	Claim Claim         // what the caller knows of the transaction of the batch; only Append asks
	Base  record.Offset // out: its base offset; of a duplicate, the one that it got the first time
	Next  record.Offset // out: the offset after its last record
	Start record.Offset // out: the log's start offset
	Time  int64         // out: of a duplicate, when it was appended the first time, in ms (-1: unknown)
	Dup   bool          // out: it repeats one of the producer's last five batches: nothing was stored
	Err   error         // out: why it was not stored
}

// ErrEpochBack is returned by AppendAt for a batch of an earlier leader epoch than the one before it.
var ErrEpochBack = fmt.Errorf("%w: the leader epoch goes back", errInvalid)

// errInvalid says that the caller must not append such an item.
var errInvalid = errors.New("not a batch that can be appended")

// writer is the part of a log that only appends need. It is guarded by Log.mu, which is held
// while any of its methods runs.
type writer struct {
	l         *Log
	mode      mode
	producers producer.State
	run       []placed // accepted items that are not written yet
	bufs      [][]byte // their batches, without retries
	bytes     int64    // of bufs
	gap       bool     // there is a gap in the offsets of bufs, or before them
	failed    error    // why an item of the present call was not stored; nil: all were so far
	next      record.Offset
	jitter    int64 // ms that the active segment is rolled earlier

	changes  []transaction.Change // of bufs: what they do to transactions
	firstTxn record.Offset        // of bufs: the first batch of a transaction; transaction.None: no batch is of one
	markers  int                  // of bufs
}

// placed is an item of a run. A retry repeats a batch of the same run, and fails if that does.
type placed struct {
	it    *Item
	retry bool
}

// stamp says which offset and epoch a batch gets.
type stamp struct {
	given bool         // those that it has already (AppendAt)
	epoch record.Epoch // this epoch, if not given
}

// Append appends the items in order with one write, as the leader in an epoch: each gets the
// next offsets. Each has its own outcome. A failed item stores nothing and does not stop the
// ones after it, unless the log is unusable. Append keeps no bytes of the batches. If
// FlushMessages is above 1 the stored items are committed when it returns; if not,
// Store.Commit commits them.
func (l *Log) Append(epoch record.Epoch, items []Item) { l.appendItems(items, stamp{epoch: epoch}) }

// AppendAt appends the items in order with one write, with the offsets and epochs that
// their batches have, as a follower or a mirror does. Offsets may have gaps but must not
// be below the log's end, and epochs must not fall. Only the first batch of a log may begin before
// the log's start, if it goes beyond it. Sequences of producers are not checked.
// After an item that fails none is stored, since the log would have a gap that its leader's
// does not have.
func (l *Log) AppendAt(items []Item) { l.appendItems(items, stamp{given: true}) }

func (l *Log) appendItems(items []Item, st stamp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.makeWritableLocked()
	if err == nil && !st.given {
		l.pub.Lock()
		// Epochs must not fall in the log, even if the next epoch has begun before this append.
		st.epoch = max(st.epoch, l.epochs.Last())
		l.pub.Unlock()
	}
	now := time.Now().UnixMilli()
	for i := range items {
		it := &items[i]
		it.Base, it.Next, it.Time, it.Dup, it.Err = -1, -1, -1, false, err
		it.Start = record.Offset(l.start.Load())
		if err != nil {
			continue
		}
		if it.Err = l.writer.placeItem(it, st, now); it.Err != nil {
			l.writer.failed = it.Err
		}
	}
	if err == nil {
		l.writer.writeRun()
		l.writer.failed = nil
		l.writer.boundProducers(now)
	}
}

// makeWritableLocked prepares the log for an append. mu is held.
func (l *Log) makeWritableLocked() error {
	if err := l.makeUsableLocked(); err != nil {
		return err
	}
	if err := l.Fault(); err != nil {
		return err
	}
	if err := confirmCutLocked(l); err != nil {
		return err
	}
	if err := l.prepareWriterLocked(); err != nil {
		l.noteUse(useAppend, err)
		return err
	}
	return l.writer.switchMode(l.options().mode())
}

// confirmCutLocked puts the end of a cut into the journal, if that does not have it yet. A recovery would
// make the cut again, and so remove what was appended meanwhile. It returns ErrBusy if the journal has no room,
// as on a full disk. mu is held.
func confirmCutLocked(l *Log) error {
	if l.unconfirmed == nil {
		return nil
	}
	switch err := l.s.commit.putNote(*l.unconfirmed); {
	case errors.Is(err, errNoteRefused):
		l.s.keeper.checkpointSoon() // it frees the journal's files
		return fmt.Errorf("%w: the log was truncated, and the journal has no room to note that; see whether the disk is full", ErrBusy)
	case errors.Is(err, ErrClosed):
		return err
	case err != nil:
		l.taint(fmt.Errorf("truncating to offset %d: %w", l.unconfirmed.Offset, err))
		return l.Fault()
	}
	l.unconfirmed = nil
	return nil
}

// switchMode changes the log's mode. Before that it makes all bytes of the log durable in its
// own files, so that the journal never has later bytes of a log whose earlier ones a power cut
// may lose. Before a log becomes page-cached the directory notes it, and no more when it has become durable. After a failure the log
// has the mode that it had before.
func (w *writer) switchMode(to mode) error {
	l := w.l
	if w.mode == to {
		return nil
	}
	if to == pageCached {
		if err := l.s.cfg.Run.NoteCached(l.id.Topic, l.id.Partition); err != nil {
			return nameError(err)
		}
	}
	if w.mode == modeUnset && to == pageCached {
		w.mode = to
		return nil
	}
	if err := l.syncFiles(); err != nil {
		if classify(err) == tainted {
			l.taint(err)
			return l.Fault()
		}
		return nameError(err)
	}
	l.pub.Lock()
	l.moveCommittedLocked(l.end.Next)
	l.pub.Unlock()
	w.mode = to
	if to == durable {
		l.s.cfg.Run.ForgetCached(l.id.Topic, l.id.Partition) // the next checkpoint makes that durable
	}
	return nil
}

// placeItem checks an item and adds it to the run.
func (w *writer) placeItem(it *Item, st stamp, now int64) error {
	l, b := w.l, it.Batch
	if len(b) < record.HeaderLen || b.Size() != len(b) || b.LastOffsetDelta() < 0 {
		return fmt.Errorf("%w: %d bytes", errInvalid, len(b))
	}
	if st.given {
		if err := cmp.Or(w.failed, w.checkGiven(b)); err != nil {
			return err
		}
	} else if done, err := w.checkProducer(it); done || err != nil {
		return err
	}
	if b.Transactional() {
		if err := admitTransaction(&l.s.keeper); err != nil {
			return err
		}
	}
	if err := l.s.space.Take(int64(len(b))); err != nil {
		l.s.keeper.wakeUp() // it removes what only waits for its time
		return err
	}
	base := w.next
	if st.given {
		base = b.BaseOffset()
	}
	rolled, err := w.makeRoom(b, base, now)
	if err != nil {
		return nameError(err)
	}
	if rolled { // earlier items of the run were written, and may have failed
		if err := l.Fault(); err != nil {
			return err
		}
		if st.given && w.failed != nil {
			return w.failed
		}
		if !st.given {
			if done, err := w.checkProducer(it); done || err != nil {
				return err
			}
			base = w.next
		}
	}
	if !st.given {
		b.SetBaseOffset(base)
		b.SetLeaderEpoch(st.epoch)
	}
	end := w.next
	it.Base, it.Next = base, b.NextOffset()
	w.next = it.Next
	if b.ProducerID() >= 0 {
		w.noteTransaction(b, w.producers.Apply(b, now))
	}
	w.gap = w.gap || base != end
	w.run, w.bufs, w.bytes = append(w.run, placed{it: it}), append(w.bufs, b), w.bytes+int64(len(b))
	return nil
}

// checkGiven checks the offset and the epoch of a batch that keeps them. An epoch that this replica has
// begun as the leader, without records, does not count: the next leader may have records of earlier ones.
func (w *writer) checkGiven(b record.Batch) error {
	l := w.l
	l.pub.Lock()
	epoch := l.epochs.At(l.end.Next - 1)
	l.pub.Unlock()
	if n := len(w.bufs); n > 0 {
		epoch = record.Batch(w.bufs[n-1]).LeaderEpoch()
	}
	switch {
	case b.BaseOffset() < w.next && !w.beginsWithin(b):
		return fmt.Errorf("%w: a batch begins with %d where the log ends at %d", ErrOffsetOutOfRange, b.BaseOffset(), w.next)
	case b.LeaderEpoch() < epoch:
		return fmt.Errorf("%w: a batch of leader epoch %d follows one of %d", ErrEpochBack, b.LeaderEpoch(), epoch)
	}
	return nil
}

// beginsWithin tells whether the log has nothing yet and begins within a batch, as that of a follower
// whose leader's start is there: then the batch is the first one, with its records below the start.
func (w *writer) beginsWithin(b record.Batch) bool {
	return w.l.end.Segment == nil && len(w.bufs) == 0 && b.NextOffset() > w.next
}

// checkProducer checks the sequence of an item. done says that the item is a duplicate, whose
// outcome is filled in. A duplicate of a batch of the present run becomes part of the run.
func (w *writer) checkProducer(it *Item) (done bool, err error) {
	if it.Batch.ProducerID() < 0 {
		return false, nil
	}
	earlier, duplicate, err := w.producers.Check(it.Batch, it.Claim)
	if err != nil || !duplicate {
		return false, nameTransactionError(err)
	}
	it.Dup, it.Base, it.Next = true, earlier.Base, earlier.LastOffset+1
	if earlier.AppendTime {
		it.Time = earlier.Time
	}
	if len(w.run) > 0 && it.Base >= w.run[0].it.Base {
		w.run = append(w.run, placed{it: it, retry: true})
	}
	return true, nil
}

// makeRoom makes sure that the active segment has room for a batch with a base offset: it makes
// the first segment, or writes the run and closes a full or old segment.
func (w *writer) makeRoom(b record.Batch, base record.Offset, now int64) (rolled bool, err error) {
	l := w.l
	g := l.end.Segment
	if g == nil {
		err := w.rollSegment(min(base, l.end.Next))
		l.noteUse(useAppend, err)
		return true, err
	}
	if last := base + record.Offset(b.LastOffsetDelta()); last-max(g.Base(), w.next) > math.MaxInt32 {
		return false, fmt.Errorf("%w: a gap of more than 2^31 offsets before %d", errInvalid, base)
	}
	if !w.isRollDue(g, b, base, now) {
		return false, nil
	}
	w.writeRun()
	if l.end.Pos == 0 { // the write has failed: the segment is empty and has room
		return true, nil
	}
	if err := w.rollSegment(l.end.Next); err != nil {
		l.noteUse(useAppend, err)
		return true, err
	}
	l.s.keeper.retainIfExceeded(l)
	return true, nil
}

// isRollDue tells whether a batch is to begin another segment.
func (w *writer) isRollDue(g *segment.Segment, b record.Batch, base record.Offset, now int64) bool {
	o := w.l.options()
	size := w.l.end.Pos + w.bytes
	if size == 0 {
		return false
	}
	last := base + record.Offset(b.LastOffsetDelta())
	if size+int64(len(b)) > o.SegmentBytes || last-g.Base() > math.MaxInt32 { // an index's offsets are 32-bit
		return true
	}
	offsets, times := g.IndexEntries()
	if offsets+len(w.bufs) >= o.IndexBytes/8 || times+len(w.bufs) >= o.IndexBytes/12-1 {
		return true
	}
	if w.markers+len(w.l.txns.view.Aborted()) >= maxAborts {
		return true
	}
	return o.SegmentAge > 0 && g.Age(b.MaxTimestamp(), now) > o.SegmentAge.Milliseconds()-w.jitter
}

// writeRun writes the items of the run with one call, and publishes them. If the write fails
// nothing is stored, and all of them fail.
func (w *writer) writeRun() {
	l := w.l
	if len(w.run) == 0 {
		return
	}
	if len(w.bufs) > 0 {
		g := l.end.Segment
		if w.gap {
			g.AllowGaps()
		}
		if err := g.Append(w.bufs, l.options().IndexInterval); err != nil {
			w.failRun(err)
		} else {
			w.producers.Confirm()
			l.noteUse(useAppend, nil)
			w.publishRun()
		}
	}
	clear(w.run) // so that neither items nor bytes stay in memory
	clear(w.bufs)
	w.run, w.bufs, w.bytes, w.gap = w.run[:0], w.bufs[:0], 0, false
	w.changes, w.firstTxn, w.markers = w.changes[:0], transaction.None, 0
	w.next = l.end.Next
}

// failRun answers a run that could not be written.
func (w *writer) failRun(err error) {
	l := w.l
	if errors.Is(err, segment.ErrTainted) {
		l.taint(err)
	}
	l.s.noteRefusal(err)
	l.noteUse(useAppend, err)
	w.producers.Revert()
	err = nameError(err)
	w.failed = err
	for _, p := range w.run {
		p.it.Base, p.it.Next, p.it.Time, p.it.Dup, p.it.Err = -1, -1, -1, false, err
	}
}

// publishRun makes a run that was written at the log's end visible to readers, and to the next
// commit and checkpoint.
func (w *writer) publishRun() {
	l, o := w.l, w.l.options()
	first := record.Batch(w.bufs[0])
	l.pub.Lock()
	at, end := l.end, l.end.Next
	if end == record.Offset(l.start.Load()) {
		l.oldest = min(first.BaseTimestamp(), first.MaxTimestamp())
	}
	for _, buf := range w.bufs {
		b := record.Batch(buf)
		if l.epochs.Last() > b.LeaderEpoch() {
			l.epochs, l.due.epochs = l.epochs.Cut(b.BaseOffset()), true
		}
		if l.epochs.Last() < b.LeaderEpoch() {
			l.beginEpochLocked(b.LeaderEpoch(), b.BaseOffset())
		}
		if b.BaseOffset() != end {
			l.hasGaps = true
		}
		end = b.NextOffset()
	}
	l.end = Position{at.Segment, at.Pos + w.bytes, w.next}
	if w.firstTxn != transaction.None {
		w.publishTransactionsLocked()
	}
	l.snapshots.bytes += w.bytes
	wantsSync := false
	if w.mode == durable {
		if l.due.journal == 0 {
			l.due.journal = l.s.journal.Next()
		}
	} else {
		l.moveCommittedLocked(w.next)
		l.due.batches += int64(len(w.bufs))
		if wantsSync = l.due.batches >= o.FlushMessages && !l.due.sync; wantsSync {
			l.due.sync = true
		}
	}
	l.listLocked()
	if w.mode == durable { // after the log is listed, since a checkpoint that begins now must include it
		l.s.commit.enterRound(l, at.Segment, at.Pos, w.bufs, w.bytes, w.next)
	}
	l.pub.Unlock()
	l.s.keeper.countWritten(w.bytes, wantsSync)
}

// listLocked has the next checkpoint look at the log. pub is held.
func (l *Log) listLocked() {
	if !l.due.listed {
		l.due.listed = true
		l.s.keeper.listLog(l)
	}
}

// rollSegment closes the active segment and makes the next one, which begins at an offset: the log's
// end, or an earlier one if it is the first. After any failure the log is as it was.
func (w *writer) rollSegment(next record.Offset) error {
	l, o := w.l, w.l.options()
	old := l.end.Segment
	l.pub.Lock()
	made := l.dirState != dirMissing
	l.pub.Unlock()
	if old != nil {
		if err := old.Seal(); err != nil {
			return l.explainError(old, err)
		}
		if err := w.sealAborts(old); err != nil {
			return l.explainError(old, err)
		}
	}
	if !made {
		if err := l.s.dirs.makeDir(l.name, l.id); err != nil {
			return err
		}
		l.pub.Lock()
		l.dirState = dirMade
		l.pub.Unlock()
	}
	prealloc := int64(0)
	if o.Preallocate {
		prealloc = o.SegmentBytes
	}
	g, err := segment.Create(l.s.files, l.dir, next, prealloc, time.Now().UnixMilli())
	if err != nil {
		if errors.Is(err, segment.ErrTainted) {
			l.taint(err)
		}
		return err
	}
	w.jitter = 0
	if j := o.SegmentJitter.Milliseconds(); j > 0 {
		w.jitter = rand.Int64N(j)
	}
	if old != nil {
		old.Close()
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	segs := make([]*segment.Segment, len(l.segs), len(l.segs)+1)
	copy(segs, l.segs)
	l.segs, l.end = append(segs, g), Position{g, 0, next}
	l.txns.view.SetAborted(nil) // those of the segments before are in files
	w.next = next
	if l.stable.Segment == nil {
		l.stable = l.end
	}
	return nil
}
