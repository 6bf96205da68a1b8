package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/aside"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/journal"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/storage/space"
	"github.com/leatstream/leat/internal/vfs"
)

// ErrMetadataBehind is returned by Open if the directory was used with later metadata of the
// cluster than are known at the start.
var ErrMetadataBehind = errors.New("the cluster's metadata are older than the logs")

// CheckVersion refuses a directory whose version Open would refuse, and changes nothing. Callers
// that write elsewhere before they call Open call it first. It returns the entry of the metadata
// log up to which the directory was used, or 0 if that is not known.
func CheckVersion(fsys vfs.FS, dir string, log *slog.Logger) (metadata uint64, err error) {
	d := checkpoint.Disk{FS: fsys, Dir: dir, Log: log}
	hot, err := checkpoint.NewPair(&d, checkpointName).Look()
	if err != nil {
		return 0, err
	}
	base, err := checkpoint.NewPair(&d, pointsName).Look()
	return knownMetadata(hot, base), err
}

// knownMetadata is the entry of the metadata log up to which the directory was used, as far as the
// sheets that exist tell. It is 0 if they do not tell.
func knownMetadata(sheets ...*checkpoint.Sheet) (index uint64) {
	for _, sheet := range sheets {
		if sheet != nil {
			index = max(index, sheet.Metadata)
		}
	}
	return index
}

// CheckMetadata returns ErrMetadataBehind if the metadata log ends before the entry up to which the
// directory was used. end is the log's last entry.
func CheckMetadata(dir string, used, end uint64) error {
	if used <= end {
		return nil
	}
	return fmt.Errorf("%w: %s was used up to entry %d of the metadata log, which ends at entry %d: "+
		"bring back the newest copy of the quorum directory; with the older one, topics that were made since would be taken for unknown",
		ErrMetadataBehind, dir, used, end)
}

// recoverDir makes sure that the directory has everything that was acknowledged. It reads the
// newest checkpoint and compares the journal from there on with the files, however the last run
// ended. A log itself is checked when it is first used.
func (s *Store) recoverDir() error {
	dir := s.cfg.Dir
	if err := s.fs.MkdirAll(dir); err != nil {
		return err
	}
	s.space = space.New(s.fs, dir, s.cfg.Reserve, s.log)
	k := &s.keeper
	hot, older, err := k.checkpoint.Load()
	if err != nil {
		return err
	}
	base, _, err := k.base.Load()
	if err != nil {
		return err
	}
	used := knownMetadata(hot, base)
	if s.cfg.Metadata > 0 {
		if err := CheckMetadata(dir, used, s.cfg.Metadata); err != nil {
			return err
		}
	}
	s.metadata.Store(used)
	s.remembered.Store(used)
	if err := s.syncs.readNote(); err != nil {
		return err
	}
	if s.syncs.distrust {
		s.log.Warn("a sync failed in the last run: everything that came after the last checkpoint is written anew")
	}
	s.volume.openVolume(s)
	s.points = checkpoint.NewTable(base, hot)
	if hot == nil {
		return s.beginDir(base)
	}
	if base == nil && k.base.WereSaved() {
		if err := s.losses.replacePoints(hot); err != nil {
			return err
		}
	}
	if s.journal, err = journal.Open(s.journalConfig(hot.Journal)); err != nil {
		return err
	}
	s.journal.AllowWrites()
	k.previous = hot.At
	keep := hot.At
	if older != nil && older.Journal == hot.Journal && older.At.Round < hot.At.Round {
		keep = older.At // recovery begins there if the newest checkpoint file rots
	}
	return s.replayAll(hot.At, keep)
}

func (s *Store) journalConfig(id [16]byte) journal.Config {
	return journal.Config{
		FS: s.fs, Dir: s.cfg.Dir, ID: id, Size: s.cfg.Journal, Log: s.log,
		Sync: s.syncs.syncFile, SyncDir: s.syncs.syncDir, IsFull: isFull, HasRoom: s.space.HasRoomFor, Written: s.keeper.noteWritten,
	}
}

