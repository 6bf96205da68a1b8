// Package vfs is the file system that the engine writes to, as an interface with
// three implementations: OS (the real one), Mem (in memory; it can crash, and what
// was not synced is lost, torn or reordered; its volume can be torn away and come
// back; its space and its open files can be limited) and Faulty (wraps another one
// and makes calls fail, hang or report a full disk).
//
// What durable means is the same in all of them: a file's contents and size last
// once its Sync has returned, its name only once SyncDir of its directory has,
// and so on up to the root. A file that was synced under a name that was not may
// be gone after a power cut.
package vfs

import (
	"errors"
	"io"
	"io/fs"
	"unsafe"
)

var (
	// ErrLocked is returned by Lock where another holder has the lock.
	ErrLocked = errors.New("locked by another process")
	// ErrNotExist is returned where a file or directory is missing.
	ErrNotExist = fs.ErrNotExist
	// ErrNoSpace is returned by calls that found the file system full, or a quota
	// used up. What a failed write stored before it found out is not taken back.
	ErrNoSpace = errors.New("no space left on the file system")
	// ErrNoHandles is returned by calls that open a file or a directory while the
	// process, or the whole system, has as many open as it may. Nothing was changed,
	// and the same call succeeds once other files were closed.
	ErrNoHandles = errors.New("too many open files")
)

// FS is a file system. Paths are slash-separated. Safe for concurrent use.
type FS interface {
	// Open opens a file for reading and writing; see Mode.
	Open(name string, mode Mode) (File, error)
	// Remove deletes a file or a whole directory tree; a missing one is no error.
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
	// Free tells how many bytes can still be written below dir, and the size of
	// the file system.
	Free(dir string) (avail, total int64, err error)
}

// Locker is a file system that can keep other processes out of a directory. OS
// and Mem implement it. Lock makes the named file where it is missing and returns
// ErrLocked where another holder exists. The lock ends with Close or the process.
type Locker interface {
	Lock(name string) (io.Closer, error)
}

// Mode says how Open opens a file.
type Mode uint8

const (
	// Existing opens a file that must be there, for reading and writing.
	Existing Mode = iota
	// ReadOnly opens a file that must be there, for reading.
	ReadOnly
	// Create opens a file, making it empty where it is missing.
	Create
	// Fresh opens a file and empties it, making it where it is missing.
	Fresh
)

// Info describes a file or directory.
type Info struct {
	Name string // the last element of its path
	Size int64  // bytes; 0 for a directory
	Dir  bool
}

// File is an open file. Reads and writes name their position; there is no cursor.
// Safe for concurrent use, except Close.
type File interface {
	io.ReaderAt
	io.WriterAt
	// WriteVAt writes the buffers one after another from off on, as one call
	// where the system can; it does not change bufs.
	WriteVAt(bufs [][]byte, off int64) (int64, error)
	Size() (int64, error)
	Truncate(size int64) error
	// Allocate reserves n bytes from off on without changing what is read; the
	// file grows to off+n where it is shorter, and what it grew by reads as zeros.
	// Where the system cannot reserve, the file grows only. Nothing may write
	// beyond the file's end meanwhile.
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

// Starter is a file that can begin to write to disk what a Sync will wait for. That
// makes nothing durable and reports no errors: Sync does both. Only files of OS may
// implement it.
type Starter interface {
	StartSync(off, n int64)
}

// Director is a file system that can write around the page cache. What OpenDirect
// returns takes whole blocks of DirectBlock bytes only, at multiples of that, from
// memory that Aligned made; a file system below may refuse either call, and then the
// same bytes can be written through Open's file. Only OS may implement it.
type Director interface {
	OpenDirect(name string) (File, error)
}

// DirectBlock is what positions, lengths and addresses of direct writes are multiples of.
const DirectBlock = 4096

// Aligned makes a buffer for direct writes.
func Aligned(n int) []byte {
	b := make([]byte, n+DirectBlock)
	off := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (DirectBlock - 1)
	return b[off : off+n : off+n]
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
