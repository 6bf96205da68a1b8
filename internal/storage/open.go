package storage

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

const metadataFile = "partition.metadata"

// encodeMetadata is partition.metadata's content in Kafka's format.
func encodeMetadata(topic [16]byte) []byte {
	return fmt.Appendf(nil, "version: 0\ntopic_id: %s", base64.RawURLEncoding.EncodeToString(topic[:]))
}

func decodeMetadata(b []byte) (topic [16]byte, ok bool) {
	lines := strings.Fields(string(b))
	if len(lines) != 4 || lines[0] != "version:" || lines[1] != "0" || lines[2] != "topic_id:" {
		return topic, false
	}
	id, err := base64.RawURLEncoding.DecodeString(lines[3])
	if err != nil || len(id) != len(topic) {
		return topic, false
	}
	return [16]byte(id), true
}

// readFile reads a small file whole; nil where it is missing.
func (s *Store) readFile(name string) ([]byte, error) {
	f, err := s.fs.Open(name, vfs.ReadOnly)
	if errors.Is(err, vfs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was read only
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	if n > maxSmallFile {
		return nil, fmt.Errorf("%s has %d bytes, which is more than it can have", name, n)
	}
	b := make([]byte, n)
	got, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:got], nil
}

// maxSmallFile bounds files that are read at once: a million producers' snapshot.
const maxSmallFile = 1 << 29

// owner is the topic id that a directory's metadata names; ok is false where there
// is none, or it cannot be read.
func (s *Store) owner(dir string) (topic [16]byte, ok bool, err error) {
	b, err := s.readFile(s.path(dir, metadataFile))
	if err != nil {
		return topic, false, err
	}
	topic, ok = decodeMetadata(b)
	return topic, ok, nil
}

// makeDir makes the log's directory. Its name need not be durable: until the next
// checkpoint makes it so, the journal can make the directory again.
func (l *Log) makeDir() error {
	if err := l.s.commit.settleDeletes(l.dir); err != nil {
		return err
	}
	if err := l.s.makeDir(l.dir, l.id.Topic); err != nil {
		return err
	}
	l.pub.Lock()
	l.made = true
	l.pub.Unlock()
	return nil
}

func (s *Store) makeDir(dir string, topic [16]byte) error {
	if err := s.fs.MkdirAll(s.path(dir)); err != nil {
		return err
	}
	return s.writeAt(s.path(dir, metadataFile), encodeMetadata(topic), 0)
}

// asideName is a directory's name when it is moved aside. It says whose it was:
// until a checkpoint has left behind what the journal has of that log, nothing else
// may, since what is in the directory may not be on disk.
func asideName(dir string, topic [16]byte, suffix string) string {
	return dir + "." + hex.EncodeToString(topic[:]) + suffix
}

// parseAside is the inverse of asideName.
func parseAside(name, suffix string) (id LogID, ok bool) {
	name, ok = strings.CutSuffix(name, suffix)
	at := strings.LastIndexByte(name, '.')
	if !ok || at < 0 {
		return id, false
	}
	partition, ok := parseDirName(name[:at])
	topic, err := hex.DecodeString(name[at+1:])
	if !ok || err != nil || len(topic) != len(id.Topic) {
		return id, false
	}
	return LogID{[16]byte(topic), partition}, true
}

// moveAside renames a directory, in place of an older one of that name.
func (s *Store) moveAside(dir, to string) error {
	if err := s.fs.Remove(s.path(to)); err != nil {
		return err
	}
	return s.fs.Rename(s.path(dir), s.path(to))
}

// stray moves a directory aside that does not belong to the log of its name.
func (s *Store) stray(dir string, topic [16]byte, why string) error {
	to := asideName(dir, topic, strayDir)
	s.log.Warn("a directory belongs to no known log; it was moved aside", "dir", dir, "now", to, "why", why)
	if err := s.moveAside(dir, to); err != nil {
		return err
	}
	return s.syncDir(s.cfg.Dir)
}

