//go:build unix

package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// closedLimit is how long the node may take to close a connection whose bytes are no Kafka request.
// The first bytes are enough to tell.
const closedLimit = time.Minute

// frame is a request of this size, as it is sent.
func frame(size uint32, body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, size), body...)
}

// TestHostileBytes proves that bytes that are no request cost one connection and one log line. The
// node closes the connection and serves the others.
func TestHostileBytes(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	noise := make([]byte, 4096)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	// An ApiVersions request of version 3 whose header claims 2^31-1 tags, and a list of 2^31-1
	// topic names.
	tags := []byte{0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x07}
	names := []byte{0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff}
	t.Run("tls", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), closedLimit)
		defer cancel()
		d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // nobody is trusted here: the handshake must fail
		c, err := d.DialContext(ctx, "tcp", p.addr)
		if err == nil {
			_ = c.Close()
			t.Fatal("the node speaks TLS")
		}
		if ctx.Err() != nil {
			t.Errorf("the handshake was left hanging: %v", err)
		}
	})
	for _, tc := range []struct {
		name  string
		bytes []byte
	}{
		{"http", []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		{"ssh", []byte("SSH-2.0-OpenSSH_9.2\r\n")},
		{"noise", noise},
		{"negative size", frame(0x80000000, noise...)},
		{"largest size", frame(0x7fffffff, noise...)},
		{"zero size", frame(0)},
		{"one byte", frame(1, 0)},
		{"unknown api", frame(10, 0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff)},
		{"many tags", frame(uint32(len(tags)), tags...)},
		{"many names", frame(uint32(len(names)), names...)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := net.Dial("tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(closedLimit)); err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write(tc.bytes) // the connection may be closed before all bytes are written
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the connection is still open after %v", closedLimit)
			}
			if err := ping(p.addr); err != nil {
				t.Errorf("the node does not serve others: %v", err)
			}
		})
	}
	for _, want := range []string{"TLS", "HTTP"} {
		eventually(t, "a log line says "+want, func() bool { return strings.Contains(p.out.String(), want) })
	}
	p.stop(t)
}

// halfSent is how many connections announce halfBytes each and send only a few.
const (
	halfSent  = 60
	halfBytes = 100_000_000
)

// TestHalfSentFrames proves that a request takes memory for the bytes that have arrived and not for
// those that were announced. Sixty connections that announce 100 MB each leave the node small, and
// it serves others meanwhile.
func TestHalfSentFrames(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	cl := p.client(t, kgo.DefaultProduceTopic("meanwhile"), kgo.AllowAutoTopicCreation())
	if err := cl.ProduceSync(t.Context(), kgo.StringRecord("before")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	before := residentMiB(t, p.cmd.Process.Pid)
	// This is a Produce request of version 9 from client "x", followed by 1 KiB of its body.
	head := []byte{0, 0, 0, 9, 0, 0, 0, 1, 0, 1, 'x', 0}
	for range halfSent {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() //nolint:revive // all stay open until the end
		if _, err := c.Write(append(frame(halfBytes, head...), bytes.Repeat([]byte{0}, 1024)...)); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord("meanwhile")).FirstErr(); err != nil {
			t.Fatalf("others are not served: %v", err)
		}
	}
	after := residentMiB(t, p.cmd.Process.Pid)
	t.Logf("resident memory: %d MiB, with %d half-sent frames %d MiB", before, halfSent, after)
	if after > before+64 {
		t.Errorf("resident memory rose from %d to %d MiB", before, after)
	}
	if got := len(readAll(t, p, "meanwhile", 21)); got != 21 {
		t.Errorf("%d records, want 21", got)
	}
	p.stop(t)
}

// residentMiB is the resident memory of a process. It is 0 if the system does not tell.
func residentMiB(t *testing.T, pid int) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) > 1 && words[0] == "VmRSS:" {
			kib, err := strconv.Atoi(words[1])
			if err != nil {
				t.Fatal(err)
			}
			return kib >> 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
