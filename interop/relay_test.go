package interop

import (
	"bytes"
	"net"
	"sync"
	"testing"
)

// relay carries connections to an address, and keeps what goes over them. It is safe for concurrent use.
type relay struct {
	addr string // where it listens

	mu sync.Mutex
	// The bytes of all connections, one behind the other: those to the server, and those from it. Guarded by mu.
	to, from bytes.Buffer
}

// startRelay starts a relay that ends with the test.
func startRelay(t *testing.T, server string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: l.Addr().String()}
	var work sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{} // guarded by mu; nil: the relay ends
	keep := func(c net.Conn) (ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if open == nil {
			return false
		}
		open[c] = true
		return true
	}
	work.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			next, err := net.Dial("tcp", server)
			if err != nil || !keep(client) || !keep(next) {
				client.Close()
				continue
			}
			work.Go(func() { r.carry(next, client, &r.to) })
			work.Go(func() { r.carry(client, next, &r.from) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		open = nil
		mu.Unlock()
		work.Wait()
	})
	return r
}

// carry copies one direction of a connection, and ends the whole of it.
func (r *relay) carry(to, from net.Conn, kept *bytes.Buffer) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		kept.Write(buf[:n])
		r.mu.Unlock()
		if _, failed := to.Write(buf[:n]); failed != nil || err != nil {
			return
		}
	}
}

// received is how many bytes the server has sent.
func (r *relay) received() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.from.Len()
}

// shows tells whether a text went over it, in either direction.
func (r *relay) shows(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Contains(r.to.Bytes(), []byte(text)) || bytes.Contains(r.from.Bytes(), []byte(text))
}
