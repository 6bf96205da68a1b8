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
	"github.com/leatstream/leat/internal/vfs"
)

const (
	closers         = 32               // goroutines that sync logs at the same time when a store closes
	checkpointBytes = 256 << 20        // appended, after which a checkpoint does not wait for its time
	togetherFiles   = 16               // that a checkpoint syncs at a time, about
	togetherBytes   = 4 << 20          // and how many bytes
	restFor         = time.Millisecond // between those, where it has time
)

// keeper is the store's background goroutine: checkpoints, retention, deletion.
type keeper struct {
	s    *Store
	wake chan struct{} // size 1

	bytes  atomic.Int64 // appended since the last checkpoint
	hasten atomic.Bool  // a checkpoint is wanted now

	mu       sync.Mutex
	changed  []*Log           // guarded by mu: logs that the next checkpoint looks at
	since    time.Time        // guarded by mu: when the first of them came
	redo     bool             // guarded by mu: the last checkpoint failed
	fill     bool             // guarded by mu: the journal's filler is to be started
	full     []*Log           // guarded by mu: logs with segments that retention by size drops
	dead     []*segment       // guarded by mu: below their log's start; removable once a checkpoint says so
	doomed   []string         // guarded by mu: directories of deleted logs
	removals []removal        // guarded by mu
	replayed []replayedFile   // guarded by mu: written by recovery and not synced
	sweep    func(LogID) bool // guarded by mu: see Store.Sweep

	run        sync.Mutex // one checkpoint at a time; before Log.mu
	checkpoint pair       // guarded by run
	base       pair       // guarded by run
	previous   mark       // guarded by run: where recovery begins by the newest checkpoint
	retainAt   time.Time  // guarded by run
	scrubAt    time.Time  // guarded by run: when the next pass of scrub begins; zero: one is under way, or never
	retryAt    time.Time  // guarded by run: when a recovery that found the disk full goes on; zero: it did not
}

// removal is a file or directory to be removed at its time.
type removal struct {
	path   string
	at     time.Time
	inside bool // a directory's files only: its name is needed
}

func (k *keeper) init(s *Store) {
	k.s = s
	k.wake = make(chan struct{}, 1)
	k.checkpoint.name, k.base.name = "checkpoint", "points"
	k.retainAt = time.Now().Add(s.cfg.RetentionEvery)
	if s.cfg.Scrub > 0 {
		k.scrubAt = time.Now().Add(scrubDelay)
	}
}

func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// add notes that a log changed. Its pub may be held.
func (k *keeper) add(l *Log) {
	k.mu.Lock()
	k.changed = append(k.changed, l)
	first := len(k.changed) == 1
	if first {
		k.since = time.Now()
	}
	k.mu.Unlock()
	if first {
		k.poke()
	}
}

// written counts appended bytes; now is true where a log wants to be synced.
func (k *keeper) written(n int64, now bool) {
	if k.bytes.Add(n) >= checkpointBytes || now {
		k.hurry()
	}
}

// hurry has a checkpoint made without waiting for its time.
func (k *keeper) hurry() {
	if !k.hasten.Swap(true) {
		k.poke()
	}
}

// drop has retention looked at for a log that has just grown by a segment: so its
// size does not depend on how often that is done for all, and files are at hand for
// its next segments.
func (k *keeper) drop(l *Log) {
	k.mu.Lock()
	k.full = append(k.full, l)
	k.mu.Unlock()
	k.poke()
}

// journaled tells what the journal wants after a round.
func (k *keeper) journaled(late, fill bool) {
	if fill {
		k.mu.Lock()
		k.fill = true
		k.mu.Unlock()
		k.poke()
	}
	if late {
		k.hurry()
	}
}

func (k *keeper) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-k.s.quit:
			return
		case <-k.wake:
		case <-timer.C:
		}
		timer.Reset(k.step())
	}
}

// step does what is due and returns the time until something else is.
func (k *keeper) step() time.Duration {
	k.mu.Lock()
	fill, sweep, crowded := k.fill, k.sweep, k.full
	k.fill, k.sweep, k.full = false, nil, nil
	due := (len(k.changed) > 0 || k.redo) && time.Since(k.since) >= k.s.cfg.CheckpointEvery
	k.mu.Unlock()
	if fill {
		k.s.background(k.s.journal.fill)
	}
	if sweep != nil {
		k.s.sweepDirs(sweep)
	}
	for _, l := range crowded {
		k.s.retainOne(l, time.Now())
	}
	k.run.Lock()
	retry := !k.retryAt.IsZero() && !time.Now().Before(k.retryAt)
	retain := !time.Now().Before(k.retainAt)
	if retain {
		k.retainAt = time.Now().Add(k.s.cfg.RetentionEvery)
	}
	scrub := !k.scrubAt.IsZero() && !time.Now().Before(k.scrubAt)
	if scrub {
		k.scrubAt = time.Time{}
	}
	k.run.Unlock()
	if scrub {
		k.s.background(k.scrub)
	}
	if retry {
		k.s.thaw()
	}
	if retain {
		k.s.commit.relax()
		k.s.retain(time.Now())
	}
	if k.hasten.Swap(false) || due {
		k.checkpointNow()
	}
	k.removeDue(time.Now())
	return k.untilNext()
}

