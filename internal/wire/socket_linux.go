//go:build linux && !portable

package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attach chooses the socket for the connection.
func (c *Conn) attach() error {
	switch nc := c.nc.(type) {
	case *net.TCPConn:
		return c.attachRaw(nc)
	case *net.UnixConn:
		return c.attachRaw(nc)
	default:
		c.sock = &plainSocket{nc: c.nc}
		return nil
	}
}

func (c *Conn) attachRaw(nc syscall.Conn) error {
	rc, err := nc.SyscallConn()
	if err != nil {
		return err
	}
	s := &rawSocket{c: c, rc: rc, fd: -1, dozes: true}
	s.ready = s.readReady
	c.sock = s
	return nil
}

// rawSocket works on the file descriptor when the runtime's poller says that it
// is ready. So no buffer is held while waiting, one call sends many pieces, files
// are sent without passing through memory, and a full socket can be noticed
// without waiting.
type rawSocket struct {
	c     *Conn
	rc    syscall.RawConn
	ready func(fd uintptr) bool // readReady; made once

	// What readReady found. They belong to the connection's goroutine.
	err   error
	short bool // of memory

	// They belong to the connection's goroutine.
	fd    int32 // as the dozer knows it; -1: it does not
	dozes bool  // it can be left to the dozer
}

func (s *rawSocket) read(c *Conn) error {
	for {
		s.err, s.short = nil, false
		if err := s.rc.Read(s.ready); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
			asleep, err := s.doze()
			switch {
			case asleep:
				return errDozes
			case err != nil:
				return err
			}
			continue
		}
		if !s.short {
			return s.err
		}
		if err := c.awaitMemory(); err != nil {
			return err
		}
	}
}

// readReady reads when there is something to be read; false makes the poller
// wait. A first read tries its luck, so that a busy connection keeps its buffer.
func (s *rawSocket) readReady(fd uintptr) bool {
	c := s.c
	if !c.room() {
		s.short = true
		return true
	}
	for {
		n, err := syscall.Read(int(fd), c.in[c.b:])
		switch {
		case n > 0:
			c.got(n)
			return true
		case n == 0 && err == nil:
			s.err = io.EOF
			return true
		case err == syscall.EAGAIN:
			c.park()
			c.srv.stir()
			return false
		case err != syscall.EINTR:
			s.err = err
			return true
		}
	}
}

func (*rawSocket) tries() bool { return true }
func (*rawSocket) files() bool { return true }

// sysWriter is what a writer needs for system calls.
type sysWriter struct {
	iov   [maxPieces]unix.Iovec
	msg   unix.Msghdr
	ready func(fd uintptr) bool // sendReady; made once
	sent  int
	err   error
}

func (s *rawSocket) send(w *writer) (int, error) {
	y := &w.sys
	if y.ready == nil {
		y.ready = w.sendReady
	}
	y.sent, y.err = 0, nil
	if err := s.rc.Write(y.ready); err != nil {
		return y.sent, err
	}
	return y.sent, y.err
}

// sendReady sends what was gathered without waiting. It always returns true: the
// poller must not wait here.
func (w *writer) sendReady(fd uintptr) bool {
	y := &w.sys
	want := 0
	for _, b := range w.pieces {
		want += len(b)
	}
	if want > 0 {
		y.sent, y.err = w.sendPieces(int(fd))
		if y.err == nil && y.sent < want {
			y.err = errAgain
		}
	}
	switch {
	case w.n == 0 || y.err != nil:
	case !w.mayNap && isCold(int(w.file), w.off+int64(w.n)-1):
		y.err = errCold
	default:
		w.sendFile(int(fd))
	}
	return true
}

// isCold tells whether a read at a position of a file would wait for the disk. Where
// the end of a section is there, all of it is, nearly always: files are read in order.
// Who waits for the disk must be a goroutine that was started for it, which makes the
// scheduler look after the others: else nobody may look at the network for 10 ms and
// more (leat bench latency beside a cold consume).
func isCold(fd int, pos int64) bool {
	var b [1]byte
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(1)
	_, _, e := unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1,
		uintptr(pos), uintptr(uint64(pos)>>32>>(unsafe.Sizeof(uintptr(0))*8-32)), unix.RWF_NOWAIT)
	return e == unix.EAGAIN
}

func (w *writer) sendPieces(fd int) (int, error) {
	if len(w.pieces) == 1 && w.n == 0 {
		for {
			n, err := syscall.Write(fd, w.pieces[0])
			if err != syscall.EINTR {
				return max(n, 0), again(err)
			}
		}
	}
	y := &w.sys
	for i, b := range w.pieces {
		y.iov[i].Base = unsafe.SliceData(b)
		y.iov[i].SetLen(len(b))
	}
	y.msg.Iov = &y.iov[0]
	y.msg.SetIovlen(len(w.pieces))
	flags := unix.MSG_NOSIGNAL
	if w.n > 0 {
		flags |= unix.MSG_MORE // the file's bytes go into the same packets
	}
	for {
		// x/sys has no call for this that takes flags and allocates nothing.
		n, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&y.msg)), uintptr(flags))
		if e == 0 {
			clear(y.iov[:len(w.pieces)])
			return int(n), nil
		}
		if e != unix.EINTR {
			clear(y.iov[:len(w.pieces)])
			return 0, again(e)
		}
	}
}

func (w *writer) sendFile(fd int) {
	y := &w.sys
	for w.n > 0 {
		n, err := unix.Sendfile(fd, int(w.file), &w.off, w.n)
		switch {
		case n > 0:
			y.sent += n
			w.n -= n
		case err == unix.EINTR:
		case err != nil:
			y.err = again(err)
			return
		default:
			y.err = errTruncated
			return
		}
	}
}

func again(err error) error {
	if errors.Is(err, syscall.EAGAIN) {
		return errAgain
	}
	return err
}

// waitRoom waits until the socket has room. It asks before it waits: the poller
// only tells of changes since the call began.
func (s *rawSocket) waitRoom() error {
	return s.rc.Write(func(fd uintptr) bool {
		p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p[:], 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

func (s *rawSocket) delivered() bool {
	left := 1
	err := s.rc.Control(func(fd uintptr) {
		if n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			left = n
		}
	})
	return err == nil && left == 0
}

// tune sets the connection's congestion control.
func (c *Conn) tune() error {
	tc, ok := c.nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	name := c.srv.cfg.Congestion
	if isLocal(tc) {
		name = c.srv.cfg.LocalCongestion
	}
	if name == "" {
		return nil
	}
	rc, err := tc.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = rc.Control(func(fd uintptr) {
		serr = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
	})
	if err == nil && serr != nil {
		err = fmt.Errorf("%s: %w", name, serr)
	}
	return err
}

// isLocal tells whether the client is on this machine: on the loopback, or on the
// address that it reached us on.
func isLocal(nc net.Conn) bool {
	ip := remoteIP(nc)
	here, ok := nc.LocalAddr().(*net.TCPAddr)
	return ip.IsLoopback() || ok && ip == here.AddrPort().Addr().Unmap()
}