// beginDir starts a directory that has no checkpoint: either it is new, or its checkpoints are
// lost.
func (s *Store) beginDir(base *checkpoint.Sheet) (err error) {
	// A directory without a checkpoint may be of a process that was killed before it did this.
	if err := vfs.SyncPath(s.fs, s.cfg.Dir); err != nil {
		return err
	}
	if s.journal, err = journal.Open(s.journalConfig(randomID())); err != nil {
		return err
	}
	k := &s.keeper
	sheet := checkpoint.Sheet{Journal: s.journal.ID(), Metadata: s.metadata.Load()}
	// The run of a node is noted after its first checkpoint and before its first record.
	lost := s.journal.HasFiles() || k.checkpoint.WereSaved() || s.cfg.Run.Last().Epoch > 0
	found := false
	if lost {
		if err := s.losses.reportCheckpoints(); err != nil {
			return err
		}
		var whole bool
		if sheet.At, whole, found = s.journal.Adopt(journalOf(base)); found {
			sheet.Journal = s.journal.ID()
		}
		if !whole {
			s.losses.reportJournal(1)
		}
	}
	if !found {
		sheet.At = s.journal.Start()
		if err := s.listAside(map[LogID]bool{}); err != nil {
			return err
		}
	}
	k.previous = sheet.At
	if err := s.fs.MkdirAll(s.pathOf(journal.DirName)); err != nil && !isFull(err) {
		return err
	}
	// The first checkpoint makes the names in the directory durable, too.
	k.checkpoint.MakeNamesDurable()
	sheet.Points = s.points.All()
	err = k.checkpoint.Save(&sheet)
	if err == nil {
		s.journal.AllowWrites()
	}
	if err != nil && !isFull(err) {
		return err
	}
	if err != nil {
		s.log.Error("the disk is full: nothing can be written until there is room", "dir", s.cfg.Dir)
		k.checkpointLater()
	}
	if found {
		return s.replayAll(sheet.At, sheet.At)
	}
	return nil
}

// listAside lists the directories that were renamed because their logs were deleted, or because the
// metadata did not know their logs. A start that cannot list them is refused: it would bring deleted
// records back, and report logs as missing whose directories only have another name.
func (s *Store) listAside(deleted map[LogID]bool) error {
	infos, err := s.fs.ReadDir(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("listing the data directory: %w", err)
	}
	for _, i := range infos {
		if id, since, ok := aside.ParseStray(i.Name); ok && i.Dir {
			s.strays.Add(i.Name, id, since)
		} else if id, ok := aside.ParseDeleted(i.Name); ok && i.Dir {
			deleted[id] = true
			s.keeper.removeDir(i.Name, id)
		}
	}
	return nil
}

// replayAll plays the journal back from a mark on. Rounds from keep on stay in the journal.
func (s *Store) replayAll(from, keep checkpoint.Mark) error {
	r := newReplay(s)
	if err := s.listAside(r.deleted); err != nil {
		return err
	}
	at, err := r.playBack(from)
	if err != nil {
		return err
	}
	s.log.Debug("the journal was read", "from", from, "keep", keep, "to", at, "broken", r.broken)
	if err := s.journal.Resume(keep, from, at); err != nil {
		return err
	}
	k := &s.keeper
	k.older = keep
	for id := range r.deleted {
		s.points.Forget(id)
	}
	for i := range k.leaving { // they were listed before the journal's end was known
		k.leaving[i].round, k.leaving[i].after = at.Round, k.saves+2
	}
	k.recovered = listRecovered(r.touched)
	k.since = time.Now()
	k.redo = true
	s.setWaiting(r.waiting)
	if len(r.waiting) > 0 {
		k.waitingAt = time.Now().Add(waitingEvery)
		s.log.Error("the disk is too full to recover; the logs that lack records wait for room", "logs", len(r.waiting))
	}
	if len(k.recovered) > 0 {
		k.urgent.Store(true)
		s.log.Info("the journal was compared with the logs", "rounds", at.Round-from.Round, "files", len(k.recovered), "written", r.written)
	}
	r.noteFinishedCuts()
	if r.broken > 0 {
		s.losses.reportJournal(r.broken)
		// No other recovery may play these rounds back over records that are appended from now on.
		return k.checkpointRecovered()
	}
	return nil
}

// checkpointRecovered makes everything durable that recovery wrote, and moves the journal's mark
// behind it.
func (k *keeper) checkpointRecovered() error {
	k.run.Lock()
	defer k.run.Unlock()
	return k.checkpointLocked(nil)
}

// recoverWaiting continues a recovery that found the disk full.
func (s *Store) recoverWaiting() {
	k := &s.keeper
	k.run.Lock()
	defer k.run.Unlock()
	r := newReplay(s)
	s.mu.Lock()
	r.only = maps.Clone(s.waiting)
	s.mu.Unlock()
	if len(r.only) == 0 {
		k.waitingAt = time.Time{}
		return
	}
	_, err := r.playBack(k.previous)
	if err != nil {
		s.log.Error("the logs that lack records cannot be recovered yet", "logs", len(r.only), "err", err)
	}
	if err != nil || len(r.waiting) > 0 {
		return // waitingAt has the time of the next try already
	}
	k.waitingAt = time.Time{}
	k.mu.Lock()
	k.recovered = append(k.recovered, listRecovered(r.touched)...)
	k.mu.Unlock()
	s.setWaiting(nil)
	k.urgent.Store(true)
	s.log.Info("there is room again: recovery is complete")
}

// setWaiting notes which logs lack records that only the journal has.
func (s *Store) setWaiting(logs map[LogID]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = logs
}

func (s *Store) hasWaiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) > 0
}

