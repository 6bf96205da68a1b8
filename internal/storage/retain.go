package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// SetStart moves the start forward (DeleteRecords, retention), durably.
func (l *Log) SetStart(o record.Offset) error {
	if err := l.moveStart(o); err != nil {
		return err
	}
	l.pub.Lock()
	start, sure := record.Offset(l.start.Load()), l.marks.sureStart
	l.pub.Unlock()
	if o <= sure {
		return nil
	}
	l.s.points.raise(l.id, start)
	err := l.s.commit.putControl(appendPart(nil, partHead{kind: partStart, id: l.id, dir: l.dir, start: start}))
	if errors.Is(err, errNoJournal) {
		err = l.s.keeper.savePoints()
	}
	if err == nil {
		l.pub.Lock()
		l.marks.sureStart = max(l.marks.sureStart, start)
		l.pub.Unlock()
	}
	return err
}

// moveStart moves the start in memory. The segments below it go when a checkpoint
// has said so.
func (l *Log) moveStart(o record.Offset) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return err
	}
	if end := record.Offset(l.commitTo.Load()); o < 0 || o > end {
		return fmt.Errorf("%w: the start cannot be %d where %d is the end", ErrOffsetOutOfRange, o, end)
	}
	if o <= record.Offset(l.start.Load()) {
		return nil
	}
	if err := l.Fault(); err != nil {
		return err
	}
	if err := l.emptyActive(o); err != nil {
		return err
	}
	l.pub.Lock()
	l.start.Store(int64(o))
	l.epochs = l.epochs.trim(o)
	l.unwritten, l.unshown = true, true
	if !l.marks.changed {
		l.marks.changed = true
		l.s.keeper.add(l)
	}
	l.pub.Unlock()
	return l.trimLocked()
}

// trimLocked parts with the segments below the start. What the producers did in
// them is known and will be written down before they go. mu is held.
func (l *Log) trimLocked() error {
	l.pub.Lock()
	start, n := record.Offset(l.start.Load()), 0
	for n+1 < len(l.segs) && l.segs[n+1].base <= start {
		n++
	}
	ahead := n > 0 && l.marks.prodAt < l.segs[n].base
	l.pub.Unlock()
	if n == 0 {
		return nil
	}
	if ahead {
		if err := l.prepareLocked(); err != nil {
			return err
		}
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	l.marks.wantSnap = l.marks.wantSnap || ahead
	l.s.keeper.bury(l.segs[:n])
	l.segs = append([]*segment(nil), l.segs[n:]...)
	for _, p := range []*place{&l.durable, &l.stable} {
		if p.seg != nil && p.seg.base < l.segs[0].base {
			*p = place{l.segs[0], 0, l.segs[0].base}
		}
	}
	return nil
}

// emptyActive closes the active segment if all that it has is to go, so that its
// space can be freed, too. mu is held.
func (l *Log) emptyActive(o record.Offset) error {
	l.pub.Lock()
	g := l.activeLocked()
	all := g != nil && g.size > 0 && g.next <= o
	l.pub.Unlock()
	if !all {
		return nil
	}
	if err := l.prepareLocked(); err != nil {
		return err
	}
	if err := l.roll(); err != nil && !full(err) {
		return err
	}
	return nil
}

// retain moves the starts of logs as their retention says, to the record.
func (s *Store) retain(now time.Time) {
	for _, l := range s.all() {
		if s.closing.Load() {
			return
		}
		s.retainOne(l, now)
	}
}

func (s *Store) retainOne(l *Log, now time.Time) {
	if err := l.retain(now); err != nil && !errors.Is(err, ErrClosed) {
		s.log.Warn("retention could not be applied to a log", "log", l.dir, "err", err)
	}
}

func (l *Log) retain(now time.Time) error {
	o := l.options()
	if !o.Delete || l.faulted() {
		return nil
	}
	if !l.ready.Load() && !l.mayExpire(now) {
		return nil
	}
	if err := l.usable(); err != nil {
		return err
	}
	if record.Offset(l.start.Load()) == record.Offset(l.end.Load()) {
		return nil
	}
	start := record.Offset(-1)
	if o.RetentionBytes >= 0 {
		at, err := l.startBySize(o.RetentionBytes)
		if err != nil {
			return err
		}
		start = at
	}
	if o.RetentionAge >= 0 {
		at, err := l.startByAge(now.Add(-o.RetentionAge).UnixMilli())
		if err != nil {
			return err
		}
		start = max(start, at)
	}
	start = min(start, record.Offset(l.commitTo.Load()))
	if start <= record.Offset(l.start.Load()) {
		return nil
	}
	return l.moveStart(start)
}

// mayExpire tells, without opening the log, whether retention could move its start.
// By size it was looked at when the log was last written to.
func (l *Log) mayExpire(now time.Time) bool {
	pt, ok := l.s.points.get(l.id)
	if !ok {
		_, err := l.s.fs.Stat(l.s.path(l.dir))
		return err == nil
	}
	age := l.options().RetentionAge
	return l.options().RetentionBytes >= 0 || age >= 0 && (pt.oldest == timeUnknown || pt.oldest < now.Add(-age).UnixMilli())
}

// startByAge is the first offset that retention by time keeps: that of the first
// record not older than a time; -1: nothing goes. Records with times out of order
// stay as long as one before them does. A log of which no record has a time keeps
// them all.
func (l *Log) startByAge(ms int64) (record.Offset, error) {
	l.pub.Lock()
	oldest := l.oldest
	l.pub.Unlock()
	if oldest != timeUnknown && oldest >= ms {
		return -1, nil
	}
	ctx := context.Background() //nolint:forbidigo // the store's own look-up draws on no budget, so that nothing waits
	at, ok, err := l.findTime(ctx, nil, max(ms, 0))
	if err != nil {
		return -1, err
	}
	if ok {
		l.pub.Lock()
		if at.Offset <= record.Offset(l.commitTo.Load()) {
			l.oldest = at.Time // of what will be the first record: nothing goes before it does
		}
		l.pub.Unlock()
		return at.Offset, nil
	}
	end := record.Offset(l.commitTo.Load())
	for _, g := range l.above() {
		if latest, err := l.maxTimeOf(g); err != nil || latest >= 0 {
			return end, err
		}
	}
	return -1, nil
}

// startBySize is the first offset that retention by size keeps: that of the last
// batch from which on the log still has the bytes that it may; -1: nothing goes.
func (l *Log) startBySize(limit int64) (record.Offset, error) {
	l.pub.Lock()
	segs := l.segs
	over := -limit
	for _, g := range segs {
		over += g.size
	}
	l.pub.Unlock()
	if over <= 0 {
		return -1, nil
	}
	for _, g := range segs {
		l.pub.Lock()
		size, next := g.size, g.next
		l.pub.Unlock()
		if over >= size {
			over -= size
			if over == 0 {
				return next, nil
			}
			continue
		}
		return l.batchBefore(g, over, size)
	}
	return -1, nil
}

// batchBefore is the base offset of the last batch of a segment that begins at a
// position or before it.
func (l *Log) batchBefore(g *segment, pos, size int64) (record.Offset, error) {
	c, err := l.searchPos(g, pos)
	if err != nil {
		return -1, err
	}
	if sp, err := g.spotAt(c.pos, size); c.last != noClaim && (err != nil || sp.next != c.last+1) {
		c = claim{0, noClaim}
	}
	h, err := g.open()
	if err != nil {
		return -1, err
	}
	defer h.drop()
	buf, _ := hopBuffers.Get().(*[]byte)
	defer hopBuffers.Put(buf)
	w := walker{f: h.f, end: size, pos: c.pos, verify: size, buf: *buf}
	found := record.Offset(-1)
	for w.pos <= pos {
		b, err := w.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return -1, l.lost(g, found, err)
		}
		found = b.BaseOffset()
	}
	return found, nil
}

