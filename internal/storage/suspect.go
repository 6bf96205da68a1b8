package storage

import (
	"errors"
	"fmt"
	"strings"

	"github.com/leatstream/leat/internal/vfs"
)

// After a sync that failed, the kernel counts the file's pages as clean though the
// disk does not have them: reads see them and later syncs report no error, also
// those of the next process. So nothing of that file is relied on any more in this
// one, and the next one, as long as the kernel is the same, trusts nothing that
// was not vouched for before: it writes it anew before it syncs it.
const suspectFile = "sync-failed"

// errSync is returned where a sync failed. It never counts as a full disk, since
// trying again would not help.
var errSync = errors.New("sync failed")

// sync makes a file durable.
func (s *Store) sync(f vfs.File) error {
	if err := f.Sync(); err != nil {
		return s.suspect(err)
	}
	return nil
}

// syncDir makes the names in a directory durable; a missing one is vfs.ErrNotExist.
func (s *Store) syncDir(dir string) error {
	err := s.fs.SyncDir(dir)
	if err == nil || errors.Is(err, vfs.ErrNotExist) {
		return err
	}
	return s.suspect(err)
}

// suspect leaves a note for the next process.
func (s *Store) suspect(err error) error {
	if !s.suspicious.Swap(true) {
		if err := s.writeAt(s.path(suspectFile), []byte(s.cfg.BootID), 0); err != nil {
			s.log.Error("a failed sync could not be noted; restart the machine before the next start", "err", err)
		}
	}
	return fmt.Errorf("%w: %v", errSync, err) //nolint:errorlint // it must not be taken for a full disk
}

// distrusts tells whether an earlier process on this kernel left such a note.
func (s *Store) distrusts() (bool, error) {
	b, err := s.readFile(s.path(suspectFile))
	if b == nil || err != nil {
		return false, err
	}
	if !strings.HasPrefix(s.cfg.BootID, string(b)) { // the note may have been cut short
		return false, s.fs.Remove(s.path(suspectFile)) // what the kernel believed is gone
	}
	s.suspicious.Store(true)
	return true, nil
}

// spoil makes the logs of a directory read-only, those that are opened later, too.
func (s *Store) spoil(dir string, err error) {
	s.mu.Lock()
	if s.spoiled == nil {
		s.spoiled = map[string]error{}
	}
	s.spoiled[dir] = err
	s.mu.Unlock()
	for _, l := range s.all() {
		if l.dir == dir && !l.deleted.Load() {
			l.fail(err)
		}
	}
}

// rewrite writes what a file has from one position to another once more, so that
// the next sync does write it.
func rewrite(f vfs.File, from, to int64) error {
	buf, _ := walkBuffers.Get().(*[]byte)
	defer walkBuffers.Put(buf)
	for from < to {
		b := (*buf)[:min(int64(len(*buf)), to-from)]
		if n, err := f.ReadAt(b, from); n < len(b) {
			return err
		}
		if _, err := f.WriteAt(b, from); err != nil {
			return err
		}
		from += int64(len(b))
	}
	return nil
}
