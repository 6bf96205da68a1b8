package storage

import (
	"errors"
	"math"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/journal"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// replay restores the contents of segments from the journal. It reads the journal twice. The first
// pass finds out what was deleted or truncated later, and which writes were never complete. The
// second pass compares the rest with the files and writes the bytes that differ.
type replay struct {
	s        *Store
	only     map[LogID]bool // nil: all logs
	deleted  map[LogID]bool // logs that their directories say are deleted: none of their bytes in the journal counts
	cuts     map[LogID][]cut
	replaced map[LogID][]placedNote  // segments that were replaced (journal.Compacted)
	starts   map[LogID]record.Offset // the highest starts that the journal notes
	halves   map[uint64]bool         // the numbers of the first rounds of incomplete writes
	began    uint64                  // the number of the first round of the write that this pass is within; 0: it is within none
	isHalf   bool                    // the round belongs to an incomplete write
	part     int                     // the number of parts that this pass has read
	pending  []placedNote            // notes of the write that this pass is within
	rewrite  bool                    // a sync failed, so bytes are written even if the file seems to have them
	broken   int                     // rounds that cannot be read
	written  int                     // parts that were written
	verdicts map[string]verdict
	firsts   map[string]record.Offset // by directory; for logs whose points were lost
	files    map[recoveredFile]vfs.File
	touched  map[recoveredFile]bool
	waiting  map[LogID]bool // logs that lack records because there is no room
	finished []journal.Part // truncations that this recovery completed
}

// placedNote is a note of the journal with the number of its part.
type placedNote struct {
	part int
	journal.Part
}

// cut is a truncation or a deletion that the journal notes. No bytes beyond it are restored from
// parts that precede it.
type cut struct {
	part int // its number
	at   journal.Part
	done bool // the files were already cut
}

func newReplay(s *Store) *replay {
	return &replay{
		s: s, deleted: map[LogID]bool{}, starts: map[LogID]record.Offset{}, cuts: map[LogID][]cut{}, replaced: map[LogID][]placedNote{}, halves: map[uint64]bool{},
		verdicts: map[string]verdict{}, firsts: map[string]record.Offset{}, files: map[recoveredFile]vfs.File{}, touched: map[recoveredFile]bool{},
		waiting: map[LogID]bool{}, rewrite: s.syncs.failed.Load(),
	}
}

// playBack restores the rounds from a mark on, and returns the mark for the next round. A second
// try does not write the rounds themselves anew: the first try did so, and the journal is in use.
func (r *replay) playBack(from checkpoint.Mark) (checkpoint.Mark, error) {
	at, err := r.s.journal.Scan(from, r.rewrite && r.only == nil, r.noteRound)
	if err != nil {
		return at, err
	}
	r.abandonWrite()
	for id, start := range r.starts {
		if r.only == nil && !r.deleted[id] {
			r.s.points.RaiseStart(id, start)
		}
	}
	r.part = 0
	if _, err := r.s.journal.Scan(from, false, r.applyRound); err != nil {
		return at, errors.Join(err, r.closeFiles())
	}
	if err := r.closeFiles(); err != nil {
		return at, err
	}
	if err := r.finishCuts(); err != nil || r.only != nil {
		return at, err
	}
	return at, r.checkLoweredPoints()
}

// abandonWrite notes that the write that has no last round yet is incomplete.
func (r *replay) abandonWrite() {
	if r.began != 0 {
		r.halves[r.began] = true
	}
	r.began, r.pending = 0, nil
}

// noteRound is the first pass. The notes of a write count only if the write is complete: otherwise
// the caller was told that the journal does not have the note, or was told nothing. A deletion
// counts in any case, since the log is deleted before that is noted. It covers only the parts that
// precede it, since a log of the same identity may have been made after it.
func (r *replay) noteRound(e *journal.Round) error {
	switch {
	case e.Broken:
		r.broken++
		r.began = 0 // a later write follows, so the broken one was complete once
	case e.Begins():
		r.abandonWrite()
		r.began = e.Number
	}
	for _, p := range e.Parts {
		r.part++
		switch p.Kind {
		case journal.Delete:
			r.cuts[p.ID] = append(r.cuts[p.ID], cut{part: r.part, done: true}) // the zero place: all bytes are beyond it
			r.pending = append(r.pending, placedNote{r.part, p})
		case journal.Start, journal.Truncate, journal.Truncated, journal.Compacted, journal.Restart:
			r.pending = append(r.pending, placedNote{r.part, p})
		case journal.Bytes:
		}
	}
	if e.Ends() {
		for _, n := range r.pending {
			r.applyNote(n)
		}
		r.began, r.pending = 0, nil
	}
	return nil
}

// applyNote applies a note of a complete write.
func (r *replay) applyNote(n placedNote) {
	switch n.Kind {
	case journal.Start:
		r.starts[n.ID] = max(r.starts[n.ID], n.Offset)
	case journal.Delete:
		delete(r.starts, n.ID)
	case journal.Truncate:
		r.cuts[n.ID] = append(r.cuts[n.ID], cut{part: n.part, at: n.Part})
		if r.only == nil {
			r.s.points.Lower(n.ID, n.Base, n.Pos, n.Offset, r.starts[n.ID])
		}
	case journal.Truncated:
		for i := range r.cuts[n.ID] {
			r.cuts[n.ID][i].done = true
		}
	case journal.Restart:
		n.Base, n.Pos = 0, 0 // the zero place: all bytes are beyond it
		r.cuts[n.ID] = append(r.cuts[n.ID], cut{part: n.part, at: n.Part})
		r.starts[n.ID] = n.Offset
		if r.only == nil {
			r.s.points.Restart(n.ID, n.Offset)
		}
	case journal.Compacted:
		r.replaced[n.ID] = append(r.replaced[n.ID], n)
	case journal.Bytes:
	}
}

// applyRound is the second pass: it restores the bytes that count.
func (r *replay) applyRound(e *journal.Round) error {
	if e.Begins() || e.Broken {
		r.isHalf = r.halves[e.Number]
	}
	for _, p := range e.Parts {
		r.part++
		if r.isHalf || p.Kind != journal.Bytes || r.deleted[p.ID] || r.waiting[p.ID] || r.only != nil && !r.only[p.ID] {
			continue
		}
		if _, ok := parseDirName(p.Dir); !ok {
			r.s.log.Warn("the journal names a directory that is no log's", "dir", p.Dir)
			continue
		}
		if p, ok := r.clipPart(p); ok {
			if err := r.restorePart(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// clipPart removes from a part the bytes that were truncated later, and those that the last
// checkpoint vouches for. ok is false if no bytes are left. Nothing is left of a part of a segment that was
// replaced later, whose file may have other bytes at that position: only a journal that was found without the
// checkpoint files begins so far back.
func (r *replay) clipPart(p journal.Part) (_ journal.Part, ok bool) {
	for _, c := range r.replaced[p.ID] {
		if c.part > r.part && p.Base < c.Base {
			return p, false
		}
	}
	for _, c := range r.cuts[p.ID] {
		switch {
		case c.part < r.part || p.Base < c.at.Base:
		case p.Base > c.at.Base || p.Pos >= c.at.Pos:
			return p, false
		default:
			p.Data = p.Data[:min(int64(len(p.Data)), c.at.Pos-p.Pos)]
		}
	}
	known := r.s.points.Get(p.ID)
	if !known.Vouched || p.Base > known.Base {
		return p, len(p.Data) > 0
	}
	if p.Base < known.Base {
		return p, false
	}
	if skip := min(known.Pos-p.Pos, int64(len(p.Data))); skip > 0 {
		p.Pos, p.Data = p.Pos+skip, p.Data[skip:]
	}
	return p, len(p.Data) > 0
}

// restorePart makes sure that a file has a part's bytes. If there is no room for them, the log
// waits. The directory's name is locked: in a second try the store is in use, so that between two
// parts the log's directory may be renamed, and another log's directory may take its place.
func (r *replay) restorePart(p journal.Part) error {
	unlock := r.s.dirs.lockName(p.Dir)
	defer unlock()
	if r.only != nil {
		if r.s.waitingError(p.ID) == nil {
			return nil // the log was deleted meanwhile
		}
		clear(r.verdicts)
	}
	dir, err := r.s.dirs.findDir(p.Dir, p.ID)
	if err == nil {
		err = r.writePart(dir, p)
	}
	if isFull(err) {
		r.waiting[p.ID] = true
		return nil
	}
	if errors.Is(err, errLeaving) {
		return nil // the log was deleted meanwhile
	}
	return err
}

// writePart makes sure that a file has a part's bytes. dir is the current name of the log's
// directory.
func (r *replay) writePart(dir string, p journal.Part) error {
	if ok, err := r.claimDir(dir, p); err != nil || !ok {
		return err
	}
	key := recoveredFile{name: p.Dir, id: p.ID, base: p.Base}
	isOld, err := r.isBelowFirst(dir, p)
	if err != nil {
		return err
	}
	mode := vfs.Create
	if p.Pos > 0 {
		mode = vfs.Existing
	}
	f, err := r.openFile(dir, key, mode)
	size := int64(0)
	if err == nil {
		size, err = f.Size()
	}
	if errors.Is(err, vfs.ErrNotExist) || err == nil && size < p.Pos {
		if isOld {
			return nil // retention removed it
		}
		r.s.faults.set(p.ID, newLoss("%s has %d bytes where the journal goes on at byte %d",
			r.s.pathOf(dir, segment.FileName(p.Base, segment.LogSuffix)), size, p.Pos))
		return nil
	}
	if err != nil {
		return err
	}
	r.touched[key] = true
	if !r.rewrite && size >= p.Pos+int64(len(p.Data)) && hasBytes(f, p.Data, p.Pos) {
		return nil
	}
	r.written++
	_, err = f.WriteAt(p.Data, p.Pos)
	return err
}

// isBelowFirst tells whether a part lies below the first segment that the log's directory had before
// the replay, and nobody needs it. The log starts in that segment or above it: a point that vouches
// for that may have been lowered since, by a truncation that the journal notes. Of a log whose point
// was lost the start is not known.
func (r *replay) isBelowFirst(dir string, p journal.Part) (bool, error) {
	known := r.s.points.Get(p.ID)
	if !known.Lost && p.Base >= known.Start {
		return false, nil
	}
	first, err := r.firstSegment(dir)
	return p.Base < first && (known.Lost || first <= known.Start), err
}

// firstSegment is the base of the first segment that a directory had before the replay.
func (r *replay) firstSegment(dir string) (record.Offset, error) {
	if first, ok := r.firsts[dir]; ok {
		return first, nil
	}
	first := record.Offset(math.MaxInt64)
	infos, err := r.s.fs.ReadDir(r.s.pathOf(dir))
	if err != nil {
		return 0, err
	}
	for _, i := range infos {
		if base, ok := segment.ParseFileName(i.Name, segment.LogSuffix); ok {
			first = min(first, base)
		}
	}
	if first == math.MaxInt64 {
		first = 0 // the directory has no segment yet
	}
	r.firsts[dir] = first
	return first, nil
}

// hasBytes tells whether a file has these bytes at a position.
func hasBytes(f vfs.File, want []byte, pos int64) bool {
	var buf [64 << 10]byte
	for len(want) > 0 {
		b := buf[:min(len(buf), len(want))]
		if n, _ := f.ReadAt(b, pos); n < len(b) || string(b) != string(want[:len(b)]) {
			return false
		}
		want, pos = want[len(b):], pos+int64(len(b))
	}
	return true
}

// verdict is the answer of claimDir for a directory and a topic.
type verdict struct {
	topic [16]byte
	skip  bool // the directory is gone, or another topic's, so nothing is written to it
}

// claimDir makes sure that the directory exists and is the log's own. It returns false if that
// cannot be. The log's name is locked.
func (r *replay) claimDir(dir string, p journal.Part) (bool, error) {
	if v, ok := r.verdicts[dir]; ok && v.topic == p.ID.Topic {
		return !v.skip, nil
	}
	v := verdict{topic: p.ID.Topic}
	_, err := r.s.fs.Stat(r.s.pathOf(dir))
	switch {
	case errors.Is(err, vfs.ErrNotExist) && (r.s.points.Get(p.ID).Vouched || p.Pos > 0):
		v.skip = true
		r.s.faults.set(p.ID, newLoss("its directory %s is missing, though the journal has records of it", r.s.pathOf(dir)))
	case err != nil && !errors.Is(err, vfs.ErrNotExist):
		return false, err
	default:
		mine, err := r.prepareDir(dir, p.ID, err == nil)
		if err != nil {
			return false, err
		}
		v.skip = !mine
	}
	r.verdicts[dir] = v
	return !v.skip, nil
}

// prepareDir makes a log's directory, or tells whether the existing one is the log's own. A
// directory without metadata is the log's own: a power cut took the metadata, and earlier
// directories of that name were renamed away, durably, before this one was made. For the same
// reason a directory of another topic is younger than the log, and stays. It is only wrong there if
// somebody moved it by hand to the place of a log that is still wanted, so that log reports a
// fault.
func (r *replay) prepareDir(dir string, id LogID, exists bool) (mine bool, err error) {
	if !exists {
		return true, r.s.dirs.makeDirLocked(dir, id)
	}
	topic, ok, err := r.s.dirs.readOwner(dir)
	if err != nil {
		return false, err
	}
	if !ok {
		return true, r.s.dirs.writeMetadata(dir, id)
	}
	if topic != id.Topic {
		r.s.faults.set(id, newLoss("its directory, %s, is another topic's, and the journal has records of it", dir))
	}
	return topic == id.Topic, nil
}

// maxReplayFiles bounds the files that are open during recovery.
const maxReplayFiles = 256

func (r *replay) openFile(dir string, key recoveredFile, mode vfs.Mode) (vfs.File, error) {
	if f := r.files[key]; f != nil {
		return f, nil
	}
	if len(r.files) >= maxReplayFiles {
		if err := r.closeFiles(); err != nil {
			return nil, err
		}
	}
	f, err := r.s.fs.Open(r.s.pathOf(dir, segment.FileName(key.base, segment.LogSuffix)), mode)
	if err == nil {
		r.files[key] = f
	}
	return f, err
}

func (r *replay) closeFiles() error {
	var err error
	for _, f := range r.files {
		err = errors.Join(err, f.Close())
	}
	clear(r.files)
	return err
}