// bury has segments removed once a checkpoint has written down the start that lies
// above them. A log's pub is held.
func (k *keeper) bury(segs []*segment) {
	k.mu.Lock()
	k.dead = append(k.dead, segs...)
	k.mu.Unlock()
}

// removeSegment takes a segment's files out of the log's directory, as far as names
// go, and has them removed after a time.
func (k *keeper) removeSegment(g *segment, after time.Duration) error {
	g.forget()
	for _, suffix := range []string{logSuffix, indexSuffix, timeSuffix} {
		name := g.path(suffix)
		err := k.s.fs.Rename(name, name+deletedSuffix)
		if errors.Is(err, vfs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		k.remove(name+deletedSuffix, after)
	}
	return nil
}

// remove has a file or directory removed after a time.
func (k *keeper) remove(path string, after time.Duration) {
	k.mu.Lock()
	k.removals = append(k.removals, removal{path: path, at: time.Now().Add(after)})
	k.mu.Unlock()
	k.poke()
}

func (k *keeper) removeOne(r removal) error {
	if !r.inside {
		return k.s.fs.Remove(r.path)
	}
	infos, err := k.s.fs.ReadDir(r.path)
	for _, i := range infos {
		err = errors.Join(err, k.s.fs.Remove(r.path+"/"+i.Name))
	}
	return err
}

// removalsAtOnce is how many directories or files the keeper removes until it looks
// at its other work, and rests: 10,000 directories take a second, in which
// checkpoints are due and rounds wait for the file system.
const removalsAtOnce = 16

// removeDue removes some of what is due; untilNext tells that the rest is. A large
// directory takes a while; nobody waits for it.
func (k *keeper) removeDue(now time.Time) {
	due, more := k.takeRemovals(now)
	for _, r := range due {
		if k.s.closing.Load() {
			return // the next start goes on
		}
		if err := k.removeOne(r); err != nil {
			k.s.log.Warn("what was deleted could not be removed", "path", r.path, "err", err)
		}
	}
	switch {
	case more && !k.hasten.Load():
		time.Sleep(restFor)
	case len(due) > 0 && !more:
		k.s.space.look()
	}
}

// takeRemovals takes a few removals that are due; more is true where others may be.
func (k *keeper) takeRemovals(now time.Time) (due []removal, more bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	left := k.removals[:0]
	for i, r := range k.removals {
		if len(due) == removalsAtOnce {
			left, more = append(left, k.removals[i:]...), true
			break
		}
		if r.at.After(now) {
			left = append(left, r)
		} else {
			due = append(due, r)
		}
	}
	clear(k.removals[len(left):])
	if k.removals = left; len(left) == 0 {
		k.removals = nil // it may have been long
	}
	return due, more
}
