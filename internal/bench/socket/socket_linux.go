//go:build linux && !portable

package socket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is a blocking socket. Its reader and its writer have a thread each, so that a wake-up
// costs a futex less than with Go's poller.
type Socket struct {
	fd  int
	low int            // SO_RCVLOWAT
	fds [1]unix.PollFd // the reader's
}

// New makes a Socket of a connection, which it removes from Go's poller. congestion is its
// TCP_CONGESTION; "" means the system's.
func New(c *net.TCPConn, congestion string) (*Socket, error) {
	f, err := c.File()
	if err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err == nil && congestion != "" {
		if err = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion); err != nil {
			err = fmt.Errorf("--congestion %s: %w", congestion, err)
		}
	}
	return &Socket{fd: fd, low: 1}, errors.Join(err, f.Close(), c.Close())
}

// OwnThread gives the goroutine a thread of its own, which ends with it.
func OwnThread() { runtime.LockOSThread() }

// WriteAll writes all of b.
func (s *Socket) WriteAll(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(s.fd, b)
		if err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return err
		}
		b = b[n:]
	}
	return nil
}

// Read reads the bytes that have come, and waits for at least one.
func (s *Socket) Read(b []byte) (int, error) {
	return recv(s.fd, unsafe.Pointer(unsafe.SliceData(b)), len(b), 0)
}

// Wait waits until SetLowWater's number of bytes can be read. It may return earlier.
func (s *Socket) Wait() error {
	s.fds[0] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN}
	if _, err := unix.Poll(s.fds[:], -1); err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	return nil
}

// ReadAvailable reads the bytes that have come, and does not wait for any. A recv that waits
// would read them and then wait for SetLowWater's number of bytes.
func (s *Socket) ReadAvailable(b []byte) (int, error) {
	n, err := recv(s.fd, unsafe.Pointer(unsafe.SliceData(b)), len(b), unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EAGAIN) {
		return 0, nil
	}
	return n, err
}

// SetLowWater sets the number of bytes that Wait and Watch wait for, so that one wake-up can
// bring many answers.
func (s *Socket) SetLowWater(n int) error {
	if n = max(n, 1); n == s.low {
		return nil
	}
	s.low = n
	return unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n)
}

// Discard reads n bytes that are not wanted; the kernel does not copy them.
func (s *Socket) Discard(n int) error {
	for n > 0 {
		k, err := recv(s.fd, nil, n, unix.MSG_TRUNC)
		if err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// recv returns io.EOF if the other side has closed the connection.
func recv(fd int, p unsafe.Pointer, n, flags int) (int, error) {
	for {
		k, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(p), uintptr(n), uintptr(flags), 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return 0, errno
		case k == 0 && n > 0:
			return 0, io.EOF
		default:
			return int(k), nil
		}
	}
}

// Shutdown ends the reads and writes of other threads.
func (s *Socket) Shutdown() { _ = unix.Shutdown(s.fd, unix.SHUT_RDWR) }

// Close ends the connection; no other thread may use it any more.
func (s *Socket) Close() { _ = unix.Close(s.fd) }

// SleepUntil waits until a time. Go's timers would wait whole milliseconds.
func SleepUntil(until time.Time) {
	for {
		d := time.Until(until)
		if d <= 0 {
			return
		}
		ts := unix.NsecToTimespec(int64(d))
		_ = unix.Nanosleep(&ts, nil) // a signal may end it early: the loop goes on
	}
}

// SharpenTimers makes SleepUntil precise in this thread. Without it the kernel may wait 50 us
// longer, to save wake-ups.
func SharpenTimers() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) }
