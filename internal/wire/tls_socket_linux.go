//go:build linux && !portable

package wire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

const (
	// sealedAtOnce is how many bytes are encrypted before they are sent with one call: three whole records.
	sealedAtOnce = 48 << 10
	// sealedSize is the size of the buffer for them, with what sealing adds to so many records, and some bytes of crypto/tls itself.
	sealedSize = 64 << 10
	// mostRecords is how many pieces of a batch are sealed at once, each of which is a record of its own.
	mostRecords = 64
	// mostControl is how many bytes of crypto/tls itself may wait to be sent: answers to new keys. A client that makes
	// more of them, and reads nothing, is not served any further.
	mostControl = 1 << 10
)

// errNoRecord says that no whole record has come. crypto/tls takes it for a time-out, after which it can be asked again.
var errNoRecord net.Error = noRecordError{}

type noRecordError struct{}

func (noRecordError) Error() string   { return "no record has come" }
func (noRecordError) Timeout() bool   { return true }
func (noRecordError) Temporary() bool { return true }

// errManyKeys ends a connection whose client asks for new keys again and again.
var errManyKeys = errors.New("the client has changed its keys too often, without reading what it was sent")

// tlsSocket encrypts for a rawSocket. It never waits, and holds no buffers of its own while it waits for requests; crypto/tls
// keeps one of the size of the largest record that has come.
//
// Reading: crypto/tls decrypts from what the socket has, until no whole record is left.
//
// Sending: some bytes of the batch are sealed (encrypted), and sent. If there is no room for all of them, the rest stays in the buffer, and
// the bytes of the batch that it stands for count as not sent: the next batch begins with them.
type tlsSocket struct {
	*rawSocket

	conn    *tls.Conn             // set at the end of the handshake
	buffers *sync.Pool            // of *[sealedSize]byte
	open    func(fd uintptr) bool // openReady as a function value, made once
	flush   func(fd uintptr) bool // flushReady as a function value, made once

	// These fields belong to the connection's goroutine, while it reads.
	fd      int  // of the call
	drained bool // the socket has given fewer bytes than it was asked for

	// These fields belong to the sender.
	counted int   // bytes of the batch that sealed stands for
	failure error // the result of flushReady

	held atomic.Int64 // the size of sealed

	mu       sync.Mutex        // guards the fields below
	control  []byte            // bytes of crypto/tls that are to be sent before sealed
	sealed   *[sealedSize]byte // nil: nothing waits to be sent
	from, to int               // sealed[from:to] is to be sent
}

// newTLSSocket chooses the socket for a connection with TLS.
func newTLSSocket(sock socket, buffers *sync.Pool) securedSocket { //nolint:ireturn // there are two kinds
	switch sock := sock.(type) {
	case *rawSocket:
		s := &tlsSocket{rawSocket: sock, buffers: buffers}
		s.open, s.flush = s.openReady, s.flushReady
		return s
	case *plainSocket:
		return sock
	}
	panic("BUG: a socket that cannot be encrypted")
}

// rawOf is the rawSocket of a socket; nil: it has none.
func rawOf(sock socket) *rawSocket {
	switch s := sock.(type) {
	case *rawSocket:
		return s
	case *tlsSocket:
		return s.rawSocket
	}
	return nil
}

// secure is of securedSocket.
func (s *tlsSocket) secure(conn *tls.Conn) dataSocket { //nolint:ireturn // of securedSocket
	s.conn = conn
	return s
}

func (*tlsSocket) sendsFiles() bool { return false }

func (s *tlsSocket) read(in *input) error {
	s.in = in
	for {
		s.err, s.short = nil, false
		if err := s.rc.Read(s.open); err != nil {
			return err
		}
		if !s.short {
			return s.err
		}
		if err := in.awaitBuffer(); err != nil {
			return err
		}
	}
}

// openReady decrypts the records that have come; if it returns false, the poller waits for more. It fills the input's buffer, as one read of
// a socket without encryption would.
func (s *tlsSocket) openReady(fd uintptr) bool {
	if !s.in.makeRoom() {
		s.short = true
		return true
	}
	s.fd, s.drained = int(fd), false
	room := s.in.freeRoom()
	total := 0
	for total < len(room) {
		n, err := s.conn.Read(room[total:])
		total += n
		if err != nil {
			if total == 0 && !errors.Is(err, errNoRecord) {
				s.err = err // with bytes before it, it comes again
				return true
			}
			break
		}
	}
	if total == 0 {
		s.in.prepareToWait()
		return false
	}
	s.in.addReceived(total)
	return true
}

