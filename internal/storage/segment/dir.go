package segment

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// The suffixes of a segment's files.
const (
	LogSuffix     = ".log"
	IndexSuffix   = ".index"
	TimeSuffix    = ".timeindex"
	TxnSuffix     = ".txnindex"
	DeletedSuffix = ".deleted" // appended to the name of a file that is going to be removed
)

// fileSuffixes lists the files that a segment may have.
func fileSuffixes() []string { return []string{LogSuffix, IndexSuffix, TimeSuffix, TxnSuffix} }

// CutMark is the name of a file that is in a log's directory while something is taken away there:
// the end of a segment, segments, snapshots. Whoever finds it knows that some of what is gone may
// be gone in the page cache alone, since the process before it was killed then.
const CutMark = "cutting.tmp"

// ErrGone is returned for changes of a directory that the log has left: the log was
// deleted, and another log may now have a directory of that name.
var ErrGone = errors.New("the log was deleted")

// Dir is the directory of one log. Every change in it is made through Do, so that a log
// that was deleted never changes the directory of its successor.
type Dir struct {
	path string

	mu   sync.RWMutex
	left bool // guarded by mu: the directory is no longer the log's own
}

// NewDir returns the directory of a log, which need not exist yet.
func NewDir(path string) *Dir { return &Dir{path: path} }

// Path is the path of a name below the directory.
func (d *Dir) Path(names ...string) string {
	return path.Join(append([]string{d.path}, names...)...)
}

// Do calls fn while the directory is certain to be the log's own. After Leave it returns
// ErrGone and does not call fn.
func (d *Dir) Do(fn func() error) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.left {
		return ErrGone
	}
	return fn()
}

// MarkCut marks that something is about to be taken away.
func (d *Dir) MarkCut(fs vfs.FS) error {
	return d.Do(func() error {
		f, err := fs.Open(d.Path(CutMark), vfs.Create)
		if err != nil {
			return err
		}
		return f.Close()
	})
}

// UnmarkCut notes that everything that was taken away is so on disk.
func (d *Dir) UnmarkCut(fs vfs.FS) error {
	return d.Do(func() error { return fs.Remove(d.Path(CutMark)) })
}

// DoAlone is Do while no other goroutine is in a call of Do: no file is opened meanwhile. fn must not wait for
// the disk.
func (d *Dir) DoAlone(fn func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left {
		return ErrGone
	}
	return fn()
}

// Leave ends the use of the directory. It waits for the calls of Do that run.
func (d *Dir) Leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = true
}

// FileName is the name of a segment's file: the base offset with 20 digits, and a suffix.
func FileName(base record.Offset, suffix string) string {
	return fmt.Sprintf("%020d%s", int64(base), suffix)
}

// ParseFileName is the inverse of FileName.
func ParseFileName(name, suffix string) (record.Offset, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	base, err := strconv.ParseUint(digits, 10, 63) // without a sign
	return record.Offset(base), err == nil
}