// waitingError is the reason why a log cannot be opened yet. It is nil if the log can be opened.
func (s *Store) waitingError(id LogID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[id] {
		return fmt.Errorf("%w: this log's last records wait in the journal until there is room", ErrDiskFull)
	}
	return nil
}

func (s *Store) syncFile(name string) error {
	f, err := s.fs.Open(name, vfs.Existing)
	if err != nil {
		return err
	}
	err = s.syncs.syncFile(f)
	return errors.Join(err, f.Close())
}

// replay restores the contents of segments from the journal. It reads the journal twice. The first
// pass finds out what was deleted or truncated later, and which writes were never complete. The
// second pass compares the rest with the files and writes the bytes that differ.
type replay struct {
	s        *Store
	only     map[LogID]bool // nil: all logs
	deleted  map[LogID]bool // logs that their directories say are deleted: none of their bytes in the journal counts
	cuts     map[LogID][]cut
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
		s: s, deleted: map[LogID]bool{}, starts: map[LogID]record.Offset{}, cuts: map[LogID][]cut{}, halves: map[uint64]bool{},
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
	return at, r.finishCuts()
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
		case journal.Start, journal.Truncate, journal.Truncated:
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
// checkpoint vouches for. ok is false if no bytes are left.
func (r *replay) clipPart(p journal.Part) (_ journal.Part, ok bool) {
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

// finishCuts cuts the files of logs whose truncation had begun: it is noted in the journal, so it
// counts.
func (r *replay) finishCuts() error {
	for id, cuts := range r.cuts {
		last := cuts[len(cuts)-1]
		if last.done || r.deleted[id] || r.only != nil {
			continue
		}
		if topic, ok, err := r.s.dirs.readOwner(last.at.Dir); err != nil {
			return err
		} else if ok && topic == id.Topic {
			if err := r.cutFiles(last.at.Dir, last.at.Base, last.at.Pos); err != nil {
				return fmt.Errorf("truncating %s to offset %d: %w", last.at.Dir, last.at.Offset, err)
			}
		} // else nothing of it is left to be cut
		r.finished = append(r.finished, last.at)
	}
	return nil
}

// noteFinishedCuts notes that truncations are complete, before anything is appended to their logs.
// Without the note the next recovery would truncate the logs again. If the journal has no room for it, each log
// notes it before its first append (confirmCutLocked).
func (r *replay) noteFinishedCuts() {
	if len(r.finished) == 0 {
		return
	}
	var m journal.Image
	for _, p := range r.finished {
		p.Kind = journal.Truncated
		m.Add(p, nil, r.s.journal.RoundSize)
	}
	err := r.s.journal.Write(&m)
	if err == nil {
		return
	}
	if !errors.Is(err, journal.ErrLost) {
		keepUnconfirmed(r.s, r.finished)
		return
	}
	for _, p := range r.finished {
		r.s.faults.set(p.ID, newTaint(fmt.Errorf("its truncation to offset %d could not be noted: %w", p.Offset, err)))
	}
}

// keepUnconfirmed keeps the notes that truncations are complete, which the journal does not have yet, for their logs.
func keepUnconfirmed(s *Store, cuts []journal.Part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unconfirmed = map[LogID]journal.Part{}
	for _, p := range cuts {
		p.Kind = journal.Truncated
		s.unconfirmed[p.ID] = p
	}
}

// takeUnconfirmed takes the note of a log; nil: there is none.
func takeUnconfirmed(s *Store, id LogID) *journal.Part {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.unconfirmed[id]
	if !ok {
		return nil
	}
	delete(s.unconfirmed, id)
	return &p
}

// cutFiles cuts a log's files at a place, durably. A file that already ends there is synced, too: a
// killed process may have cut it in the page cache only, and the note that follows tells later
// recoveries that nothing is left to cut.
func (r *replay) cutFiles(dir string, base record.Offset, pos int64) error {
	s := r.s
	infos, err := s.fs.ReadDir(s.pathOf(dir))
	if err != nil {
		return err
	}
	for _, i := range infos {
		at, ok := segment.ParseFileName(i.Name, segment.LogSuffix)
		switch {
		case !ok || at < base:
		case at > base:
			for _, suffix := range []string{segment.LogSuffix, segment.IndexSuffix, segment.TimeSuffix} {
				if err := s.fs.Remove(s.pathOf(dir, segment.FileName(at, suffix))); err != nil {
					return err
				}
			}
		case i.Size >= pos:
			if err := s.truncateFile(s.pathOf(dir, i.Name), pos); err != nil {
				return err
			}
		}
	}
	return s.syncs.syncDir(s.pathOf(dir))
}

func (s *Store) truncateFile(name string, size int64) error {
	f, err := s.fs.Open(name, vfs.Existing)
	if err != nil {
		return err
	}
	if err = f.Truncate(size); err == nil {
		err = s.syncs.syncFile(f)
	}
	return errors.Join(err, f.Close())
}
