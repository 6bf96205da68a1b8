//go:build linux && !portable

package wire

import (
	"crypto/tls"
	"net"
	"syscall"
	"testing"
	"time"
)

// TestTLSMemory proves what connections with TLS cost: those that are idle after a request, those that have sent a part of their
// first record, and those that have begun a handshake and do not go on, of which there are never more than may be under way.
// The clients of the first kind take memory of this process, too, so they count twice.
func TestTLSMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's own memory would be measured")
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	conns := int(min(10_000, (limit.Cur-100)/4))
	useTLS(t)
	s, addr := start(t, Config{}, &funcs{serve: echo})
	open := func() net.Conn {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return nc
	}
	other := dial(t, addr)
	other.send(frame(0, 0, 1, "x"))
	other.receive()
	before := footprint()
	for range conns {
		if _, err := open().Write([]byte("\x16\x03\x01\x40\x00\x01")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all have come", func() bool { return s.Stats().Accepted.Load() > int64(conns) })
	each := (footprint() - before) / int64(conns)
	t.Logf("%d connections with a part of a record, %d bytes each, of both ends", conns, each)
	if each > 16<<10 {
		t.Errorf("a connection that has sent a part of a record takes %d bytes", each)
	}
	other.send(frame(0, 0, 2, "x"))
	if id, _ := other.receive(); id != 2 {
		t.Errorf("answer %d", id)
	}
	eventually(t, "they have ended", func() bool { return s.Stats().Conns.Load() == 1 })
	before = footprint()
	idle := conns / 10
	for range idle {
		c := tls.Client(open(), clientTLS())
		c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := c.Write(frame(0, 0, 1, "x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	suspendAll(t, s)
	each = (footprint() - before) / int64(idle)
	t.Logf("%d idle connections, %d bytes each, of both ends", idle, each)
	if each > 40<<10 {
		t.Errorf("an idle connection takes %d bytes of both ends", each)
	}
}
