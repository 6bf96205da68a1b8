package storage

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/epoch"
	"github.com/leatstream/leat/internal/storage/segment"
)

const (
	// SnapshotBytes is how many bytes are appended to a log before a new snapshot of its producers
	// is written.
	SnapshotBytes = 16 << 20
	// PageCacheAge is how long bytes may wait for a sync in a log that commits records when they
	// are written.
	PageCacheAge = 10 * time.Second
	// PageCacheBytes is how many bytes of such a log may wait for a sync.
	PageCacheBytes = 512 << 20
)

// syncing is one log within a checkpoint: the files that are to be synced, and the due work that is
// done by that.
type syncing struct {
	l       *Log
	to      Position
	segs    []*segment.Segment
	sizes   []int64 // of segs, when they were collected
	names   bool    // the directory is to be synced
	isNew   bool    // the directory's own name is to be synced, too
	epochs  bool    // the epochs' file was written
	snapped bool    // a snapshot of the producers was written
	due     due
}

// countUnsynced is the number of bytes that are to be synced.
func (c *syncing) countUnsynced() int64 {
	n := int64(0)
	for i, g := range c.segs {
		synced, _ := g.Synced()
		n += c.sizes[i] - min(synced, c.sizes[i])
	}
	return n
}

// makeDurable makes the log durable in its own files, if that is due, and updates its point. It
// returns how many files were synced.
func (l *Log) makeDurable(last bool) (synced int, err error) {
	c, err := l.beginCheckpoint(last, true)
	if c == nil || err != nil {
		return 0, err
	}
	if synced, err = c.syncAll(); err != nil {
		c.undoSync()
		return synced, err
	}
	c.finishSync()
	return synced, nil
}

// beginCheckpoint writes the small files that belong to a checkpoint and collects the files that
// are to be synced. It returns nil if nothing is due. If sync is false, even the small files are
// not synced when they are written: the caller syncs the whole volume.
func (l *Log) beginCheckpoint(last, sync bool) (*syncing, error) {
	if logState(l.state.Load()) == logDeleted {
		return nil, nil //nolint:nilnil // there is nothing to be done
	}
	if l.isTainted() {
		return nil, l.Fault()
	}
	if err := l.trimBelowStart(); err != nil {
		return nil, err
	}
	if last {
		if err := l.closeIndexes(); err != nil {
			return nil, err
		}
	}
	if !last && !l.isSyncDue(time.Now()) {
		l.keepListed()
		return nil, nil //nolint:nilnil // it waits
	}
	c := l.takeSyncing()
	if err := c.writeSmallFiles(last, sync); err != nil {
		c.undoSync()
		return nil, err
	}
	return c, nil
}

// keepListed lists a page-cached log for the next checkpoint again. The log's point follows its
// start meanwhile, so that segments below the start can be removed.
func (l *Log) keepListed() {
	l.pub.Lock()
	at, named := l.stable, l.dirState == dirNamed
	l.due.listed = false
	l.listLocked()
	l.pub.Unlock()
	if named {
		l.notePoint(at)
	}
}

// writeSmallFiles writes the producer snapshot and the epochs, if they are due.
func (c *syncing) writeSmallFiles(last, sync bool) (err error) {
	l := c.l
	if c.snapped, err = c.writeSnapshot(last || c.due.snapshot, sync); err != nil {
		return err
	}
	l.pub.Lock()
	es, made := l.epochs, l.dirState != dirMissing
	l.pub.Unlock()
	if c.due.epochs && made {
		c.epochs = true
		return l.dir.Do(func() error { return l.s.replaceFile(l.dir.Path(epoch.FileName), es.Encode(), sync) })
	}
	return nil
}

// isSyncDue tells whether this checkpoint syncs the log's files. It always syncs those of a durable
// log. Those of a page-cached log are synced when they have many unsynced bytes, or have had some
// for long.
func (l *Log) isSyncDue(now time.Time) bool {
	o := l.options()
	l.pub.Lock()
	defer l.pub.Unlock()
	if o.mode() == durable || l.due.journal != 0 || l.due.sync || l.due.snapshot || len(l.segs) == 0 {
		return true
	}
	if l.due.since.IsZero() {
		l.due.since = now
	}
	age := now.Sub(l.due.since)
	return unsyncedBytes(l.segs) >= PageCacheBytes || age >= PageCacheAge || o.FlushAge > 0 && age >= o.FlushAge
}

