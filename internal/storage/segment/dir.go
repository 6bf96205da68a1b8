package segment

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/leatstream/leat/internal/record"
)

// The suffixes of a segment's files.
const (
	LogSuffix     = ".log"
	IndexSuffix   = ".index"
	TimeSuffix    = ".timeindex"
	DeletedSuffix = ".deleted" // appended to the name of a file that is going to be removed
)

// ErrGone is returned once the directory is not the log's own any more: the log was
// deleted, and another log may have a directory of that name.
var ErrGone = errors.New("the log was deleted")

// Dir is the directory of one log. Every change below it is made through Do, so that a
// log that was deleted never touches the directory of its successor.
type Dir struct {
	path string

	mu   sync.RWMutex
	gone bool // guarded by mu
}

// NewDir names a log's directory, which need not exist yet.
func NewDir(path string) *Dir { return &Dir{path: path} }

// Path joins names below the directory.
func (d *Dir) Path(names ...string) string {
	return path.Join(append([]string{d.path}, names...)...)
}

// Do calls fn while the directory is surely the log's own; it returns ErrGone, and does
// not call fn, once it is not.
func (d *Dir) Do(fn func() error) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.gone {
		return ErrGone
	}
	return fn()
}

// Leave ends the use of the directory: calls of Do that run come to their end first.
func (d *Dir) Leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone = true
}

// FileName is the name of a segment's file: its base offset in 20 digits, and a suffix.
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
