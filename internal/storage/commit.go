package storage

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/record"
)

const (
	// syncEach is the number of bytes a dirty file from which on a sync of each file is
	// cheaper than a second write of its bytes into the journal.
	syncEach = 1 << 20
	// syncAlone is the same where only one file is dirty. Below it the journal is
	// faster: a file that grew has its new size and blocks committed by the file
	// system, which costs as much again as the bytes do (BenchmarkCommit/logs=1).
	syncAlone = 192 << 10
)

// committer makes appends durable, in rounds: whatever came while one round ran is
// taken by the next. There are no timers. A round is one sync of the journal,
// into which the new bytes of all logs go; where only one file has many, it is a
// sync of that file.
//
// The next round begins when the bytes of this one are durable, while those who
// wait for this one are being told: the disk works while answers are written
// (BenchmarkCommitConcurrent).
type committer struct {
	s    *Store
	kick chan struct{} // size 1: a loop has a round to run

	mu      sync.Mutex
	ended   sync.Cond        // a round has ended
	coming  *round           // guarded by mu: the next round, which appends enter
	spare   []*round         // guarded by mu: rounds to be used again
	peak    int              // guarded by mu: the largest image since relax
	control []byte           // guarded by mu: encoded parts for the journal that are no batches
	deleted map[string]int64 // guarded by mu: directories whose deletion may not be durable, and the round that says so
	running bool             // guarded by mu: a round is under way or handed to a loop
	again   bool             // guarded by mu: another one must follow it
	telling int              // guarded by mu: rounds that have ended and still call back
	rounds  int64            // guarded by mu: begun
	done    int64            // guarded by mu: ended
	stopped bool             // guarded by mu: the store is closing
	lost    int64            // guarded by mu: the last round whose control parts found no room in the journal
	failed  error            // guarded by mu: why control parts cannot be made durable any more
}

// loops is the number of goroutines that run rounds: one may still call back while
// the next one's round is under way.
const loops = 2

// round is one group commit. Its slices are used again and again.
type round struct {
	number int64   // guarded by committer.mu until the round begins
	shares []share // likewise; the rest is the round's own
	image  image   // likewise

	parts []part // what the files are lacking, for them or the journal
}

// share is what a round covers of one log.
type share struct {
	l      *Log
	from   record.Offset // of the first batch that entered
	to     place         // what the round makes durable
	staged place         // how far the image has it; seg is nil where it has nothing
	bytes  int64
	parts  [2]int // of the round's
	lazy   bool   // of a log in the page-cache mode: written is enough
}

func (c *committer) init(s *Store) {
	c.s = s
	c.kick = make(chan struct{}, 1)
	c.ended.L = &c.mu
	c.coming = &round{number: 1}
	c.deleted = map[string]int64{}
}

// enterLocked has the coming round cover what was appended to the log: bufs, whose
// first record has the offset from, up to the log's end. pub is held.
func (l *Log) enterLocked(from record.Offset, pos int64, bufs [][]byte) {
	g := l.activeLocked()
	n := g.size - pos
	c := &l.s.commit
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.coming
	if l.marks.round != r.number {
		l.marks.round, l.marks.slot = r.number, len(r.shares)
		r.shares = append(r.shares, share{l: l, from: from, lazy: !l.options().durable()})
	}
	e := &r.shares[l.marks.slot]
	if e.lazy && l.options().durable() { // what the image has of it is not enough
		e.lazy, e.from = false, -1
	}
	if from < 0 {
		e.from = from
	}
	e.to = l.endLocked()
	e.bytes += n
	h := partHead{kind: partBytes, id: l.id, dir: l.dir, base: g.base, pos: pos, n: int(n)}
	switch {
	case e.lazy:
		h.kind, h.start = partLazy, l.s.late.boot
	case g.late.Load():
		h.kind = partLate
	}
	if n > 0 && r.image.add(h, bufs, l.s.journal.roundSize) {
		e.staged = e.to
	}
}

