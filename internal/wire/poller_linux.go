//go:build linux && !portable

package wire

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// pollBatch is the largest number of events that one call of epoll_wait returns.
const pollBatch = 64

// idlePoller waits for bytes on all suspended connections, with one goroutine. A goroutine for
// each would have a stack of 8 KiB, which is most of an idle connection's memory
// (TestIdleMemory). Busy connections are never suspended.
type idlePoller struct {
	file *os.File // an epoll instance, watched by the runtime's poller as any file
	rc   syscall.RawConn

	events [pollBatch]unix.EpollEvent // used by wakeReady
	n      int                        // how many of events are set

	mu      sync.Mutex
	sockets map[int32]*watchedSocket // by descriptor: those that were suspended at least once; guarded by mu
}

// watchedSocket is a socket that the poller knows.
type watchedSocket struct {
	fd   int32
	wake func() // called when bytes have come, or the client has gone
}

func newIdlePoller() (*idlePoller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(fd))
	}
	p := &idlePoller{file: os.NewFile(uintptr(fd), "epoll"), sockets: map[int32]*watchedSocket{}}
	if p.rc, err = p.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, p.file.Close())
	}
	return p, nil
}

// wakeReady wakes connections until the poller is closed.
func (p *idlePoller) wakeReady() {
	for {
		err := p.rc.Read(func(fd uintptr) bool {
			n, err := unix.EpollWait(int(fd), p.events[:], 0)
			p.n = max(n, 0)
			return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
		})
		if err != nil {
			return // closed
		}
		for _, e := range p.events[:p.n] {
			p.mu.Lock()
			s := p.sockets[e.Fd]
			p.mu.Unlock()
			if s != nil { // if the descriptor belongs to another connection by now, waking that does no harm
				s.wake()
			}
		}
	}
}

// addSocket adds a socket, for which armSocket may be called from then on. wake is called when
// bytes have come after a call of armSocket; it may be called at other times too, and must do
// no harm then. addSocket returns false if the socket cannot be watched.
func (p *idlePoller) addSocket(sock socket, wake func()) bool {
	s := rawOf(sock)
	if s == nil {
		return false
	}
	if s.watched != nil {
		return true
	}
	w := &watchedSocket{wake: wake}
	err := s.rc.Control(func(fd uintptr) { w.fd = int32(fd) })
	if err != nil || !p.controlSocket(s, unix.EPOLL_CTL_ADD, 0) {
		return false
	}
	s.watched = w
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sockets[w.fd] = w
	return true
}

// armSocket has wake called once, when bytes come or if they have come already. Then the
// connection may belong to another goroutine before armSocket returns, so it uses only fields
// of the socket that never change. It returns false if the socket cannot be watched any more.
func (p *idlePoller) armSocket(sock socket) bool {
	s := rawOf(sock)
	return s != nil && p.controlSocket(s, unix.EPOLL_CTL_MOD, unix.EPOLLIN|unix.EPOLLRDHUP)
}

func (p *idlePoller) controlSocket(s *rawSocket, op int, events uint32) bool {
	var err, inner error
	outer := p.rc.Control(func(ep uintptr) {
		inner = s.rc.Control(func(fd uintptr) {
			ev := unix.EpollEvent{Events: events | unix.EPOLLONESHOT, Fd: int32(fd)}
			err = unix.EpollCtl(int(ep), op, int(fd), &ev)
		})
	})
	return outer == nil && inner == nil && err == nil
}

// removeSocket removes a socket.
func (p *idlePoller) removeSocket(sock socket) {
	s := rawOf(sock)
	if s == nil || s.watched == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sockets[s.watched.fd] == s.watched { // the descriptor may belong to another socket by now
		delete(p.sockets, s.watched.fd)
	}
}

func (p *idlePoller) close() error { return p.file.Close() }