// scrub runs one pass and says when the next one begins.
func (k *keeper) scrub() {
	next := time.Now().Add(scrubEvery)
	k.s.scrub(k.s.cfg.Scrub)
	k.run.Lock()
	k.scrubAt = next
	k.run.Unlock()
	k.poke()
}

func (k *keeper) untilNext() time.Duration {
	k.run.Lock()
	next := k.retainAt
	for _, at := range []time.Time{k.retryAt, k.scrubAt} {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	k.run.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if at := k.since.Add(k.s.cfg.CheckpointEvery); (len(k.changed) > 0 || k.redo) && at.Before(next) {
		next = at
	}
	for _, r := range k.removals {
		if r.at.Before(next) {
			next = r.at
		}
	}
	return max(time.Until(next), 0)
}

// checkpointNow makes one checkpoint: it syncs what changed, then writes down where
// a recovery begins and how far each log is on disk, then gives back what that
// makes superfluous: journal files, segments.
func (k *keeper) checkpointNow() {
	k.run.Lock()
	defer k.run.Unlock()
	if err := k.checkpointLocked(false); err != nil {
		k.s.log.Error("a checkpoint failed; it is tried again", "err", err)
		k.again()
	}
}

// again has a checkpoint made after a while even if nothing changes.
func (k *keeper) again() {
	k.mu.Lock()
	k.redo, k.since = true, time.Now()
	k.mu.Unlock()
}

func (k *keeper) checkpointLocked(last bool) error {
	s := k.s
	at := s.journal.here()
	k.bytes.Store(0)
	s.late.turn()
	held := s.restoreAll()
	k.mu.Lock()
	logs, dead, doomed, replayed := k.changed, k.dead, k.doomed, k.replayed
	k.changed, k.dead, k.doomed, k.replayed, k.redo = nil, nil, nil, nil, false
	k.mu.Unlock()
	if held {
		k.again()
	}
	if last {
		logs = s.all()
	}
	if err := s.syncReplayed(replayed); err != nil {
		k.mu.Lock()
		k.replayed = append(k.replayed, replayed...)
		k.mu.Unlock()
		s.journal.pin()
		s.log.Error("what recovery wrote could not be made durable; the journal keeps it", "err", err)
	}
	hold := k.syncLogs(logs, last) || held
	if hold {
		at = k.previous
	}
	err := k.save(at)
	// Of a journal that is lost the round that failed may be whole, and recovery reads it.
	pinned := s.journal.isPinned() || s.journal.lost.Load()
	if err != nil || hold || pinned { // the journal still has what is to be removed
		k.mu.Lock()
		k.doomed = append(k.doomed, doomed...)
		k.mu.Unlock()
		doomed = nil
	}
	stay := func(g *segment) bool { // the log's point is an old one, or the journal could bring back segments without one
		return err != nil || hold || pinned && !g.log.vouched()
	}
	for _, g := range dead {
		if stay(g) {
			k.bury([]*segment{g})
		}
	}
	dead = slices.DeleteFunc(dead, stay)
	k.clear(dead, doomed)
	if !last {
		s.commit.relax()
		s.commit.run() // some log may have waited for this
	}
	return err
}

// syncLogs has each log make itself durable. hold is true where one could not, for
// want of space: what the journal has of it must stay.
func (k *keeper) syncLogs(logs []*Log, last bool) (hold bool) {
	if len(logs) >= k.s.cfg.atOnce && k.s.volume.usable() {
		if logs, hold = k.syncAtOnce(logs, last); len(logs) == 0 {
			return hold
		}
	}
	if last && len(logs) > closers {
		return k.syncTogether(logs) || hold
	}
	for len(logs) > 0 {
		n := startWriting(logs)
		var held, synced atomic.Int64
		sync := func(i int) {
			h, n := k.syncLog(logs[i], last)
			if h {
				held.Add(1)
			}
			synced.Add(int64(n))
		}
		hurry := k.hasten.Load() || k.s.closing.Load() || last
		if hurry {
			spread(n, sync)
		} else {
			for i := range n {
				sync(i)
			}
		}
		hold = hold || held.Load() > 0
		if !hurry && synced.Load() > 0 {
			time.Sleep(restFor)
		}
		logs = logs[n:]
	}
	return hold
}

// startWriting has the system begin to write what the syncs of the first few logs
// will wait for, and returns how many those are. So the files' bytes and sizes go
// out together and not one after the other, which halves a checkpoint's time; not
// more at a time, or a round's sync would wait behind them (BenchmarkCommit).
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

// startWriting begins to write what a sync of the active segment will wait for, and
// returns how many bytes those are.
func (l *Log) startWriting() int64 {
	if !l.ready.Load() || l.gone.Load() || !l.options().durable() {
		return 0
	}
	l.pub.Lock()
	g, from, n := l.activeLocked(), int64(0), int64(0)
	if g != nil {
		from, n = g.synced, g.size-g.synced
	}
	l.pub.Unlock()
	if n == 0 {
		return 0
	}
	h, err := g.open()
	if err != nil {
		return 0 // the sync will tell
	}
	defer h.drop()
	if f, ok := h.f.(vfs.Starter); ok {
		f.StartSync(from, n)
	}
	return n
}

// syncTogether does the same for the last time. Syncs that are asked for at the same
// time share the file system's own commits, so thousands of logs close in a moment.
func (k *keeper) syncTogether(logs []*Log) bool {
	var next, held atomic.Int64
	var all sync.WaitGroup
	for range closers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(logs)); i = next.Add(1) - 1 {
				if hold, _ := k.syncLog(logs[i], true); hold {
					held.Add(1)
				}
			}
		})
	}
	all.Wait()
	return held.Load() > 0
}

