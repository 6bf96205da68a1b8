package storage

import (
	"errors"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

const (
	// syncTogether is how many logs to be synced make a sync of the whole volume the cheaper
	// way. A new log takes five syncs of its own, each a commit of the file system's journal
	// (BenchmarkClose).
	syncTogether = 64
	// idleBytes is how many bytes the other logs may have in the page cache alone: a sync of
	// the volume writes those, too, and a checkpoint must not wait for it.
	idleBytes = 64 << 20
	// restAfter is how many logs are prepared until a checkpoint that has time rests.
	restAfter = 64
)

// volume is the file system that the data directory lies on. It is given up after any sync
// that failed. After one of its own, since it cannot tell which file was not written, as each
// file's own sync does; after one of a file or a directory, since that took the error with it:
// a sync of the volume would say that everything is on disk, names that were lost included.
type volume struct {
	mu sync.Mutex
	v  *vfs.Volume // guarded by mu; nil: it cannot be synced as a whole, or not be relied on
}

func (o *volume) openVolume(s *Store) {
	fs, ok := s.fs.(vfs.Volumer)
	if !ok || s.syncs.distrust { // then more than a sync is needed
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

// syncVolume makes everything durable that was written before.
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
	if s.syncs.failed.Load() { // before this one, or meanwhile
		s.log.Info("a sync failed; the file system is not synced as a whole any more, files are synced one by one")
		o.giveUpLocked()
		return vfs.ErrNoVolume
	}
	return nil
}

// giveUpLocked ends the use of the volume. mu is held.
func (o *volume) giveUpLocked() {
	_ = o.v.Close() // it has told what it knows
	o.v = nil
}

func (o *volume) closeVolume() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.v != nil {
		o.giveUpLocked()
	}
}

// syncAsVolume has many logs made durable by one sync of the volume. Where that is not the
// way it returns those that are to be synced one by one, as they were before.
func (k *keeper) syncAsVolume(logs []*Log, last bool) (rest []*Log) {
	var all []*syncing
	idle, dueBytes, begun := int64(0), int64(0), int64(0)
	for i, l := range logs {
		hurry := last || k.isCheckpointUrgent()
		if !hurry {
			// The system begins to write here what the sync will wait for: else everything goes
			// out at once, and some round's sync waits behind it.
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

// startWriting has the system begin to write what a sync of the active segment will wait
// for, and returns how many bytes those are.
func (l *Log) startWriting() int64 {
	if !l.isOpen() || l.options().mode() != durable {
		return 0
	}
	if g := l.activeSegment(); g != nil {
		return g.StartSync()
	}
	return 0
}
