package storage

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/segment"
)

const (
	closers = 32 // goroutines that sync logs at the same time when a store closes

	// CheckpointBytes is how many bytes are appended after which a checkpoint does not wait
	// for its time.
	CheckpointBytes = 256 << 20

	togetherFiles = 16               // that a checkpoint syncs at a time, about
	togetherBytes = 4 << 20          // that a checkpoint syncs at a time, about
	restFor       = time.Millisecond // between those, where it has time

	waitingEvery = time.Second // between two tries to bring back records on a full disk
	strayEvery   = time.Hour   // between two looks for directories that were set aside long ago
)

// keeper is the store's background goroutine: checkpoints, retention, removal of files.
type keeper struct {
	s    *Store
	wake chan struct{} // size 1

	bytes  atomic.Int64 // appended since the last checkpoint
	urgent atomic.Bool  // a checkpoint is wanted now

	mu        sync.Mutex
	listed    []*Log          // guarded by mu: logs that the next checkpoint looks at
	since     time.Time       // guarded by mu: when the first of them came
	redo      bool            // guarded by mu: a checkpoint is wanted although no log changed
	fill      bool            // guarded by mu: the journal's ring is to be filled
	crowded   []*Log          // guarded by mu: logs with segments that retention by size drops
	dropped   []droppedFile   // guarded by mu: segments below their log's start
	leaving   []leavingLog    // guarded by mu: deleted logs
	removals  []removal       // guarded by mu
	recovered []recoveredFile // guarded by mu: written or compared by recovery and not synced
	sweep     *sweep          // guarded by mu: see Store.Sweep

	run        sync.Mutex // one checkpoint at a time; before Log.mu
	disk       *checkpoint.Disk
	checkpoint *checkpoint.Pair // guarded by run
	base       *checkpoint.Pair // guarded by run
	previous   checkpoint.Mark  // guarded by run: where recovery begins by the newest checkpoint
	older      checkpoint.Mark  // guarded by run: the same by the one before
	saves      int              // guarded by run: checkpoints that were saved
	heldFrom   uint64           // guarded by run: rounds from here on stay in the journal, since files that recovery wrote are tainted; 0: none must
	tainted    []*Log           // guarded by mu: whose bytes in the journal must stay there
	retainAt   time.Time        // guarded by run
	scrubAt    time.Time        // guarded by run: when the next pass of scrub begins; zero: one is under way, or never
	waitingAt  time.Time        // guarded by run: when a recovery that found the disk full goes on; zero: it did not
	strayAt    time.Time        // guarded by run
}

// droppedFile is a segment that is to be removed. Its log's start is on disk in both
// checkpoint files before: so that recovery, whichever it begins with, does not miss it.
type droppedFile struct {
	l     *Log
	g     *segment.Segment
	after int // checkpoints that have to be saved first, as keeper.saves counts them
}

// leavingLog is a deleted log of which something is left: see Store.Delete.
type leavingLog struct {
	id    LogID
	dir   string // the name that its directory had
	aside string // the name that its directory has now; "": it had none, or keeps the old one
	round uint64 // the rounds of the journal that have bytes of it come before this one; 0: it is not known yet
	after int    // checkpoints that have to be saved first, so that neither file has its point, as keeper.saves counts them
}

// removal is a file or directory to be removed at its time.
type removal struct {
	path   string
	at     time.Time
	inside bool  // the files in a directory only: its name is needed
	of     LogID // a deleted log, of which the directory is the last thing that is left; zero: another one
}

func (k *keeper) init(s *Store) {
	k.s = s
	k.wake = make(chan struct{}, 1)
	k.disk = &checkpoint.Disk{FS: s.fs, Dir: s.cfg.Dir, Log: s.log, Sync: s.syncs.syncFile, SyncDir: s.syncs.syncDir, IsFull: isFull}
	k.checkpoint = checkpoint.NewPair(k.disk, checkpointName)
	k.base = checkpoint.NewPair(k.disk, pointsName)
	now := time.Now()
	k.retainAt, k.strayAt = now.Add(s.cfg.RetentionEvery), now.Add(strayEvery)
	if s.cfg.Scrub > 0 {
		k.scrubAt = now.Add(scrubDelay)
	}
}

