package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
)

// OS is the file system of the operating system.
type OS struct{}

var (
	_ FS         = OS{}
	_ Locker     = OS{}
	_ Linker     = OS{}
	_ Descriptor = (*osFile)(nil)
)

// Open opens a file.
func (OS) Open(name string, mode Mode) (File, error) {
	flag := os.O_RDWR
	switch mode {
	case Existing:
	case ReadOnly:
		flag = os.O_RDONLY
	case Create:
		flag |= os.O_CREATE
	case Fresh, Secret:
		flag |= os.O_CREATE | os.O_TRUNC
	}
	f, err := openFile(filepath.FromSlash(name), flag)
	if err != nil {
		return nil, translateError(err)
	}
	if mode == Secret { // the file is empty yet
		if err := f.Chmod(0o600); err != nil {
			return nil, errors.Join(translateError(err), f.Close())
		}
	}
	return &osFile{f: f, fd: f.Fd()}, nil
}

// Remove deletes a file or a directory tree.
func (OS) Remove(name string) error { return translateError(os.RemoveAll(filepath.FromSlash(name))) }

// Rename moves a file or directory.
func (OS) Rename(from, to string) error {
	return translateError(os.Rename(filepath.FromSlash(from), filepath.FromSlash(to)))
}

// Link gives a file another name.
func (OS) Link(name, another string) error {
	return translateError(os.Link(filepath.FromSlash(name), filepath.FromSlash(another)))
}

// MkdirAll makes a directory and its missing parents.
func (OS) MkdirAll(dir string) error {
	return translateError(os.MkdirAll(filepath.FromSlash(dir), 0o750))
}

// ReadDir lists a directory.
func (OS) ReadDir(dir string) ([]Info, error) {
	entries, err := os.ReadDir(filepath.FromSlash(dir))
	if err != nil {
		return nil, translateError(err)
	}
	infos := make([]Info, 0, len(entries))
	for _, e := range entries {
		if e.IsDir() { // the name is enough: a system call for each of thousands of directories takes long
			infos = append(infos, Info{Name: e.Name(), Dir: true})
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since the directory was read
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, infoOf(info))
	}
	return infos, nil
}

// Stat describes a file or directory.
func (OS) Stat(name string) (Info, error) {
	info, err := os.Stat(filepath.FromSlash(name))
	if err != nil {
		return Info{}, err
	}
	return infoOf(info), nil
}

// SyncDir makes changes of a directory durable, if the system has a call for it.
func (OS) SyncDir(dir string) error { return translateError(syncDir(filepath.FromSlash(dir))) }

// Free returns the space that is left for this user, and the size of the file system.
func (OS) Free(dir string) (avail, total int64, err error) { return freeSpace(filepath.FromSlash(dir)) }

// Lock takes the lock on the named file.
func (OS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.FromSlash(name), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, translateError(err)
	}
	if err := lockFile(f); err != nil {
		f.Close() //nolint:errcheck // nothing was written, and err says more
		return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	return f, nil
}

func infoOf(info fs.FileInfo) Info {
	i := Info{Name: info.Name(), Dir: info.IsDir()}
	if !i.Dir {
		i.Size = info.Size()
	}
	return i
}

// translateError makes every error by which the system reports that there is no space an
// ErrNoSpace, too, and every one for too many open files an ErrNoHandles.
func translateError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoSpace) || isNoSpace(err):
		return &translatedError{err, []error{err, ErrNoSpace, syscall.ENOSPC}}
	case errors.Is(err, ErrNoHandles) || isNoHandles(err):
		return &translatedError{err, []error{err, ErrNoHandles}}
	}
	return err
}

// translatedError is an error of the system that is also one of this package's errors.
type translatedError struct {
	err error
	is  []error
}

func (e *translatedError) Error() string   { return e.err.Error() }
func (e *translatedError) Unwrap() []error { return e.is }

// osFile is a file of OS. ReadAt, WriteVAt, Allocate and Sync differ between systems and
// are in their files.
type osFile struct {
	f  *os.File
	fd uintptr // of f, valid until Close

	noWaitFails atomic.Bool // the file system cannot read from the page cache only
}

func (f *osFile) Fd() uintptr { return f.fd }

func (f *osFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.f.WriteAt(b, off)
	return n, translateError(err)
}

func (f *osFile) Size() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *osFile) Truncate(size int64) error { return translateError(f.f.Truncate(size)) }

func (f *osFile) Close() error { return f.f.Close() }

// growTo lengthens the file to at least size, with zeros.
func (f *osFile) growTo(size int64) error {
	have, err := f.Size()
	if err != nil || have >= size {
		return err
	}
	return f.Truncate(size)
}