// openLocked looks at the log's directory for the first time: which segments there
// are, and, where the last checkpoint does not vouch for the log's tail, whether
// that is whole. What is not is cut off; damage to what was vouched for makes the
// log read-only. mu is held.
func (l *Log) openLocked() error {
	s := l.s
	pt, known := s.points.get(l.id)
	if err := s.frozen(l.id); err != nil {
		return err
	}
	if err := s.restore(l.id); err != nil {
		return err
	}
	infos, err := s.fs.ReadDir(s.path(l.dir))
	if errors.Is(err, vfs.ErrNotExist) {
		if known && pt.pos > 0 && pt.next > pt.start {
			l.fail(fmt.Errorf("its directory is missing, though it had records up to offset %d", pt.next))
		}
		l.openEmpty(pt, known)
		return nil
	}
	if err != nil {
		return err
	}
	mine, err := l.identify(known)
	if err != nil {
		return err
	}
	if !mine {
		l.openEmpty(pt, known)
		return nil
	}
	s.mu.Lock()
	spoiled := s.spoiled[l.dir]
	s.mu.Unlock()
	if spoiled != nil {
		l.fail(spoiled)
	}
	o := &opening{l: l, pt: pt, known: known, now: time.Now().UnixMilli()}
	o.list(infos)
	if err := o.check(); err != nil {
		return err
	}
	if err := o.readEpochs(); err != nil {
		return err
	}
	return o.publish()
}

// openEmpty is a log without a directory.
func (l *Log) openEmpty(pt point, known bool) {
	next := max(pt.next, pt.start)
	l.start.Store(int64(next))
	l.end.Store(int64(next))
	l.commitTo.Store(int64(next))
	l.known = pt
	if known {
		l.marks.snapAt, l.marks.prodAt = pt.snap, pt.prodAt
	}
	l.ready.Store(true)
}

// identify tells whether the directory is the log's own, and moves a foreign one
// aside. A directory that a checkpoint vouched for is the log's even where its
// metadata was damaged; any other without valid metadata was never part of a
// checkpoint, and all that counts of it is in the journal, which made it anew.
func (l *Log) identify(known bool) (bool, error) {
	s := l.s
	topic, ok, err := s.owner(l.dir)
	if err != nil {
		return false, err
	}
	switch {
	case ok && topic == l.id.Topic:
		return true, nil
	case known:
		s.log.Warn("a directory's metadata was damaged; it was written anew", "log", l.dir)
		return true, s.replace(l.dir, metadataFile, encodeMetadata(l.id.Topic), true)
	case ok: // what the journal has of that topic must not come back either
		s.commit.noteDelete(LogID{topic, l.id.Partition}, l.dir)
		return false, s.stray(l.dir, topic, "it is of another topic of that name")
	default:
		return false, s.stray(l.dir, randomID(), "it does not say of which topic it is")
	}
}

// opening is a log while it is opened.
type opening struct {
	l     *Log
	pt    point // what the last checkpoint knew of it
	known bool
	now   int64

	segs   []*segment
	start  record.Offset
	next   record.Offset // the end, as far as it was walked
	epochs epochs
	walked epochs // as the walked batches have them
	snaps  []record.Offset
	stable place // what a checkpoint vouched for
	cut    bool  // files were cut or removed
	synced bool  // names were
}

// list sorts out the directory's files.
func (o *opening) list(infos []vfs.Info) {
	l := o.l
	for _, i := range infos {
		if base, ok := parseFileName(i.Name, logSuffix); ok {
			o.segs = append(o.segs, &segment{
				log: l, base: base, size: i.Size, maxTime: timeUnknown, firstTime: timeUnknown, created: o.now,
			})
		} else if at, ok := parseFileName(i.Name, snapshotSuffix); ok {
			o.snaps = append(o.snaps, at)
		} else if strings.HasSuffix(i.Name, deletedSuffix) || strings.HasSuffix(i.Name, ".tmp") {
			l.s.keeper.remove(l.s.path(l.dir, i.Name), 0)
		}
	}
	slices.SortFunc(o.segs, func(a, b *segment) int { return int(min(max(a.base-b.base, -1), 1)) })
	slices.Sort(o.snaps)
	o.start = o.pt.start
	if len(o.segs) > 0 {
		o.start = max(o.start, o.segs[0].base)
	}
	for i, g := range o.segs {
		if i+1 < len(o.segs) {
			g.next = o.segs[i+1].base
		}
	}
}

