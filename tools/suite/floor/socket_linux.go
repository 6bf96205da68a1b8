package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// newSocket makes a connection ready to be served by this goroutine, in a thread of
// its own or not, until end is called.
func newSocket(tcp *net.TCPConn, cfg *config, thread bool) (s socket, end func(), err error) { //nolint:ireturn // there are two kinds
	raw, err := tcp.SyscallConn()
	if err == nil && cfg.congestion != "" {
		err = errors.Join(raw.Control(func(fd uintptr) {
			if err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, cfg.congestion); err != nil {
				err = fmt.Errorf("-cc %s: %w", cfg.congestion, err)
			}
		}), err)
	}
	if err != nil {
		return nil, nil, errors.Join(err, tcp.Close())
	}
	if !thread {
		return &polled{tcp, raw}, func() { tcp.Close() }, nil //nolint:errcheck // nothing depends on it
	}
	f, err := tcp.File()
	if err != nil {
		return nil, nil, errors.Join(err, tcp.Close())
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err = errors.Join(err, f.Close(), tcp.Close()); err != nil {
		return nil, nil, err
	}
	runtime.LockOSThread()
	return blocking(fd), func() {
		runtime.UnlockOSThread()
		unix.Close(fd) //nolint:errcheck // nothing depends on it
	}, nil
}

// blocking is a socket in a thread of its own, which the kernel wakes without
// Go's poller and scheduler in between.
type blocking int

func (s blocking) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(s), b)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (s blocking) Write(b []byte) (int, error) {
	for done := 0; ; {
		n, err := unix.Write(int(s), b[done:])
		if err != nil && !errors.Is(err, unix.EINTR) {
			return done, err
		}
		if done += max(0, n); done == len(b) {
			return done, nil
		}
	}
}

func (s blocking) sendfile(fd int, off, n int64) error {
	for n > 0 {
		k, err := unix.Sendfile(int(s), fd, &off, int(n))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		n -= int64(max(0, k))
	}
	return nil
}

// polled is a socket of Go's.
type polled struct {
	*net.TCPConn
	raw syscall.RawConn
}

func (s *polled) sendfile(fd int, off, n int64) (err error) {
	waitErr := s.raw.Write(func(sock uintptr) bool {
		for n > 0 {
			var k int
			k, err = unix.Sendfile(int(sock), fd, &off, int(n))
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				err = nil
				return false
			case err != nil:
				return true
			}
			n -= int64(max(0, k))
		}
		return true
	})
	return errors.Join(err, waitErr)
}
