//go:build linux && !portable

package bench

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

// socket is a blocking socket for one reader and one writer, each in its own
// thread: a wake-up then costs a futex less than through Go's poller.
type socket struct {
	fd  int
	low int            // SO_RCVLOWAT
	fds [1]unix.PollFd // the reader's
}

// newSocket takes the connection away from Go's poller.
func newSocket(c *net.TCPConn, congestion string) (*socket, error) {
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
	return &socket{fd: fd, low: 1}, errors.Join(err, f.Close(), c.Close())
}

// ownThread ties the goroutine to a thread of its own, which ends with it.
func ownThread() { runtime.LockOSThread() }

func (s *socket) write(b []byte) error {
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

// read reads what has come, at least a byte.
func (s *socket) read(b []byte) (int, error) {
	return recv(s.fd, unsafe.Pointer(unsafe.SliceData(b)), len(b), 0)
}

// wait waits for something to take, and where setLow was called for so much that
// one wake-up brings many answers. It may end earlier.
func (s *socket) wait() error {
	s.fds[0] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN}
	if _, err := unix.Poll(s.fds[:], -1); err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	return nil
}

// take reads what has come, maybe nothing. A recv that waits would take what is
// there and then wait for as much again as setLow says.
func (s *socket) take(b []byte) (int, error) {
	n, err := recv(s.fd, unsafe.Pointer(unsafe.SliceData(b)), len(b), unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EAGAIN) {
		return 0, nil
	}
	return n, err
}

// setLow sets for how many bytes wait waits.
func (s *socket) setLow(n int) error {
	if n = max(n, 1); n == s.low {
		return nil
	}
	s.low = n
	return unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n)
}

// discard reads n bytes that nobody wants to see; the kernel does not copy them.
func (s *socket) discard(n int) error {
	for n > 0 {
		k, err := recv(s.fd, nil, n, unix.MSG_TRUNC)
		if err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// recv returns io.EOF where the other side has ended.
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

// shutdown ends reads and writes of other threads.
func (s *socket) shutdown() { _ = unix.Shutdown(s.fd, unix.SHUT_RDWR) }

func (s *socket) close() { _ = unix.Close(s.fd) }

// preciseSleep waits until a time. Go's timers would wait whole milliseconds.
func preciseSleep(until time.Time) {
	for {
		d := time.Until(until)
		if d <= 0 {
			return
		}
		ts := unix.NsecToTimespec(int64(d))
		_ = unix.Nanosleep(&ts, nil) // where it is cut short the loop goes on
	}
}

// sharpTimers makes preciseSleep in this thread precise: the kernel may otherwise
// wait 50 us longer to save wake-ups.
func sharpTimers() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) }
