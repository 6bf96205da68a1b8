//go:build linux && !portable

package socket

import (
	"errors"

	"golang.org/x/sys/unix"
)

// SharesThreads tells whether one thread can serve many connections.
const SharesThreads = true

// eventsAtOnce is the largest number of connections that one wake-up serves.
const eventsAtOnce = 128

// Watch calls ready(i), in the caller's thread, whenever bytes of sockets[i] can be read, until
// open of them are done. ready must return done once for each socket.
func Watch(sockets []*Socket, open int, ready func(i int) (done bool, err error)) (err error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(poll)) }()
	for i, s := range sockets {
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
		if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, s.fd, &event); err != nil {
			return err
		}
	}
	events := make([]unix.EpollEvent, eventsAtOnce)
	for open > 0 {
		n, err := unix.EpollWait(poll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		for _, e := range events[:max(0, n)] {
			done, err := ready(int(e.Fd))
			if err != nil {
				return err
			}
			if done {
				open--
			}
		}
	}
	return nil
}
