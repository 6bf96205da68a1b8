package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"path"
	"syscall"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/aside"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/journal"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/storage/space"
	"github.com/leatstream/leat/internal/vfs"
)

// ErrMetadataBehind is returned by Open where the directory was used with later metadata
// than the cluster's metadata that are known at the start.
var ErrMetadataBehind = errors.New("the cluster's metadata are older than the logs")

// The names of the pairs of files that say where recovery begins.
const (
	checkpointName = "checkpoint"
	pointsName     = "points"
)

// CheckVersion refuses a directory of a version that Open would refuse, and changes nothing.
// Callers that write elsewhere before they call Open ask it first. It returns the entry of
// the metadata log up to which the directory was used; 0 where that is not known.
func CheckVersion(fsys vfs.FS, dir string, log *slog.Logger) (metadata uint64, err error) {
	d := checkpoint.Disk{FS: fsys, Dir: dir, Log: log}
	hot, err := checkpoint.NewPair(&d, checkpointName).Look()
	if err != nil {
		return 0, err
	}
	base, err := checkpoint.NewPair(&d, pointsName).Look()
	return knownMetadata(hot, base), err
}

// knownMetadata is the entry of the metadata log up to which, by the sheets that are there, the
// directory was used; 0: they do not tell.
func knownMetadata(sheets ...*checkpoint.Sheet) (index uint64) {
	for _, sheet := range sheets {
		if sheet != nil {
			index = max(index, sheet.Metadata)
		}
	}
	return index
}

// CheckMetadata returns ErrMetadataBehind where the metadata log ends, with entry end, before
// the one up to which a directory was used.
func CheckMetadata(dir string, used, end uint64) error {
	if used <= end {
		return nil
	}
	return fmt.Errorf("%w: %s was used up to entry %d of the metadata log, which ends at entry %d: "+
		"bring back the newest copy of the quorum directory; with the older one, topics that were made since would be taken for unknown",
		ErrMetadataBehind, dir, used, end)
}

// recoverDir makes the directory have everything that was acknowledged: it reads the newest
// checkpoint and compares the journal from there on with the files, whatever ended the last
// run. Logs are looked at when they are used.
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
		keep = older.At // should the newest checkpoint rot, recovery begins there
	}
	return s.replayAll(hot.At, keep)
}

func (s *Store) journalConfig(id [16]byte) journal.Config {
	return journal.Config{
		FS: s.fs, Dir: s.cfg.Dir, ID: id, Size: s.cfg.Journal, Log: s.log,
		Sync: s.syncs.syncFile, SyncDir: s.syncs.syncDir, IsFull: isFull, HasRoom: s.space.HasRoomFor, Written: s.keeper.noteWritten,
	}
}

// beginDir starts a directory that has no checkpoint: a new one, or one whose checkpoints are
// lost.
func (s *Store) beginDir(base *checkpoint.Sheet) (err error) {
	if err := syncPath(s.fs, s.cfg.Dir); err != nil {
		return err
	}
	if s.journal, err = journal.Open(s.journalConfig(randomID())); err != nil {
		return err
	}
	k := &s.keeper
	sheet := checkpoint.Sheet{Journal: s.journal.ID(), Metadata: s.metadata.Load()}
	lost := s.journal.HasFiles() || k.checkpoint.WereSaved()
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
		s.listAside(map[LogID]bool{})
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

// syncPath makes the names durable by which a directory is found. A first checkpoint is saved
// only after that, whoever made the directory: so one without a checkpoint may be of a process
// that was killed before. A directory that may not be read has no names that this user made, nor
// has one on a file system that cannot be written.
func syncPath(fsys vfs.FS, dir string) error {
	for dir = path.Clean(dir); ; dir = path.Dir(dir) {
		parent := path.Dir(dir)
		err := fsys.SyncDir(parent)
		if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
			return fmt.Errorf("making the name of %s durable: %w", dir, err)
		}
		if path.Dir(parent) == parent {
			return nil
		}
	}
}

// listAside finds the directories that were renamed because their logs were deleted, or are
// not known to the metadata.
func (s *Store) listAside(deleted map[LogID]bool) {
	infos, err := s.fs.ReadDir(s.cfg.Dir)
	if err != nil {
		s.log.Warn("the data directory could not be listed", "err", err)
	}
	for _, i := range infos {
		if id, since, ok := aside.ParseStray(i.Name); ok && i.Dir {
			s.strays.Add(i.Name, id, since)
		} else if id, ok := aside.ParseDeleted(i.Name); ok && i.Dir {
			deleted[id] = true
			s.keeper.removeDir(i.Name, id)
		}
	}
}

