package wire

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// keyChanger is a client with TLS 1.3 that writes its own records, and so can change its keys whenever it wants (RFC 8446, 4.6.3). What it reads
// is not decrypted.
type keyChanger struct {
	tb     testing.TB
	nc     net.Conn
	secret []byte // client_application_traffic_secret_N
	aead   cipher.AEAD
	iv     []byte
	next   uint64 // the sequence number of the next record
	out    []byte // records that are not written yet
}

func dialKeyChanger(tb testing.TB, addr string) *keyChanger {
	tb.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(time.Minute))
	var log bytes.Buffer
	cfg := clientTLS()
	cfg.KeyLogWriter = &log
	conn := tls.Client(nc, cfg)
	if err := conn.Handshake(); err != nil {
		tb.Fatal(err)
	}
	if suite := conn.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		tb.Skipf("the ends have chosen %s, which this client does not encrypt with", tls.CipherSuiteName(suite))
	}
	k := &keyChanger{tb: tb, nc: nc}
	for line := range strings.Lines(log.String()) {
		if fields := strings.Fields(line); fields[0] == "CLIENT_TRAFFIC_SECRET_0" {
			if k.secret, err = hex.DecodeString(fields[2]); err != nil {
				tb.Fatal(err)
			}
		}
	}
	k.useSecret()
	return k
}

// expand is HKDF-Expand-Label of RFC 8446, with an empty context.
func (k *keyChanger) expand(label string, n int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(append(append(info, byte(len(label))), label...), 0)
	b, err := hkdf.Expand(sha256.New, k.secret, string(info), n)
	if err != nil {
		k.tb.Fatal(err)
	}
	return b
}

func (k *keyChanger) useSecret() {
	block, err := aes.NewCipher(k.expand("key", 16))
	if err == nil {
		k.aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		k.tb.Fatal(err)
	}
	k.iv, k.next = k.expand("iv", 12), 0
}

// queue seals a record of a type.
func (k *keyChanger) queue(typ byte, data []byte) {
	nonce := bytes.Clone(k.iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, k.next) {
		nonce[4+i] ^= b
	}
	k.next++
	n := len(data) + 1 + k.aead.Overhead()
	head := []byte{23, 3, 3, byte(n >> 8), byte(n)}
	k.out = append(k.out, head...)
	k.out = k.aead.Seal(k.out, nonce, append(bytes.Clone(data), typ), head)
}

// queueKeyUpdate changes the keys of this end, and asks the other end to do so, too, or does not.
func (k *keyChanger) queueKeyUpdate(asks bool) {
	b := []byte{24, 0, 0, 1, 0}
	if asks {
		b[4] = 1
	}
	k.queue(22, b)
	k.secret = k.expand("traffic upd", sha256.Size)
	k.useSecret()
}

// flush writes what is queued. It returns false if the server has closed the connection.
func (k *keyChanger) flush() bool {
	_, err := k.nc.Write(k.out)
	k.out = k.out[:0]
	return err == nil
}

// TestKeyUpdates proves that a client may change its keys and ask the server to do so: requests before and after are served in order.
func TestKeyUpdates(t *testing.T) {
	useTLS(t)
	served := make(chan string, 100)
	_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
		served <- string(r.Body())
		return echo(r)
	}})
	k := dialKeyChanger(t, addr)
	for i := range 50 {
		k.queue(23, frame(0, 0, int32(i), string(rune('a'+i))))
		k.queueKeyUpdate(i%2 == 0)
		if !k.flush() {
			t.Fatal("the connection was closed")
		}
		if got := <-served; got != string(rune('a'+i)) {
			t.Fatalf("request %d has the body %q", i, got)
		}
	}
}

// TestKeyUpdateFlood proves that a client which changes its keys all the time costs a bounded amount: more than 16 changes without data end the
// connection. Other clients are served meanwhile.
func TestKeyUpdateFlood(t *testing.T) {
	useTLS(t)
	s, addr := start(t, Config{}, &funcs{serve: echo})
	other := dial(t, addr)
	askOther := func(id int32) {
		t.Helper()
		other.send(frame(0, 0, id, "x"))
		if got, _ := other.receive(); got != id {
			t.Fatalf("answer %d", got)
		}
	}
	askOther(1)
	for name, flood := range map[string]func(k *keyChanger) bool{
		"changes only":        func(k *keyChanger) bool { k.queueKeyUpdate(false); return k.flush() },
		"changes and answers": func(k *keyChanger) bool { k.queueKeyUpdate(true); return k.flush() },
		"in one write": func(k *keyChanger) bool {
			for range 1000 {
				k.queueKeyUpdate(true)
			}
			return k.flush()
		},
	} {
		before := s.Stats().BytesIn.Load()
		k := dialKeyChanger(t, addr)
		closed := make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, k.nc)
			close(closed)
		}()
		for isOpen := true; isOpen && flood(k); {
			select {
			case <-closed:
				isOpen = false
			default:
			}
		}
		<-closed
		if got := s.Stats().BytesIn.Load() - before; got != 0 {
			t.Errorf("%s: %d bytes of requests have come", name, got)
		}
		askOther(2)
	}
}

// BenchmarkKeyUpdate measures what a change of keys costs the server and this client together, beside a request of one byte. A client may make 16
// changes for each record with data.
func BenchmarkKeyUpdate(b *testing.B) {
	overTLS = serverConfig
	b.Cleanup(func() { overTLS = nil })
	for name, changes := range map[string]int{"changes=0": 0, "changes=16": 16} {
		b.Run(name, func(b *testing.B) {
			served := make(chan struct{}, 1)
			_, addr := start(b, Config{}, &funcs{serve: func(r *Request) error {
				served <- struct{}{}
				return echo(r)
			}})
			k := dialKeyChanger(b, addr)
			var reading sync.WaitGroup
			reading.Go(func() { _, _ = io.Copy(io.Discard, k.nc) })
			k.nc.SetDeadline(time.Time{})
			for b.Loop() {
				for range changes {
					k.queueKeyUpdate(false)
				}
				k.queue(23, frame(0, 0, 1, "x"))
				if !k.flush() {
					b.Fatal("the connection was closed")
				}
				<-served
			}
			k.nc.Close()
			reading.Wait()
		})
	}
}

// TestNoRenegotiation proves that a client with TLS 1.2 that wants another handshake on an open connection gets none, and costs no more: the
// connection ends.
func TestNoRenegotiation(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("LEAT_TEST_REQUIRE_ALL") == "1" {
			t.Fatal(err)
		}
		t.Skip("there is no openssl: crypto/tls cannot ask for another handshake")
	}
	useTLS(t)
	var log logLines
	s, addr := start(t, Config{Logger: log.logger()}, &funcs{serve: echo})
	cmd := exec.CommandContext(t.Context(), openssl, "s_client", "-connect", addr, "-tls1_2")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ends differs between versions
		w.Close()
		close(ended)
	}()
	var said strings.Builder
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "Extended master secret") { // the last of what it tells of the handshake
			_, _ = io.WriteString(stdin, "R\n") // renegotiate
		}
	}
	<-ended // the server has ended the connection, else it would go on
	stdin.Close()
	if n := s.Stats().Handshakes.Load(); n != 1 {
		t.Errorf("%d handshakes", n)
	}
	if !strings.Contains(said.String(), "RENEGOTIATING") {
		t.Errorf("openssl has not asked for another handshake:\n%s", said.String())
	}
	eventually(t, "the connection is closed", func() bool { return s.Stats().Conns.Load() == 0 })
}
