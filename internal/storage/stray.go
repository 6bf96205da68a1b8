package storage

import (
	"errors"
	"sync"
	"time"
)

// strays are directories that were set aside because the metadata did not know their logs.
// They are kept for Config.StrayRetention. Safe for concurrent use.
type strays struct {
	mu   sync.Mutex
	dirs map[string]int64 // guarded by mu: by name, since when they are strays, in ms
}

func (t *strays) add(name string, since int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dirs == nil {
		t.dirs = map[string]int64{}
	}
	t.dirs[name] = since
}

// take takes out the one of a log that was set aside last.
func (t *strays) take(id LogID) (name string, since int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n, at := range t.dirs {
		if whose, _, isStray := parseStray(n); isStray && whose == id && (!ok || at > since) {
			name, since, ok = n, at, true
		}
	}
	delete(t.dirs, name)
	return name, since, ok
}

// takeOld takes out those that are older than a time in ms.
func (t *strays) takeOld(before int64) (names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, since := range t.dirs {
		if since < before {
			names = append(names, name)
			delete(t.dirs, name)
		}
	}
	return names
}

// Strays is the number of directories that were set aside.
func (s *Store) Strays() int {
	s.strays.mu.Lock()
	defer s.strays.mu.Unlock()
	return len(s.strays.dirs)
}

// Sweep deals, in the background, with directories of logs that the metadata do not know.
// Those of topics that are known to be deleted go; the others are set aside.
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
	for _, id := range s.points.IDs() {
		if !w.isKnown(id) && s.lookup(id) == nil {
			s.points.Forget(id)
		}
	}
	infos, err := s.fs.ReadDir(s.cfg.Dir)
	if err != nil {
		s.log.Warn("directories of unknown topics could not be looked for", "err", err)
		return
	}
	own := map[string]bool{} // directories that a checkpoint knows to be a known log's: thousands need no look inside
	for _, l := range s.all() {
		if s.points.Get(l.id).Vouched {
			own[l.name] = true
		}
	}
	for _, i := range infos {
		if s.closing.Load() {
			return
		}
		if i.Dir && !own[i.Name] {
			if err := s.sweepDir(i.Name, w); err != nil && !errors.Is(err, ErrClosed) {
				s.log.Warn("a directory could not be looked at", "dir", i.Name, "err", err)
			}
		}
	}
}

func (s *Store) sweepDir(name string, w *sweep) error {
	partition, ok := parseDirName(name)
	if !ok {
		return nil
	}
	topic, ok, err := s.dirs.owner(name)
	if err != nil || !ok {
		return err // it is not ours to judge
	}
	id := LogID{Topic: topic, Partition: partition}
	switch {
	case w.isKnown(id):
		return nil
	case w.isDeleted(id):
		return s.dirs.discard(id, name)
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
	for _, name := range s.strays.takeOld(now.Add(-s.cfg.StrayRetention).UnixMilli()) {
		s.log.Warn("a directory that was set aside is removed: nobody wanted it back", "dir", name, "after", s.cfg.StrayRetention)
		s.keeper.remove(s.path(name), 0)
	}
}
