//go:build linux && !portable

package wire

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPeersAreWatched proves that the system looks after a peer's connection: it asks the other end
// while that is silent, and ends the connection where nothing is acknowledged.
func TestPeersAreWatched(t *testing.T) {
	options := make(chan [4]int, 1)
	_, addr := start(t, Config{Peers: peersOf(1, 1)}, &funcs{serve: proveOr(func(r *Request) error {
		rc, err := r.Conn.nc.(*net.TCPConn).SyscallConn()
		if err != nil {
			return err
		}
		var got [4]int
		err = rc.Control(func(fd uintptr) {
			for i, o := range []int{unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT, unix.TCP_USER_TIMEOUT} {
				got[i], _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, o)
			}
		})
		options <- got
		r.NoReply()
		return err
	})})
	dial(t, addr).prove().send(frame(3, 0, 2, ""))
	idle, interval, count := int(probeEvery.Seconds()), int(probeEvery.Seconds()), int(PeerSilence/probeEvery)-1
	if got := <-options; got != [4]int{idle, interval, count, int(PeerSilence.Milliseconds())} || idle+interval*count != int(PeerSilence.Seconds()) {
		t.Errorf("the options are %v", got)
	}
}
