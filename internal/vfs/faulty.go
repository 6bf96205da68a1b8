package vfs

import (
	"errors"
	"io"
)

// Op is a kind of call for which a Hook is called.
type Op uint8

// The calls of FS, Locker and File. WriteAt and WriteVAt are OpWrite. Size and Fd have no
// Op: no Hook is called for them.
const (
	OpOpen Op = iota
	OpRemove
	OpRename
	OpMkdir
	OpReadDir
	OpStat
	OpSyncDir
	OpFree
	OpLock
	OpRead
	OpWrite
	OpTruncate
	OpAllocate
	OpSync
	OpClose
	OpLink
)

// String is the call's name.
func (o Op) String() string {
	return [...]string{
		"open", "remove", "rename", "mkdir", "readdir", "stat", "syncdir", "free", "lock",
		"read", "write", "truncate", "allocate", "sync", "close", "link",
	}[o]
}

// Changes tells whether the call may change the state after a crash. A test that cuts
// the power before each such call meets every state.
func (o Op) Changes() bool {
	switch o {
	case OpReadDir, OpStat, OpFree, OpRead, OpClose:
		return false
	default:
		return true
	}
}

// Hook is called before a call is made. If it returns nil the call is made; if it
// returns an error the call fails with it. While it blocks, the call hangs. path is the
// name by which the file was opened, or the old name for Rename and Link. It is called by any
// goroutine.
type Hook func(op Op, path string) error

// ShortWriteError is an error with which a Hook has the first N bytes written before the
// write fails with Err.
type ShortWriteError struct {
	N   int64
	Err error
}

func (e *ShortWriteError) Error() string { return "short write: " + e.Err.Error() }
func (e *ShortWriteError) Unwrap() error { return e.Err }

// Faulty is a file system whose calls fail with the errors of its hook. After a Sync or a
// SyncDir that failed, files and directories of Mem behave as on Linux: reads see the
// changes, but no later sync makes them durable. A SyncDir that fails with ErrNoHandles
// loses nothing, since it has not begun.
type Faulty struct {
	fs   FS
	hook Hook
}

// NewFaulty wraps fs.
func NewFaulty(fs FS, hook Hook) *Faulty { return &Faulty{fs: fs, hook: hook} }

var (
	_ FS      = (*Faulty)(nil)
	_ Locker  = (*Faulty)(nil)
	_ Linker  = (*Faulty)(nil)
	_ Volumer = (*Faulty)(nil)
)

// callHook returns the hook's error for a call, as a *fs.PathError.
func (f *Faulty) callHook(op Op, path string) error {
	if err := f.hook(op, path); err != nil {
		return pathError(op.String(), path, err)
	}
	return nil
}

// Open opens a file.
func (f *Faulty) Open(name string, mode Mode) (File, error) {
	if err := f.callHook(OpOpen, name); err != nil {
		return nil, err
	}
	file, err := f.fs.Open(name, mode)
	if err != nil {
		return nil, err
	}
	return &faultyFile{File: file, fs: f, name: name}, nil
}

// Remove deletes a file or a directory tree.
func (f *Faulty) Remove(name string) error {
	if err := f.callHook(OpRemove, name); err != nil {
		return err
	}
	return f.fs.Remove(name)
}

// Rename moves a file or directory.
func (f *Faulty) Rename(from, to string) error {
	if err := f.callHook(OpRename, from); err != nil {
		return err
	}
	return f.fs.Rename(from, to)
}

// Link gives a file of the wrapped file system, which must be a Linker, another name.
func (f *Faulty) Link(name, another string) error {
	if err := f.callHook(OpLink, name); err != nil {
		return err
	}
	linker, ok := f.fs.(Linker)
	if !ok {
		panic("BUG: Link on a file system without links")
	}
	return linker.Link(name, another)
}

// MkdirAll makes a directory and its missing parents.
func (f *Faulty) MkdirAll(dir string) error {
	if err := f.callHook(OpMkdir, dir); err != nil {
		return err
	}
	return f.fs.MkdirAll(dir)
}

