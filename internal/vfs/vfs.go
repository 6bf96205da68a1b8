// Package vfs is the file system that the engine writes to: the interfaces FS and File,
// with three implementations. OS is the real file system. Mem is in memory, for tests:
// it can crash, so that changes which were not synced are lost, torn or reordered; its
// volume can be detached and attached again; its space and its open files can be
// limited. Faulty wraps another one and makes calls fail, hang or report a full disk.
// All methods may be called concurrently, except Close.
//
// Durable has the same meaning in all of them. A file's contents and size are durable
// once its Sync has returned; its name is durable once SyncDir of its directory has
// returned, and so on for the directory's name, up to the root. A file that was synced
// may be gone after a power cut if its name was not durable.
package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"syscall"
	"unsafe"
)

var (
	// ErrLocked is returned by Lock if another holder has the lock.
	ErrLocked = errors.New("locked by another process")
	// ErrNotExist is returned for a file or a directory that is missing.
	ErrNotExist = fs.ErrNotExist
	// ErrNoSpace is returned by calls that found the file system full, or a quota
	// used up. A write that fails with it may have written a part.
	ErrNoSpace = errors.New("no space left on the file system")
	// ErrNoHandles is returned by calls that open a file or a directory while the
	// process, or the whole system, has as many open as it may. Such a call has changed
	// nothing, and succeeds once other files were closed.
	ErrNoHandles = errors.New("too many open files")
)

// FS is a file system. Paths are slash-separated. Safe for concurrent use.
type FS interface {
	// Open opens a file for reading and writing; see Mode.
	Open(name string, mode Mode) (File, error)
	// Remove deletes a file or a whole directory tree. It is no error if there is none.
	Remove(name string) error
	// Rename moves a file or directory, replacing a file of that name.
	Rename(from, to string) error
	// MkdirAll makes a directory and its missing parents.
	MkdirAll(dir string) error
	// ReadDir lists a directory, sorted by name.
	ReadDir(dir string) ([]Info, error)
	// Stat describes a file or directory.
	Stat(name string) (Info, error)
	// SyncDir makes creations, renames and removals in dir durable.
	SyncDir(dir string) error
	// Free returns how many bytes can still be written below dir, and the size of the
	// file system.
	Free(dir string) (avail, total int64, err error)
}

// Locker is a file system that can keep other processes out of a directory. OS, Mem and
// Faulty implement it. Lock makes the named file if it is missing, and returns ErrLocked
// if there is another holder. The lock ends with Close or with the process.
type Locker interface {
	Lock(name string) (io.Closer, error)
}

// Linker is a file system that can give a file one more name. OS, Mem and Faulty implement it.
type Linker interface {
	// Link gives a file another name, which no file may have yet. Both names stand for the same bytes, which are
	// there until the last name is removed. The new name is durable as that of a new file is. Not every file system
	// of an operating system can do this: who gets an error that is not about space or handles copies the file.
	Link(name, another string) error
}

// Mode says how Open opens a file.
type Mode uint8

const (
	// Existing opens a file that must exist, for reading and writing.
	Existing Mode = iota
	// ReadOnly opens a file that must exist, for reading.
	ReadOnly
	// Create opens a file, for reading and writing, and makes an empty one if it is missing.
	Create
	// Fresh opens a file, for reading and writing, and makes it empty.
	Fresh
	// Secret is Fresh for a file that no other user of the system may read.
	Secret
)

// Info describes a file or directory.
type Info struct {
	Name string // the last element of its path
	Size int64  // bytes; 0 for a directory
	Dir  bool
}

// File is an open file. It has no current position: each read and write names its own.
// Safe for concurrent use, except Close.
type File interface {
	io.ReaderAt
	io.WriterAt
	// WriteVAt writes the buffers one after another from off on, with one system call if
	// possible. It does not change bufs.
	WriteVAt(bufs [][]byte, off int64) (int64, error)
	Size() (int64, error)
	Truncate(size int64) error
	// Allocate reserves space for n bytes from off on, without changing the contents. A
	// file that is shorter than off+n grows to that size, with zeros. If the system cannot
	// reserve space, the file only grows. No write may go beyond the file's end meanwhile.
	Allocate(off, n int64) error
	// Sync makes contents and size durable (fdatasync).
	Sync() error
	Close() error
}

// Descriptor is a file that has a descriptor of the operating system, for
// sendfile. Only files of OS implement it.
type Descriptor interface {
	Fd() uintptr
}

// Starter is a file that can begin to write its changes to disk before a Sync, which
// then takes less time. StartSync makes nothing durable and reports no errors; Sync does
// both. Only files of OS may implement it.
type Starter interface {
	StartSync(off, n int64)
}

// Director is a file system that can write without the page cache. A file that
// OpenDirect returns takes only whole blocks of DirectBlock bytes, at positions that are
// multiples of it, from buffers that Aligned made. The file system of the disk may refuse
// OpenDirect, or the writes; then a file that Open returns can write the same bytes. Only
// OS may implement it.
type Director interface {
	OpenDirect(name string) (File, error)
}

// DirectBlock is the unit of direct writes: their positions, lengths and addresses are
// multiples of it.
const DirectBlock = 4096

// Aligned makes a buffer of n bytes for direct writes.
func Aligned(n int) []byte {
	b := make([]byte, n+DirectBlock)
	off := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (DirectBlock - 1)
	return b[off : off+n : off+n]
}

// SyncPath makes the names durable by which a directory is found, up to the root. Directories that
// may not be read, or are on a file system that cannot be written, are left out: this user made
// no names in them.
func SyncPath(fsys FS, dir string) error {
	for dir = path.Clean(dir); ; dir = path.Dir(dir) {
		parent := path.Dir(dir)
		err := fsys.SyncDir(parent)
		if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
			return fmt.Errorf("making the name of %s durable: %w", dir, err)
		}
		if path.Dir(parent) == parent {
			return nil
		}
	}
}

// writeParts is WriteVAt for files that write one buffer at a time.
func writeParts(w io.WriterAt, bufs [][]byte, off int64) (int64, error) {
	var done int64
	for _, b := range bufs {
		n, err := w.WriteAt(b, off+done)
		done += int64(n)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}
