package storage

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// recoveredFile is a segment that recovery wrote to, or that already had the bytes. It names the
// log and not the current directory, since the directory may be set aside or taken back before the
// file is synced.
type recoveredFile struct {
	name string // the usual name of the log's directory
	id   LogID
	base record.Offset
}

// listRecovered lists files in an order in which those of a log are side by side.
func listRecovered(touched map[recoveredFile]bool) []recoveredFile {
	return slices.SortedFunc(maps.Keys(touched), func(a, b recoveredFile) int {
		return cmp.Or(strings.Compare(a.name, b.name), slices.Compare(a.id.Topic[:], b.id.Topic[:]), cmp.Compare(a.base, b.base))
	})
}

// syncRecovered makes the files durable that recovery wrote, or found to be as the journal has
// them. It returns those that are to be tried again. The journal keeps the contents of files of
// which a sync failed. The caller holds run.
func (k *keeper) syncRecovered(files []recoveredFile) (left []recoveredFile) {
	s := k.s
	if len(files) >= s.cfg.SyncTogether && s.volume.isUsable() && s.syncVolume() == nil {
		return nil
	}
	for len(files) > 0 {
		n := 1
		for n < len(files) && files[n].id == files[0].id {
			n++
		}
		name, id := files[0].name, files[0].id
		err := k.syncRecoveredLog(files[:n])
		if err != nil {
			s.log.Error("files that recovery wrote could not be made durable; the journal keeps their contents", "log", name, "err", err)
		}
		switch classify(err) {
		case none:
		case transient, full, gone:
			left = append(left, files[:n]...)
		case tainted:
			s.faults.set(id, newTaint(err))
			if l := s.findLog(id); l != nil {
				l.taint(err)
			}
			if k.heldFrom == 0 {
				k.heldFrom = max(k.previous.Round, 1)
			}
		}
		files = files[n:]
	}
	return left
}

// errDirMissing is returned if a log's directory is missing and nothing tells why.
var errDirMissing = errors.New("the log's directory is missing")

// syncRecoveredLog makes the files of one log durable, wherever its directory is now. A file that
// is missing there was removed by the log itself, since it lay below the log's start or was cut
// off.
func (k *keeper) syncRecoveredLog(files []recoveredFile) error {
	s := k.s
	name, id := files[0].name, files[0].id
	unlock := s.dirs.lockName(name)
	defer unlock()
	if s.isLeaving(id) {
		return nil // the log was deleted, so none of its bytes in the journal counts
	}
	dirs, err := s.dirs.listLocked(name, id)
	if err != nil {
		return err
	}
	if len(dirs) == 0 && s.findLog(id) != nil {
		return errDirMissing
	} // else the directory of an unknown log was set aside, and was removed at the end of its time
	for _, dir := range dirs {
		for _, f := range files {
			err := s.syncFile(s.pathOf(dir, segment.FileName(f.base, segment.LogSuffix)))
			if err != nil && !errors.Is(err, vfs.ErrNotExist) {
				return err
			}
		}
		if err := s.syncLogDir(dir, true); err != nil {
			return err
		}
	}
	return nil
}