// replayAll plays the journal back from a mark on; rounds from keep on stay in it.
func (s *Store) replayAll(from, keep checkpoint.Mark) error {
	r := newReplay(s)
	s.listAside(r.deleted)
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
	for i := range k.leaving { // listed before the journal's end was known
		k.leaving[i].round, k.leaving[i].after = at.Round, k.saves+2
	}
	k.recovered = r.listTouched()
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
		// These rounds must not be played back once more, over records that are appended next.
		return k.checkpointRecovered()
	}
	return nil
}

// checkpointRecovered makes everything durable that recovery found, and moves the mark behind it.
func (k *keeper) checkpointRecovered() error {
	k.run.Lock()
	defer k.run.Unlock()
	return k.checkpointLocked(nil)
}

// recoverWaiting goes on with a recovery that found the disk full.
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
	if err != nil || len(r.waiting) > 0 {
		return // the time of the next try is set
	}
	k.waitingAt = time.Time{}
	k.mu.Lock()
	k.recovered = append(k.recovered, r.listTouched()...)
	k.mu.Unlock()
	s.setWaiting(nil)
	k.urgent.Store(true)
	s.log.Info("there is room again: recovery is complete")
}

// setWaiting says which logs lack records that only the journal has.
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

// waitingError is why a log cannot be opened yet; nil: it can.
func (s *Store) waitingError(id LogID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[id] {
		return fmt.Errorf("%w: this log's last records wait in the journal until there is room", ErrDiskFull)
	}
	return nil
}

// syncFile makes a file durable.
func (s *Store) syncFile(name string) error {
	f, err := s.fs.Open(name, vfs.Existing)
	if err != nil {
		return err
	}
	err = s.syncs.syncFile(f)
	return errors.Join(err, f.Close())
}

// replay is the journal on its way back into the segments. It goes through the journal
// twice: the first pass finds out what was deleted or truncated later, and which writes
// were never complete; the second one compares the rest with the files and writes the bytes
// that differ.
type replay struct {
	s        *Store
	only     map[LogID]bool // nil: all logs
	deleted  map[LogID]bool // their directories say so: none of their bytes in the journal counts
	cuts     map[LogID][]cut
	starts   map[LogID]record.Offset // as the last notes of them say
	halves   map[uint64]bool         // first rounds of writes that are not complete
	began    uint64                  // the first round of the write that has no last one yet; 0: there is none
	isHalf   bool                    // the round belongs to a write that is not complete
	part     int                     // the number of parts seen in this pass
	pending  []placedNote            // of the write that has no last round yet
	rewrite  bool                    // a sync failed, so bytes are written even where the file seems to have them
	broken   int                     // rounds that cannot be read
	written  int                     // parts that were written
	verdicts map[string]verdict
	firsts   map[string]record.Offset // of directories whose points were lost
	files    map[recoveredFile]vfs.File
	touched  map[recoveredFile]bool
	waiting  map[LogID]bool // logs that lack records since there is no room
	finished []journal.Part // truncations that this recovery brought to their end
}

// placedNote is a note of the journal and the number of its part.
type placedNote struct {
	part int
	journal.Part
}

// cut is a truncation that the journal has. No byte of a part before it may be brought back
// beyond it.
type cut struct {
	part int // its number
	at   journal.Part
	done bool // the files were cut
}

func newReplay(s *Store) *replay {
	return &replay{
		s: s, deleted: map[LogID]bool{}, starts: map[LogID]record.Offset{}, cuts: map[LogID][]cut{}, halves: map[uint64]bool{},
		verdicts: map[string]verdict{}, firsts: map[string]record.Offset{}, files: map[recoveredFile]vfs.File{}, touched: map[recoveredFile]bool{},
		waiting: map[LogID]bool{}, rewrite: s.syncs.failed.Load(),
	}
}

// playBack brings the rounds from a mark on back, and returns where the next one goes. A second try
// does not write the rounds themselves anew: the first one did, and the journal is in use.
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

// abandonWrite notes that the write that has no last round will never have one.
func (r *replay) abandonWrite() {
	if r.began != 0 {
		r.halves[r.began] = true
	}
	r.began, r.pending = 0, nil
}

