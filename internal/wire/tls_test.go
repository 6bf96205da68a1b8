package wire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// overTLS has start serve, and dial connect, with TLS; nil: without.
var overTLS func() *tls.Config

// testCertificate is a certificate of its own for 127.0.0.0/8, made once.
var testCertificate = sync.OnceValue(func() tls.Certificate { return makeCertificate("leat") })

func makeCertificate(name string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2)}, DNSNames: []string{name},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

var serverConfig = sync.OnceValue(func() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{testCertificate()}, DynamicRecordSizingDisabled: true}
})

func clientTLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(testCertificate().Leaf)
	return &tls.Config{RootCAs: roots, ServerName: "leat"}
}

// useTLS has the test's servers and clients use TLS.
func useTLS(t *testing.T) {
	t.Helper()
	overTLS = serverConfig
	t.Cleanup(func() { overTLS = nil })
}

// TestOverTLS runs tests of connections with TLS: what they prove does not depend on the encryption.
func TestOverTLS(t *testing.T) {
	useTLS(t)
	for name, run := range map[string]func(t *testing.T){
		"Echo": TestEcho, "Order": TestOrder, "Sections": TestSections,
	} {
		t.Run(name, run)
	}
}

// TestTLSState proves that a session sees the versions and the certificates of its connection, and that a connection
// whose handshake fails has no session.
func TestTLSState(t *testing.T) {
	seen := make(chan *tls.ConnectionState, 10)
	own := makeCertificate("client")
	cfg := serverConfig().Clone()
	cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	cfg.ClientCAs.AddCert(own.Leaf)
	overTLS = func() *tls.Config { return cfg }
	t.Cleanup(func() { overTLS = nil })
	var log logLines
	s, addr := start(t, Config{Logger: log.logger()}, &funcs{serve: echo, open: func(c *Conn) { seen <- c.TLS() }})
	connect := func(certificates ...tls.Certificate) error {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(time.Minute))
		client := clientTLS()
		if len(certificates) > 0 { // also one that the server does not trust
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificates[0], nil }
		}
		conn := tls.Client(nc, client)
		if _, err := conn.Write(frame(0, 0, 7, "x")); err != nil {
			return err
		}
		_, err = io.ReadFull(conn, make([]byte, 9))
		return err
	}
	if err := connect(own); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got.Version != tls.VersionTLS13 || len(got.PeerCertificates) != 1 || got.PeerCertificates[0].Subject.CommonName != "client" {
		t.Errorf("the session sees %+v", got)
	}
	if err := connect(); err == nil {
		t.Error("a client without a certificate was served")
	}
	if err := connect(makeCertificate("stranger")); err == nil {
		t.Error("a client with a certificate that nobody trusts was served")
	}
	eventually(t, "both have failed", func() bool { return s.Stats().HandshakesFailed.Load() == 2 })
	if len(seen) > 0 || s.Stats().Handshakes.Load() != 1 {
		t.Errorf("%d more sessions, %d handshakes", len(seen), s.Stats().Handshakes.Load())
	}
	eventually(t, "it is logged", func() bool {
		return strings.Contains(log.String(), "client didn't provide a certificate") && strings.Contains(log.String(), "certificate signed by unknown authority")
	})
}

// hostileGreetings are what clients send that do no handshake, with what the log says of them; "": nothing.
func hostileGreetings() map[string]string {
	record := func(typ byte, announced int, body string) string {
		return string([]byte{typ, 3, 1, byte(announced >> 8), byte(announced)}) + body
	}
	return map[string]string{
		"":                            "",
		"\x16":                        "",
		"\x16\x03\x01":                "",
		record(22, 16384, "\x01\x00"): "",
		string(frame(18, 0, 1, "")):   "does not speak TLS",
		"GET / HTTP/1.1\r\n\r\n":      "does not speak TLS",
		record(22, 65535, "") + strings.Repeat("x", 20_000):        "more than 16 KiB before the end of the handshake",
		record(22, 16384, strings.Repeat("x", 16384)):              "more than 16 KiB before the end of the handshake",
		strings.Repeat(record(22, 1, "\x01"), 10_000):              "TLS handshake",
		strings.Repeat(record(22, 0, ""), 10_000):                  "TLS handshake",
		record(21, 2, "\x02\x28"):                                  "handshake failure",
		record(22, 4, "\x01\xff\xff\xff"):                          "TLS handshake",
		record(22, 4, "\x02\x00\x00\x00"):                          "TLS handshake",
		record(22, 6, "\x01\x00\x00\x02\x03\x03"):                  "TLS handshake",
		record(23, 3, "abc"):                                       "does not speak TLS",
		"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10":             "TLS handshake",
		record(22, 100, "\x01\x00\x40\x00") + record(22, 5, "abc"): "",
	}
}

