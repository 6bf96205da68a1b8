package storage

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/leatstream/leat/internal/record"
)

// syncEach is the number of bytes a dirty file from which on a sync of each file is
// cheaper than a second write of its bytes into the journal.
const syncEach = 1 << 20

// committer makes appends durable, in rounds: whatever came while one round ran is
// taken by the next. There are no timers. A round is one sync of the journal,
// into which the new bytes of all dirty logs go; where only one file is dirty, it
// is a sync of that file.
type committer struct {
	s    *Store
	kick chan struct{} // size 1: the loop has a round to run

	mu      sync.Mutex
	ended   sync.Cond // a round has ended
	dirty   []*Log    // guarded by mu: logs with bytes that no round covered
	spare   []*Log    // guarded by mu: the other one of two lists
	control []byte    // guarded by mu: encoded parts for the journal that are no batches
	deleted []string  // guarded by mu: directories whose deletion is in control
	running bool      // guarded by mu: a round is under way or handed to the loop
	again   bool      // guarded by mu: another one must follow it
	rounds  int64     // guarded by mu: begun
	done    int64     // guarded by mu: ended
	stopped bool      // guarded by mu: the store is closing
	lost    int64     // guarded by mu: the last round whose control parts found no room in the journal
	failed  error     // guarded by mu: why control parts cannot be made durable any more

	round round // of whoever runs the round
}

// round is one group commit. Its slices are used again and again.
type round struct {
	logs  []*Log
	upTo  []place // of logs, what the round makes durable
	parts []part
	bytes int64
}

func (c *committer) init(s *Store) {
	c.s = s
	c.kick = make(chan struct{}, 1)
	c.ended.L = &c.mu
}

// add notes that a log has bytes to commit. Its pub is held.
func (c *committer) add(l *Log) {
	c.mu.Lock()
	c.dirty = append(c.dirty, l)
	c.mu.Unlock()
}

// run makes what was added durable, or sees to it that another goroutine does.
func (c *committer) run() {
	c.mu.Lock()
	if c.running {
		c.again = true
		c.mu.Unlock()
		return
	}
	if c.stopped || len(c.dirty) == 0 && len(c.control) == 0 {
		c.mu.Unlock()
		return
	}
	c.running = true
	c.beginLocked()
	c.mu.Unlock()
	c.finish(c.work())
}

// loop runs the rounds that follow others.
func (c *committer) loop() {
	for {
		select {
		case <-c.kick:
		case <-c.s.quit:
			return
		}
		c.mu.Lock()
		c.beginLocked()
		c.mu.Unlock()
		c.finish(c.work())
	}
}

// last runs a round when nothing is appended any more and the loop has ended.
func (c *committer) last() {
	c.mu.Lock()
	c.stopped = true
	for c.running && len(c.kick) == 0 { // an inline round may still be under way
		c.ended.Wait()
	}
	c.running = true
	c.beginLocked()
	c.mu.Unlock()
	c.finish(c.work())
}

// beginLocked takes what is to be done. Only the one that runs the round may touch
// c.round until finish.
func (c *committer) beginLocked() {
	c.again = false
	c.rounds++
	r := &c.round
	r.logs, c.dirty, c.spare = c.dirty, c.spare[:0], nil
	r.upTo, r.parts, r.bytes = r.upTo[:0], r.parts[:0], 0
	c.s.journal.setControl(c.control)
	c.control = c.control[:0]
	c.deleted = c.deleted[:0]
}

// finish ends the round and hands the next one, if there must be one, to the loop.
func (c *committer) finish(err error) {
	r := &c.round
	logs := r.logs
	if err == nil || errors.Is(err, errNoJournal) {
		for i, l := range logs {
			if l.settle(r.upTo[i]) {
				continue
			}
			logs[i] = nil // nothing moved
		}
	}
	for _, l := range logs {
		if l != nil && !l.unsound() {
			l.committed(l)
		}
	}
	clear(logs)
	clear(r.parts)
	clear(r.upTo)
	c.mu.Lock()
	c.spare = logs[:0]
	c.done++
	switch {
	case errors.Is(err, errNoJournal):
		c.lost = c.done
	case err != nil && c.failed == nil:
		c.failed = err
	}
	if c.again && !c.stopped {
		c.kick <- struct{}{} // it has room: only this round could fill it
	} else {
		c.running = false
	}
	c.ended.Broadcast()
	c.mu.Unlock()
}

// settle notes that the log is durable up to a place, and tells whether that moved
// the committed end.
func (l *Log) settle(to place) bool {
	l.pub.Lock()
	defer l.pub.Unlock()
	if l.unsound() || to.seg == nil {
		return false
	}
	l.durable = to
	return l.commitUpToLocked(to.next)
}

