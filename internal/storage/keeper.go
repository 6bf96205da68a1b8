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

	// CheckpointBytes is the number of appended bytes after which a checkpoint begins without
	// waiting for its time.
	CheckpointBytes = 256 << 20

	togetherFiles = 16               // files that a checkpoint syncs together, about
	togetherBytes = 4 << 20          // unsynced bytes that a checkpoint syncs together, about
	restFor       = time.Millisecond // pause between two such groups, unless the checkpoint is urgent

	waitingEvery = time.Second // between two tries of a recovery that found no room, or of a removal that failed
	strayEvery   = time.Hour   // between two searches for directories that were set aside long ago
)

// Recovery begins with these two pairs of files.
const (
	checkpointName = "checkpoint"
	pointsName     = "points"
)

// admissions are of what older versions cannot read: a checkpoint that says so comes first.
type admissions struct {
	txns admission
	cuts admission
}

// keeper is the store's background goroutine: checkpoints, retention, removal of files.
type keeper struct {
	s    *Store
	wake chan struct{} // size 1

	bytes  atomic.Int64 // appended since the last checkpoint
	urgent atomic.Bool  // a checkpoint is wanted now
	admissions

	mu        sync.Mutex
	listed    []*Log          // guarded by mu: logs that the next checkpoint looks at
	since     time.Time       // guarded by mu: when the first of them was listed, or redo was set
	redo      bool            // guarded by mu: a checkpoint is wanted even if no log changed
	fill      bool            // guarded by mu: the journal's ring is to be filled
	crowded   []*Log          // guarded by mu: logs of which retention by size can remove whole segments
	dropped   []droppedFile   // guarded by mu: segments below their log's start, which are to be removed
	leaving   []leavingLog    // guarded by mu: deleted logs of which something is left
	removals  []removal       // guarded by mu
	recovered []recoveredFile // guarded by mu: files that recovery wrote or compared, and no checkpoint has synced
	sweep     *sweep          // guarded by mu: see Store.Sweep

	run        turn // one checkpoint at a time; before Log.mu
	disk       *checkpoint.Disk
	checkpoint *checkpoint.Pair // guarded by run
	base       *checkpoint.Pair // guarded by run
	previous   checkpoint.Mark  // guarded by run: where recovery begins with the newest checkpoint file
	older      checkpoint.Mark  // guarded by run: where recovery begins with the checkpoint file before that one
	saves      int              // guarded by run: checkpoints that were saved
	heldFrom   uint64           // guarded by run: rounds from this one on stay in the journal, since a file that recovery wrote could not be synced; 0: none must stay
	tainted    []*Log           // guarded by mu: logs whose bytes must stay in the journal, since their files cannot be trusted
	retainAt   time.Time        // guarded by run
	scrubAt    time.Time        // guarded by run: when the next scrub begins; zero: one is running, or scrub is off
	waitingAt  time.Time        // guarded by run: when a recovery that found the disk full is tried again; zero: none did
	strayAt    time.Time        // guarded by run
	failedAt   time.Time        // guarded by run: when the log told last that checkpoints fail; zero: they do not
}

// droppedFile is a segment that is to be removed. Both checkpoint files must have its log's new
// start before, so that recovery does not miss the segment, whichever file it begins with.
type droppedFile struct {
	l     *Log
	g     *segment.Segment
	after int // checkpoints that must be saved first, as keeper.saves counts them; -1: the log's point does not have the start yet
}

// leavingLog is a deleted log of which something is left. Store.Delete draws its states.
type leavingLog struct {
	id    LogID
	dir   string // the name that its directory had; "": none of that name is its own
	aside string // the name that its directory has now; "": it had none, or could not be renamed
	// keepsPoint says that its point is to be forgotten as soon as its directories are renamed
	// durably, and not before: until then a power cut may bring them back.
	keepsPoint bool
	hasTails   bool   // its tails could not be discarded yet
	round      uint64 // the journal has bytes of the log only in rounds before this one; 0: it is not known yet
	after      int    // checkpoints that must be saved first, so that neither file has the log's point, as keeper.saves counts them
}

// removal is a file or directory to be removed at its time.
type removal struct {
	path    string
	at      time.Time
	delayed bool  // nothing needs the file until then but people and tools, so a full disk ends its time
	inside  bool  // remove only the files in the directory, since its name is still needed
	of      LogID // the deleted log of which this directory is the last trace; zero: there is none
}

// isDue tells whether the time has come for a removal.
func (r *removal) isDue(now time.Time, isFull bool) bool {
	return !r.at.After(now) || r.delayed && isFull
}

