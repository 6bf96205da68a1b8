//go:build linux && !portable

package wire

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
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

// TestIsLocal proves which clients count as being on this machine.
func TestIsLocal(t *testing.T) {
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

// TestColdSections proves that files which are not in the page cache go out whole and
// in their places, between answers that need no disk, and that who serves requests is
// not the one who waits for the disk.
func TestColdSections(t *testing.T) {
	const size = 1 << 20
	f, data := bytesFile(t, 8*size)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if !isCold(int(f.Fd()), 8*size-1) {
		t.Skip("this file system keeps files in memory")
	}
	var released atomic.Int64
	_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
		p := r.Begin()
		p.B = append(p.B, "before"...)
		if id := int(r.CorrelationID); id%2 == 0 {
			p.Attach(&section{f: f, off: int64(id/2) * size, n: size, released: &released})
		}
		p.B = append(p.B, "behind"...)
		r.Send(p)
		return nil
	}})
	c := dial(t, addr)
	for i := range int32(16) {
		c.send(frame(0, 0, i, ""))
	}
	for i := range int32(16) {
		want := "behind"
		if i%2 == 0 {
			want = string(data[int(i)/2*size:][:size]) + want
		}
		id, body := c.receive()
		if id != i || body != "before"+want {
			t.Fatalf("answer %d came in place of %d, or is wrong: %d bytes", id, i, len(body))
		}
	}
	c.send(frame(0, 0, 1, ""))
	c.receive() // what was sent before is settled
	if n := released.Load(); n != 8 {
		t.Errorf("%d sections were released", n)
	}
	batch := &sendBatch{file: f.Fd(), fileLen: size}
	for tries := 0; !isCold(int(f.Fd()), 0); tries++ { // the kernel keeps pages that are still in use somewhere
		if tries == 10_000 {
			t.Skip("the kernel keeps the file in memory")
		}
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	if batch.sendReady(^uintptr(0)); !errors.Is(batch.sys.err, errCold) {
		t.Errorf("a cold file is sent by a call that must not wait: %v", batch.sys.err)
	}
}

// TestDelivered proves that a connection knows when the client's system has all that
// was sent, and when it has not, since the client does not read.
func TestDelivered(t *testing.T) {
	conns := make(chan *Conn, 1)
	_, addr := start(t, Config{}, &funcs{
		open: func(c *Conn) { conns <- c },
		serve: func(r *Request) error {
			answerWith(r, 64<<20)
			return nil
		},
	})
	c := dial(t, addr)
	c.send(frame(0, 0, 0, ""))
	var head [1]byte
	if _, err := c.Read(head[:]); err != nil { // an answer that is larger than all buffers is on its way
		t.Fatal(err)
	}
	served := <-conns
	if served.sock.isDelivered() {
		t.Error("64 MiB are delivered to a client that has read one byte")
	}
	if n, err := io.CopyN(io.Discard, c, 64<<20); err != nil {
		t.Fatalf("%d bytes: %v", n, err)
	}
	eventually(t, "all is delivered", served.sock.isDelivered)
}