// vouched finds the place up to which the last checkpoint vouches for the log: in which
// segment, and where there; ok is false where it does not for that.
func (o *opening) vouched() (from int, pos int64, ok bool) {
	if o.known {
		i := slices.IndexFunc(o.segs, func(g *segment) bool { return g.base == o.pt.base })
		if i >= 0 {
			from, pos, ok = i, o.pt.pos, true
		} else if o.pt.pos > 0 && o.pt.next > o.start && (len(o.segs) == 0 || o.pt.base > o.segs[0].base) {
			o.l.fail(fmt.Errorf("segment %d is missing, though it had %d bytes", o.pt.base, o.pt.pos))
		}
	}
	for _, g := range o.segs[:from] { // vouched for, like their names
		g.synced, g.linked = g.size, true
	}
	o.next = o.start
	if o.known {
		o.next = max(o.next, o.pt.next)
	}
	if len(o.segs) > 0 {
		g := o.segs[from]
		o.stable = place{g, 0, g.base}
		if ok && g.size >= pos {
			o.stable = place{g, pos, o.pt.next}
		}
	}
	return from, pos, ok
}

// check walks what the last checkpoint does not vouch for.
func (o *opening) check() error {
	from, pos, vouched := o.vouched()
	alive := vouched && o.pt.live
	for i := from; i < len(o.segs); i++ {
		if i > from && o.segs[i].base != o.next {
			if again, err := o.misfit(i); !again || err != nil {
				return err
			}
			i--
			continue
		}
		if g := o.segs[i]; alive && g.base < o.pt.wbase && i+1 < len(o.segs) && g.size >= pos {
			g.synced, g.linked, o.next = pos, vouched, g.next // it was closed before, so it is whole
			pos, vouched = 0, false
			continue
		}
		whole, err := o.walk(o.segs[i], pos, vouched)
		if err != nil {
			return err
		}
		if !whole && (o.l.faulted() || i+1 == len(o.segs) || o.segs[i+1].base != o.next && !o.below(i+1)) {
			return o.drop(i + 1)
		} // else the file was longer than the segment, since the cut at its closing was lost
		pos, vouched = 0, false
	}
	return nil
}

// walk goes through a segment from pos on and cuts it where its batches end; whole
// is false where that was not the file's end. vouched says that the bytes before
// pos are known to be right and on disk.
func (o *opening) walk(g *segment, pos int64, vouched bool) (whole bool, err error) {
	l := o.l
	if vouched {
		g.linked, g.synced = pos > 0, min(pos, g.size) // a point at its beginning does not vouch for the name
	}
	if g.size < pos {
		l.fail(fmt.Errorf("segment %d has %d bytes and had %d", g.base, g.size, pos))
		pos = 0 // find what is left
	}
	next := g.base
	if pos > 0 {
		next = o.pt.next
	}
	if pos == g.size {
		g.next, o.next = next, next
		return true, nil
	}
	h, err := g.open()
	if err != nil {
		return false, err
	}
	defer h.drop()
	w := &walker{f: h.f, end: g.size, pos: pos, verify: pos, last: -1}
	trusted := vouched && o.pt.live && o.pt.wbase == g.base && o.pt.wpos >= pos && o.pt.wpos <= g.size
	if o.pt.live && o.known {
		w.verify = g.size // the kernel lived: only the last write can be torn
	}
	if trusted {
		w.pos, next = o.pt.wpos, o.pt.wnext
	}
	from, begin, walked := w.pos, next, o.walked
	next, err = o.batches(w, next)
	if errors.Is(err, errTorn) && w.verify > from {
		// The file goes on after its last batch, maybe with what it had before it was taken over.
		o.walked = walked
		w = &walker{f: h.f, end: g.size, pos: from, verify: from, last: -1}
		next, err = o.batches(w, begin)
	}
	if w.last >= 0 && w.last < w.verify && (err == nil || errors.Is(err, errTorn)) {
		next, err = w.verifyLast(next, err)
	}
	g.next, o.next = next, next
	if l.s.distrust && (err == nil || errors.Is(err, errTorn)) && !l.faulted() {
		if err := rewrite(h.f, pos, w.pos); err != nil {
			return false, err
		}
	}
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, errTorn) {
		return false, err
	}
	if l.faulted() {
		g.size = w.pos // damage: leave the file as it is, for who wants to mend it
		return false, nil
	}
	l.s.log.Info("a log's torn end was cut off", "log", l.dir, "segment", int64(g.base),
		"at", w.pos, "bytes", g.size-w.pos, "why", err)
	g.size, o.cut = w.pos, true
	if err := h.f.Truncate(w.pos); err != nil {
		return false, err
	}
	return false, l.s.sync(h.f) // it must not come back behind what is appended next
}