// syncLog has one log make itself durable, and sees to it where that fails.
func (k *keeper) syncLog(l *Log, last bool) (hold bool, synced int) {
	again, synced, err := l.checkpoint(last)
	return k.settle(l, again, err), synced
}

// settle deals with what became of one log: again is true where the next checkpoint
// must look at it, hold where what the journal has of it must stay.
func (k *keeper) settle(l *Log, again bool, err error) (hold bool) {
	switch {
	case full(err):
		l.pub.Lock()
		l.marks.changed, l.unwritten, again, hold = true, l.made, true, true
		l.pub.Unlock()
	case errors.Is(err, ErrClosed):
	case err != nil && !l.deleted.Load():
		l.fail(err)
		k.s.journal.pin() // it may be the only place that has what the log acknowledged
	}
	if again {
		k.add(l)
	}
	return hold
}

// clear removes what a checkpoint made superfluous.
func (k *keeper) clear(dead []*segment, doomed []string) {
	for _, dir := range doomed {
		k.remove(k.s.path(dir), 0)
	}
	for _, g := range dead {
		if g.log.unsound() {
			continue // its point is an old one
		}
		o, spare := g.log.options(), g.log.fits(g)
		after := o.FileDeleteDelay
		if spare && o.RetentionBytes >= 0 { // it drops as it grows
			after = max(after, spareFor)
		}
		err := g.log.change(func() error { return k.removeSegment(g, after) })
		if err == nil && spare {
			g.log.spare(g)
		}
		if err != nil && !errors.Is(err, ErrClosed) {
			k.s.log.Warn("a segment could not be removed", "log", g.log.dir, "segment", int64(g.base), "err", err)
		}
	}
}

// save writes the checkpoint file, and before it all points where too many changed.
func (k *keeper) save(at mark) error {
	s := k.s
	if s.journal.isPinned() {
		at = k.previous
	}
	h := sheet{boot: s.cfg.BootID, journal: s.journal.id, at: at}
	hot, many := s.points.changed()
	if many {
		all := h
		all.points = s.points.everything()
		if err := k.base.save(s, &all); err != nil {
			return fmt.Errorf("writing the points file: %w", err)
		}
		s.points.settle(all.points)
		hot, _ = s.points.changed()
	}
	h.points = hot
	if err := k.checkpoint.save(s, &h); err != nil {
		return fmt.Errorf("writing the checkpoint file: %w", err)
	}
	// The file before this one may be needed, should this one rot: so what may go
	// is what came before that one.
	s.journal.recycle(k.previous.number)
	s.journal.known.Store(true)
	s.journal.base.Store(at.number)
	k.previous = at
	return nil
}

// savePoints writes the checkpoint file as it is, without syncing logs, so that
// what points.raise did lasts.
func (k *keeper) savePoints() error {
	k.run.Lock()
	defer k.run.Unlock()
	return k.save(k.previous)
}

// closing is the last checkpoint: all logs are on disk whole, with their producers
// and indexes, so that the next start reads nothing else.
func (k *keeper) closing() error {
	k.run.Lock()
	defer k.run.Unlock()
	err := k.checkpointLocked(true)
	if err == nil { // all points in one place
		all := sheet{boot: k.s.cfg.BootID, journal: k.s.journal.id, at: k.previous, points: k.s.points.everything()}
		if err = k.base.save(k.s, &all); err == nil {
			k.s.points.settle(all.points)
			err = k.save(k.previous)
		}
	}
	if err == nil {
		err = k.s.replace("", startFile, k.s.starts(), true)
	}
	if full(err) {
		k.s.log.Warn("there is no room for the last checkpoint: the next start reads the journal instead", "err", err)
		return nil
	}
	return err
}

// starts is log-start-offset-checkpoint's content: Kafka's tools and brokers take
// from it the starts that no file's name tells. This package has them in its points.
func (s *Store) starts() []byte {
	var lines []byte
	n := 0
	for _, l := range s.all() {
		l.pub.Lock()
		start := record.Offset(l.start.Load())
		if len(l.segs) > 0 && start > l.segs[0].base {
			topic := strings.TrimSuffix(l.dir, fmt.Sprintf("-%d", l.id.Partition))
			lines = fmt.Appendf(lines, "%s %d %d\n", topic, l.id.Partition, start)
			n++
		}
		l.pub.Unlock()
	}
	return append(fmt.Appendf(nil, "0\n%d\n", n), lines...)
}
