package storage

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// A new log's directory and file take a hundred times as long as its first record. So
// where many logs are written to, those of new ones wait in memory: the journal has
// them, and the file is made, with what came together, by the next checkpoint or when
// somebody is to read it (BenchmarkAppendNew, scripts/bench.sh --only create). Where the file is
// there, appends go into it: to have them wait, too, saved no CPU over 5,000 logs in
// turn, and took 200 MB (scripts/bench.sh --only spread). What must hold:
//
//   - What waits is committed by a round of the journal only. In the page-cache mode
//     that round is not synced: after a kill the page cache has the journal's file,
//     and recovery takes from there what no file has (partLazy). After a power cut it
//     takes nothing: the journal may have what the files lost, and the next kill
//     would bring it back over what was written since.
//   - Only the last bytes of an active segment wait, and whoever opens its file finds
//     them there: segment.open writes them first.
//   - A checkpoint's mark never goes beyond bytes that wait.
//   - A write into the file that fails loses nothing: the bytes wait on, and the journal
//     keeps them.
const (
	lateCrowd = 64      // logs written to between two checkpoints, from which on those of new ones are late
	lateBytes = 4 << 10 // of an append: what is larger is written at once
	lateEach  = 8 << 10 // that wait of a log; so its index is in memory, see fewBytes
	lateAll   = 8 << 20 // that wait of all logs
	minLate   = 1 << 10 // the smallest buffer that they wait in
)

// lateness is what the logs of a store have to know of each other.
type lateness struct {
	crowd  int64         // see lateCrowd; tests make it small
	limit  int64         // see lateAll; likewise
	cached bool          // logs of the page-cache mode may be late: a kill is told from a power cut
	boot   record.Offset // stands for the kernel's run in the journal; not negative

	bytes  atomic.Int64 // that wait
	period atomic.Int64 // the number of checkpoints that began
	active atomic.Int64 // logs written to since the last one
	before atomic.Int64 // and between the two before
	buffer [4]sync.Pool // of minLate bytes and twice, four times ... as many
}

func (o *lateness) init(cfg Config) {
	o.crowd, o.limit, o.cached = cfg.crowd, cfg.late, cfg.BootID != ""
	h := fnv.New64a()
	_, _ = h.Write([]byte(cfg.BootID)) // it never fails
	o.boot = record.Offset(h.Sum64() >> 1)
	o.period.Store(1) // in 0 every log would seem to have been written to
}

// turn begins another period.
func (o *lateness) turn() {
	o.before.Store(o.active.Swap(0))
	o.period.Add(1)
}

func (o *lateness) crowded() bool { return max(o.active.Load(), o.before.Load()) >= o.crowd }

// takeBuffer returns an empty buffer with room for n bytes.
func (o *lateness) takeBuffer(n int) []byte {
	class, size := 0, minLate
	for size < n {
		class, size = class+1, 2*size
	}
	if class < len(o.buffer) {
		if b, ok := o.buffer[class].Get().(*[]byte); ok {
			return (*b)[:0]
		}
	}
	return make([]byte, 0, size)
}

func (o *lateness) giveBuffer(b []byte) {
	for class, size := 0, minLate; class < len(o.buffer); class, size = class+1, 2*size {
		if cap(b) == size {
			o.buffer[class].Put(&b)
			return
		}
	}
}

// mayWait tells whether the log's next appends may be late. mu is held.
func (l *Log) mayWait() bool {
	o := &l.s.late
	return o.crowded() && (o.cached || l.options().durable()) && !l.s.journal.lost.Load()
}

