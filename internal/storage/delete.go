package storage

import (
	"errors"
	"io/fs"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// Delete forgets a log and frees its space in the background.
func (s *Store) Delete(id LogID) {
	s.mu.Lock()
	l := s.logs[id]
	delete(s.logs, id)
	if l != nil {
		delete(s.spoiled, l.dir)
	}
	s.mu.Unlock()
	s.points.forget(id)
	s.deleteHeld(id)
	if l == nil {
		return
	}
	_ = l.writeOut() // so that a directory tells of the deletion; where that fails one is made for it below
	l.shut(true)
	l.pub.Lock()
	segs, made := l.segs, l.made
	l.pub.Unlock()
	for _, g := range segs {
		g.forget()
	}
	if !made { // else it was looked at when it was made or opened
		if topic, ok, err := s.owner(l.dir); err != nil || ok && topic != id.Topic {
			return // there is another topic of that name by now
		}
	}
	if !s.discard(id, l.dir) && len(segs) > 0 { // its records are in the journal only: no directory says that they are to go
		to := asideName(l.dir, id.Topic, deletedDir)
		if err := s.fs.MkdirAll(s.path(to)); err != nil {
			s.log.Warn("a deleted topic could not be marked", "dir", l.dir, "err", err)
		} else {
			s.keeper.doom(to)
		}
	}
	s.commit.noteDelete(id, l.dir)
}

// discard takes a directory's name away and has it removed. What an earlier run may
// have left under its new name is looked for only where that is in the way: it is
// there nearly never, and a quarter of what a deletion takes (BenchmarkDelete). It is
// false where there is no such directory.
func (s *Store) discard(id LogID, dir string) bool {
	to := asideName(dir, id.Topic, deletedDir)
	err := s.fs.Rename(s.path(dir), s.path(to))
	if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrPermission) { // as systems call it
		err = s.moveAside(dir, to)
	}
	if errors.Is(err, vfs.ErrNotExist) {
		return false
	}
	if err != nil {
		s.log.Error("a deleted topic's directory could not be moved away", "dir", dir, "err", err)
		return true
	}
	s.keeper.doom(to)
	return true
}

// doom has a directory removed once a checkpoint has left behind what the journal
// has of it: until then its name says that it was deleted.
func (k *keeper) doom(dir string) {
	k.mu.Lock()
	k.doomed = append(k.doomed, dir)
	k.removals = append(k.removals, removal{path: k.s.path(dir), at: time.Now(), inside: true}) // a full disk cannot wait
	k.mu.Unlock()
	k.again()
	k.poke()
}

// Sweep deletes, in the background, the directories of logs for which live is
// false: topics deleted while their directories were not yet.
func (s *Store) Sweep(live func(id LogID) bool) {
	s.keeper.mu.Lock()
	s.keeper.sweep = live
	s.keeper.mu.Unlock()
	s.keeper.poke()
}

func (s *Store) sweepDirs(live func(id LogID) bool) {
	for _, id := range s.points.ids() {
		if !live(id) {
			s.points.forget(id)
		}
	}
	for _, id := range s.heldIDs() {
		if !live(id) {
			s.deleteHeld(id)
		}
	}
	infos, err := s.fs.ReadDir(s.cfg.Dir)
	if err != nil {
		s.log.Warn("deleted topics' directories could not be looked for", "err", err)
		return
	}
	own := map[string]bool{} // directories that a checkpoint knows to be a live log's: thousands need no look inside
	for _, l := range s.all() {
		if _, vouched := s.points.get(l.id); vouched {
			own[l.dir] = true
		}
	}
	for _, i := range infos {
		if !i.Dir || own[i.Name] || s.closing.Load() {
			continue
		}
		if id, ok := parseAside(i.Name, strayDir); ok {
			if !live(id) {
				s.keeper.doom(i.Name)
			}
			continue
		}
		partition, ok := parseDirName(i.Name)
		if !ok {
			continue
		}
		topic, ok, err := s.owner(i.Name)
		if err != nil || !ok {
			continue // it is not ours to judge
		}
		if id := (LogID{topic, partition}); !live(id) && s.lookup(id) == nil {
			s.discard(id, i.Name)
		}
	}
}
