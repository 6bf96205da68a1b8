package storage

import (
	"errors"
	"fmt"
	"slices"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/epoch"
	"github.com/leatstream/leat/internal/storage/journal"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

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
			if last.at.Kind == journal.Restart {
				err = removeRecords(r.s, last.at.Dir)
			} else {
				err = r.cutFiles(last.at.Dir, last.at.Base, last.at.Pos)
			}
			if err != nil {
				return fmt.Errorf("truncating %s to offset %d: %w", last.at.Dir, last.at.Offset, err)
			}
		} // else nothing of it is left to be cut
		r.finished = append(r.finished, last.at)
	}
	return nil
}

// checkLoweredPoints looks for the places at which logs were cut, by truncations that the journal notes. A point that was lowered to such a
// place vouches for it; but the log may have lost that since, if it was page-cached and an opening has cut it below. The point may be
// one from after that, which nothing tells. So such a log is walked whole, as one of which no checkpoint knows anything but the start.
func (r *replay) checkLoweredPoints() error {
	for id, cuts := range r.cuts {
		last := cuts[len(cuts)-1].at
		p := r.s.points.Get(id)
		if last.Kind != journal.Truncate || r.deleted[id] || !p.HadRecords() || p.Base != last.Base || p.Pos != last.Pos {
			continue
		}
		dir, err := r.s.dirs.findDir(last.Dir, id)
		if err != nil {
			return err
		}
		segs, err := listSegments(r.s, dir)
		if errors.Is(err, vfs.ErrNotExist) {
			continue // the log reports that
		}
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(segs, func(g checkpoint.Size) bool { return g.Base == p.Base && g.Bytes >= p.Pos }) {
			r.s.log.Warn("a log does not have the place any more at which it was cut; it is read whole", "dir", dir, "segment", int64(p.Base), "at", p.Pos)
			r.s.points.Unvouch(id)
		}
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
			for _, suffix := range []string{segment.LogSuffix, segment.IndexSuffix, segment.TimeSuffix, segment.TxnSuffix} {
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
	if err := s.fs.Remove(s.pathOf(dir, compactedFile)); err != nil {
		return err
	}
	return s.syncs.syncDir(s.pathOf(dir))
}

// removeRecords removes the records from a log's directory, with all that is known of them, durably.
func removeRecords(s *Store, dir string) error {
	infos, err := s.fs.ReadDir(s.pathOf(dir))
	if err != nil {
		return err
	}
	for _, i := range infos {
		isOfRecords := i.Name == compactedFile || i.Name == epoch.FileName
		for _, suffix := range []string{segment.LogSuffix, segment.IndexSuffix, segment.TimeSuffix, segment.TxnSuffix, snapshotSuffix} {
			_, ok := segment.ParseFileName(i.Name, suffix)
			isOfRecords = isOfRecords || ok
		}
		if !isOfRecords {
			continue
		}
		if err := s.fs.Remove(s.pathOf(dir, i.Name)); err != nil {
			return err
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
