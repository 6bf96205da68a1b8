package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// errGone is the end of a connection whose client has gone.
var errGone = errors.New("the client is gone")

// errAgain is returned by a socket that has no room now.
var errAgain = errors.New("the socket is full")

// errCold is returned by a socket that would have to wait for the disk.
var errCold = errors.New("a section is not in the page cache")

// errTruncated closes a connection when a section's file is shorter than the
// section: its length was sent already, and no other bytes must follow.
var errTruncated = errors.New("a file ended within a section of an answer")

// socket is how a connection reads and writes: through the kernel's readiness
// if that is possible, else through any net.Conn.
type socket interface {
	// read waits for bytes and puts them into the input. It returns
	// os.ErrDeadlineExceeded when the connection's read deadline has passed.
	read(in *input) error
	// isNonblocking tells that send never waits for the client, that it sends files as
	// they are, and that a poller can watch the socket.
	isNonblocking() bool
	// send sends a batch as far as there is room. It returns errAgain when there was
	// not room for all, and errCold when it would have to wait for the disk and must not.
	send(b *sendBatch) (int, error)
	// awaitRoom waits until there is some room again.
	awaitRoom() error
	// isDelivered tells that the client's system surely has all that was sent.
	isDelivered() bool
}

// sendBatch is sent by one call: pieces of memory, and behind them bytes of a file.
type sendBatch struct {
	pieces  [][]byte
	file    uintptr
	offset  int64
	fileLen int  // 0: there is no file
	mayWait bool // for the disk

	sys sysBatch
}

// peekSize is the size of the buffer in which a plain socket waits for bytes.
const peekSize = 1 << 10

// plainSocket serves any net.Conn (pipes, TLS, systems other than Linux) by calls that
// wait: reads on the connection's goroutine, writes on a helper of its output. The
// connection's goroutine must not wait in a write: a client that sends many requests
// before it reads an answer would wait for it, and it for the client (TestPipe).
type plainSocket struct {
	nc     net.Conn
	peek   []byte // takes the first bytes, so that an idle connection holds little
	filled bool   // the last read filled its buffer: the next one goes into the large one
}

func (s *plainSocket) read(in *input) error {
	if s.filled {
		if err := awaitRoomFor(in); err != nil {
			return err
		}
		n, err := s.nc.Read(in.freeRoom())
		if n == 0 {
			return err
		}
		in.addReceived(n)
		s.filled = in.filled
		return nil
	}
	in.prepareToWait()
	if s.peek == nil {
		s.peek = make([]byte, peekSize)
	}
	n, err := s.nc.Read(s.peek)
	if n == 0 {
		return err
	}
	s.filled = n == len(s.peek)
	for b := s.peek[:n]; len(b) > 0; {
		if err := awaitRoomFor(in); err != nil {
			return err
		}
		k := copy(in.freeRoom(), b)
		in.addReceived(k)
		b = b[k:]
	}
	return nil
}

// awaitRoomFor waits until the input has room.
func awaitRoomFor(in *input) error {
	for !in.makeRoom() {
		if err := in.awaitBuffer(); err != nil {
			return err
		}
	}
	return nil
}

func (*plainSocket) isNonblocking() bool { return false }

func (s *plainSocket) send(b *sendBatch) (int, error) {
	total := 0
	for _, piece := range b.pieces {
		n, err := s.nc.Write(piece)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (*plainSocket) awaitRoom() error { return nil }

func (*plainSocket) isDelivered() bool { return false }

// markGone marks an error of the network as the end of the client, which is nobody's
// fault; others, of files and limits, are as they were.
func markGone(err error) error {
	var op *net.OpError
	if errors.As(err, &op) || isClosed(err) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	for _, e := range []syscall.Errno{syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED, syscall.ETIMEDOUT, syscall.EHOSTUNREACH} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", errGone, err)
		}
	}
	return err
}

// isClosed tells that an error only means that a connection or listener was closed.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}
