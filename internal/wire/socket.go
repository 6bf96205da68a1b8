package wire

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// errGone says that the client has closed its connection, or cannot be reached.
var errGone = errors.New("the client is gone")

// errAgain says that a socket has no room now.
var errAgain = errors.New("the socket is full")

// errCold says that sending would have to wait for the disk.
var errCold = errors.New("a section is not in the page cache")

// errTruncated closes a connection if a section's file is shorter than the section. The
// section's length was sent already, and no other bytes must follow.
var errTruncated = errors.New("a file ended within a section of an answer")

// socket reads and sends for a connection. A rawSocket never waits in a system call, nor does a tlsSocket, which encrypts
// for one; a plainSocket works with any net.Conn.
type socket interface { //nolint:interfacebloat // three sockets, each of which needs all of it
	// read waits for bytes and puts them into the input. It returns
	// os.ErrDeadlineExceeded when the connection's read deadline has passed.
	read(in *input) error
	// isNonblocking tells whether send never waits for the client, and whether the idle poller can watch the socket.
	isNonblocking() bool
	// sendsFiles tells whether send can send files. Without it, sections are read into memory.
	sendsFiles() bool
	// send sends as much of a batch as there is room for. It returns errAgain if there is not
	// room for all, and errCold if it would have to wait for the disk and must not.
	send(b *sendBatch) (int, error)
	// awaitRoom waits until there is some room again.
	awaitRoom() error
	// isDelivered tells whether the client's system is known to have received all bytes.
	isDelivered() bool
	// sendEnd tells the client that nothing follows, as far as there is room. Only the sender may call it.
	sendEnd()
	// heldBytes is how much memory is held for bytes that were handed to send, and that it has not sent.
	heldBytes() int64
	// drop gives that memory back. It may be called by the last sender, or when there is none any more.
	drop()
}

// securedSocket is a socket whose connection can be encrypted.
type securedSocket interface {
	socket
	// secure has the socket read and send by a connection with TLS from now on, whose handshake is over. It returns what
	// that connection reads and writes with, without waiting; nil: it waits.
	secure(conn *tls.Conn) dataSocket
}

// dataSocket reads and writes records without waiting.
type dataSocket interface {
	readRecords(p []byte) (int, error)
	writeRecords(p []byte) (int, error)
}

// sendBatch is sent by one call: pieces of memory, and behind them bytes of a file.
type sendBatch struct {
	pieces  [][]byte
	file    uintptr
	offset  int64
	fileLen int  // 0: there is no file
	mayWait bool // send may wait for the disk

	sys sysBatch
}

// peekSize is the size of the buffer in which a plain socket waits for bytes.
const peekSize = 1 << 10

// plainSocket serves any net.Conn (pipes, TLS, systems other than Linux) with calls that wait:
// reads on the connection's goroutine, and writes on a helper of its output. If the
// connection's goroutine waited in a write, it and a client that sends many requests before it
// reads an answer would wait for each other (TestPipe).
type plainSocket struct {
	nc     net.Conn // with TLS the encrypted connection, from the end of the handshake on
	peek   []byte   // takes the first bytes, so that an idle connection holds little
	filled bool     // the last read has filled its buffer, so the next one uses the input's
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

func (*plainSocket) sendsFiles() bool { return false }

// secure is of securedSocket.
func (s *plainSocket) secure(conn *tls.Conn) dataSocket { //nolint:ireturn // of securedSocket
	s.nc = conn
	return nil
}

func (s *plainSocket) sendEnd() {
	if conn, ok := s.nc.(*tls.Conn); ok {
		_ = conn.CloseWrite() // the client may be gone
	}
}

func (*plainSocket) heldBytes() int64 { return 0 }

func (*plainSocket) drop() {}

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

// markGone wraps errors of the network in errGone, and returns others, of files and limits, as
// they are.
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

// isClosed tells whether an error only means that a connection or listener was closed.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}