// late tells whether what was placed is to wait. mu is held.
func (l *Log) late(g *segment) bool {
	w := l.writer
	if !g.late.Load() || w.bytes > lateBytes || !l.mayWait() {
		return false
	}
	for _, it := range w.run {
		if it.Early {
			return false
		}
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	return int64(len(g.waits))+w.bytes <= lateEach
}

// waitLocked has what was placed wait. mu and pub are held.
func (g *segment) waitLocked(bufs [][]byte, n int64) {
	o := &g.log.s.late
	if need := len(g.waits) + int(n); need > cap(g.waits) {
		b := append(o.takeBuffer(need), g.waits...)
		if !g.flushing {
			o.giveBuffer(g.waits)
		}
		g.waits = b
	}
	for _, b := range bufs {
		g.waits = append(g.waits, b...)
	}
	g.late.Store(true) // the file may have been made since
	o.bytes.Add(n)
}

// inFileLocked is how many of the segment's bytes its file has. pub is held.
func (g *segment) inFileLocked() int64 { return g.size - int64(len(g.waits)) }

// waitingLocked are bytes that wait; nil: some of them do not. pub is held.
func (g *segment) waitingLocked(pos, end int64) []byte {
	at := g.inFileLocked()
	if pos < at || end > g.size || pos >= end {
		return nil
	}
	return g.waits[pos-at : end-at]
}

// readWaiting reads bytes that wait; false: some of them do not.
func (g *segment) readWaiting(b []byte, pos int64) bool {
	g.log.pub.Lock()
	defer g.log.pub.Unlock()
	return copy(b, g.waitingLocked(pos, pos+int64(len(b)))) == len(b)
}

// writeOut brings the segment's file up to where the segment ended when it was
// called, and makes the file where there is none yet. Where that fails nothing is lost.
func (g *segment) writeOut() error {
	l := g.log
	l.out.Lock()
	defer l.out.Unlock()
	if !g.late.Load() {
		return nil
	}
	if l.deleted.Load() {
		return ErrClosed
	}
	l.pub.Lock()
	b, pos, made := g.waits, g.inFileLocked(), l.made
	g.flushing = true
	l.pub.Unlock()
	err := g.writeFile(b, pos, made)
	l.pub.Lock()
	defer l.pub.Unlock()
	g.flushing = false
	if err != nil {
		l.s.space.check(err)
		return asAppendError(err)
	}
	g.unmade = false
	l.s.late.bytes.Add(-int64(len(b)))
	switch rest := g.waits[len(b):]; {
	case len(rest) > 0: // came meanwhile
		g.waits = g.waits[:copy(g.waits, rest)]
	default:
		l.s.late.giveBuffer(g.waits)
		g.waits = nil
		g.late.Store(false)
	}
	return nil
}

func (g *segment) writeFile(b []byte, pos int64, made bool) error {
	l, mode := g.log, vfs.Existing
	if !made {
		if err := l.makeDir(); err != nil {
			return err
		}
	}
	if g.unmade {
		mode = vfs.Fresh
	}
	h, err := g.openAs(mode)
	if err != nil {
		return err
	}
	defer h.drop()
	if len(b) > 0 {
		_, err = h.f.WriteAt(b, pos)
	}
	return err
}

// writeOut does so for the log.
func (l *Log) writeOut() error {
	l.pub.Lock()
	g := l.activeLocked()
	l.pub.Unlock()
	if g == nil || !g.late.Load() {
		return nil
	}
	return g.writeOut()
}

// forgetWaiting lets go of what waits of a deleted log. mu and out are held.
func (l *Log) forgetWaiting() {
	l.pub.Lock()
	defer l.pub.Unlock()
	for _, g := range l.segs {
		l.s.late.bytes.Add(-int64(len(g.waits)))
		g.waits = nil
	}
}

// spill has a file take what the round's image could not, of a log in the page-cache mode.
func (e *share) spill() {
	if e.staged == e.to && e.from >= 0 {
		return
	}
	err := e.to.seg.writeOut()
	if err == nil {
		return
	}
	if full(err) {
		e.l.waitForCheckpoint()
	} else {
		e.l.abandon(fmt.Errorf("a write to segment %d failed: %w", e.to.seg.base, err))
	}
	e.to = place{}
}

// waitForCheckpoint has the round after the next checkpoint commit what this one cannot.
func (l *Log) waitForCheckpoint() {
	l.pub.Lock()
	l.enterLocked(-1, l.activeLocked().size, nil)
	l.pub.Unlock()
	l.s.keeper.hurry()
}

// heldLog is what only the journal has of a log, since the process was killed before
// a checkpoint wrote it into its files. It is written when the log is used, or by the
// first checkpoint: a start does not wait for thousands of files to be made.
type heldLog struct {
	mu    sync.Mutex
	parts []encodedPart // guarded by mu
	done  bool          // guarded by mu
}

// maxHeld bounds the bytes that are held.
const maxHeld = 64 << 20

// hold keeps a part for later; false: it has to be written now.
func (r *replay) hold(p encodedPart) bool {
	if id, ok := r.owners[p.dir]; ok && id != p.id || r.heldBytes+len(p.data) > maxHeld {
		return false
	}
	r.owners[p.dir] = p.id
	h := r.held[p.id]
	if h == nil {
		h = &heldLog{}
		r.held[p.id] = h
	}
	p.data = append([]byte(nil), p.data...)
	h.parts = append(h.parts, p)
	r.heldBytes += len(p.data)
	return true
}

// release writes what is held after all, before what cannot be: in the journal the
// order of things is right.
func (r *replay) release() error {
	r.eager = true
	for id, h := range r.held {
		for _, p := range h.parts {
			if err := r.bring(p); err != nil {
				return err
			}
		}
		delete(r.held, id)
	}
	return nil
}

// restore writes what is held of a log into its files.
func (s *Store) restore(id LogID) error {
	s.mu.Lock()
	h := s.held[id]
	s.mu.Unlock()
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done {
		return nil
	}
	r := newReplay(s)
	r.late = true
	var err error
	for _, p := range h.parts {
		if err = r.write(replayedFile{p.dir, p.base}, p); err != nil {
			break
		}
	}
	if err = errors.Join(err, r.close()); err != nil {
		return asAppendError(fmt.Errorf("the last records of %s are in the journal only: %w", h.parts[0].dir, err))
	}
	h.done, h.parts = true, nil
	s.keeper.mu.Lock()
	s.keeper.replayed = append(s.keeper.replayed, r.list()...)
	s.keeper.mu.Unlock()
	s.dropHeld(id)
	return nil
}

// dropHeld forgets what is held of a log: it was written, or the log is deleted.
func (s *Store) dropHeld(id LogID) {
	s.mu.Lock()
	delete(s.held, id)
	s.mu.Unlock()
}

// deleteHeld has what is held of a deleted log not be written any more.
func (s *Store) deleteHeld(id LogID) {
	s.mu.Lock()
	h := s.held[id]
	s.mu.Unlock()
	if h == nil {
		return
	}
	h.mu.Lock() // it may be being written: its directory goes when it is whole
	h.done, h.parts = true, nil
	h.mu.Unlock()
	s.dropHeld(id)
}

func (s *Store) heldIDs() []LogID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.held), LogID.compare)
}

// restoreAll does so for all logs, for a checkpoint. hold is true where one could not.
func (s *Store) restoreAll() (hold bool) {
	for _, id := range s.heldIDs() {
		if err := s.restore(id); err != nil {
			s.log.Error("recovery is not complete; it is tried again", "err", err)
			hold = true
		}
	}
	return hold
}

// endLocked is where the log ends. pub is held.
func (l *Log) endLocked() place {
	p := place{seg: l.activeLocked(), next: record.Offset(l.end.Load())}
	if p.seg != nil {
		p.pos = p.seg.size
	}
	return p
}
