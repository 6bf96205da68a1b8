package wire

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// sharedRig is a server whose listener may be shared.
type sharedRig struct {
	*testing.T

	sharing atomic.Uint32
	server  *Server
	addr    string
	log     logLines
}

func startShared(t *testing.T) *sharedRig {
	t.Helper()
	r := &sharedRig{T: t}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	r.server = NewServer(Config{Logger: r.log.logger()}, &funcs{serve: func(q *Request) error {
		p := q.Begin()
		answer := "plain"
		if q.Conn.AsksForLogin() {
			answer = "login"
		}
		if IsPlain(q.Conn) == (q.Conn.TLS() != nil) || IsPlain(q.Conn) == q.Conn.AsksForLogin() {
			answer = "wrong"
		}
		p.B = append(p.B, answer...)
		q.Send(p)
		return nil
	}})
	done := make(chan error, 1)
	go func() {
		done <- r.server.Serve(&Listener{Listener: l, TLS: serverConfig, Sharing: func() Sharing { return Sharing(r.sharing.Load()) }})
	}()
	t.Cleanup(func() {
		if err := r.server.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// dial opens a connection, with TLS or without.
func (r *sharedRig) dial(isEncrypted bool) net.Conn {
	r.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(time.Minute))
	if isEncrypted {
		return tls.Client(nc, clientTLS())
	}
	return nc
}

// ask sends a request on a connection, in parts of so many bytes, and returns what the server takes the connection for; "": it has closed it.
func (r *sharedRig) ask(nc net.Conn, part int) string {
	r.Helper()
	for b := frame(0, 0, 7, "x"); len(b) > 0; {
		n := min(part, len(b))
		if _, err := nc.Write(b[:n]); err != nil {
			return ""
		}
		b = b[n:]
	}
	answer := make([]byte, 8+5)
	if _, err := io.ReadFull(nc, answer); err != nil {
		return ""
	}
	return string(answer[8:])
}

// TestSharing proves that one port takes connections with TLS and without while it is shared, that those of before go on, and that in the end those
// without are told nothing and are closed, with a sentence in the log.
func TestSharing(t *testing.T) {
	r := startShared(t)
	old := r.dial(false)
	if got := r.ask(old, 100); got != "plain" {
		t.Fatalf("before, a plain connection is %q", got)
	}
	if got := r.ask(r.dial(true), 100); got != "" {
		t.Fatalf("before, a connection with TLS is %q", got)
	}
	r.sharing.Store(uint32(PlainAndTLS))
	plain, encrypted := r.dial(false), r.dial(true)
	for _, part := range []int{1, 100} {
		for conn, want := range map[net.Conn]string{old: "plain", plain: "plain", encrypted: "login", r.dial(false): "plain", r.dial(true): "login"} {
			if got := r.ask(conn, part); got != want {
				t.Fatalf("a connection that is %s is taken for %q, in parts of %d bytes", want, got, part)
			}
		}
	}
	r.sharing.Store(uint32(TLSOnly))
	if got := r.ask(r.dial(false), 100); got != "" {
		t.Fatalf("a plain connection is %q", got)
	}
	eventually(t, "it is logged", func() bool { return strings.Contains(r.log.String(), "security.protocol=SASL_SSL") })
	if got := r.ask(plain, 100); got != "plain" {
		t.Fatalf("one of before ends by itself: %q", got)
	}
	if n := r.server.EndPlain(false); n < 2 {
		t.Fatalf("%d plain connections end", n)
	}
	eventually(t, "none is left", func() bool { return r.server.EndPlain(true) == 0 })
	for _, conn := range []net.Conn{old, plain} {
		if got := r.ask(conn, 100); got != "" {
			t.Errorf("a plain connection goes on: %q", got)
		}
	}
	if got := r.ask(encrypted, 100); got != "login" {
		t.Errorf("a connection with TLS is %q", got)
	}
}
