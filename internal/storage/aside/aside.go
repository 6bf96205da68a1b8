// Package aside knows the directories of logs that have other names than the logs' own: those of deleted logs, which
// are about to be removed, strays, which are kept for a time since the metadata does not
// have their logs, and those with the tails that were cut off logs and are kept. Their names say which log they belong to.
// Strays is the set of strays.
package aside

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/leatstream/leat/internal/record"
)

const (
	deletedSuffix      = "-delete"
	straySuffix        = "-stray"
	tailsSuffix        = "-tails"
	deletedTailsSuffix = tailsSuffix + deletedSuffix

	maxName = 255 // bytes of a file's name, on all file systems in use
)

// Strays are directories that were set aside because the metadata did not have their logs.
// They are kept for a time, with the points of their logs in the checkpoints, so that a log
// whose directory is taken back has its start, high watermark and end as before. The zero
// Strays has none. Any goroutine may use it.
type Strays struct {
	mu   sync.Mutex
	dirs map[record.LogID][]Dir // guarded by mu; no list is empty
	n    int                    // guarded by mu: the number of directories
}

// Dir is a directory that was set aside.
type Dir struct {
	Name  string
	Since int64 // ms
}

// Add adds a directory, if it is not there already.
func (t *Strays) Add(name string, id record.LogID, since int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.ContainsFunc(t.dirs[id], func(d Dir) bool { return d.Name == name }) {
		return
	}
	if t.dirs == nil {
		t.dirs = map[record.LogID][]Dir{}
	}
	t.dirs[id] = append(t.dirs[id], Dir{name, since})
	t.n++
}

// Take removes and returns the directory of a log that was set aside last.
func (t *Strays) Take(id record.LogID) (last Dir, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	dirs := t.dirs[id]
	if len(dirs) == 0 {
		return last, false
	}
	last = slices.MaxFunc(dirs, func(a, b Dir) int { return cmp.Compare(a.Since, b.Since) })
	t.keepLocked(id, func(d Dir) bool { return d != last })
	return last, true
}

// keepLocked removes the directories of a log for which keep is false. mu is held.
func (t *Strays) keepLocked(id record.LogID, keep func(Dir) bool) {
	kept := slices.DeleteFunc(t.dirs[id], func(d Dir) bool { return !keep(d) })
	t.n -= len(t.dirs[id]) - len(kept)
	if t.dirs[id] = kept; len(kept) == 0 {
		delete(t.dirs, id)
	}
}

// ListOld lists the logs whose directories were all set aside before a time in ms.
func (t *Strays) ListOld(before int64) (old []record.LogID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, dirs := range t.dirs {
		if !slices.ContainsFunc(dirs, func(d Dir) bool { return d.Since >= before }) {
			old = append(old, id)
		}
	}
	return old
}

// IDs lists the logs of which a directory was set aside.
func (t *Strays) IDs() []record.LogID {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.dirs))
}

// UsualName is the name that the directory of a log had before it was set aside, or the beginning
// of that name if it is very long.
func (t *Strays) UsualName(id record.LogID) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.dirs[id]) == 0 {
		return ""
	}
	name := t.dirs[id][0].Name
	for range 3 { // the time, the topic's id and the partition
		name = name[:max(strings.LastIndexByte(name, '.'), 0)]
	}
	return name
}

// List lists the directories of a log, in the order in which they were set aside.
func (t *Strays) List(id record.LogID) []Dir {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(slices.Values(t.dirs[id]), func(a, b Dir) int { return cmp.Compare(a.Since, b.Since) })
}

// Forget removes a directory from the set; was tells whether it was in it.
func (t *Strays) Forget(name string, id record.LogID) (was bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.n
	t.keepLocked(id, func(d Dir) bool { return d.Name != name })
	return t.n < n
}

// Has tells whether a directory of the log was set aside.
func (t *Strays) Has(id record.LogID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.dirs[id]) > 0
}

// Len is the number of directories.
func (t *Strays) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}

// DeletedName is the name of a deleted log's directory.
func DeletedName(dir string, id record.LogID) string { return asideName(dir, id, deletedSuffix) }

// ParseDeleted returns the log of a directory with a name of DeletedName.
func ParseDeleted(name string) (id record.LogID, ok bool) { return parseAside(name, deletedSuffix) }

// TailsName is the name of the directory with the tails of a log whose usual directory is dir.
func TailsName(dir string, id record.LogID) string { return asideName(dir, id, tailsSuffix) }

// ParseTails returns the log of a directory with a name of TailsName.
func ParseTails(name string) (id record.LogID, ok bool) { return parseAside(name, tailsSuffix) }

// DeletedTailsName is the name that a directory with a name of TailsName has while it is removed.
func DeletedTailsName(tails string) string {
	id, _ := ParseTails(tails)
	return asideName(strings.TrimSuffix(tails, asideName("", id, tailsSuffix)), id, deletedTailsSuffix)
}

// IsDeletedTails tells whether a directory has a name of DeletedTailsName.
func IsDeletedTails(name string) bool {
	_, ok := parseAside(name, deletedTailsSuffix)
	return ok
}

// asideName is a directory's name when it is moved aside, with the topic id and the partition
// of its log. A long name is shortened, since a file's name has 255 bytes at most.
func asideName(dir string, id record.LogID, suffix string) string {
	tail := fmt.Sprintf(".%s.%d%s", hex.EncodeToString(id.Topic[:]), id.Partition, suffix)
	return dir[:min(len(dir), maxName-len(tail))] + tail
}

// StrayName is the name of a stray directory. It also has the time since when it is one, in ms,
// so that no two have the same name.
func StrayName(dir string, id record.LogID, now int64) string {
	since := "." + strconv.FormatInt(now, 10)
	short := dir[:min(len(dir), maxName-len(asideName("", id, straySuffix))-len(since))]
	return asideName(short+since, id, straySuffix)
}

// ParseStray returns the log of a directory with a name of StrayName, and the time in it.
func ParseStray(name string) (id record.LogID, since int64, ok bool) {
	id, ok = parseAside(name, straySuffix)
	if !ok {
		return id, 0, false
	}
	parts := strings.Split(name, ".")
	since, err := strconv.ParseInt(parts[len(parts)-3], 10, 64)
	return id, since, err == nil && len(parts) > 3
}

// parseAside returns the log of a directory with a name of asideName.
func parseAside(name, suffix string) (id record.LogID, ok bool) {
	name, ok = strings.CutSuffix(name, suffix)
	parts := strings.Split(name, ".")
	if !ok || len(parts) < 3 {
		return id, false
	}
	topic, err := hex.DecodeString(parts[len(parts)-2])
	partition, err2 := strconv.ParseInt(parts[len(parts)-1], 10, 32)
	if errors.Join(err, err2) != nil || len(topic) != len(id.Topic) || partition < 0 {
		return id, false
	}
	return record.LogID{Topic: [16]byte(topic), Partition: int32(partition)}, true
}