// TestHostileHandshakes proves that clients that do no handshake, whatever they send, are turned away with a sentence at most, and that
// nobody else notices.
func TestHostileHandshakes(t *testing.T) {
	useTLS(t)
	for greeting, want := range hostileGreetings() {
		t.Run(fmt.Sprintf("%.20q", greeting), func(t *testing.T) {
			var log logLines
			s, addr := start(t, Config{Logger: log.logger()}, &funcs{serve: echo})
			other := dial(t, addr)
			other.send(frame(0, 0, 1, "first"))
			other.receive()
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			nc.SetDeadline(time.Now().Add(30 * time.Second))
			_, _ = io.WriteString(nc, greeting) // the server may have closed it before
			if want != "" {
				_, _ = io.Copy(io.Discard, nc)
			}
			nc.Close()
			eventually(t, "it has failed", func() bool { return s.Stats().HandshakesFailed.Load() == 1 })
			eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), want) })
			if want == "" && log.String() != "" {
				t.Errorf("a client that has only gone is logged: %s", log.String())
			}
			other.send(frame(0, 0, 2, "still here"))
			if id, _ := other.receive(); id != 2 {
				t.Fatalf("answer %d", id)
			}
		})
	}
}

// TestHandshakesAreBounded proves that clients which begin more handshakes than there may be at the same time, and do not go on, keep no client of
// another network out, and that those of their own network can still go on if they do so soon.
func TestHandshakesAreBounded(t *testing.T) {
	useTLS(t)
	var log logLines
	s, addr := start(t, Config{Logger: log.logger(), RequestMemory: 1 << 20}, &funcs{serve: echo})
	most := s.handshakes.most
	begin := func() net.Conn {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(time.Minute))
		hello := clientHello(t)
		if _, err := nc.Write(hello); err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Read(make([]byte, 1)); err != nil { // the server's side of the handshake is done
			t.Fatal(err)
		}
		return nc
	}
	underWay := func() int {
		s.handshakes.mu.Lock()
		defer s.handshakes.mu.Unlock()
		return len(s.handshakes.open)
	}
	first := begin()
	for range 3 * most {
		begin()
		if n := underWay(); n > most {
			t.Fatalf("%d handshakes, at most %d may be under way", n, most)
		}
	}
	if _, err := io.Copy(io.Discard, first); err != nil && !isReset0(err) {
		t.Errorf("the oldest handshake goes on: %v", err)
	}
	eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "too many handshakes") })
	for _, from := range []string{"127.0.0.1", "127.0.0.2"} {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		nc, err := d.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(time.Minute))
		c := &client{t, tls.Client(nc, clientTLS())}
		c.send(frame(0, 0, 5, "x"))
		if id, _ := c.receive(); id != 5 {
			t.Errorf("from %s: answer %d", from, id)
		}
	}
	if n := underWay(); n < most-2 {
		t.Errorf("%d handshakes are left of %d: a client of another network took more than its place", n, most)
	}
}

func isReset0(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !errors.Is(err, os.ErrDeadlineExceeded)
}

// recorder is a connection that keeps what is written, and reads nothing.
type recorder struct {
	net.Conn
	b []byte
}

func (r *recorder) Write(b []byte) (int, error) { r.b = append(r.b, b...); return len(b), nil }

func (*recorder) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// clientHello is the first message of a client.
func clientHello(t *testing.T) []byte {
	t.Helper()
	var r recorder
	if err := tls.Client(&r, clientTLS()).Handshake(); err == nil || len(r.b) < 100 {
		t.Fatalf("%d bytes, %v", len(r.b), err)
	}
	return r.b
}

// TestHandshakeTakesItsBytes proves that a handshake whose records come byte by byte, and with a request behind its last one, succeeds.
func TestHandshakeTakesItsBytes(t *testing.T) {
	useTLS(t)
	_, addr := start(t, Config{}, &funcs{serve: echo})
	for _, chunk := range []int{1, 100, 100_000} {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(time.Minute))
		c := &client{t, tls.Client(&chopper{Conn: nc, chunk: chunk}, clientTLS())}
		for i := range int32(5) {
			c.send(frame(0, 0, i, strings.Repeat("x", int(i)*20_000)))
			if id, body := c.receive(); id != i || len(body) != int(i)*20_000 {
				t.Fatalf("chunks of %d: answer %d, want %d", chunk, id, i)
			}
		}
	}
}

// chopper writes its first bytes in chunks.
type chopper struct {
	net.Conn
	chunk, done int
}

