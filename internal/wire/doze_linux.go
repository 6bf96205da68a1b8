//go:build linux && !portable

package wire

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dozeBatch is how many connections one look at the dozer's events may wake.
const dozeBatch = 64

// dozer waits for what idle connections bring, for all of them by one goroutine.
// A goroutine of its own costs a connection 8 KiB of stack; one that dozes takes
// 2.5 KB in all instead of 10 (TestIdleMemory). Busy connections never come here.
type dozer struct {
	srv  *Server
	file *os.File // an epoll instance, watched by the runtime's poller as any file
	rc   syscall.RawConn

	events [dozeBatch]unix.EpollEvent // of run
	n      int

	mu    sync.Mutex
	conns map[int32]*Conn // by descriptor: those that have dozed at least once; guarded by mu
}

func newDozer(s *Server) (*dozer, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(fd))
	}
	d := &dozer{srv: s, file: os.NewFile(uintptr(fd), "epoll"), conns: map[int32]*Conn{}}
	if d.rc, err = d.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, d.file.Close())
	}
	return d, nil
}

// run wakes connections until the dozer is closed.
func (d *dozer) run() {
	for {
		err := d.rc.Read(func(fd uintptr) bool {
			n, err := unix.EpollWait(int(fd), d.events[:], 0)
			d.n = max(n, 0)
			return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
		})
		if err != nil {
			return // closed
		}
		for _, e := range d.events[:d.n] {
			d.mu.Lock()
			c := d.conns[e.Fd]
			d.mu.Unlock()
			if c != nil { // an event of a descriptor that is another's by now does no harm
				c.wake()
			}
		}
	}
}

// learn notes the connection's descriptor.
func (d *dozer) learn(fd int32, c *Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns[fd] = c
}

func (d *dozer) forget(fd int32, c *Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conns[fd] == c { // else it is another's by now
		delete(d.conns, fd)
	}
}

func (d *dozer) close() error { return d.file.Close() }

// watch has the dozer wake the connection, once. op says whether it was watched before.
func (d *dozer) watch(rc syscall.RawConn, op int) error {
	var err, inner error
	outer := d.rc.Control(func(ep uintptr) {
		inner = rc.Control(func(fd uintptr) {
			ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(fd)}
			err = unix.EpollCtl(int(ep), op, int(fd), &ev)
		})
	})
	return errors.Join(outer, inner, err)
}

// drowse ends the connection's waiting for requests; its goroutine then lets it doze.
func (s *rawSocket) drowse() {
	_ = s.c.nc.SetReadDeadline(time.Unix(1, 0)) // of a closed connection: it is not waiting
}

// doze is called when the wait for requests was ended. It tells whether the
// connection is left to the dozer; where it is not, it is read on.
func (s *rawSocket) doze() (asleep bool, err error) {
	c := s.c
	if err := c.nc.SetReadDeadline(time.Time{}); err != nil {
		return false, err
	}
	if c.srv.stopping.Load() { // the deadline may have been that of Shutdown
		return false, errShutdown
	}
	c.park()
	d := c.srv.dozer()
	if d == nil || c.in != nil || !s.dozes {
		return false, nil
	}
	op := unix.EPOLL_CTL_MOD
	if s.fd < 0 {
		op = unix.EPOLL_CTL_ADD
		if err := s.rc.Control(func(fd uintptr) { s.fd = int32(fd) }); err != nil {
			return false, err
		}
		d.learn(s.fd, c)
	}
	// Once it dozes everything belongs to who wakes it, which may be at once.
	rc := s.rc
	c.srv.shelve(c, true)
	if !c.nod() {
		c.srv.shelve(c, false)
		return false, nil
	}
	if d.watch(rc, op) == nil || !c.rouse() {
		return true, nil
	}
	c.srv.shelve(c, false)
	s.dozes = false // it is not tried again
	return false, nil
}

// forget ends the dozer's interest in the connection.
func (s *rawSocket) forget() {
	if s.fd >= 0 {
		s.c.srv.dozer().forget(s.fd, s.c)
	}
}
