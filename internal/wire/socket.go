package wire

import "net"

// socket is how a connection reads and writes: through the kernel's readiness
// where that is possible, else through any net.Conn.
type socket interface {
	// read waits for data and appends it to the receive buffer. It returns errDozes,
	// and the connection is not the caller's any more, after a call of drowse.
	read(c *Conn) error
	// drowse is called when nothing has come for some time: where the socket can, it
	// has the connection's goroutine end until something comes. forget ends that.
	drowse()
	forget()
	// tries tells that send does not wait for the client.
	tries() bool
	// files tells that send can send files.
	files() bool
	// send sends what the writer has gathered, as far as there is room. It returns
	// errAgain when there was not room for all.
	send(w *writer) (int, error)
	// waitRoom waits until there is some room again.
	waitRoom() error
	// delivered tells that the client's system surely has all that was sent.
	delivered() bool
}

// peekSize is what a plain socket reads into while its connection is idle.
const peekSize = 1 << 10

// plainSocket serves any net.Conn (pipes, TLS, systems other than Linux) by
// calls that wait: reads on the connection's goroutine, writes on a drain.
type plainSocket struct {
	nc   net.Conn
	peek []byte // holds what comes first, so that an idle connection holds little
	more bool   // the last read filled its buffer: read on into the large one
}

func (s *plainSocket) read(c *Conn) error {
	if s.more {
		if err := ensure(c); err != nil {
			return err
		}
		n, err := s.nc.Read(c.in[c.b:])
		if n == 0 {
			return err
		}
		c.got(n)
		s.more = c.filled
		return nil
	}
	c.park()
	if s.peek == nil {
		s.peek = make([]byte, peekSize)
	}
	n, err := s.nc.Read(s.peek)
	if n == 0 {
		return err
	}
	s.more = n == len(s.peek)
	for b := s.peek[:n]; len(b) > 0; {
		if err := ensure(c); err != nil {
			return err
		}
		k := copy(c.in[c.b:], b)
		c.got(k)
		b = b[k:]
	}
	return nil
}

// ensure waits until the receive buffer has room.
func ensure(c *Conn) error {
	for !c.room() {
		if err := c.awaitMemory(); err != nil {
			return err
		}
	}
	return nil
}

func (*plainSocket) tries() bool { return false }
func (*plainSocket) files() bool { return false }

func (s *plainSocket) send(w *writer) (int, error) {
	total := 0
	for _, b := range w.pieces {
		n, err := s.nc.Write(b)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (*plainSocket) waitRoom() error { return nil }

func (*plainSocket) delivered() bool { return false }

func (*plainSocket) drowse() {}
func (*plainSocket) forget() {}