func (c *chopper) Write(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		k := min(len(b)-n, c.chunk)
		if c.done > 20_000 {
			k = len(b) - n
		}
		k, err := c.Conn.Write(b[n : n+k])
		if n, c.done = n+k, c.done+k; err != nil {
			return n, err
		}
	}
	return n, nil
}

// TestTLSEndsOrderly proves that a client with TLS reads its last answers when the server stops, and then that nothing follows.
func TestTLSEndsOrderly(t *testing.T) {
	useTLS(t)
	var served atomic.Int64
	s, addr := start(t, Config{}, &funcs{serve: func(r *Request) error { served.Add(1); return echo(r) }})
	c := dial(t, addr)
	c.send(frame(0, 0, 1, strings.Repeat("x", 100_000)))
	eventually(t, "it is served", func() bool { return served.Load() == 1 })
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if id, body := c.receive(); id != 1 || len(body) != 100_000 {
		t.Errorf("answer %d with %d bytes", id, len(body))
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) { // and not io.ErrUnexpectedEOF
		t.Errorf("after the last answer: %d bytes, %v", n, err)
	}
}

// FuzzHandshake proves that no first bytes of a client do harm.
func FuzzHandshake(f *testing.F) {
	for greeting := range hostileGreetings() {
		f.Add([]byte(greeting))
	}
	f.Fuzz(func(t *testing.T, greeting []byte) {
		near, far := net.Pipe()
		go func() {
			_, _ = far.Write(greeting)
			_ = far.Close()
		}()
		go func() { _, _ = io.Copy(io.Discard, far) }()
		s := NewServer(Config{}, &funcs{serve: echo})
		s.ServeConn(near, &Listener{TLS: serverConfig})
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// BenchmarkTLS moves bytes over TLS, both ways: requests with large bodies as a producer sends them, and large sections as a consumer
// reads them; and between crypto/tls at both ends, as the floor. The client runs in the same process and is the same.
func BenchmarkTLS(b *testing.B) {
	request := frame(0, 0, 1, strings.Repeat("r", 1<<20))
	b.Run("produce/floor", func(b *testing.B) {
		c := dialFloor(b, func(nc net.Conn) { serveWithFloor(nc) })
		pipeline(b, c, request, 4)
	})
	b.Run("produce/server", func(b *testing.B) {
		overTLS = serverConfig
		defer func() { overTLS = nil }()
		_, addr := start(b, Config{}, &funcs{serve: answer60})
		pipeline(b, dial(b, addr).Conn, request, 4)
	})
	file, data := bytesFile(b, 1<<20)
	b.Run("fetch/floor", func(b *testing.B) {
		c := dialFloor(b, func(nc net.Conn) {
			head := make([]byte, 18)
			answer := append(binary.BigEndian.AppendUint32(nil, uint32(4+len(data))), 0, 0, 0, 1)
			for {
				if _, err := io.ReadFull(nc, head); err != nil {
					return
				}
				if _, err := nc.Write(answer); err != nil {
					return
				}
				file.Seek(0, io.SeekStart)
				if _, err := io.Copy(onlyWriter{nc}, io.LimitReader(file, int64(len(data)))); err != nil {
					return
				}
			}
		})
		fetchAll(b, c, len(data))
	})
	b.Run("fetch/server", func(b *testing.B) {
		overTLS = serverConfig
		defer func() { overTLS = nil }()
		var released atomic.Int64
		_, addr := start(b, Config{}, &funcs{serve: func(r *Request) error {
			p := r.Begin()
			p.Attach(&section{f: file, n: len(data), released: &released})
			r.Send(p)
			return nil
		}})
		fetchAll(b, dial(b, addr).Conn, len(data))
	})
}

type onlyWriter struct{ io.Writer }

// dialFloor connects to a server that does the least with TLS.
func dialFloor(b *testing.B, serve func(nc net.Conn)) net.Conn {
	b.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", serverConfig())
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if nc, err := l.Accept(); err == nil {
			serve(nc)
			nc.Close()
		}
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), clientTLS())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close(); l.Close(); <-done })
	return c
}

// fetchAll asks for answers of some bytes, four at a time.
func fetchAll(b *testing.B, nc net.Conn, size int) {
	b.Helper()
	b.SetBytes(int64(size))
	b.ReportAllocs()
	request := frame(1, 0, 1, "")
	buf := make([]byte, 64<<10)
	for range min(4, b.N) {
		nc.Write(request)
	}
	for i := range b.N {
		for left := 8 + size; left > 0; {
			n, err := nc.Read(buf[:min(len(buf), left)])
			if err != nil {
				b.Fatal(err)
			}
			left -= n
		}
		if i+4 < b.N {
			nc.Write(request)
		}
	}
}