// turn is a mutex that is held for long: a checkpoint waits for the disk, and rests, while it has it.
type turn struct {
	taken   chan struct{} // of size 1
	waiting atomic.Int32
}

// Lock waits for the turn.
func (t *turn) Lock() {
	t.waiting.Add(1)
	t.taken <- struct{}{}
	t.waiting.Add(-1)
}

// Unlock ends the turn.
func (t *turn) Unlock() { <-t.taken }

// isWanted tells whether somebody waits for the turn.
func (t *turn) isWanted() bool { return t.waiting.Load() > 0 }

func (k *keeper) init(s *Store) {
	k.run.taken = make(chan struct{}, 1)
	k.s = s
	k.wake = make(chan struct{}, 1)
	k.txns.saved, k.cuts.saved = make(chan struct{}), make(chan struct{})
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
	default: // a wake-up is pending already
	}
}

// listLog puts a log on the list of the next checkpoint. The caller may hold the log's pub.
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

// countWritten counts appended bytes. wantsSync says that a log wants to be synced now.
func (k *keeper) countWritten(n int64, wantsSync bool) {
	k.s.cleaner.appended.Add(n)
	if k.bytes.Add(n) >= CheckpointBytes || wantsSync {
		k.checkpointSoon()
	}
}

// checkpointSoon starts a checkpoint without waiting for its time.
func (k *keeper) checkpointSoon() {
	if !k.urgent.Swap(true) {
		k.wakeUp()
	}
}

// checkpointLater makes sure that there is a checkpoint at its time, even if no log changes.
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

// retainIfExceeded has retention applied soon to a log that has just grown by a segment, if its
// size calls for it. So the log's size does not depend on how often retention is applied to all
// logs.
func (k *keeper) retainIfExceeded(l *Log) {
	if !(&retention{l: l}).isExceeded() {
		return
	}
	k.mu.Lock()
	k.crowded = append(k.crowded, l)
	k.mu.Unlock()
	k.wakeUp()
}

// noteWritten is told after each round whether a checkpoint is due, and whether the journal's ring
// is to be filled.
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

func (k *keeper) isCheckpointUrgent() bool {
	return k.urgent.Load() || k.run.isWanted() || k.s.closing.Load()
}

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

// advanceIfDue tells whether a time has come. If so, it moves the time to the next one.
func advanceIfDue(at *time.Time, now, next time.Time) bool {
	if at.IsZero() || now.Before(*at) {
		return false
	}
	*at = next
	return true
}

// doDueWork does the work that is due and returns how long the keeper can wait for more.
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
	waiting := advanceIfDue(&k.waitingAt, now, now.Add(waitingEvery))
	retain := advanceIfDue(&k.retainAt, now, now.Add(k.s.cfg.RetentionEvery))
	scrub := advanceIfDue(&k.scrubAt, now, time.Time{})
	strays := advanceIfDue(&k.strayAt, now, now.Add(strayEvery))
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
	k.s.producers.boundIfDue(now, retain)
	if strays {
		removeOldStrays(k.s, now)
	}
	if k.urgent.Swap(false) || due {
		k.checkpointNow()
	}
	k.removeDue(time.Now())
	return k.untilNext()
}

// runScrub verifies all logs once and sets the time of the next pass.
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
	next = k.s.producers.before(next)
	now, full := time.Now(), k.s.IsFull()
	k.mu.Lock()
	defer k.mu.Unlock()
	if at := k.since.Add(k.s.cfg.CheckpointEvery); (len(k.listed) > 0 || k.redo) && at.Before(next) {
		next = at
	}
	for _, r := range k.removals {
		if r.isDue(now, full) {
			return 0
		}
		if r.at.Before(next) {
			next = r.at
		}
	}
	return max(time.Until(next), 0)
}

// checkpointNow makes one checkpoint. It syncs the files that changed, saves where recovery begins
// and how much of each log is on disk, and then removes the files of the journal, segments and
// directories that no recovery needs any more.
func (k *keeper) checkpointNow() {
	k.run.Lock()
	defer k.run.Unlock()
	if err := k.checkpointLocked(nil); err != nil {
		if time.Since(k.failedAt) >= complainEvery {
			k.s.log.Error("checkpoints fail; they are tried again each second, and this line comes again after a minute", "err", err)
			k.failedAt = time.Now()
		}
		k.checkpointLater()
		return
	}
	if !k.failedAt.IsZero() {
		k.s.log.Info("checkpoints succeed again")
		k.failedAt = time.Time{}
	}
}

// complainEvery is how often the log tells that checkpoints fail.
const complainEvery = time.Minute

