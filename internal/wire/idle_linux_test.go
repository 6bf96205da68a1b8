package wire

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestIdleMemory proves what an idle connection costs after it was used: all of
// its goroutine, if any, buffers and bookkeeping. The clients are bare descriptors, which
// cost no memory of this process.
func TestIdleMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's own memory would be measured")
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	conns := int(min(10_000, (limit.Cur-100)/2))
	var plain atomic.Bool
	s, addr := start(t, Config{}, &funcs{serve: echo, open: func(c *Conn) {
		plain.Store(!c.sock.isNonblocking())
	}})
	to := netip.MustParseAddrPort(addr)
	warm := dial(t, addr)
	warm.send(frame(0, 0, 0, ""))
	warm.receive()
	before := footprint()
	fds := make([]int, 0, conns)
	t.Cleanup(func() {
		for _, fd := range fds {
			syscall.Close(fd)
		}
	})
	for range conns {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
		if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
			t.Fatal(err)
		}
		request := frameOf(3, 1, 1, strings.Repeat("x", 30_000), "some body") // a name so long is not kept
		if _, err := syscall.Write(fd, request); err != nil {
			t.Fatal(err)
		}
		var b [64]byte
		if n, err := syscall.Read(fd, b[:]); n < 8 || err != nil || binary.BigEndian.Uint32(b[4:]) != 1 {
			t.Fatal(n, err)
		}
	}
	eventually(t, "all are idle", func() bool { return s.Stats().RequestMemory() == 0 })
	bound := int64(2560) // 1 KiB more if the name were kept
	if plain.Load() {
		bound = 6<<10 + 2*peekSize // it keeps what it waits with
	} else {
		suspendAll(t, s)
	}
	grown := footprint() - before
	each := grown / int64(conns)
	t.Logf("%d connections, %d bytes each", conns, each)
	if each > bound {
		t.Errorf("an idle connection takes %d bytes", each)
	}
}

// footprint is the memory in use: the heap and the goroutines' stacks.
func footprint() int64 {
	heap() // collects garbage
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// frameOf is a request of a client with a name.
func frameOf(key, version int16, id int32, client, body string) []byte {
	b := binary.BigEndian.AppendUint16(make([]byte, 4), uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, uint32(id))
	b = binary.BigEndian.AppendUint16(b, uint16(len(client)))
	b = append(append(b, client...), body...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}