// batches walks on from next and returns the offset after the last good batch.
func (o *opening) batches(w *walker, next record.Offset) (record.Offset, error) {
	buf, _ := walkBuffers.Get().(*[]byte)
	defer walkBuffers.Put(buf)
	w.buf, w.chained, w.expect = *buf, true, next
	for {
		b, err := w.next()
		if errors.Is(err, io.EOF) {
			return next, nil
		}
		if err != nil {
			return next, err
		}
		if n := len(o.walked); n == 0 || o.walked[n-1].epoch < b.LeaderEpoch() {
			o.walked = append(o.walked, epochStart{b.LeaderEpoch(), b.BaseOffset()})
		}
		next = b.NextOffset()
	}
}

// drop removes the segments from the i-th on: what precedes them is torn, so
// nothing of them was acknowledged.
func (o *opening) drop(i int) error {
	dropped := o.segs[min(i, len(o.segs)):]
	o.segs = o.segs[:len(o.segs)-len(dropped)]
	if o.l.faulted() || len(dropped) == 0 {
		return nil
	}
	for _, g := range dropped {
		if err := o.l.s.keeper.removeSegment(g, 0); err != nil {
			return err
		}
	}
	o.cut = true
	return o.l.s.syncDir(o.l.s.path(o.l.dir)) // they must not come back behind what is appended next
}

// misfit deals with the i-th segment, which does not begin where the one before ends.
// again is true where it was never one: its making failed, and after a power cut its
// file is back. It is true, too, where those before it were dropped, of which some
// could not be removed. Else the log ends before it.
func (o *opening) misfit(i int) (again bool, err error) {
	g := o.segs[i]
	if o.below(i) {
		o.next = g.base
		return true, nil
	}
	if g.base > o.next || !slices.ContainsFunc(o.segs[i+1:], func(g *segment) bool { return g.base == o.next }) {
		return false, o.drop(i)
	}
	o.segs = slices.Delete(o.segs, i, i+1)
	if o.l.faulted() {
		return true, nil
	}
	o.cut = true
	if err := o.l.s.keeper.removeSegment(g, 0); err != nil {
		return false, err
	}
	return true, o.l.s.syncDir(o.l.s.path(o.l.dir))
}

// below tells whether all that precedes the i-th segment lies below the log's start.
func (o *opening) below(i int) bool { return o.segs[i].base <= o.start }

// readEpochs takes the epochs from their file and adds those of the walked batches.
func (o *opening) readEpochs() error {
	s, l := o.l.s, o.l
	b, err := s.readFile(s.path(l.dir, epochFile))
	if err != nil {
		return err
	}
	if b != nil {
		if o.epochs, err = decodeEpochs(b); err != nil {
			s.log.Warn("a log's leader epochs were damaged; they are made anew from its batches", "log", l.dir, "err", err)
			if err := o.allEpochs(); err != nil {
				return err
			}
		}
	}
	o.epochs = o.epochs.cut(o.next)
	for _, e := range o.walked {
		o.epochs, _ = o.epochs.begin(e.epoch, e.start)
	}
	return nil
}

// allEpochs walks the whole log for its epochs.
func (o *opening) allEpochs() error {
	o.walked = nil
	for i, g := range o.segs {
		if i+1 < len(o.segs) && g.next <= o.start {
			continue // it was deleted, and may be back in part
		}
		h, err := g.open()
		if err != nil {
			return err
		}
		_, err = o.batches(&walker{f: h.f, end: g.size}, g.base)
		h.drop()
		if errors.Is(err, errTorn) {
			_ = o.l.damaged(g, err) // what was found is known, the log says the rest
		} else if err != nil {
			return err
		}
	}
	return nil
}