func (k *keeper) wakeUp() {
	select {
	case k.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// listLog has the next checkpoint look at a log. The log's pub may be held.
func (k *keeper) listLog(l *Log) {
	k.mu.Lock()
	k.listed = append(k.listed, l)
	first := len(k.listed) == 1
	if first {
		k.since = time.Now()
	}
	k.mu.Unlock()
	if first {
		k.wakeUp()
	}
}

// countWritten counts appended bytes; wantsSync is true where a log wants to be synced now.
func (k *keeper) countWritten(n int64, wantsSync bool) {
	if k.bytes.Add(n) >= CheckpointBytes || wantsSync {
		k.checkpointSoon()
	}
}

// checkpointSoon has a checkpoint made without waiting for its time.
func (k *keeper) checkpointSoon() {
	if !k.urgent.Swap(true) {
		k.wakeUp()
	}
}

// checkpointLater has a checkpoint made at its time even if no log changes.
func (k *keeper) checkpointLater() {
	k.mu.Lock()
	first := !k.redo && len(k.listed) == 0
	if first {
		k.since = time.Now()
	}
	k.redo = true
	k.mu.Unlock()
	if first {
		k.wakeUp()
	}
}

// retainSoon has retention looked at for a log that has just grown by a segment: so its size
// does not depend on how often that is done for all.
func (k *keeper) retainSoon(l *Log) {
	k.mu.Lock()
	k.crowded = append(k.crowded, l)
	k.mu.Unlock()
	k.wakeUp()
}

// noteWritten tells what the journal wants after a round.
func (k *keeper) noteWritten(late, fill bool) {
	if fill {
		k.mu.Lock()
		k.fill = true
		k.mu.Unlock()
		k.wakeUp()
	}
	if late {
		k.checkpointSoon()
	}
}

func (k *keeper) isCheckpointUrgent() bool { return k.urgent.Load() || k.s.closing.Load() }

func (k *keeper) runLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-k.s.quit:
			return
		case <-k.wake:
		case <-timer.C:
		}
		timer.Reset(k.doDueWork())
	}
}

// isTime tells whether a time has come, and sets it to the next one.
func isTime(at *time.Time, now, next time.Time) bool {
	if at.IsZero() || now.Before(*at) {
		return false
	}
	*at = next
	return true
}

// doDueWork does the work that is due and returns the time until other work is.
func (k *keeper) doDueWork() time.Duration {
	now := time.Now()
	k.mu.Lock()
	fill, sweep, crowded := k.fill, k.sweep, k.crowded
	k.fill, k.sweep, k.crowded = false, nil, nil
	due := (len(k.listed) > 0 || k.redo) && now.Sub(k.since) >= k.s.cfg.CheckpointEvery
	k.mu.Unlock()
	if fill {
		k.s.background(func() { k.s.journal.Fill(&k.s.closing) })
	}
	if sweep != nil {
		k.s.sweepDirs(sweep)
	}
	for _, l := range crowded {
		k.s.retainOne(l, now)
	}
	k.run.Lock()
	waiting := isTime(&k.waitingAt, now, now.Add(waitingEvery))
	retain := isTime(&k.retainAt, now, now.Add(k.s.cfg.RetentionEvery))
	scrub := isTime(&k.scrubAt, now, time.Time{})
	strays := isTime(&k.strayAt, now, now.Add(strayEvery))
	k.run.Unlock()
	if scrub {
		k.s.background(k.runScrub)
	}
	if waiting {
		k.s.recoverWaiting()
	}
	if retain {
		k.s.commit.shrinkImages()
		k.s.retain(now)
	}
	if strays {
		k.s.removeOldStrays(now)
	}
	if k.urgent.Swap(false) || due {
		k.checkpointNow()
	}
	k.removeDue(time.Now())
	return k.untilNext()
}

// runScrub runs one pass and says when the next one begins.
func (k *keeper) runScrub() {
	next := time.Now().Add(scrubEvery)
	k.s.scrub(k.s.cfg.Scrub)
	k.run.Lock()
	k.scrubAt = next
	k.run.Unlock()
	k.wakeUp()
}

