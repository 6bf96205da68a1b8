package storage

import (
	"encoding/base64"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/storage/aside"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

const (
	metadataFile = "partition.metadata"

	// maxSmallFile bounds the files that are read at once, in bytes.
	maxSmallFile = 1 << 29
)

// directories knows which log owns which directory. A directory is made, taken over or renamed only
// while its name is locked, and only after its metadata have been read. So a deleted topic and a
// new topic of the same name never touch each other's files.
type directories struct {
	s     *Store
	seed  maphash.Seed
	locks [64]sync.Mutex

	mu      sync.Mutex
	renamed map[string]struct{} // guarded by mu: names that directories had before they were renamed, if the renaming may not be durable
}

func (d *directories) init(s *Store) {
	d.s, d.seed, d.renamed = s, maphash.MakeSeed(), map[string]struct{}{}
}

func (d *directories) lockName(name string) (unlock func()) {
	mu := &d.locks[maphash.String(d.seed, name)%uint64(len(d.locks))]
	mu.Lock()
	return mu.Unlock
}

// dirName is the name of a partition's directory.
func dirName(topic string, partition int32) string {
	return topic + "-" + strconv.Itoa(int(partition))
}

// parseDirName is the partition of a directory that dirName named. ok is false for other
// directories, such as those of deleted logs.
func parseDirName(name string) (partition int32, ok bool) {
	at := strings.LastIndexByte(name, '-')
	if at <= 0 {
		return 0, false
	}
	p, err := strconv.ParseInt(name[at+1:], 10, 32)
	if err != nil || p < 0 || dirName(name[:at], int32(p)) != name {
		return 0, false
	}
	return int32(p), true
}

// encodeMetadata is the contents of partition.metadata, in Kafka's format.
func encodeMetadata(topic [16]byte) []byte {
	return fmt.Appendf(nil, "version: 0\ntopic_id: %s", base64.RawURLEncoding.EncodeToString(topic[:]))
}

func decodeMetadata(b []byte) (topic [16]byte, ok bool) {
	lines := strings.Fields(string(b))
	if len(lines) != 4 || lines[0] != "version:" || lines[1] != "0" || lines[2] != "topic_id:" {
		return topic, false
	}
	id, err := base64.RawURLEncoding.DecodeString(lines[3])
	if err != nil || len(id) != len(topic) {
		return topic, false
	}
	return [16]byte(id), true
}

// readOwner is the topic id in a directory's metadata. ok is false if there are no metadata, or
// they cannot be read.
func (d *directories) readOwner(dir string) (topic [16]byte, ok bool, err error) {
	b, err := d.s.readFile(d.s.pathOf(dir, metadataFile))
	if err != nil {
		return topic, false, err
	}
	topic, ok = decodeMetadata(b)
	return topic, ok, nil
}

// findDir is the name that the directory of a log has now. dir is its usual name. If the directory
// was set aside, and perhaps more than once, the newest of those is the log's.
func (d *directories) findDir(dir string, id LogID) (string, error) {
	strays := d.s.strays.List(id)
	if len(strays) == 0 {
		return dir, nil
	}
	topic, ok, err := d.readOwner(dir)
	if err != nil || ok && topic == id.Topic {
		return dir, err
	}
	return strays[len(strays)-1].Name, nil
}

// listLocked lists the directories of a log: the one with the usual name, dir, and those that were
// set aside. The caller has locked the usual name, so that no directory is renamed meanwhile.
func (d *directories) listLocked(dir string, id LogID) (found []string, err error) {
	topic, ok, err := d.readOwner(dir)
	if err != nil {
		return nil, err
	}
	if ok && topic == id.Topic {
		found = append(found, dir)
	}
	for _, stray := range d.s.strays.List(id) {
		found = append(found, stray.Name)
	}
	return found, nil
}

// makeDir makes a log's directory. Its name need not be durable, since the journal can make the
// directory again until the next checkpoint makes the name durable. If another log's directory has
// the name, it is set aside. That renaming, and an earlier one, must be durable: otherwise a power
// cut could bring the old directory back in place of this one.
func (d *directories) makeDir(dir string, id LogID) error {
	unlock := d.lockName(dir)
	defer unlock()
	return d.makeDirLocked(dir, id)
}

// makeDirLocked makes a log's directory, unless something is left of a deleted log of the same
// identity. Its name is locked.
func (d *directories) makeDirLocked(dir string, id LogID) error {
	if d.s.isLeaving(id) {
		d.s.keeper.checkpointSoon()
		return errLeaving
	}
	_, err := d.s.fs.Stat(d.s.pathOf(dir))
	if err != nil && !errors.Is(err, vfs.ErrNotExist) {
		return err
	}
	if err == nil {
		if mine, err := d.identifyLocked(dir, id); mine || err != nil {
			return err
		}
	}
	d.mu.Lock()
	_, wait := d.renamed[dir]
	d.mu.Unlock()
	if wait {
		if err := d.syncNames(); err != nil {
			return err
		}
	}
	if err := d.s.fs.MkdirAll(d.s.pathOf(dir)); err != nil {
		return err
	}
	if err := d.writeMetadata(dir, id); err != nil {
		return errors.Join(err, d.s.fs.Remove(d.s.pathOf(dir))) // if the directory cannot be removed, the next try removes it
	}
	return nil
}

// writeMetadata writes into a directory which topic it belongs to.
func (d *directories) writeMetadata(dir string, id LogID) error {
	f, err := d.s.fs.Open(d.s.pathOf(dir, metadataFile), vfs.Create)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(encodeMetadata(id.Topic), 0)
	return errors.Join(err, f.Close())
}

// identifyLocked tells whether an existing directory is a log's own, and sets it aside if it is
// not. The caller has locked its name.
func (d *directories) identifyLocked(dir string, id LogID) (mine bool, err error) {
	topic, ok, err := d.readOwner(dir)
	switch {
	case err != nil:
		return false, err
	case ok && topic == id.Topic:
		return true, nil
	case ok:
		return false, d.setAsideLocked(dir, LogID{Topic: topic, Partition: id.Partition}, "it is of another topic than the one that has this name now")
	}
	// The directory has no metadata, because its making or its deletion was cut short. It is
	// removed if it has nothing that an operator may want back. Otherwise each failed try to make
	// it would leave one more directory.
	infos, err := d.s.fs.ReadDir(d.s.pathOf(dir))
	switch {
	case err != nil:
		return false, err
	case len(infos) == 0 || len(infos) == 1 && infos[0].Name == metadataFile:
		return false, d.s.fs.Remove(d.s.pathOf(dir))
	default:
		return false, d.setAsideLocked(dir, LogID{Topic: randomID(), Partition: id.Partition}, "a partition has this name now, and the directory is of none, or has lost its file partition.metadata")
	}
}

// syncNames makes the names of all directories durable.
func (d *directories) syncNames() error {
	d.mu.Lock()
	names := make([]string, 0, len(d.renamed))
	for name := range d.renamed {
		names = append(names, name)
	}
	d.mu.Unlock()
	if err := d.s.syncs.syncDir(d.s.cfg.Dir); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range names {
		delete(d.renamed, name)
	}
	return nil
}

// settleRenamed makes the names of renamed directories durable, if there are any that may not be.
func (d *directories) settleRenamed() error {
	d.mu.Lock()
	n := len(d.renamed)
	d.mu.Unlock()
	if n == 0 {
		return nil
	}
	return d.syncNames()
}

// discardDir renames what a deleted log still has under its usual name; "": it has nothing there.
func (d *directories) discardDir(id LogID, dir string) error {
	if dir == "" {
		return nil
	}
	unlock := d.lockName(dir)
	defer unlock()
	return d.discardDirLocked(id, dir)
}

// discardDirLocked renames a deleted log's directory and has it removed, with those of the log that
// were set aside. It leaves a directory alone that is not that log's. The caller has locked its name.
func (d *directories) discardDirLocked(id LogID, dir string) error {
	if err := d.discardStrays(id, dir); err != nil {
		return err
	}
	topic, ok, err := d.readOwner(dir)
	if err != nil || !ok || topic != id.Topic {
		return err
	}
	return d.discardLocked(id, dir, dir)
}

// discardStrays discards the directories of a deleted log that were set aside. Otherwise the next
// log of the same identity would take them for its own. The caller has locked the log's name.
func (d *directories) discardStrays(id LogID, dir string) error {
	for {
		last, ok := d.s.strays.Take(id)
		if !ok {
			return nil
		}
		if err := d.discardLocked(id, dir, last.Name); errors.Is(err, vfs.ErrNotExist) {
			continue // the operator has removed it
		} else if err != nil {
			d.s.strays.Add(last.Name, id, last.Since)
			return err
		}
	}
}

// discardLocked renames a directory of a deleted log and has it removed. dir is the log's usual
// name, which the caller has locked.
func (d *directories) discardLocked(id LogID, dir, from string) error {
	to := aside.DeletedName(dir, id)
	if _, err := d.s.fs.Stat(d.s.pathOf(to)); err == nil { // an earlier directory of the log, which may have been removed in part
		if err := d.s.dirs.settleRenamed(); err != nil { // a crash that undoes its renaming would bring back a part of it
			return err
		}
		if err := d.s.fs.Remove(d.s.pathOf(to)); err != nil {
			return err
		}
	}
	if err := d.renameLocked(from, to); err != nil {
		return err
	}
	d.s.keeper.removeDir(to, id)
	return nil
}

// setAside moves a directory aside if the metadata do not know its log. None of its files is
// deleted.
func (d *directories) setAside(id LogID, dir, why string) error {
	unlock := d.lockName(dir)
	defer unlock()
	if d.s.findLog(id) != nil {
		return nil // the log is known by now
	}
	topic, ok, err := d.readOwner(dir)
	if err != nil || !ok || topic != id.Topic {
		return err
	}
	return d.setAsideLocked(dir, id, why)
}

func (d *directories) setAsideLocked(dir string, id LogID, why string) error {
	now := time.Now().UnixMilli()
	to := aside.StrayName(dir, id, now)
	d.s.strays.Add(to, id, now) // it comes first, so that the log's point is kept from now on
	if err := d.renameLocked(dir, to); err != nil {
		d.s.strays.Forget(to, id)
		return err
	}
	d.s.log.Error("a directory was set aside; move it out of the data directory, remove it, or restore the metadata that know it",
		"dir", dir, "now", to, "why", why)
	return nil
}

// takeBack gives a directory that was set aside its usual name again, now that the metadata know
// its log. It does nothing if no directory was set aside. The name is durable when takeBack
// returns, since the log's point says that it is.
func (d *directories) takeBack(dir string, id LogID) error {
	unlock := d.lockName(dir)
	defer unlock()
	last, ok := d.s.strays.Take(id)
	if !ok {
		return nil
	}
	if err := d.renameLocked(last.Name, dir); err != nil {
		d.s.strays.Add(last.Name, id, last.Since)
		return err
	}
	d.s.log.Warn("a directory that was set aside is used again: the cluster's metadata know its topic now", "dir", dir, "was", last.Name)
	return d.syncNames()
}

// renameLocked renames a directory. The caller has locked its name.
func (d *directories) renameLocked(dir, to string) error {
	d.mu.Lock()
	d.renamed[dir] = struct{}{}
	d.mu.Unlock()
	return d.s.fs.Rename(d.s.pathOf(dir), d.s.pathOf(to))
}

// pathOf joins names below the data directory.
func (s *Store) pathOf(names ...string) string {
	return path.Join(append([]string{s.cfg.Dir}, names...)...)
}

// readFile reads a small file whole. It returns nil if the file does not exist.
func (s *Store) readFile(name string) ([]byte, error) {
	f, err := s.fs.Open(name, vfs.ReadOnly)
	if errors.Is(err, vfs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	if n > maxSmallFile {
		return nil, fmt.Errorf("%s has %d bytes, which is more than it can have", name, n)
	}
	b := make([]byte, n)
	got, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:got], nil
}

// replaceFile replaces the contents of a file in one step, so that a reader sees the old ones or
// the new ones. With durable set, the contents are on disk before they get the file's name. The
// caller must sync the directory in any case.
func (s *Store) replaceFile(name string, b []byte, durable bool) error {
	tmp := name + ".tmp"
	f, err := s.fs.Open(tmp, vfs.Fresh)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil && durable {
		err = s.syncs.syncFile(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, s.fs.Remove(tmp))
	}
	return s.fs.Rename(tmp, name)
}

// syncLogDir makes the names in a log's directory durable. If the directory is new, it does the
// same for its own name and its metadata.
func (s *Store) syncLogDir(dir string, isNew bool) error {
	if isNew {
		f, err := s.fs.Open(s.pathOf(dir, metadataFile), vfs.Existing)
		if err != nil {
			return err
		}
		if s.syncs.distrust {
			err = rewriteFile(f)
		}
		if err == nil {
			err = s.syncs.syncFile(f)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if err := s.syncs.syncDir(s.pathOf(dir)); err != nil || !isNew {
		return err
	}
	return s.dirs.syncNames()
}

// rewriteFile writes the same bytes into a small file again, so that the next sync writes them to
// the disk.
func rewriteFile(f vfs.File) error {
	n, err := f.Size()
	if err != nil {
		return err
	}
	b := make([]byte, n)
	if got, err := f.ReadAt(b, 0); got < len(b) {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return err
}

// sumSegments is the number of bytes in the segments of a directory, or 0 if it cannot be read.
func (d *directories) sumSegments(dir string) int64 {
	infos, err := d.s.fs.ReadDir(d.s.pathOf(dir))
	if err != nil {
		return 0
	}
	var n int64
	for _, i := range infos {
		if _, ok := segment.ParseFileName(i.Name, segment.LogSuffix); ok {
			n += i.Size
		}
	}
	return n
}
