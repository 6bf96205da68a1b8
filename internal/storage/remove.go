package storage

import (
	"errors"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/storage/journal"
	"github.com/leatstream/leat/internal/storage/segment"
)

// Delete forgets a log with its tails, and frees their space in the background. When Delete returns, the log's
// directory does not have its name any more, so that a log of the same name can be made. A log of
// the same identity begins empty. It refuses records with ErrBusy until nothing of the deleted log
// is left.
//
//	         Delete           checkpoints            the directory was removed, durably
//	in use ---------> leaving ------------> removable ---------> forgotten
//
// A log is leaving as long as a recovery may read its point, or rounds of the journal that have its
// bytes. All that time the renamed directory tells recovery that those bytes do not count.
func (s *Store) Delete(id LogID) { deleteLog(s, id, false) }

// DeleteRecords is Delete, but the tails of the log stay: those of the log of the same identity that takes its place, or of one that is on other
// nodes from now on. DiscardTailsOf removes them with their topic.
func (s *Store) DeleteRecords(id LogID) { deleteLog(s, id, true) }

func deleteLog(s *Store, id LogID, keepsTails bool) {
	s.mu.Lock()
	l := s.logs[id]
	delete(s.logs, id)
	if l != nil {
		s.leaving[id]++
	}
	s.mu.Unlock()
	if l == nil {
		if !keepsTails {
			discardTails(s, id)
		}
		forgetLog(s, id)
		return
	}
	l.endUse(logDeleted)
	l.pub.Lock() // a checkpoint may be about to note the log's point; none notes it from here on
	s.points.Forget(id)
	l.pub.Unlock()
	for _, g := range append(s.keeper.takeDropped(l), l.segments()...) {
		g.CloseFile() // the space of an open file is not freed
	}
	discardLog(s, id, l.name, keepsTails)
}

// beginLeaving counts a log as leaving that the metadata do not know, so that nobody takes its
// directory back from now on. It returns false if the log is known by now.
func beginLeaving(s *Store, id LogID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logs[id] != nil {
		return false
	}
	s.leaving[id]++
	return true
}

// discardLog deals with all that is left of a deleted log: what the store knows of it, the bytes
// that the journal has of it, its directories, and its tails unless they are to stay. dir is the usual name of its directory. The
// caller has counted the log as leaving, so that the next log of the identity has nothing before that is done, durably.
func discardLog(s *Store, id LogID, dir string, keepsTails bool) {
	hasTails := !keepsTails && !discardTails(s, id)
	// The note keeps recovery from restoring the bytes that the journal has of the log.
	s.commit.addNote(journal.Part{Kind: journal.Delete, ID: id, Dir: dir})
	unlock := s.dirs.lockName(dir) // a recovery that waited for room writes the log's records, or notes a fault of it, under this lock
	forgetLog(s, id)
	err := s.dirs.discardDirLocked(id, dir)
	unlock()
	if err != nil {
		s.log.Error("a deleted topic's directory could not be moved away; it is tried again", "dir", dir, "err", err)
	}
	s.keeper.addLeaving(leavingLog{id: id, dir: dir, hasTails: hasTails})
}

// forgetLog forgets all that the store knows of a deleted log.
func forgetLog(s *Store, id LogID) {
	s.mu.Lock()
	delete(s.waiting, id)
	delete(s.unconfirmed, id)
	s.mu.Unlock()
	s.faults.forget(id)
	s.points.Forget(id)
}

// isLeaving tells whether something is left of a deleted log of that identity.
func (s *Store) isLeaving(id LogID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaving[id] > 0
}

// addLeaving adds a deleted log to those that the keeper forgets once nothing of them is left.
func (k *keeper) addLeaving(d leavingLog) {
	k.mu.Lock()
	k.leaving = append(k.leaving, d)
	k.mu.Unlock()
	k.checkpointLater()
}

// removeDir has a deleted log's directory removed. Its files are removed now, since a full disk
// cannot wait; the directory is removed when its name is not needed any more.
func (k *keeper) removeDir(name string, id LogID) {
	k.s.mu.Lock()
	k.s.leaving[id]++
	k.s.mu.Unlock()
	k.addLeaving(leavingLog{id: id, aside: name})
	k.mu.Lock()
	k.removals = append(k.removals, removal{path: k.s.pathOf(name), at: time.Now(), inside: true})
	k.mu.Unlock()
	k.wakeUp()
}