func (k *keeper) untilNext() time.Duration {
	k.run.Lock()
	next := k.retainAt
	for _, at := range []time.Time{k.waitingAt, k.scrubAt, k.strayAt} {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	k.run.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if at := k.since.Add(k.s.cfg.CheckpointEvery); (len(k.listed) > 0 || k.redo) && at.Before(next) {
		next = at
	}
	for _, r := range k.removals {
		if r.at.Before(next) {
			next = r.at
		}
	}
	return max(time.Until(next), 0)
}

// checkpointNow makes one checkpoint: it syncs the files that changed, then writes down
// where a recovery begins and how far each log is on disk, then gives back what that makes
// superfluous: files of the journal, segments, directories.
func (k *keeper) checkpointNow() {
	k.run.Lock()
	defer k.run.Unlock()
	if err := k.checkpointLocked(nil); err != nil {
		k.s.log.Error("a checkpoint failed; it is tried again", "err", err)
		k.checkpointLater()
	}
}

// checkpointLocked makes a checkpoint; last has the logs to be closed, nil while the store is
// in use. The journal's mark moves to where the checkpoint began, but not beyond rounds with
// bytes that some log's files may lack. run is held.
func (k *keeper) checkpointLocked(last []*Log) error {
	s := k.s
	k.findLeavingRounds()
	at := s.journal.BeginCheckpoint()
	k.bytes.Store(0)
	k.mu.Lock()
	logs, recovered := k.listed, k.recovered
	k.listed, k.recovered, k.redo = nil, nil, false
	k.mu.Unlock()
	for _, l := range logs {
		k.unlistLog(l)
	}
	oldest := at.Round
	if left := k.syncRecovered(recovered); len(left) > 0 {
		k.mu.Lock()
		k.recovered = append(k.recovered, left...)
		k.mu.Unlock()
		k.checkpointLater()
		oldest = min(oldest, k.previous.Round)
	}
	if k.heldFrom > 0 {
		oldest = min(oldest, k.heldFrom)
	}
	if last != nil {
		logs = last
	}
	k.syncLogs(logs, last != nil)
	k.mu.Lock()
	tainted := slices.Clone(k.tainted)
	k.mu.Unlock()
	for _, l := range append(logs, tainted...) {
		oldest = min(oldest, oldestRound(l, at.Round))
	}
	if s.hasWaiting() {
		oldest = min(oldest, k.previous.Round)
	}
	if oldest < at.Round {
		at = s.journal.MarkBefore(oldest)
	}
	if err := k.saveCheckpoint(at); err != nil {
		return err
	}
	k.removeSuperfluous()
	for _, l := range logs {
		l.removeOldSnapshots()
	}
	if last == nil {
		s.commit.shrinkImages()
	}
	return nil
}

// unlistLog notes that no checkpoint has a log on its list.
func (*keeper) unlistLog(l *Log) {
	l.pub.Lock()
	defer l.pub.Unlock()
	l.due.listed = false
}

// oldestRound is the first round of the journal that may have bytes which the log's files
// lack; none: there is no such round.
func oldestRound(l *Log, none uint64) uint64 {
	l.pub.Lock()
	defer l.pub.Unlock()
	if l.due.journal == 0 || logState(l.state.Load()) == logDeleted {
		return none
	}
	return l.due.journal
}

// syncLogs has each log make itself durable.
func (k *keeper) syncLogs(logs []*Log, last bool) {
	if len(logs) >= k.s.cfg.SyncTogether && k.s.volume.isUsable() {
		logs = k.syncAsVolume(logs, last)
	}
	if last {
		runParallelOn(closers, len(logs), func(i int) { k.syncLog(logs[i], true) })
		return
	}
	for len(logs) > 0 {
		n := startWriting(logs)
		var synced atomic.Int64
		sync := func(i int) { synced.Add(int64(k.syncLog(logs[i], false))) }
		hurry := k.isCheckpointUrgent()
		if hurry {
			runParallel(n, sync)
		} else {
			for i := range n {
				sync(i)
			}
		}
		if !hurry && synced.Load() > 0 {
			time.Sleep(restFor)
		}
		logs = logs[n:]
	}
}

// startWriting has the system begin to write what the syncs of the first few logs will wait
// for, and returns how many those are. So the files' bytes and sizes go out together and not
// one after the other, which halves a checkpoint's time; not more at a time, or a round's
// sync would wait behind them (BenchmarkCommit).
func startWriting(logs []*Log) int {
	bytes := int64(0)
	for i, l := range logs[:min(len(logs), togetherFiles)] {
		bytes += l.startWriting()
		if bytes >= togetherBytes {
			return i + 1
		}
	}
	return min(len(logs), togetherFiles)
}

// syncLog has one log make itself durable, and returns how many files were synced.
func (k *keeper) syncLog(l *Log, last bool) (synced int) {
	synced, err := l.makeDurable(last)
	if err != nil {
		k.handleFailure(l, err)
	}
	return synced
}

// handleFailure deals with a log that could not be made durable.
func (k *keeper) handleFailure(l *Log, err error) {
	switch classify(err) {
	case none, gone:
	case full, transient:
		l.s.noteRefusal(err)
		l.pub.Lock()
		l.listLocked()
		l.pub.Unlock()
	case tainted:
		if logState(l.state.Load()) == logDeleted {
			return
		}
		if !errors.Is(err, ErrFaulted) {
			l.taint(err)
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if !slices.Contains(k.tainted, l) {
			k.tainted = append(k.tainted, l)
		}
	}
}

// saveCheckpoint writes the checkpoint file, and before it all points where too many changed.
func (k *keeper) saveCheckpoint(at checkpoint.Mark) error {
	s := k.s
	sheet := checkpoint.Sheet{Journal: s.journal.ID(), At: at, Metadata: s.metadata.Load()}
	points, many := s.points.Changed()
	if many {
		all := sheet
		all.Points = s.points.All()
		if err := k.base.Save(&all); err != nil {
			return fmt.Errorf("writing the points file: %w", err)
		}
		s.points.NoteWritten(all.Points)
		points, _ = s.points.Changed() // those that changed meanwhile, however many, and those that a rotten file would lack
	}
	sheet.Points = points
	if err := k.checkpoint.Save(&sheet); err != nil {
		return fmt.Errorf("writing the checkpoint file: %w", err)
	}
	s.remembered.Store(sheet.Metadata)
	// The file before this one may be needed, should this one rot: so the rounds that may go
	// are those that came before that one.
	s.journal.Recycle(min(k.previous.Round, at.Round))
	s.journal.AllowWrites()
	s.log.Debug("a checkpoint was saved", "at", at, "points", len(points))
	k.older, k.previous = k.previous, at
	k.saves++
	return nil
}

// savePoints writes both checkpoint files as they are, without syncing logs, so that a start that
// moved lasts: with one of them alone, the start would be gone if that one rots.
func (k *keeper) savePoints() error {
	k.run.Lock()
	defer k.run.Unlock()
	if err := k.saveCheckpoint(k.previous); err != nil {
		return err
	}
	return k.saveCheckpoint(k.previous)
}

// checkpointLast is the last checkpoint: all logs are on disk whole, with their producers and
// indexes, so that the next start reads nothing else.
func (k *keeper) checkpointLast(opened []*Log) error {
	k.run.Lock()
	defer k.run.Unlock()
	if opened == nil {
		opened = []*Log{}
	}
	err := k.checkpointLocked(opened)
	if err == nil { // all points in one place
		all := checkpoint.Sheet{Journal: k.s.journal.ID(), At: k.previous, Metadata: k.s.metadata.Load(), Points: k.s.points.All()}
		if err = k.base.Save(&all); err == nil {
			k.s.points.NoteWritten(all.Points)
			err = k.saveCheckpoint(k.previous)
		}
	}
	if err == nil {
		err = k.s.replaceFile(k.s.pathOf(startFile), encodeStarts(k.s.allLogs()), true)
	}
	if err == nil {
		err = k.s.syncs.syncDir(k.s.cfg.Dir)
	}
	if isFull(err) {
		k.s.log.Warn("there is no room for the last checkpoint: the next start reads the journal instead", "err", err)
		return nil
	}
	return err
}

// startFile is Kafka's file of the starts that no segment's name tells; its tools and
// brokers read it. This package has the starts in its points.
const startFile = "log-start-offset-checkpoint"

// encodeStarts is the contents of that file.
func encodeStarts(logs []*Log) []byte {
	var lines []byte
	n := 0
	for _, l := range logs {
		segs, start := l.segments(), record.Offset(l.start.Load())
		if len(segs) > 0 && start > segs[0].Base() {
			topic := strings.TrimSuffix(l.name, fmt.Sprintf("-%d", l.id.Partition))
			lines = fmt.Appendf(lines, "%s %d %d\n", topic, l.id.Partition, start)
			n++
		}
	}
	return append(fmt.Appendf(nil, "0\n%d\n", n), lines...)
}