// publish makes the log ready. In the durable mode what was found counts as
// committed, so it is made durable first.
func (o *opening) publish() error {
	l := o.l
	if o.next < o.start { // what lay above the start was lost: nothing may follow what lies below it
		o.next = o.start
		if err := o.drop(0); err != nil {
			return err
		}
		o.stable = place{}
	}
	if !l.faulted() && l.options().durable() {
		if err := o.sync(); err != nil {
			l.fail(err)
		} else if n := len(o.segs); n > 0 {
			o.stable = place{o.segs[n-1], o.segs[n-1].size, o.next}
		}
	}
	if err := o.dropSnapshots(); err != nil {
		return err
	}
	l.known = o.pt
	if !o.known {
		l.known = point{snap: -1}
		for _, at := range o.snaps {
			if at <= o.next {
				l.known.snap, l.known.prodAt = at, at
			}
		}
	}
	l.pub.Lock()
	defer l.pub.Unlock()
	l.segs, l.epochs, l.made = o.segs, o.epochs, true
	l.unwritten = len(o.walked) > 0
	l.unshown = l.unwritten
	l.linked = o.known || o.synced
	if o.known {
		l.oldest = o.pt.oldest
	}
	l.start.Store(int64(o.start))
	l.end.Store(int64(o.next))
	l.commitTo.Store(int64(o.next))
	l.durable, l.stable = o.stable, o.stable
	l.marks.snapAt, l.marks.prodAt, l.marks.sureStart = l.known.snap, l.known.prodAt, o.start
	if o.cut {
		l.marks.cutBelow = l.s.journal.next()
	}
	below := len(o.segs) > 1 && o.below(1) // the last run did not come to delete them
	if (below || !o.clean()) && !l.marks.changed {
		l.marks.changed = true
		l.s.keeper.add(l)
	}
	l.ready.Store(true)
	return nil
}

// dropSnapshots removes producer snapshots of records that were lost, before others
// take their offsets.
func (o *opening) dropSnapshots() error {
	l, lost := o.l, false
	for _, at := range o.snaps {
		if at <= o.next || l.faulted() {
			continue
		}
		if err := l.s.fs.Remove(l.s.path(l.dir, fileName(at, snapshotSuffix))); err != nil {
			return err
		}
		lost = true
	}
	if !lost {
		return nil
	}
	return l.s.syncDir(l.s.path(l.dir))
}

// clean tells whether the last checkpoint still says all there is to say.
func (o *opening) clean() bool {
	g := o.l.activeLocked()
	return o.known && !o.cut && g != nil && g.base == o.pt.base && g.size == o.pt.pos && o.l.start.Load() == int64(o.pt.start)
}

// sync makes what was walked durable, and the names of its files.
func (o *opening) sync() error {
	l := o.l
	names := false
	for _, g := range o.segs {
		if g.synced >= g.size && g.linked {
			continue
		}
		if g.synced < g.size {
			if err := g.sync(); err != nil {
				return err
			}
			g.synced = g.size
		}
		names = names || !g.linked
		g.linked = true
	}
	if !names {
		return nil
	}
	o.synced = true
	return l.s.syncNames(l.dir, !o.known)
}

// sync makes the segment's file durable.
func (g *segment) sync() error {
	h, err := g.open()
	if err != nil {
		return err
	}
	defer h.drop()
	return g.log.s.sync(h.f)
}

// syncNames makes the names in a log's directory durable, and, where the directory
// is new, its own and what it says of itself.
func (s *Store) syncNames(dir string, fresh bool) error {
	if fresh {
		if err := s.syncMetadata(dir); err != nil {
			return err
		}
	}
	if err := s.syncDir(s.path(dir)); err != nil || !fresh {
		return err
	}
	return s.syncDir(s.cfg.Dir)
}

// syncMetadata makes what a directory says of itself durable.
func (s *Store) syncMetadata(dir string) error {
	f, err := s.fs.Open(s.path(dir, metadataFile), vfs.Existing)
	if err != nil {
		return err
	}
	if s.distrust {
		var n int64
		if n, err = f.Size(); err == nil {
			err = rewrite(f, 0, n)
		}
	}
	if err == nil {
		err = s.sync(f)
	}
	return errors.Join(err, f.Close())
}
