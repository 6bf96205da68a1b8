package storage

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/aside"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// Tail is what a cut has taken from a log, and kept: whole batches, with the offsets and epochs that they had. Its files are
// apart from the log's:
//
//	<name>.<topic id>.<partition>-tails/
//	    0000000003/                       the tail of cut 3
//	        manifest                      see Tail.encode
//	        00000000000000000120.log      batches: of the segment through which the cut went, named after the first of them
//	        00000000000000000300.log      a whole segment, with the name that it had
//	    0000000004.tmp/                   one that is being written or removed; the next start removes it
//
// A tail is kept until it is discarded or its log is deleted.
type Tail struct {
	Number      int32         // of the cut
	First, Last record.Offset // of its first batch's first record, and of its last record; there may be gaps between
	End         record.Offset // of the log after the cut
	FirstEpoch  record.Epoch  // of its first batch
	LastEpoch   record.Epoch  // of its last batch
	Time        int64         // when it was kept, in ms
	Bytes       int64         // of its batches

	files []tailFile
}

// tailFile is a file of a tail.
type tailFile struct {
	base  record.Offset
	bytes int64 // of batches; the file may be longer
}

const (
	manifestName = "manifest"
	tailTmp      = ".tmp" // ends the name of a tail that is being written or removed
)

// tailName is the name of a tail's directory.
func tailName(number int32) string { return fmt.Sprintf("%010d", number) }

// isTailName tells whether a name is one that tailName makes.
func isTailName(name string) bool {
	n, err := strconv.ParseInt(name, 10, 32)
	return err == nil && n > 0 && tailName(int32(n)) == name
}

// encode encodes the manifest: lines with a key, "=" and a value, one "file" line for each file in the order of the offsets, and
// a checksum (CRC-32C, hexadecimal) of all lines before it at the end.
func (t *Tail) encode() []byte {
	b := fmt.Appendf(nil, "version=1\ncut=%d\nend=%d\nfirst=%d\nlast=%d\nfirst.epoch=%d\nlast.epoch=%d\ntime=%d\n",
		t.Number, t.End, t.First, t.Last, t.FirstEpoch, t.LastEpoch, t.Time)
	for _, f := range t.files {
		b = fmt.Appendf(b, "file=%s %d\n", segment.FileName(f.base, segment.LogSuffix), f.bytes)
	}
	return fmt.Appendf(b, "crc=%08x\n", crc32.Checksum(b, crcTable))
}

// errManifest says that a file is not the manifest of a tail.
var errManifest = errors.New("it is no manifest of a tail")

func decodeTail(b []byte) (t Tail, err error) {
	text, sum, ok := strings.Cut(string(b), "crc=")
	if !ok || sum != fmt.Sprintf("%08x\n", crc32.Checksum([]byte(text), crcTable)) {
		return t, fmt.Errorf("%w: its checksum is wrong", errManifest)
	}
	var file string
	var version, cut int64
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if key == "file" {
			name, size, _ := strings.Cut(value, " ")
			file, value = name, size
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return t, fmt.Errorf("%w: line %q", errManifest, line)
		}
		switch key {
		case "version":
			version = n
		case "cut":
			cut = n
		case "end":
			t.End = record.Offset(n)
		case "first":
			t.First = record.Offset(n)
		case "last":
			t.Last = record.Offset(n)
		case "first.epoch":
			t.FirstEpoch = record.Epoch(n)
		case "last.epoch":
			t.LastEpoch = record.Epoch(n)
		case "time":
			t.Time = n
		case "file":
			base, ok := segment.ParseFileName(file, segment.LogSuffix)
			if !ok {
				return t, fmt.Errorf("%w: line %q", errManifest, line)
			}
			t.files, t.Bytes = append(t.files, tailFile{base, n}), t.Bytes+n
		}
	}
	t.Number = int32(cut)
	if version != 1 || cut < 1 || len(t.files) == 0 {
		return t, fmt.Errorf("%w: version %d, cut %d, %d files", errManifest, version, cut, len(t.files))
	}
	return t, nil
}

