package peer

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

const (
	lengthSize = 4 // bytes of the length in front of each frame
	headSize   = 8 // bytes of the length and the correlation id of an answer

	requestHead   = 2 + 2 + 4 + 2 // bytes of a request's header without a client id
	maxHeaderTags = 64            // tagged fields of an answer's header; there are none today

	firstMemory = 1 << 20 // bytes of an answer for which there is memory before any has come
)

// message is a request to be sent.
type message struct {
	key, version int16
	flexible     bool // its header has tagged fields
	body         []byte
}

// size is how many bytes the message takes on the wire.
func (m *message) size() int {
	n := lengthSize + requestHead + len(m.body)
	if m.flexible {
		n++
	}
	return n
}

// appendFrame appends the frame of a request. It names no client.
func (m *message) appendFrame(b []byte, id int32) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(m.size()-lengthSize))
	b = binary.BigEndian.AppendUint16(b, uint16(m.key))
	b = binary.BigEndian.AppendUint16(b, uint16(m.version))
	b = binary.BigEndian.AppendUint32(b, uint32(id))
	b = append(b, 0xff, 0xff)
	if m.flexible {
		b = append(b, 0)
	}
	return append(b, m.body...)
}

// answerReader reads one answer behind its correlation id.
type answerReader struct {
	r     *bufio.Reader
	nc    readDeadliner // below r
	left  int           // bytes of the answer that were not read
	timed bool          // a deadline is set
}

// readDeadliner is a connection, of which reads fail after a time.
type readDeadliner interface{ SetReadDeadline(t time.Time) error }

// limitTime gives the other end some time for the next bytes of the answer. An answer that has begun is not
// waited for: whoever sends it has all of it.
func (a *answerReader) limitTime(n int) error {
	if a.r.Buffered() >= n {
		return nil
	}
	a.timed = true
	return a.nc.SetReadDeadline(time.Now().Add(partTime))
}

// endTime ends the limit: the next answer may be waited for.
func (a *answerReader) endTime() error {
	if !a.timed {
		return nil
	}
	return a.nc.SetReadDeadline(time.Time{})
}

// readHead reads the length and the correlation id of an answer.
func readHead(r io.Reader) (id int32, left int, err error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, 0, err
	}
	size := int32(binary.BigEndian.Uint32(head[:]))
	if size < headSize-lengthSize {
		return 0, 0, fmt.Errorf("%w: an answer of %d bytes", ErrProtocol, size)
	}
	return int32(binary.BigEndian.Uint32(head[lengthSize:])), int(size) - (headSize - lengthSize), nil
}

// ReadByte reads a byte of the header's tagged fields.
func (a *answerReader) ReadByte() (byte, error) {
	if a.left == 0 {
		return 0, fmt.Errorf("%w: the header of an answer is cut short", ErrProtocol)
	}
	a.left--
	return a.r.ReadByte()
}

// skipTags skips the tagged fields of the header.
func (a *answerReader) skipTags() error {
	if err := a.limitTime(a.left); err != nil {
		return err
	}
	count, err := binary.ReadUvarint(a)
	if err != nil {
		return err
	}
	if count > maxHeaderTags {
		return fmt.Errorf("%w: %d tagged fields in the header of an answer", ErrProtocol, count)
	}
	for range count {
		if _, err := binary.ReadUvarint(a); err != nil {
			return err
		}
		size, err := binary.ReadUvarint(a)
		if err != nil {
			return err
		}
		if size > uint64(a.left) {
			return fmt.Errorf("%w: a tagged field of %d bytes in the header of an answer", ErrProtocol, size)
		}
		if err := a.discard(int(size)); err != nil {
			return err
		}
	}
	return nil
}

// discard skips bytes of the answer.
func (a *answerReader) discard(n int) error {
	for a.left -= n; n > 0; {
		part := min(n, partSize)
		if err := a.limitTime(part); err != nil {
			return err
		}
		if _, err := a.r.Discard(part); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// readBody reads the rest of the answer, unless it is too large, into the memory of into if that suffices.
// More memory is taken as bytes come: a large answer is quickly announced.
func (a *answerReader) readBody(into []byte, most int) ([]byte, error) {
	n := a.left
	a.left = 0
	if n > most {
		return nil, describeLarge(n, most)
	}
	b := into[:0]
	if cap(b) == 0 {
		b = make([]byte, 0, min(n, firstMemory))
	}
	for len(b) < n {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(n, max(firstMemory, 2*cap(b)))), b...)
		}
		part := b[len(b):min(n, cap(b), len(b)+partSize)]
		if err := a.limitTime(len(part)); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(a.r, part); err != nil {
			return nil, err
		}
		b = b[:len(b)+len(part)]
	}
	return b, nil
}

func describeLarge(n, most int) error {
	return fmt.Errorf("%w: an answer of %d bytes, where at most %d are expected", ErrTooLarge, n, most)
}

// readSmall reads n bytes, unless they are too many.
func readSmall(r io.Reader, n, most int) ([]byte, error) {
	if n > most {
		return nil, describeLarge(n, most)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return b, nil
}
