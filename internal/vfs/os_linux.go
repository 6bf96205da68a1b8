//go:build linux && !portable

package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxParts is how many buffers one pwritev takes (UIO_MAXIOV).
const maxParts = 1024

// iovecs keeps the arrays that WriteVAt passes to the kernel, for the next call.
var iovecs = sync.Pool{New: func() any { return new([]unix.Iovec) }}

// BootID is an id of the kernel's run. The page cache survives as long as it stays the
// same. It is "" if the system does not tell.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// ReadAt reads the bytes that are in the page cache on this goroutine, and the others on
// a goroutine of their own. A goroutine that is in a long system call may keep Go's
// scheduler from looking at the network for 10 ms and more. With few processors this
// would delay all connections (leat bench latency beside a cold consume).
func (f *osFile) ReadAt(b []byte, off int64) (int, error) {
	done := 0
	for done < len(b) && off >= 0 && !f.noWaitFails.Load() {
		n, errno := preadNow(f.fd, b[done:], off+int64(done))
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			n, err := f.readInGoroutine(b[done:], off+int64(done))
			return done + n, err
		case errno != 0: // not supported; any other error comes again from the plain read
			f.noWaitFails.Store(true)
		case n == 0:
			return done, io.EOF
		default:
			done += n
		}
	}
	runtime.KeepAlive(f.f)
	if done == len(b) {
		return done, nil
	}
	n, err := f.f.ReadAt(b[done:], off+int64(done))
	return done + n, err
}

// readInGoroutine reads in a goroutine of its own, so that this one waits in the
// scheduler and not in a system call.
func (f *osFile) readInGoroutine(b []byte, off int64) (n int, err error) {
	var wg sync.WaitGroup
	wg.Go(func() { n, err = f.f.ReadAt(b, off) })
	wg.Wait()
	return n, err
}

// preadNow reads the bytes that are in the page cache, with one system call;
// unix.Preadv2 would allocate memory.
func preadNow(fd uintptr, b []byte, off int64) (int, unix.Errno) {
	iov := unix.Iovec{Base: unsafe.SliceData(b)}
	iov.SetLen(len(b))
	n, _, errno := unix.Syscall6(unix.SYS_PREADV2, fd, uintptr(unsafe.Pointer(&iov)), 1,
		uintptr(off), uintptr(uint64(off)>>32>>(unsafe.Sizeof(fd)*8-32)), unix.RWF_NOWAIT)
	return int(n), errno
}

func (f *osFile) WriteVAt(bufs [][]byte, off int64) (int64, error) {
	if len(bufs) == 1 {
		n, err := f.WriteAt(bufs[0], off)
		return int64(n), err
	}
	v, _ := iovecs.Get().(*[]unix.Iovec)
	defer func() {
		clear(*v) // the pool must not keep the caller's buffers alive
		*v = (*v)[:0]
		iovecs.Put(v)
	}()
	for _, b := range bufs {
		if len(b) > 0 {
			iov := unix.Iovec{Base: unsafe.SliceData(b)}
			iov.SetLen(len(b))
			*v = append(*v, iov)
		}
	}
	var done int64
	for rest := *v; len(rest) > 0; {
		n, err := pwritev(f.fd, rest[:min(len(rest), maxParts)], off+done)
		done += n
		if err != nil {
			return done, &fs.PathError{Op: "pwritev", Path: f.f.Name(), Err: translateError(err)}
		}
		rest = dropWritten(rest, n)
	}
	runtime.KeepAlive(f.f)
	return done, nil
}

// pwritev makes one system call; unix.Pwritev would allocate memory for more than eight
// parts.
func pwritev(fd uintptr, v []unix.Iovec, off int64) (int64, error) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_PWRITEV, fd,
			uintptr(unsafe.Pointer(unsafe.SliceData(v))), uintptr(len(v)),
			uintptr(off), uintptr(uint64(off)>>32>>(unsafe.Sizeof(fd)*8-32)), 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, unix.EIO // else a write that writes nothing and does not fail would loop for ever
		default:
			return int64(n), nil
		}
	}
}

// dropWritten removes the first n bytes from v.
func dropWritten(v []unix.Iovec, n int64) []unix.Iovec {
	for n > 0 && n >= int64(v[0].Len) {
		n -= int64(v[0].Len)
		v = v[1:]
	}
	if n > 0 {
		v[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(v[0].Base), n))
		v[0].SetLen(int(int64(v[0].Len) - n))
	}
	return v
}

func (f *osFile) Allocate(off, n int64) error {
	err := retryInterrupted(func() error { return unix.Fallocate(int(f.fd), 0, off, n) })
	runtime.KeepAlive(f.f)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.growTo(off + n)
	}
	if err != nil {
		return &fs.PathError{Op: "fallocate", Path: f.f.Name(), Err: translateError(err)}
	}
	return nil
}

var (
	_ Starter  = (*osFile)(nil)
	_ Director = OS{}
)

// OpenDirect opens a file that must exist, for direct writes.
func (OS) OpenDirect(name string) (File, error) {
	f, err := openFile(filepath.FromSlash(name), os.O_RDWR|unix.O_DIRECT)
	if err != nil {
		return nil, translateError(err)
	}
	return &osFile{f: f, fd: f.Fd()}, nil
}

// StartSync begins to write a range to disk.
func (f *osFile) StartSync(off, n int64) {
	_ = unix.SyncFileRange(int(f.fd), off, n, unix.SYNC_FILE_RANGE_WRITE) // a hint: Sync reports errors
	runtime.KeepAlive(f.f)
}

func (f *osFile) Sync() error {
	err := retryInterrupted(func() error { return unix.Fdatasync(int(f.fd)) })
	runtime.KeepAlive(f.f)
	if err != nil {
		return &fs.PathError{Op: "fdatasync", Path: f.f.Name(), Err: translateError(err)}
	}
	return nil
}

// syncfsTells is the first version of the kernel whose syncfs reports failed writes.
var syncfsTells = [2]int{5, 8}

// Volume returns the volume that a directory is on, if it is a file system that is known
// to make everything durable by syncfs and to report failures.
func (OS) Volume(dir string) (*Volume, error) {
	var u unix.Utsname
	var st unix.Statfs_t
	if err := errors.Join(unix.Uname(&u), retryInterrupted(func() error { return unix.Statfs(dir, &st) })); err != nil {
		return nil, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	unknown := err != nil || major < syncfsTells[0] || major == syncfsTells[0] && minor < syncfsTells[1]
	switch uint32(st.Type) { // its type differs between systems
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC:
	default:
		unknown = true
	}
	if unknown {
		return nil, ErrNoVolume
	}
	f, err := os.Open(dir) // syncfs reports failures since this call
	if err != nil {
		return nil, translateError(err)
	}
	fd := int(f.Fd())
	return &Volume{close: f.Close, sync: func() error {
		err := retryInterrupted(func() error { return unix.Syncfs(fd) })
		runtime.KeepAlive(f)
		if err != nil {
			return &fs.PathError{Op: "syncfs", Path: dir, Err: translateError(err)}
		}
		return nil
	}}, nil
}

// retryInterrupted makes a system call again as long as signals interrupt it.
func retryInterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
