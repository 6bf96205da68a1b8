package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// answer60 answers with 60 bytes, as Produce does.
func answer60(r *Request) error {
	p := r.Begin()
	p.B = append(p.B, answerBody[:]...)
	r.Send(p)
	return nil
}

var answerBody [52]byte

// serveWithFloor does the least that a server must do: read the bytes that are there into one
// buffer, cut them, and answer all requests with one write.
func serveWithFloor(nc net.Conn) {
	in := make([]byte, 512<<10)
	out := make([]byte, 0, 64<<10)
	a, b := 0, 0
	for {
		if b == len(in) && a == 0 {
			in = slices.Grow(in, len(in))
			in = in[:cap(in)]
		} else if b == len(in) {
			a, b = 0, copy(in, in[a:b])
		}
		n, err := nc.Read(in[b:])
		if err != nil {
			return
		}
		b += n
		out = out[:0]
		for b-a >= 4 {
			size := int(binary.BigEndian.Uint32(in[a:]))
			if b-a < 4+size {
				break
			}
			out = append(out, 0, 0, 0, 56)
			out = append(out, in[a+8:a+12]...)
			out = append(out, answerBody[:]...)
			a += 4 + size
		}
		if len(out) > 0 {
			if _, err := nc.Write(out); err != nil {
				return
			}
		}
		if a == b {
			a, b = 0, 0
		}
	}
}

// pipeline sends requests, some in flight, and reads their answers.
func pipeline(b *testing.B, nc net.Conn, request []byte, inFlight int) {
	b.Helper()
	chunk := max(1, min(inFlight, 256<<10/len(request)))
	all := []byte(strings.Repeat(string(request), chunk))
	answers := make([]byte, 60*inFlight)
	b.SetBytes(int64(len(request)))
	b.ReportAllocs()
	flying := 0
	for i := 0; i < b.N; {
		n := min(chunk, b.N-i)
		for flying+n > inFlight {
			got, err := io.ReadAtLeast(nc, answers[:60*flying], 60)
			for err == nil && got%60 != 0 {
				var k int
				k, err = nc.Read(answers[got:])
				got += k
			}
			if err != nil {
				b.Fatal(err)
			}
			flying -= got / 60
		}
		if _, err := nc.Write(all[:n*len(request)]); err != nil {
			b.Fatal(err)
		}
		flying, i = flying+n, i+n
	}
	if _, err := io.ReadFull(nc, answers[:60*flying]); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRequest compares a server with the floor of what must be done: frames
// of 16 KiB, 32 in flight, as a busy producer sends them; small ones, many in
// flight; and one by one. The client runs in the same process.
func BenchmarkRequest(b *testing.B) {
	for _, load := range []struct{ size, inFlight int }{{16 << 10, 32}, {1 << 10, 256}, {1 << 10, 1}, {1 << 20, 4}} {
		request := frame(0, 0, 1, strings.Repeat("r", load.size))
		b.Run(fmt.Sprintf("floor/%dKiBx%d", load.size>>10, load.inFlight), func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				nc, err := l.Accept()
				if err == nil {
					serveWithFloor(nc)
					nc.Close()
				}
			}()
			c := dial(b, l.Addr().String())
			pipeline(b, c.Conn, request, load.inFlight)
			c.Close()
			<-done
		})
		b.Run(fmt.Sprintf("wire/%dKiBx%d", load.size>>10, load.inFlight), func(b *testing.B) {
			_, addr := start(b, Config{}, &funcs{serve: answer60})
			c := dial(b, addr)
			pipeline(b, c.Conn, request, load.inFlight)
			c.Close()
		})
	}
}

// BenchmarkParked measures requests that another goroutine answers.
func BenchmarkParked(b *testing.B) {
	work := make(chan *Request, 256)
	go func() {
		for r := range work {
			_ = answer60(r)
		}
	}()
	defer close(work)
	_, addr := start(b, Config{}, &funcs{serve: func(r *Request) error { work <- r; return nil }})
	c := dial(b, addr)
	pipeline(b, c.Conn, frame(0, 0, 1, strings.Repeat("r", 1<<10)), 256)
	c.Close()
}

// BenchmarkSection measures answers with one section of a file, by its size, sent
// as a file and read: above maxReadSection the first is cheaper.
func BenchmarkSection(b *testing.B) {
	f, _ := bytesFile(b, 16<<20)
	for _, size := range []int{1 << 10, 4 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20} {
		for _, noFd := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dKiB/read=%v", size>>10, noFd), func(b *testing.B) {
				var released atomic.Int64
				_, addr := start(b, Config{}, &funcs{serve: func(r *Request) error {
					p := r.Begin()
					p.Attach(&section{f: f, off: int64(r.CorrelationID), n: size, noFd: noFd, released: &released})
					r.Send(p)
					return nil
				}})
				c := dial(b, addr)
				request := frame(1, 0, 0, "")
				in := make([]byte, 8+size)
				b.SetBytes(int64(size))
				c.send(request)
				for b.Loop() {
					c.send(request)
					if _, err := io.ReadFull(c, in); err != nil {
						b.Fatal(err)
					}
				}
				c.Close()
			})
		}
	}
}