// tailDirs are the directories with tails, by log.
type tailDirs struct {
	alone sync.Mutex // held while a tail is discarded whose log is not in the store

	mu   sync.Mutex
	dirs map[LogID]*tailDir // guarded by mu
}

// tailDir is the directory with the tails of a log. The mutex of tailDirs guards all of it.
type tailDir struct {
	name    string
	changes int // how often a tail has come or gone, or may have
	counted int // the changes there were when tails and bytes were counted; -1: they never were
	tails   int
	bytes   int64
}

// add adds the directory of a log, in which a tail may come.
func (d *tailDirs) add(id LogID, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dirs == nil {
		d.dirs = map[LogID]*tailDir{}
	}
	if has := d.dirs[id]; has == nil || has.name != name {
		d.dirs[id] = &tailDir{name: name, counted: -1}
	}
}

// noteChange notes that a tail of a log has come or gone, or may have.
func (d *tailDirs) noteChange(id LogID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if has := d.dirs[id]; has != nil {
		has.changes++
	}
}

// get is the name of a log's directory with tails; "": it has none.
func (d *tailDirs) get(id LogID) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if has := d.dirs[id]; has != nil {
		return has.name
	}
	return ""
}

// take removes a log's directory from the set, and returns its name; "": it has none.
func (d *tailDirs) take(id LogID) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	has := d.dirs[id]
	if has == nil {
		return ""
	}
	delete(d.dirs, id)
	return has.name
}

// listLogs lists the logs that have a directory with tails, in no order.
func (d *tailDirs) listLogs() []LogID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.dirs))
}

// adoptTails takes over a directory with tails, when the store is opened, and removes what an earlier run has not finished.
func adoptTails(s *Store, id LogID, name string) {
	s.tails.add(id, name)
	if s.syncs.distrust { // no sync tells whether one that was discarded has lost its name on disk, so it may come back, and must be whole then
		return
	}
	infos, err := s.fs.ReadDir(s.pathOf(name))
	for _, i := range infos {
		if strings.HasSuffix(i.Name, tailTmp) { // one that was discarded may have its name still, after a crash
			err = errors.Join(err, removeRenamed(s, name, s.pathOf(name, i.Name), func(fn func() error) error { return fn() }))
		}
	}
	if err != nil {
		s.log.Warn("a tail that was not finished could not be removed", "dir", name, "err", err)
	}
}

// discardTails has the tails of a deleted log removed. It returns false if they could not be taken away. Nobody may write any for the
// log any more.
func discardTails(s *Store, id LogID) bool {
	name := s.tails.take(id)
	if name == "" {
		return true
	}
	to := aside.DeletedTailsName(name)
	err := s.fs.Remove(s.pathOf(to)) // one of an earlier log of the same identity
	if err == nil {
		err = s.fs.Rename(s.pathOf(name), s.pathOf(to))
	}
	if errors.Is(err, vfs.ErrNotExist) {
		return true
	}
	if err != nil {
		s.tails.add(id, name)
		s.log.Error("the tails of a deleted partition could not be taken away", "dir", name, "err", err)
		return false
	}
	s.keeper.removeLater(s.pathOf(to), 0)
	return true
}

// readTailOf reads the manifest of a tail. ErrNoTail says that there is no such tail.
func readTailOf(s *Store, dir, name string) (t Tail, err error) {
	b, err := s.readFile(s.pathOf(dir, name, manifestName))
	if err == nil && b == nil {
		if _, gone := s.fs.Stat(s.pathOf(dir, name)); errors.Is(gone, vfs.ErrNotExist) {
			return t, ErrNoTail // it was discarded just now
		}
	}
	if err == nil {
		t, err = decodeTail(b)
	}
	if err != nil {
		return t, fmt.Errorf("the tail %s/%s cannot be read: %w", dir, name, err)
	}
	return t, nil
}