// unsyncedBytes is the number of bytes of segments that no sync covered.
func unsyncedBytes(segs []*segment.Segment) int64 {
	n := int64(0)
	for _, g := range segs {
		synced, _ := g.Synced()
		n += g.Size() - synced
	}
	return n
}

// takeSyncing collects the files that are to be synced and takes over the work that is due.
func (l *Log) takeSyncing() *syncing {
	l.pub.Lock()
	defer l.pub.Unlock()
	c := &syncing{l: l, to: l.end, due: l.due, isNew: l.dirState == dirMade}
	c.names = c.isNew
	l.due = due{}
	for _, g := range l.segs {
		size := g.Size()
		if synced, named := g.Synced(); synced < size || !named {
			c.names = c.names || !named
			c.segs = append(c.segs, g)
			c.sizes = append(c.sizes, size)
		}
	}
	return c
}

// undoSync gives back the due work of a checkpoint that was not completed, so that the next one
// does it.
func (c *syncing) undoSync() {
	l := c.l
	if c.snapped {
		l.mu.Lock()
		if l.writer != nil {
			l.writer.producers.SetChanged(true)
		}
		l.mu.Unlock()
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	d := &l.due
	if c.due.journal != 0 && (d.journal == 0 || c.due.journal < d.journal) {
		d.journal = c.due.journal
	}
	d.epochs = d.epochs || c.due.epochs
	d.snapshot = d.snapshot || c.due.snapshot || c.snapped
	d.sync, d.since = true, c.due.since
	d.batches += c.due.batches
	l.listLocked()
}

// syncAll syncs the files of a checkpoint, one by one.
func (c *syncing) syncAll() (synced int, err error) {
	l := c.l
	for _, g := range c.segs {
		if err := g.Sync(); err != nil && l.hasSegment(g) {
			return synced, fmt.Errorf("a sync of %s failed: %w", g.Path(segment.LogSuffix), err)
		}
		synced++
		if g != c.to.Segment {
			if err := g.SyncIndexes(); err != nil && l.hasSegment(g) {
				return synced, err
			}
		}
	}
	if c.names || c.epochs || c.snapped {
		synced += 2
		if err := l.dir.Do(func() error { return l.s.syncLogDir(l.name, c.isNew) }); err != nil {
			return synced, fmt.Errorf("a sync of the directory failed: %w", err)
		}
	}
	return synced, nil
}

// finishSync notes that everything that the checkpoint collected is on disk, and commits it.
func (c *syncing) finishSync() {
	l := c.l
	for i, g := range c.segs {
		g.MarkSynced(c.sizes[i])
		g.SetNamed()
	}
	l.pub.Lock()
	if c.isNew {
		l.dirState = dirNamed
	}
	named := l.dirState == dirNamed
	l.pub.Unlock()
	if named {
		l.notePoint(c.to)
	}
	l.clearDebt(c.to.Next)
	if l.moveCommitted(c.to.Next) {
		l.committed(l)
	}
}

// notePoint notes in the log's point how much of the log is on disk.
func (l *Log) notePoint(to Position) {
	l.pub.Lock()
	defer l.pub.Unlock()
	if to.Next >= l.stable.Next && slices.Contains(l.segs, to.Segment) { // else retention took it meanwhile
		l.stable = to
	}
	start := record.Offset(l.start.Load())
	p := checkpoint.Point{
		Vouched: true, Gaps: l.hasGaps, Next: l.stable.Next, Pos: l.stable.Pos,
		Start: start, HighWatermark: record.Offset(l.highWatermark.Load()),
		Snapshot: l.snapshots.newest, ProducersAt: l.snapshots.truthTo, Oldest: l.oldest,
	}
	if l.stable.Segment != nil {
		p.Base = l.stable.Segment.Base()
		p.Closed = checkpoint.BytesUnknown
		if !l.compacted.changesSizes() {
			p.Closed = p.CountClosed(sizesOf(l.segs))
		}
	} else { // the log is empty
		p.Base, p.Next = l.end.Next, l.end.Next
	}
	// A power cut may take records beyond Next. The snapshot must not count as the truth about
	// them, and the high watermark must not cover others that are appended in their place.
	p.ProducersAt, p.HighWatermark = min(p.ProducersAt, p.Next), min(p.HighWatermark, p.Next)
	noteTransactionsLocked(l, &p)
	if logState(l.state.Load()) != logDeleted {
		l.s.points.Set(l.id, p)
	}
}

// writeSnapshot writes a snapshot of the producers if they changed, and if it is wanted or enough
// was appended since the last one.
func (c *syncing) writeSnapshot(wanted, sync bool) (done bool, err error) {
	l := c.l
	l.mu.Lock()
	if c.due.snapshot { // segments wait for it, and a truncation may have dropped the writer since
		if err = l.prepareWriterLocked(); l.isFaulted() {
			err = nil // the segments stay
		}
	}
	if err != nil || l.writer == nil {
		l.mu.Unlock()
		return false, err
	}
	ps := &l.writer.producers
	at := l.end.Next
	l.pub.Lock()
	due := ps.Changed() && (wanted || l.snapshots.bytes >= SnapshotBytes)
	if !ps.Changed() {
		l.snapshots.truthTo = at // the last snapshot is still the truth
	}
	l.pub.Unlock()
	var b []byte
	var aborts activeAborts
	if due {
		b, aborts = ps.Encode(), copyAborts(l)
		ps.SetChanged(false)
	}
	l.mu.Unlock()
	if b == nil {
		return false, nil
	}
	name := segment.FileName(at, snapshotSuffix)
	if err = aborts.save(sync); err == nil { // before the snapshot, behind which an opening reads the log
		err = l.dir.Do(func() error { return l.s.replaceFile(l.dir.Path(name), b, sync) })
	}
	if err != nil {
		l.mu.Lock()
		ps.SetChanged(true)
		l.mu.Unlock()
		return false, err
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	if l.snapshots.newest >= 0 && l.snapshots.newest != at {
		l.snapshots.older = append(l.snapshots.older, l.snapshots.newest)
	}
	l.snapshots.newest, l.snapshots.truthTo, l.snapshots.bytes = at, at, 0
	return true, nil
}

// snapshotSuffix ends the name of a producer snapshot. The name begins with the snapshot's offset.
const snapshotSuffix = ".snapshot"

// keptSnapshots is how many older producer snapshots are kept besides the one that the saved point
// names, since the point in the older checkpoint file names an older one.
const keptSnapshots = 2

// removeOldSnapshots removes producer snapshots that no point on disk names. It is called after a
// checkpoint file was saved.
func removeOldSnapshots(l *Log) {
	saved := l.s.points.Get(l.id).Snapshot
	l.pub.Lock()
	n := 0
	for n < len(l.snapshots.older) && l.snapshots.older[n] < saved {
		n++
	}
	remove := l.snapshots.older[:max(n-keptSnapshots, 0)]
	l.snapshots.older = l.snapshots.older[len(remove):]
	l.pub.Unlock()
	for _, at := range remove {
		err := l.dir.Do(func() error { return l.s.fs.Remove(l.dir.Path(segment.FileName(at, snapshotSuffix))) })
		if err != nil && !errors.Is(err, segment.ErrGone) {
			l.s.log.Warn("an old producer snapshot could not be removed", "log", l.name, "err", err)
		}
	}
}

// closeIndexes writes the indexes to their files, if they are large enough to be worth it, and
// gives back the space that the active segment's file has beyond its end.
func (l *Log) closeIndexes() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.end.Segment
	if g == nil {
		return nil
	}
	if err := g.Trim(); err != nil {
		return err
	}
	return g.FlushIndexesAtEnd()
}
