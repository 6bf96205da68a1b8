package wire

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// section is a stretch of a real file that counts its releases.
type section struct {
	f        *os.File
	off      int64
	n        int
	noFd     bool
	released *atomic.Int64
	once     atomic.Bool
}

func (s *section) Len() int { return s.n }

func (s *section) ReadAt(b []byte, off int64) (int, error) { return s.f.ReadAt(b, s.off+off) }

func (s *section) Fd() (uintptr, int64, bool) { return s.f.Fd(), s.off, !s.noFd }

func (s *section) Release() {
	if !s.once.CompareAndSwap(false, true) {
		panic("released twice")
	}
	s.released.Add(1)
}

// bytesFile makes a file of n random bytes.
func bytesFile(tb testing.TB, n int) (*os.File, []byte) {
	tb.Helper()
	b := make([]byte, n)
	rnd := rand.NewChaCha8([32]byte{1})
	rnd.Read(b)
	name := filepath.Join(tb.TempDir(), "file")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		tb.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	return f, b
}

// TestSections proves that sections of files go out as they are, in their places,
// small and large, with descriptors and without, on time and parked, and that each
// is released once when it was sent.
func TestSections(t *testing.T) {
	f, data := bytesFile(t, 8<<20)
	var attached, released atomic.Int64
	parked := make(chan *Request, 1000)
	// Each answer is made from its correlation id alone, on both sides.
	build := func(id int32, text func(string), sect func(off, n int, noFd bool)) {
		rnd := rand.New(rand.NewPCG(7, uint64(id)))
		for range rnd.IntN(20) {
			switch rnd.IntN(6) {
			case 0, 1:
				text(strings.Repeat("t", rnd.IntN(300)))
			case 2:
				text(strings.Repeat("T", rnd.IntN(30_000)))
			case 3:
				sect(rnd.IntN(1<<20), rnd.IntN(3000), rnd.IntN(2) == 0)
			case 4:
				sect(rnd.IntN(1<<20), rnd.IntN(100_000), rnd.IntN(2) == 0)
			default:
				sect(rnd.IntN(1<<20), rnd.IntN(2_000_000), rnd.IntN(3) == 0)
			}
		}
	}
	answer := func(r *Request) {
		p := r.Begin()
		build(r.CorrelationID,
			func(s string) { p.B = append(p.B, s...) },
			func(off, n int, noFd bool) {
				attached.Add(1)
				p.Attach(&section{f: f, off: int64(off), n: n, noFd: noFd, released: &released})
			})
		r.Send(p)
	}
	_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
		if r.CorrelationID%2 == 0 {
			answer(r)
		} else {
			parked <- r
		}
		return nil
	}})
	const requests = 200
	c := dial(t, addr)
	go func() {
		for i := range int32(requests) {
			c.send(frame(1, 0, i, ""))
			if i%2 == 1 {
				answer(<-parked)
			}
		}
	}()
	for i := range int32(requests) {
		var want bytes.Buffer
		build(i,
			func(s string) { want.WriteString(s) },
			func(off, n int, _ bool) { want.Write(data[off : off+n]) })
		id, body := c.receive()
		if id != i || body != want.String() {
			t.Fatalf("answer %d: id %d, %d bytes, want %d", i, id, len(body), want.Len())
		}
	}
	eventually(t, "all sections are released", func() bool { return released.Load() == attached.Load() })
}

// TestSectionsReleased proves that each section is released once when its answer
// cannot be sent: the client is gone, does not read, or the answer is dropped.
func TestSectionsReleased(t *testing.T) {
	f, _ := bytesFile(t, 4<<20)
	for _, end := range []string{"gone", "unread", "parked", "no reply", "again", "late"} {
		t.Run(end, func(t *testing.T) {
			var attached, released atomic.Int64
			attach := func(p *Response) {
				for _, n := range []int{0, 100, 100_000, 3 << 20} {
					attached.Add(1)
					p.Attach(&section{f: f, n: n, released: &released})
				}
			}
			var first atomic.Pointer[Request]
			var served atomic.Int64
			_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
				defer served.Add(1)
				switch {
				case end == "parked" && r.CorrelationID == 0, end == "late":
					first.Store(r)
					return nil
				case end == "no reply":
					attach(r.Begin())
					r.NoReply()
					return nil
				case end == "again":
					attach(r.Begin())
				}
				p := r.Begin()
				attach(p)
				r.Send(p)
				return nil
			}})
			c := dial(t, addr)
			for i := range int32(20) {
				c.send(frame(1, 0, i, ""))
			}
			eventually(t, "some are served", func() bool { return served.Load() > 0 })
			c.Close()
			if end == "parked" {
				first.Load().NoReply() // the others are sent now, and nobody is there
			}
			if end == "late" {
				r := first.Load()
				eventually(t, "the connection is closed", func() bool {
					return r.Conn.life.currentState() == connClosed
				})
				attach(r.Begin())
				r.Send(&r.resp)
			}
			eventually(t, "all sections are released", func() bool { return attached.Load() > 0 && released.Load() == attached.Load() })
		})
	}
}

