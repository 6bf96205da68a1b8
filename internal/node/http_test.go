package node

import (
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestHTTPClientsCannotStay proves that no client of the HTTP port can hold its
// connection for ever: not by sending nothing, nor by not reading.
func TestHTTPClientsCannotStay(t *testing.T) {
	a, err := openAdmin(t.Context(), "127.0.0.1:0", 0, func() health { return health{} })
	if err != nil {
		t.Fatal(err)
	}
	if s := a.server; s.ReadHeaderTimeout <= 0 || s.IdleTimeout <= 0 || s.WriteTimeout <= 0 {
		t.Errorf("unbounded: header %v, idle %v, write %v", s.ReadHeaderTimeout, s.IdleTimeout, s.WriteTimeout)
	}
	if err := a.close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestHTTPConnectionsAreBounded proves that clients of the HTTP port have no more connections
// than are planned for them, and that a closed one makes room for another.
func TestHTTPConnectionsAreBounded(t *testing.T) {
	a, err := openAdmin(t.Context(), "127.0.0.1:0", 2, func() health { return health{} })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	ask := func() (net.Conn, bool) {
		c, err := net.Dial("tcp", a.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") // it may be closed already
		n, _ := c.Read(make([]byte, 1))
		return c, n == 1
	}
	first, ok := ask()
	_, also := ask()
	if !ok || !also {
		t.Fatal("the first two were not served")
	}
	if _, ok := ask(); ok {
		t.Error("a third connection was served")
	}
	_ = first.Close()
	for until := time.Now().Add(patience); ; {
		if _, ok := ask(); ok {
			break
		}
		if time.Now().After(until) {
			t.Fatal("a connection that ended made no room")
		}
	}
}

// TestProfileEndsWithTheNode proves that a stop does not wait for a profile to end.
func TestProfileEndsWithTheNode(t *testing.T) {
	a, err := openAdmin(t.Context(), "127.0.0.1:0", 0, func() health { return health{} })
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.addr+"/debug/pprof/trace?seconds=300", nil)
	if err != nil {
		t.Fatal(err)
	}
	begun, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		resp, err := http.DefaultClient.Do(req)
		close(begun) // the head of the answer comes when the trace runs
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body) // it is cut off
			_ = resp.Body.Close()
		}
	}()
	select {
	case <-begun:
	case <-time.After(patience):
		t.Fatal("the trace does not begin")
	}
	ctx := deadline(t)
	if err := a.close(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("the stop waited for the trace: %v, %v", err, ctx.Err())
	}
	<-ended
	http.DefaultClient.CloseIdleConnections()
}

// TestUnsentBodyEndsTheConnection proves that a client which announces a body and does not send
// it cannot hold its connection.
func TestUnsentBodyEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		a := &admin{}
		server := a.newServer(t.Context(), func() health { return health{} })
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		for _, path := range []string{"GET /healthz", "GET /metrics", "POST /debug/pprof/symbol", "POST /nowhere"} {
			client, conn := net.Pipe()
			l.conns <- conn
			go func() { _, _ = io.WriteString(client, path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n") }()
			if err := client.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, client); err != nil {
				t.Errorf("%s: the connection is still open after an hour: %v", path, err)
			}
			_ = client.Close()
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
}

// pipeListener accepts connections that have no network behind them.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	close(l.closed)
	return nil
}

func (*pipeListener) Addr() net.Addr { return &net.TCPAddr{} }
