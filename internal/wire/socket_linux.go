//go:build linux && !portable

package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newSocket chooses the socket for a connection.
func newSocket(nc net.Conn) (socket, error) { //nolint:ireturn // there are two kinds
	switch nc := nc.(type) {
	case *net.TCPConn:
		return newRawSocket(nc)
	case *net.UnixConn:
		return newRawSocket(nc)
	default:
		return &plainSocket{nc: nc}, nil
	}
}

// rawSocket makes system calls on the file descriptor when the runtime's poller says that it is
// ready. So it holds no buffer while it waits, sends many pieces with one call and files
// without reading them, and notices a full socket without waiting.
type rawSocket struct {
	rc    syscall.RawConn
	ready func(fd uintptr) bool // readReady as a function value, made once

	// The fields below belong to the connection's goroutine.
	in      *input         // the argument of read
	err     error          // the result of readReady
	short   bool           // readReady has found that memory is short
	watched *watchedSocket // the idle poller's entry; nil: it was never suspended
}

func newRawSocket(nc syscall.Conn) (*rawSocket, error) {
	rc, err := nc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &rawSocket{rc: rc}
	s.ready = s.readReady
	return s, nil
}

func (s *rawSocket) read(in *input) error {
	s.in = in
	for {
		s.err, s.short = nil, false
		if err := s.rc.Read(s.ready); err != nil {
			return err
		}
		if !s.short {
			return s.err
		}
		if err := in.awaitBuffer(); err != nil {
			return err
		}
	}
}

// readReady reads if there are bytes; if it returns false, the poller waits for them. It tries
// to read before the poller waits for the first time, so that a busy connection keeps its buffer.
func (s *rawSocket) readReady(fd uintptr) bool {
	if !s.in.makeRoom() {
		s.short = true
		return true
	}
	for {
		n, err := syscall.Read(int(fd), s.in.freeRoom())
		switch {
		case n > 0:
			s.in.addReceived(n)
			return true
		case n == 0 && err == nil:
			s.err = io.EOF
			return true
		case err == syscall.EAGAIN:
			s.in.prepareToWait()
			return false
		case err != syscall.EINTR:
			s.err = err
			return true
		}
	}
}

func (*rawSocket) isNonblocking() bool { return true }

func (*rawSocket) sendsFiles() bool { return true }

func (*rawSocket) sendEnd() {}

func (*rawSocket) heldBytes() int64 { return 0 }

func (*rawSocket) drop() {}

// sysBatch is the part of a batch for system calls.
type sysBatch struct {
	iov   [maxPieces]unix.Iovec
	msg   unix.Msghdr
	ready func(fd uintptr) bool // sendReady as a function value, made once
	sent  int
	err   error
}

func (s *rawSocket) send(b *sendBatch) (int, error) {
	y := &b.sys
	if y.ready == nil {
		y.ready = b.sendReady
	}
	y.sent, y.err = 0, nil
	if err := s.rc.Write(y.ready); err != nil {
		return y.sent, err
	}
	return y.sent, y.err
}

// sendReady sends the batch without waiting for the client. It always returns true, so that the
// poller does not wait either.
func (b *sendBatch) sendReady(fd uintptr) bool {
	y := &b.sys
	want := 0
	for _, piece := range b.pieces {
		want += len(piece)
	}
	if want > 0 {
		y.sent, y.err = b.sendPieces(int(fd))
		if y.err == nil && y.sent < want {
			y.err = errAgain
		}
	}
	switch {
	case b.fileLen == 0 || y.err != nil:
	case !b.mayWait && isCold(int(b.file), b.offset+int64(b.fileLen)-1):
		y.err = errCold
	default:
		b.sendFile(int(fd))
	}
	return true
}

// isCold tells whether a read at a position of a file would wait for the disk. If the end of a
// section is in the page cache, nearly always all of it is, since files are read in order.
//
// Only a goroutine that was started for it may wait for the disk. Starting it makes the
// scheduler find a thread for other goroutines; without that it may not look at the network
// for 10 ms and more (leat bench latency beside a cold consume).
func isCold(fd int, pos int64) bool {
	var b [1]byte
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(1)
	_, _, e := unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1,
		uintptr(pos), uintptr(uint64(pos)>>32>>(unsafe.Sizeof(uintptr(0))*8-32)), unix.RWF_NOWAIT)
	return e == unix.EAGAIN
}

func (b *sendBatch) sendPieces(fd int) (int, error) {
	if len(b.pieces) == 1 && b.fileLen == 0 {
		for {
			n, err := syscall.Write(fd, b.pieces[0])
			if err != syscall.EINTR {
				return max(n, 0), markAgain(err)
			}
		}
	}
	y := &b.sys
	for i, piece := range b.pieces {
		y.iov[i].Base = unsafe.SliceData(piece)
		y.iov[i].SetLen(len(piece))
	}
	y.msg.Iov = &y.iov[0]
	y.msg.SetIovlen(len(b.pieces))
	flags := unix.MSG_NOSIGNAL
	if b.fileLen > 0 {
		flags |= unix.MSG_MORE // the file's bytes go into the same packets
	}
	for {
		// x/sys has no call for this that takes flags and allocates nothing.
		n, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&y.msg)), uintptr(flags))
		if e == 0 {
			clear(y.iov[:len(b.pieces)])
			return int(n), nil
		}
		if e != unix.EINTR {
			clear(y.iov[:len(b.pieces)])
			return 0, markAgain(e)
		}
	}
}

func (b *sendBatch) sendFile(fd int) {
	y := &b.sys
	for b.fileLen > 0 {
		n, err := unix.Sendfile(fd, int(b.file), &b.offset, b.fileLen)
		switch {
		case n > 0:
			y.sent += n
			b.fileLen -= n
		case err == unix.EINTR:
		case err != nil:
			y.err = markAgain(err)
			return
		default:
			y.err = errTruncated
			return
		}
	}
}

// markAgain replaces the error of a full socket by errAgain.
func markAgain(err error) error {
	if errors.Is(err, syscall.EAGAIN) {
		return errAgain
	}
	return err
}

// awaitRoom waits until the socket has room. It asks the socket before it waits, since the
// poller reports only changes after the call has begun.
func (s *rawSocket) awaitRoom() error {
	return s.rc.Write(func(fd uintptr) bool {
		p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p[:], 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

func (s *rawSocket) isDelivered() bool {
	left := 1
	err := s.rc.Control(func(fd uintptr) {
		if n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			left = n
		}
	})
	return err == nil && left == 0
}

// setCongestion sets the connection's congestion control.
func setCongestion(nc net.Conn, name string) error {
	tc, ok := nc.(*net.TCPConn)
	if !ok || name == "" {
		return nil
	}
	err := setOption(tc, func(fd int) error { return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name) })
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// setUserTimeout bounds how long bytes that were sent may not be acknowledged, and how long the
// other end may have no room for more.
func setUserTimeout(tc *net.TCPConn, d time.Duration) error {
	return setOption(tc, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}

func setOption(tc *net.TCPConn, set func(fd int) error) error {
	rc, err := tc.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = rc.Control(func(fd uintptr) { inner = set(int(fd)) })
	return errors.Join(err, inner)
}