// TestTruncatedSection proves that a file which ends within a section closes the
// connection: no other bytes may follow in place of the missing ones.
func TestTruncatedSection(t *testing.T) {
	for _, size := range []int{3000, 1 << 20} {
		for _, noFd := range []bool{false, true} {
			f, data := bytesFile(t, size)
			var attached, released atomic.Int64
			var log logLines
			_, addr := start(t, Config{Logger: log.logger()}, &funcs{serve: func(r *Request) error {
				p := r.Begin()
				attached.Add(1)
				p.Attach(&section{f: f, n: size + 1, noFd: noFd, released: &released})
				r.Send(p)
				return nil
			}})
			c := dial(t, addr)
			c.send(append(frame(1, 0, 0, ""), frame(1, 0, 1, "")...))
			var got bytes.Buffer
			got.ReadFrom(c)
			if got.Len() > 8+size || got.Len() > 8 && !bytes.HasPrefix(data, got.Bytes()[8:]) {
				t.Errorf("%d bytes came of a section of %d that the file does not have", got.Len()-8, size+1)
			}
			eventually(t, "it is logged and released", func() bool {
				return strings.Contains(log.String(), "a file ended within a section") && released.Load() == attached.Load()
			})
		}
	}
}

// TestUnreadableSection proves that a section which cannot be read closes the connection.
func TestUnreadableSection(t *testing.T) {
	var released atomic.Int64
	var log logLines
	_, addr := start(t, Config{Logger: log.logger()}, &funcs{serve: func(r *Request) error {
		p := r.Begin()
		p.Attach(&broken{section{n: 100, noFd: true, released: &released}})
		r.Send(p)
		return nil
	}})
	c := dial(t, addr)
	c.send(frame(1, 0, 0, ""))
	c.awaitClosed()
	eventually(t, "it is logged and released", func() bool {
		return strings.Contains(log.String(), "the disk is broken") && released.Load() == 1
	})
}

type broken struct{ section }

func (*broken) Fd() (uintptr, int64, bool) { return 0, 0, false }

func (*broken) ReadAt([]byte, int64) (int, error) { return 0, errors.New("the disk is broken") }

// computed is a section that is read only when it is its turn.
type computed struct {
	turn     chan struct{}
	released chan struct{}
}

func (*computed) Len() int { return 4 }

func (c *computed) ReadAt(b []byte, off int64) (int, error) {
	<-c.turn
	return copy(b, "late"[off:]), nil
}

func (*computed) Fd() (fd uintptr, pos int64, ok bool) { return 0, 0, false }

func (c *computed) Release() { close(c.released) }

func (*computed) Computed() {}

// TestCompleterLeavesComputedSections proves that a goroutine which completes an answer does
// not wait for the turn of a computed section.
func TestCompleterLeavesComputedSections(t *testing.T) {
	parked := make(chan *Request, 1)
	_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
		parked <- r
		return nil
	}})
	c := dial(t, addr)
	c.send(frame(1, 0, 7, ""))
	r := <-parked
	eventually(t, "the request is parked", func() bool {
		r.Conn.out.mu.Lock()
		defer r.Conn.out.mu.Unlock()
		return r.Conn.out.flow == flowOpen && r.Conn.out.sharedIssued == 1
	})
	sec := &computed{make(chan struct{}), make(chan struct{})}
	p := r.Begin()
	p.Attach(sec)
	r.Send(p) // it returns, though it is not the section's turn
	close(sec.turn)
	if id, body := c.receive(); id != 7 || body != "late" {
		t.Errorf("answer %d: %q", id, body)
	}
	<-sec.released
}
