package node

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestSmuggledHTTPRequestsAreNotServed proves that bytes which another program on the way could take for the body of a request are not served
// as a request of their own: the connection ends before them.
func TestSmuggledHTTPRequestsAreNotServed(t *testing.T) {
	a, err := openAdmin(t.Context(), adminConfig{addr: "127.0.0.1:0", health: func() health { return health{} }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	send := func(bytes string) (answers int) {
		t.Helper()
		c, err := net.Dial("tcp", a.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, bytes); err != nil {
			t.Fatal(err)
		}
		all, _ := io.ReadAll(c) // a connection that is closed with bytes unread ends with an error
		return strings.Count(string(all), "HTTP/1.1 ")
	}
	const second = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	if n := send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + second); n != 2 {
		t.Fatalf("two requests have %d answers", n)
	}
	for name, head := range map[string]string{
		"both lengths":     "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two lengths":      "Content-Length: 5\r\nContent-Length: 0\r\n\r\n",
		"signed length":    "Content-Length: +0\r\n\r\n",
		"other encoding":   "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"space in name":    "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		"bare line feed":   "Transfer-Encoding: chunked\r\n\r\n0\n\r\n",
		"chunk extension":  "Transfer-Encoding: chunked\r\n\r\n1;\nx\r\n0\r\n\r\n",
		"continued header": "X: 1\r\n Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		if n := send("POST /healthz HTTP/1.1\r\nHost: x\r\n" + head + second); n != 1 {
			t.Errorf("%s: %d answers", name, n)
		}
	}
}