// findLeavingRounds notes which rounds may have bytes of the logs that were deleted since the last
// checkpoint. It waits until all that was entered is written: then they are the rounds before the
// next one.
func (k *keeper) findLeavingRounds() {
	k.mu.Lock()
	n := len(k.leaving)
	var pending []leavingLog
	for _, d := range k.leaving {
		if d.round == 0 {
			pending = append(pending, d)
		}
	}
	k.mu.Unlock()
	if len(pending) == 0 || !forgetPoints(k.s, pending) {
		return
	}
	if err := k.s.commit.awaitEntered(); err != nil && !errors.Is(err, ErrClosed) { // a store that closes has written all that was to be written
		return
	}
	next := k.s.journal.Next()
	if k.s.journal.Lost() != nil {
		next++ // the round that failed may be on disk all the same, which only a start can tell
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.leaving[:n] {
		if k.leaving[i].round == 0 {
			k.leaving[i].round, k.leaving[i].after = next, k.saves+2
		}
	}
}

// forgetPoints forgets the points that were kept for logs whose directories were discarded, once a
// power cut cannot bring the directories back.
func forgetPoints(s *Store, logs []leavingLog) bool {
	if !slices.ContainsFunc(logs, func(d leavingLog) bool { return d.keepsPoint }) {
		return true
	}
	if err := s.dirs.settleRenamed(); err != nil {
		s.log.Warn("directories that were set aside stay for now", "err", err)
		return false
	}
	for _, d := range logs {
		if d.keepsPoint && !s.strays.Has(d.id) {
			s.points.Forget(d.id)
		}
	}
	return true
}

// takeRemovable takes the deleted logs of which a recovery reads neither bytes nor a point,
// whichever checkpoint file it begins with. The caller holds run.
func (k *keeper) takeRemovable() (found []leavingLog) {
	k.mu.Lock()
	defer k.mu.Unlock()
	kept := k.leaving[:0]
	for _, d := range k.leaving {
		if d.round > 0 && d.round <= min(k.previous.Round, k.older.Round) && d.after <= k.saves {
			found = append(found, d)
		} else {
			kept = append(kept, d)
		}
	}
	clear(k.leaving[len(kept):])
	k.leaving = kept
	return found
}

// forgetLeaving deals with the deleted logs that are removable. A log with a directory is forgotten
// when the directory has been removed. The caller holds run.
func (k *keeper) forgetLeaving() {
	found := k.takeRemovable()
	if len(found) == 0 {
		return
	}
	if err := k.s.dirs.syncNames(); err != nil { // a power cut must not give a directory its old name back
		k.s.log.Warn("deleted topics' directories stay for now", "err", err)
		k.mu.Lock()
		k.leaving = append(k.leaving, found...)
		k.mu.Unlock()
		return
	}
	for _, d := range found {
		if d.aside != "" {
			k.mu.Lock()
			k.removals = append(k.removals, removal{path: k.s.pathOf(d.aside), at: time.Now(), of: d.id})
			k.mu.Unlock()
			continue
		}
		if err := k.s.dirs.discardDir(d.id, d.dir); err != nil || d.hasTails && !discardTails(k.s, d.id) { // the first try failed, or a power cut has undone it
			k.addLeaving(d)
			continue
		}
		k.s.forgetLeft(d.id)
	}
	k.wakeUp()
}

// forgetLeft notes that one thing fewer is left of a deleted log.
func (s *Store) forgetLeft(id LogID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving[id]--; s.leaving[id] <= 0 {
		delete(s.leaving, id)
	}
}

// dropSegments has segments removed as soon as both checkpoint files have a start above them. The
// caller holds the log's pub.
func (k *keeper) dropSegments(l *Log, segs []*segment.Segment) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, g := range segs {
		k.dropped = append(k.dropped, droppedFile{l: l, g: g, after: -1})
	}
}

// takeDropped takes the segments of a deleted log off the list, since they are removed with its
// directory.
func (k *keeper) takeDropped(l *Log) (segs []*segment.Segment) {
	k.mu.Lock()
	defer k.mu.Unlock()
	kept := k.dropped[:0]
	for _, d := range k.dropped {
		if d.l == l {
			segs = append(segs, d.g)
		} else {
			kept = append(kept, d)
		}
	}
	clear(k.dropped[len(kept):])
	k.dropped = kept
	return segs
}

// removeSuperfluous removes the segments and directories that recovery does not need any more. The
// caller holds run.
func (k *keeper) removeSuperfluous() {
	k.mu.Lock()
	var remove []droppedFile
	kept := k.dropped[:0]
	for _, d := range k.dropped {
		if d.after < 0 && d.isStartSaved() {
			d.after = k.saves + 2 // the start may have moved after this checkpoint had taken the points
		}
		switch {
		case d.after < 0 || d.after > k.saves:
			kept = append(kept, d)
		default:
			remove = append(remove, d)
		}
	}
	clear(k.dropped[len(kept):])
	k.dropped = kept
	more := len(kept)+len(k.leaving) > 0
	k.mu.Unlock()
	if more {
		k.checkpointLater()
	}
	k.forgetLeaving()
	for _, d := range remove {
		if err := k.removeSegment(d.l, d.g); err != nil && classify(err) != gone {
			k.s.log.Warn("a segment could not be removed; it is tried again", "log", d.l.name, "segment", int64(d.g.Base()), "err", err)
			k.mu.Lock()
			k.dropped = append(k.dropped, d)
			k.mu.Unlock()
		}
	}
}

