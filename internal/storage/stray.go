package storage

import (
	"errors"
	"time"
)

// Strays is the number of directories that were set aside.
func (s *Store) Strays() int { return s.strays.Len() }

// Sweep deals, in the background, with directories of logs that the metadata do not know.
// Those of topics that are known to be deleted go; the others are set aside. Then it looks for
// files of known logs that are missing.
func (s *Store) Sweep(isKnown, isDeleted func(id LogID) bool) {
	s.keeper.mu.Lock()
	s.keeper.sweep = &sweep{isKnown, isDeleted}
	s.keeper.mu.Unlock()
	s.keeper.wakeUp()
}

type sweep struct {
	isKnown   func(LogID) bool
	isDeleted func(LogID) bool
}

// sweepDirs looks at all directories once, at the start.
func (s *Store) sweepDirs(w *sweep) {
	infos, err := s.fs.ReadDir(s.cfg.Dir)
	if err != nil {
		s.log.Warn("directories of unknown topics could not be looked for", "err", err)
		return
	}
	own := map[string]bool{} // directories that a checkpoint knows to be a known log's: thousands need no look inside
	for _, l := range s.allLogs() {
		if s.points.Get(l.id).Vouched {
			own[l.name] = true
		}
	}
	all := true // directories were looked at with success
	for _, i := range infos {
		if s.closing.Load() {
			return
		}
		if i.Dir && !own[i.Name] {
			if err := s.sweepDir(i.Name, w); err != nil && !errors.Is(err, ErrClosed) {
				s.log.Warn("a directory could not be looked at", "dir", i.Name, "err", err)
				all = false
			}
		}
	}
	if all {
		w.forgetPoints(s)
	}
	s.background(func() { checkFiles(s) })
}

// forgetPoints forgets the points of logs that are not known and of which there is no directory,
// set aside or not. Every directory of an unknown log has been set aside before.
func (w *sweep) forgetPoints(s *Store) {
	for _, id := range s.points.IDs() {
		if !w.isKnown(id) && s.findLog(id) == nil && !s.strays.Has(id) {
			s.points.Forget(id)
		}
	}
}

func (s *Store) sweepDir(name string, w *sweep) error {
	partition, ok := parseDirName(name)
	if !ok {
		return nil
	}
	topic, ok, err := s.dirs.readOwner(name)
	if err != nil || !ok {
		return err // it is not ours to judge
	}
	id := LogID{Topic: topic, Partition: partition}
	switch {
	case w.isKnown(id):
		return nil
	case w.isDeleted(id):
		if s.findLog(id) != nil {
			return nil // it is known by now
		}
		return s.dirs.discardDir(id, name)
	default:
		return s.dirs.setAside(id, name, "the cluster's metadata do not know its topic")
	}
}

// strayGrace is how long a process runs before it removes a directory that was set aside.
const strayGrace = 24 * time.Hour

// removeOldStrays removes directories that were set aside long ago.
func (s *Store) removeOldStrays(now time.Time) {
	if s.cfg.StrayRetention < 0 {
		return
	}
	// A clock that was wrong when the directory was set aside, or is now, must not end its time:
	// this process has to have seen a day of it, too.
	if now.Sub(s.opened) < min(s.cfg.StrayRetention, strayGrace) {
		return
	}
	for id, dirs := range s.strays.ListOld(now.Add(-s.cfg.StrayRetention).UnixMilli()) {
		if s.findLog(id) != nil {
			continue // its first use takes the directory back
		}
		for _, d := range dirs {
			if s.strays.Forget(d.Name, id) {
				s.log.Warn("a directory that was set aside is removed: nobody wanted it back", "dir", d.Name, "after", s.cfg.StrayRetention)
				s.keeper.removeLater(s.pathOf(d.Name), 0)
			}
		}
		if !s.strays.Has(id) {
			s.points.Forget(id)
		}
	}
}
