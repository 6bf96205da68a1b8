package storage

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

const (
	// atOnce is how many logs or files to be synced make a sync of the whole volume
	// the cheaper way. A new log takes five syncs of its own, each a commit of the
	// file system's journal: 5,000 of them take 2 s on 32 threads, a sync of the
	// volume that they lie on 0.1 s (BenchmarkClose).
	atOnce = 64
	// idleBytes is how much the other logs may have in the page cache alone: a sync of
	// the volume writes that, too, and a checkpoint must not wait for it.
	idleBytes = 64 << 20
	// pauseAfter is how many logs are prepared until a checkpoint that has time rests.
	pauseAfter = 64
)

// volume is the file system that the data directory lies on. It is given up after
// a failure: it cannot tell which file did not make it, each file's own sync does.
type volume struct {
	mu sync.Mutex
	v  *vfs.Volume // guarded by mu; nil: it cannot be synced as a whole, or not be relied on
}

func (o *volume) open(s *Store) {
	fs, ok := s.fs.(vfs.Volumer)
	if !ok || s.distrust { // then more than a sync is needed
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

func (o *volume) usable() bool {
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
	err := o.v.Sync()
	if err == nil {
		return nil
	}
	s.log.Error("the file system could not be synced; files are synced one by one", "err", err)
	_ = o.v.Close() // it has told what it knows
	o.v = nil
	return s.suspect(err)
}

func (o *volume) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.v != nil {
		_ = o.v.Close() // every sync that counts has returned
		o.v = nil
	}
}

// prepared is a log within a checkpoint that waits for the sync of the volume.
type prepared struct {
	l *Log
	c *checkpointing
}

// syncAtOnce has many logs made durable by one sync of the volume. Where that is not
// the way it returns those that are to be synced one by one, as they were before.
func (k *keeper) syncAtOnce(logs []*Log, last bool) (rest []*Log, hold bool) {
	var all []prepared
	idle, due, begun := int64(0), int64(0), int64(0)
	for i, l := range logs {
		hurry := last || k.hasten.Load() || k.s.closing.Load()
		if !hurry {
			// What the sync will wait for begins to be written here: else all goes out at once,
			// and some round's sync waits behind it (p99 of 1,000 requests a second beside a
			// load over 200 partitions: 8 ms, not 15).
			begun += l.startWriting()
		}
		c, again, err := l.beginCheckpoint(last, false)
		hold = k.settle(l, again, err) || hold
		if c != nil {
			all = append(all, prepared{l, c})
			due += c.bytes()
		} else if again {
			idle += l.unsynced()
		}
		if !hurry && (i%pauseAfter == pauseAfter-1 || begun >= togetherBytes) {
			time.Sleep(restFor)
			begun = 0
		}
	}
	if len(all) == 0 {
		return nil, hold
	}
	if len(all) >= k.s.cfg.atOnce && idle <= max(idleBytes, due) && k.s.syncVolume() == nil {
		for _, p := range all {
			p.l.notePoint(p.c, p.c.to)
		}
		return nil, hold
	}
	for _, p := range all {
		p.l.takeBack(p.c)
		rest = append(rest, p.l)
	}
	return rest, hold
}

// bytes are those that are to be synced.
func (c *checkpointing) bytes() int64 {
	n := int64(0)
	for _, size := range c.sizes {
		n += size
	}
	return n
}

// unsynced is what the log has beyond its stable place.
func (l *Log) unsynced() int64 {
	l.pub.Lock()
	defer l.pub.Unlock()
	return l.unsyncedLocked()
}

func (l *Log) unsyncedLocked() int64 {
	n := int64(0)
	for _, g := range slices.Backward(l.segs) {
		n += g.size
		if g == l.stable.seg {
			return n - l.stable.pos
		}
	}
	return n
}

// takeBack makes a checkpoint undone that was begun and is to be made in another way.
func (l *Log) takeBack(c *checkpointing) {
	if c.snapped {
		l.mu.Lock()
		if l.writer != nil {
			l.writer.producers.changed = true
		}
		l.mu.Unlock()
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	l.marks.journaled = l.marks.journaled || c.journaled
	l.marks.wantSync = true
	l.marks.wantSnap = l.marks.wantSnap || c.snapped
	l.unwritten = l.unwritten || c.epochs != nil
	l.unshown = l.unwritten
}
