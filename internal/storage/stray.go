package storage

import (
	"errors"
	"time"

	"github.com/leatstream/leat/internal/storage/aside"
)

// Strays is the number of directories that were set aside.
func (s *Store) Strays() int { return s.strays.Len() }

// Sweep looks in the background for directories of logs that the metadata do not know, or know on other nodes only. Those of
// topics that were deleted are removed with their tails, those that have moved are removed without them, and the others are set aside. Then it
// looks for missing files of known logs. hasMoved may be nil: none has.
func (s *Store) Sweep(isKnown, isDeleted, hasMoved func(id LogID) bool) {
	s.keeper.mu.Lock()
	s.keeper.sweep = &sweep{isKnown, isDeleted, hasMoved}
	s.keeper.mu.Unlock()
	s.keeper.wakeUp()
}

type sweep struct {
	isKnown   func(LogID) bool
	isDeleted func(LogID) bool
	hasMoved  func(LogID) bool // nil: none has
}

// mustGo tells whether the records of a log are removed.
func (w *sweep) mustGo(id LogID) bool {
	return w.isDeleted(id) || w.hasMoved != nil && w.hasMoved(id)
}

// sweepDirs looks at all directories once, after the start.
func (s *Store) sweepDirs(w *sweep) {
	infos, err := s.fs.ReadDir(s.cfg.Dir)
	if err != nil {
		s.log.Warn("directories of unknown topics could not be looked for", "err", err)
		return
	}
	own := map[string]bool{} // directories of known logs that a checkpoint vouches for: they may be thousands, and need no look inside
	for _, l := range s.allLogs() {
		if s.points.Get(l.id).Vouched {
			own[l.name] = true
		}
	}
	all := true // no directory failed
	for _, i := range infos {
		if s.closing.Load() {
			return
		}
		if id, ok := aside.ParseTails(i.Name); ok && i.Dir && w.isDeleted(id) && s.findLog(id) == nil {
			_ = discardTails(s, id) // of a log that has no directory any more
		}
		if i.Dir && !own[i.Name] {
			err := s.sweepDir(i.Name, w)
			all = all && err == nil
			if err != nil && !errors.Is(err, ErrClosed) {
				s.log.Warn("a directory could not be looked at", "dir", i.Name, "err", err)
			}
		}
	}
	for _, id := range s.strays.IDs() {
		if w.mustGo(id) && beginLeaving(s, id) { // it was set aside before the record of its deletion was known
			discardLog(s, id, s.strays.UsualName(id), !w.isDeleted(id))
		}
	}
	if all {
		w.forgetPoints(s)
	}
	s.background(func() { checkFiles(s) })
}

// forgetPoints forgets the points of unknown logs that have no directory, even one that was set
// aside, and get none when there is room again. All directories of unknown logs must have been set
// aside before.
func (w *sweep) forgetPoints(s *Store) {
	for _, id := range s.points.IDs() {
		if !w.isKnown(id) && s.findLog(id) == nil && !s.strays.Has(id) && s.waitingError(id) == nil {
			s.points.Forget(id)
		}
	}
}

// errNoOwner says that nothing tells which log a directory belongs to. The directory stays, and so do
// the points of unknown logs: one of them may be the only proof of whose it is, once the metadata
// know that log again.
var errNoOwner = errors.New("its " + metadataFile + " is missing or damaged, so it does not say of which topic it is")

func (s *Store) sweepDir(name string, w *sweep) error {
	partition, ok := parseDirName(name)
	if !ok {
		return nil
	}
	topic, ok, err := s.dirs.readOwner(name)
	if err != nil {
		return err
	}
	if !ok {
		return errNoOwner
	}
	id := LogID{Topic: topic, Partition: partition}
	switch {
	case w.isKnown(id):
		return nil
	case w.mustGo(id):
		if beginLeaving(s, id) {
			discardLog(s, id, name, !w.isDeleted(id))
		} // else the log is known by now
		return nil
	default:
		return s.dirs.setAside(id, name, "the cluster's metadata do not know its topic; restore them if they are too old")
	}
}

// strayGrace is how long a process must have run before it removes a directory that was set aside.
const strayGrace = 24 * time.Hour

// removeOldStrays removes directories that were set aside long ago, if the operator allows it.
func removeOldStrays(s *Store, now time.Time) {
	if s.cfg.StrayRetention <= 0 {
		return
	}
	// A clock that was wrong when the directory was set aside, or is wrong now, must not end the
	// directory's time. So this process must also have run for a part of that time.
	if now.Sub(s.opened) < min(s.cfg.StrayRetention, strayGrace) {
		return
	}
	for _, id := range s.strays.ListOld(now.Add(-s.cfg.StrayRetention).UnixMilli()) {
		if beginLeaving(s, id) {
			discardOldStrays(s, id)
		} // else the log's first use takes the directory back
	}
}

// discardOldStrays renames the directories of a log that were set aside, and has them removed. If
// the metadata know the log again before all is gone, it begins empty: a part of it is never taken
// for all. The caller has counted the log as leaving.
func discardOldStrays(s *Store, id LogID) {
	dir := s.strays.UsualName(id)
	unlock := s.dirs.lockName(dir)
	err := s.dirs.discardStrays(id, dir)
	unlock()
	if err != nil {
		s.log.Warn("a directory that was set aside could not be renamed and removed; it is tried again", "dir", dir, "err", err)
		s.forgetLeft(id)
		return
	}
	_ = discardTails(s, id) // else they stay until somebody removes them
	s.log.Warn("a directory that was set aside is removed: nobody wanted it back", "dir", dir, "after", s.cfg.StrayRetention)
	s.keeper.addLeaving(leavingLog{id: id, keepsPoint: true})
}