// noteRound is the first pass. The notes of a write count when it is complete: whoever put one
// into another write was told that the journal does not have it, or was told nothing. Only a
// deletion counts in any case, since it was done before it was noted: for what the log had up to
// there, since one of its identity may have been made again.
func (r *replay) noteRound(e *journal.Round) error {
	switch {
	case e.Broken:
		r.broken++
		r.began = 0 // it was complete once: the next write is there
	case e.Begins():
		r.abandonWrite()
		r.began = e.Number
	}
	for _, p := range e.Parts {
		r.part++
		switch p.Kind {
		case journal.Delete:
			r.cuts[p.ID] = append(r.cuts[p.ID], cut{part: r.part, done: true}) // of everything
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

// applyNote takes notice of a note of a complete write.
func (r *replay) applyNote(n placedNote) {
	switch n.Kind {
	case journal.Start:
		r.starts[n.ID] = max(r.starts[n.ID], n.Offset)
	case journal.Delete:
		delete(r.starts, n.ID)
	case journal.Truncate:
		r.cuts[n.ID] = append(r.cuts[n.ID], cut{part: n.part, at: n.Part})
		if r.only == nil {
			r.s.points.Lower(n.ID, n.Base, n.Pos, n.Offset)
		}
	case journal.Truncated:
		for i := range r.cuts[n.ID] {
			r.cuts[n.ID][i].done = true
		}
	case journal.Bytes:
	}
}

// applyRound is the second pass.
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

// clipPart takes away the bytes of a part that were truncated later, and those that the last
// checkpoint vouches for; ok is false where none are left.
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

// restorePart has a file have a part's bytes. A log for which there is no room waits.
func (r *replay) restorePart(p journal.Part) error {
	dir, err := r.s.dirs.findDir(p.Dir, p.ID)
	if err == nil {
		err = r.writePart(dir, p)
	}
	if isFull(err) {
		r.waiting[p.ID] = true
		return nil
	}
	return err
}

// writePart has a file have a part's bytes; dir is where the log's directory is now.
func (r *replay) writePart(dir string, p journal.Part) error {
	if ok, err := r.claimDir(dir, p); err != nil || !ok {
		return err
	}
	key := recoveredFile{name: p.Dir, id: p.ID, base: p.Base}
	isOld := r.s.points.Get(p.ID).Lost && p.Base < r.firstSegment(dir)
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
			return nil // retention took it, as a point said once
		}
		r.s.faults.set(p.ID, newLoss("segment %d has %d bytes where the journal goes on at byte %d", p.Base, size, p.Pos))
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

// firstSegment is the base of the first segment in a directory, as it was before the replay.
func (r *replay) firstSegment(dir string) record.Offset {
	if first, ok := r.firsts[dir]; ok {
		return first
	}
	first := record.Offset(math.MaxInt64)
	infos, _ := r.s.fs.ReadDir(r.s.pathOf(dir)) // it was just looked at
	for _, i := range infos {
		if base, ok := segment.ParseFileName(i.Name, segment.LogSuffix); ok {
			first = min(first, base)
		}
	}
	if first == math.MaxInt64 {
		first = 0 // it has none yet
	}
	r.firsts[dir] = first
	return first
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

// verdict is whose a directory is.
type verdict struct {
	topic [16]byte
	skip  bool // it is gone although it was there, so it was deleted
}

// claimDir sees to it that the directory is there and the log's own.
func (r *replay) claimDir(dir string, p journal.Part) (bool, error) {
	if v, ok := r.verdicts[dir]; ok && v.topic == p.ID.Topic {
		return !v.skip, nil
	}
	v := verdict{topic: p.ID.Topic}
	_, err := r.s.fs.Stat(r.s.pathOf(dir))
	switch {
	case errors.Is(err, vfs.ErrNotExist) && (r.s.points.Get(p.ID).Vouched || p.Pos > 0):
		v.skip = true
		r.s.faults.set(p.ID, newLoss("its directory is missing, though the journal has records of it in segment %d", p.Base))
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

// prepareDir makes a log's directory, or sees whether the one that exists is the log's own. One
// that does not say whose it is is: a power cut took its metadata, and others of its name were
// renamed away, durably, before it was made. By the same rule one that is another log's is the
// younger one, and stays: only somebody who moved directories by hand can have brought it there
// in place of a log that is still wanted, and that log says so.
func (r *replay) prepareDir(dir string, id LogID, exists bool) (mine bool, err error) {
	if !exists {
		return true, r.s.dirs.makeDir(dir, id)
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

// maxReplayFiles is how many files are open during recovery.
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

// finishCuts cuts the files of logs whose truncation was under way: it is in the journal, so
// it counts.
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

// noteFinishedCuts notes that truncations came to their end, before anything is appended to
// their logs: else the next recovery would make them once more.
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
	for _, p := range r.finished {
		r.s.faults.set(p.ID, newTaint(fmt.Errorf("its truncation to offset %d could not be noted: %w", p.Offset, err)))
	}
}

// cutFiles cuts a log's files behind a place, durably. A file that ends there is synced, too: a
// killed process may have cut it in the page cache alone, and the note that follows says that no
// recovery has to cut it once more.
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