// checkpointLocked makes a checkpoint. last has the logs of a store that closes; it is nil while
// the store is in use. The journal's mark moves to where the checkpoint began, but not past rounds
// with bytes that some log's files may lack. The caller holds run.
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
		removeOldSnapshots(l)
	}
	if last != nil {
		return nil
	}
	s.commit.shrinkImages()
	for _, l := range logs {
		endCaching(l)
	}
	if err := s.cfg.Run.Flush(); err != nil {
		return fmt.Errorf("noting that topics are durable: %w", err)
	}
	return nil
}

// unlistLog notes that the log is on no checkpoint's list.
func (*keeper) unlistLog(l *Log) {
	l.pub.Lock()
	defer l.pub.Unlock()
	l.due.listed = false
}

// oldestRound is the first round of the journal with bytes that the log's files may lack. It is
// none if there is no such round.
func oldestRound(l *Log, none uint64) uint64 {
	l.pub.Lock()
	defer l.pub.Unlock()
	if l.due.journal == 0 || logState(l.state.Load()) == logDeleted {
		return none
	}
	return l.due.journal
}

// syncLogs makes each log durable.
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

// startWriting asks the system to begin writing the bytes that the next syncs will wait for. It
// does so for the first few logs and returns how many those are. The bytes and sizes of their files
// are then written together and not one after the other, which halves a checkpoint's time. The
// number of logs is bounded, since a round's sync would wait behind all of their bytes
// (BenchmarkCommit).
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

// syncLog makes one log durable, and returns how many files were synced.
func (k *keeper) syncLog(l *Log, last bool) (synced int) {
	synced, err := l.makeDurable(last)
	if err != nil {
		k.handleFailure(l, err)
	}
	return synced
}

// handleFailure deals with a log that could not be made durable. The next checkpoint tries again if
// that can help. If not, the log is read-only and the journal keeps its bytes.
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

// saveCheckpoint writes the checkpoint file. If too many points changed, it writes all points to
// the points file first.
func (k *keeper) saveCheckpoint(at checkpoint.Mark) error {
	s := k.s
	sheet := checkpoint.Sheet{Journal: s.journal.ID(), At: at, Metadata: s.metadata.Load(), Transactional: k.txns.wanted.Load(), Cut: k.cuts.wanted.Load()}
	points, many := s.points.Changed()
	if many {
		all := sheet
		all.Points = s.points.All()
		if err := k.base.Save(&all); err != nil {
			return fmt.Errorf("writing the points file: %w", err)
		}
		s.points.NoteWritten(all.Points)
		points, _ = s.points.Changed() // however many changed meanwhile, and those that the older points file lacks, in case the newer one rots
	}
	sheet.Points = points
	if err := k.checkpoint.Save(&sheet); err != nil {
		return fmt.Errorf("writing the checkpoint file: %w", err)
	}
	s.remembered.Store(sheet.Metadata)
	noteSaved(k, &sheet)
	// Recovery begins with the file before this one if this one rots, so only rounds before the
	// mark of that file may be recycled.
	s.journal.Recycle(min(k.previous.Round, at.Round))
	s.journal.AllowWrites()
	s.log.Debug("a checkpoint was saved", "at", at, "points", len(points))
	k.older, k.previous = k.previous, at
	k.saves++
	return nil
}

// savePoints writes both checkpoint files without syncing logs, so that a start that moved is
// durable. If only one file had the start, it would be gone as soon as that file rots.
func (k *keeper) savePoints() error {
	k.run.Lock()
	defer k.run.Unlock()
	if err := k.saveCheckpoint(k.previous); err != nil {
		return err
	}
	return k.saveCheckpoint(k.previous)
}

// checkpointLast makes the last checkpoint. It puts all logs on disk whole, with their producers
// and indexes, so that the next start reads nothing else.
func (k *keeper) checkpointLast(opened []*Log) error {
	k.run.Lock()
	defer k.run.Unlock()
	if opened == nil {
		opened = []*Log{}
	}
	err := k.checkpointLocked(opened)
	if err == nil { // the points file gets all points
		all := checkpoint.Sheet{
			Journal: k.s.journal.ID(), At: k.previous, Metadata: k.s.metadata.Load(), Points: k.s.points.All(),
			Transactional: k.txns.wanted.Load(), Cut: k.cuts.wanted.Load(),
		}
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

// startFile is Kafka's file of those log starts that no segment's name tells, since they lie within
// a segment. Kafka's tools and brokers read it. This package keeps the starts in its points.
const startFile = "log-start-offset-checkpoint"

// encodeStarts encodes the contents of startFile.
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