// ReadDir lists a directory.
func (f *Faulty) ReadDir(dir string) ([]Info, error) {
	if err := f.callHook(OpReadDir, dir); err != nil {
		return nil, err
	}
	return f.fs.ReadDir(dir)
}

// Stat describes a file or directory.
func (f *Faulty) Stat(name string) (Info, error) {
	if err := f.callHook(OpStat, name); err != nil {
		return Info{}, err
	}
	return f.fs.Stat(name)
}

// SyncDir makes the changes of a directory durable.
func (f *Faulty) SyncDir(dir string) error {
	if err := f.callHook(OpSyncDir, dir); err != nil {
		if mem, ok := f.fs.(*Mem); ok && !errors.Is(err, ErrNoHandles) {
			mem.loseDirOps(dir)
		}
		return err
	}
	return f.fs.SyncDir(dir)
}

// Free returns the space that is left.
func (f *Faulty) Free(dir string) (avail, total int64, err error) {
	if err := f.callHook(OpFree, dir); err != nil {
		return 0, 0, err
	}
	return f.fs.Free(dir)
}

// Lock takes a lock of the wrapped file system, which must be a Locker.
func (f *Faulty) Lock(name string) (io.Closer, error) {
	if err := f.callHook(OpLock, name); err != nil {
		return nil, err
	}
	locker, ok := f.fs.(Locker)
	if !ok {
		panic("BUG: Lock on a file system without locks")
	}
	return locker.Lock(name)
}

// Volume returns the wrapped file system's volume. The hook is called for its Sync with
// OpSync and the name of the directory. If that fails, files of Mem behave as on Linux:
// see loseAllPending.
func (f *Faulty) Volume(dir string) (*Volume, error) {
	volumes, ok := f.fs.(Volumer)
	if !ok {
		return nil, ErrNoVolume
	}
	v, err := volumes.Volume(dir)
	if err != nil {
		return nil, err
	}
	return &Volume{close: v.close, sync: func() error {
		if err := f.callHook(OpSync, dir); err != nil {
			if mem, ok := f.fs.(*Mem); ok {
				mem.loseAllPending()
			}
			return err
		}
		return v.sync()
	}}, nil
}

// faultyFile is a file of Faulty. Only Size is that of the embedded file.
type faultyFile struct {
	File
	fs   *Faulty
	name string
}

// failedSyncer is a file that can lose its changes as after a failed sync.
type failedSyncer interface{ losePending() }

func (f *faultyFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.fs.callHook(OpRead, f.name); err != nil {
		return 0, err
	}
	return f.File.ReadAt(b, off)
}

func (f *faultyFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.WriteVAt([][]byte{b}, off)
	return int(n), err
}

func (f *faultyFile) WriteVAt(bufs [][]byte, off int64) (int64, error) {
	err := f.fs.hook(OpWrite, f.name)
	if err == nil {
		return f.File.WriteVAt(bufs, off)
	}
	var done int64
	if short, ok := err.(*ShortWriteError); ok { //nolint:errorlint // a hook's own answer, never wrapped
		for _, b := range bufs {
			n, writeErr := f.File.WriteAt(b[:min(int64(len(b)), short.N-done)], off+done)
			done += int64(n)
			if writeErr != nil {
				return done, writeErr
			}
		}
		err = short.Err
	}
	return done, pathError(OpWrite.String(), f.name, err)
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.fs.callHook(OpTruncate, f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *faultyFile) Allocate(off, n int64) error {
	if err := f.fs.callHook(OpAllocate, f.name); err != nil {
		return err
	}
	return f.File.Allocate(off, n)
}

func (f *faultyFile) Sync() error {
	if err := f.fs.callHook(OpSync, f.name); err != nil {
		if l, ok := f.File.(failedSyncer); ok {
			l.losePending()
		}
		return err
	}
	return f.File.Sync()
}

// Close closes the wrapped file even if the hook makes it fail, as close(2) does.
func (f *faultyFile) Close() error {
	err := f.fs.callHook(OpClose, f.name)
	if closeErr := f.File.Close(); err == nil {
		err = closeErr
	}
	return err
}
