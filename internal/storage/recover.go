package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/leatstream/leat/internal/storage/aside"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/journal"
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
	noteSaved(k, hot, base)
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
	sheet := checkpoint.Sheet{Journal: s.journal.ID(), Metadata: s.metadata.Load(), Transactional: k.txns.wanted.Load(), Cut: k.cuts.wanted.Load()}
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
// metadata did not know their logs, and those with tails. A start that cannot list them is refused: it would bring deleted
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
		} else if id, ok := aside.ParseTails(i.Name); ok && i.Dir {
			adoptTails(s, id, i.Name)
		} else if i.Dir && aside.IsDeletedTails(i.Name) {
			s.keeper.removeLater(s.pathOf(i.Name), 0)
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