// readRecords is of dataSocket. crypto/tls calls it in openReady.
func (s *tlsSocket) readRecords(p []byte) (int, error) {
	if s.drained {
		return 0, errNoRecord
	}
	for {
		n, err := syscall.Read(s.fd, p)
		switch {
		case n > 0:
			s.drained = n < len(p)
			return n, nil
		case n == 0 && err == nil:
			return 0, io.EOF
		case err == syscall.EAGAIN:
			s.drained = true
			return 0, errNoRecord
		case err != syscall.EINTR:
			return 0, err
		}
	}
}

// writeRecords is of dataSocket. crypto/tls calls it for the sender, one call at a time, and for itself.
func (s *tlsSocket) writeRecords(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed != nil {
		if len(p) > len(s.sealed)-s.to {
			return 0, errManyKeys
		}
		s.to += copy(s.sealed[s.to:], p)
		return len(p), nil
	}
	if len(s.control)+len(p) > mostControl {
		return 0, errManyKeys
	}
	s.control = append(s.control, p...)
	return len(p), nil
}

func (s *tlsSocket) send(b *sendBatch) (done int, err error) {
	for {
		if err := s.sendSealed(); err != nil {
			return done, err
		}
		done += s.counted
		s.counted = 0
		if s.counted, err = s.sealNext(b, done); s.counted == 0 || err != nil {
			return done, err
		}
	}
}

// sealNext seals the next bytes of a batch, behind the first skip ones, and returns how many.
func (s *tlsSocket) sealNext(b *sendBatch, skip int) (n int, err error) {
	records := 0
	for _, piece := range b.pieces {
		if skip >= len(piece) {
			skip -= len(piece)
			continue
		}
		piece = piece[skip:min(len(piece), skip+sealedAtOnce-n)]
		skip = 0
		if n == 0 {
			s.takeBuffer()
		}
		if _, err := s.conn.Write(piece); err != nil {
			return n, err
		}
		records++
		if n += len(piece); n == sealedAtOnce || records == mostRecords {
			break
		}
	}
	return n, nil
}

// takeBuffer takes a buffer for what is sealed next.
func (s *tlsSocket) takeBuffer() {
	buf, ok := s.buffers.Get().(*[sealedSize]byte)
	if !ok {
		buf = new([sealedSize]byte)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed, s.from, s.to = buf, 0, 0
	s.held.Store(sealedSize)
}

// sendSealed sends what is sealed, and gives the buffer back.
func (s *tlsSocket) sendSealed() error {
	for !s.dropSent() {
		s.failure = nil
		if err := s.rc.Write(s.flush); err != nil {
			return err
		}
		if s.failure != nil {
			return s.failure
		}
	}
	return nil
}

// dropSent gives the buffer back if everything was sent.
func (s *tlsSocket) dropSent() bool {
	s.mu.Lock()
	if len(s.control) > 0 || s.from < s.to {
		s.mu.Unlock()
		return false
	}
	s.giveBackAndUnlock()
	return true
}

// flushReady sends until there is no room. It always returns true, so that the poller does not wait.
func (s *tlsSocket) flushReady(fd uintptr) bool {
	s.mu.Lock()
	p, isControl := s.control, len(s.control) > 0
	if !isControl && s.sealed != nil {
		p = s.sealed[s.from:s.to]
	}
	s.mu.Unlock()
	for len(p) > 0 { // others only append behind p
		n, err := syscall.Write(int(fd), p)
		if err == syscall.EINTR {
			continue
		}
		n = max(n, 0)
		p = p[n:]
		s.mu.Lock()
		if isControl {
			s.control = s.control[n:]
		} else {
			s.from += n
		}
		s.mu.Unlock()
		if err != nil {
			s.failure = markAgain(err)
			return true
		}
	}
	return true
}

func (s *tlsSocket) isDelivered() bool { return s.heldBytes() == 0 && s.rawSocket.isDelivered() }

func (s *tlsSocket) sendEnd() {
	if s.conn == nil {
		return
	}
	if err := s.conn.CloseWrite(); err == nil {
		_ = s.sendSealed() // the client may be gone, or may not read
	}
}

func (s *tlsSocket) heldBytes() int64 { return s.held.Load() }

func (s *tlsSocket) drop() {
	s.mu.Lock()
	s.giveBackAndUnlock()
}

func (s *tlsSocket) giveBackAndUnlock() {
	buf := s.sealed
	s.sealed, s.from, s.to, s.control = nil, 0, 0, nil
	s.held.Store(0)
	s.mu.Unlock()
	if buf != nil {
		s.buffers.Put(buf)
	}
}
