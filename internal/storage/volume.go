package storage

import (
	"errors"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

const (
	// syncTogether is the number of logs from which one sync of the whole volume costs less than
	// their own syncs. A new log takes five syncs, each of which commits the file system's journal
	// (BenchmarkClose).
	syncTogether = 64
	// idleBytes is how many bytes the other logs may have in the page cache. A sync of the volume
	// writes these, too, and a checkpoint must not wait for them.
	idleBytes = 64 << 20
	// restAfter is how many logs a checkpoint prepares before it pauses, unless it is urgent.
	restAfter = 64
)

// volume is the file system of the data directory. It is given up after any failed sync. A failed
// sync of the volume does not tell which file was not written, as a file's own sync does. A failed
// sync of a file or directory has consumed the error: a sync of the volume would then report that
// everything is on disk, even names that were lost.
type volume struct {
	mu sync.Mutex
	v  *vfs.Volume // guarded by mu; nil: it cannot be synced as a whole, or was given up
}

func (o *volume) openVolume(s *Store) {
	fs, ok := s.fs.(vfs.Volumer)
	if !ok || s.syncs.distrust { // after a failed sync, files must be written again before they are synced
		return
	}
	v, err := fs.Volume(s.cfg.Dir)
	if err != nil {
		if !errors.Is(err, vfs.ErrNoVolume) {
			s.log.Info("the file system cannot be synced as a whole; files are synced one by one", "err", err)
		}
		return
	}
	o.v = v
}

func (o *volume) isUsable() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.v != nil
}

// syncVolume makes everything durable that was written before the call.
func (s *Store) syncVolume() error {
	o := &s.volume
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.v == nil {
		return vfs.ErrNoVolume
	}
	if !s.syncs.failed.Load() {
		if err := o.v.Sync(); err != nil {
			s.log.Error("the file system could not be synced; files are synced one by one", "err", err)
			o.giveUpLocked()
			return s.syncs.noteFailure(err)
		}
	}
	if s.syncs.failed.Load() { // the failure was before this sync, or meanwhile
		s.log.Info("a sync failed; the file system is not synced as a whole any more, files are synced one by one")
		o.giveUpLocked()
		return vfs.ErrNoVolume
	}
	return nil
}

// giveUpLocked ends the use of the volume. The caller holds mu.
func (o *volume) giveUpLocked() {
	_ = o.v.Close() // an error would tell nothing new
	o.v = nil
}

func (o *volume) closeVolume() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.v != nil {
		o.giveUpLocked()
	}
}

// syncAsVolume makes many logs durable by one sync of the volume. If that is not possible or not
// worth it, it returns the logs that are to be synced one by one, as they were before.
func (k *keeper) syncAsVolume(logs []*Log, last bool) (rest []*Log) {
	var all []*syncing
	idle, dueBytes, begun := int64(0), int64(0), int64(0)
	for i, l := range logs {
		hurry := last || k.isCheckpointUrgent()
		if !hurry {
			// The system begins now to write what the sync will wait for. Otherwise all of it would
			// be written at once, and the sync of some round would wait behind it.
			begun += l.startWriting()
		}
		c, err := l.beginCheckpoint(last, false)
		if err != nil {
			k.handleFailure(l, err)
		}
		if c != nil {
			all = append(all, c)
			dueBytes += c.countUnsynced()
		} else if err == nil {
			idle += unsyncedBytes(l.segments())
		}
		if !hurry && (i%restAfter == restAfter-1 || begun >= togetherBytes) {
			time.Sleep(restFor)
			begun = 0
		}
	}
	if len(all) == 0 {
		return nil
	}
	if len(all) >= k.s.cfg.SyncTogether && idle <= max(idleBytes, dueBytes) && k.s.syncVolume() == nil {
		for _, c := range all {
			c.finishSync()
		}
		return nil
	}
	for _, c := range all {
		c.undoSync()
		rest = append(rest, c.l)
	}
	return rest
}

// startWriting asks the system to begin writing what a sync of the active segment will wait for. It
// returns how many bytes those are.
func (l *Log) startWriting() int64 {
	if !l.isOpen() || l.options().mode() != durable {
		return 0
	}
	if g := l.activeSegment(); g != nil {
		return g.StartSync()
	}
	return 0
}
