package vfs

import (
	"errors"
	"io"
)

// Op is a kind of call that a Hook judges.
type Op uint8

// The calls of FS, Locker and File. Reading is OpRead, both ways of writing are
// OpWrite. What only asks an open file (Size, Fd) is never judged.
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
)

// String is the call's name.
func (o Op) String() string {
	return [...]string{
		"open", "remove", "rename", "mkdir", "readdir", "stat", "syncdir", "free", "lock",
		"read", "write", "truncate", "allocate", "sync", "close",
	}[o]
}

// Changes tells whether the call may change what a crash leaves, so that a test
// that cuts the power before each such call meets every state there is.
func (o Op) Changes() bool {
	switch o {
	case OpReadDir, OpStat, OpFree, OpRead, OpClose:
		return false
	default:
		return true
	}
}

// Hook decides what becomes of a call before it is made: nil lets it pass, an
// error is returned in its place. It may block, and the call hangs as long. Path
// is the name that the file was opened by (for Rename the old one). It is called
// from any goroutine.
type Hook func(op Op, path string) error

// ShortWriteError is an error with which a Hook lets the first N bytes of a write
// through; the write then fails with Err.
type ShortWriteError struct {
	N   int64
	Err error
}

func (e *ShortWriteError) Error() string { return "short write: " + e.Err.Error() }
func (e *ShortWriteError) Unwrap() error { return e.Err }

// Faulty is a file system whose calls fail as its hook says. After a Sync that
// failed, files and directories of Mem behave as on Linux: what was not synced is
// lost to the disk though reads see it, and a later Sync does not bring it back.
// Only a SyncDir that found no handle did not begin, and loses nothing.
type Faulty struct {
	fs   FS
	hook Hook
}

// NewFaulty wraps fs.
func NewFaulty(fs FS, hook Hook) *Faulty { return &Faulty{fs: fs, hook: hook} }

var (
	_ FS      = (*Faulty)(nil)
	_ Locker  = (*Faulty)(nil)
	_ Volumer = (*Faulty)(nil)
)

func (f *Faulty) judge(op Op, path string) error {
	if err := f.hook(op, path); err != nil {
		return fail(op.String(), path, err)
	}
	return nil
}

// Open opens a file.
func (f *Faulty) Open(name string, mode Mode) (File, error) {
	if err := f.judge(OpOpen, name); err != nil {
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
	if err := f.judge(OpRemove, name); err != nil {
		return err
	}
	return f.fs.Remove(name)
}

// Rename moves a file or directory.
func (f *Faulty) Rename(from, to string) error {
	if err := f.judge(OpRename, from); err != nil {
		return err
	}
	return f.fs.Rename(from, to)
}

// MkdirAll makes a directory and its missing parents.
func (f *Faulty) MkdirAll(dir string) error {
	if err := f.judge(OpMkdir, dir); err != nil {
		return err
	}
	return f.fs.MkdirAll(dir)
}

// ReadDir lists a directory.
func (f *Faulty) ReadDir(dir string) ([]Info, error) {
	if err := f.judge(OpReadDir, dir); err != nil {
		return nil, err
	}
	return f.fs.ReadDir(dir)
}

// Stat describes a file or directory.
func (f *Faulty) Stat(name string) (Info, error) {
	if err := f.judge(OpStat, name); err != nil {
		return Info{}, err
	}
	return f.fs.Stat(name)
}

// SyncDir makes the changes of a directory durable.
func (f *Faulty) SyncDir(dir string) error {
	if err := f.judge(OpSyncDir, dir); err != nil {
		if mem, ok := f.fs.(*Mem); ok && !errors.Is(err, ErrNoHandles) {
			mem.loseDir(dir)
		}
		return err
	}
	return f.fs.SyncDir(dir)
}

// Free tells the space left.
func (f *Faulty) Free(dir string) (avail, total int64, err error) {
	if err := f.judge(OpFree, dir); err != nil {
		return 0, 0, err
	}
	return f.fs.Free(dir)
}

// Lock takes a lock of the wrapped file system; it panics where that is no Locker.
func (f *Faulty) Lock(name string) (io.Closer, error) {
	if err := f.judge(OpLock, name); err != nil {
		return nil, err
	}
	locker, ok := f.fs.(Locker)
	if !ok {
		panic("BUG: Lock on a file system without locks")
	}
	return locker.Lock(name)
}

// Volume is the wrapped file system's. Its Sync is judged as that of the directory;
// where that fails, files of Mem behave as on Linux: see loseAll.
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
		if err := f.judge(OpSync, dir); err != nil {
			if mem, ok := f.fs.(*Mem); ok {
				mem.loseAll()
			}
			return err
		}
		return v.sync()
	}}, nil
}

// faultyFile is a file of Faulty. It embeds the wrapped file for Size only.
type faultyFile struct {
	File
	fs   *Faulty
	name string
}

// loser is a file that can lose its changes as after a failed sync.
type loser interface{ lose() }

func (f *faultyFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.fs.judge(OpRead, f.name); err != nil {
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
	return done, fail(OpWrite.String(), f.name, err)
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.fs.judge(OpTruncate, f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *faultyFile) Allocate(off, n int64) error {
	if err := f.fs.judge(OpAllocate, f.name); err != nil {
		return err
	}
	return f.File.Allocate(off, n)
}

func (f *faultyFile) Sync() error {
	if err := f.fs.judge(OpSync, f.name); err != nil {
		if l, ok := f.File.(loser); ok {
			l.lose()
		}
		return err
	}
	return f.File.Sync()
}

// Close closes the wrapped file even where the hook makes it fail, as close(2) does.
func (f *faultyFile) Close() error {
	err := f.fs.judge(OpClose, f.name)
	if closeErr := f.File.Close(); err == nil {
		err = closeErr
	}
	return err
}
