package node

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// TestHTTPClientsCannotStay proves that no client of the HTTP port can hold its
// connection for ever: not by sending nothing, nor by not reading.
func TestHTTPClientsCannotStay(t *testing.T) {
	a, err := openAdmin(t.Context(), adminConfig{addr: "127.0.0.1:0", health: func() health { return health{} }})
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
// than are planned for them, and that those that only keep theirs open keep nobody out.
func TestHTTPConnectionsAreBounded(t *testing.T) {
	a, err := openAdmin(t.Context(), adminConfig{addr: "127.0.0.1:0", conns: 2, health: func() health { return health{} }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	var conns []net.Conn
	ask := func(i int) bool {
		if _, err := io.WriteString(conns[i], "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return false
		}
		n, err := conns[i].Read(make([]byte, 1000)) // the whole answer
		return n > 0 && err == nil
	}
	for i := range 5 {
		c, err := net.Dial("tcp", a.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if conns = append(conns, c); !ask(i) {
			t.Errorf("idle connections kept connection %d out", i)
		}
	}
	open := 0
	for i := range conns {
		if ask(i) {
			open++
		}
	}
	if open != 2 {
		t.Errorf("%d connections are open", open)
	}
}

// TestWhichHTTPConnectionIsClosed proves that the connection that has had no request for the longest
// is closed for the next one, and one with a request only if all have one.
func TestWhichHTTPConnectionIsClosed(t *testing.T) {
	l := &boundedListener{most: 3}
	var c [9]*boundedConn
	for i := range c {
		near, far := net.Pipe()
		t.Cleanup(func() { _, _ = near.Close(), far.Close() })
		from := "192.0.2.1"
		if i >= 6 {
			from = "192.0.2.2"
		}
		c[i] = newBoundedConn(connFrom{near, from}, l)
	}
	add := func(i int, want *boundedConn) {
		t.Helper()
		old := l.addConn(c[i])
		if old != want {
			t.Errorf("another connection is closed for number %d", i)
		}
		if old != nil {
			_ = old.Close()
		}
	}
	add(0, nil)
	add(1, nil)
	add(2, nil)
	noteHTTPState(c[0], http.StateActive)
	noteHTTPState(c[1], http.StateActive)
	noteHTTPState(c[1], http.StateIdle)
	add(3, c[2])
	add(4, c[1])
	noteHTTPState(c[4], http.StateActive)
	noteHTTPState(c[3], http.StateActive)
	add(5, c[0])
	noteHTTPState(c[5], http.StateActive)
	add(6, c[4]) // of another network, which none of is closed for while the first one has more
	add(7, c[3])
	add(8, c[6])
	if len(l.from) != 2 || l.from[c[5].network] != 1 || l.from[c[8].network] != 2 {
		t.Errorf("by network there are %v", l.from)
	}
}

// connFrom is a connection from an address.
type connFrom struct {
	net.Conn

	from string
}

func (c connFrom) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.from)} }

// TestProfilesAreBounded proves that only few profiles are made at a time, however many are asked for.
func TestProfilesAreBounded(t *testing.T) {
	running, finish := make(chan struct{}, 1), make(chan struct{})
	begun := make(chan struct{})
	h := boundProfiles(running, func(http.ResponseWriter, *http.Request) {
		close(begun)
		<-finish
	})
	ask := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/debug/pprof/heap", nil))
		return w.Code
	}
	codes := make(chan int)
	go func() { codes <- ask() }()
	<-begun
	if code := ask(); code != http.StatusServiceUnavailable {
		t.Errorf("a second profile: %d", code)
	}
	close(finish)
	if code := <-codes; code != http.StatusOK {
		t.Errorf("the first profile: %d", code)
	}
}

// TestProfileEndsWithTheNode proves that a stop does not wait for a profile to end.
func TestProfileEndsWithTheNode(t *testing.T) {
	a, err := openAdmin(t.Context(), adminConfig{addr: "127.0.0.1:0", health: func() health { return health{} }})
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
