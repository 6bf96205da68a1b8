//go:build linux && !portable

package wire

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCongestion proves that a connection from this machine gets the congestion
// control that is set for those, and keeps the system's where none is.
func TestCongestion(t *testing.T) {
	read := func(name string) []string {
		b, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
		if err != nil {
			t.Skip(err)
		}
		return strings.Fields(string(b))
	}
	system := read("tcp_congestion_control")[0]
	other := system // unless there is another one that anybody may use
	for _, name := range read("tcp_allowed_congestion_control") {
		if name != system {
			other = name
		}
	}
	f := func(cfg Config, want string) {
		t.Helper()
		got := make(chan string, 1)
		_, addr := start(t, cfg, &funcs{serve: func(r *Request) error {
			rc, err := r.Conn.nc.(*net.TCPConn).SyscallConn()
			if err != nil {
				return err
			}
			err = rc.Control(func(fd uintptr) {
				name, err := unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
				if err != nil {
					name = err.Error()
				}
				got <- strings.TrimRight(name, "\x00")
			})
			r.NoReply()
			return err
		}})
		dial(t, addr).send(frame(0, 0, 0, ""))
		if name := <-got; name != want {
			t.Errorf("%s, not %s", name, want)
		}
	}
	f(Config{LocalCongestion: other}, other)
	f(Config{}, system)
	f(Config{Congestion: other}, system)
	f(Config{LocalCongestion: "there is none"}, system) // it is served all the same
}

// TestLocal proves which clients are on this machine.
func TestLocal(t *testing.T) {
	f := func(client, server string, want bool) {
		t.Helper()
		c := fromTo{client: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(client)), server: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(server))}
		if got := isLocal(c); got != want {
			t.Errorf("%s at %s: %v", client, server, got)
		}
	}
	f("127.0.0.1:1", "127.0.0.1:9092", true)
	f("127.0.0.2:1", "127.0.0.1:9092", true)
	f("[::1]:1", "[::1]:9092", true)
	f("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:9092", true)
	f("10.0.0.1:1", "10.0.0.1:9092", true)
	f("[::ffff:10.0.0.1]:1", "10.0.0.1:9092", true)
	f("10.0.0.2:1", "10.0.0.1:9092", false)
	f("[fe80::2%eth0]:1", "[fe80::1%eth0]:9092", false)
}

// fromTo is a connection that has addresses only.
type fromTo struct {
	net.Conn
	client, server net.Addr
}

func (c fromTo) RemoteAddr() net.Addr { return c.client }
func (c fromTo) LocalAddr() net.Addr  { return c.server }