// isStartSaved tells whether the log's point has a start above the segment, and a producer snapshot
// that is the truth up to the segment's end. The snapshot must not lie beyond the records that are on
// disk: appends that came before it was taken may be lost, and then recovery drops it.
func (d *droppedFile) isStartSaved() bool {
	p := d.l.s.points.Get(d.l.id)
	_, next := d.g.End()
	return p.Vouched && p.Start >= next && p.ProducersAt >= next && p.Snapshot <= p.Next && !d.l.isTainted()
}

// removeSegment takes a segment's files out of the log's directory, and has them removed after the
// topic's file.delete.delay.ms, or at once where the disk is full.
func (k *keeper) removeSegment(l *Log, g *segment.Segment) error {
	names, err := g.Discard()
	for _, name := range names {
		k.removeLater(name, l.options().FileDeleteDelay)
	}
	return err
}

// removeLater removes a file or directory after a time, which ends when the disk is full.
func (k *keeper) removeLater(path string, after time.Duration) {
	k.mu.Lock()
	k.removals = append(k.removals, removal{path: path, at: time.Now().Add(after), delayed: true})
	k.mu.Unlock()
	k.wakeUp()
}

func (k *keeper) removeOne(r removal) error {
	if !r.inside {
		return k.s.fs.Remove(r.path)
	}
	infos, err := k.s.fs.ReadDir(r.path)
	for _, i := range infos {
		if i.Name != metadataFile {
			err = errors.Join(err, k.s.fs.Remove(r.path+"/"+i.Name))
		}
	}
	return err
}

// removalsAtOnce is how many files or directories the keeper removes before it looks at its other
// work and pauses. Removing 10,000 directories takes a second, in which checkpoints are due and
// rounds wait for the file system.
const removalsAtOnce = 16

// removeDue removes some of the files and directories that are due; untilNext brings the keeper
// back for the rest. A large directory takes a while, but nobody waits for it.
func (k *keeper) removeDue(now time.Time) {
	due, more := k.takeRemovals(now)
	var left []LogID
	var named error // the error if renamed directories could not be made durable before they are emptied
	if slices.ContainsFunc(due, func(r removal) bool { return r.inside }) {
		named = k.s.dirs.settleRenamed()
	}
	for _, r := range due {
		if k.s.closing.Load() {
			return // the next start goes on
		}
		if r.inside && named != nil { // a crash that undoes the renaming would bring back a part of the log
			k.retryRemoval(r, now)
		} else if err := k.removeOne(r); err != nil {
			k.s.log.Warn("a deleted file could not be removed", "path", r.path, "err", err)
			if r.of != (LogID{}) { // the directory marks its log as deleted, so it must not stay
				k.retryRemoval(r, now)
			}
		} else if r.of != (LogID{}) {
			left = append(left, r.of)
		}
	}
	if len(left) > 0 && k.s.syncs.syncDir(k.s.cfg.Dir) == nil { // otherwise a crash may bring the directories back, and they mark their logs as deleted
		for _, id := range left {
			k.s.forgetLeft(id)
		}
	}
	switch {
	case more && !k.urgent.Load():
		time.Sleep(restFor)
	case len(due) > 0 && !more:
		k.s.space.Look()
	}
}

// retryRemoval removes a file or directory at a later time.
func (k *keeper) retryRemoval(r removal, now time.Time) {
	r.at = now.Add(waitingEvery)
	k.mu.Lock()
	k.removals = append(k.removals, r)
	k.mu.Unlock()
}

// takeRemovals takes a few removals that are due. more is true if others may be due.
func (k *keeper) takeRemovals(now time.Time) (due []removal, more bool) {
	full := k.s.IsFull()
	k.mu.Lock()
	defer k.mu.Unlock()
	left := k.removals[:0]
	for i, r := range k.removals {
		if len(due) == removalsAtOnce {
			left, more = append(left, k.removals[i:]...), true
			break
		}
		if r.isDue(now, full) {
			due = append(due, r)
		} else {
			left = append(left, r)
		}
	}
	clear(k.removals[len(left):])
	if k.removals = left; len(left) == 0 {
		k.removals = nil // its memory is freed, since the list may have been long
	}
	return due, more
}