// work collects the round's bytes and makes them durable. Where that fails for
// some logs only, those are faulted, and it is no error of the round.
func (c *committer) work() error {
	r, s := &c.round, c.s
	linked := true
	for _, l := range r.logs {
		linked = l.collect(r) && linked
	}
	if len(r.parts) == 0 && !s.journal.hasControl() {
		return nil
	}
	n := int64(len(r.parts))
	if linked && n > 0 && !s.journal.hasControl() && (n == 1 || r.bytes/n >= syncEach) {
		s.syncFiles(r)
		return nil
	}
	err := s.journal.write(r.parts)
	if errors.Is(err, errNoJournal) { // no room: the files themselves must do
		s.syncFiles(r)
		if s.journal.hasControl() {
			return err
		}
		return nil
	}
	if err != nil {
		err = fmt.Errorf("the journal could not be written: %w", err)
		s.log.Error("group commit failed; restart when the disk is mended", "err", err)
		for _, l := range r.logs {
			l.fail(err)
		}
	}
	return err
}

// collect adds what the log has beyond its durable place to the round. It returns
// false where a file's name is not durable yet, so that a sync of the file alone
// would not do.
func (l *Log) collect(r *round) (linked bool) {
	l.pub.Lock()
	defer l.pub.Unlock()
	l.marks.dirty = false
	from := l.durable
	to := place{l.activeLocked(), 0, record.Offset(l.end.Load())}
	if to.seg != nil {
		to.pos = to.seg.size
	}
	r.upTo = append(r.upTo, to)
	if l.unsound() || from.seg == nil {
		return true
	}
	// Until a checkpoint has left them behind, a recovery would write bytes that were
	// cut off again, over what has taken their place: unless that is in the journal, too.
	linked = l.linked && l.marks.cutBelow <= l.s.journal.base.Load()
	for _, g := range l.segs {
		pos := int64(0)
		switch {
		case g.base < from.seg.base:
			continue
		case g == from.seg:
			pos = from.pos
		}
		if g.size > pos {
			r.parts = append(r.parts, part{l: l, g: g, pos: pos, n: g.size - pos, next: to.next})
			r.bytes += g.size - pos
			linked = linked && g.linked
		}
	}
	return linked
}

// syncFiles makes the round durable by a sync of each of its files. A log of which
// the journal has bytes that were cut off waits for the next checkpoint.
func (s *Store) syncFiles(r *round) {
	for _, p := range r.parts {
		l := p.l
		l.pub.Lock()
		names, fresh, size := !p.g.linked, !l.linked, p.pos+p.n
		wait := l.marks.cutBelow > s.journal.base.Load()
		if wait && !l.marks.dirty {
			l.marks.dirty = true
			s.commit.add(l)
		}
		l.pub.Unlock()
		if wait {
			r.upTo[slices.Index(r.logs, l)] = place{}
			s.keeper.hurry()
			continue
		}
		err := p.g.sync()
		if err == nil && (names || fresh) {
			err = s.syncNames(l.dir, fresh)
		}
		if err != nil {
			l.abandon(fmt.Errorf("a sync of segment %d failed: %w", p.g.base, err))
			continue
		}
		l.pub.Lock()
		p.g.synced = max(p.g.synced, size)
		if names || fresh {
			p.g.linked, l.linked = true, true
		}
		l.pub.Unlock()
	}
}

// control makes an encoded part durable before it returns.
func (c *committer) putControl(b []byte) error {
	c.mu.Lock()
	c.control = append(c.control, b...)
	need := c.rounds + 1
	c.mu.Unlock()
	return c.await(need)
}

// await returns when the given round has ended.
func (c *committer) await(need int64) error {
	c.run()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.done < need && !c.stopped {
		c.ended.Wait()
	}
	switch {
	case c.done < need:
		return ErrClosed
	case c.lost >= need:
		return errNoJournal
	}
	return c.failed
}

// noteDelete puts a deletion into the next round: replay must not bring back what
// the journal has of a log that is gone.
func (c *committer) noteDelete(id LogID, dir string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.control = appendPart(c.control, partHead{kind: partDelete, id: id, dir: dir})
	c.deleted = append(c.deleted, dir)
}

// settleDeletes makes the deletion of a directory's last log durable, before the
// directory is made anew for another one.
func (c *committer) settleDeletes(dir string) error {
	c.mu.Lock()
	found := false
	for _, d := range c.deleted {
		found = found || d == dir
	}
	need := c.rounds + 1
	c.mu.Unlock()
	if !found {
		return nil
	}
	if err := c.await(need); !errors.Is(err, errNoJournal) {
		return err
	}
	return c.s.fs.SyncDir(c.s.cfg.Dir) // without a journal the deletion's rename must do
}