// keepTail keeps the records of a log from an offset on as the tail of a cut, if there are any, durably: it has no others then, and
// no part of a tail. It returns the cut that may be made now. The log's swapping is held.
func keepTail(l *Log, number int32, to record.Offset) (c cutting, err error) {
	l.mu.Lock()
	c = cutting{l: l, number: number, to: to, start: record.Offset(l.start.Load()), end: l.end}
	l.mu.Unlock()
	if err := dropUnmadeTails(l, c.end.Next); err != nil {
		return c, err
	}
	w := newTail{l: l, Tail: Tail{Number: number, Last: c.end.Next - 1, Time: time.Now().UnixMilli()}}
	if err := w.findParts(&c); err != nil || len(w.parts) == 0 {
		return c, err
	}
	if err := w.write(); err != nil {
		w.abandon()
		l.s.noteRefusal(err)
		if !errors.Is(err, ErrDiskFull) {
			err = nameError(err)
		}
		if isFull(err) {
			err = fmt.Errorf("the records that are cut from the log cannot be kept, so nothing is cut: free some space, or discard tails that nobody needs: %w", err)
		}
		return c, err
	}
	return c, nil
}

// dropUnmadeTails removes the tails of cuts that were not made, since their records are still in the log, which ends at an offset:
// they are kept anew. That of a cut that was made, and for which the log has not got the number, stays.
func dropUnmadeTails(l *Log, end record.Offset) error {
	made, err := l.CutNumber()
	if err != nil {
		return err
	}
	all, err := listTails(l.s, l.id)
	if err != nil && len(all) == 0 {
		return nameError(err)
	}
	for _, t := range all {
		if t.Number > made && t.End < end {
			if err := removeTail(l.s, l.id, t.Number, l.dir.Do); err != nil {
				return err
			}
		}
	}
	return nil
}

// newTail is a tail that is being written.
type newTail struct {
	l *Log
	Tail
	parts []tailPart
}

// tailPart is a part of a log that belongs to a tail: the end of a segment, or all of it.
type tailPart struct {
	g         *segment.Segment
	from, end int64
	isCut     bool // the cut goes through the segment, or is at its beginning: then its file stays, and is cut
}

// findParts finds what lies beyond a cut, or all from the log's start on if the cut lies below that.
func (w *newTail) findParts(c *cutting) error {
	l := w.l
	if max(c.to, c.start) >= c.end.Next {
		return nil
	}
	segs := l.segments()
	at, err := w.findBegin(c, segs)
	if err != nil {
		return err
	}
	for i := slices.Index(segs, at.Segment); i >= 0 && i < len(segs); i++ {
		p := tailPart{g: segs[i], end: segs[i].Size()}
		if p.g == at.Segment {
			p.from, p.isCut = at.Pos, c.to >= c.start
		}
		if p.g == c.end.Segment {
			p.end = c.end.Pos
		}
		if p.from < p.end {
			w.parts = append(w.parts, p)
		}
		if p.g == c.end.Segment {
			break
		}
	}
	if len(w.parts) == 0 {
		return nil
	}
	var head [record.HeaderLen]byte
	if err := w.parts[0].g.ReadAt(head[:], w.parts[0].from); err != nil {
		return l.explainError(w.parts[0].g, err)
	}
	first := record.Batch(head[:])
	w.First, w.FirstEpoch, w.LastEpoch = first.BaseOffset(), first.LeaderEpoch(), l.EpochAt(w.Last)
	if w.End = c.to; c.to >= c.start {
		w.End = max(at.Next, c.start)
	}
	for _, p := range w.parts {
		f := tailFile{p.g.Base(), p.end - p.from}
		if p.from > 0 {
			f.base = w.First
		}
		w.files = append(w.files, f)
	}
	return nil
}

// findBegin finds the place at which the tail begins.
func (w *newTail) findBegin(c *cutting, segs []*segment.Segment) (Position, error) {
	if c.to >= c.start {
		return findCut(w.l, c.to)
	}
	i := len(segs) - 1
	for i > 0 && segs[i].Base() > c.start {
		i--
	}
	found, err := segs[i].Locate(c.start)
	if errors.Is(err, io.EOF) {
		size, next := segs[i].End()
		return Position{segs[i], size, next}, nil
	}
	if err != nil {
		return Position{}, w.l.explainError(segs[i], err)
	}
	return Position{segs[i], found.Pos, found.Base}, nil
}

// dirName is the name of the directory with the log's tails.
func (w *newTail) dirName() string { return aside.TailsName(w.l.name, w.l.id) }