// run makes what was added durable, or sees to it that another goroutine does.
func (c *committer) run() {
	c.mu.Lock()
	switch {
	case c.running:
		c.again = true
	case c.stopped || len(c.coming.shares) == 0 && len(c.control) == 0:
	case c.telling > 0: // the caller may be what is called back: its stack must not grow
		c.running = true
		c.kick <- struct{}{} // it has room: nothing runs
	default:
		c.running = true
		r := c.beginLocked()
		c.mu.Unlock()
		c.finish(r, c.work(r))
		return
	}
	c.mu.Unlock()
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
		r := c.beginLocked()
		c.mu.Unlock()
		c.finish(r, c.work(r))
	}
}

// last runs a round when nothing is appended any more and the loops have ended.
func (c *committer) last() {
	c.mu.Lock()
	c.stopped = true
	for c.running && len(c.kick) == 0 || c.telling > 0 { // an inline round may still be under way
		c.ended.Wait()
	}
	c.running = true
	r := c.beginLocked()
	c.mu.Unlock()
	c.finish(r, c.work(r))
}

// beginLocked takes what is to be done.
func (c *committer) beginLocked() *round {
	c.again = false
	c.rounds++
	r, next := c.coming, new(round)
	c.peak = max(c.peak, len(r.image.b))
	if n := len(c.spare); n > 0 {
		next, c.spare = c.spare[n-1], c.spare[:n-1]
	}
	next.number = r.number + 1
	next.image.reset()
	// Where this round is not for the journal, the next one will hardly be: its bytes
	// are not copied. Should it be all the same, they are read back.
	next.image.closed = r.forFiles(c.s.cfg.alone)
	c.coming = next
	c.s.journal.setControl(c.control)
	c.control = c.control[:0]
	if c.failed == nil {
		maps.DeleteFunc(c.deleted, func(_ string, n int64) bool { return n <= c.done && n > c.lost })
	}
	return r
}

// relax gives back the memory of images that are much larger than those of late.
func (c *committer) relax() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.spare {
		r.image.shrink(c.peak)
	}
	if len(c.coming.shares) == 0 {
		c.coming.image.shrink(c.peak)
	}
	c.peak = 0
}

// forFiles tells that a sync of the files is cheaper than the journal.
func (r *round) forFiles(alone int64) bool {
	n, bytes := int64(0), int64(0)
	for i := range r.shares {
		if !r.shares[i].lazy {
			n++
			bytes += r.shares[i].bytes
		}
	}
	return n == 1 && bytes >= alone || n > 0 && bytes/n >= syncEach
}

// finish ends the round, hands the next one, if there must be one, to a loop, and
// tells whose committed ends moved.
func (c *committer) finish(r *round, err error) {
	if err == nil || errors.Is(err, errNoJournal) {
		for i := range r.shares {
			if e := &r.shares[i]; !e.l.settle(e.to, e.lazy) {
				e.l = nil // nothing moved
			}
		}
	}
	c.mu.Lock()
	c.done++
	c.telling++
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
	for i := range r.shares {
		if l := r.shares[i].l; l != nil && !l.unsound() {
			l.committed(l)
		}
	}
	clear(r.shares)
	clear(r.parts)
	r.shares, r.parts = r.shares[:0], r.parts[:0]
	c.mu.Lock()
	c.telling--
	c.spare = append(c.spare, r)
	c.ended.Broadcast()
	c.mu.Unlock()
}

// settle notes that the log is durable up to a place, or, lazy, only written, and
// tells whether that moved the committed end.
func (l *Log) settle(to place, lazy bool) bool {
	l.pub.Lock()
	defer l.pub.Unlock()
	if l.unsound() || to.seg == nil {
		return false
	}
	if !lazy {
		l.durable = to
	}
	return l.commitUpToLocked(to.next)
}

// work collects the round's bytes and makes them durable. Where that fails for
// some logs only, those are faulted, and it is no error of the round.
func (c *committer) work(r *round) error {
	s := c.s
	linked, lazy := true, false
	for i := range r.shares {
		if e := &r.shares[i]; e.lazy {
			e.spill()
			lazy = true
			continue
		}
		linked = r.collect(i) && linked
	}
	durable := len(r.parts) > 0 || s.journal.hasControl()
	if !durable && !lazy {
		return nil
	}
	if linked && !s.journal.hasControl() && r.forFiles(s.cfg.alone) {
		s.syncFiles(r)
		return nil
	}
	err := s.journal.write(r, durable)
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
		for i := range r.shares {
			r.shares[i].l.fail(err)
		}
	}
	return err
}

