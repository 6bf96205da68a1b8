package wan

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// pieceBytes is the most that a link carries as one.
	pieceBytes = 64 << 10
	// windowBytes is how many bytes of a connection may be under way in one direction: a large window of TCP.
	windowBytes = 4 << 20
	// packetPayload and packetHeaders are the bytes of a full TCP packet of Ethernet's size, and of its headers of IP and TCP.
	packetPayload, packetHeaders = 1448, 52
)

var (
	// errStopped is returned where nobody waits any more.
	errStopped = errors.New("given up")
	// errReset is returned where the settings of a path reset connections.
	errReset = syscall.ECONNRESET
	// errUnreachable is returned for an address that no site has.
	errUnreachable = syscall.ENETUNREACH
)

// link carries the bytes of two connections, as if they were one through a network.
type link struct {
	near, far *net.TCPConn
	ended     chan struct{}
	ending    sync.Once
}

// carry carries bytes both ways, until both ends have said that they have sent all, or the link is reset.
func (l *link) carry(there, back *pump) {
	var pumps sync.WaitGroup
	for _, p := range []*pump{there, back} {
		pumps.Go(p.read)
		pumps.Go(p.write)
	}
	pumps.Wait()
	l.ending.Do(func() { // without a reset, which would discard what the receivers have not read
		close(l.ended)
		_, _ = l.near.Close(), l.far.Close() // whoever reads or writes them is told
	})
}

// reset ends both connections at once.
func (l *link) reset() {
	l.ending.Do(func() {
		close(l.ended)
		resetConn(l.near)
		resetConn(l.far)
	})
}

// resetConn ends a connection at once: if the other end has not ended it, with a reset.
func resetConn(c *net.TCPConn) {
	_, _ = c.SetLinger(0), c.Close() // an error means that it has ended
}

// pump carries the bytes of a link in one direction.
type pump struct {
	link     *link
	from, to stream
	path     *path
	arrival  chan struct{} // of size 1: a piece has arrived
	room     chan struct{} // of size 1: bytes have been written

	mu       sync.Mutex
	arrived  []*piece // guarded by mu; those that are not yet written
	underWay int      // guarded by mu; bytes that were read and are not yet written
}

// stream is the part of a TCP connection that a pump uses.
type stream interface {
	io.Reader
	io.Writer
	CloseWrite() error
}

func newPump(l *link, from, to stream, p *path) *pump {
	return &pump{link: l, from: from, to: to, path: p, arrival: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// piece is some of the bytes of a connection.
type piece struct {
	pump  *pump
	bytes []byte
	isEnd bool          // the sender has sent all
	late  time.Duration // how much later it comes than it arrives, since something of it was lost
}

// arrive has the pump's writer write the piece.
func (c *piece) arrive(int) (delivered int) {
	c.pump.mu.Lock()
	defer c.pump.mu.Unlock()
	c.pump.arrived = append(c.pump.arrived, c)
	notify(c.pump.arrival)
	return 1
}

// size is that of the packets that the piece would be.
func (c *piece) size() size {
	packets := max(1, (int64(len(c.bytes))+packetPayload-1)/packetPayload)
	return size{packets, int64(len(c.bytes)) + packets*packetHeaders}
}

// read sends what it reads into the path, to the end.
func (p *pump) read() {
	buf := make([]byte, pieceBytes)
	for p.awaitRoom() {
		n, err := p.from.Read(buf)
		if n > 0 && !p.send(&piece{pump: p, bytes: append([]byte(nil), buf[:n]...)}) {
			return
		}
		if errors.Is(err, io.EOF) {
			p.send(&piece{pump: p, isEnd: true})
			return
		}
		if err != nil {
			p.link.reset()
			return
		}
	}
}

// awaitRoom waits until the window is not full; false: the link has ended.
func (p *pump) awaitRoom() bool {
	for {
		p.mu.Lock()
		hasRoom := p.underWay < windowBytes
		p.mu.Unlock()
		if hasRoom {
			return true
		}
		select {
		case <-p.room:
		case <-p.link.ended:
			return false
		}
	}
}

// send sends a piece; false: the link has ended.
func (p *pump) send(c *piece) bool {
	p.mu.Lock()
	p.underWay += len(c.bytes)
	p.mu.Unlock()
	err := sendPatiently(p.path, c.size(), func(late time.Duration) cargo {
		c.late = late
		return c
	}, p.link.ended, nil)
	if err != nil {
		p.link.reset()
	}
	return err == nil
}

// sendPatiently sends cargo into a path when it can be carried. It returns errReset if the settings say that, and errStopped when either channel is closed.
func sendPatiently(p *path, z size, pack func(late time.Duration) cargo, stop, stopToo <-chan struct{}) error {
	for isFirst := true; ; isFirst = false {
		o, changed := p.send(z, pack, isFirst)
		switch o.fate {
		case fateCarried:
			return nil
		case fateRefused:
			return errReset
		default:
		}
		var again <-chan time.Time
		if o.again > 0 {
			again = time.After(o.again - p.clock.now())
		}
		select {
		case <-again:
		case <-changed:
		case <-stop:
			return errStopped
		case <-stopToo:
			return errStopped
		}
	}
}

// write writes the pieces that arrive, to the end.
func (p *pump) write() {
	for {
		c := p.next()
		if c == nil {
			return
		}
		if c.late > 0 {
			select {
			case <-time.After(c.late):
			case <-p.link.ended:
				return
			}
		}
		var err error
		if c.isEnd {
			err = p.to.CloseWrite()
		} else {
			_, err = p.to.Write(c.bytes)
		}
		if err != nil {
			p.link.reset()
		}
		if err != nil || c.isEnd {
			return
		}
		p.mu.Lock()
		p.underWay -= len(c.bytes)
		p.mu.Unlock()
		notify(p.room)
	}
}

// next waits for the next piece; nil: the link has ended.
func (p *pump) next() *piece {
	for {
		p.mu.Lock()
		if len(p.arrived) > 0 {
			c := p.arrived[0]
			p.arrived[0] = nil
			p.arrived = p.arrived[1:]
			p.mu.Unlock()
			return c
		}
		p.mu.Unlock()
		select {
		case <-p.arrival:
		case <-p.link.ended:
			return nil
		}
	}
}