// tmp is the path of the tail while it is written.
func (w *newTail) tmp(names ...string) string {
	return w.l.s.pathOf(append([]string{w.dirName(), tailName(w.Number) + tailTmp}, names...)...)
}

// write writes the tail, makes it durable and gives it its name, durably.
func (w *newTail) write() error {
	l, s := w.l, w.l.s
	if _, err := s.fs.Stat(s.pathOf(w.dirName(), tailName(w.Number))); err == nil { // a copy of the directory was put back, or its log was
		s.tails.add(l.id, w.dirName())
		if err := removeTail(s, l.id, w.Number, l.dir.Do); err != nil {
			return err
		}
	}
	err := l.dir.Do(func() error {
		s.tails.add(l.id, w.dirName())
		if err := s.fs.Remove(w.tmp()); err != nil {
			return err
		}
		return s.fs.MkdirAll(w.tmp())
	})
	if err != nil {
		return err
	}
	for i, p := range w.parts {
		name := w.tmp(segment.FileName(w.files[i].base, segment.LogSuffix))
		if err := w.keepPart(p, name); err != nil {
			return err
		}
	}
	b := w.encode()
	if err := w.writeFile(w.tmp(manifestName), int64(len(b)), func(dst []byte, pos int64) error { copy(dst, b[pos:]); return nil }); err != nil {
		return err
	}
	if err := s.syncs.syncDir(w.tmp()); err != nil {
		return err
	}
	err = l.dir.Do(func() error { return s.fs.Rename(w.tmp(), s.pathOf(w.dirName(), tailName(w.Number))) })
	s.tails.noteChange(l.id)
	if err != nil {
		return err
	}
	if err := s.syncs.syncDir(s.pathOf(w.dirName())); err != nil {
		return err
	}
	return s.dirs.syncNames()
}

// keepPart keeps a part of the log in a file: a segment that goes as a whole by another name of its file, if the file system has
// such names, any other as a copy.
func (w *newTail) keepPart(p tailPart, name string) error {
	l := w.l
	if linker, ok := l.s.fs.(vfs.Linker); ok && p.from == 0 && !p.isCut {
		if synced, _ := p.g.Synced(); synced < p.end {
			if err := p.g.Sync(); err != nil && l.hasSegment(p.g) {
				l.s.handleSyncError(l, err)
				return err
			} else if err != nil {
				return fmt.Errorf("%w: the log's start has moved: %w", ErrBusy, err)
			}
		}
		err := l.dir.Do(func() error { return linker.Link(p.g.Path(segment.LogSuffix), name) })
		if kind := classify(err); kind != tainted { // else the file system may have no such names
			return err
		}
	}
	return w.writeFile(name, p.end-p.from, func(dst []byte, pos int64) error {
		if err := p.g.ReadAt(dst, p.from+pos); err != nil {
			return l.explainError(p.g, err)
		}
		return nil
	})
}

// tailBuffer is how many bytes are copied at a time.
const tailBuffer = 1 << 20

// writeFile writes a file of so many bytes, which read gets from a position on, and makes it durable.
func (w *newTail) writeFile(name string, size int64, read func(dst []byte, pos int64) error) (err error) {
	s := w.l.s
	if err := s.space.Take(size); err != nil {
		return err
	}
	var f vfs.File
	err = w.l.dir.Do(func() error {
		f, err = s.fs.Open(name, vfs.Fresh)
		return err
	})
	if err != nil {
		return err
	}
	buf := make([]byte, min(size, tailBuffer))
	for pos := int64(0); pos < size && err == nil; pos += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), size-pos)]
		if err = read(buf, pos); err == nil {
			_, err = f.WriteAt(buf, pos)
		}
	}
	if err == nil {
		err = s.syncs.syncFile(f)
	}
	return errors.Join(err, f.Close())
}

// abandon removes a tail that could not be written.
func (w *newTail) abandon() {
	err := w.l.dir.Do(func() error { return w.l.s.fs.Remove(w.tmp()) })
	if err != nil && classify(err) != gone { // the next try, or the next start, removes it
		w.l.s.log.Warn("a tail that could not be finished stays for now", "path", w.tmp(), "err", err)
	}
}