// collect adds what a share's log has beyond its durable place to the round. It
// returns false where a file's name is not durable yet, so that a sync of the file
// alone would not do.
func (r *round) collect(i int) (linked bool) {
	e := &r.shares[i]
	l := e.l
	e.parts = [2]int{len(r.parts), len(r.parts)}
	l.pub.Lock()
	defer l.pub.Unlock()
	from, imaged := l.durable, e.staged
	if l.unsound() || from.seg == nil {
		return true
	}
	if from.next != e.from { // something before is not durable: it goes with this round
		imaged = place{}
	}
	// Until a checkpoint has left them behind, a recovery would write bytes that were
	// cut off again, over what has taken their place: unless that is in the journal, too.
	linked = l.linked && l.marks.cutBelow <= l.s.journal.base.Load()
	for _, g := range l.segs {
		if g.base < from.seg.base || g.base > e.to.seg.base {
			continue
		}
		pos, end := int64(0), g.size
		if g == from.seg {
			pos = from.pos
		}
		if g == e.to.seg {
			end = e.to.pos
		}
		if end <= pos {
			continue
		}
		switch { // what the image has need not be read back
		case imaged.seg == nil || g.base > imaged.seg.base:
		case g == imaged.seg:
			pos = max(pos, min(imaged.pos, end))
		default:
			pos = end
		}
		r.parts = append(r.parts, part{l: l, g: g, pos: pos, n: end - pos})
		linked = linked && g.linked
	}
	e.parts[1] = len(r.parts)
	return linked
}

// syncFiles makes the round durable by a sync of each of its files. Many are synced
// at the same time: they share the file system's own commits.
func (s *Store) syncFiles(r *round) {
	spread(len(r.shares), func(i int) {
		e := &r.shares[i]
		if e.lazy {
			e.staged = place{}
			e.spill()
			return
		}
		for _, p := range r.parts[e.parts[0]:e.parts[1]] {
			if !s.syncPart(p) {
				e.to = place{}
				return
			}
		}
	})
}

// syncPart syncs a part's file. It is false where that would not do: a log of which
// the journal has bytes that were cut off waits for the next checkpoint.
func (s *Store) syncPart(p part) bool {
	l := p.l
	l.pub.Lock()
	names, fresh, size := !p.g.linked, !l.linked, p.pos+p.n
	wait := l.marks.cutBelow > s.journal.base.Load()
	l.pub.Unlock()
	err := p.g.writeOut()
	if wait || full(err) {
		l.waitForCheckpoint()
		return false
	}
	if err == nil {
		err = p.g.sync()
	}
	if err == nil && (names || fresh) {
		err = s.syncNames(l.dir, fresh)
	}
	if err != nil {
		l.abandon(fmt.Errorf("a sync of segment %d failed: %w", p.g.base, err))
		return true
	}
	l.pub.Lock()
	p.g.synced = max(p.g.synced, size)
	if names || fresh {
		p.g.linked, l.linked = true, true
	}
	l.pub.Unlock()
	return true
}

const (
	fewFiles = 8 // that are synced one after the other
	syncers  = 8 // goroutines that sync more of them
)

// spread calls fn with 0 to n-1, from several goroutines where that are many.
func spread(n int, fn func(i int)) {
	if n <= fewFiles {
		for i := range n {
			fn(i)
		}
		return
	}
	var next atomic.Int64
	var all sync.WaitGroup
	for range syncers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				fn(int(i))
			}
		})
	}
	all.Wait()
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
	c.deleted[dir] = c.rounds + 1
}

// settleDeletes makes the deletion of a directory's last log durable, before the
// directory is made anew for another one.
func (c *committer) settleDeletes(dir string) error {
	c.mu.Lock()
	need, found := c.deleted[dir]
	c.mu.Unlock()
	if !found {
		return nil
	}
	err := c.await(need)
	if errors.Is(err, ErrClosed) {
		return err
	}
	if err != nil { // without the journal the deletion's rename must do
		if err := c.s.fs.SyncDir(c.s.cfg.Dir); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deleted[dir] == need {
		delete(c.deleted, dir)
	}
	return nil
}
